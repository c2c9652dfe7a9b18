//! InternVL's eyes: InternViT and an MLP projector (InternVL 1.5, arXiv 2404.16821; InternVL 2.5, arXiv 2412.05271;
//! reference `modeling_internvl.py`, transformers 5.23). Skywork R1V stands on these.
//!
//! ```text
//! tile -> patches [N, 3 * p * p] -> linear; a class token in front; + learned positions [N + 1, E]
//!   -> depth x { x + l1 * attention(norm(x)), x + l2 * mlp(norm(x)) } -> class token dropped [N, E]            tower
//! [N, E] -> 2 x 2 blocks (pixel unshuffle) [N / 4, 4 E] -> LN -> linear -> GELU -> linear [N / 4, D]      projector
//! ```
//!
//! Tiles of a picture do not see each other in the tower. Two layouts of the same weights are read and written:
//!
//! ```text
//! transformers (`internvl`)                                   OpenGVLab (`internvl_chat`), Skywork R1V (`skywork_chat`)
//! vision_tower.embeddings.cls_token                           vision_model.embeddings.class_embedding
//! vision_tower.embeddings.patch_embeddings.projection.*       vision_model.embeddings.patch_embedding.*
//! vision_tower.embeddings.position_embeddings                 vision_model.embeddings.position_embedding
//! vision_tower.encoder.layer.0.attention.{q,k,v}_proj.*       vision_model.encoder.layers.0.attn.qkv.*    (stacked)
//! vision_tower.encoder.layer.0.attention.{q,k}_norm.*         vision_model.encoder.layers.0.attn.{q,k}_norm.*
//! vision_tower.encoder.layer.0.attention.projection_layer.*   vision_model.encoder.layers.0.attn.proj.*
//! vision_tower.encoder.layer.0.layernorm_{before,after}.*     vision_model.encoder.layers.0.norm{1,2}.*
//! vision_tower.encoder.layer.0.lambda_{1,2}                   vision_model.encoder.layers.0.ls{1,2}
//! vision_tower.encoder.layer.0.mlp.fc{1,2}.*                  vision_model.encoder.layers.0.mlp.fc{1,2}.*
//! multi_modal_projector.layer_norm.*                          mlp1.0.*
//! multi_modal_projector.linear_{1,2}.*                        mlp1.{1,3}.*
//! language_model.*                                            language_model.*
//! ```

use ocelli_tensor::ops::{self, Activation, Linear};
use ocelli_tensor::{ParamId, SeqLayout, Tape, Var};

use super::patching::activation;
use super::{Projector, Tower};
use crate::ModelError;
use crate::config::Fields;
use crate::declare::{Declare, Init};
use crate::image::Grid;
use crate::vision::{Attention, Mlp, Norm, Qkv, STD};

/// `model_type`s of this family: transformers' own, and those whose modelling code came with the checkpoint.
pub(crate) const MODEL_TYPES: [&str; 3] = ["internvl", "internvl_chat", "skywork_chat"];

/// Which names the checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// `vision_tower.*`, `multi_modal_projector.*`.
    Transformers,
    /// `vision_model.*`, `mlp1.*`.
    OpenGvLab,
}

/// Sizes of tower and projector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) names: Names,
    depth: usize,
    width: usize,
    mlp: usize,
    heads: usize,
    qkv_bias: bool,
    qk_norm: bool,
    rms: bool,
    eps: f32,
    layer_scale: f32,
    act: Activation,
    /// Side of a tile in pixels.
    pub(crate) tile: usize,
    /// Side of a patch in pixels.
    pub(crate) patch: usize,
    /// Patches along each side of a token.
    pub(crate) merge: usize,
    /// Fewest and most tiles, without the thumbnail.
    pub(crate) tiles: [usize; 2],
    projector_act: Activation,
    output: usize,
}

