//! Scores on trajectories: the same rubric for training, filters, evaluation and the viewer.

use std::collections::HashMap;

use ocelli_data::{Sample, Score, Target};
use ocelli_reward::Rubric;

use crate::episode::Ended;

/// Writes the scores of `rubric` into each trajectory, those that were there replaced. A trajectory whose sample is not
/// among `samples` is unscored, not skipped.
pub fn score<'s>(rows: &mut [Ended], rubric: &Rubric, samples: impl IntoIterator<Item = &'s Sample>) {
    let targets: HashMap<&str, &Target> = samples.into_iter().map(|s| (s.id.as_str(), &s.target)).collect();
    for row in rows {
        let trajectory = &mut row.trajectory;
        trajectory.scores = match targets.get(trajectory.sample_id.as_str()) {
            Some(target) => rubric.breakdown(trajectory, target).into_scores(),
            None => {
                let why = format!("sample {} is not among those given", trajectory.sample_id);
                vec![("reward".to_owned(), Score::unscored(why))]
            }
        };
    }
}
