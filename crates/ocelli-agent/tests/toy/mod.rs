//! A world small enough to check by hand: a byte tokenizer with a chat template, a "model" whose every draw can be
//! recomputed from its context, and real tools on a small picture.

#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use ocelli_agent::batching::{BatchConfig, BatchModel, DrawAt, Drawn, Driver, Row, SeqId};
use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Loan, Report, Until};
use ocelli_agent::episode::{Job, World};
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::local::LocalPolicy;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::{Policy, PolicyError};
use ocelli_agent::tokens::{RenderError, Rendered, Renderer};
use ocelli_agent::tool_env::{ToolEnvConfig, ToolEnvs};
use ocelli_agent::toolbox::{LocalTools, Toolbox};
use ocelli_data::{ContentHash, Message, Part, Role, Sample, Target};
use ocelli_tools::{Limits, Picture, Registry};
use rand::{Rng, SeedableRng};

pub const END: u32 = 0;
pub const ASSISTANT: u32 = 3;
const PAD: u32 = 5;
pub const IMAGE: u32 = 6;
/// Tokens without text, one of which begins each turn, so that the rollouts of a group part.
const VARIANTS: u32 = 7;
const BYTE: u32 = 100;
/// Two-byte tokens: the same text can be written in several ways, so writing it again would be noticed.
const PAIRS: [&str; 5] = ["to", "im", "er", "_c", "me"];
const PAIR: u32 = 1000;

pub struct ToyRenderer;

impl ToyRenderer {
    fn write(messages: &[Message], out: &mut Rendered) {
        for message in messages {
            out.ids.push(match message.role {
                Role::System => 1,
                Role::User => 2,
                Role::Assistant => ASSISTANT,
                Role::Tool => 4,
            });
            for part in &message.content {
                match part {
                    Part::Text { text } => out.ids.extend(text.bytes().map(|b| BYTE + u32::from(b))),
                    Part::Image { hash } => {
                        out.ids.push(IMAGE);
                        let size = 1 + usize::from(hash.as_bytes()[0] % 4);
                        out.ids.extend(std::iter::repeat_n(PAD, size));
                        out.images.push(*hash);
                    }
                }
            }
            out.ids.push(END);
        }
        out.ids.push(ASSISTANT);
    }
}

impl Renderer for ToyRenderer {
    fn prompt(&self, messages: &[Message], pictures: &Pictures) -> Result<Rendered, RenderError> {
        let mut out = Rendered::default();
        Self::write(messages, &mut out);
        // A real renderer needs the size of each picture, so it must be there.
        for hash in &out.images {
            pictures.get(*hash).map_err(|e| RenderError(e.to_string()))?;
        }
        Ok(out)
    }

    fn observation(
        &self,
        messages: &[Message],
        last: Option<u32>,
        pictures: &Pictures,
    ) -> Result<Rendered, RenderError> {
        let mut rendered = self.prompt(messages, pictures)?;
        if last != Some(END) {
            rendered.ids.insert(0, END);
        }
        Ok(rendered)
    }

