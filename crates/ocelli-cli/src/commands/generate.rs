//! `ocelli generate`: a model answers a prompt, text as it comes, tokens per second at the end.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use ocelli_data::io::read_bounded;
use ocelli_data::{ContentHash, Message, Part};
use ocelli_model::generate::{EngineLimits, Sampling, StopReason, Turn};
use ocelli_model::image::{ImageLimits, decode};
use ocelli_model::text::Keep;
use ocelli_model::vlm::{self, LoadOptions};
use ocelli_model::{ChatOptions, Checkpoint, ModelError, Vlm};
use ocelli_tensor::DType;
use serde_json::json;

use super::model_source;
use crate::ui::Ui;

/// Let a model answer a prompt; its text streams as it is generated.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to say to the model; `-` reads standard input. `<image>` in it is the place of a picture.
    prompt: String,
    /// A checkpoint directory, a .gguf file, or org/name on the hub. Without it, a small model is fetched.
    #[arg(long, short)]
    model: Option<String>,
    /// A picture (PNG, JPEG, WebP, GIF or BMP); may be repeated. Each `<image>` in the prompt is the place of the next picture, e.g.
    /// `"Is <image> older than <image>?" --image a.png --image b.png`; without any, the pictures come before the prompt.
    #[arg(long, short, conflicts_with = "raw")]
    image: Vec<PathBuf>,
    /// A LoRA adapter (directory in the layout of PEFT) to put on the model.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Continue the prompt as it is, without the chat template.
    #[arg(long, conflicts_with = "system")]
    raw: bool,
    /// A system message before the prompt.
    #[arg(long)]
    system: Option<String>,
    /// Number of answers; they share the prompt.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    n: u32,
    /// Tokens that an answer may have.
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Sample from the k most likely tokens; 0: from all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Sample from the most likely tokens with this probability together.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Sample from tokens at least this likely relative to the most likely one.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Above 1: make tokens of the context less likely.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// End the answer before this text; may be repeated.
    #[arg(long)]
    stop: Vec<String>,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Type of weights and activations.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    dtype: Precision,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    // Before the model is loaded: a file that is no picture should not cost a minute first.
    let pictures = read_pictures(&args.image)?;
    let path = model_source::resolve(args.model.as_deref(), ui)?;
    let checkpoint = Checkpoint::open(&path)?;
    let dtype = match args.dtype {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::Bf16,
    };
    let keep = Keep::Frozen(dtype);
    let options = LoadOptions { tower: keep, projector: keep, language: keep, compute: dtype };
    let mut model = Vlm::load(&checkpoint, options)?;
    if let Some(dir) = &args.adapter {
        model.load_adapters(dir, Keep::Frozen(dtype))?;
    }
    if !pictures.is_empty() && !model.sees() {
        anyhow::bail!(
            "{} is a text model: it has no vision tower, so --image cannot be shown to it; name a vision-language model with --model",
            path.display()
        );
    }
    let context = read_prompt(args, &pictures, &model, ui)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        max_new_tokens: args.max_new_tokens,
        stop_ids: model.eos_ids.clone(),
        stop_strings: args.stop.clone(),
    };
    let mut engine = model.engine(EngineLimits::default())?;
    let prompt_tokens = context.len();
    let start = Instant::now();
    engine.start(model.generation_prompt(&context, 0)?, args.n as usize, &sampling, args.seed, 0)?;
    let mut first = None;
    let streams = args.n == 1 && !ui.json;
    let turns = engine.run(|_, text| {
        first.get_or_insert_with(|| start.elapsed());
        if streams {
            print!("{text}");
            // A closed pipe shows at the final newline; a flush that fails here loses nothing.
            let _ = std::io::stdout().flush();
        }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let first = first.map(|t| t.as_secs_f64());
    let tokens: usize = turns.iter().map(|t| t.ids.len()).sum();
    if ui.json {
        let answers: Vec<_> = turns.iter().map(answer).collect();
        let report = json!({
            "model": path, "prompt_tokens": prompt_tokens, "tokens": tokens, "seconds": seconds,
            "first_text_seconds": first, "tokens_per_second": tokens as f64 / seconds, "answers": answers,
        });
        println!("{report:#}");
        return Ok(ExitCode::SUCCESS);
    }
    if streams {
        println!();
    } else {
        for (i, turn) in turns.iter().enumerate() {
            println!("{} {}", ui.bold(&format!("[{}]", i + 1)), turn.text);
        }
    }
    for turn in turns.iter().filter(|t| matches!(t.reason, StopReason::MaxTokens | StopReason::ContextFull)) {
        ui.note(&format!("answer {} ends early: {}", turn.seq.0 + 1, reason(&turn.reason)));
    }
    let first = first.map_or(String::new(), |t| format!(", first text after {t:.2} s"));
    ui.note(&format!(
        "{tokens} tokens in {seconds:.2} s: {:.1} tokens/s (prompt of {prompt_tokens} tokens{first})",
        tokens as f64 / seconds
    ));
    Ok(ExitCode::SUCCESS)
}

/// The files of the pictures, each of which has been decoded once.
fn read_pictures(paths: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    let limits = ImageLimits::default();
    let read = |path: &PathBuf| {
        let bytes = read_bounded(path, limits.max_bytes as u64)?;
        decode(&bytes, &limits).with_context(|| format!("cannot use {}", path.display()))?;
        Ok(bytes)
    };
    paths.iter().map(read).collect()
}

/// Stands in the prompt where a picture stands.
const MARK: &str = "<image>";

/// Text and pictures in their order: pictures at their marks, or all of them first where there is no mark.
fn content(said: &str, pictures: &[ContentHash]) -> anyhow::Result<Vec<Part>> {
    let marks = said.matches(MARK).count();
    if marks == 0 || pictures.is_empty() {
        let first = pictures.iter().map(|hash| Part::image(*hash));
        return Ok(first.chain([Part::text(said)]).collect());
    }
    anyhow::ensure!(
        marks == pictures.len(),
        "{MARK} stands {marks} times in the prompt, and --image is given {} times: give one --image for each {MARK}, or no {MARK} at all \
         to show the pictures before the prompt",
        pictures.len()
    );
    let mut content = Vec::new();
    for (i, text) in said.split(MARK).enumerate() {
        content.extend(i.checked_sub(1).map(|before| Part::image(pictures[before])));
        if !text.is_empty() {
            content.push(Part::text(text));
        }
    }
    Ok(content)
}

/// The prompt as the model takes it.
fn read_prompt(args: &Args, files: &[Vec<u8>], model: &Vlm, ui: &Ui) -> anyhow::Result<vlm::Context> {
    let mut said = args.prompt.clone();
    if said == "-" {
        said.clear();
        std::io::stdin().read_to_string(&mut said).context("cannot read the prompt from standard input")?;
    }
    if args.raw {
        let mut context = vlm::Context::default();
        context.push(&model.tokenizer()?.encode(&said)?);
        return Ok(context);
    }
    if files.is_empty() && said.contains(MARK) {
        ui.note(&format!("no --image is given, so {MARK} in the prompt is text like any other"));
    }
    let hashes: Vec<ContentHash> = files.iter().map(|bytes| ContentHash::of(bytes)).collect();
    let pictures: HashMap<_, _> = hashes.iter().copied().zip(files.iter().cloned()).collect();
    let mut messages: Vec<Message> = args.system.iter().map(Message::system).collect();
    messages.push(Message::user(content(&said, &hashes)?));
    model.prompt(&messages, &ChatOptions::prompt(), &pictures).map_err(|error| {
        // The library knows pictures by their hashes, whoever typed the command by their paths.
        let whose = match &error {
            ModelError::Image { hash, .. } | ModelError::ImageTokens { hash, .. } => {
                hashes.iter().position(|h| h == hash).map(|i| &args.image[i])
            }
            _ => None,
        };
        let hint = match whose {
            Some(path) => format!("cannot use {}", path.display()),
            None if args.image.is_empty() => "use --raw to go without a chat template".to_owned(),
            None => "the pictures were not shown".to_owned(),
        };
        anyhow::Error::new(error).context(hint)
    })
}

fn reason(reason: &StopReason) -> String {
    match reason {
        StopReason::Token(id) => format!("token {id}"),
        StopReason::Text(text) => format!("text {text:?}"),
        StopReason::MaxTokens => "the limit of --max-new-tokens".to_owned(),
        StopReason::ContextFull => "the model's context is full".to_owned(),
    }
}

fn answer(turn: &Turn) -> serde_json::Value {
    json!({"text": turn.text, "ids": turn.ids, "logprobs": turn.logprobs, "stopped_by": reason(&turn.reason)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_at_their_marks_or_first() {
        let [a, b] = [b"a", b"b"].map(|bytes| ContentHash::of(bytes));
        let shown = |said: &str, pictures: &[ContentHash]| content(said, pictures).unwrap();
        assert_eq!(shown("Which?", &[a, b]), [Part::image(a), Part::image(b), Part::text("Which?")]);
        assert_eq!(
            shown("Is <image> older than <image>?", &[a, b]),
            [Part::text("Is "), Part::image(a), Part::text(" older than "), Part::image(b), Part::text("?"),]
        );
        assert_eq!(shown("<image><image>", &[b, a]), [Part::image(b), Part::image(a)]);
        assert_eq!(shown("What is <image> in HTML?", &[]), [Part::text("What is <image> in HTML?")]);
        let error = content("Is <image> old?", &[a, b]).unwrap_err().to_string();
        assert!(error.contains("stands 1 times") && error.contains("given 2 times"), "{error}");
    }
}
