//! What each kind of stage does.

mod evaluate;
pub(super) mod probe;
mod questions;
mod teach;
mod train;

pub(crate) use evaluate::{ArmItems, slug};

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use anyhow::Context;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::io::{BlobStore, read_jsonl};
use ocelli_data::run::Fact;
use ocelli_data::{ContentHash, PreferencePair, Sample, Trajectory};
use ocelli_model::Checkpoint;
use ocelli_model::vlm::{LoadOptions, Part, Vlm};
use ocelli_tools::Limits;
use ocelli_train::responses::Response;
use ocelli_train::rollouts::Rollouts;
use ocelli_train::sources::{Data, ModelSource};

use super::config::{Pipeline, Stage};
use super::store::Store;
use crate::commands::tool_source::toolbox;
use crate::ui::Ui;
use crate::watch::Watch;
use questions::Question;

/// Memory for pictures beside the disk, in bytes.
const PICTURES: usize = 256 << 20;
/// Largest picture that is read, in bytes.
const MAX_PICTURE: u64 = 64 << 20;

/// How a stage ended.
pub(super) enum Ended {
    Done {
        /// One line for people.
        outcome: String,
        facts: Vec<Fact>,
    },
    /// Saved, to go on later.
    Interrupted,
}

impl Ended {
    fn done(outcome: impl Into<String>) -> anyhow::Result<Self> {
        Ok(Self::Done { outcome: outcome.into(), facts: Vec::new() })
    }
}

/// What all stages work with.
pub(super) struct Lab<'a> {
    pub(super) config: &'a Pipeline,
    pub(super) store: &'a Store,
    blobs: BlobStore,
    pictures: Arc<Pictures>,
    toolbox: Option<Arc<dyn Toolbox>>,
}

pub(super) fn run(lab: &Lab<'_>, name: &str, stage: &Stage, watch: &mut Watch<'_>) -> anyhow::Result<Ended> {
    match stage {
        Stage::Questions(q) => questions::run(lab, name, q),
        Stage::Model(source) => {
            lab.begin_with(name, &ModelSource { seed: lab.seed(source.seed), ..source.clone() })
        }
        Stage::Assemble(a) => {
            let source = ModelSource {
                language: Some(a.language.clone()),
                eyes: a.tower.as_ref().map(|t| lab.store.dir(t).join("model")),
                seed: lab.seed(a.seed),
                max_pixels: a.max_pixels,
                ..ModelSource::default()
            };
            lab.begin_with(name, &source)
        }
        Stage::Trajectories(t) => teach::trajectories(lab, name, t),
        Stage::Pairs(p) => teach::pairs(lab, name, p),
        Stage::Sft(s) => train::sft(lab, name, s, watch),
        Stage::Reward(r) => train::reward(lab, name, r, watch),
        Stage::Mpo(m) => train::mpo(lab, name, m, watch),
        Stage::Grpo(g) => train::grpo(lab, name, g, watch),
        Stage::Evaluate(e) => evaluate::run(lab, name, e, watch),
    }
}

impl<'a> Lab<'a> {
    pub(super) fn new(config: &'a Pipeline, store: &'a Store, ui: &Ui) -> anyhow::Result<Self> {
        let blobs = store.root().join("blobs");
        let toolbox = toolbox(&config.tools, &Limits::default(), ui)?;
        let pictures = Arc::new(Pictures::on_disk(BlobStore::new(&blobs), PICTURES));
        Ok(Self { config, store, blobs: BlobStore::new(blobs), pictures, toolbox })
    }

    /// The tools of the run, where it has any.
    pub(super) fn toolbox(&self) -> Option<&Arc<dyn Toolbox>> {
        self.toolbox.as_ref()
    }

    /// A seed of a stage, moved by the run's.
    fn seed(&self, of_stage: u64) -> u64 {
        of_stage.wrapping_add(self.config.seed.wrapping_mul(1_000_003))
    }

