//! Which metrics a run has, so that a setting that names one it will never have is refused instead of waiting for it in vain.

use crate::error::TrainError;

/// The metrics of one kind of run under its settings.
#[derive(Clone, Debug)]
pub(crate) struct MetricNames {
    stage: &'static str,
    present: Vec<String>,
    /// Names with what they would need.
    absent: Vec<(String, &'static str)>,
}

impl MetricNames {
    /// What every step of every kind of run has, and `names`.
    pub(crate) fn new(stage: &'static str, names: &[&str]) -> Self {
        let all = ["loss", "optimizer/grad_norm", "optimizer/lr_factor"];
        let present = all.iter().chain(names).map(|n| (*n).to_owned()).collect();
        Self { stage, present, absent: Vec::new() }
    }

    /// Names that are measured only where `holds`; `needs` says in words what that takes.
    pub(crate) fn when<S: AsRef<str>>(mut self, holds: bool, needs: &'static str, names: &[S]) -> Self {
        let names = names.iter().map(|n| n.as_ref().to_owned());
        match holds {
            true => self.present.extend(names),
            false => self.absent.extend(names.map(|n| (n, needs))),
        }
        self
    }

    /// Evaluation metrics.
    pub(crate) fn evaluated(self, held_out: usize, names: &[&str]) -> Self {
        self.when(held_out > 0, "held-out data", names)
    }

    /// Refuses a name that the run will never measure; `only` are the names that the setting looks at (by their beginning).
    pub(crate) fn check(&self, key: &str, name: &str, only: &str) -> Result<(), TrainError> {
        let wanted = || self.present.iter().filter(|n| n.starts_with(only));
        if wanted().any(|n| n == name) {
            return Ok(());
        }
        if let Some((_, needs)) = self.absent.iter().find(|(n, _)| n == name) {
            return Err(TrainError::Config(format!(
                "{key} is `{name}`, which is measured only with {needs}"
            )));
        }
        let nearest = wanted().map(|n| (strsim::damerau_levenshtein(n, name), n)).min();
        let near = nearest.filter(|(distance, n)| *distance <= n.len().max(name.len()) / 2);
        let near = near.map_or(String::new(), |(_, n)| format!("; did you mean `{n}`?"));
        let kind = if only.is_empty() { "metric" } else { "evaluation metric" };
        let all: Vec<&str> = wanted().map(String::as_str).collect();
        let there = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        Err(TrainError::Config(format!(
            "{key} is `{name}`, which is no {kind} of this {} run{near}\nthere are: {there}",
            self.stage
        )))
    }
}