    fn text(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            match id {
                PAIR.. => bytes.extend(PAIRS[(id - PAIR) as usize].as_bytes()),
                BYTE.. => bytes.push((id - BYTE) as u8),
                _ => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn ends_turn(&self, id: u32) -> bool {
        id == END
    }
}

/// Every context from which a token was drawn, with that token: ids, and images.
pub type Draws = HashSet<ContentHash>;

pub fn context_hash(ids: &[u32], images: &[ContentHash]) -> ContentHash {
    let mut bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    images.iter().for_each(|hash| bytes.extend(hash.as_bytes()));
    ContentHash::of(&bytes)
}

/// In each turn the model says one of a few texts; which one depends on the whole context and the turn's first token.
pub struct ToyModel {
    pub texts: Vec<String>,
    pub version: u64,
    pub draws: Arc<Mutex<Draws>>,
    pub held: BTreeMap<SeqId, (Vec<u32>, Vec<ContentHash>)>,
    /// Steps in which a row with this text in its context fails.
    pub poison: Option<&'static str>,
    pub can_fork: bool,
}

impl ToyModel {
    pub fn new(texts: &[&str]) -> Self {
        Self {
            texts: texts.iter().map(|t| (*t).to_owned()).collect(),
            version: 1,
            draws: Arc::default(),
            held: BTreeMap::new(),
            poison: None,
            can_fork: true,
        }
    }

    fn next(&self, ids: &[u32], images: &[ContentHash], rng: &mut rand_chacha::ChaCha8Rng) -> u32 {
        let start = ids.iter().rposition(|id| *id == ASSISTANT).map_or(0, |at| at + 1);
        let turn = &ids[start..];
        let Some(_variant) = turn.first() else { return VARIANTS + rng.random_range(0..8) };
        let choice = context_hash(&ids[..=start], images);
        let text = &self.texts[usize::from(choice.as_bytes()[0]) % self.texts.len()];
        let said = ToyRenderer.text(turn).len();
        let rest = &text.as_bytes()[said.min(text.len())..];
        match rest {
            [] => END,
            [first, ..] => {
                let pair = PAIRS.iter().position(|p| rest.starts_with(p.as_bytes()));
                match pair {
                    Some(pair) if rng.random_bool(0.5) => PAIR + pair as u32,
                    _ => BYTE + u32::from(*first),
                }
            }
        }
    }
}

impl BatchModel for ToyModel {
    fn version(&self) -> u64 {
        self.version
    }

    fn max_context(&self) -> usize {
        100_000
    }

    fn step(&mut self, rows: &[Row<'_>], _: &Pictures) -> Result<Vec<Option<Drawn>>, PolicyError> {
        if let Some(poison) = self.poison {
            for row in rows {
                let held = self.held.get(&row.seq).map(|(ids, _)| ids.clone()).unwrap_or_default();
                let whole: Vec<u32> = held.iter().chain(row.ids).copied().collect();
                if row.draw.is_some() && ToyRenderer.text(&whole).contains(poison) {
                    return Err(PolicyError(format!("poisoned by `{poison}`")));
                }
            }
        }
        let mut out = Vec::new();
        for row in rows {
            assert!(!row.ids.is_empty(), "an empty row");
            let mut held = self.held.remove(&row.seq).unwrap_or_default();
            held.0.extend_from_slice(row.ids);
            held.1.extend_from_slice(row.images);
            let placeholders = held.0.iter().filter(|id| **id == IMAGE).count();
            assert_eq!(placeholders, held.1.len(), "images do not match placeholders");
            out.push(row.draw.map(|DrawAt { seed, index }| {
                let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(index);
                let id = self.next(&held.0, &held.1, &mut rng);
                let logprob = -rng.random::<f32>();
                let whole: Vec<u32> = held.0.iter().copied().chain([id]).collect();
                self.draws.lock().unwrap().insert(context_hash(&whole, &held.1));
                Drawn { id, logprob }
            }));
            self.held.insert(row.seq, held);
        }
        Ok(out)
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        if self.can_fork {
            let held = self.held.get(&from).cloned().expect("forked from nothing");
            self.held.insert(to, held);
        }
        self.can_fork
    }

    fn release(&mut self, seq: SeqId) {
        self.held.remove(&seq);
    }
}

/// A picture of `shade` with a dark square, as PNG.
pub fn picture(shade: u8) -> Picture {
    let pixels = image::RgbImage::from_fn(48, 32, |x, y| {
        image::Rgb(if (8..20).contains(&x) && (8..20).contains(&y) { [20, 40, shade] } else { [shade; 3] })
    });
    Picture::encode(&pixels).unwrap()
}

pub fn sample(id: &str, hashes: &[ContentHash]) -> Arc<Sample> {
    let mut content: Vec<Part> = hashes.iter().map(|h| Part::image(*h)).collect();
    content.push(Part::text(format!("What is in the picture of {id}?")));
    Arc::new(Sample {
        id: id.into(),
        messages: vec![Message::user(content)],
        target: Target::Text { accepted: vec!["a square".into()] },
        meta: Default::default(),
    })
}

pub fn standard_tools() -> Arc<dyn Toolbox> {
    Arc::new(LocalTools::new(Arc::new(Registry::standard(Limits::default())), 2))
}

pub fn world(
    policy: Arc<dyn Policy>,
    toolbox: Arc<dyn Toolbox>,
    config: ToolEnvConfig,
    limits: RolloutLimits,
) -> World {
    let pictures = Arc::new(Pictures::in_memory(64 << 20));
    let envs = Arc::new(ToolEnvs::new(config, toolbox, pictures.clone(), Limits::default()));
    World { policy, envs, pictures, limits }
}

/// `samples` questions about one picture each.
pub fn samples(world: &World, count: usize) -> Vec<Arc<Sample>> {
    (0..count)
        .map(|i| {
            let hash = world.pictures.put(picture(90 + i as u8).bytes().clone()).unwrap();
            sample(&format!("s{i}"), &[hash])
        })
        .collect()
}

/// A run with the toy model.
pub struct Run {
    pub batch: BatchConfig,
    pub limits: RolloutLimits,
    pub env: ToolEnvConfig,
    pub live: usize,
    pub tools: Arc<dyn Toolbox>,
}

impl Default for Run {
    fn default() -> Self {
        let limits = RolloutLimits { turns: 5, seconds: 300.0, context: 60_000, ..RolloutLimits::default() };
        Self {
            batch: BatchConfig::default(),
            limits,
            env: ToolEnvConfig::default(),
            live: 16,
            tools: standard_tools(),
        }
    }
}

impl Run {
    pub fn world(&self, driver: &Driver) -> World {
        let policy = Arc::new(LocalPolicy::new(driver, Arc::new(ToyRenderer)));
        world(policy, self.tools.clone(), self.env.clone(), self.limits.clone())
    }

    /// Rolls out `group` attempts of each of `count` samples until all have ended.
    pub fn go(&self, model: &mut ToyModel, count: usize, group: u32, seed: u64) -> (Report, Driver) {
        let mut driver = Driver::new(self.batch);
        let world = self.world(&driver);
        let jobs = Job::group(&samples(&world, count), group, seed);
        let engine = Engine::new(self.live).unwrap();
        let control = Control::default();
        let report = engine.run(
            Some(Loan { driver: &mut driver, model }),
            &world,
            &control,
            jobs,
            Until::AllEnded,
            &mut |_| {},
        );
        (report, driver)
    }
}
