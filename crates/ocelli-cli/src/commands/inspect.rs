//! `ocelli inspect`: what a checkpoint holds, read from its headers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ocelli_model::{Checkpoint, Weights};
use serde_json::{Value, json};

use super::model_source;
use crate::ui::Ui;

/// Tell what a checkpoint holds: architecture, sizes, tensors, tokenizer, chat template.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A checkpoint directory, a .safetensors or .gguf file, or org/name on the hub.
    model: String,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> anyhow::Result<ExitCode> {
    let path = model_source::resolve(Some(&args.model), ui)?;
    let only_weights = path.extension().is_some_and(|e| e == "safetensors");
    let (checkpoint, bare): (Option<Checkpoint>, Option<Weights>) = if only_weights {
        (None, Some(Weights::open(&path)?))
    } else {
        (Some(Checkpoint::open(&path)?), None)
    };
    let Some(weights) = bare.as_ref().or(checkpoint.as_ref().map(|c| &c.weights)) else {
        anyhow::bail!("{} holds no weights", path.display());
    };
    let rows: Vec<Row> = weights.names().filter_map(|name| row(weights, name)).collect();
    if ui.json {
        println!("{:#}", report(&path, checkpoint.as_ref(), &rows));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", ui.bold(&path.display().to_string()));
    if let Some(c) = &checkpoint {
        describe(c);
    }
    let values: usize = rows.iter().map(|r| r.values).sum();
    let bytes: usize = rows.iter().map(|r| r.bytes).sum();
    println!("tensors        {} with {} values in {}", rows.len(), grouped(values), size(bytes));
    for (dtype, (n, values, bytes)) in by_dtype(&rows) {
        println!("  {dtype:<12} {n} with {} values in {}", grouped(values), size(bytes));
    }
    if args.tensors {
        let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
        for r in &rows {
            println!("{:<width$}  {:<5} {:?}", r.name, r.dtype, r.shape);
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Row {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    values: usize,
    bytes: usize,
}

fn row(weights: &Weights, name: &str) -> Option<Row> {
    let shape = weights.shape(name)?.to_vec();
    let values = shape.iter().product();
    let dtype = weights.dtype(name)?.to_string();
    Some(Row { name: name.to_owned(), dtype, shape, values, bytes: weights.stored_bytes(name)? })
}

fn by_dtype(rows: &[Row]) -> BTreeMap<&str, (usize, usize, usize)> {
    let mut table = BTreeMap::new();
    for r in rows {
        let (n, values, bytes) = table.entry(r.dtype.as_str()).or_insert((0, 0, 0));
        (*n, *values, *bytes) = (*n + 1, *values + r.values, *bytes + r.bytes);
    }
    table
}

fn describe(c: &Checkpoint) {
    let t = &c.config.text;
    println!("model type     {} (decoder: {:?})", c.config.model_type, t.family);
    println!(
        "blocks         {} of width {}, MLP {}",
        t.num_hidden_layers, t.hidden_size, t.intermediate_size
    );
    println!(
        "attention      {} query heads, {} key/value heads, {} wide each",
        t.num_attention_heads, t.num_key_value_heads, t.head_dim
    );
    let tied = if t.tie_word_embeddings { "tied to the output layer" } else { "apart from the output layer" };
    println!("vocabulary     {}, embedding {tied}", grouped(t.vocab_size));
    println!("context        {} tokens, rotary base {}", grouped(t.context()), t.rope.theta);
    match &c.tokenizer {
        Some(tokenizer) => {
            println!("tokenizer      {} tokens, ends at {:?}", grouped(tokenizer.vocab_size()), c.eos_ids)
        }
        None => println!("tokenizer      none"),
    }
    println!("chat template  {}", if c.chat.is_some() { "yes" } else { "none" });
}

fn report(path: &Path, checkpoint: Option<&Checkpoint>, rows: &[Row]) -> Value {
    let tensors: Vec<Value> = rows
        .iter()
        .map(|r| json!({"name": r.name, "dtype": r.dtype, "shape": r.shape, "bytes": r.bytes}))
        .collect();
    let mut value = json!({
        "path": PathBuf::from(path),
        "values": rows.iter().map(|r| r.values).sum::<usize>(),
        "bytes": rows.iter().map(|r| r.bytes).sum::<usize>(),
        "tensors": tensors,
    });
    if let Some(c) = checkpoint {
        value["model_type"] = c.config.model_type.as_str().into();
        value["config"] = ocelli_model::config::to_json(&c.config.text);
        value["tokenizer_tokens"] = json!(c.tokenizer.as_ref().map(|t| t.vocab_size()));
        value["eos_token_ids"] = json!(c.eos_ids);
        value["chat_template"] = c.chat.is_some().into();
    }
    value
}

/// 1234567 as 1,234,567.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

fn size(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1.0 { format!("{:.1} KiB", mib * 1024.0) } else { format!("{mib:.1} MiB") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        assert_eq!(super::grouped(0), "0");
        assert_eq!(super::grouped(999), "999");
        assert_eq!(super::grouped(1_234_567), "1,234,567");
    }
}
