//! Tools of other servers, reached over the Model Context Protocol: heavier ones (SAM 2, GroundingDINO, Molmo) that run
//! on another machine or in another language stand in the [`crate::Registry`] beside the local ones, under the same
//! declaration.
//!
//! A remote tool that takes a picture has an argument for it (see [`PictureAs`] for which one is taken and how the
//! picture is written). The policy sees it as `image` and names pictures as `img_k`, as for any other tool. Of the answer,
//! text and the first picture count. The protocol has no word for how the new picture lies on the old one: a picture of
//! the same size is taken to have the same frame, the result's `_meta` may say it as `"ocelli/to_parent": [a, b, c, d, e,
//! f]`, and otherwise it is not known.
//!
//! Every call has a deadline, at which the server is told to stop; answers have a limit in bytes; a server that fails
//! three times in a row is left alone for a while, and a lost connection is made anew with the next call.

mod answer;
mod declare;
mod link;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::CallToolRequestParams;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

pub(crate) use crate::remote::answer::{OURS, TO_PARENT};
use crate::remote::declare::Remote;
pub(crate) use crate::remote::declare::{EXAMPLE, PLUMBING};
use crate::remote::link::{Link, Trouble};
use crate::{Call, Declared, Fatal, Limits, Reply, ToolError, ToolSpec};

/// Where a server is.
#[derive(Clone, Debug, PartialEq)]
pub enum McpEndpoint {
    /// Streamable HTTP.
    Http {
        /// Such as `http://127.0.0.1:7070/mcp`.
        url: String,
        /// Bearer token, if it wants one.
        token: Option<String>,
    },
    /// A program that is started and spoken to over its standard input and output. What it writes to standard error goes
    /// to ours.
    Process {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
}

impl std::fmt::Display for McpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { url, .. } => f.write_str(url),
            Self::Process { program, args } => write!(f, "{} {}", program.display(), args.join(" ")),
        }
    }
}

/// How a server wants a picture written into an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureAs {
    /// Base64 alone.
    Base64,
    /// `data:image/png;base64,..`
    DataUrl,
}

/// How a server's tools are taken.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Where it is.
    pub endpoint: McpEndpoint,
    /// Put before the name of each tool, so that several servers can offer tools of the same name.
    pub prefix: String,
    /// Names (without prefix) of the tools to take; all where empty.
    pub only: Vec<String>,
    /// The argument that takes the picture, and how; found by its name and description where left out.
    pub picture: Option<(String, PictureAs)>,
    /// Longest time to connect and list the tools.
    pub connect: Duration,
    /// Longest time of one call, where the caller leaves more.
    pub call: Duration,
    /// Calls under way at once; further ones wait.
    pub concurrent: usize,
    /// Largest message from the server, in bytes.
    pub message_bytes: usize,
}

impl RemoteConfig {
    /// The defaults: all tools, no prefix, 10 s to connect, 120 s a call, 16 at once, room for the largest picture.
    pub fn new(endpoint: McpEndpoint) -> Self {
        Self {
            endpoint,
            prefix: String::new(),
            only: Vec::new(),
            picture: None,
            connect: Duration::from_secs(10),
            call: Duration::from_secs(120),
            concurrent: 16,
            message_bytes: Limits::default().image_bytes / 3 * 4 + (1 << 20),
        }
    }
}

/// The tools of one remote server. The connection lives as long as this or one of its tools.
#[derive(Clone, Debug)]
pub struct RemoteTools {
    tools: Vec<Declared>,
}

impl RemoteTools {
    /// Connects and asks for the tools. Blocks for at most `config.connect`, so not to be called on an asynchronous thread.
    ///
    /// # Errors
    ///
    /// [`Fatal::Remote`] where the server cannot be reached, or offers a tool that cannot be declared (its name is not a
    /// name, its schema is no object), or does not offer one that is asked for.
    pub fn connect(config: &RemoteConfig) -> Result<Self, Fatal> {
        let server: Arc<str> = config.endpoint.to_string().into();
        let (link, listed) = Link::open(config)?;
        let link = Arc::new(link);
        let offered = || listed.iter().map(|t| t.name.as_ref()).collect::<Vec<_>>().join(", ");
        if let Some(missing) = config.only.iter().find(|n| listed.iter().all(|t| t.name != n.as_str())) {
            let why = format!("it does not offer `{missing}`, but {}", offered());
            return Err(Fatal::Remote { server: server.to_string(), why });
        }
        let wanted = |name: &str| config.only.is_empty() || config.only.iter().any(|n| n == name);
        let mut tools = Vec::new();
        let room = Arc::new(Semaphore::new(config.concurrent.max(1)));
        for tool in listed.iter().filter(|t| wanted(&t.name) && !declare::is_plumbing(t)) {
            let remote = declare::declare(tool, config)
                .map_err(|why| Fatal::Remote { server: server.to_string(), why })?;
            let spec = remote.spec.clone();
            let (link, server, longest) = (link.clone(), server.clone(), config.call);
            let declared = Declared::dynamic(spec, move |arguments, call| {
                run(&remote, &link, &server, longest, arguments, call)
            });
            tools.push(declared.elsewhere(room.clone()));
        }
        Ok(Self { tools })
    }

    /// The tools.
    pub fn tools(&self) -> &[Declared] {
        &self.tools
    }

    /// Their specifications.
    pub fn specs(&self) -> Vec<ToolSpec> {
        self.tools.iter().map(|t| t.spec.clone()).collect()
    }
}

fn run(
    remote: &Remote,
    link: &Link,
    server: &str,
    longest: Duration,
    mut arguments: Map<String, Value>,
    call: &Call<'_>,
) -> Result<Reply, ToolError> {
    crate::arguments::check(&remote.spec, &arguments)?;
    let mut parent = None;
    if let Some((name, picture_as)) = &remote.picture
        && let Some(Value::String(image)) = arguments.shift_remove("image")
    {
        let (_, picture) = call.images.resolve(&image)?;
        arguments.insert(name.clone(), Value::String(declare::written(picture, *picture_as)));
        parent = Some(picture);
    }
    let params = CallToolRequestParams::new(remote.name.clone()).with_arguments(arguments);
    match link.call(params, longest, call) {
        Ok(result) => answer::reply(result, server, parent, call.limits),
        Err(Trouble::Late) => Err(Fatal::Deadline { tool: call.tool.to_owned() }.into()),
        Err(Trouble::Full { waiting }) => Err(Fatal::Busy { waiting, retry_after_ms: 100 }.into()),
        Err(Trouble::Complaint(why)) => Err(ToolError::ForModel(why)),
        Err(Trouble::Server(why)) => Err(Fatal::Remote { server: server.to_owned(), why }.into()),
    }
}
