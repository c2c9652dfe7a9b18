//! `ocelli rollout CONFIG`: rolls out questions with tools, keeps every trajectory in a ledger, scores and filters
//! them, and writes what training, people and programs read.
//!
//! ```text
//! out/config.toml          the configuration as it was run
//! out/ledger.sqlite        the work; run the same command again after a crash and it goes on
//! out/images/              every picture by its hash
//! out/trajectories.jsonl   all trajectories with their scores, in the order of the ledger's keys
//! out/sft.jsonl            those that passed all filters
//! out/report.json          how they ended, what each filter refused
//! out/index.html           the trajectories for people: one file, no server
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use ocelli_agent::batching::{BatchConfig, Driver};
use ocelli_agent::control::Control;
use ocelli_agent::durable::{DurableConfig, finished, tasks};
use ocelli_agent::endpoint::{Endpoint, EndpointConfig, SamplingParams};
use ocelli_agent::endpoint_policy::EndpointPolicy;
use ocelli_agent::engine::{Engine, Loan};
use ocelli_agent::episode::{Ended, Job, World};
use ocelli_agent::filters::{Filter, FilterReport, filter};
use ocelli_agent::ledger::{Ledger, SqliteLedger, Stats};
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::local::LocalPolicy;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::Policy;
use ocelli_agent::score::score;
use ocelli_agent::scripted::ScriptedPolicy;
use ocelli_agent::tool_env::{ToolEnvConfig, ToolEnvs};
use ocelli_agent::toolbox::{LocalTools, Toolbox};
use ocelli_agent::viewer::{ViewerConfig, render};
use ocelli_agent::vlm_policy::{VlmModel, VlmRenderer};
use ocelli_data::io::{BlobStore, read_jsonl, write_atomic, write_jsonl};
use ocelli_data::{Sample, Trajectory};
use ocelli_model::generate::Sampling;
use ocelli_model::vlm::LoadOptions;
use ocelli_model::{Checkpoint, Vlm};
use ocelli_reward::Rubric;
use ocelli_reward::rubric::PartConfig;
use ocelli_tools::{Client, Limits, Registry};
use ocelli_worlds::{Level, Setup};
use serde::{Deserialize, Serialize};

use super::model_source;
use crate::config;
use crate::ui::Ui;

/// Roll out questions with tools, and keep, score, filter and show the trajectories.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file; configs/rollout-charts.toml is an example.
    config: PathBuf,
    /// Change one key, e.g. --set data.count=5.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Try again what was given up because it killed its worker.
    #[arg(long)]
    retry_dead: bool,
}

/// One run.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RolloutConfig {
    /// Directory of the run.
    out: PathBuf,
    /// Seed of all sampling.
    #[serde(default)]
    seed: u64,
    /// Rollouts of each question.
    #[serde(default = "one")]
    group: u32,
    /// Trajectories that are under way together.
    #[serde(default = "default_live")]
    live: usize,
    data: Data,
    policy: PolicyConfig,
    #[serde(default)]
    env: ToolEnvConfig,
    #[serde(default)]
    tools: Tools,
    #[serde(default)]
    limits: RolloutLimits,
    /// What trajectories are scored by.
    #[serde(default = "accuracy")]
    rubric: Vec<PartConfig>,
    /// What a trajectory must be to enter sft.jsonl.
    #[serde(default = "all_filters")]
    filters: Vec<Filter>,
}

fn one() -> u32 {
    1
}

fn default_live() -> usize {
    32
}

fn all_filters() -> Vec<Filter> {
    Filter::ALL.to_vec()
}

fn accuracy() -> Vec<PartConfig> {
    let kind = ocelli_reward::rubric::PartKind::Accuracy(ocelli_reward::Accuracy::default());
    vec![PartConfig { weight: 1.0, kind }]
}

/// Where the questions come from.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Data {
    /// A drawn world, with the oracle's plan of each question.
    World {
        name: String,
        count: u64,
        #[serde(default)]
        seed: u64,
        #[serde(default = "default_width")]
        width: u32,
        #[serde(default = "default_height")]
        height: u32,
        #[serde(default)]
        level: Level,
    },
    /// Rows of `Sample`, and a directory of pictures by hash.
    Jsonl { path: PathBuf, images: PathBuf },
}

