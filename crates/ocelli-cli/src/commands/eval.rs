//! `ocelli eval`: ask a model a benchmark, score, report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use ocelli_agent::endpoint::{
    ApiKey, Concurrency, Endpoint, EndpointConfig, Price, RetryPolicy, SamplingParams,
};
use ocelli_data::io::{write_atomic, write_atomic_with};
use ocelli_eval::declare::{Benchmark, Task, shipped_names};
use ocelli_eval::evaluate::{Evaluation, Plan, ReasoningMode, evaluate};
use ocelli_eval::load::{Census, Images, Pictures, census, complete_variants, load, whereabouts};
use ocelli_eval::report::{HtmlOptions, markdown, overview, terminal, write_html};
use ocelli_eval::run::{Cache, Policy};

use super::local_policy::LocalModel;
use super::model_source;
use crate::ui::Ui;

/// Ask a model one or more benchmarks, score the answers by the official rules and by strict ones, and report.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ocelli eval --list
  ocelli eval math500 --model Qwen/Qwen3-8B --endpoint http://127.0.0.1:8000/v1
  ocelli eval emma-mini:direct csvqa:zh --model m --endpoint http://127.0.0.1:8000/v1 --judge m --limit 50
  ocelli eval puzzlevqa --model runs/charts/stages/grpo/model --max-tokens 64")]
pub(crate) struct Args {
    /// Benchmarks with their variants, e.g. `emma-mini csvqa:zh,direct`; a path of a TOML file declares one of your own.
    #[arg(required_unless_present = "list")]
    tasks: Vec<String>,
    /// List the benchmarks that are known, their variants, and whether their data is here.
    #[arg(long)]
    list: bool,
    /// Name of the model as the endpoint knows it; without --endpoint a checkpoint directory, a .gguf file, or org/name
    /// on the hub.
    #[arg(long, required_unless_present = "list")]
    model: Option<String>,
    /// Base address of an OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1; the model runs here where absent.
    #[arg(long)]
    endpoint: Option<String>,
    /// Environment variable that holds the endpoint's key.
    #[arg(long, default_value = "OPENAI_API_KEY")]
    key_from: String,
    /// Folder of the data sets; OCELLI_DATA or ./data where absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder of the runs; a run that stopped is continued there.
    #[arg(long, default_value = "runs/eval")]
    out: PathBuf,
    /// Keep answers in this folder for other runs that ask the same.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Most requests in flight.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Attempts for each request, the first included.
    #[arg(long, default_value_t = 8)]
    attempts: u32,
    /// Seconds until an attempt is given up.
    #[arg(long, default_value_t = 600.0)]
    timeout: f64,
    /// Requests per minute that the endpoint allows.
    #[arg(long)]
    rpm: Option<f64>,
    /// Tokens per minute that the endpoint allows.
    #[arg(long)]
    tpm: Option<f64>,
    /// Price per million prompt tokens and per million completion tokens.
    #[arg(long, num_args = 2, value_names = ["PROMPT", "COMPLETION"])]
    price: Option<Vec<f64>>,
    /// Samples per item, in place of the benchmark's.
    #[arg(long)]
    samples: Option<u32>,
    /// Temperature, in place of the benchmark's.
    #[arg(long)]
    temperature: Option<f64>,
    /// Longest answer in tokens, in place of the benchmark's.
    #[arg(long)]
    max_tokens: Option<u32>,
    /// Seed for endpoints that honour one; each further sample counts it up.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the first items.
    #[arg(long)]
    limit: Option<usize>,
    /// Model of the judge, where the benchmark uses one.
    #[arg(long)]
    judge: Option<String>,
    /// Endpoint of the judge; that of the model where absent.
    #[arg(long)]
    judge_endpoint: Option<String>,
    /// Judge the reasoning as well.
    #[arg(long, value_enum, default_value_t = Reasoning::Off)]
    reasoning: Reasoning,
    /// Megabytes of pictures to embed into the HTML report.
    #[arg(long, default_value_t = 24)]
    pictures: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Reasoning {
    Off,
    /// Sound or not.
    Binary,
    /// And step by step.
    Stepwise,
}

/// Where data sets are.
pub(super) fn data_dir(given: Option<&Path>) -> PathBuf {
    given
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("OCELLI_DATA").map(PathBuf::from))
        .unwrap_or_else(|| "data".into())
}

/// A shipped benchmark or a declaration of one's own, with its variant.
pub(super) fn task(text: &str) -> anyhow::Result<Task> {
    const MAX_DECLARATION: u64 = 1 << 20;
    let (name, variant) = text.split_once(".toml").map_or((text, None), |(n, v)| (n, Some(v)));
    let Some(variant) = variant else { return Ok(Task::parse(text)?) };
    let path = PathBuf::from(format!("{name}.toml"));
    let bytes = ocelli_data::io::read_bounded(&path, MAX_DECLARATION)?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    let benchmark = Benchmark::parse(&path.display().to_string(), &text)?;
    Ok(Task::with_variant(benchmark, variant.trim_start_matches(':'))?)
}

