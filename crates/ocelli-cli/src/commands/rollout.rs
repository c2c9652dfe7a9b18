//! `ocelli rollout CONFIG`: rolls out questions with tools, keeps every trajectory in a ledger, scores and filters
//! them, and writes what training, people and programs read.
//!
//! ```text
//! out/config.toml          the configuration as it was run
//! out/ledger.sqlite        the work; run the same command again after a crash and it goes on
//! out/images/              every picture by its hash
//! out/trajectories.jsonl   all trajectories that came to an end, with their scores, in the order of the ledger's keys
//! out/sft.jsonl            those that passed all filters
//! out/report.json          how they ended, what each filter refused, what was given up, calls and times per tool
//! out/index.html           the trajectories for people: one file, no server
//! ```
//!
//! The ledger and the pictures are written as the work goes on; the other files when the command ends, on Ctrl-C too.
//!
//! A rollout that ends because a tool, its server or what the policy runs on failed says nothing about the policy. It is
//! tried again `retries` times, then given up: it stands in the report with what failed, is no trajectory, does not count in
//! the mean reward, and makes the exit code 3. The same command tries it again.

mod results;
mod settings;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use ocelli_agent::batching::{BatchConfig, Driver};
use ocelli_agent::control::{Control, Signal};
use ocelli_agent::durable::{DurableConfig, finished_tasks, is_outage, tasks};
use ocelli_agent::endpoint::{Endpoint, Totals};
use ocelli_agent::endpoint_policy::EndpointPolicy;
use ocelli_agent::engine::{Engine, Loan};
use ocelli_agent::env::EnvFactory;
use ocelli_agent::episode::{Ended, Job, World};
use ocelli_agent::ledger::{Ledger, SqliteLedger, Task};
use ocelli_agent::local::LocalPolicy;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::Policy;
use ocelli_agent::score::score;
use ocelli_agent::scripted::ScriptedPolicy;
use ocelli_agent::tool_env::ToolEnvs;
use ocelli_agent::tool_source::ToolSource;
use ocelli_agent::toolbox::{NoTools, Toolbox};
use ocelli_agent::vlm_policy::{VlmModel, VlmRenderer};
use ocelli_data::io::{BlobStore, read_jsonl, write_atomic};
use ocelli_data::{Sample, Status};
use ocelli_model::generate::Sampling;
use ocelli_model::vlm::LoadOptions;
use ocelli_model::{Checkpoint, Vlm};
use ocelli_reward::Rubric;
use ocelli_tools::Limits;
use ocelli_worlds::Setup;
use serde_json::json;

pub(super) use self::settings::RolloutConfig;
use self::settings::{Data, PolicyConfig};
use super::{model_source, tool_source};
use crate::config;
use crate::ui::Ui;

/// Roll out questions with tools, and keep, score, filter and show the trajectories.
///
/// The ledger and the pictures in the directory of the run are written as the work goes on, all other files (*.jsonl,
/// report.json, index.html) when the command ends; Ctrl-C gives the work that is under way back at once, and the same
/// command goes on. Exit code 3: some rollouts were given up because tools, their servers or the policy's server failed
/// again and again. They are no trajectories and do not count in the mean reward; the same command tries them again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file; configs/rollout-charts.toml is an example.
    config: PathBuf,
    /// Change one key, e.g. --set data.count=5.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Try again also what was given up because it killed its worker; what was given up because tools or servers failed is
    /// tried again without this.
    #[arg(long)]
    retry_dead: bool,
    /// Check the configuration, questions and tools, show the first prompt, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Exit code where the work is done in part: some of it was given up.
