//! The configuration of a rollout: one struct per TOML table.

use std::path::PathBuf;

use ocelli_agent::endpoint::{
    ApiKey, Concurrency, EndpointConfig, Price, RetryPolicy, SamplingParams, ToolImages,
};
use ocelli_agent::filters::Filter;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::tool_env::ToolEnvConfig;
use ocelli_agent::tool_source::ToolSource;
use ocelli_data::ContentHash;
use ocelli_reward::rubric::{PartConfig, PartKind};
use ocelli_worlds::Level;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One run.
#[derive(Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::commands) struct RolloutConfig {
    /// Directory of the run.
    pub(super) out: PathBuf,
    /// Seed of all sampling.
    #[serde(default)]
    pub(super) seed: u64,
    /// Rollouts of each question.
    #[serde(default = "one")]
    pub(super) group: u32,
    /// Trajectories that are under way together.
    #[serde(default = "default_live")]
    pub(super) live: usize,
    /// How often a rollout is tried again that ended because tools, their servers or the policy's server failed, before it is
    /// given up.
    #[serde(default = "default_retries")]
    pub(super) retries: u32,
    /// Seconds before it is tried again.
    #[serde(default = "default_pause")]
    pub(super) retry_pause_s: f64,
    pub(super) data: Data,
    pub(super) policy: PolicyConfig,
    #[serde(default)]
    pub(super) env: ToolEnvConfig,
    #[serde(default)]
    pub(super) tools: ToolSource,
    #[serde(default)]
    pub(super) limits: RolloutLimits,
    /// What trajectories are scored by.
    #[serde(default = "accuracy")]
    pub(super) rubric: Vec<PartConfig>,
    /// What a trajectory must be to enter sft.jsonl.
    #[serde(default = "all_filters")]
    pub(super) filters: Vec<Filter>,
}

fn one() -> u32 {
    1
}

fn default_live() -> usize {
    32
}

fn default_retries() -> u32 {
    3
}

fn default_pause() -> f64 {
    5.0
}

fn all_filters() -> Vec<Filter> {
    Filter::ALL.to_vec()
}

fn accuracy() -> Vec<PartConfig> {
    vec![PartConfig { weight: 1.0, kind: PartKind::Accuracy(ocelli_reward::Accuracy::default()) }]
}

impl RolloutConfig {
    /// What decides the content of a rollout, so that a change of it makes new work. Neither speed (`live`, threads,
    /// rate limits) nor the address of a server is part of it: a run may go on elsewhere.
    pub(super) fn decides(&self) -> String {
        let policy = match &self.policy {
            PolicyConfig::Oracle => json!("oracle"),
            PolicyConfig::Local { model, temperature, top_p, .. } => json!([model, temperature, top_p]),
            PolicyConfig::Endpoint(e) => json!([e.model, e.sampling]),
        };
        json!([policy, self.env, self.tools.decides(), self.limits]).to_string()
    }

    /// Name of the run within its ledger. More questions or more rollouts of each are the same run, which goes on;
    /// anything else that decides the content begins another.
    pub(super) fn run_name(&self) -> String {
        let source = match &self.data {
            Data::World { name, seed, width, height, level, .. } => {
                json!([name, seed, width, height, level])
            }
            Data::Jsonl { path, .. } => json!(path),
        };
        let text = format!("{} {} {source}", self.decides(), self.seed);
        format!("rollout-{}", ContentHash::of(text.as_bytes()).short())
    }
}

/// Where the questions come from.
#[derive(Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Data {
    /// A drawn world, with the oracle's plan of each question.
    World {
        name: String,
        count: u64,
        #[serde(default)]
        seed: u64,
        #[serde(default = "default_width")]
        width: u32,
        #[serde(default = "default_height")]
        height: u32,
        #[serde(default)]
        level: Level,
    },
    /// Rows of `Sample`, and a directory of pictures by hash.
    Jsonl { path: PathBuf, images: PathBuf },
}

fn default_width() -> u32 {
    448
}

fn default_height() -> u32 {
    336
}

/// Who answers.
#[derive(Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum PolicyConfig {
    /// The plan that each question carries in `meta.plan`.
    Oracle,
    /// A model on this machine.
    Local {
        /// Path or name; the default model if left out.
        model: Option<String>,
        #[serde(default = "default_one")]
        temperature: f32,
        #[serde(default = "default_one")]
        top_p: f32,
        /// Sequences that decode together.
        #[serde(default = "default_live")]
        rows: usize,
    },
    /// An OpenAI-compatible server. Its key is read from the environment variable OCELLI_API_KEY.
    Endpoint(Box<Server>),
}

fn default_one() -> f32 {
    1.0
}

