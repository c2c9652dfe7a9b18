//! Which tools rollouts have, as the table `tools` of a configuration: the same one for `ocelli rollout`, the trainers and
//! pipelines.
//!
//! ```toml
//! tools = ["read_axis", "measure"]        # tools of this program, in the order in which prompts list them; or in full:
//!
//! [tools]
//! names = ["crop", "detect", "sam_segment"]       # left out: all of this program but `detect`, then those of the servers
//! remote = [{ url = "http://127.0.0.1:8000/mcp", prefix = "sam_", only = ["segment"], token_env = "SAM_TOKEN" }]
//! threads = 4
//!
//! # or, in place of this program's tools, those of servers started by `ocelli tools serve`, which share the calls:
//! # servers = ["http://tools-1:7070", { url = "http://tools-2:7070", token_env = "TOOLS_TOKEN" }]
//! ```
//!
//! With `record = "DIR"` every call and what it led to is written to a directory; with `replay = "DIR"` calls are answered from
//! there alone, bit by bit, and neither servers nor networks are needed any more.
//!
//! Every server is asked for its tools when the table is loaded, so that one that cannot be reached is told of before
//! anything is rolled out or trained. A token is named by the variable or the file that holds it, and never stands in a
//! configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ocelli_data::io::{IoError, read_bounded, write_atomic};
use ocelli_tools::{
    Cache, Client, Declared, Endpoint, EnginesConfig, Fatal, Limits, McpEndpoint, OcrNetwork, Registry,
    RemoteConfig, RemoteTools, Tool, ToolError, ToolSpec, tools,
};
use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::toolbox::{LocalTools, Toolbox};

/// Which tools, and where they run: a list of names, or this table.
#[derive(Clone, Debug, PartialEq, Eq, schemars::JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct ToolSource {
    /// Names in the order in which prompts list them, those of other servers with their prefix. Left out: all tools of this
    /// program but `detect`, and all of the servers.
    pub names: Option<Vec<String>>,
    /// Networks that read text; `small` is to be fetched.
    pub ocr: OcrNetwork,
    /// Servers of other tools, over the Model Context Protocol; their tools stand beside those of this program.
    pub remote: Vec<RemoteSource>,
    /// Servers of this program's kind, over its JSON route, which share the calls; the tools of this process where empty.
    pub servers: Vec<ServerSource>,
    /// Calls of this program's tools that are much work (those that read texts or search a picture) and run together; as many
    /// that are little work run beside them. Calls that only wait for another server need none of these places.
    pub threads: usize,
    /// Directory into which every call and its result is written.
    pub record: Option<PathBuf>,
    /// Directory of such a recording, from which alone calls are answered.
    pub replay: Option<PathBuf>,
}

/// The table as it is written in full.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, rename = "tools")]
struct Table {
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    ocr: OcrNetwork,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remote: Vec<RemoteSource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    servers: Vec<ServerSource>,
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<PathBuf>,
}

impl Default for Table {
    fn default() -> Self {
        let (remote, servers) = (Vec::new(), Vec::new());
        Self {
            names: None,
            ocr: OcrNetwork::Embedded,
            remote,
            servers,
            threads: 4,
            record: None,
            replay: None,
        }
    }
}

impl Default for ToolSource {
    fn default() -> Self {
        Table::default().into()
    }
}

impl From<Table> for ToolSource {
    fn from(Table { names, ocr, remote, servers, threads, record, replay }: Table) -> Self {
        Self { names, ocr, remote, servers, threads, record, replay }
    }
}

