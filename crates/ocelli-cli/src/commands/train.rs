//! `ocelli train sft|reward|mpo|grpo CONFIG`: one stage of training, live in the terminal, resumable at any moment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ocelli_agent::pictures::Pictures;
use ocelli_agent::toolbox::Toolbox;
use ocelli_model::vlm::Vlm;
use ocelli_tools::Limits;
use ocelli_train::grpo::{self, GrpoConfig, GrpoInputs};
use ocelli_train::identity::Place;
use ocelli_train::mpo::{self, MpoConfig};
use ocelli_train::responses::Response;
use ocelli_train::reward_model::{self, RewardConfig};
use ocelli_train::rollouts::{RolloutConfig, Rollouts};
use ocelli_train::run::Outcome;
use ocelli_train::sft::{self, SftConfig};
use ocelli_train::sources::{Data, DataSource, ModelSource, PICTURE_MEMORY, ToolSource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
#[derive(Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(bound = "T: schemars::JsonSchema + serde::Serialize + Default")]
pub(crate) struct File<T> {
    /// Run directory.
    out: PathBuf,
    model: ModelSource,
    data: DataSource,
    #[serde(default)]
    held_out: DataSource,
    /// Supervised runs on questions: learn the oracle's reasons before the answer.
    reasons: Option<bool>,
    /// Tools that the policy may call. A supervised run on drawn questions then learns the oracle's calls too.
    tools: Option<ToolSource>,
    /// Supervised runs with tools: share of the questions whose plan is followed call by call (0.5 unless it is set); the others
    /// are answered at once although tools are listed.
    calling: Option<f64>,
    /// Supervised runs with tools: how rollouts are written and bounded.
    rollout: Option<RolloutConfig>,
    /// Reinforcement: the reward model, where the reward weighs one.
    reward_model: Option<ModelSource>,
    #[serde(default)]
    train: T,
}

/// Share of the questions whose plan is followed where `calling` does not say.
const CALLING: f64 = 0.5;

impl<T: Serialize> File<T> {
    /// Refuses settings that this kind of training never looks at; `used` are those that it does.
    fn uses(&self, kind: &str, used: &[&str]) -> anyhow::Result<()> {
        let given = [
            ("reasons", self.reasons.is_some(), "`sft`"),
            ("tools", self.tools.is_some(), "`sft` and `grpo`"),
            ("calling", self.calling.is_some(), "`sft` with tools"),
            ("rollout", self.rollout.is_some(), "`sft` with tools (`grpo` has `train.rollout`)"),
            ("reward_model", self.reward_model.is_some(), "`grpo`"),
        ];
        let odd = given.into_iter().find(|(key, given, _)| *given && !used.contains(key));
        if let Some((key, _, whose)) = odd {
            anyhow::bail!("`{key}` is set, but `ocelli train {kind}` does not use it; it belongs to {whose}");
        }
        Ok(())
    }

    /// Examples of a supervised run.
    fn lessons(
        &self,
        model: &Vlm,
        data: &Data,
        toolbox: Option<&Arc<dyn Toolbox>>,
    ) -> anyhow::Result<Vec<Response>> {
        let Some(toolbox) = toolbox else { return Ok(data.responses(model, self.reasons.unwrap_or(false))?) };
        data.no_pairs("trajectories, or questions with an oracle's plan")?;
        let pictures = Arc::new(Pictures::in_memory(PICTURE_MEMORY));
        data.share_pictures(&pictures)?;
        let settings = self.rollout.clone().unwrap_or_default();
        let rollouts = Rollouts::new(model, &settings, pictures, Some(toolbox.clone()))?;
        // Recorded dialogues with tools are learned as they are, with the tools listed before them.
        let recorded = data.trajectories.iter().map(|t| rollouts.lesson(model, t, true));
        let mut lessons = recorded.collect::<Result<Vec<_>, _>>()?;
        if !data.questions.is_empty() {
            let calling = self.calling.unwrap_or(CALLING);
            lessons.extend(rollouts.lessons(model, &data.samples(), calling, None)?);
        }
        Ok(lessons)
    }

    /// The tools; asked for before models and data are read, since a server may not be there.
    fn toolbox(&self, ui: &Ui) -> anyhow::Result<Option<Arc<dyn Toolbox>>> {
        match &self.tools {
            Some(tools) => tool_source::toolbox(tools, &Limits::default(), ui),
            None => Ok(None),
        }
    }

    fn held_out(&self) -> anyhow::Result<Data> {
        Ok(if self.held_out.is_empty() { Data::default() } else { self.held_out.load_as("held_out")? })
    }

    /// The whole configuration, for refusals that name what differs from the run that a directory holds.
    fn described(&self) -> anyhow::Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let mut watch = Watch::new(ui, stop_on_interrupt());
    let (kind, run, done) = match &args.stage {
        Stage::Sft(run) => ("sft", run, train_sft(run, &mut watch)?),
        Stage::Reward(run) => ("reward", run, train_reward(run, &mut watch)?),
        Stage::Mpo(run) => ("mpo", run, train_mpo(run, &mut watch)?),
        Stage::Grpo(run) => ("grpo", run, train_grpo(run, &mut watch)?),
    };
    let Some((out, outcome)) = done else { return Ok(ExitCode::SUCCESS) };
    watch.finish();
    report(&out, &outcome, &run.command(kind), ui);
    Ok(if outcome.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

impl Run {
    /// The command line that goes on with this run.
    fn command(&self, kind: &str) -> String {
        let mut words =
            vec!["ocelli train".to_owned(), kind.to_owned(), quoted(&self.config.to_string_lossy())];
        for set in &self.set {
            words.extend(["--set".to_owned(), quoted(set)]);
        }
        words.join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=+,:@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// What a finished command says: `None` after a dry run.
type Done = Option<(PathBuf, Outcome)>;

fn checked(ui: &Ui, parameters: usize, examples: usize, held_out: usize) {
    ui.note(&format!(
        "the configuration is sound: {parameters} parameters, {examples} examples, {held_out} held out"
    ));
}

fn train_sft(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<SftConfig> = config::load(&run.config, &run.set)?;
    file.uses("sft", &["reasons", "tools", "calling", "rollout"])?;
    file.train.validate_settings()?;
    let toolbox = file.toolbox(watch.ui())?;
    let without = [("calling", file.calling.is_some()), ("rollout", file.rollout.is_some())];
    if let Some((key, _)) = without.iter().find(|(_, given)| *given && toolbox.is_none()) {
        anyhow::bail!(
            "`{key}` is set, but there are no tools, so it would change nothing; name some in `tools`"
        );
    }
    anyhow::ensure!(
        file.reasons != Some(true) || toolbox.is_none(),
        "`reasons` and `tools` cannot be combined: with tools the oracle's calls are learned, not its reasons"
    );
    let model = file.model.load()?;
    let train = file.lessons(&model, &file.data.load()?, toolbox.as_ref())?;
    let held_out = file.lessons(&model, &file.held_out()?, toolbox.as_ref())?;
    let described = file.described()?;
    let place = Place { dir: &file.out, described: Some(&described) };
    if run.dry_run {
        let parameters = model.params.element_count();
        sft::check(&file.train, model, &train, &held_out, place)?;
        checked(watch.ui(), parameters, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = sft::run(&file.train, model, &train, &held_out, place, watch)?;
    Ok(Some((file.out, outcome)))
}

fn train_reward(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<RewardConfig> = config::load(&run.config, &run.set)?;
    file.uses("reward", &[])?;
    file.train.validate_settings()?;
    let model = file.model.load()?;
    let train = file.data.load()?.pairs(&model)?;
    let held_out = file.held_out()?.pairs(&model)?;
    let described = file.described()?;
    let place = Place { dir: &file.out, described: Some(&described) };
    if run.dry_run {
        let parameters = model.params.element_count();
        reward_model::check(&file.train, model, &train, &held_out, place)?;
        checked(watch.ui(), parameters, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = reward_model::run(&file.train, model, &train, &held_out, place, watch)?;
    Ok(Some((file.out, outcome)))
}

fn train_mpo(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<MpoConfig> = config::load(&run.config, &run.set)?;
    file.uses("mpo", &[])?;
    file.train.validate_settings()?;
    let model = file.model.load()?;
    let train = file.data.load()?.pairs(&model)?;
    let held_out = file.held_out()?.pairs(&model)?;
    let described = file.described()?;
    let place = Place { dir: &file.out, described: Some(&described) };
    if run.dry_run {
        let parameters = model.params.element_count();
        mpo::check(&file.train, model, &train, &held_out, place)?;
        checked(watch.ui(), parameters, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = mpo::run(&file.train, model, &train, &held_out, place, watch)?;
    Ok(Some((file.out, outcome)))
}

fn train_grpo(run: &Run, watch: &mut Watch<'_>) -> anyhow::Result<Done> {
    let file: File<GrpoConfig> = config::load(&run.config, &run.set)?;
    file.uses("grpo", &["tools", "reward_model"])?;
    file.train.validate_settings()?;
    let toolbox = file.toolbox(watch.ui())?;
    let (train, held_out) = (file.data.load()?, file.held_out()?);
    for data in [&train, &held_out] {
        data.no_trajectories("questions")?;
        data.no_pairs("questions")?;
    }
    let model = file.model.load()?;
    let reward_model = file.reward_model.as_ref().map(ModelSource::load).transpose()?;
    let pictures = Arc::new(Pictures::in_memory(PICTURE_MEMORY));
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
    let described = file.described()?;
    let place = Place { dir: &file.out, described: Some(&described) };
    if run.dry_run {
        let parameters = inputs.model.params.element_count();
        for note in grpo::check(&file.train, inputs, place)? {
            watch.ui().note(&note);
        }
        checked(watch.ui(), parameters, train.len(), held_out.len());
        return Ok(None);
    }
    let (_, outcome) = grpo::run(&file.train, inputs, place, watch)?;
    Ok(Some((file.out, outcome)))
}

/// The last value of every metric, evaluation first; after an interruption, how to go on with `command`.
fn report(out: &Path, outcome: &Outcome, command: &str, ui: &Ui) {
    if ui.json {
        println!("{}", json!({ "run": out, "outcome": outcome }));
        return;
    }
    let (held_out, own): (Vec<_>, Vec<_>) = outcome.metrics.iter().partition(|(n, _)| n.starts_with("eval/"));
    for (name, value) in held_out.iter().chain(&own) {
        println!("{name:32} {value:.5}");
    }
    let alarms = if outcome.alarms > 0 { format!(", {} alarms", outcome.alarms) } else { String::new() };
    if outcome.interrupted {
        let ended = ui.bold("interrupted");
        println!("{ended} after {} steps{alarms}; everything is saved: {}", outcome.steps, out.display());
        println!("go on with: {command}");
        return;
    }
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
