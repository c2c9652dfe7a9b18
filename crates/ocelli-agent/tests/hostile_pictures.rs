//! Ten thousand hostile pictures come back from a tool, and the policy looks at each with another tool: every
//! trajectory ends, with the picture named where it cannot be read, and nothing panics.

mod toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Until};
use ocelli_agent::episode::Job;
use ocelli_agent::formats::CallFormat;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::policy::BoxFuture;
use ocelli_agent::scripted::{ScriptedPolicy, said, say};
use ocelli_agent::tool_env::ToolEnvConfig;
use ocelli_agent::toolbox::Toolbox;
use ocelli_data::{Status, ToolCall};
use ocelli_tools::{Affine, Images, Limits, Made, Picture, Reply, ToolError, ToolSpec};
use rand::{Rng, SeedableRng};
use serde_json::json;
use toy::{samples, standard_tools, world};

const ROUNDS: usize = 4;
const TRAJECTORIES: usize = 5000;

/// `enhance` gives back a picture that was tampered with; the other tools are the real ones.
struct Hostile {
    real: Arc<dyn Toolbox>,
    seed: AtomicU64,
    sent: Arc<AtomicUsize>,
}

/// A small picture with bytes changed, cut off, doubled, or with random sides; the header may or may not survive.
fn tampered(seed: u64) -> Vec<u8> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let pixels =
        image::RgbImage::from_fn(16, 12, |x, y| image::Rgb([(x * 16) as u8, (y * 20) as u8, seed as u8]));
    let format =
        [image::ImageFormat::Png, image::ImageFormat::Jpeg, image::ImageFormat::Gif, image::ImageFormat::Bmp]
            [rng.random_range(0..4)];
    let mut out = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut out, format).unwrap();
    let mut bytes = out.into_inner();
    match rng.random_range(0..5) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => bytes.extend(bytes.clone()),
        2 => {
            let at = rng.random_range(0..bytes.len());
            bytes.drain(at..(at + 9).min(bytes.len()));
        }
        3 => bytes.fill(rng.random()),
        _ => {}
    }
    for _ in 0..rng.random_range(0..12) {
        if !bytes.is_empty() {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
    }
    bytes
}

impl Toolbox for Hostile {
    fn specs(&self) -> Arc<[ToolSpec]> {
        self.real.specs()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        images: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        if call.name != "enhance" {
            return self.real.call(call, images, time);
        }
        // Only what passes the first look (size, format, header) can come back as a picture at all.
        let made = loop {
            let bytes = tampered(self.seed.fetch_add(1, Ordering::Relaxed));
            if let Ok(picture) = Picture::new(bytes, &Limits::default()) {
                break Made {
                    picture,
                    to_parent: Some(Affine([1.0, 0.0, f64::NAN, 0.0, 1.0, f64::INFINITY])),
                };
            }
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(Reply { image: Some(made), ..Reply::text("done") }) })
    }
}

#[test]
fn ten_thousand_hostile_pictures() {
    let policy = ScriptedPolicy::new(|_, turn, _| {
        let (name, arguments) = match turn % 2 {
            0 => ("enhance", json!({"image": "img_0"})),
            _ => ("crop", json!({"image": format!("img_{}", turn / 2 + 1), "bbox": [1, 1, 9, 9]})),
        };
        let arguments = arguments.as_object().unwrap().clone();
        let call = ToolCall { id: String::new(), name: name.into(), arguments };
        Ok(if turn < 2 * ROUNDS { say(CallFormat::Hermes, "", &[call]) } else { said("a square") })
    });
    let sent = Arc::new(AtomicUsize::new(0));
    let toolbox = Hostile { real: standard_tools(), seed: AtomicU64::new(0), sent: sent.clone() };
    let limits = RolloutLimits { turns: 2 * ROUNDS + 1, calls: 2 * ROUNDS, ..RolloutLimits::default() };
    let world = world(Arc::new(policy), Arc::new(toolbox), ToolEnvConfig::default(), limits);
    let jobs = Job::group(&samples(&world, 1), TRAJECTORIES as u32, 0);
    let report =
        Engine::new(64).unwrap().run(None, &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
    let mut unreadable = 0;
    for e in &report.ended {
        let why = e.why.as_deref().unwrap_or_default();
        match e.trajectory.status {
            Status::Answered => assert_eq!(e.trajectory.tools.len(), 2 * ROUNDS),
            // What cannot be read is the fault of the tool that made it, never a panic of the one that looks.
            Status::ToolFailed => {
                assert!(why.starts_with("picture ") && why.contains("cannot be read"), "{why}");
                unreadable += 1;
            }
            other => panic!("{other:?}: {why}"),
        }
    }
    assert_eq!(report.ended.len(), TRAJECTORIES);
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent >= 10_000, "{sent} pictures");
    // Neither all nor none of them can be decoded, or the corpus would be too weak.
    assert!((500..4500).contains(&unreadable), "{unreadable}");
}