impl Config {
    /// From the whole `config.json`; `output` is the width of the language model.
    pub(crate) fn read(top: &Fields<'_>, output: usize) -> Result<Self, ModelError> {
        let f = top.object("vision_config")?;
        let hub = top.text("model_type")? == "internvl";
        let names = if hub { Names::Transformers } else { Names::OpenGvLab };
        let own = names == Names::OpenGvLab;
        let width = f.size_or("hidden_size", 1024, 1 << 16)?;
        let heads = f.size_or("num_attention_heads", 16, 1 << 12)?;
        if !width.is_multiple_of(heads) {
            return Err(f.bad("num_attention_heads", format!("a divisor of hidden_size {width}")));
        }
        let (tile, patch) = (side(&f, "image_size", 448)?, side(&f, "patch_size", 14)?);
        let ratio = top.number_or("downsample_ratio", 0.5, 1.0 / 16.0, 1.0)?;
        let merge = (1.0 / ratio) as usize;
        if merge as f64 * ratio != 1.0 {
            return Err(top.bad("downsample_ratio", "one divided by a whole number".into()));
        }
        if !tile.is_multiple_of(patch * merge) {
            return Err(f.bad("image_size", format!("a multiple of {}, one token", patch * merge)));
        }
        for key in ["vision_feature_layer", "select_layer"] {
            if top.get(key).is_some_and(|v| v.as_i64() != Some(-1)) {
                return Err(top.bad(key, "-1 (features of the last layer)".into()));
            }
        }
        if !f.bool_or("use_absolute_position_embeddings", true)? || !f.bool_or("use_mean_pooling", true)? {
            return Err(f.bad("use_mean_pooling", "true, with absolute positions, as in InternViT".into()));
        }
        let tiles = tiles(top)?;
        let norm = f.text_or("norm_type", if own { "rms_norm" } else { "layer_norm" })?;
        Ok(Self {
            names,
            depth: f.size_or("num_hidden_layers", 24, 1024)?,
            width,
            mlp: f.size_or("intermediate_size", 4096, 1 << 18)?,
            heads,
            qkv_bias: f.bool_or(if own { "qkv_bias" } else { "attention_bias" }, false)?,
            qk_norm: f.bool_or(if own { "qk_normalization" } else { "use_qk_norm" }, own)?,
            rms: match norm.as_str() {
                "rms_norm" => true,
                "layer_norm" => false,
                _ => return Err(f.bad("norm_type", "rms_norm or layer_norm".into())),
            },
            eps: f.number_or("layer_norm_eps", 1e-6, 0.0, 1.0)? as f32,
            layer_scale: f.number_or(
                if own { "initializer_factor" } else { "layer_scale_init_value" },
                0.1,
                0.0,
                1e3,
            )? as f32,
            act: activation(&f, "hidden_act", Activation::Gelu)?,
            tile,
            patch,
            merge,
            tiles,
            projector_act: activation(top, "projector_hidden_act", Activation::Gelu)?,
            output,
        })
    }

    fn norm(&self, d: &mut Declare<'_>, name: &str) -> Result<Norm, ModelError> {
        if self.rms {
            Norm::rms(d, name, self.width, self.eps)
        } else {
            Norm::layer(d, name, self.width, self.eps)
        }
    }
}

/// Fewest and most tiles as OpenGVLab's configurations state them; transformers keeps them with the preprocessing.
fn tiles(top: &Fields<'_>) -> Result<[usize; 2], ModelError> {
    if !top.bool_or("dynamic_image_size", true)? {
        return Ok([1, 1]);
    }
    if !top.bool_or("use_thumbnail", true)? {
        return Err(top.bad("use_thumbnail", "true: several tiles come with a thumbnail".into()));
    }
    let (least, most) = (top.size_or("min_dynamic_patch", 1, 64)?, top.size_or("max_dynamic_patch", 12, 64)?);
    if least > most {
        return Err(top.bad("min_dynamic_patch", format!("at most max_dynamic_patch, {most}")));
    }
    Ok([least, most])
}

