//! Learning-rate schedules: a factor in 0..=1 on every group's own learning rate.

use serde::{Deserialize, Serialize};

/// Shape after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// 1.
    #[default]
    Constant,
    /// From 1 to `floor` in a straight line.
    Linear,
    /// From 1 to `floor` along half a cosine.
    Cosine,
}

/// A schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub shape: Shape,
    /// Share of all steps over which the factor rises from 0 to 1.
    pub warmup: f64,
    /// Factor at the end.
    pub floor: f64,
}

impl Schedule {
    /// Factor of step `step` (from 0) of `total`. Step `s` of a warm-up of `w` steps has factor `(s + 1) / w`, so that
    /// the first step is not lost.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = (self.warmup.clamp(0.0, 1.0) * total as f64).round();
        let s = step as f64;
        if s < warmup {
            return (s + 1.0) / warmup;
        }
        let rest = (total as f64 - warmup).max(1.0);
        let progress = ((s - warmup) / rest).clamp(0.0, 1.0);
        let shape = match self.shape {
            Shape::Constant => return 1.0,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.floor + (1.0 - self.floor) * shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_by_hand() {
        let s = |shape, step| Schedule { shape, warmup: 0.2, floor: 0.1 }.factor(step, 10);
        assert_eq!((s(Shape::Constant, 0), s(Shape::Constant, 1), s(Shape::Constant, 9)), (0.5, 1.0, 1.0));
        // Half of the eight steps after the warm-up are gone at step 6.
        assert!((s(Shape::Linear, 6) - (0.1 + 0.9 * 0.5)).abs() < 1e-12);
        assert!((s(Shape::Cosine, 6) - (0.1 + 0.9 * 0.5)).abs() < 1e-12);
        // A quarter: (1 + cos(pi/4)) / 2 = 0.853553.
        assert!((s(Shape::Cosine, 4) - (0.1 + 0.9 * 0.853_553_390_593)).abs() < 1e-9);
        assert!((s(Shape::Linear, 10) - 0.1).abs() < 1e-12);
    }
}
