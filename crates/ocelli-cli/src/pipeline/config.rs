//! The file of a pipeline.
//!
//! ```toml
//! name = "charts"
//! about = "A small model learns to read charts with tools."
//! out = "runs/charts"
//! tools = ["read_axis", "measure", "answer"]
//! quick = ["stage.sft.train.run.steps=40"]       # what --quick changes
//!
//! [stage.train]
//! kind = "questions"
//! from = { world = { name = "charts", seed = 1, count = 512, width = 64, height = 64 } }
//!
//! [stage.base]
//! kind = "model"
//! tiny = "tiny-0.5m"
//!
//! [stage.sft]
//! kind = "sft"
//! model = "base"
//! data = ["train"]
//! ```
//!
//! `tools` can be a table as well, with `detect` and the tools of other servers: see `ocelli_agent::tool_source`.
//! Stages run in the order of the file and name the stages before them.

use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use ocelli_agent::filters::Filter;
use ocelli_agent::tool_source::ToolSource;
use ocelli_train::grpo::GrpoConfig;
use ocelli_train::mpo::MpoConfig;
use ocelli_train::pairs::PairRule;
use ocelli_train::reward_model::RewardConfig;
use ocelli_train::rollouts::{OracleConfig, RolloutConfig};
use ocelli_train::sft::SftConfig;
use ocelli_train::sources::{DataSource, ModelSource};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A whole pipeline.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pipeline {
    /// Name of the run.
    pub(crate) name: String,
    /// One sentence for the report: what is trained on what.
    #[serde(default)]
    pub(crate) about: String,
    /// Run directory.
    pub(crate) out: PathBuf,
    /// Added to the seed of every model, loop and draw, but not of questions: runs with different seeds answer the same ones.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Settings that `--quick` changes, as `key=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) quick: Vec<String>,
    /// Tools that the model is offered: names, or a table.
    #[serde(default = "ToolSource::none")]
    pub(crate) tools: ToolSource,
    /// How rollouts are made, in all stages.
    #[serde(default)]
    pub(crate) rollout: RolloutConfig,
    /// The stages by name.
    pub(crate) stage: IndexMap<String, Stage>,
}

/// What a stage puts out for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Questions,
    Model,
    Trajectories,
    Pairs,
    Items,
}

/// One stage.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Stage {
    Questions(Questions),
    Model(ModelSource),
    Assemble(Assemble),
    Trajectories(Trajectories),
    Sft(Sft),
    Pairs(Pairs),
    Reward(Reward),
    Mpo(Mpo),
    Grpo(Box<Grpo>),
    Evaluate(Evaluate),
}

/// The values of `kind`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    Questions,
    Model,
    Assemble,
    Trajectories,
    Sft,
    Pairs,
    Reward,
    Mpo,
    Grpo,
    Evaluate,
}

/// Reads the settings of each kind straight from the file where `kind` stands first, as it should: then an error names the key
/// and its line. (What serde derives for a tagged enum reads a table into memory before it looks at it, and forgets the lines.)
impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Stage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with the `kind` of the stage and its settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stage, A::Error> {
                let missing = || A::Error::missing_field("kind");
                let first: String = map.next_key()?.ok_or_else(missing)?;
                if first == "kind" {
                    let kind = map.next_value()?;
                    return Stage::of(kind, MapAccessDeserializer::new(map));
                }
                let mut rest = toml::Table::new();
                rest.insert(first, map.next_value()?);
                while let Some((key, value)) = map.next_entry::<String, toml::Value>()? {
                    rest.insert(key, value);
                }
                let kind = rest.remove("kind").ok_or_else(missing)?;
                let read = kind.try_into().and_then(|kind| Stage::of(kind, toml::Value::Table(rest)));
                read.map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Table)
    }
}

