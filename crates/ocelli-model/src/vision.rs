//! What vision towers are made of: normalisation, attention over all patches of a crop, feed-forward layers, and the
//! positions of patches on their grid. The towers themselves are in the files of their families.
//!
//! Patches of all pictures of a batch lie one after another in rows `[P, D]`; a [`SeqLayout`] says which of them see each
//! other. A tower is a pre-norm transformer: `x + attention(norm(x))`, then `x + mlp(norm(x))`.

use ocelli_tensor::ops::{self, Activation, AttentionSpec, Linear, RotaryStyle, RotaryTable};
use ocelli_tensor::{ParamId, SeqLayout, Tape, TensorError, Var};

use crate::ModelError;
use crate::declare::{Declare, Init};
use crate::image::Grid;

/// Standard deviation of drawn weights, as in the reference's `initializer_range`.
pub(crate) const STD: Init = Init::Normal(0.02);

type Result<T, E = TensorError> = std::result::Result<T, E>;

/// Normalisation of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Norm {
    /// Mean and variance, with a bias.
    Layer { weight: ParamId, bias: ParamId, eps: f32 },
    /// Root mean square.
    Rms { weight: ParamId, eps: f32 },
}

impl Norm {
    pub(crate) fn layer(d: &mut Declare<'_>, name: &str, width: usize, eps: f32) -> Result<Self, ModelError> {
        let mut d = d.at(name);
        let weight = d.tensor("weight", &[width], Init::Value(1.0))?;
        Ok(Self::Layer { weight, bias: d.tensor("bias", &[width], Init::Value(0.0))?, eps })
    }

    pub(crate) fn rms(d: &mut Declare<'_>, name: &str, width: usize, eps: f32) -> Result<Self, ModelError> {
        Ok(Self::Rms { weight: d.at(name).tensor("weight", &[width], Init::Value(1.0))?, eps })
    }

    pub(crate) fn forward(&self, tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
        match *self {
            Self::Layer { weight, bias, eps } => ops::layer_norm(tape, x, weight, Some(bias), eps),
            Self::Rms { weight, eps } => ops::rms_norm(tape, x, weight, eps),
        }
    }
}

/// Projections to queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Qkv {
    /// One matrix `[3 D, D]`.
    Fused(Linear),
    /// Three matrices `[D, D]`.
    Split([Linear; 3]),
}

/// Multi-head attention without a causal mask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) qkv: Qkv,
    pub(crate) out: Linear,
    /// Norms over the whole width of queries and keys (InternViT).
    pub(crate) qk_norm: Option<[Norm; 2]>,
    pub(crate) width: usize,
    pub(crate) heads: usize,
}

impl Attention {
    /// The Qwen towers' attention: `qkv` and `proj`, both with bias.
    pub(crate) fn fused(
        d: &mut Declare<'_>,
        name: &str,
        width: usize,
        heads: usize,
    ) -> Result<Self, ModelError> {
        let mut d = d.at(name);
        let qkv = Qkv::Fused(d.linear("qkv", width, 3 * width, true, STD)?);
        Ok(Self { qkv, out: d.linear("proj", width, width, true, STD)?, qk_norm: None, width, heads })
    }

    /// `[P, D]` to `[P, D]`.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        x: &Var,
        layout: &SeqLayout,
        rope: Option<&RotaryTable>,
    ) -> Result<Var> {
        let head_dim = self.width / self.heads;
        let mut parts = match self.qkv {
            Qkv::Fused(layer) => {
                let qkv = ops::linear(tape, x, layer)?;
                ops::split_cols(tape, &qkv, &[self.width; 3])?
            }
            Qkv::Split(layers) => ops::linear_many(tape, x, &layers)?,
        };
        if let Some(norms) = &self.qk_norm {
            for (part, norm) in parts.iter_mut().zip(norms) {
                *part = norm.forward(tape, part)?;
            }
        }
        if let Some(table) = rope {
            for part in &mut parts[..2] {
                *part = ops::rotary(tape, part, head_dim, table)?;
            }
        }
        let spec = AttentionSpec::new(self.heads, self.heads, head_dim);
        let y = ops::attention(tape, &parts[0], &parts[1], &parts[2], layout, spec)?;
        drop(parts);
        ops::linear(tape, &y, self.out)
    }
}

