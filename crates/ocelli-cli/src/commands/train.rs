//! `ocelli train sft|reward|mpo|grpo CONFIG`: one stage of training, live in the terminal, resumable at any moment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ocelli_agent::pictures::Pictures;
use ocelli_agent::toolbox::Toolbox;
use ocelli_model::vlm::Vlm;
use ocelli_tools::Limits;
use ocelli_train::grpo::{self, GrpoConfig, GrpoInputs};
use ocelli_train::mpo::{self, MpoConfig};
use ocelli_train::responses::Response;
use ocelli_train::reward_model::{self, RewardConfig};
use ocelli_train::rollouts::{RolloutConfig, Rollouts};
use ocelli_train::run::Outcome;
use ocelli_train::sft::{self, SftConfig};
use ocelli_train::sources::{Data, DataSource, ModelSource, PICTURE_MEMORY, ToolSource};
use serde::Deserialize;
use serde_json::json;

use super::tool_source;
use crate::config;
use crate::ui::Ui;
use crate::watch::{INTERRUPTED, Watch, stop_on_interrupt};

/// Train a model: supervised, on preference pairs, as a reward model, by reinforcement.
///
/// A run that was stopped or killed goes on where it was when the same command is given again, to the same numbers.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    stage: Stage,
}

#[derive(clap::Subcommand)]
enum Stage {
    /// Supervised fine-tuning on what the assistant says.
    Sft(Run),
    /// A reward model from preference pairs.
    Reward(Run),
    /// Mixed preference optimisation (DPO, BCO and likelihood) on preference pairs.
    Mpo(Run),
    /// Group-relative policy optimisation, with tools and a sample buffer.
    Grpo(Run),
}

#[derive(clap::Args)]
struct Run {
    /// The configuration, a TOML file.
    config: PathBuf,
    /// Change a setting: --set train.batch=8. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check everything, data included, and train nothing.
    #[arg(long)]
    dry_run: bool,
}

/// The file of one stage: where the model and the data come from, where the run goes, and the stage's own settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    /// Run directory.
    out: PathBuf,
    model: ModelSource,
    data: DataSource,
    #[serde(default)]
    held_out: DataSource,
    /// Supervised runs on questions: learn the oracle's reasons before the answer.
    #[serde(default)]
    reasons: bool,
    /// Tools that the policy may call. A supervised run on drawn questions then learns the oracle's calls too.
    #[serde(default = "ToolSource::none")]
    tools: ToolSource,
    /// Supervised runs with tools: share of the questions whose plan is followed call by call; the others are answered at
    /// once although tools are listed.
    #[serde(default = "half")]
    calling: f64,
    /// Supervised runs with tools: how rollouts are written and bounded.
    #[serde(default)]
    rollout: RolloutConfig,
    /// Reinforcement: the reward model, where the reward weighs one.
    #[serde(default)]
    reward_model: Option<ModelSource>,
    #[serde(default)]
    train: T,
}

fn half() -> f64 {
    0.5
}

impl<T> File<T> {
    /// Examples of a supervised run.
    fn lessons(
        &self,
        model: &Vlm,
        data: &Data,
        toolbox: Option<&Arc<dyn Toolbox>>,
    ) -> anyhow::Result<Vec<Response>> {
        let Some(toolbox) = toolbox else { return Ok(data.responses(model, self.reasons)?) };
        let pictures = Arc::new(Pictures::in_memory(PICTURE_MEMORY));
        data.share_pictures(&pictures)?;
        let rollouts = Rollouts::new(model, &self.rollout, pictures, Some(toolbox.clone()))?;
        Ok(rollouts.lessons(model, &data.samples(), self.calling, None)?)
    }

    /// The tools; asked for before models and data are read, since a server may not be there.
    fn toolbox(&self, ui: &Ui) -> anyhow::Result<Option<Arc<dyn Toolbox>>> {
        tool_source::toolbox(&self.tools, &Limits::default(), ui)
    }

