//! Whether the stages fit together, and the key that says whether one must run again.

use anyhow::{Context, bail, ensure};
use ocelli_data::ContentHash;
use ocelli_train::OptimizerConfig;
use ocelli_train::grpo::GrpoConfig;
use ocelli_train::hybrid_reward::{Judge, RewardSpec};
use ocelli_train::run::RunConfig;
use serde_json::json;

use super::config::{Kind, Pipeline, Stage};
use super::settings;
use super::store::Store;

/// Checks names and references before anything runs.
pub(crate) fn check(config: &Pipeline) -> anyhow::Result<()> {
    ensure!(!config.stage.is_empty(), "there is no stage; a stage is a table such as [stage.train]");
    for (at, (name, stage)) in config.stage.iter().enumerate() {
        let plain =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        ensure!(
            plain,
            "stage `{name}`: a name consists of letters, digits, - and _ (it becomes a directory)"
        );
        for (setting, wanted, kinds) in stage.inputs() {
            check_reference(config, (at, name), setting, wanted, kinds)?;
        }
        match stage {
            Stage::Questions(q) => ensure!(
                !(q.blank && q.text_only),
                "stage `{name}`: `blank` shows grey pictures and `text_only` shows none; set one of them"
            ),
            Stage::Evaluate(e) => {
                ensure!(!e.arms.is_empty(), "stage `{name}`: arms is empty; there is nothing to evaluate");
                for arm in &e.arms {
                    let one = arm.model.is_some() != arm.majority.is_some();
                    ensure!(one, "stage `{name}`, arm `{}`: give either `model` or `majority`", arm.label);
                    let tools = arm.tools.ways().contains(&true);
                    ensure!(
                        !tools || !config.tools.is_none(),
                        "stage `{name}`, arm `{}`: tools are wanted, but the pipeline's `tools` is empty",
                        arm.label
                    );
                }
            }
            Stage::Sft(s) => {
                ensure!(
                    !s.data.is_empty(),
                    "stage `{name}`: data is empty; name stages of questions or trajectories"
                );
                learns(name, &s.train.optimizer, &s.train.run, s.train.batch)?;
                s.train.validate_settings().with_context(|| format!("stage `{name}`, `train`"))?;
            }
            Stage::Reward(r) => {
                ensure!(
                    !r.pairs.is_empty(),
                    "stage `{name}`: pairs is empty; name stages of preference pairs"
                );
                learns(name, &r.train.optimizer, &r.train.run, r.train.batch)?;
                r.train.validate_settings().with_context(|| format!("stage `{name}`, `train`"))?;
            }
            Stage::Mpo(m) => {
                ensure!(
                    !m.pairs.is_empty(),
                    "stage `{name}`: pairs is empty; name stages of preference pairs"
                );
                learns(name, &m.train.optimizer, &m.train.run, m.train.batch)?;
                m.train.validate_settings().with_context(|| format!("stage `{name}`, `train`"))?;
            }
            Stage::Grpo(g) => {
                learns(name, &g.train.optimizer, &g.train.run, g.train.prompts)?;
                let rules = RewardSpec { model: None, ..g.train.reward.clone() };
                Judge::new(&rules, None, 1).with_context(|| format!("stage `{name}`, `train.reward`"))?;
                let finite = g
                    .train
                    .reward
                    .model
                    .as_ref()
                    .is_none_or(|m| m.weight.is_finite() && m.threshold.is_finite());
                ensure!(finite, "stage `{name}`: `train.reward.model` needs finite numbers");
                let both = g.reward_model.is_some() == g.train.reward.model.is_some();
                ensure!(both, "stage `{name}`: `reward_model` and `train.reward.model` belong together");
                ensure!(
                    g.calibrate.is_none() || g.reward_model.is_some(),
                    "stage `{name}`: `calibrate` needs a `reward_model`"
                );
                ensure!(
                    !g.tools || !config.tools.is_none(),
                    "stage `{name}`: tools are wanted, but the pipeline's `tools` is empty; name some or set tools = false"
                );
                let train = GrpoConfig { rollout: config.rollout.clone(), ..g.train.clone() };
                train.validate_settings().with_context(|| format!("stage `{name}`, `train`"))?;
            }
            _ => {}
        }
    }
    settings::check(config)
}

/// What every loop refuses, said before the first stage begins and not when the loop is reached.
fn learns(name: &str, optimizer: &OptimizerConfig, run: &RunConfig, batch: usize) -> anyhow::Result<()> {
    optimizer.validate().with_context(|| format!("stage `{name}`, `train.optimizer`"))?;
    let r = &optimizer.lr;
    ensure!(
        [r.tower, r.projector, r.language, r.head].iter().any(|rate| *rate > 0.0),
        "stage `{name}`: every part is frozen (all of train.optimizer.lr are 0), so nothing would be learned; give at least \
         one part a learning rate"
    );
    ensure!(run.steps > 0, "stage `{name}`: train.run.steps is 0; at least one step is needed");
    ensure!(
        batch > 0,
        "stage `{name}`: a step of no example; train.batch (GRPO: train.prompts) must be at least 1"
    );
    Ok(())
}

fn check_reference(
    config: &Pipeline,
    (at, name): (usize, &str),
    setting: &str,
    wanted: &str,
    kinds: &[Kind],
) -> anyhow::Result<()> {
    let Some((place, _, found)) = config.stage.get_full(wanted) else {
        let nearest = config.stage.keys().min_by_key(|k| strsim::damerau_levenshtein(k, wanted));
        let hint = nearest.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        bail!("stage `{name}`: {setting} names `{wanted}`, and there is no such stage{hint}");
    };
    ensure!(
        place < at,
        "stage `{name}`: {setting} names `{wanted}`, which stands behind it; a stage can only use earlier ones"
    );
    let gives = found.puts_out();
    ensure!(
        kinds.contains(&gives),
        "stage `{name}`: {setting} names `{wanted}`, which gives {}; wanted: {}",
        noun(gives),
        kinds.iter().map(|k| noun(*k)).collect::<Vec<_>>().join(" or ")
    );
    Ok(())
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Questions => "questions",
        Kind::Model => "a model",
        Kind::Trajectories => "trajectories",
        Kind::Pairs => "preference pairs",
        Kind::Items => "evaluated items",
    }
}

/// The key of a stage: changes exactly when it must run again. The stages that it names must be done.
pub(super) fn key(config: &Pipeline, store: &Store, name: &str) -> anyhow::Result<String> {
    let Some(stage) = config.stage.get(name) else { bail!("there is no stage `{name}`") };
    let mut inputs = Vec::new();
    for (setting, wanted, _) in stage.inputs() {
        inputs.push(json!([setting, wanted, store.done(wanted)?.map(|d| d.output)]));
    }
    let rollouts = stage.rolls_out().then(|| json!([config.tools.decides(), config.rollout]));
    // A drawn world does not depend on the run's seed.
    let seed = (stage.puts_out() != Kind::Questions).then_some(config.seed);
    let all = json!([env!("CARGO_PKG_VERSION"), stage, seed, rollouts, inputs]);
    Ok(ContentHash::of(all.to_string().as_bytes()).to_string())
}