/// A list of names stands for the table with these names alone.
impl<'de> Deserialize<'de> for ToolSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ToolSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names of tools, or a table of names, remote, servers, ocr and threads")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ToolSource, A::Error> {
                let names = Deserialize::deserialize(value::SeqAccessDeserializer::new(list))?;
                Ok(ToolSource { names: Some(names), ..ToolSource::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<ToolSource, A::Error> {
                Table::deserialize(value::MapAccessDeserializer::new(table)).map(ToolSource::from)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for ToolSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(names) = self.names.as_ref().filter(|names| *self == ToolSource::of(names)) {
            return names.serialize(serializer);
        }
        let Self { names, ocr, remote, servers, threads, record, replay } = self.clone();
        Table { names, ocr, remote, servers, threads, record, replay }.serialize(serializer)
    }
}

/// A server of other tools, over the Model Context Protocol: its address, or the program that is it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteSource {
    /// Put before the names of its tools; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Address of its protocol route, such as `http://127.0.0.1:7070/mcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Variable of the environment that holds the bearer token for the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Program and arguments instead of an address: it speaks over its standard input and output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Names of the tools that are taken, as the server calls them; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

/// A server started by `ocelli tools serve`: its address, alone or in a table with its token.
#[derive(Clone, Debug, PartialEq, Eq, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ServerSource {
    /// Such as `http://127.0.0.1:7070`.
    pub url: String,
    /// Variable of the environment that holds the bearer token.
    pub token_env: Option<String>,
    /// File that holds it.
    pub token_file: Option<PathBuf>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename = "server")]