impl Stage {
    fn of<'de, D: Deserializer<'de>>(kind: Named, settings: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Named::Questions => Self::Questions(Deserialize::deserialize(settings)?),
            Named::Model => Self::Model(Deserialize::deserialize(settings)?),
            Named::Assemble => Self::Assemble(Deserialize::deserialize(settings)?),
            Named::Trajectories => Self::Trajectories(Deserialize::deserialize(settings)?),
            Named::Sft => Self::Sft(Deserialize::deserialize(settings)?),
            Named::Pairs => Self::Pairs(Deserialize::deserialize(settings)?),
            Named::Reward => Self::Reward(Deserialize::deserialize(settings)?),
            Named::Mpo => Self::Mpo(Deserialize::deserialize(settings)?),
            Named::Grpo => Self::Grpo(Deserialize::deserialize(settings)?),
            Named::Evaluate => Self::Evaluate(Deserialize::deserialize(settings)?),
        })
    }
}

/// Questions with their pictures, drawn or read.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Questions {
    /// Where they come from.
    pub(crate) from: DataSource,
    /// Put a grey picture of the same size in place of each, for what text alone can do.
    #[serde(default)]
    pub(crate) blank: bool,
    /// Leave the pictures out, for a model that only reads.
    #[serde(default)]
    pub(crate) text_only: bool,
}

/// A text model gets eyes: the vision tower of a stage's model, a new projector, the language model frozen.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assemble {
    /// The text model: a checkpoint directory, a GGUF file, or a name on the model hub.
    pub(crate) language: PathBuf,
    /// A model of the native family whose tower is taken over; without one the tower is new as well.
    #[serde(default)]
    pub(crate) tower: Option<String>,
    /// Seed of the projector.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Pictures are scaled down to at most this many pixels, instead of what the tower was made for.
    #[serde(default)]
    pub(crate) max_pixels: Option<u64>,
}

/// Dialogues with real tools that teach.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trajectories {
    /// Stage of the questions.
    pub(crate) questions: String,
    /// The model that answers, or, with `oracle`, the one that the dialogues are for.
    pub(crate) model: String,
    /// Follow the oracle's plan of each question instead of the model.
    #[serde(default)]
    pub(crate) oracle: Option<OracleConfig>,
    /// Trajectories of each question.
    #[serde(default = "one")]
    pub(crate) group: u32,
    /// Call tools (a model's rollouts; `oracle` says it for the oracle).
    #[serde(default = "yes")]
    pub(crate) tools: bool,
    /// What a trajectory must be to teach.
    #[serde(default = "teaching")]
    pub(crate) filters: Vec<Filter>,
}

/// Supervised fine-tuning.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sft {
    /// Stage of the model that is trained.
    pub(crate) model: String,
    /// Stages of questions (learn the oracle's answer) and of trajectories (learn what was said).
    pub(crate) data: Vec<String>,
    /// Stages of what the loss is measured on during training.
    #[serde(default)]
    pub(crate) held_out: Vec<String>,
    /// Learn the oracle's conclusion before the answer, where questions are learned.
    #[serde(default)]
    pub(crate) reasons: bool,
    /// Settings of the training.
    #[serde(default)]
    pub(crate) train: SftConfig,
}

/// Preference pairs.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pairs {
    /// Stage of the questions.
    pub(crate) questions: String,
    /// Whose answers are paired, right against wrong.
    pub(crate) model: String,
    /// Answers of each question; 0 for none.
    #[serde(default = "eight")]
    pub(crate) group: u32,
    /// Answer with tools, and pair whole dialogues.
    #[serde(default)]
    pub(crate) tools: bool,
    /// Which answers make a pair.
    #[serde(default)]
    pub(crate) rule: PairRule,
    /// Also pair the oracle's answer with a wrong one of the same kind.
    #[serde(default)]
    pub(crate) corrupted: bool,
    /// Also pair the oracle's answer with what the model writes from its first half without the picture.
    #[serde(default)]
    pub(crate) without_picture: bool,
}

/// A reward model.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reward {
    /// Stage of the model that becomes the reward model.
    pub(crate) model: String,
    /// Stages of the pairs to learn from.
    pub(crate) pairs: Vec<String>,
    /// Stages of the pairs that accuracy, margins and calibration are measured on.
    #[serde(default)]
    pub(crate) held_out: Vec<String>,
    /// Settings of the training.
    #[serde(default)]
    pub(crate) train: RewardConfig,
}

/// Mixed preference optimisation.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mpo {
    /// Stage of the model that is trained; as it comes in it is the reference.
    pub(crate) model: String,
    /// Stages of the pairs to learn from.
    pub(crate) pairs: Vec<String>,
    /// Stages of the pairs that the loss is measured on during training.
    #[serde(default)]
    pub(crate) held_out: Vec<String>,
    /// Settings of the training.
    #[serde(default)]
    pub(crate) train: MpoConfig,
}

