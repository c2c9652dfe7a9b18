//! Qwen2-VL's eyes (arXiv 2409.12191, section 2.1; reference `modeling_qwen2_vl.py`, transformers 5.23).
//!
//! ```text
//! patches [P, 3 * 2 * p * p] -> linear -> depth x { x + attention(LN(x)), x + mlp(LN(x)) } -> [P, E]        tower
//! [P, E] -> LN -> [P / 4, 4 E] -> linear -> GELU -> linear -> [P / 4, D]                                  projector
//! ```
//!
//! Attention runs over all patches of a picture, with axial rotary positions. In the configuration `embed_dim` is E and
//! `hidden_size` is D, the language model's width.

use ocelli_tensor::ops::{Activation, Linear};
use ocelli_tensor::{Tape, Var};

use super::patching::{Patching, activation};
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
    patch_dim: usize,
    merge: usize,
    act: Activation,
    theta: f32,
}

impl Config {
    pub(crate) fn read(f: &Fields<'_>) -> Result<Self, ModelError> {
        let patching = Patching::read(f)?;
        let width = f.size_or("embed_dim", 1280, 1 << 16)?;
        Ok(Self {
            depth: f.size_or("depth", 32, 1024)?,
            width,
            mlp: width * f.size_or("mlp_ratio", 4, 64)?,
            heads: patching.heads(f, width, 16)?,
            output: f.size_or("hidden_size", 3584, 1 << 16)?,
            patch_dim: patching.patch_dim(),
            merge: patching.merge,
            act: activation(f, "hidden_act", Activation::QuickGelu)?,
            theta: patching.theta,
        })
    }
}

/// The vision tower.
#[derive(Debug)]
pub(crate) struct VisionTower {
    patch_embed: Linear,
    blocks: Vec<Block>,
    merge: usize,
    head_dim: usize,
    theta: f32,
}

impl VisionTower {
    pub(crate) fn declare(d: &mut Declare<'_>, c: &Config, patching: &Patching) -> Result<Self, ModelError> {
        let patch_embed = patching.embed(&mut d.at("patch_embed"), c.width, false)?;
        let blocks = (0..c.depth).map(|i| {
            let mut d = d.at(&format!("blocks.{i}"));
            Ok(Block {
                norm1: Norm::layer(&mut d, "norm1", c.width, 1e-6)?,
                norm2: Norm::layer(&mut d, "norm2", c.width, 1e-6)?,
                attention: Attention::fused(&mut d, "attn", c.width, c.heads)?,
                mlp: Mlp::plain(&mut d, ["mlp.fc1", "mlp.fc2"], [c.width, c.mlp, c.width], c.act)?,
            })
        });
        let blocks = blocks.collect::<Result<_, ModelError>>()?;
        Ok(Self { patch_embed, blocks, merge: c.merge, head_dim: c.width / c.heads, theta: c.theta })
    }
}

impl Tower for VisionTower {
    fn patch_embed(&self) -> Linear {
        self.patch_embed
    }

    fn forward(&self, tape: &mut Tape<'_>, embedded: Var, grids: &[Grid]) -> Result<Vec<Var>, ModelError> {
        let layout = full_layout(grids);
        let rope = axial_rope(&grid_positions(grids, self.merge)?, self.head_dim, self.theta)?;
        let mut x = embedded;
        for block in &self.blocks {
            x = block.forward(tape, &x, &layout, Some(&rope))?;
        }
        Ok(vec![x])
    }
}

/// The patch merger.
#[derive(Debug)]
pub(crate) struct Merger {
    norm: Norm,
    mlp: Mlp,
    block: usize,
}

impl Merger {
    pub(crate) fn declare(d: &mut Declare<'_>, c: &Config) -> Result<Self, ModelError> {
        let block = c.merge * c.merge * c.width;
        let norm = Norm::layer(d, "ln_q", c.width, 1e-6)?;
        Self::with_norm(d, norm, block, c.output)
    }

    /// The part that Qwen2.5-VL shares: `mlp.0`, GELU, `mlp.2` over merge blocks of `block` numbers.
    pub(crate) fn with_norm(
        d: &mut Declare<'_>,
        norm: Norm,
        block: usize,
        output: usize,
    ) -> Result<Self, ModelError> {
        let first = d.linear("mlp.0", block, block, true, STD)?;
        let second = d.linear("mlp.2", block, output, true, STD)?;
        Ok(Self { norm, mlp: Mlp::Plain { first, second, f: Activation::Gelu }, block })
    }
}

impl Projector for Merger {
    fn forward(&self, tape: &mut Tape<'_>, levels: &[Var]) -> Result<Vec<Var>, ModelError> {
        let x = self.norm.forward(tape, &levels[0])?;
        let x = x.reshape(&[x.value().len() / self.block, self.block])?;
        Ok(vec![self.mlp.forward(tape, &x)?])
    }
}
