//! The Selective Sample Buffer against GRPO, and against GRPO whose loss is divided by the number of informative samples, at
//! three learning rates and equal numbers of rollouts. With `tools=[...]` the policies learn and are asked with those tools, as in
//! `tools`.

use ocelli_train::grpo::Count;

use crate::Result;
use crate::task::{Arm, Lab, part};

pub(crate) fn run(lab: &Lab, seed: u64) -> Result<()> {
    let s = &lab.settings;
    let held_out = lab.charts(s.held_out, part(seed, 9))?;
    let base = lab.model(part(seed, 0))?;
    let lessons = lab.charts(s.lessons, part(seed, 1))?;
    let sft = lab.supervised(base, &lessons, seed)?;
    let start = lab.evaluate(&sft, &held_out)?;
    lab.accuracies(seed, "sft", &start);
    let data = lab.charts(s.questions, part(seed, 3))?;
    let arms = [
        ("grpo", false, Count::All),
        ("grpo/informative", false, Count::Informative),
        ("ssb", true, Count::All),
    ];
    for factor in &s.rl_factors {
        for (name, buffer, count) in arms {
            let arm = Arm { tools: !s.tools.is_empty(), buffer, count, lr: s.rl_lr * factor };
            let (policy, means) = lab.grpo(sft.clone(), &data, &arm, part(seed, 4))?;
            let arm = format!("{name} x{factor}");
            lab.accuracies(seed, &arm, &lab.evaluate(&policy, &held_out)?);
            for metric in
                ["buffer/fill", "buffer/fresh_share", "groups/informative", "accuracy", "tools/rate"]
            {
                if let Some(value) = means.get(metric) {
                    lab.row(seed, &arm, metric, *value);
                }
            }
        }
    }
    Ok(())
}
