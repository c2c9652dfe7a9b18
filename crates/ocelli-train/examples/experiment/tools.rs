//! V-ToolRL: what reinforcement with real tools adds to supervised learning from the oracle's trajectories, and to
//! reinforcement without tools.

use ocelli_train::grpo::Count;

use crate::Result;
use crate::task::{Arm, Lab, part};

pub(crate) fn run(lab: &Lab, seed: u64) -> Result<()> {
    let s = &lab.settings;
    let held_out = lab.charts(s.held_out, part(seed, 9))?;
    let base = lab.model(part(seed, 0))?;
    let mut few = held_out.clone();
    few.questions.truncate(40);
    lab.accuracies(seed, "base", &lab.evaluate(&base, &few)?);
    let lessons = lab.charts(s.lessons, part(seed, 1))?;
    let sft = lab.supervised(base, &lessons, seed)?;
    let found = lab.evaluate(&sft, &held_out)?;
    lab.accuracies(seed, "sft", &found);
    lab.by_skill(seed, "sft", &held_out, &found);
    let data = lab.charts(s.questions, part(seed, 3))?;
    for (name, tools) in [("text-only rl", false), ("tool rl", true)] {
        let arm = Arm { tools, buffer: true, count: Count::All, lr: s.rl_lr };
        let (policy, means) = lab.grpo(sft.clone(), &data, &arm, part(seed, 4))?;
        let found = lab.evaluate(&policy, &held_out)?;
        lab.accuracies(seed, name, &found);
        lab.by_skill(seed, name, &held_out, &found);
        for metric in ["buffer/fill", "groups/informative", "tools/rate", "tools/error_rate", "mismatch/max"]
        {
            if let Some(value) = means.get(metric) {
                lab.row(seed, name, metric, *value);
            }
        }
    }
    Ok(())
}
