//! Loads a checkpoint that sees, trains it, saves it, and writes the logits that the saved model must give.
//!
//! usage: vlm_step [--lora RANK | --adapter DIR] CHECKPOINT OUT IDS IMAGE..
//!
//! Without an option, one step over all parameters. With `--lora`, five steps of adapters on the language model alone, saved merged and, in
//! `OUT/adapter`, apart. With `--adapter`, no step: an adapter in PEFT's layout is put on the checkpoint.
//! IDS are token ids with commas between, one placeholder for each image. Used by `fixtures/parity/reload.py`, which lets
//! `transformers` and `peft` read the result.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use ocelli_data::ContentHash;
use ocelli_model::text::Keep;
use ocelli_model::vlm::{Group, LoadOptions, Part};
use ocelli_model::{Checkpoint, LoraConfig, SaveDtype, SaveTensor, Vlm, save_safetensors};
use ocelli_tensor::{AdamW, AdamWConfig, AdamWGroup, DType, Grads, Tape, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: vlm_step [--lora RANK | --adapter DIR] CHECKPOINT OUT IDS IMAGE..";
    let (option, args) = match args.as_slice() {
        [key, value, rest @ ..] if key.starts_with("--") => (Some((key.as_str(), value)), rest),
        all => (None, all),
    };
    let [input, output, ids, images @ ..] = args else { return Err(usage.into()) };
    let ids = ids.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let (mut album, mut hashes) = (HashMap::new(), Vec::new());
    for path in images {
        let bytes = std::fs::read(path)?;
        hashes.push(ContentHash::of(&bytes));
        album.insert(ContentHash::of(&bytes), bytes);
    }
    let mut vlm = Vlm::load(&Checkpoint::open(Path::new(input))?, LoadOptions::default())?;
    let context = vlm.context_of_ids(&ids, &hashes, &album)?;
    let batch = vlm.pack(&[Group::single(&context)])?;
    let steps = match option {
        None => 1,
        Some(("--lora", rank)) => {
            for part in Part::ALL {
                vlm.set_trainable(part, false)?;
            }
            vlm.attach_adapters(&LoraConfig::all(rank.parse()?), 0)?;
            5
        }
        Some(("--adapter", dir)) => {
            vlm.load_adapters(Path::new(dir), Keep::Frozen(DType::F32))?;
            0
        }
        Some(_) => return Err(usage.into()),
    };

    let (rows, targets) = batch.predictions(0, 1..context.len())?;
    let groups = vec![AdamWGroup { lr: 1e-2, weight_decay: 0.0 }; 4];
    let mut optimizer = AdamW::new(AdamWConfig { groups, ..AdamWConfig::default() });
    for _ in 0..steps {
        let mut grads = Grads::new();
        {
            let mut tape = Tape::train(&vlm.params);
            let hidden = vlm.hidden(&mut tape, &batch, false)?;
            let lp = vlm.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0)?.logprob;
            let seed = Tensor::full(&[targets.len()], -1.0 / targets.len() as f32, DType::F32);
            tape.backward_from(&[(&lp, seed)], &mut grads)?;
        }
        optimizer.step(&mut vlm.params, &grads)?;
    }
    vlm.save(Path::new(output), SaveDtype::F32)?;

    let mut tape = Tape::inference(&vlm.params);
    let hidden = vlm.hidden(&mut tape, &batch, false)?;
    let all: Vec<usize> = (0..context.len()).collect();
    let logits = vlm.text.logits(&mut tape, &hidden, &all)?;
    let tensor = SaveTensor {
        name: "logits".into(),
        shape: logits.shape().to_vec(),
        values: logits.value().to_vec().into(),
    };
    Ok(save_safetensors(Path::new(output), "expected", &[tensor], SaveDtype::F32, usize::MAX)?)
}