/// Feed-forward layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mlp {
    /// `down(silu(gate(x)) * up(x))`.
    Gated { gate: Linear, up: Linear, down: Linear },
    /// `second(f(first(x)))`.
    Plain { first: Linear, second: Linear, f: Activation },
}

impl Mlp {
    /// Two layers with bias, named as given.
    pub(crate) fn plain(
        d: &mut Declare<'_>,
        [first, second]: [&str; 2],
        [input, hidden, output]: [usize; 3],
        f: Activation,
    ) -> Result<Self, ModelError> {
        let first = d.linear(first, input, hidden, true, STD)?;
        Ok(Self::Plain { first, second: d.linear(second, hidden, output, true, STD)?, f })
    }

    pub(crate) fn forward(&self, tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
        match *self {
            Self::Gated { gate, up, down } => {
                let parts = ops::linear_many(tape, x, &[gate, up])?;
                let y = ops::swiglu(tape, &parts[0], &parts[1])?;
                drop(parts);
                ops::linear(tape, &y, down)
            }
            Self::Plain { first, second, f } => {
                let y = ops::linear(tape, x, first)?;
                let y = ops::activate(tape, &y, f)?;
                ops::linear(tape, &y, second)
            }
        }
    }
}

/// A pre-norm block without layer scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) norm1: Norm,
    pub(crate) attention: Attention,
    pub(crate) norm2: Norm,
    pub(crate) mlp: Mlp,
}

impl Block {
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        x: &Var,
        layout: &SeqLayout,
        rope: Option<&RotaryTable>,
    ) -> Result<Var> {
        let h = self.norm1.forward(tape, x)?;
        let h = self.attention.forward(tape, &h, layout, rope)?;
        let x = ops::add(tape, x, &h)?;
        let h = self.norm2.forward(tape, &x)?;
        let h = self.mlp.forward(tape, &h)?;
        ops::add(tape, &x, &h)
    }
}

/// Row and column of every patch on its grid, in merge-block order: blocks row by row, and row by row inside a block.
pub(crate) fn grid_positions(grids: &[Grid], merge: usize) -> Result<[Vec<usize>; 2]> {
    let total = grids.iter().map(Grid::len).sum();
    let mut positions = [Vec::with_capacity(total), Vec::with_capacity(total)];
    for grid in grids {
        for at in ops::merge_order(grid.h, grid.w, merge)? {
            positions[0].push(at / grid.w);
            positions[1].push(at % grid.w);
        }
    }
    Ok(positions)
}

/// Axial rotary table: the first half of a head's frequencies turns with the row of a patch, the second with its column;
/// `theta^(-4 i / head_dim)` in each (`Qwen2_5_VLVisionRotaryEmbedding`).
pub(crate) fn axial_rope(positions: &[Vec<usize>; 2], head_dim: usize, theta: f32) -> Result<RotaryTable> {
    let half = head_dim / 2;
    let frequencies: Vec<f32> =
        (0..half / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / half as f32)).collect();
    let axis: Vec<usize> = (0..half).map(|i| usize::from(i >= half / 2)).collect();
    let positions = positions.each_ref().map(|p| p.iter().map(|&v| v as f32).collect());
    RotaryTable::new(&positions, &axis, &[frequencies.as_slice(), &frequencies].concat(), RotaryStyle::Half)
}

/// Every crop sees all of itself.
pub(crate) fn full_layout(grids: &[Grid]) -> SeqLayout {
    SeqLayout::full(&grids.iter().map(Grid::len).collect::<Vec<_>>())
}
