//! What happened in one rollout, exact to the token.

use serde::{Deserialize, Serialize};

use crate::{ContentHash, Message, Score, ToolCall, ToolResult};

/// How a trajectory ended. Every trajectory has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The policy gave its answer.
    Answered,
    /// The policy stopped without an answer.
    NoAnswer,
    /// The token limit cut a turn off.
    TruncatedTokens,
    /// The limit on turns was reached.
    TruncatedTurns,
    /// The limit on tool calls was reached.
    TruncatedCalls,
    /// The context is full.
    ContextFull,
    /// The deadline of the trajectory passed.
    Deadline,
    /// A tool failed in a way that the policy cannot correct.
    ToolFailed,
    /// The policy (endpoint or model) failed.
    PolicyFailed,
    /// The environment refused the sample (missing image, broken data).
    BadSample,
    /// The run was stopped before the trajectory ended.
    Cancelled,
}

impl Status {
    /// True where the end was the policy's own doing, so that its tokens may be trained.
    pub fn is_policy_end(self) -> bool {
        matches!(
            self,
            Self::Answered
                | Self::NoAnswer
                | Self::TruncatedTokens
                | Self::TruncatedTurns
                | Self::TruncatedCalls
                | Self::ContextFull
        )
    }

    /// True where a machine failed and not the policy: a tool, its server, or whatever the policy runs on. Such an end says
    /// nothing about how good the policy is.
    pub fn is_outage(self) -> bool {
        matches!(self, Self::ToolFailed | Self::PolicyFailed)
    }
}

/// Where a run of tokens came from. The loss mask is derived from this and from nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// The prompt as the chat template wrote it.
    Prompt,
    /// Sampled by the policy: trained.
    Sampled,
    /// Tool results and all template text around them: never trained.
    Observation,
}

/// A run of tokens of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Origin.
    pub kind: SpanKind,
    /// Number of tokens.
    pub len: usize,
}

/// One tool call inside a trajectory, with its result and how long it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolUse {
    /// Index of the assistant turn that made the call, from 0.
    pub turn: usize,
    /// The call as parsed.
    pub call: ToolCall,
    /// What came back.
    pub result: ToolResult,
    /// Milliseconds from when it began to run. Not part of the replayable content; neither is `waited_ms`.
    pub millis: f64,
    /// Milliseconds before it began to run, in which it waited for a free thread or a free place at a server. Files of before
    /// this was told apart have none, and their `millis` are both together.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited_ms: f64,
}

fn is_zero(millis: &f64) -> bool {
    *millis == 0.0
}

impl ToolUse {
    /// Sets the times to 0: they differ from run to run.
    pub fn forget_times(&mut self) {
        (self.millis, self.waited_ms) = (0.0, 0.0);
    }
}

/// One rollout: the messages for people, and ids, spans and log-probabilities for training.
///
/// Example: a prompt of 3 tokens, 2 sampled tokens, 4 tokens of tool result, 1 sampled token gives
/// `spans = [Prompt 3, Sampled 2, Observation 4, Sampled 1]`, `ids.len() == 10`, `logprobs.len() == 3`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// Identifier of the sample.
    pub sample_id: String,
    /// Which of the group's rollouts this is, from 0.
    pub attempt: u32,
    /// The whole dialogue, prompt included.
    pub messages: Vec<Message>,
    /// Token ids as the policy saw and sampled them, image placeholders expanded. Empty for endpoints without ids.
    pub ids: Vec<u32>,
    /// Origin of the ids, in order; lengths add up to `ids.len()`.
    pub spans: Vec<Span>,
    /// Log-probability of each sampled token under the distribution that the policy sampled from, in order. `[S]`
    pub logprobs: Vec<f32>,
    /// Version of the weights that sampled each token. `[S]`; empty where there is but one version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weight_versions: Vec<u64>,
    /// Images in the order of their placeholders in `ids`.
    pub images: Vec<ContentHash>,
    /// Tool calls in order.
    pub tools: Vec<ToolUse>,
    /// How it ended.
    pub status: Status,
    /// The scores, by name of the scorer (`accuracy`, `format` ...).
    #[serde(default)]
    pub scores: Vec<(String, Score)>,
}

