//! Qwen3-VL's eyes (arXiv 2511.21631; DeepStack, arXiv 2406.04334; reference `modeling_qwen3_vl.py`, transformers 5.23).
//!
//! ```text
//! patches [P, 3 * 2 * p * p] -> linear + position table, resampled to the picture's grid
//!   -> depth x { x + attention(LN(x)), x + mlp(LN(x)) } -> [P, E], kept also after the `deepstack` blocks       tower
//! [P, E] -> LN -> [P / 4, 4 E] -> linear -> GELU -> linear -> [P / 4, D]                                 projector
//! after deepstack block k: [P / 4, 4 E] -> LN -> linear -> GELU -> linear -> [P / 4, D],
//!   which the language model adds to the picture's rows after its own block k
//! ```
//!
//! Attention runs over the whole picture, with axial rotary positions on top of the learned ones. With an empty list of
//! deepstack blocks this is also the tower of the native family ([`super::tiny`]).

use ocelli_tensor::ops::{self, Activation, Linear, RowMix};
use ocelli_tensor::{ParamId, Tape, Var};

use super::patching::{Patching, activation, indices};
use super::{Projector, Tower};
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
    /// Side of the square table of learned positions.
    side: usize,
    deepstack: Vec<usize>,
    act: Activation,
    theta: f32,
}

impl Config {
    pub(crate) fn read(f: &Fields<'_>) -> Result<Self, ModelError> {
        let patching = Patching::read(f)?;
        let width = f.size_or("hidden_size", 1152, 1 << 16)?;
        let depth = f.size_or("depth", 27, 1024)?;
        let positions = f.size_or("num_position_embeddings", 2304, 1 << 24)?;
        if positions.isqrt().pow(2) != positions {
            return Err(f.bad("num_position_embeddings", "a square number".into()));
        }
        let deepstack = indices(f, "deepstack_visual_indexes", &[8, 16, 24])?;
        if deepstack.iter().any(|&i| i >= depth) || deepstack.windows(2).any(|w| w[0] >= w[1]) {
            return Err(f.bad("deepstack_visual_indexes", format!("blocks below {depth}, in rising order")));
        }
        Ok(Self {
            depth,
            width,
            mlp: f.size_or("intermediate_size", 4304, 1 << 18)?,
            heads: patching.heads(f, width, 16)?,
            output: f.size_or("out_hidden_size", 3584, 1 << 16)?,
            merge: patching.merge,
            side: positions.isqrt(),
            deepstack,
            act: activation(f, "hidden_act", Activation::GeluTanh)?,
            theta: patching.theta,
        })
    }
}

/// The vision tower.
#[derive(Debug)]
pub(crate) struct VisionTower {
    patch_embed: Linear,
    positions: ParamId,
    blocks: Vec<Block>,
    config: Config,
}

impl VisionTower {
    pub(crate) fn declare(d: &mut Declare<'_>, c: &Config, patching: &Patching) -> Result<Self, ModelError> {
        let patch_embed = patching.embed(&mut d.at("patch_embed"), c.width, true)?;
        let positions = d.at("pos_embed").tensor("weight", &[c.side * c.side, c.width], STD)?;
        let blocks = (0..c.depth).map(|i| {
            let mut d = d.at(&format!("blocks.{i}"));
            let names = ["mlp.linear_fc1", "mlp.linear_fc2"];
            Ok(Block {
                norm1: Norm::layer(&mut d, "norm1", c.width, 1e-6)?,
                norm2: Norm::layer(&mut d, "norm2", c.width, 1e-6)?,
                attention: Attention::fused(&mut d, "attn", c.width, c.heads)?,
                mlp: Mlp::plain(&mut d, names, [c.width, c.mlp, c.width], c.act)?,
            })
        });
        let blocks = blocks.collect::<Result<_, ModelError>>()?;
        Ok(Self { patch_embed, positions, blocks, config: c.clone() })
    }
}

impl Tower for VisionTower {
    fn patch_embed(&self) -> Linear {
        self.patch_embed
    }

