//! A vision-language model of this process as a policy: its chat template writes the dialogue, its decoder samples.
//!
//! [`VlmRenderer`] holds what turns messages into tokens and none of the weights, so that a trainer keeps those to
//! itself; [`VlmModel`] borrows the weights for one run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ocelli_data::{ContentHash, Message, Span, SpanKind, Status, Trajectory};
use ocelli_model::generate::{Engine, EngineLimits, Prompt, Sampling};
use ocelli_model::vlm::Context;
use ocelli_model::{ChatOptions, ModelError, Vlm};
use ocelli_tools::ToolSpec;

use crate::batching::{BatchModel, DrawAt, Drawn, Row, SeqId};
use crate::pictures::Pictures;
use crate::policy::PolicyError;
use crate::tokens::{RenderError, Rendered, Renderer};

impl ocelli_model::vlm::Pictures for Pictures {
    fn bytes(&self, hash: ContentHash) -> Result<Cow<'_, [u8]>, ModelError> {
        self.get(hash).map(|b| Cow::Owned(b.to_vec())).map_err(|e| ModelError::Request(e.to_string()))
    }
}

/// The chat template, tokenizer and image preprocessing of a model.
pub struct VlmRenderer {
    /// The model without its parameters: only what writes dialogues is used.
    writer: Vlm,
    options: ChatOptions,
}

impl VlmRenderer {
    /// The renderer of `vlm`. `template_tools` are listed by the chat template; leave them empty where the environment
    /// writes its instructions into the system prompt.
    ///
    /// # Errors
    /// The checkpoint has no tokenizer or no chat template.
    pub fn new(vlm: &Vlm, template_tools: &[ToolSpec]) -> Result<Self, PolicyError> {
        vlm.tokenizer().map_err(|e| PolicyError(e.to_string()))?;
        vlm.chat().map_err(|e| PolicyError(e.to_string()))?;
        let mut writer = vlm.clone();
        writer.params = Default::default();
        let tools = template_tools.iter().map(ToolSpec::openai).collect();
        Ok(Self { writer, options: ChatOptions { tools, ..ChatOptions::prompt() } })
    }

    fn rendered(context: &Context, from: usize) -> Rendered {
        let images = context.images().iter().filter(|i| i.rows.start >= from).map(|i| i.hash).collect();
        Rendered { ids: context.ids()[from..].to_vec(), images }
    }
}

impl Renderer for VlmRenderer {
    fn prompt(&self, messages: &[Message], pictures: &Pictures) -> Result<Rendered, RenderError> {
        let context = self.writer.prompt(messages, &self.options, pictures);
        Ok(Self::rendered(&context.map_err(|e| RenderError(e.to_string()))?, 0))
    }

    fn observation(
        &self,
        messages: &[Message],
        last: Option<u32>,
        pictures: &Pictures,
    ) -> Result<Rendered, RenderError> {
        let mut context = Context::default();
        self.writer
            .continue_dialogue(&mut context, messages, &self.options, pictures)
            .map_err(|e| RenderError(e.to_string()))?;
        // The continuation begins with the end-of-turn mark, which the policy may have sampled itself.
        let sampled = usize::from(last.is_some() && context.ids().first().copied() == last);
        Ok(Self::rendered(&context, sampled))
    }

    fn text(&self, ids: &[u32]) -> String {
        // `new` has seen to it that there is a tokenizer; ids outside its vocabulary have no text.
        self.writer.tokenizer().and_then(|t| t.decode_plain(ids)).unwrap_or_default()
    }

    fn ends_turn(&self, id: u32) -> bool {
        self.writer.eos_ids.contains(&id)
    }
}

/// The weights of a model, lent to a run.
pub struct VlmModel<'m> {
    vlm: &'m Vlm,
    engine: Engine<'m>,
    sampling: Sampling,
    version: u64,
    held: BTreeMap<SeqId, Held>,
}

/// A sequence in the model's engine.
#[derive(Clone, Copy, Debug)]
struct Held {
    id: ocelli_model::SeqId,
    /// The engine holds the token that was drawn last and reads it by itself.
    unread: bool,
}