struct ServerTable {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for ServerSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ServerSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the address of a tool server, or a table of url, token_env and token_file")
            }

            fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<ServerSource, E> {
                Ok(ServerSource { url: url.to_owned(), token_env: None, token_file: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<ServerSource, A::Error> {
                let ServerTable { url, token_env, token_file } =
                    Deserialize::deserialize(value::MapAccessDeserializer::new(table))?;
                Ok(ServerSource { url, token_env, token_file })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for ServerSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { url, token_env, token_file } = self.clone();
        match (&token_env, &token_file) {
            (None, None) => url.serialize(serializer),
            _ => ServerTable { url, token_env, token_file }.serialize(serializer),
        }
    }
}

/// Why the tools of a configuration cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ToolSourceError {
    /// The table contradicts itself.
    #[error("{0}")]
    Table(String),
    /// A server does not answer, or not as it should.
    #[error("the tool server {server} cannot be used: {why}; start it, or {named}")]
    Server {
        /// Its address or its command.
        server: String,
        /// What happened.
        why: String,
        /// Where it is named.
        named: Named,
    },
    /// A token is not where the table says.
    #[error("the variable {0}, which should hold the token of a tool server, is not set")]
    NoToken(String),
    /// A token's file.
    #[error("the token of a tool server: {0}")]
    TokenFile(#[from] IoError),
    /// A token's file holds no token.
    #[error("{}, which should hold the token of a tool server, {why}", path.display())]
    BadToken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no tool of a name.
    #[error(transparent)]
    Unknown(#[from] ToolError),
    /// A recording cannot be written or read.
    #[error("the recording {}: {why}", path.display())]
    Recording {
        /// Its directory.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The asynchronous runtime.
    #[error("cannot start the asynchronous runtime: {0}")]
    Runtime(std::io::Error),
}

/// Where a server is named, for those who have to correct it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// In this key of a configuration.
    Key(&'static str),
    /// By these flags of a command.
    Flag(&'static str),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "take it out of `{key}`"),
            Self::Flag(flag) => write!(f, "give another one with {flag}"),
        }
    }
}

/// Longest time until a server that is named by its address has listed its tools.
const ADDRESS: Duration = Duration::from_secs(10);
/// The same for a program: it may have to load half a Python first.
const PROGRAM: Duration = Duration::from_secs(30);

/// Memory for results while they are recorded, in bytes.
const RECORDED: usize = 256 << 20;
/// Declarations of the tools, in the directory of a recording.
const SPECS: &str = "tools.json";

/// Looks up a variable of the environment; libraries do not read it themselves.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

impl ToolSource {
    /// Tools of this program by name.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Self {
        let names = names.iter().map(|n| n.as_ref().to_owned()).collect();
        Self { names: Some(names), ..Self::default() }
    }

    /// No tools.
    pub fn none() -> Self {
        Self { names: Some(Vec::new()), ..Self::default() }
    }

    /// True where no tool is offered.
    pub fn is_none(&self) -> bool {
        self.names.as_ref().is_some_and(Vec::is_empty)
    }

    /// What of it decides the content of rollouts: which tools there are under which names, not where they run or how fast.
    pub fn decides(&self) -> Value {
        match (self.ocr, &self.remote[..]) {
            (OcrNetwork::Embedded, []) => json!(self.names),
            (ocr, remote) => {
                let remote: Vec<_> = remote.iter().map(|r| json!([r.prefix, r.only])).collect();
                json!([self.names, ocr, remote])
            }
        }
    }

    /// True where the network of `detect` is needed.
    pub fn wants_detect(&self) -> bool {
        self.runs_here() && self.names.iter().flatten().any(|n| n == tools::Detect::NAME)
    }

    /// True where tools of this program run in this process.
    pub fn runs_here(&self) -> bool {
        self.servers.is_empty() && self.replay.is_none()
    }

    /// The toolbox, `None` where no tool is offered. `engines` holds the networks that were fetched.
    ///
    /// Blocks until every server has answered or failed to, so it is not for asynchronous code.
    pub fn load(
        &self,
        limits: &Limits,
        engines: EnginesConfig,
        variable: Variable<'_>,
    ) -> Result<Option<Arc<dyn Toolbox>>, ToolSourceError> {
        if self.is_none() {
            return Ok(None);
        }
        if let Some(dir) = &self.replay {
            return self.replayed(dir, limits).map(Some);
        }
        if !self.servers.is_empty() {
            let client = self.clients(limits, variable)?;
            let specs = client.specs();
            return Ok(Some(Arc::new(match self.recording(&specs)? {
                Some(cache) => client.with_cache(cache),
                None => client,
            })));
        }
        let engines = EnginesConfig { ocr: self.ocr, ..engines };
        let mut registry = Registry::standard(limits.clone()).with_engines(engines);
        if self.wants_detect() {
            registry = registry.with::<tools::Detect>();
        }
        registry = with_remote(registry, &self.remote, variable, &|_| Named::Key("tools.remote"))?;
        if let Some(names) = &self.names {
            registry = registry.only(names)?;
        }
        if let Some(cache) = self.recording(&registry.specs())? {
            registry = registry.with_cache(cache);
        }
        Ok(Some(Arc::new(LocalTools::new(Arc::new(registry), self.threads))))
    }

    /// The same with what is part of this program: no fetched networks, no tokens.
    pub fn load_embedded(&self) -> Result<Option<Arc<dyn Toolbox>>, ToolSourceError> {
        self.load(&Limits::default(), EnginesConfig::default(), &|_| None)
    }

    /// The recording to be written, with what the tools are beside it.
    fn recording(&self, specs: &[ToolSpec]) -> Result<Option<Arc<Cache>>, ToolSourceError> {
        let Some(dir) = &self.record else { return Ok(None) };
        let failed = |why: String| ToolSourceError::Recording { path: dir.clone(), why };
        let text = serde_json::to_vec_pretty(specs).map_err(|e| failed(e.to_string()))?;
        let cache = Cache::record(dir, RECORDED).map_err(|e| failed(e.to_string()))?;
        write_atomic(&dir.join(SPECS), &text).map_err(|e| failed(e.to_string()))?;
        Ok(Some(Arc::new(cache)))
    }

    /// Tools that are what a recording says, and answer what it holds.
    fn replayed(&self, dir: &Path, limits: &Limits) -> Result<Arc<dyn Toolbox>, ToolSourceError> {
        let failed = |why: String| ToolSourceError::Recording { path: dir.to_owned(), why };
        if self.record.is_some() {
            return Err(ToolSourceError::Table("tools: a run records or replays, not both".into()));
        }
        let text = read_bounded(&dir.join(SPECS), 16 << 20).map_err(|e| failed(e.to_string()))?;
        let specs: Vec<ToolSpec> =
            serde_json::from_slice(&text).map_err(|e| failed(format!("{SPECS}: {e}")))?;
        let cache = Cache::replay(dir, limits.clone()).map_err(|e| failed(e.to_string()))?;
        // Tools of this program complain of wrong arguments as they did; of the others there is only what they said.
        let here = Registry::standard(limits.clone()).with::<tools::Detect>();
        let declared = |spec: ToolSpec| match here.declared(&spec.name) {
            Some(tool) if *tool.spec() == spec => tool.clone(),
            _ => Declared::recorded(spec),
        };
        let empty = Registry::empty(limits.clone());
        let registry = specs.into_iter().map(declared).fold(empty, Registry::with_declared);
        let mut registry = registry.with_cache(Arc::new(cache));
        if let Some(names) = &self.names {
            registry = registry.only(names)?;
        }
        Ok(Arc::new(LocalTools::new(Arc::new(registry), self.threads)))
    }

    fn clients(&self, limits: &Limits, variable: Variable<'_>) -> Result<Client, ToolSourceError> {
        if !self.remote.is_empty() {
            let why = "tools.servers cannot be given together with tools.remote: a server offers what it offers, and \
                       `ocelli tools serve --remote` lets it offer the tools of others";
            return Err(ToolSourceError::Table(why.into()));
        }
        let endpoint = |s: &ServerSource| -> Result<Endpoint, ToolSourceError> {
            let token = token(s.token_env.as_deref(), s.token_file.as_deref(), variable)?;
            Ok(Endpoint { url: s.url.clone(), token })
        };
        let endpoints: Vec<Endpoint> = self.servers.iter().map(endpoint).collect::<Result<_, _>>()?;
        let runtime = tokio::runtime::Runtime::new().map_err(ToolSourceError::Runtime)?;
        let client = runtime.block_on(Client::connect(&endpoints, limits.clone()));
        let client = client.map_err(|fatal| {
            let urls: Vec<&str> = endpoints.iter().map(|e| e.url.as_str()).collect();
            unusable(urls.join(", "), fatal, Named::Key("tools.servers"))
        })?;
        Ok(match &self.names {
            Some(names) => client.only(names)?,
            None => client,
        })
    }
}

fn unusable(server: String, fatal: Fatal, named: Named) -> ToolSourceError {
    let why = match fatal {
        Fatal::Remote { why, .. } | Fatal::NoServer { why, .. } => why,
        other => other.to_string(),
    };
    ToolSourceError::Server { server, why, named }
}

/// Adds the tools of other servers to those of a registry. `named` says where a server was named.
pub fn with_remote(
    mut registry: Registry,
    servers: &[RemoteSource],
    variable: Variable<'_>,
    named: &dyn Fn(&RemoteSource) -> Named,
) -> Result<Registry, ToolSourceError> {
    for server in servers {
        let config = server.config(variable)?;
        let name = config.endpoint.to_string();
        let remote = RemoteTools::connect(&config).map_err(|fatal| unusable(name, fatal, named(server)))?;
        for spec in remote.specs() {
            if registry.spec(&spec.name).is_some() {
                return Err(ToolSourceError::Table(format!(
                    "{} offers a tool called `{}`, and there is one of that name; give the server a prefix",
                    config.endpoint, spec.name
                )));
            }
        }
        registry = registry.with_remote(&remote);
    }
    Ok(registry)
}

impl RemoteSource {
    fn config(&self, variable: Variable<'_>) -> Result<RemoteConfig, ToolSourceError> {
        let endpoint = match (&self.url, self.command.split_first()) {
            (Some(url), None) if url.starts_with("http://") || url.starts_with("https://") => {
                let token = token(self.token_env.as_deref(), self.token_file.as_deref(), variable)?;
                McpEndpoint::Http { url: url.clone(), token }
            }
            (Some(url), None) => {
                let why = format!("`{url}` is no http address; a program is named as a command");
                return Err(ToolSourceError::Table(why));
            }
            (None, Some((program, args))) => {
                McpEndpoint::Process { program: program.into(), args: args.to_vec() }
            }
            _ => {
                let why = "a remote tool server is named by its address or by its command: one of the two";
                return Err(ToolSourceError::Table(why.into()));
            }
        };
        let (prefix, only) = (self.prefix.clone(), self.only.clone());
        let connect = if self.url.is_some() { ADDRESS } else { PROGRAM };
        Ok(RemoteConfig { prefix, only, connect, ..RemoteConfig::new(endpoint) })
    }
}

/// The bearer token that a variable or a file holds; `None` where neither is named.
fn token(
    name: Option<&str>,
    file: Option<&Path>,
    variable: Variable<'_>,
) -> Result<Option<String>, ToolSourceError> {
    match (name, file) {
        (None, None) => Ok(None),
        (Some(name), None) => match variable(name).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()) {
            Some(token) => Ok(Some(token)),
            None => Err(ToolSourceError::NoToken(name.to_owned())),
        },
        (None, Some(path)) => token_of(path).map(Some),
        (Some(_), Some(_)) => Err(ToolSourceError::Table(
            "the token of a tool server is in a variable or in a file: name one of the two".into(),
        )),
    }
}

/// A bearer token from its file.
pub fn token_of(path: &Path) -> Result<String, ToolSourceError> {
    let bad = |why| ToolSourceError::BadToken { path: path.to_owned(), why };
    let token = String::from_utf8(read_bounded(path, 4096)?).map_err(|_| bad("is not text"))?;
    match token.trim() {
        "" => Err(bad("is empty")),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: serde_json::Value) -> Result<ToolSource, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn a_list_is_a_table_of_names_and_is_written_as_one() {
        let list = read(json!(["crop", "measure"])).unwrap();
        assert_eq!(list, ToolSource::of(&["crop", "measure"]));
        assert_eq!(serde_json::to_value(&list).unwrap(), json!(["crop", "measure"]));
        let full = json!({
            "names": ["crop"], "ocr": "small", "threads": 2,
            "remote": [{"url": "http://h/mcp", "token_env": "T"}],
        });
        let table = read(full.clone()).unwrap();
        assert_eq!(serde_json::to_value(&table).unwrap(), full);
        let servers = json!(["http://a", {"url": "http://b", "token_env": "T"}]);
        let table = read(json!({"servers": servers})).unwrap();
        assert_eq!(table.servers[1].token_env.as_deref(), Some("T"));
        assert_eq!(serde_json::to_value(&table).unwrap()["servers"], servers);
        assert_eq!(read(serde_json::to_value(ToolSource::default()).unwrap()), Ok(ToolSource::default()));
    }

    #[test]
    fn mistakes_are_told_by_name() {
        assert!(read(json!("crop")).unwrap_err().contains("a list of names of tools"));
        assert!(read(json!({"nmaes": []})).unwrap_err().contains("unknown field `nmaes`"));
        assert!(read(json!({"servers": [{"adress": "x"}]})).unwrap_err().contains("unknown field `adress`"));
        let fails = |source: ToolSource| match source.load_embedded() {
            Ok(_) => "loaded".to_owned(),
            Err(e) => e.to_string(),
        };
        assert!(fails(ToolSource::of(&["mesure"])).contains("mesure"));
        let remote = |remote| ToolSource { remote: vec![remote], ..ToolSource::default() };
        assert!(fails(remote(RemoteSource::default())).contains("one of the two"));
        let url = Some("http://127.0.0.1:1/mcp".to_owned());
        let nameless =
            RemoteSource { url: url.clone(), token_env: Some("NO_SUCH".into()), ..Default::default() };
        assert!(fails(remote(nameless)).contains("NO_SUCH"));
        let absent = fails(remote(RemoteSource { url, ..Default::default() }));
        assert!(absent.contains("http://127.0.0.1:1/mcp") && absent.contains("tools.remote"), "{absent}");
        let server = ServerSource { url: "http://127.0.0.1:1".into(), token_env: None, token_file: None };
        let absent = fails(ToolSource { servers: vec![server], ..ToolSource::default() });
        assert!(absent.contains("http://127.0.0.1:1") && absent.contains("tools.servers"), "{absent}");
        assert!(ToolSource::none().load_embedded().unwrap().is_none());
    }
}
