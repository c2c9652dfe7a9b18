//! Connected pieces of a mask.

use crate::PixelBox;

/// One piece: its pixels as indices `y * width + x`, in scan order, and the box around them.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    pub(crate) pixels: Vec<usize>,
    pub(crate) bbox: PixelBox,
}

/// Pieces of a `width` x `height` mask whose pixels touch at sides or corners, in scan order of their first pixel.
pub(crate) fn components(mask: &[bool], width: usize, height: usize) -> Vec<Component> {
    label(width, height, |i| mask[i], |_, _| true)
}

/// Pieces of pixels for which `inside` holds, joined where `joined(a, b)` holds for neighbours a and b.
pub(crate) fn label(
    width: usize,
    height: usize,
    inside: impl Fn(usize) -> bool,
    joined: impl Fn(usize, usize) -> bool,
) -> Vec<Component> {
    let mut seen = vec![false; width * height];
    let mut found = Vec::new();
    let mut stack = Vec::new();
    for start in 0..width * height {
        if seen[start] || !inside(start) {
            continue;
        }
        seen[start] = true;
        stack.push(start);
        let mut pixels = Vec::new();
        let (mut x1, mut y1, mut x2, mut y2) = (usize::MAX, usize::MAX, 0, 0);
        while let Some(i) = stack.pop() {
            pixels.push(i);
            let (x, y) = (i % width, i / width);
            (x1, y1, x2, y2) = (x1.min(x), y1.min(y), x2.max(x + 1), y2.max(y + 1));
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let n = ny * width + nx;
                    if !seen[n] && inside(n) && joined(i, n) {
                        seen[n] = true;
                        stack.push(n);
                    }
                }
            }
        }
        pixels.sort_unstable();
        let bbox = PixelBox { x1: x1 as u32, y1: y1 as u32, x2: x2 as u32, y2: y2 as u32 };
        found.push(Component { pixels, bbox });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pieces_by_hand() {
        let mask: Vec<bool> =
            "##...\n.#..#\n....#".chars().filter(|c| *c != '\n').map(|c| c == '#').collect();
        let found = components(&mask, 5, 3);
        let sizes: Vec<usize> = found.iter().map(|c| c.pixels.len()).collect();
        assert_eq!(sizes, vec![3, 2]);
        assert_eq!(found[1].bbox, PixelBox { x1: 4, y1: 1, x2: 5, y2: 3 });
    }
}