impl<'m> VlmModel<'m> {
    /// Samples from `vlm` with the temperature and filters of `sampling`; its limits and stops are the driver's
    /// business. `version` is recorded with every token. `rows` is that of the [`crate::batching::BatchConfig`].
    pub fn new(vlm: &'m Vlm, sampling: Sampling, version: u64, rows: usize) -> Result<Self, ModelError> {
        let limits = EngineLimits { max_active: rows.max(1), rows_per_step: rows.max(2048) };
        let sampling =
            Sampling { max_new_tokens: 1, stop_ids: Vec::new(), stop_strings: Vec::new(), ..sampling };
        // Without a tokenizer the engine spends no time on text: the driver looks at it once, by itself.
        let engine = Engine::new(&vlm.text, &vlm.params, None, limits)?;
        Ok(Self { vlm, engine, sampling, version, held: BTreeMap::new() })
    }

    /// Ids with the features of the images among them.
    fn read(&self, ids: &[u32], images: &[ContentHash], pictures: &Pictures) -> Result<Prompt, ModelError> {
        if images.is_empty() && !self.multimodal() {
            return Ok(ids.to_vec().into());
        }
        // Placeholders are expanded already, which is the form of a finished trajectory.
        let spans = vec![Span { kind: SpanKind::Prompt, len: ids.len() }];
        let piece = Trajectory {
            sample_id: String::new(),
            attempt: 0,
            messages: Vec::new(),
            ids: ids.to_vec(),
            spans,
            logprobs: Vec::new(),
            weight_versions: Vec::new(),
            images: images.to_vec(),
            tools: Vec::new(),
            status: Status::Cancelled,
            scores: Vec::new(),
        };
        let context = self.vlm.context_of(&piece, pictures)?;
        self.vlm.generation_prompt(&context, 0)
    }

    fn multimodal(&self) -> bool {
        self.vlm.text.config().rope.mrope.is_some()
    }

    fn queue(&mut self, row: &Row<'_>, pictures: &Pictures) -> Result<ocelli_model::SeqId, ModelError> {
        let DrawAt { seed, index } = row.draw.unwrap_or(DrawAt { seed: 0, index: 0 });
        let id = match self.held.get(&row.seq).copied() {
            None => {
                let prompt = self.read(row.ids, row.images, pictures)?;
                let started = self.engine.start(prompt, 1, &self.sampling, seed, index)?;
                started
                    .first()
                    .copied()
                    .ok_or_else(|| ModelError::Request("no sequence was started".into()))?
            }
            Some(Held { id, unread }) => {
                let new = row.ids.get(usize::from(unread)..).unwrap_or_default();
                let new = self.read(new, row.images, pictures)?;
                self.engine.reseed(id, seed, index)?;
                self.engine.resume(id, new, &self.sampling)?;
                id
            }
        };
        self.held.insert(row.seq, Held { id, unread: true });
        Ok(id)
    }
}

impl BatchModel for VlmModel<'_> {
    fn version(&self) -> u64 {
        self.version
    }

    fn max_context(&self) -> usize {
        self.vlm.text.config().context()
    }

    fn step(&mut self, rows: &[Row<'_>], pictures: &Pictures) -> Result<Vec<Option<Drawn>>, PolicyError> {
        let failed = |e: ModelError| PolicyError(e.to_string());
        let ids: Result<Vec<_>, ModelError> = rows.iter().map(|row| self.queue(row, pictures)).collect();
        let ids = ids.map_err(failed)?;
        let mut drawn = BTreeMap::new();
        while drawn.len() < rows.len() && !self.engine.is_idle() {
            for turn in self.engine.step().map_err(failed)?.ended {
                if let (Some(&id), Some(&logprob)) = (turn.ids.first(), turn.logprobs.first()) {
                    drawn.insert(turn.seq, Drawn { id, logprob });
                }
            }
        }
        Ok(ids.iter().zip(rows).map(|(id, row)| row.draw.and_then(|_| drawn.get(id).copied())).collect())
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        // The prompt's sequence drew a token that nobody uses; a penalty would remember it.
        if self.sampling.repetition_penalty != 1.0 {
            return false;
        }
        let Some(id) = self.held.get(&from).and_then(|held| self.engine.branch(held.id, 0, 0).ok()) else {
            return false;
        };
        self.held.insert(to, Held { id, unread: false });
        true
    }

    fn release(&mut self, seq: SeqId) {
        if let Some(held) = self.held.remove(&seq) {
            self.engine.release(held.id);
        }
    }
}
