//! Memory stays flat over many trajectories with pictures: what they made lies on disk, and only the newest in memory.
//! Alone in its file, because it looks at the memory of its whole process.

mod toy;

use std::sync::Arc;

use image::RgbImage;
use ocelli_agent::control::Control;
use ocelli_agent::durable::{DurableConfig, tasks};
use ocelli_agent::engine::Engine;
use ocelli_agent::episode::{Job, World};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::ledger::{Ledger, SqliteLedger};
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::scripted::{ScriptedPolicy, said, say};
use ocelli_agent::tool_env::{ToolEnvConfig, ToolEnvs};
use ocelli_data::io::BlobStore;
use ocelli_data::{Status, ToolCall};
use ocelli_tools::{Limits, Picture};
use rand::{RngCore, SeedableRng};
use serde_json::json;
use toy::{sample, standard_tools};

const RUN: &str = "run";
const SIDE: u32 = 256;
const CROPS: usize = 3;

/// Resident memory of this process in bytes; `None` where the system does not tell.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

/// Noise, so that each picture takes the same 200 kB, encoded or not, and no two are equal.
fn noise(seed: u64) -> Picture {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut pixels = RgbImage::new(SIDE, SIDE);
    rng.fill_bytes(&mut pixels);
    Picture::encode(&pixels).unwrap()
}

#[test]
fn memory_is_flat_over_many_trajectories() {
    if resident().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::new(dir.path().join("images"));
    let policy = ScriptedPolicy::new(|_, turn, _| {
        let arguments = json!({"image": "img_0", "bbox": [turn + 1, turn, SIDE, SIDE]});
        let arguments = arguments.as_object().unwrap().clone();
        let call = ToolCall { id: String::new(), name: "crop".into(), arguments };
        Ok(if turn < CROPS { say(CallFormat::Hermes, "", &[call]) } else { said("noise") })
    });
    let pictures = Arc::new(Pictures::on_disk(BlobStore::new(dir.path().join("images")), 2 << 20));
    let envs = Arc::new(ToolEnvs::new(
        ToolEnvConfig::default(),
        standard_tools(),
        pictures.clone(),
        Limits::default(),
    ));
    let world = World { policy: Arc::new(policy), envs, pictures, limits: RolloutLimits::default() };
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&dir.path().join("ledger.sqlite"), 3).unwrap());
    let engine = Engine::new(16).unwrap();
    let config = DurableConfig { live: 16, ..DurableConfig::new(RUN) };
    let roll = |from: u64, count: u64| {
        let samples: Vec<_> = (from..from + count)
            .map(|i| sample(&format!("s{i:05}"), &[store.put(noise(i).bytes()).unwrap()]))
            .collect();
        ledger.put(RUN, &tasks(&Job::group(&samples, 1, 0), "").unwrap()).unwrap();
        let mut answered = 0;
        let mut on_end = |e: &ocelli_agent::episode::Ended| {
            answered += usize::from(
                e.trajectory.status == Status::Answered && e.trajectory.images.len() == CROPS + 1,
            );
        };
        engine.run_durable(None, &world, &Control::default(), ledger.clone(), &config, &mut on_end).unwrap();
        assert_eq!(answered as u64, count);
    };
    // Until the tools' cache of decoded pictures, 256 MiB, is full: four pictures of each trajectory.
    roll(0, 360);
    let before = resident().unwrap();
    roll(360, 240);
    let after = resident().unwrap();
    // Their pictures take 240 * 4 * 200 kB = 190 MB (181 MiB): kept, they would show. The allocator keeps some tens of MiB.
    let grown = after.saturating_sub(before) >> 20;
    assert!(grown < 120, "{grown} MiB more after 240 trajectories, {} MiB in all", after >> 20);
}
