//! A model in this process as the policy of an evaluation.

use std::borrow::Cow;
use std::path::Path;

use ocelli_agent::endpoint::{Completion, Finish, SamplingParams, Usage, thinking};
use ocelli_data::{ContentHash, Message};
use ocelli_eval::run::LocalPolicy;
use ocelli_model::generate::{EngineLimits, Sampling, StopReason};
use ocelli_model::vlm::{LoadOptions, Pictures, Vlm};
use ocelli_model::{ChatOptions, Checkpoint, ModelError};

/// Tokens of an answer where neither the benchmark nor the command line sets a limit.
const MAX_NEW_TOKENS: usize = 1024;

pub(super) struct LocalModel {
    model: Vlm,
    name: String,
}

impl LocalModel {
    pub(super) fn load(path: &Path, name: &str) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        Ok(Self { model: Vlm::load(&checkpoint, LoadOptions::frozen())?, name: name.to_owned() })
    }

    fn answer(
        &self,
        messages: &[Message],
        images: &dyn Fn(ContentHash) -> Result<Vec<u8>, String>,
        sampling: &SamplingParams,
        seed: u64,
    ) -> Result<Completion, ModelError> {
        let model = &self.model;
        let context = model.prompt(messages, &ChatOptions::prompt(), &Source(images))?;
        let sampling = Sampling {
            temperature: sampling.temperature.unwrap_or(1.0) as f32,
            top_p: sampling.top_p.unwrap_or(1.0) as f32,
            repetition_penalty: sampling.repetition_penalty.unwrap_or(1.0) as f32,
            max_new_tokens: sampling.max_tokens.map_or(MAX_NEW_TOKENS, |n| n as usize),
            stop_ids: model.eos_ids.clone(),
            stop_strings: sampling.stop.clone(),
            ..Sampling::greedy()
        };
        let mut engine = model.engine(EngineLimits::default())?;
        engine.start(model.generation_prompt(&context, 0)?, 1, &sampling, seed, 0)?;
        let turns = engine.run(|_, _| {})?;
        let turn = turns.first().ok_or_else(|| ModelError::Request("the model said nothing".into()))?;
        let channels = thinking::split(&turn.text);
        Ok(Completion {
            text: channels.answer,
            reasoning: channels.reasoning,
            unclosed_thinking: channels.unclosed,
            refusal: None,
            tool_calls: Vec::new(),
            malformed_calls: Vec::new(),
            finish: match turn.reason {
                StopReason::MaxTokens | StopReason::ContextFull => Finish::Length,
                StopReason::Token(_) | StopReason::Text(_) => Finish::Stop,
            },
            usage: Usage {
                prompt: context.len() as u64,
                completion: turn.ids.len() as u64,
                ..Usage::default()
            },
            model: self.name.clone(),
            attempts: 1,
            latency_s: 0.0,
        })
    }
}

struct Source<'a>(&'a dyn Fn(ContentHash) -> Result<Vec<u8>, String>);

impl Pictures for Source<'_> {
    fn bytes(&self, hash: ContentHash) -> Result<Cow<'_, [u8]>, ModelError> {
        (self.0)(hash).map(Cow::Owned).map_err(ModelError::Request)
    }
}

impl LocalPolicy for LocalModel {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn generate(
        &self,
        messages: &[Message],
        images: &dyn Fn(ContentHash) -> Result<Vec<u8>, String>,
        sampling: &SamplingParams,
        seed: u64,
    ) -> Result<Completion, String> {
        self.answer(messages, images, sampling, seed).map_err(|e| e.to_string())
    }
}