/// A square's side, given as one number or as two equal ones.
fn side(f: &Fields<'_>, key: &str, default: usize) -> Result<usize, ModelError> {
    let value = match f.get(key) {
        None => return Ok(default),
        Some(serde_json::Value::Array(pair)) if pair.len() == 2 && pair[0] == pair[1] => &pair[0],
        Some(v) => v,
    };
    match value.as_u64() {
        Some(n @ 1..=4096) => Ok(n as usize),
        _ => Err(f.bad(key, "a number of pixels, or two equal ones, from 1 to 4096".into())),
    }
}

/// A pre-norm block with layer scale.
#[derive(Debug)]
struct ScaledBlock {
    norm1: Norm,
    attention: Attention,
    scale1: ParamId,
    norm2: Norm,
    mlp: Mlp,
    scale2: ParamId,
}

impl ScaledBlock {
    fn declare(d: &mut Declare<'_>, c: &Config) -> Result<Self, ModelError> {
        let hub = c.names == Names::Transformers;
        let pick = |a: &'static str, b: &'static str| if hub { a } else { b };
        let attention = {
            let mut d = d.at(pick("attention", "attn"));
            let qkv = if hub {
                let mut one = |name| d.linear(name, c.width, c.width, c.qkv_bias, STD);
                Qkv::Split([one("q_proj")?, one("k_proj")?, one("v_proj")?])
            } else {
                Qkv::Fused(d.linear("qkv", c.width, 3 * c.width, c.qkv_bias, STD)?)
            };
            let out = d.linear(pick("projection_layer", "proj"), c.width, c.width, true, STD)?;
            // The hub's class leaves this epsilon at its default.
            let eps = if hub { 1e-6 } else { c.eps };
            let mut norm = |name| Norm::rms(&mut d, name, c.width, eps);
            let qk_norm = if c.qk_norm { Some([norm("q_norm")?, norm("k_norm")?]) } else { None };
            Attention { qkv, out, qk_norm, width: c.width, heads: c.heads }
        };
        let scale = Init::Value(c.layer_scale);
        Ok(Self {
            attention,
            norm1: c.norm(d, pick("layernorm_before", "norm1"))?,
            norm2: c.norm(d, pick("layernorm_after", "norm2"))?,
            scale1: d.tensor(pick("lambda_1", "ls1"), &[c.width], scale)?,
            scale2: d.tensor(pick("lambda_2", "ls2"), &[c.width], scale)?,
            mlp: Mlp::plain(d, ["mlp.fc1", "mlp.fc2"], [c.width, c.mlp, c.width], c.act)?,
        })
    }

    fn forward(&self, tape: &mut Tape<'_>, x: &Var, layout: &SeqLayout) -> Result<Var, ModelError> {
        let h = self.norm1.forward(tape, x)?;
        let h = self.attention.forward(tape, &h, layout, None)?;
        let h = ops::mul_vec(tape, &h, self.scale1)?;
        let x = ops::add(tape, x, &h)?;
        let h = self.norm2.forward(tape, &x)?;
        let h = self.mlp.forward(tape, &h)?;
        let h = ops::mul_vec(tape, &h, self.scale2)?;
        Ok(ops::add(tape, &x, &h)?)
    }
}

/// InternViT.
#[derive(Debug)]
pub(crate) struct VisionTower {
    class: ParamId,
    patch_embed: Linear,
    positions: ParamId,
    blocks: Vec<ScaledBlock>,
    merge: usize,
}