/// Reinforcement learning.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grpo {
    /// Stage of the model that is trained.
    pub(crate) model: String,
    /// Stage of the questions.
    pub(crate) questions: String,
    /// Stage of the questions that accuracy is measured on during training.
    #[serde(default)]
    pub(crate) held_out: Option<String>,
    /// Call tools in rollouts.
    #[serde(default = "yes")]
    pub(crate) tools: bool,
    /// A stage of kind `reward`; `train.reward.model` says how its score enters.
    #[serde(default)]
    pub(crate) reward_model: Option<String>,
    /// Pairs whose two answers the reward model's threshold is set between, for this very checkpoint.
    #[serde(default)]
    pub(crate) calibrate: Option<String>,
    /// `train.rollout` is taken from the pipeline's `rollout`.
    #[serde(default)]
    pub(crate) train: GrpoConfig,
}

/// Accuracy of several models on the same questions.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evaluate {
    /// Stage of the questions.
    pub(crate) questions: String,
    /// Who answers.
    pub(crate) arms: Vec<ArmConfig>,
    /// Column of the questions' `meta` to group by, e.g. `style`.
    #[serde(default)]
    pub(crate) group_by: Option<String>,
    /// Accuracy of guessing, if known; for multiple choice it is worked out from the options of each question.
    #[serde(default)]
    pub(crate) chance: Option<f64>,
    /// Trajectories to show in the report, of the last arm.
    #[serde(default = "twelve")]
    pub(crate) samples: usize,
}

/// One way of answering, or two: without and with tools.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArmConfig {
    /// Name for people, e.g. `SFT`.
    pub(crate) label: String,
    /// The model's stage.
    #[serde(default)]
    pub(crate) model: Option<String>,
    /// Instead of a model: the commonest answer of each group in these questions (multiple choice: the option that was
    /// right most often there).
    #[serde(default)]
    pub(crate) majority: Option<String>,
    /// Other questions than the stage's, e.g. the same ones with blank pictures.
    #[serde(default)]
    pub(crate) questions: Option<String>,
    /// Answer without tools, with them, or once each.
    #[serde(default)]
    pub(crate) tools: WithTools,
}

/// Whether tools are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WithTools {
    /// Without.
    #[default]
    Without,
    /// With.
    With,
    /// Once each.
    Both,
}

impl WithTools {
    /// False for without, true for with.
    pub(crate) fn ways(self) -> &'static [bool] {
        match self {
            Self::Without => &[false],
            Self::With => &[true],
            Self::Both => &[false, true],
        }
    }
}

fn one() -> u32 {
    1
}

fn eight() -> u32 {
    8
}

fn twelve() -> usize {
    12
}

fn yes() -> bool {
    true
}

fn teaching() -> Vec<Filter> {
    Filter::ALL.to_vec()
}

impl Stage {
    /// What it puts out.
    pub(crate) fn puts_out(&self) -> Kind {
        match self {
            Self::Questions(_) => Kind::Questions,
            Self::Model(_)
            | Self::Assemble(_)
            | Self::Sft(_)
            | Self::Reward(_)
            | Self::Mpo(_)
            | Self::Grpo(_) => Kind::Model,
            Self::Trajectories(_) => Kind::Trajectories,
            Self::Pairs(_) => Kind::Pairs,
            Self::Evaluate(_) => Kind::Items,
        }
    }