/// An OpenAI-compatible server and how it may be used.
#[derive(Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    /// Up to and including the version, e.g. `http://127.0.0.1:8000/v1`.
    pub(super) base_url: String,
    pub(super) model: String,
    #[serde(default)]
    pub(super) sampling: SamplingParams,
    /// Seconds until one attempt is given up.
    #[serde(default = "default_timeout")]
    timeout_s: f64,
    #[serde(default)]
    concurrency: Concurrency,
    #[serde(default)]
    retry: RetryPolicy,
    requests_per_minute: Option<f64>,
    tokens_per_minute: Option<f64>,
    /// Per million tokens, for the account of costs.
    price: Option<Price>,
    /// `max_completion_tokens` where a server wants that name.
    #[serde(default = "default_limit_field")]
    limit_field: String,
    /// Where pictures that tools made go.
    #[serde(default)]
    tool_images: ToolImages,
}

fn default_timeout() -> f64 {
    600.0
}

fn default_limit_field() -> String {
    "max_tokens".to_owned()
}

impl Server {
    pub(super) fn config(&self) -> EndpointConfig {
        let key = std::env::var("OCELLI_API_KEY").ok().filter(|k| !k.is_empty());
        EndpointConfig {
            api_key: key.map(ApiKey::new),
            timeout_s: self.timeout_s,
            concurrency: self.concurrency,
            retry: self.retry,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            price: self.price,
            limit_field: self.limit_field.clone(),
            tool_images: self.tool_images,
            ..EndpointConfig::new(&self.base_url, &self.model)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const ORACLE: &str =
        "out = \"x\"\n[data]\nkind = \"world\"\nname = \"charts\"\ncount = 1\n[policy]\nkind = \"oracle\"\n";

    fn parse(text: &str, set: &[&str]) -> RolloutConfig {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        config::parse(text, &set).unwrap()
    }

    #[test]
    fn the_example_is_read_and_written_back() {
        let text = include_str!("../../../../../configs/rollout-charts.toml");
        let config = parse(text, &["data.count=3"]);
        let again: RolloutConfig = config::parse(&toml::to_string_pretty(&config).unwrap(), &[]).unwrap();
        assert_eq!(format!("{config:?}"), format!("{again:?}"));
        assert!(matches!(config.data, Data::World { count: 3, .. }));
    }

    #[test]
    fn every_policy_of_the_example_is_read() {
        let text = include_str!("../../../../../configs/rollout-charts.toml");
        // The other policies stand there as comments of two marks.
        let endpoint = text.replace("kind = \"oracle\"", "").replace("## ", "");
        let config = parse(&endpoint, &[]);
        let PolicyConfig::Endpoint(server) = &config.policy else { panic!("{:?}", config.policy) };
        assert_eq!(server.config().requests_per_minute, Some(600.0));
        assert!(ocelli_agent::endpoint::Endpoint::new(server.config()).is_ok());
        let local = text.replace("kind = \"oracle\"", "kind = \"local\"\nmodel = \"runs/sft\"");
        assert!(matches!(parse(&local, &[]).policy, PolicyConfig::Local { rows: 32, .. }));
    }

    #[test]
    fn tools_of_other_servers_are_read_and_written_back() {
        let text = format!(
            "{ORACLE}[tools]\nnames = [\"crop\", \"sam_segment\"]\n[[tools.remote]]\nprefix = \"sam_\"\nurl = \
             \"http://127.0.0.1:9/mcp\"\n[[tools.remote]]\ncommand = [\"python\", \"dino.py\"]\n"
        );
        let config = parse(&text, &[]);
        assert_eq!(config.tools.remote.len(), 2);
        let again: RolloutConfig = config::parse(&toml::to_string_pretty(&config).unwrap(), &[]).unwrap();
        assert_eq!(again.tools.remote, config.tools.remote);
        assert_ne!(config.run_name(), parse(ORACLE, &[]).run_name());
    }

    #[test]
    fn an_unknown_key_is_named() {
        for (line, wrong, right) in [
            ("life = 3\n", "`life`", "`live`"),
            ("limits.secs = 3\n", "`secs`", "`seconds`"),
            ("tools.thread = 3\n", "`thread`", "`threads`"),
        ] {
            let message =
                config::parse::<RolloutConfig>(&format!("{line}{ORACLE}"), &[]).unwrap_err().to_string();
            let hint = format!("did you mean {right}?");
            assert!(message.contains(wrong) && message.contains(&hint), "{message}");
        }
    }

    #[test]
    fn only_what_decides_the_content_makes_another_run() {
        let name = |set: &[&str]| parse(ORACLE, set).run_name();
        let base = name(&[]);
        for same in [
            "live=3",
            "retries=9",
            "retry_pause_s=1.0",
            "data.count=9",
            "group=4",
            "tools.threads=1",
            "out=y",
        ] {
            assert_eq!(name(&[same]), base, "{same}");
        }
        let other = [
            "seed=1",
            "data.seed=1",
            "data.level=hard",
            "limits.turns=2",
            "env.forgiven=5",
            "tools.ocr=small",
        ];
        for other in other {
            assert_ne!(name(&[other]), base, "{other}");
        }
    }
}
