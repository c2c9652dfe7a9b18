//! Policy x environment -> trajectories: parsers, rollouts, groups, endpoints, and the durable ledger of work.
//!
//! A [`Job`](episode::Job) is one rollout of one sample. The [`Engine`](engine::Engine) runs many at once; each ends
//! in exactly one [`Status`](ocelli_data::Status), whatever goes wrong. The environment ([`env`]) speaks messages, the
//! policy ([`policy`]) speaks messages or tokens, and what was sampled is what will be trained ([`tokens`]).
//!
//! A scripted policy crops a picture with the real tool, looks at the result, and answers:
//!
//! ```
//! use std::sync::Arc;
//! use ocelli_agent::control::Control;
//! use ocelli_agent::engine::{Engine, Until};
//! use ocelli_agent::episode::{Job, World};
//! use ocelli_agent::limits::RolloutLimits;
//! use ocelli_agent::pictures::Pictures;
//! use ocelli_agent::scripted::{ScriptedPolicy, said};
//! use ocelli_agent::tool_env::{ToolEnvConfig, ToolEnvs};
//! use ocelli_agent::toolbox::LocalTools;
//! use ocelli_data::{Message, Part, Sample, Status, Target};
//! use ocelli_tools::{Limits, Picture, Registry};
//!
//! let pictures = Arc::new(Pictures::in_memory(1 << 20));
//! let blue = Picture::encode(&image::RgbImage::from_pixel(40, 30, image::Rgb([0, 0, 255])))?;
//! let hash = pictures.put(blue.bytes().clone())?;
//! let sample = Sample {
//!     id: "colour/0".into(),
//!     messages: vec![Message::user([Part::image(hash), Part::text("What colour is it?")])],
//!     target: Target::Text { accepted: vec!["blue".into()] },
//!     meta: Default::default(),
//! };
//!
//! let policy = ScriptedPolicy::new(|_, turn, _| {
//!     let look = r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0", "bbox": [5, 5, 15, 15]}}</tool_call>"#;
//!     Ok(said(if turn == 0 { look } else { "blue" }))
//! });
//! let tools = Arc::new(LocalTools::new(Arc::new(Registry::standard(Limits::default())), 2));
//! let envs = Arc::new(ToolEnvs::new(ToolEnvConfig::default(), tools, pictures.clone(), Limits::default()));
//! let world = World { policy: Arc::new(policy), envs, pictures, limits: RolloutLimits::default() };
//!
//! let jobs = Job::group(&[Arc::new(sample)], 4, 0); // four rollouts of the question
//! let report = Engine::new(16)?.run(None, &world, &Control::default(), jobs, Until::AllEnded, &mut |_| {});
//!
//! let first = &report.ended[0].trajectory;
//! assert_eq!((report.ended.len(), first.status), (4, Status::Answered));
//! assert_eq!((first.tools.len(), first.images.len()), (1, 2)); // the crop is a picture that the policy saw
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod batching;
pub mod control;
pub mod durable;
pub mod endpoint;
pub mod endpoint_policy;
pub mod engine;
pub mod env;
pub mod episode;
pub mod filters;
pub mod formats;
pub mod instructions;
pub mod ledger;
pub mod limits;
pub mod local;
pub mod pictures;
pub mod policy;
pub mod score;
pub mod scripted;
pub mod simulated;
pub mod snapshot;
pub mod tokens;
pub mod tool_env;
pub mod tool_source;
pub mod toolbox;
pub mod viewer;
pub mod vlm_policy;
