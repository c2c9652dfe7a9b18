//! The policy behind an OpenAI-compatible endpoint. It hears and says messages; tokens stay on the other side.
//!
//! With [`CallFormat::OpenAi`] tools travel with each request and calls come back beside the text; with the other
//! formats calls stand in the text, as for a local model. Retries, rate limits and adaptive concurrency are the
//! [`Endpoint`]'s; the engine cuts a turn off at the trajectory's deadline, whatever the endpoint does.
//!
//! A refusal that every other request will meet as well (wrong key, address or model) pauses the run, so that no
//! trajectory is spent on it: [`EndpointPolicy::refusal`] says what it was.

use std::sync::{Arc, Mutex, PoisonError};

use ocelli_data::{Message, Part, Role, ToolCall};
use serde_json::Map;

use crate::endpoint::{ChatRequest, Completion, Endpoint, Outcome, SamplingParams, ToolSchema, thinking};
use crate::formats::{CallFormat, Parsed, known_call, read_arguments};
use crate::pictures::Pictures;
use crate::policy::{BoxFuture, Conversation, Policy, PolicyError, Said, Start, Stop, Turn};

/// Speaks through an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct EndpointPolicy {
    endpoint: Endpoint,
    sampling: SamplingParams,
    format: CallFormat,
    refusal: Arc<Mutex<Option<String>>>,
}

impl EndpointPolicy {
    /// Asks `endpoint` with `sampling`; the limit on tokens and the seed are set for each turn.
    pub fn new(endpoint: Endpoint, sampling: SamplingParams, format: CallFormat) -> Self {
        Self { endpoint, sampling, format, refusal: Arc::default() }
    }

    /// The client, for its account of requests and costs.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Why the endpoint will refuse every request, once it has said so; the run is paused then.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Policy for EndpointPolicy {
    fn open(&self, start: Start) -> Result<Box<dyn Conversation>, PolicyError> {
        let schema = |s: &ocelli_tools::ToolSpec| ToolSchema {
            name: s.name.clone(),
            description: s.description.clone(),
            parameters: s.parameters.clone(),
        };
        let tools = match self.format {
            CallFormat::OpenAi => start.tools.iter().map(schema).collect(),
            _ => Vec::new(),
        };
        let mut history = start.heard;
        history.iter_mut().for_each(forget_thinking);
        Ok(Box::new(EndpointConversation {
            policy: self.clone(),
            tools,
            history,
            pictures: start.pictures,
            seed: start.seed,
        }))
    }
}

struct EndpointConversation {
    policy: EndpointPolicy,
    tools: Vec<ToolSchema>,
    /// As the endpoint hears it: without the thinking of earlier turns.
    history: Vec<Message>,
    pictures: Arc<Pictures>,
    seed: u64,
}

impl EndpointConversation {
    async fn speak(&mut self, turn: Turn<'_>) -> Result<Said, PolicyError> {
        self.history.extend_from_slice(turn.new);
        let limit = u32::try_from(turn.max_tokens).unwrap_or(u32::MAX);
        let own = self.policy.sampling.max_tokens.unwrap_or(u32::MAX);
        // 53 bits survive every JSON reader.
        let turns = self.history.iter().filter(|m| m.role == Role::Assistant).count() as u64;
        let seed = self.seed.wrapping_add(turns) >> 11;
        let sampling = SamplingParams {
            max_tokens: Some(limit.min(own)),
            seed: Some(seed),
            ..self.policy.sampling.clone()
        };
        let request = ChatRequest { messages: &self.history, sampling: &sampling, tools: &self.tools };
        let pictures = self.pictures.clone();
        let image = move |hash| pictures.get(hash).map(|b| b.to_vec()).map_err(|e| e.to_string());
        let completion = match self.policy.endpoint.chat(request, image).await {
            Ok(completion) => completion,
            Err(e) if e.is_fatal() => {
                *self.policy.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
                turn.control.pause();
                return Ok(Said { message: Message::assistant(""), calls: None, stop: Stop::Paused });
            }
            Err(e) => return Err(PolicyError(e.to_string())),
        };
        let said = self.said(completion);
        let mut heard = said.message.clone();
        forget_thinking(&mut heard);
        self.history.push(heard);
        Ok(said)
    }

    fn said(&self, completion: Completion) -> Said {
        let outcome = completion.outcome();
        let names: Vec<&str> = self.tools.iter().map(|t| t.name.as_str()).collect();
        let mut message = completion.message();
        if let Some(refusal) = completion.refusal.filter(|_| message.content.iter().all(is_blank)) {
            message.content = vec![Part::text(refusal)];
        }
        let mut calls = Parsed { prose: message.plain_text().trim().to_owned(), ..Parsed::default() };
        for call in completion.tool_calls {
            calls.calls.push(known_call(call, &names, &mut calls.repairs));
        }
        for bad in completion.malformed_calls {
            // The wire wants an answer to each call, readable or not, so the message keeps a placeholder.
            let (call, read) = match read_arguments(&bad.name, &bad.raw) {
                Ok((arguments, repairs)) => {
                    calls.repairs.extend(repairs);
                    let call = ToolCall { id: bad.id, name: bad.name, arguments };
                    (call.clone(), known_call(call, &names, &mut calls.repairs))
                }
                Err(complaint) => {
                    (ToolCall { id: bad.id, name: bad.name, arguments: Map::new() }, Err(complaint))
                }
            };
            message.tool_calls.push(call);
            calls.calls.push(read);
        }
        if let Some(thought) = completion.reasoning {
            let close = if completion.unclosed_thinking { "" } else { "\n</think>\n\n" };
            message.content.insert(0, Part::text(format!("<think>\n{thought}{close}")));
        }
        let beside = self.policy.format == CallFormat::OpenAi;
        let stop = if outcome == Outcome::Truncated { Stop::Length } else { Stop::EndOfTurn };
        Said { message, calls: beside.then_some(calls), stop }
    }
}

fn is_blank(part: &Part) -> bool {
    matches!(part, Part::Text { text } if text.trim().is_empty())
}

/// Chat templates drop the thinking of earlier turns; the trajectory keeps it.
fn forget_thinking(message: &mut Message) {
    let text = message.plain_text();
    if message.role == Role::Assistant && text.contains("<think>") {
        message.content = vec![Part::text(thinking::split(&text).answer)];
    }
}

impl Conversation for EndpointConversation {
    fn turn<'a>(&'a mut self, turn: Turn<'a>) -> BoxFuture<'a, Result<Said, PolicyError>> {
        Box::pin(self.speak(turn))
    }
}