const GIVEN_UP: u8 = 3;
/// Leases of a task before it is given up; a worker that is killed uses one up.
const MAX_ATTEMPTS: u32 = 8;
/// How long a killed process keeps its work from the next one.
const LEASE: Duration = Duration::from_secs(15);
/// Memory for pictures besides the disk.
const PICTURES: usize = 256 << 20;

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let config: RolloutConfig = config::load(&args.config, &args.set)?;
    let rubric = Rubric::from_config(&config.rubric)?;
    if args.dry_run {
        return dry_run(&config, ui);
    }
    let blobs = BlobStore::new(config.out.join("images"));
    let samples = samples(&config.data, &|bytes| Ok(blobs.put(bytes).map(drop)?))?;
    write_atomic(&config.out.join("config.toml"), toml::to_string_pretty(&config)?.as_bytes())?;
    let ledger: Arc<dyn Ledger> =
        Arc::new(SqliteLedger::open(&ledger_path(&config), MAX_ATTEMPTS.max(config.retries + 1))?);
    let run = config.run_name();
    let tasks = work(&config, &samples)?;
    ledger.put(&run, &tasks)?;
    let again = ledger.retry_dead(&run, &|letter| args.retry_dead || is_outage(letter))?;
    if again > 0 {
        ui.note(&format!("{again} rollouts that were given up are tried again"));
    }
    let pictures = Arc::new(Pictures::on_disk(blobs, PICTURES));
    let stopped = roll_out(&config, ledger.clone(), pictures.clone(), ui)?;

    let mut rows = finished_tasks(&*ledger, &run, &tasks)?;
    score(&mut rows, &rubric, samples.iter().map(AsRef::as_ref));
    let keys: HashSet<&str> = tasks.iter().map(|t| t.key.as_str()).collect();
    let dead = ledger.dead_letters(&run)?.into_iter().filter(|letter| keys.contains(letter.key.as_str()));
    let stats = ledger.stats(&run)?;
    let report = results::write(&config, &rows, stats, dead.collect(), stopped.totals, &pictures)?;
    results::show(&report, ui)?;
    if let Some(refusal) = stopped.refusal {
        bail!("{refusal}\nthe work was given back; mend this and run the same command again");
    }
    Ok(match (stopped.interrupted, report.given_up.is_empty()) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(GIVEN_UP),
    })
}

fn ledger_path(config: &RolloutConfig) -> PathBuf {
    config.out.join("ledger.sqlite")
}

fn work(config: &RolloutConfig, samples: &[Arc<Sample>]) -> anyhow::Result<Vec<Task>> {
    if samples.is_empty() || config.group == 0 {
        bail!("there is nothing to do: {} questions, {} rollouts of each", samples.len(), config.group);
    }
    if config.live == 0 {
        bail!("live is 0, so no rollout would ever be under way");
    }
    let jobs = Job::group(samples, config.group, config.seed);
    Ok(tasks(&jobs, &config.decides())?)
}