    /// Draws, loads or assembles a model and keeps it.
    fn begin_with(&self, name: &str, source: &ModelSource) -> anyhow::Result<Ended> {
        let model = source.load()?;
        model.save(&self.store.dir(name).join("model"), ocelli_model::SaveDtype::F32)?;
        let parts: Vec<String> =
            [(Part::Tower, "tower"), (Part::Projector, "projector"), (Part::Language, "language")]
                .into_iter()
                .map(|(part, what)| {
                    let sizes = model.parameters(part).filter_map(|id| model.params.get(id).ok());
                    format!("{what} {}", sizes.map(|p| p.value().len()).sum::<usize>())
                })
                .collect();
        Ended::done(format!("{} parameters ({})", model.params.element_count(), parts.join(", ")))
    }

    fn model(&self, stage: &str) -> anyhow::Result<Vlm> {
        let dir = self.store.dir(stage).join("model");
        let open =
            || -> anyhow::Result<Vlm> { Ok(Vlm::load(&Checkpoint::open(&dir)?, LoadOptions::default())?) };
        open().with_context(|| format!("cannot load the model of stage `{stage}`"))
    }

    fn questions(&self, stage: &str) -> anyhow::Result<Vec<Question>> {
        Ok(read_jsonl(&self.store.dir(stage).join("questions.jsonl"))?)
    }

    fn samples(&self, stage: &str) -> anyhow::Result<Vec<Arc<Sample>>> {
        Ok(self.questions(stage)?.into_iter().map(|q| Arc::new(q.sample)).collect())
    }

    fn rollouts(&self, model: &Vlm) -> anyhow::Result<Rollouts> {
        Ok(Rollouts::new(model, &self.config.rollout, self.pictures.clone(), self.toolbox.clone())?)
    }

    fn read_pictures(
        &self,
        wanted: impl IntoIterator<Item = ContentHash>,
    ) -> anyhow::Result<HashMap<ContentHash, Vec<u8>>> {
        let mut found = HashMap::new();
        for hash in wanted {
            if let Entry::Vacant(place) = found.entry(hash) {
                place.insert(self.blobs.get(hash, MAX_PICTURE)?);
            }
        }
        Ok(found)
    }

    /// What a supervised stage learns: trajectories as rollouts of `model` would record them, questions with their answers.
    fn responses(&self, model: &Vlm, stages: &[String], reasons: bool) -> anyhow::Result<Vec<Response>> {
        let rollouts = self.rollouts(model)?;
        let mut all = Vec::new();
        for name in stages {
            let data = self.data(std::slice::from_ref(name))?;
            let with_tools = self.config.stage.get(name).is_some_and(Stage::has_tools);
            for t in &data.trajectories {
                all.push(rollouts.lesson(model, t, with_tools)?);
            }
            all.extend(Data { trajectories: Vec::new(), ..data }.responses(model, reasons)?);
        }
        Ok(all)
    }

    /// Questions, trajectories and pairs of these stages, with their pictures, as training takes them.
    fn data(&self, stages: &[String]) -> anyhow::Result<Data> {
        let mut data = Data::default();
        for name in stages {
            match self.config.stage.get(name) {
                Some(Stage::Questions(_)) => {
                    data.questions.extend(self.questions(name)?.into_iter().map(|q| (q.sample, q.oracle)));
                }
                Some(Stage::Trajectories(_)) => {
                    let rows: Vec<Trajectory> = read_jsonl(&self.store.dir(name).join("trajectories.jsonl"))?;
                    data.trajectories.extend(rows);
                }
                _ => {
                    let rows: Vec<PreferencePair> = read_jsonl(&self.store.dir(name).join("pairs.jsonl"))?;
                    data.pairs.extend(rows);
                }
            }
        }
        let in_questions =
            data.questions.iter().flat_map(|(s, _)| s.messages.iter().flat_map(|m| m.images()));
        let in_pairs = data
            .pairs
            .iter()
            .flat_map(|p| p.prompt.iter().chain(&p.chosen).chain(&p.rejected))
            .flat_map(|m| m.images());
        let in_dialogues = data
            .trajectories
            .iter()
            .flat_map(|t| t.messages.iter().flat_map(|m| m.images()).chain(t.images.clone()));
        let wanted: Vec<ContentHash> = in_questions.chain(in_pairs).chain(in_dialogues).collect();
        data.pictures = self.read_pictures(wanted)?;
        Ok(data)
    }
}