fn default_width() -> u32 {
    448
}

fn default_height() -> u32 {
    336
}

/// Who answers.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum PolicyConfig {
    /// The plan that each question carries in `meta.plan`.
    Oracle,
    /// A model on this machine.
    Local {
        /// Path or name; the default model if left out.
        model: Option<String>,
        #[serde(default = "default_temperature")]
        temperature: f32,
        #[serde(default = "default_top_p")]
        top_p: f32,
        /// Sequences that decode together.
        #[serde(default = "default_live")]
        rows: usize,
    },
    /// An OpenAI-compatible server. Its key is read from the environment variable OCELLI_API_KEY.
    Endpoint {
        base_url: String,
        model: String,
        #[serde(default)]
        sampling: SamplingParams,
        /// Seconds until one attempt is given up.
        #[serde(default = "default_timeout")]
        timeout_s: f64,
    },
}

fn default_temperature() -> f32 {
    1.0
}

fn default_top_p() -> f32 {
    1.0
}

fn default_timeout() -> f64 {
    600.0
}

/// Which tools, and where they run.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Tools {
    /// Names in the order in which prompts list them; all if left out.
    names: Option<Vec<String>>,
    /// Addresses of tool servers; the tools of this program if empty.
    servers: Vec<String>,
    /// Calls of local tools that run together.
    threads: usize,
}

impl Default for Tools {
    fn default() -> Self {
        Self { names: None, servers: Vec::new(), threads: 4 }
    }
}

/// What `report.json` holds.
#[derive(Serialize)]
struct Report {
    work: Stats,
    dead: usize,
    filters: FilterReport,
    mean_reward: Option<f64>,
}

const RUN: &str = "rollout";
/// Leases of a task before it is given up; a worker that is killed uses one up.
const MAX_ATTEMPTS: u32 = 8;
/// Memory for pictures besides the disk.
const PICTURES: usize = 256 << 20;

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let config: RolloutConfig = config::load(&args.config, &args.set)?;
    let rubric = Rubric::from_config(&config.rubric)?;
    let blobs = BlobStore::new(config.out.join("images"));
    let samples = samples(&config.data, &blobs)?;
    write_atomic(&config.out.join("config.toml"), toml::to_string_pretty(&config)?.as_bytes())?;

    let ledger: Arc<dyn Ledger> =
        Arc::new(SqliteLedger::open(&config.out.join("ledger.sqlite"), MAX_ATTEMPTS)?);
    let jobs = Job::group(&samples, config.group, config.seed);
    // What decides a rollout's content: a changed key makes new work, a changed `live` does not.
    let decides = serde_json::json!([config.policy, config.env, config.tools.names, config.limits]);
    ledger.put(RUN, &tasks(&jobs, &decides.to_string())?)?;
    if args.retry_dead {
        ledger.retry_dead(RUN)?;
    }
    let pictures = Arc::new(Pictures::on_disk(blobs, PICTURES));
    roll_out(&config, ledger.clone(), pictures.clone(), ui)?;

    let mut rows = finished(&*ledger, RUN)?;
    score(&mut rows, &rubric, samples.iter().map(AsRef::as_ref));
    let stats = ledger.stats(RUN)?;
    let dead = ledger.dead_letters(RUN)?;
    for letter in &dead {
        ui.note(&format!("given up after {} attempts: {}: {}", letter.attempts, letter.key, letter.error));
    }
    let report = write_results(&config, &rows, stats, dead.len(), &pictures)?;
    show(&config, &report, ui)?;
    Ok(ExitCode::SUCCESS)
}