/// A name that is safe as a folder.
pub(super) fn folder_name(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// Writes the reports of an evaluation into a folder and shows the numbers, or where they are if `brief`.
pub(super) fn report(
    evaluation: &Evaluation,
    folder: &Path,
    options: &HtmlOptions<'_>,
    ui: &Ui,
    brief: bool,
) -> anyhow::Result<()> {
    // Piece by piece: a report with its pictures is larger than everything else in memory.
    write_atomic_with(&folder.join("report.json"), |out| {
        serde_json::to_writer(out, evaluation).map_err(std::io::Error::from)
    })?;
    write_atomic(&folder.join("report.md"), markdown(evaluation).as_bytes())?;
    write_atomic_with(&folder.join("report.html"), |out| write_html(out, evaluation, options))?;
    if !ui.json {
        if !brief {
            println!("{}", terminal(&evaluation.summary, 24));
        }
        println!("reports: {}/report.{{html,md,json}}", folder.display());
    }
    Ok(())
}

impl Args {
    /// Numbers that no run can have.
    fn check(&self) -> anyhow::Result<()> {
        let counts = [
            ("--concurrency", Some(self.concurrency)),
            ("--samples", self.samples.map(|n| n as usize)),
            ("--attempts", Some(self.attempts as usize)),
            ("--max-tokens", self.max_tokens.map(|n| n as usize)),
            ("--limit", self.limit),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, n)| *n == Some(0)) {
            bail!("{name} is 0; give at least 1, or leave it out");
        }
        let prices = self.price.iter().flatten().map(|p| ("--price", *p, true));
        let numbers = [
            ("--temperature", self.temperature, true),
            ("--timeout", Some(self.timeout), false),
            ("--rpm", self.rpm, false),
            ("--tpm", self.tpm, false),
        ];
        let given = numbers.iter().filter_map(|(name, n, zero)| Some((*name, (*n)?, *zero))).chain(prices);
        for (name, n, zero) in given {
            if !n.is_finite() || n < 0.0 || n == 0.0 && !zero {
                bail!("{name} is {n}; give a number {}", if zero { "of at least 0" } else { "above 0" });
            }
        }
        Ok(())
    }

    fn endpoint(&self, url: &str, model: &str) -> anyhow::Result<Policy> {
        let mut config = EndpointConfig::new(url, model);
        config.api_key = std::env::var(&self.key_from).ok().filter(|k| !k.is_empty()).map(ApiKey::new);
        let start = Concurrency::default().start.min(self.concurrency);
        config.concurrency = Concurrency { start, max: self.concurrency };
        config.retry = RetryPolicy { attempts: self.attempts, ..RetryPolicy::default() };
        config.timeout_s = self.timeout;
        config.requests_per_minute = self.rpm;
        config.tokens_per_minute = self.tpm;
        config.price = match self.price.as_deref() {
            Some([input, output]) => Some(Price { input: *input, cached_input: None, output: *output }),
            _ => None,
        };
        Ok(Policy::Endpoint(Endpoint::new(config)?))
    }
}

/// What of a benchmark's data is here.
#[derive(Clone, Copy, PartialEq)]
enum Whereabouts {
    Absent,
    /// Here; what was counted, where the data is not one file with everything in it.
    Here(Option<Census>),
}

impl Whereabouts {
    fn of(task: &Task, here: bool, data: &Path) -> Self {
        if here { Self::Here(census(task, data)) } else { Self::Absent }
    }

