//! Qwen2.5-VL's eyes (arXiv 2502.13923, section 2.1; reference `modeling_qwen2_5_vl.py`, transformers 5.23).
//!
//! ```text
//! patches [P, 3 * 2 * p * p] -> linear -> merge blocks into window order
//!   -> depth x { x + attention(RMS(x)), x + mlp(RMS(x)) } -> back into the picture's order [P, E]             tower
//! [P, E] -> RMS -> [P / 4, 4 E] -> linear -> GELU -> linear -> [P / 4, D]                                 projector
//! ```
//!
//! Attention runs inside windows of 112 x 112 pixels, save in the blocks listed in `fullatt_block_indexes`, where it runs
//! over the whole picture. The reference merges first and restores the order afterwards; since merging works on each
//! block alone, the order is restored before it here, so that tower and projector can be separated.

use ocelli_tensor::ops::{self, Linear};
use ocelli_tensor::{SeqLayout, Tape, Var};

use super::Tower;
use super::patching::{Patching, indices};
use super::qwen2_vl::Merger;
use crate::ModelError;
use crate::config::Fields;
use crate::declare::Declare;
use crate::image::Grid;
use crate::vision::{Attention, Block, Mlp, Norm, STD, axial_rope, full_layout, grid_positions};

/// Sizes of the tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    depth: usize,
    width: usize,
    mlp: usize,
    heads: usize,
    pub(crate) output: usize,
    merge: usize,
    /// Side of a window in merge blocks.
    window: usize,
    full_blocks: Vec<usize>,
    theta: f32,
}

impl Config {
    pub(crate) fn read(f: &Fields<'_>) -> Result<Self, ModelError> {
        let patching = Patching::read(f)?;
        let width = f.size_or("hidden_size", 3584, 1 << 16)?;
        let window = f.size_or("window_size", 112, 1 << 16)? / (patching.merge * patching.patch);
        if window == 0 {
            let least = patching.merge * patching.patch;
            return Err(f.bad("window_size", format!("at least one merge block, {least} pixels")));
        }
        Ok(Self {
            depth: f.size_or("depth", 32, 1024)?,
            width,
            mlp: f.size_or("intermediate_size", 3420, 1 << 18)?,
            heads: patching.heads(f, width, 16)?,
            output: f.size_or("out_hidden_size", 3584, 1 << 16)?,
            merge: patching.merge,
            window,
            full_blocks: indices(f, "fullatt_block_indexes", &[7, 15, 23, 31])?,
            theta: patching.theta,
        })
    }
}

/// The vision tower.
#[derive(Debug)]
pub(crate) struct VisionTower {
    patch_embed: Linear,
    blocks: Vec<Block>,
    config: Config,
}

impl VisionTower {
    pub(crate) fn declare(d: &mut Declare<'_>, c: &Config, patching: &Patching) -> Result<Self, ModelError> {
        let patch_embed = patching.embed(&mut d.at("patch_embed"), c.width, false)?;
        let blocks = (0..c.depth).map(|i| {
            let mut d = d.at(&format!("blocks.{i}"));
            Ok(Block {
                norm1: Norm::rms(&mut d, "norm1", c.width, 1e-6)?,
                norm2: Norm::rms(&mut d, "norm2", c.width, 1e-6)?,
                attention: Attention::fused(&mut d, "attn", c.width, c.heads)?,
                mlp: Mlp::Gated {
                    gate: d.linear("mlp.gate_proj", c.width, c.mlp, true, STD)?,
                    up: d.linear("mlp.up_proj", c.width, c.mlp, true, STD)?,
                    down: d.linear("mlp.down_proj", c.mlp, c.width, true, STD)?,
                },
            })
        });
        let blocks = blocks.collect::<Result<_, ModelError>>()?;
        Ok(Self { patch_embed, blocks, config: c.clone() })
    }
}

impl Tower for VisionTower {
    fn patch_embed(&self) -> Linear {
        self.patch_embed
    }

    fn forward(&self, tape: &mut Tape<'_>, embedded: Var, grids: &[Grid]) -> Result<Vec<Var>, ModelError> {
        let c = &self.config;
        let unit = c.merge * c.merge;
        let (order, windows) = window_order(grids, c.merge, c.window);
        let rows: Vec<usize> = order.iter().flat_map(|b| b * unit..(b + 1) * unit).collect();
        let windows: Vec<usize> = windows.iter().map(|blocks| blocks * unit).collect();
        let (inside, whole) = (SeqLayout::full(&windows), full_layout(grids));
        let positions = grid_positions(grids, c.merge)?;
        let positions = positions.map(|p| rows.iter().map(|&r| p[r]).collect());
        let rope = axial_rope(&positions, c.width / c.heads, c.theta)?;

        // Embedded first and put into window order afterwards: a row of the tower is narrower than a patch.
        let mut x = ops::gather_rows(tape, &embedded, &rows)?;
        drop(embedded);
        for (i, block) in self.blocks.iter().enumerate() {
            let layout = if c.full_blocks.contains(&i) { &whole } else { &inside };
            x = block.forward(tape, &x, layout, Some(&rope))?;
        }
        let mut back = vec![0; rows.len()];
        for (at, &row) in rows.iter().enumerate() {
            back[row] = at;
        }
        Ok(vec![ops::gather_rows(tape, &x, &back)?])
    }
}

/// The patch merger: Qwen2-VL's with RMSNorm.
pub(crate) fn merger(d: &mut Declare<'_>, c: &Config) -> Result<Merger, ModelError> {
    let norm = Norm::rms(d, "ln_q", c.width, 1e-6)?;
    Merger::with_norm(d, norm, c.merge * c.merge * c.width, c.output)
}

/// Merge blocks in the order of windows, and the number of blocks in each window. Windows are `window` blocks wide and high,
/// smaller at the right and lower border, and lie row by row; so do the blocks inside each.
pub(crate) fn window_order(grids: &[Grid], merge: usize, window: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut order, mut sizes, mut first) = (Vec::new(), Vec::new(), 0);
    for grid in grids {
        let (height, width) = (grid.h / merge, grid.w / merge);
        for top in (0..height).step_by(window) {
            for left in (0..width).step_by(window) {
                let (bottom, right) = ((top + window).min(height), (left + window).min(width));
                for y in top..bottom {
                    order.extend((left..right).map(|x| first + y * width + x));
                }
                sizes.push((bottom - top) * (right - left));
            }
        }
        first += height * width;
    }
    (order, sizes)
}