/// Everything up to the first turn of the first question.
fn dry_run(config: &RolloutConfig, ui: &Ui) -> anyhow::Result<ExitCode> {
    let pictures = Arc::new(Pictures::in_memory(usize::MAX));
    let samples = samples(&config.data, &|bytes| Ok(pictures.put(bytes.to_vec().into()).map(drop)?))?;
    let tasks = work(config, &samples)?;
    let done = match ledger_path(config).exists() {
        true => {
            let ledger = SqliteLedger::open(&ledger_path(config), MAX_ATTEMPTS)?;
            finished_tasks(&ledger, &config.run_name(), &tasks)?.len()
        }
        false => 0,
    };
    let limits = Limits::default();
    let toolbox = toolbox(&config.tools, &limits, ui)?;
    let names: Vec<String> = toolbox.specs().iter().map(|s| s.name.clone()).collect();
    let policy = match &config.policy {
        PolicyConfig::Oracle => "the plan of each question".to_owned(),
        PolicyConfig::Local { model, .. } => {
            format!("{} on this machine", model.as_deref().unwrap_or("the default model"))
        }
        PolicyConfig::Endpoint(server) => {
            let endpoint = Endpoint::new(server.config())?;
            let key = if endpoint.config().api_key.is_some() { "a key" } else { "no key" };
            format!("{} at {} with {key}", server.model, server.base_url)
        }
    };
    let envs = ToolEnvs::new(config.env.clone(), toolbox, pictures, limits);
    let mut prompt = String::new();
    if let Some(sample) = samples.first() {
        for message in envs.make(sample, None)?.init()? {
            prompt.push_str(&format!("[{:?}]\n{}\n", message.role, message.plain_text()));
        }
    }
    if ui.json {
        let (questions, group) = (samples.len(), config.group);
        println!(
            "{:#}",
            json!({"questions": questions, "group": group, "units": tasks.len(), "done": done, "policy": policy,
                   "tools": names, "first_prompt": prompt, "out": config.out})
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("{prompt}");
    println!(
        "{} questions x {} = {} rollouts, {done} done already",
        samples.len(),
        config.group,
        tasks.len()
    );
    println!("policy: {policy}");
    println!("tools: {}", names.join(", "));
    println!("out: {} (nothing was written)", config.out.display());
    Ok(ExitCode::SUCCESS)
}

fn samples(data: &Data, keep: &dyn Fn(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<Vec<Arc<Sample>>> {
    match data {
        Data::World { name, count, seed, width, height, level } => {
            let world = ocelli_worlds::world(name)?;
            let setup = Setup::new(*width, *height, *level)?;
            let make = |index| {
                let mut item = world.generate(*seed, index, &setup)?;
                item.pictures.iter().try_for_each(|picture| keep(&picture.bytes))?;
                item.sample.meta.insert("plan".to_owned(), serde_json::to_value(&item.plan)?);
                Ok(Arc::new(item.sample))
            };
            (0..*count).map(make).collect()
        }
        Data::Jsonl { path, images } => {
            let rows: Vec<Sample> = read_jsonl(path)?;
            let from = BlobStore::new(images);
            for hash in rows.iter().flat_map(|s| &s.messages).flat_map(|m| m.images()) {
                // A picture that cannot be had makes its own trajectory a bad sample, not the run.
                if let Ok(bytes) = from.get(hash, ocelli_agent::pictures::MAX_IMAGE) {
                    keep(&bytes)?;
                }
            }
            Ok(rows.into_iter().map(Arc::new).collect())
        }
    }
}

fn toolbox(tools: &ToolSource, limits: &Limits, ui: &Ui) -> anyhow::Result<Arc<dyn Toolbox>> {
    Ok(tool_source::toolbox(tools, limits, ui)?.unwrap_or_else(|| Arc::new(NoTools)))
}

/// Why the engine came back, beside that the work was done.
#[derive(Default)]
struct Stopped {
    interrupted: bool,
    /// The endpoint refuses every request.
    refusal: Option<String>,
    totals: Option<Totals>,
}

fn roll_out(
    config: &RolloutConfig,
    ledger: Arc<dyn Ledger>,
    pictures: Arc<Pictures>,
    ui: &Ui,
) -> anyhow::Result<Stopped> {
    let limits = Limits::default();
    let toolbox = toolbox(&config.tools, &limits, ui)?;
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
    let durable = DurableConfig {
        live: config.live,
        lease: LEASE,
        retries: config.retries,
        retry_pause: Duration::try_from_secs_f64(config.retry_pause_s)
            .map_err(|_| anyhow::anyhow!("retry_pause_s is {}, which is no time", config.retry_pause_s))?,
        ..DurableConfig::new(config.run_name())
    };
    let control = Control::default();
    stop_on_interrupt(control.clone(), ui.clone());

    let before = ledger.stats(&durable.run)?;
    if before.leased > 0 {
        let seconds = LEASE.as_secs();
        ui.note(&format!(
            "{} rollouts are held by a process that runs or was killed; in the latter case they go on within {seconds} s",
            before.leased
        ));
    }
    let bar = ui.progress(before.ready + before.leased, "rollouts");
    let (mut answered, mut ended, mut given_up) = (0, 0, 0);
    let mut on_end = |e: &Ended| {
        ended += 1;
        answered += usize::from(e.trajectory.status == Status::Answered);
        given_up += usize::from(e.trajectory.status.is_outage());
        let also = if given_up > 0 { format!(", {given_up} given up") } else { String::new() };
        bar.set_message(format!("{answered} of {ended} answered{also}"));
        bar.inc(1);
    };
    let mut stopped = Stopped::default();
    match &config.policy {
        PolicyConfig::Oracle => {
            let world = world(Arc::new(ScriptedPolicy::oracle(format)));
            engine.run_durable(None, &world, &control, ledger, &durable, &mut on_end)?;
        }
        PolicyConfig::Endpoint(server) => {
            let endpoint = Endpoint::new(server.config())?;
            let policy = EndpointPolicy::new(endpoint, server.sampling.clone(), format);
            let world = world(Arc::new(policy.clone()));
            engine.run_durable(None, &world, &control, ledger, &durable, &mut on_end)?;
            stopped.totals = Some(policy.endpoint().totals());
            stopped.refusal = policy.refusal();
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
    stopped.interrupted = control.signal() != Signal::Run && stopped.refusal.is_none();
    Ok(stopped)
}

/// The first Ctrl-C gives the work back, behind the last whole turn of each trajectory, and lets the files be written; the
/// second stops at once, which keeps the work from the next process until its leases have run out.
fn stop_on_interrupt(control: Control, ui: Ui) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let _ = tokio::signal::ctrl_c().await;
            ui.note("giving back what is under way; once more to leave without writing the files");
            control.cancel();
            let _ = tokio::signal::ctrl_c().await;
            std::process::exit(130);
        });
    });
}