    /// What is missing, in words; `None` where nothing is.
    fn gap(self, task: &Task) -> Option<String> {
        let Self::Here(Some(c)) = self else { return None };
        let published = task.benchmark.source.rows.filter(|n| c.rows < *n);
        let rows = published.map(|n| format!("{} of {n} items", c.rows));
        let pictures =
            (c.pictures_here < c.pictures).then(|| format!("{} of {} pictures", c.pictures_here, c.pictures));
        let parts: Vec<String> = rows.into_iter().chain(pictures).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// One line per benchmark: its variants, and whether its data is here.
fn list(data: &Path, ui: &Ui) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for name in shipped_names() {
        let task = Task::parse(name)?;
        let (here, looked) = whereabouts(&task, data);
        let here = Whereabouts::of(&task, here, data);
        rows.push((task, here, looked));
    }
    if ui.json {
        let json = rows.iter().map(|(task, here, looked)| {
            let b = &task.benchmark;
            let counted = if let Whereabouts::Here(c) = here { *c } else { None };
            serde_json::json!({
                "name": b.name, "title": b.title, "rows": b.source.rows, "variants": b.axes,
                "here": *here != Whereabouts::Absent, "complete": *here != Whereabouts::Absent && here.gap(task).is_none(),
                "rows_here": counted.map(|c| c.rows), "pictures": counted.map(|c| c.pictures),
                "pictures_here": counted.map(|c| c.pictures_here), "url": b.source.url, "files": looked,
            })
        });
        println!("{}", serde_json::to_string_pretty(&json.collect::<Vec<_>>())?);
        return Ok(());
    }
    println!(
        "{:<23} {:>6}  {:<8} variants (the first of each group where none is named)",
        "benchmark", "items", "data"
    );
    let mut gaps = Vec::new();
    for (task, here, _) in &rows {
        let b = &task.benchmark;
        let items = b.source.rows.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let axes: Vec<String> = b
            .axes
            .values()
            .map(|values| match values.as_slice() {
                // The sets of OlympiadBench are many.
                [first, .., last] if values.len() > 4 => format!("{first}|...|{last}"),
                all => all.join("|"),
            })
            .collect();
        let gap = here.gap(task);
        let word = match (here, &gap) {
            (Whereabouts::Absent, _) => "absent",
            (_, Some(_)) => "partly",
            _ => "here",
        };
        println!("{:<23} {items:>6}  {word:<8} {}", b.name, axes.join("  "));
        if let Some(gap) = gap {
            let complete = complete_variants(task, data);
            let complete = if complete.is_empty() {
                String::new()
            } else {
                format!("; complete: {}", complete.join(", "))
            };
            gaps.push(format!("  {:<21} {gap}{complete}", b.name));
        }
    }
    if !gaps.is_empty() {
        println!("\nOnly partly here:\n{}", gaps.join("\n"));
    }
    println!(
        "\nData is looked for below {}. A benchmark whose data is absent says where to get it and where to put it.",
        data.display()
    );
    Ok(())
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    if args.list {
        list(&data_dir(args.data.as_deref()), ui)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(model) = args.model.as_deref().filter(|m| !m.is_empty()) else {
        bail!("--model is empty; name the model as the endpoint knows it, or a checkpoint");
    };
    args.check()?;
    let policy = match &args.endpoint {
        Some(url) => args.endpoint(url, model)?,
        None => {
            let path = model_source::resolve(Some(model), ui)?;
            Policy::Local(Arc::new(LocalModel::load(&path, model)?))
        }
    };
    let judge = match (&args.judge, args.judge_endpoint.as_ref().or(args.endpoint.as_ref())) {
        (Some(model), Some(url)) => Some(args.endpoint(url, model)?),
        (Some(_), None) => bail!("--judge needs --judge-endpoint, or --endpoint where both are on one"),
        (None, _) => None,
    };
    let mut cache = args.cache.as_deref().map(Cache::open).transpose()?;
    let data = data_dir(args.data.as_deref());
    let tasks = args.tasks.iter().map(|t| task(t)).collect::<anyhow::Result<Vec<Task>>>()?;
    // One thread moves the bytes of many requests; waiting is what takes the time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut summaries = Vec::new();
    for task in &tasks {
        let folder = args.out.join(folder_name(&task.name())).join(folder_name(model));
        let table = load(task, &data, &args.out.join("images"), Pictures::Read)?;
        let declared = &task.benchmark.sampling;
        let plan = Plan {
            task,
            policy: &policy,
            judge: judge.as_ref(),
            reasoning: match args.reasoning {
                Reasoning::Off => ReasoningMode::Off,
                Reasoning::Binary => ReasoningMode::Binary,
                Reasoning::Stepwise => ReasoningMode::Stepwise,
            },
            sampling: SamplingParams {
                temperature: args.temperature.or(declared.temperature),
                max_tokens: args.max_tokens.or(declared.max_tokens),
                seed: args.seed.or(declared.seed),
                ..declared.clone()
            },
            samples: args.samples.unwrap_or(task.benchmark.samples),
            limit: args.limit,
        };
        let bar = ui.progress(0, &task.benchmark.name);
        let running = evaluate(&plan, &table, &folder, cache.as_mut(), |stage, p| {
            bar.set_length(p.total as u64);
            bar.set_position(p.done as u64);
            bar.set_message(if p.failed > 0 {
                format!("{stage}, {} failed", p.failed)
            } else {
                stage.to_owned()
            });
        });
        let (evaluation, asked) = runtime.block_on(running)?;
        bar.finish_and_clear();
        let images: &Images = &table.images;
        let options =
            HtmlOptions { images: Some(images), image_budget: args.pictures << 20, comparisons: &[] };
        report(&evaluation, &folder, &options, ui, false)?;
        if !ui.json {
            println!(
                "asked {} ({} failed), {} from the log, {} from the cache\n",
                asked.asked, asked.failed, asked.from_log, asked.from_cache
            );
        }
        summaries.push(evaluation.summary);
    }
    if ui.json {
        println!("{}", serde_json::to_string_pretty(&summaries)?);
    } else if summaries.len() > 1 {
        println!("{}", overview(&summaries));
    }
    Ok(ExitCode::SUCCESS)
}
