//! A set of tools under their names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use indexmap::IndexMap;
use ocelli_data::ToolCall;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::error::for_model;
use crate::{
    Cache, Call, Deadline, Declared, Effort, Engines, EnginesConfig, Fatal, Images, Limits, RemoteTools,
    Reply, Tool, ToolError, ToolSpec, tools,
};

/// Tools by name, with the limits and engines that they share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    tools: IndexMap<String, Declared>,
    engines: Arc<Engines>,
    limits: Arc<Limits>,
    cache: Option<Arc<Cache>>,
}

impl Registry {
    /// No tools yet.
    pub fn empty(limits: Limits) -> Self {
        Self {
            tools: IndexMap::new(),
            engines: Arc::new(Engines::new(EnginesConfig::default())),
            limits: Arc::new(limits),
            cache: None,
        }
    }

    /// All tools of this crate that work without fetching anything, which is all but `detect`.
    pub fn standard(limits: Limits) -> Self {
        tools::add_all(Self::empty(limits))
    }

    /// Adds a tool; one of the same name is replaced.
    pub fn with<T: Tool>(self) -> Self {
        self.with_declared(Declared::of::<T>())
    }

    /// Adds a tool without a type.
    pub fn with_declared(mut self, tool: Declared) -> Self {
        self.tools.insert(tool.spec.name.clone(), tool);
        self
    }

    /// Adds the tools of a remote server; one of the same name is replaced.
    pub fn with_remote(self, remote: &RemoteTools) -> Self {
        remote.tools().iter().cloned().fold(self, Self::with_declared)
    }

    /// Other engines: another cache of decoded pictures, networks that were fetched.
    pub fn with_engines(mut self, config: EnginesConfig) -> Self {
        self.engines = Arc::new(Engines::new(config));
        self
    }

    /// Keeps results, records them, or replays them.
    pub fn with_cache(mut self, cache: Arc<Cache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Keeps the named tools, in the order named; an unknown name is an error that lists those there are.
    pub fn only<S: AsRef<str>>(mut self, names: &[S]) -> Result<Self, ToolError> {
        let mut kept = IndexMap::new();
        for name in names {
            let tool = self.tools.get(name.as_ref()).ok_or_else(|| self.unknown(name.as_ref()))?;
            kept.insert(name.as_ref().to_owned(), tool.clone());
        }
        self.tools = kept;
        Ok(self)
    }

    /// Bounds.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Networks and decoded pictures.
    pub fn engines(&self) -> &Arc<Engines> {
        &self.engines
    }

    /// Specifications in order.
    pub fn specs(&self) -> Vec<ToolSpec> {
        self.tools.values().map(|t| t.spec.clone()).collect()
    }

    /// One tool.
    pub fn declared(&self, name: &str) -> Option<&Declared> {
        self.tools.get(name)
    }

    /// Specification of one tool.
    pub fn spec(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.get(name).map(|t| &t.spec)
    }

    /// How much work a call of this tool is; none where there is no such tool, since it is only complained of.
    pub fn effort(&self, name: &str) -> Effort {
        self.tools.get(name).map_or(Effort::None, |t| t.effort)
    }

    /// The places for calls of this tool, where another program does the work; see [`Declared::elsewhere`].
    pub fn room(&self, name: &str) -> Option<Arc<Semaphore>> {
        self.tools.get(name)?.room.clone()
    }

    /// The tool list for a system prompt, in plain text.
    pub fn prompt(&self) -> String {
        crate::describe::prompt(&self.specs())
    }

    /// The complaint about a name that is not here.
    pub fn unknown(&self, name: &str) -> ToolError {
        unknown(name, self.tools.keys().map(String::as_str))
    }

    /// Checks names and types of a call without running it.
    pub fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        let tool = self.tools.get(&call.name).ok_or_else(|| self.unknown(&call.name))?;
        check_size(&call.arguments, &self.limits)?;
        crate::arguments::check(&tool.spec, &call.arguments)
    }

    /// Runs a call on this thread. Never panics: a tool that does so is reported as [`Fatal::Broken`].
    pub fn run(&self, call: &ToolCall, images: &Images, deadline: &Deadline) -> Result<Reply, ToolError> {
        let Some((cache, key)) = self.cache.as_ref().zip(Cache::key(call, images)) else {
            return self.run_uncached(call, images, deadline);
        };
        if let Some(kept) = cache.get(&call.name, key)? {
            return kept.map_err(ToolError::ForModel);
        }
        let outcome = self.run_uncached(call, images, deadline);
        cache.put(&call.name, key, &outcome)?;
        outcome
    }

    fn run_uncached(
        &self,
        call: &ToolCall,
        images: &Images,
        deadline: &Deadline,
    ) -> Result<Reply, ToolError> {
        let tool = self.tools.get(&call.name).ok_or_else(|| self.unknown(&call.name))?;
        check_size(&call.arguments, &self.limits)?;
        let context =
            Call { tool: &call.name, images, engines: &self.engines, limits: &self.limits, deadline };
        context.check()?;
        // Tools keep no state of their own, and the shared caches are valid after each operation.
        let ran = catch_unwind(AssertUnwindSafe(|| (tool.run)(call.arguments.clone(), &context)));
        let mut reply = ran.unwrap_or_else(|panic| {
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
            Err(Fatal::Broken { tool: call.name.clone(), why }.into())
        })?;
        cut_text(&mut reply.text, self.limits.text_bytes);
        Ok(reply)
    }
}

/// The complaint about a name that is none of `names`.
pub(crate) fn unknown<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> ToolError {
    let shown: String = name.chars().take(40).collect();
    let names: Vec<&str> = names.collect();
    for_model(format!("there is no tool `{shown}`; the tools are {}", names.join(", ")))
}

fn check_size(arguments: &Map<String, Value>, limits: &Limits) -> Result<(), ToolError> {
    let size = arguments.iter().map(|(k, v)| k.len() + weight(v)).sum::<usize>();
    match size > limits.argument_bytes {
        true => Err(for_model(format!(
            "the arguments have {size} bytes, more than the limit of {}",
            limits.argument_bytes
        ))),
        false => Ok(()),
    }
}

/// Roughly the number of bytes that a value takes as JSON, without writing it.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(s) => s.len() + 2,
        Value::Array(items) => items.iter().map(|v| weight(v) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + weight(v) + 4).sum::<usize>() + 2,
    }
}

fn cut_text(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let total = text.len();
    let at = (0..=limit).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text.truncate(at);
    text.push_str(&format!("\n[cut off: {at} of {total} bytes shown]"));
}
