//! What single settings of a pipeline must be: everything that a stage would refuse when it is reached, perhaps hours later,
//! is refused before the first one begins.

use anyhow::{Context, bail, ensure};
use ocelli_agent::tool_source::ToolSource;
use ocelli_model::vlm::tiny::TinyConfig;
use ocelli_tools::OcrNetwork;
use ocelli_train::rollouts::RolloutConfig;
use ocelli_train::sources::{DataSource, ModelSource, WorldSource};

use super::config::{Evaluate, Pairs, Pipeline, Stage};
use super::stages::slug;

/// Checks the settings of each stage by themselves; data and checkpoints are not looked for.
pub(super) fn check(config: &Pipeline) -> anyhow::Result<()> {
    rollout(&config.rollout).context("in `rollout`")?;
    tools(&config.tools).context("in `tools`")?;
    for (name, stage) in &config.stage {
        of_stage(config, stage).with_context(|| format!("stage `{name}`"))?;
    }
    Ok(())
}

fn rollout(r: &RolloutConfig) -> anyhow::Result<()> {
    let warm = r.temperature.is_finite() && r.temperature > 0.0;
    ensure!(
        warm,
        "temperature is {}; it must be above 0 (evaluations are greedy by themselves)",
        r.temperature
    );
    ensure!(r.batch > 0, "batch is 0; at least one sequence must be extended at a time");
    let l = &r.limits;
    // No call at all may be allowed; an answer takes a turn, a token and a place for it.
    for (name, value, least) in [
        ("turns", l.turns, 1),
        ("turn_tokens", l.turn_tokens, 1),
        ("tokens", l.tokens, 1),
        ("context", l.context, 2),
    ] {
        ensure!(value >= least, "limits.{name} is {value}; it must be at least {least}");
    }
    let time = l.seconds.is_finite() && l.seconds > 0.0;
    ensure!(time, "limits.seconds is {}; it must be above 0", l.seconds);
    Ok(())
}

/// Names of tools, where this program alone has them: servers are asked when a run or a dry run begins.
fn tools(source: &ToolSource) -> anyhow::Result<()> {
    let own = source.runs_here()
        && source.remote.is_empty()
        && source.record.is_none()
        && source.ocr == OcrNetwork::Embedded
        && !source.wants_detect();
    if own {
        source.load_embedded()?;
    }
    Ok(())
}

fn of_stage(config: &Pipeline, stage: &Stage) -> anyhow::Result<()> {
    match stage {
        Stage::Questions(q) => questions(&q.from).context("in `from`"),
        Stage::Model(m) => model(m),
        Stage::Assemble(a) => pixels(a.max_pixels),
        Stage::Trajectories(t) => {
            ensure!(t.group > 0, "group is 0; at least one trajectory of each question is needed");
            Ok(())
        }
        Stage::Pairs(p) => pairs(p),
        Stage::Sft(s) => rows(s.train.rows),
        Stage::Reward(r) => rows(r.train.rows),
        Stage::Mpo(m) => rows(m.train.rows),
        Stage::Grpo(g) => {
            ensure!(
                g.train.rollout == RolloutConfig::default(),
                "`train.rollout` is set; in a pipeline rollouts are described once, in `rollout`"
            );
            rows(g.train.rows)?;
            ensure!(
                g.train.group >= 2,
                "train.group is {}; an advantage compares at least 2 answers to a question",
                g.train.group
            );
            let Some(judge) = &g.reward_model else { return Ok(()) };
            let scores = matches!(config.stage.get(judge), Some(Stage::Reward(_)));
            ensure!(
                scores,
                "reward_model names `{judge}`, which scores nothing; it must be of kind `reward`"
            );
            Ok(())
        }
        Stage::Evaluate(e) => evaluate(e),
    }
}

fn questions(from: &DataSource) -> anyhow::Result<()> {
    let named = [
        ("world", from.world.is_some()),
        ("readings", from.readings.is_some()),
        ("puzzlevqa", from.puzzlevqa.is_some()),
        ("easy_vqa", from.easy_vqa.is_some()),
        ("gsm8k", from.gsm8k.is_some()),
        ("samples", from.samples.is_some()),
    ];
    let all = named.map(|(name, _)| name).join(", ");
    ensure!(
        from.trajectories.is_none() && from.pairs.is_none(),
        "trajectories and pairs are no questions; name one of {all}"
    );
    let given: Vec<&str> = named.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    match given.as_slice() {
        [_] => {}
        [] => bail!("no source is named; name one of {all}"),
        several => bail!("{} are named; name one of {all}", several.join(" and ")),
    }
    ensure!(from.limit != Some(0), "limit is 0; there would be no question");
    if let Some(world) = &from.world {
        ensure!(world.count > 0, "world.count is 0; there would be no question");
        // Name, size, styles and skills are right where one item can be drawn.
        WorldSource { count: 1, ..world.clone() }.items().context("in `world`")?;
    }
    Ok(())
}

fn model(source: &ModelSource) -> anyhow::Result<()> {
    let named = [source.tiny.is_some(), source.path.is_some(), source.language.is_some()];
    ensure!(
        named.iter().filter(|n| **n).count() == 1,
        "give one of `tiny` (a preset), `path` (a checkpoint) and `language` (a text model that gets eyes)"
    );
    if let Some(preset) = &source.tiny {
        TinyConfig::preset(preset)?;
    }
    pixels(source.max_pixels)
}

fn rows(rows: usize) -> anyhow::Result<()> {
    ensure!(rows > 0, "train.rows is 0; a pass takes at least one");
    Ok(())
}

fn pixels(most: Option<u64>) -> anyhow::Result<()> {
    ensure!(most != Some(0), "max_pixels is 0; a picture has at least one");
    Ok(())
}

fn pairs(p: &Pairs) -> anyhow::Result<()> {
    let made = p.corrupted || p.without_picture;
    ensure!(
        p.group > 0 || made,
        "group is 0, and neither `corrupted` nor `without_picture` is set: nothing would make a pair"
    );
    ensure!(p.group != 1, "group is 1; a pair takes two answers to a question (0 for none of the model's)");
    let r = &p.rule;
    let finite = |x: Option<f64>| x.is_none_or(f64::is_finite);
    let numbers = finite(r.at_least) && finite(r.at_most) && r.gap.is_finite() && r.gap >= 0.0;
    ensure!(numbers, "rule needs finite numbers, and a gap of at least 0");
    ensure!(r.per_question > 0, "rule.per_question is 0; no question would give a pair");
    Ok(())
}

fn evaluate(e: &Evaluate) -> anyhow::Result<()> {
    let chance = e.chance.is_none_or(|c| (0.0..=1.0).contains(&c));
    ensure!(chance, "chance is {}; it is an accuracy from 0 to 1", e.chance.unwrap_or_default());
    let mut taken: Vec<String> = Vec::new();
    for arm in &e.arms {
        for tools in arm.tools.ways() {
            let id = format!("{}{}", slug(&arm.label), if *tools { "-tools" } else { "" });
            ensure!(
                !slug(&arm.label).is_empty() && !taken.contains(&id),
                "arm `{}`: labels must differ in their letters and digits",
                arm.label
            );
            taken.push(id);
        }
    }
    Ok(())
}