    fn held_out(&self) -> anyhow::Result<Data> {
        Ok(if self.held_out.is_empty() { Data::default() } else { self.held_out.load()? })
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let mut watch = Watch::new(ui, stop_on_interrupt());
    let outcome = match &args.stage {
        Stage::Sft(run) => train_sft(run, &mut watch)?,
        Stage::Reward(run) => train_reward(run, &mut watch)?,
        Stage::Mpo(run) => train_mpo(run, &mut watch)?,
        Stage::Grpo(run) => train_grpo(run, &mut watch)?,
    };
    let Some((out, outcome)) = outcome else { return Ok(ExitCode::SUCCESS) };
    watch.finish();
    report(&out, &outcome, ui);
    Ok(if outcome.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// What a finished command says: `None` after a dry run.
type Done = Option<(PathBuf, Outcome)>;

fn checked(ui: &Ui, model: &Vlm, examples: usize, held_out: usize) {
    ui.note(&format!(
        "the configuration is sound: {} parameters, {examples} examples, {held_out} held out",
        model.params.element_count()
    ));
}

fn train_sft(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<SftConfig> = config::load(&run.config, &run.set)?;
    let toolbox = file.toolbox(watch.ui())?;
    let model = file.model.load()?;
    let train = file.lessons(&model, &file.data.load()?, toolbox.as_ref())?;
    let held_out = file.lessons(&model, &file.held_out()?, toolbox.as_ref())?;
    if run.dry_run {
        file.train.validate(&train, &held_out)?;
        checked(watch.ui(), &model, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = sft::run(&file.train, model, &train, &held_out, &file.out, watch)?;
    Ok(Some((file.out, outcome)))
}

fn train_reward(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<RewardConfig> = config::load(&run.config, &run.set)?;
    let model = file.model.load()?;
    let train = file.data.load()?.pairs(&model)?;
    let held_out = file.held_out()?.pairs(&model)?;
    if run.dry_run {
        file.train.validate(&train)?;
        checked(watch.ui(), &model, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = reward_model::run(&file.train, model, &train, &held_out, &file.out, watch)?;
    Ok(Some((file.out, outcome)))
}

fn train_mpo(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<MpoConfig> = config::load(&run.config, &run.set)?;
    let model = file.model.load()?;
    let train = file.data.load()?.pairs(&model)?;
    let held_out = file.held_out()?.pairs(&model)?;
    if run.dry_run {
        file.train.validate(&train, &held_out)?;
        checked(watch.ui(), &model, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = mpo::run(&file.train, model, &train, &held_out, &file.out, watch)?;
    Ok(Some((file.out, outcome)))
}

fn train_grpo(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<GrpoConfig> = config::load(&run.config, &run.set)?;
    let toolbox = file.toolbox(watch.ui())?;
    let model = file.model.load()?;
    let reward_model = file.reward_model.as_ref().map(ModelSource::load).transpose()?;
    let pictures = Arc::new(Pictures::in_memory(PICTURE_MEMORY));
    let (train, held_out) = (file.data.load()?, file.held_out()?);
    train.share_pictures(&pictures)?;
    held_out.share_pictures(&pictures)?;
    let (train, held_out) = (train.samples(), held_out.samples());
    let inputs = GrpoInputs {
        model,
        train: &train,
        held_out: &held_out,
        pictures,
        toolbox,
        reward_model: reward_model.as_ref(),
    };
    if run.dry_run {
        file.train.validate(&inputs)?;
        checked(watch.ui(), &inputs.model, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = grpo::run(&file.train, inputs, &file.out, watch)?;
    Ok(Some((file.out, outcome)))
}

/// The last value of every metric, evaluation first.
fn report(out: &Path, outcome: &Outcome, ui: &Ui) {
    if ui.json {
        println!("{}", json!({ "run": out, "outcome": outcome }));
        return;
    }
    let (held_out, own): (Vec<_>, Vec<_>) = outcome.metrics.iter().partition(|(n, _)| n.starts_with("eval/"));
    for (name, value) in held_out.iter().chain(&own) {
        println!("{name:32} {value:.5}");
    }
    let alarms = if outcome.alarms > 0 { format!(", {} alarms", outcome.alarms) } else { String::new() };
    println!("{} after {} steps{alarms}: {}", ui.bold("done"), outcome.steps, out.display());
    if let Some(model) = &outcome.model {
        println!("model: {}", model.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: serde::de::DeserializeOwned>(name: &str) -> T {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
        config::load(&path, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"))
    }

    #[test]
    fn the_shipped_configurations_parse() {
        parse::<File<SftConfig>>("sft-charts.toml");
        parse::<File<RewardConfig>>("reward-charts.toml");
        parse::<File<MpoConfig>>("mpo-charts.toml");
        parse::<File<GrpoConfig>>("grpo-charts.toml");
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest() {
        let text = "out = 'x'\n[model]\ntiny = 'tiny-0.5m'\n[data]\n[train]\nbacth = 4\n";
        let error =
            config::parse::<File<SftConfig>>(text, &[]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("bacth") && error.contains("did you mean `batch`"), "{error}");
    }
}