impl VisionTower {
    pub(crate) fn declare(d: &mut Declare<'_>, c: &Config) -> Result<Self, ModelError> {
        let hub = c.names == Names::Transformers;
        let pick = |a: &'static str, b: &'static str| if hub { a } else { b };
        let patches = (c.tile / c.patch).pow(2);
        let mut e = d.at("embeddings");
        let class = e.shaped(pick("cls_token", "class_embedding"), &[1, 1, c.width], &[1, c.width], STD)?;
        let mut p = e.at(pick("patch_embeddings.projection", "patch_embedding"));
        let (stored, flat) = ([c.width, 3, c.patch, c.patch], [c.width, 3 * c.patch * c.patch]);
        let kernel = p.shaped("weight", &stored, &flat, STD)?;
        let patch_embed = Linear::new(kernel).with_bias(p.tensor("bias", &[c.width], Init::Value(0.0))?);
        let name = pick("position_embeddings", "position_embedding");
        let positions = e.shaped(name, &[1, patches + 1, c.width], &[patches + 1, c.width], STD)?;
        let layers = pick("encoder.layer", "encoder.layers");
        let blocks = (0..c.depth)
            .map(|i| ScaledBlock::declare(&mut d.at(&format!("{layers}.{i}")), c))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self { class, patch_embed, positions, blocks, merge: c.merge })
    }
}

impl Tower for VisionTower {
    fn patch_embed(&self) -> Linear {
        self.patch_embed
    }

    /// Rows in merge-block order, as the other towers give them.
    fn forward(&self, tape: &mut Tape<'_>, embedded: Var, grids: &[Grid]) -> Result<Vec<Var>, ModelError> {
        let Some(grid) = grids.first() else { return Err(ModelError::Request("no tiles".into())) };
        let (n, tiles) = (grid.len(), grids.len());
        let class = tape.param(self.class)?;
        let pool = ops::concat_rows(tape, &[&class, &embedded])?;
        drop(embedded);
        // Row 0 of the pool is the class token, which stands in front of the n patches of every tile.
        let rows: Vec<usize> =
            (0..tiles).flat_map(|t| std::iter::once(0).chain(1 + t * n..1 + (t + 1) * n)).collect();
        let x = ops::gather_rows(tape, &pool, &rows)?;
        drop(pool);
        let table = tape.param(self.positions)?;
        let learned = ops::gather_rows(tape, &table, &(0..tiles).flat_map(|_| 0..=n).collect::<Vec<_>>())?;
        let mut x = ops::add(tape, &x, &learned)?;
        drop(learned);
        let layout = SeqLayout::full(&vec![n + 1; tiles]);
        for block in &self.blocks {
            x = block.forward(tape, &x, &layout)?;
        }
        let order = ops::merge_order(grid.h, grid.w, self.merge)?;
        let kept: Vec<usize> =
            (0..tiles).flat_map(|t| order.iter().map(move |p| t * (n + 1) + 1 + p)).collect();
        Ok(vec![ops::gather_rows(tape, &x, &kept)?])
    }
}

/// The MLP projector.
#[derive(Debug)]
pub(crate) struct MlpProjector {
    norm: Norm,
    mlp: Mlp,
    block: usize,
}

impl MlpProjector {
    pub(crate) fn declare(d: &mut Declare<'_>, c: &Config) -> Result<Self, ModelError> {
        let block = c.merge * c.merge * c.width;
        let [norm, first, second] = match c.names {
            Names::Transformers => ["layer_norm", "linear_1", "linear_2"],
            Names::OpenGvLab => ["0", "1", "3"],
        };
        let norm = Norm::layer(d, norm, block, 1e-5)?;
        let mlp = Mlp::plain(d, [first, second], [block, c.output, c.output], c.projector_act)?;
        Ok(Self { norm, mlp, block })
    }
}

impl Projector for MlpProjector {
    fn forward(&self, tape: &mut Tape<'_>, levels: &[Var]) -> Result<Vec<Var>, ModelError> {
        let x = &levels[0];
        let x = x.reshape(&[x.value().len() / self.block, self.block])?;
        let x = self.norm.forward(tape, &x)?;
        Ok(vec![self.mlp.forward(tape, &x)?])
    }
}