    /// The stages it names: the setting, the name, and what may stand there.
    pub(crate) fn inputs(&self) -> Vec<(&'static str, &str, &'static [Kind])> {
        const QUESTIONS: &[Kind] = &[Kind::Questions];
        const MODEL: &[Kind] = &[Kind::Model];
        const PAIRS: &[Kind] = &[Kind::Pairs];
        const TEACHING: &[Kind] = &[Kind::Questions, Kind::Trajectories];
        fn all<'a>(
            what: &'static str,
            names: &'a [String],
            kinds: &'static [Kind],
        ) -> impl Iterator<Item = (&'static str, &'a str, &'static [Kind])> {
            names.iter().map(move |n| (what, n.as_str(), kinds))
        }
        match self {
            Self::Questions(_) | Self::Model(_) => Vec::new(),
            Self::Assemble(a) => a.tower.iter().map(|t| ("tower", t.as_str(), MODEL)).collect(),
            Self::Trajectories(t) => vec![("questions", &t.questions, QUESTIONS), ("model", &t.model, MODEL)],
            Self::Sft(s) => std::iter::once(("model", s.model.as_str(), MODEL))
                .chain(all("data", &s.data, TEACHING))
                .chain(all("held_out", &s.held_out, TEACHING))
                .collect(),
            Self::Pairs(p) => vec![("questions", &p.questions, QUESTIONS), ("model", &p.model, MODEL)],
            Self::Reward(r) => std::iter::once(("model", r.model.as_str(), MODEL))
                .chain(all("pairs", &r.pairs, PAIRS))
                .chain(all("held_out", &r.held_out, PAIRS))
                .collect(),
            Self::Mpo(m) => std::iter::once(("model", m.model.as_str(), MODEL))
                .chain(all("pairs", &m.pairs, PAIRS))
                .chain(all("held_out", &m.held_out, PAIRS))
                .collect(),
            Self::Grpo(g) => {
                let mut named =
                    vec![("model", g.model.as_str(), MODEL), ("questions", &g.questions, QUESTIONS)];
                named.extend(g.held_out.iter().map(|q| ("held_out", q.as_str(), QUESTIONS)));
                named.extend(g.reward_model.iter().map(|m| ("reward_model", m.as_str(), MODEL)));
                named.extend(g.calibrate.iter().map(|p| ("calibrate", p.as_str(), PAIRS)));
                named
            }
            Self::Evaluate(e) => {
                let mut named = vec![("questions", e.questions.as_str(), QUESTIONS)];
                for arm in &e.arms {
                    named.extend(arm.model.iter().map(|m| ("arms.model", m.as_str(), MODEL)));
                    named.extend(arm.majority.iter().map(|q| ("arms.majority", q.as_str(), QUESTIONS)));
                    named.extend(arm.questions.iter().map(|q| ("arms.questions", q.as_str(), QUESTIONS)));
                }
                named
            }
        }
    }

    /// The stage whose model this one goes on from.
    pub(crate) fn goes_on_from(&self) -> Option<&str> {
        match self {
            Self::Questions(_) | Self::Model(_) | Self::Assemble(_) | Self::Evaluate(_) => None,
            Self::Trajectories(t) => Some(&t.model),
            Self::Sft(s) => Some(&s.model),
            Self::Pairs(p) => Some(&p.model),
            Self::Reward(r) => Some(&r.model),
            Self::Mpo(m) => Some(&m.model),
            Self::Grpo(g) => Some(&g.model),
        }
    }

    /// True where the trajectories of this stage were made with tools.
    pub(crate) fn has_tools(&self) -> bool {
        match self {
            Self::Trajectories(t) => t.oracle.as_ref().map_or(t.tools, |o| o.tools),
            _ => false,
        }
    }

    /// True where tools and rollout settings matter.
    pub(crate) fn rolls_out(&self) -> bool {
        matches!(
            self,
            Self::Trajectories(_) | Self::Sft(_) | Self::Pairs(_) | Self::Grpo(_) | Self::Evaluate(_)
        )
    }

    /// Questions from files are read anew in every run, so that changed files are noticed.
    pub(crate) fn always_runs(&self) -> bool {
        matches!(self, Self::Questions(q) if q.from.world.is_none())
    }

    /// For people.
    pub(crate) fn says(&self) -> &'static str {
        match self {
            Self::Questions(_) => "questions",
            Self::Model(_) => "a model to begin with",
            Self::Assemble(_) => "a text model gets eyes",
            Self::Trajectories(_) => "trajectories with real tools",
            Self::Sft(_) => "supervised fine-tuning",
            Self::Pairs(_) => "preference pairs",
            Self::Reward(_) => "reward model",
            Self::Mpo(_) => "mixed preference optimisation",
            Self::Grpo(_) => "reinforcement learning (GRPO)",
            Self::Evaluate(_) => "evaluation",
        }
    }
}