fn samples(data: &Data, blobs: &BlobStore) -> anyhow::Result<Vec<Arc<Sample>>> {
    match data {
        Data::World { name, count, seed, width, height, level } => {
            let world = ocelli_worlds::world(name)?;
            let setup = Setup::new(*width, *height, *level)?;
            let make = |index| {
                let mut item = world.generate(*seed, index, &setup)?;
                for picture in &item.pictures {
                    blobs.put(&picture.bytes)?;
                }
                item.sample.meta.insert("plan".to_owned(), serde_json::to_value(&item.plan)?);
                Ok(Arc::new(item.sample))
            };
            (0..*count).map(make).collect()
        }
        Data::Jsonl { path, images } => {
            let rows: Vec<Sample> = read_jsonl(path)?;
            let from = BlobStore::new(images);
            for hash in rows.iter().flat_map(|s| &s.messages).flat_map(|m| m.images()) {
                let limit = ocelli_agent::pictures::MAX_IMAGE;
                // A picture that cannot be had makes its own trajectory a bad sample, not the run.
                if let Ok(bytes) = from.get(hash, limit) {
                    blobs.put(&bytes)?;
                }
            }
            Ok(rows.into_iter().map(Arc::new).collect())
        }
    }
}

fn toolbox(tools: &Tools, engine_limits: &Limits) -> anyhow::Result<Arc<dyn Toolbox>> {
    if !tools.servers.is_empty() {
        if tools.names.is_some() {
            bail!("tools.names and tools.servers cannot be given together: a server offers what it offers");
        }
        let endpoint = |url: &String| ocelli_tools::Endpoint { url: url.clone(), token: None };
        let endpoints: Vec<_> = tools.servers.iter().map(endpoint).collect();
        let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
        return Ok(Arc::new(runtime.block_on(Client::connect(&endpoints, engine_limits.clone()))?));
    }
    let mut registry = Registry::standard(engine_limits.clone());
    if let Some(names) = &tools.names {
        registry = registry.only(names)?;
    }
    Ok(Arc::new(LocalTools::new(Arc::new(registry), tools.threads)))
}

fn roll_out(
    config: &RolloutConfig,
    ledger: Arc<dyn Ledger>,
    pictures: Arc<Pictures>,
    ui: &Ui,
) -> anyhow::Result<()> {
    let limits = Limits::default();
    let toolbox = toolbox(&config.tools, &limits)?;
    let specs = toolbox.specs();
    let envs = ToolEnvs::new(config.env.clone(), toolbox, pictures.clone(), limits);
    let format = config.env.format;
    let world = |policy: Arc<dyn Policy>| World {
        policy,
        envs: Arc::new(envs),
        pictures,
        limits: config.limits.clone(),
    };
    let engine = Engine::new(config.live)?;
    let durable = DurableConfig { live: config.live, ..DurableConfig::new(RUN) };
    let control = Control::default();
    stop_on_interrupt(control.clone());

    let before = ledger.stats(RUN)?;
    let bar = ui.progress(before.ready + before.leased, "rollouts");
    let mut on_end = |_: &Ended| bar.inc(1);
    match &config.policy {
        PolicyConfig::Oracle => {
            let world = world(Arc::new(ScriptedPolicy::oracle(format)));
            engine.run_durable(None, &world, &control, ledger, &durable, &mut on_end)?;
        }
        PolicyConfig::Endpoint { base_url, model, sampling, timeout_s } => {
            let mut endpoint = EndpointConfig::new(base_url, model);
            endpoint.timeout_s = *timeout_s;
            let key = std::env::var("OCELLI_API_KEY").ok().filter(|k| !k.is_empty());
            endpoint.api_key = key.map(ocelli_agent::endpoint::ApiKey::new);
            let policy = EndpointPolicy::new(Endpoint::new(endpoint)?, sampling.clone(), format);
            engine.run_durable(None, &world(Arc::new(policy)), &control, ledger, &durable, &mut on_end)?;
        }
        PolicyConfig::Local { model, temperature, top_p, rows } => {
            let path = model_source::resolve(model.as_deref(), ui)?;
            let vlm = Vlm::load(&Checkpoint::open(&path)?, LoadOptions::frozen())?;
            let template_tools = if config.env.instructions { &[][..] } else { &specs };
            let batch = BatchConfig { rows: (*rows).max(1), ..BatchConfig::default() };
            let mut driver = Driver::new(batch);
            let renderer = Arc::new(VlmRenderer::new(&vlm, template_tools)?);
            let world = world(Arc::new(LocalPolicy::new(&driver, renderer)));
            let sampling = Sampling { temperature: *temperature, top_p: *top_p, ..Sampling::default() };
            let mut lent = VlmModel::new(&vlm, sampling, 0, batch.rows)?;
            let loan = Loan { driver: &mut driver, model: &mut lent };
            engine.run_durable(Some(loan), &world, &control, ledger, &durable, &mut on_end)?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// The first Ctrl-C lets each trajectory save its turn and gives the work back; the second stops at once.
fn stop_on_interrupt(control: Control) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let _ = tokio::signal::ctrl_c().await;
            control.pause();
            let _ = tokio::signal::ctrl_c().await;
            control.cancel();
        });
    });
}

