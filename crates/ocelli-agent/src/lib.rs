//! Policy x environment -> trajectories: parsers, rollouts, groups, endpoints, and the durable ledger of work.
//!
//! A [`Job`](episode::Job) is one rollout of one sample. The [`Engine`](engine::Engine) runs many at once; each ends
//! in exactly one [`Status`](ocelli_data::Status), whatever goes wrong. The environment ([`env`]) speaks messages, the
//! policy ([`policy`]) speaks messages or tokens, and what was sampled is what will be trained ([`tokens`]).

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
pub mod toolbox;
pub mod viewer;
pub mod vlm_policy;
