//! `ocelli doctor`: what this machine offers, what is missing, and what will be slow and why.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::ui::Ui;

/// Tell what this machine offers (processor, memory, GPU, data, model cache) and what will be slow.
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    found: String,
    /// `None` where the finding is only information.
    good: Option<bool>,
    /// What follows for the user, empty where nothing does.
    advice: &'static str,
}

pub(crate) fn run(_: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let findings = [processor(), vector_units(), memory(), gpu(), data(), model_cache()];
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
        if !f.advice.is_empty() {
            println!("     {:<13} {}", "", f.advice);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn processor() -> Finding {
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let name = name.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Finding { what: "processor", found: format!("{name}, {threads} threads"), good: None, advice: "" }
}

#[cfg(target_arch = "x86_64")]
fn vector_units() -> Finding {
    let units = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    let found: Vec<_> = units.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    let fast = units[0].1 && units[1].1;
    let advice =
        if fast { "" } else { "without AVX2 and FMA only the portable kernels run: several times slower" };
    Finding { what: "vector units", found: found.join(" "), good: Some(fast), advice }
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_units() -> Finding {
    let found = "not x86-64".to_owned();
    Finding { what: "vector units", found, good: Some(false), advice: "only the portable kernels run" }
}

fn memory() -> Finding {
    /// What the shipped configurations want free, in GiB.
    const WANTED: f64 = 4.0;
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    let Some(gib) = kib.map(|k| k / f64::from(1 << 20)) else {
        return Finding {
            what: "memory",
            found: "unknown on this system".to_owned(),
            good: None,
            advice: "",
        };
    };
    let good = gib >= WANTED;
    let advice = if good { "" } else { "the shipped configurations want 4 GiB free" };
    Finding { what: "memory", found: format!("{gib:.1} GiB available"), good: Some(good), advice }
}

fn gpu() -> Finding {
    let present = Path::new("/dev/nvidiactl").exists();
    let found = if present { "an NVIDIA device is present" } else { "none found" };
    Finding {
        what: "gpu",
        found: found.to_owned(),
        good: None,
        advice: "this build computes on the processor",
    }
}

fn data() -> Finding {
    let (found, good, advice) = match std::env::var_os("OCELLI_DATA").map(PathBuf::from) {
        Some(dir) if dir.is_dir() => (format!("OCELLI_DATA = {}", dir.display()), Some(true), ""),
        Some(dir) => (
            format!("OCELLI_DATA = {}, which is not a directory", dir.display()),
            None,
            "point it at the folder that holds puzzlevqa/, mathv/ and the others",
        ),
        None => ("OCELLI_DATA is not set".to_owned(), None, "only runs on public data sets need it"),
    };
    Finding { what: "data", found, good, advice }
}

fn model_cache() -> Finding {
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache/huggingface"));
    let Some(dir) = std::env::var_os("HF_HOME").map(PathBuf::from).or_else(home).map(|d| d.join("hub"))
    else {
        return Finding {
            what: "model cache",
            found: "no home directory".to_owned(),
            good: None,
            advice: "",
        };
    };
    let is_model = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with("models--");
    let models = std::fs::read_dir(&dir).map_or(0, |entries| entries.flatten().filter(is_model).count());
    Finding {
        what: "model cache",
        found: format!("{models} models in {}", dir.display()),
        good: None,
        advice: "",
    }
}
