//! Affine maps between pixel frames.
//!
//! A pixel frame has its origin at the top-left corner of the top-left pixel, x to the right, y downwards; pixel (i, j)
//! covers [i, i+1) x [j, j+1). So enlarging by k maps (x, y) to (k x, k y) exactly, without half-pixel offsets.

use serde::{Deserialize, Serialize};

/// `(x, y) -> (a x + b y + c, d x + e y + f)`, stored as `[a, b, c, d, e, f]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Affine(pub [f64; 6]);

impl Affine {
    /// Leaves every point where it is.
    pub const IDENTITY: Self = Self([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);

    /// Moves by `(dx, dy)`.
    pub fn translation(dx: f64, dy: f64) -> Self {
        Self([1.0, 0.0, dx, 0.0, 1.0, dy])
    }

    /// Stretches x by `sx` and y by `sy` about the origin.
    pub fn scaling(sx: f64, sy: f64) -> Self {
        Self([sx, 0.0, 0.0, 0.0, sy, 0.0])
    }

    /// The image of a point.
    pub fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        let [a, b, c, d, e, f] = self.0;
        (a * x + b * y + c, d * x + e * y + f)
    }

    /// False where a number of a remote tool's map is none.
    pub(crate) fn is_finite(&self) -> bool {
        self.0.iter().all(|v| v.is_finite())
    }

    /// First `self`, then `next`.
    pub fn then(&self, next: &Self) -> Self {
        let [a, b, c, d, e, f] = self.0;
        let [ga, gb, gc, gd, ge, gf] = next.0;
        Self([
            ga * a + gb * d,
            ga * b + gb * e,
            ga * c + gb * f + gc,
            gd * a + ge * d,
            gd * b + ge * e,
            gd * c + ge * f + gf,
        ])
    }

    /// The map back; `None` where the map is flat.
    pub fn inverse(&self) -> Option<Self> {
        let [a, b, c, d, e, f] = self.0;
        let det = a * e - b * d;
        if !det.is_finite() || det.abs() < 1e-12 {
            return None;
        }
        let (ia, ib, id, ie) = (e / det, -b / det, -d / det, a / det);
        Some(Self([ia, ib, -(ia * c + ib * f), id, ie, -(id * c + ie * f)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crop_then_zoom_by_hand() {
        // A point (6, 8) of a 2x zoom of a crop at (100, 50): back by 2 gives (3, 4), then (103, 54).
        let to_root = Affine::scaling(0.5, 0.5).then(&Affine::translation(100.0, 50.0));
        assert_eq!(to_root.apply(6.0, 8.0), (103.0, 54.0));
        let back = to_root.inverse().unwrap();
        assert_eq!(back.apply(103.0, 54.0), (6.0, 8.0));
        assert_eq!(Affine::scaling(0.0, 1.0).inverse(), None);
    }

    #[test]
    fn quarter_turn_by_hand() {
        // Turning clockwise by 90 degrees, a picture of height 10: (x, y) -> (10 - y, x).
        let turn = Affine([0.0, -1.0, 10.0, 1.0, 0.0, 0.0]);
        assert_eq!(turn.apply(3.0, 4.0), (6.0, 3.0));
        let all = turn.then(&turn.inverse().unwrap());
        assert_eq!(all.apply(3.0, 4.0), (3.0, 4.0));
    }
}