/// A trajectory whose parts contradict one another.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrajectoryError {
    /// Spans do not cover the ids.
    #[error("trajectory {sample_id}#{attempt}: spans cover {covered} tokens, but there are {ids} ids")]
    Spans {
        /// Sample.
        sample_id: String,
        /// Attempt.
        attempt: u32,
        /// Sum of span lengths.
        covered: usize,
        /// Number of ids.
        ids: usize,
    },
    /// Not one log-probability per sampled token.
    #[error("trajectory {sample_id}#{attempt}: {sampled} sampled tokens, but {logprobs} log-probabilities")]
    Logprobs {
        /// Sample.
        sample_id: String,
        /// Attempt.
        attempt: u32,
        /// Number of sampled tokens.
        sampled: usize,
        /// Number of log-probabilities.
        logprobs: usize,
    },
}

impl Trajectory {
    /// True for each id that the policy sampled. `[T]`
    pub fn mask(&self) -> Vec<bool> {
        let mut mask = Vec::with_capacity(self.ids.len());
        for span in &self.spans {
            mask.extend(std::iter::repeat_n(span.kind == SpanKind::Sampled, span.len));
        }
        mask
    }

    /// Number of sampled tokens.
    pub fn sampled_len(&self) -> usize {
        self.spans.iter().filter(|s| s.kind == SpanKind::Sampled).map(|s| s.len).sum()
    }

    /// Number of leading prompt tokens.
    pub fn prompt_len(&self) -> usize {
        self.spans.iter().take_while(|s| s.kind == SpanKind::Prompt).map(|s| s.len).sum()
    }

    /// Checks that spans cover the ids and that each sampled token has its log-probability.
    pub fn validate(&self) -> Result<(), TrajectoryError> {
        let (sample_id, attempt) = (self.sample_id.clone(), self.attempt);
        let covered = self.spans.iter().map(|s| s.len).sum();
        if covered != self.ids.len() {
            return Err(TrajectoryError::Spans { sample_id, attempt, covered, ids: self.ids.len() });
        }
        let sampled = self.sampled_len();
        if sampled != self.logprobs.len() {
            return Err(TrajectoryError::Logprobs {
                sample_id,
                attempt,
                sampled,
                logprobs: self.logprobs.len(),
            });
        }
        Ok(())
    }

    /// Text of the last assistant message, empty where there is none.
    pub fn final_text(&self) -> String {
        self.messages
            .iter()
            .rev()
            .find(|m| m.role == crate::Role::Assistant)
            .map(Message::plain_text)
            .unwrap_or_default()
    }

    /// Score of the given scorer, if it ran.
    pub fn score(&self, name: &str) -> Option<&Score> {
        self.scores.iter().find(|(n, _)| n == name).map(|(_, s)| s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Trajectory {
        let span = |kind, len| Span { kind, len };
        Trajectory {
            sample_id: "s".into(),
            attempt: 0,
            messages: vec![Message::user([]), Message::assistant("7")],
            ids: (0..10).collect(),
            spans: vec![
                span(SpanKind::Prompt, 3),
                span(SpanKind::Sampled, 2),
                span(SpanKind::Observation, 4),
                span(SpanKind::Sampled, 1),
            ],
            logprobs: vec![-0.1, -0.2, -0.3],
            weight_versions: vec![],
            images: vec![],
            tools: vec![],
            status: Status::Answered,
            scores: vec![],
        }
    }

    #[test]
    fn mask_follows_provenance() {
        let t = example();
        assert_eq!(t.validate(), Ok(()));
        let expected: Vec<bool> = "0001100001".chars().map(|c| c == '1').collect();
        assert_eq!(t.mask(), expected);
        assert_eq!((t.prompt_len(), t.sampled_len(), t.final_text().as_str()), (3, 3, "7"));
    }

    #[test]
    fn contradictions_are_errors() {
        let mut t = example();
        t.logprobs.pop();
        assert!(matches!(t.validate(), Err(TrajectoryError::Logprobs { sampled: 3, logprobs: 2, .. })));
        t.ids.push(1);
        assert!(matches!(t.validate(), Err(TrajectoryError::Spans { covered: 10, ids: 11, .. })));
    }
}