fn write_results(
    config: &RolloutConfig,
    rows: &[Ended],
    work: Stats,
    dead: usize,
    pictures: &Pictures,
) -> anyhow::Result<Report> {
    let trajectories: Vec<Trajectory> = rows.iter().map(|r| r.trajectory.clone()).collect();
    let (kept, filters) = filter(&trajectories, &config.filters, "accuracy");
    let rewards: Vec<f64> =
        trajectories.iter().filter_map(|t| t.score("reward")).map(ocelli_data::Score::or_zero).collect();
    let mean_reward = (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / rewards.len() as f64);
    write_jsonl(&config.out.join("trajectories.jsonl"), &trajectories)?;
    write_jsonl(&config.out.join("sft.jsonl"), &kept)?;
    let report = Report { work, dead, filters, mean_reward };
    write_atomic(&config.out.join("report.json"), serde_json::to_string_pretty(&report)?.as_bytes())?;
    let name = config.out.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let viewer = ViewerConfig {
        title: name,
        subtitle: format!("{} trajectories, {} kept for training", trajectories.len(), report.filters.kept),
        ..ViewerConfig::default()
    };
    let page = render(rows, &viewer, &|hash| pictures.get(hash).ok());
    write_atomic(&config.out.join("index.html"), page.as_bytes())?;
    Ok(report)
}

fn show(config: &RolloutConfig, report: &Report, ui: &Ui) -> anyhow::Result<()> {
    if ui.json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let f = &report.filters;
    println!("{}", ui.bold(&format!("{} trajectories, {} kept", f.seen, f.kept)));
    for (status, count) in &f.statuses {
        println!("  {count:>6}  {}", name(status)?);
    }
    println!("refused by each filter (by it alone)");
    for (filter, count) in &f.refused {
        let alone = f.refused_alone.get(filter).copied().unwrap_or(0);
        println!("  {count:>6}  ({alone})  {}", name(filter)?);
    }
    if let Some(mean) = report.mean_reward {
        println!("mean reward {mean:.3}");
    }
    if !report.work.is_settled() {
        let left = report.work.ready + report.work.leased;
        println!("{left} not finished; the same command goes on");
    }
    println!("{}", config.out.join("index.html").display());
    Ok(())
}

/// The name that JSON uses.
fn name(value: &impl Serialize) -> anyhow::Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read_and_written_back() {
        let text = include_str!("../../../../configs/rollout-charts.toml");
        let config: RolloutConfig = config::parse(text, &["data.count=3".into()]).unwrap();
        let again: RolloutConfig = config::parse(&toml::to_string_pretty(&config).unwrap(), &[]).unwrap();
        assert_eq!(format!("{config:?}"), format!("{again:?}"));
        assert!(matches!(config.data, Data::World { count: 3, .. }));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let text = "out = \"x\"\nlife = 3\n[data]\nkind = \"world\"\nname = \"charts\"\ncount = 1\n[policy]\nkind = \"oracle\"\n";
        let message = config::parse::<RolloutConfig>(text, &[]).unwrap_err().to_string();
        assert!(message.contains("`life`") && message.contains("did you mean `live`?"), "{message}");
    }
}