    /// The states after the deepstack blocks, then the last state.
    fn forward(&self, tape: &mut Tape<'_>, embedded: Var, grids: &[Grid]) -> Result<Vec<Var>, ModelError> {
        let c = &self.config;
        let layout = full_layout(grids);
        let places = grid_positions(grids, c.merge)?;
        let rope = axial_rope(&places, c.width / c.heads, c.theta)?;
        let table = tape.param(self.positions)?;
        let learned = ops::mix_rows(tape, &table, &resampled(grids, &places, c.side))?;
        let mut x = ops::add(tape, &embedded, &learned)?;
        drop((embedded, learned));
        let mut levels = Vec::with_capacity(c.deepstack.len() + 1);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(tape, &x, &layout, Some(&rope))?;
            if c.deepstack.contains(&i) {
                levels.push(x.clone());
            }
        }
        levels.push(x);
        Ok(levels)
    }
}

/// Bilinear weights that stretch the `side x side` table over each grid, corners on corners.
fn resampled(grids: &[Grid], places: &[Vec<usize>; 2], side: usize) -> RowMix {
    // On an axis of n patches, patch i lies at i (side - 1) / (n - 1) in the table, computed in f32 as the reference does.
    let axis = |i: usize, n: usize| {
        let at = (i as f32 * (side - 1) as f32) / n.saturating_sub(1).max(1) as f32;
        let low = at.floor();
        let near = |k: usize| (low as usize + k).min(side - 1);
        [(near(0), 1.0 - (at - low)), (near(1), at - low)]
    };
    let (mut idx, mut weights) = (Vec::new(), Vec::new());
    let mut first = 0;
    for grid in grids {
        for p in first..first + grid.len() {
            for (y, wy) in axis(places[0][p], grid.h) {
                for (x, wx) in axis(places[1][p], grid.w) {
                    idx.push(y * side + x);
                    weights.push(wy * wx);
                }
            }
        }
        first += grid.len();
    }
    RowMix { taps: 4, idx, weights }
}

/// One patch merger.
#[derive(Debug)]
struct Merger {
    norm: Norm,
    /// Normalise merge blocks and not single patches.
    after: bool,
    mlp: Mlp,
}

/// The patch mergers: one for the last state, one for each deepstack block.
#[derive(Debug)]
pub(crate) struct Mergers {
    last: Merger,
    deep: Vec<Merger>,
    block: usize,
}

impl Mergers {
    pub(crate) fn declare(d: &mut Declare<'_>, c: &Config) -> Result<Self, ModelError> {
        let block = c.merge * c.merge * c.width;
        let merger = |d: &mut Declare<'_>, after: bool| {
            let norm = Norm::layer(d, "norm", if after { block } else { c.width }, 1e-6)?;
            let names = ["linear_fc1", "linear_fc2"];
            Ok(Merger { norm, after, mlp: Mlp::plain(d, names, [block, block, c.output], Activation::Gelu)? })
        };
        let last = merger(&mut d.at("merger"), false)?;
        let deep = (0..c.deepstack.len())
            .map(|i| merger(&mut d.at(&format!("deepstack_merger_list.{i}")), true))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { last, deep, block })
    }
}

impl Projector for Mergers {
    /// Features of the last state, then those for the language model's first blocks.
    fn forward(&self, tape: &mut Tape<'_>, levels: &[Var]) -> Result<Vec<Var>, ModelError> {
        let (last, deep) =
            levels.split_last().ok_or_else(|| ModelError::Request("no vision states".into()))?;
        std::iter::once((&self.last, last))
            .chain(self.deep.iter().zip(deep))
            .map(|(merger, x)| {
                let blocks = [x.value().len() / self.block, self.block];
                let x = if merger.after {
                    merger.norm.forward(tape, &x.reshape(&blocks)?)?
                } else {
                    merger.norm.forward(tape, x)?.reshape(&blocks)?
                };
                Ok(merger.mlp.forward(tape, &x)?)
            })
            .collect()
    }
}
