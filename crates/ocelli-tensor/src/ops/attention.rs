//! Attention over packed sequences, differentiable.
//!
//! ```text
//! out[i, h] = sum_j softmax_j(scale * q[i, h] . k[j, h / g]) v[j, h / g]      j over what SeqLayout lets row i see, g = heads / kv_heads
//! q [N, heads * d]   k, v [M, kv_heads * d]   out [N, heads * d]
//!
//! P = e^(S - lse)   D_i = dout_i . out_i   dS = P * (dout V^T - D)
//! dq = scale dS K   dk = scale dS^T Q   dv = P^T dout
//! ```
//!
//! Works in blocks (see [`crate::cpu::flash`]); kept for the backward pass: q, k, v, out and one log-sum-exp per row and head.
//! A row that sees no key gives zeros and gets zero gradients.

use rayon::prelude::*;

use crate::cpu::flash::{self, Form, KEYS, KeyBlock, Online, QUERIES};
use crate::cpu::pack::{self, Mat};
use crate::cpu::tile::{ADD, Lanes, Left, PANEL, tile};
use crate::cpu::{self, Isa, Scratch, Shared};
use crate::error::{Result, TensorError, shape_error};
use crate::layout::{Segment, SeqLayout, Span};
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// Queries handled by one forward task.
const TASK_QUERIES: usize = 4 * QUERIES;

/// Heads and scale of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionSpec {
    /// The usual scale, `1 / sqrt(head_dim)`.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionSpec {
        AttentionSpec { heads, kv_heads, scale: 1.0 / (head_dim as f32).sqrt() }
    }

    /// Head dimension for queries of `elements` numbers in `rows` rows and keys likewise.
    pub(crate) fn head_dim(
        &self,
        op: &'static str,
        (rows, q): (usize, &Tensor),
        (keys, k, v): (usize, &Tensor, &Tensor),
    ) -> Result<usize> {
        let AttentionSpec { heads, kv_heads, .. } = *self;
        let describe = || {
            format!(
                "q {:?}, k {:?}, v {:?}, {heads} heads, {kv_heads} kv_heads",
                q.shape(),
                k.shape(),
                v.shape()
            )
        };
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            return shape_error(op, format!("kv_heads must divide heads: {}", describe()));
        }
        for t in [k, v] {
            if t.dtype() != q.dtype() {
                return Err(TensorError::DType { op, expected: q.dtype(), got: t.dtype() });
            }
        }
        let d = q.len().checked_div(rows * heads).unwrap_or_else(|| q.cols());
        let fits = q.len() == rows * heads * d && k.len() == keys * kv_heads * d && v.len() == k.len();
        if (rows > 0 && (d == 0 || !fits)) || (rows == 0 && !q.is_empty()) {
            return shape_error(
                op,
                format!("layout of {rows} query rows and {keys} key rows does not fit {}", describe()),
            );
        }
        Ok(d)
    }
}

/// The shapes of one call.
#[derive(Clone, Copy)]
struct Dims {
    heads: usize,
    kv_heads: usize,
    d: usize,
    scale: f32,
}

/// Attention of `q` over `k`, `v` as `layout` allows. The result has the shape of `q`.
///
/// # Errors
/// Rows do not fit the layout, `kv_heads` does not divide `heads`, or types differ.
pub fn attention(
    tape: &mut Tape<'_>,
    q: &Var,
    k: &Var,
    v: &Var,
    layout: &SeqLayout,
    spec: AttentionSpec,
) -> Result<Var> {
    const OP: &str = "attention";
    let rows = (layout.query_rows(), q.value());
    let d = spec.head_dim(OP, rows, (layout.key_rows(), k.value(), v.value()))?;
    let dims = Dims { heads: spec.heads, kv_heads: spec.kv_heads, d, scale: spec.scale };
    let slots = [tape.tracked(OP, q)?, tape.tracked(OP, k)?, tape.tracked(OP, v)?];
    let mut out = Tensor::uninit(q.shape(), q.value().dtype());
    let mut lse = Tensor::uninit(&[spec.heads, layout.query_rows()], crate::DType::F32);
    let (q, k, v) = (q.value(), k.value(), v.value());
    by_dtype!(q.dtype(), T => {
        forward::<T>(layout, dims, (q.slice(), k.slice(), v.slice()), out.fresh(), lse.fresh())
    });
    if slots.iter().all(Option::is_none) {
        return Ok(tape.constant(out));
    }
    let (q, k, v, layout, saved) = (q.clone(), k.clone(), v.clone(), layout.clone(), out.clone());
    Ok(tape.record(out, move |dy, back| {
        let new = |t: &Tensor| Tensor::uninit(t.shape(), t.dtype());
        let (mut dq, mut dk, mut dv) = (new(&q), new(&k), new(&v));
        by_dtype!(q.dtype(), T => {
            let inputs = Inputs::<T> {
                q: q.slice(), k: k.slice(), v: v.slice(), out: saved.slice(), dout: dy.slice(), lse: lse.slice(),
            };
            backward(&layout, dims, inputs, dq.fresh(), dk.fresh(), dv.fresh());
        });
        for (slot, grad) in slots.into_iter().zip([dq, dk, dv]) {
            back.add_opt(slot, || Ok(grad))?;
        }
        Ok(())
    }))
}

/// How many keys of block `from..from + count` of a span query `i` (counted from the segment's start) sees.
fn visible(segment: &Segment, span: &Span, from: usize, i: usize) -> usize {
    if !span.causal {
        return usize::MAX;
    }
    // Key offset c is visible to query i if c <= i + keys - queries.
    let end = (i + 1 + span.keys.len()).saturating_sub(segment.query.len());
    end.saturating_sub(from - span.keys.start)
}

/// Copies rows of one head, `[count][d]`, widened and multiplied by `scale`.
fn head_rows<T: Elem>(
    x: &[T],
    (first, count): (usize, usize),
    (stride, at, d): (usize, usize, usize),
    scale: f32,
    out: &mut [f32],
) {
    cpu::vectorize(
        #[inline(always)]
        || {
            for (i, o) in out.chunks_exact_mut(d).take(count).enumerate() {
                for (o, x) in o.iter_mut().zip(&x[(first + i) * stride + at..][..d]) {
                    *o = x.up() * scale;
                }
            }
        },
    );
}

/// Copies rows of one head as they are, two elements a lane.
fn head_halves<T: Elem>(
    x: &[T],
    (first, count): (usize, usize),
    (stride, at, d): (usize, usize, usize),
    out: &mut Scratch,
) {
    let out: &mut [T] = bytemuck::cast_slice_mut(out);
    for (i, o) in out.chunks_exact_mut(d).take(count).enumerate() {
        o.copy_from_slice(&x[(first + i) * stride + at..][..d]);
    }
}

/// Two neighbouring rows of one head as one row of pairs, `[ceil(count / 2)][d]`; a last lone one has zeros beside it.
fn head_pairs<T: Elem>(
    x: &[T],
    (first, count): (usize, usize),
    (stride, at, d): (usize, usize, usize),
    out: &mut Scratch,
) {
    let x: &[half::bf16] = bytemuck::cast_slice(x);
    let row = |i: usize| &x[(first + i) * stride + at..][..d];
    cpu::vectorize(
        #[inline(always)]
        || {
            for (r, out) in out.lanes_mut().chunks_exact_mut(d).take(count.div_ceil(2)).enumerate() {
                let first = row(2 * r);
                if 2 * r + 1 < count {
                    for ((o, a), b) in out.iter_mut().zip(first).zip(row(2 * r + 1)) {
                        *o = u32::from(a.to_bits()) | u32::from(b.to_bits()) << 16;
                    }
                } else {
                    out.iter_mut().zip(first).for_each(|(o, a)| *o = u32::from(a.to_bits()));
                }
            }
        },
    );
}

/// Packs keys (or values) of one head into panels, `[ceil(count/16)][d][16]` or `[ceil(count/32)][d/2][32]`.
fn head_panels<T: Elem>(
    form: Form,
    x: &[T],
    (first, count): (usize, usize),
    (stride, at, d): (usize, usize, usize),
    out: &mut Scratch,
) {
    let rows = &x[first * stride + at..];
    let data = match T::DTYPE {
        crate::DType::F32 => pack::Data::F32(bytemuck::cast_slice(rows)),
        crate::DType::Bf16 => pack::Data::Bf16(bytemuck::cast_slice(rows)),
    };
    pack::right_panels(form.lanes, Mat { data, rows: d, cols: count, rs: 1, cs: stride }, out.lanes_mut());
}

/// bf16 is multiplied as it is where the processor can and heads have whole pairs.
fn form<T: Elem>(d: usize, scale: f32) -> Form {
    let isa = cpu::isa();
    if T::DTYPE == crate::DType::Bf16 && isa >= Isa::Avx512Bf16 && d.is_multiple_of(2) {
        Form { isa, lanes: Lanes::Pairs, scale }
    } else {
        Form::single(isa)
    }
}

fn forward<T: Elem>(
    layout: &SeqLayout,
    dims: Dims,
    (q, k, v): (&[T], &[T], &[T]),
    out: &mut [T],
    lse: &mut [f32],
) {
    let Dims { heads, kv_heads, d, scale } = dims;
    let rows = layout.query_rows();
    let covered: usize = layout.segments().iter().map(|s| s.query.len()).sum();
    if covered < rows {
        out.fill(T::down(0.0));
        lse.fill(f32::INFINITY);
    }
    let mut tasks = Vec::new();
    for s in layout.segments() {
        for first in s.query.clone().step_by(TASK_QUERIES) {
            let count = (s.query.end - first).min(TASK_QUERIES);
            tasks.extend((0..heads).map(|h| (s, first, count, h)));
        }
    }
    // The longest first: late rows of a causal segment see the most keys.
    tasks.reverse();
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let form = form::<T>(d, scale);
    tasks.par_iter().with_max_len(1).for_each(|&(segment, first, count, h)| {
        let (stride, at) = (kv_heads * d, h / (heads / kv_heads) * d);
        let mut query = Scratch::new(count * form.depth(d));
        match form.lanes {
            Lanes::Single => head_rows(q, (first, count), (heads * d, h * d, d), scale, &mut query),
            Lanes::Pairs => head_halves(q, (first, count), (heads * d, h * d, d), &mut query),
        }
        let (mut panels, mut values) = (Scratch::new(KEYS * d), Scratch::new(KEYS * d));
        let mut state = Online::new(count, d);
        let offset = first - segment.query.start;
        for span in &segment.spans {
            for from in span.keys.clone().step_by(KEYS) {
                let n = (span.keys.end - from).min(KEYS);
                let seen = |i: usize| visible(segment, span, from, offset + i);
                if seen(count - 1) == 0 {
                    break;
                }
                head_panels(form, k, (from, n), (stride, at, d), &mut panels);
                match form.lanes {
                    Lanes::Single => head_rows(v, (from, n), (stride, at, d), 1.0, &mut values),
                    Lanes::Pairs => head_pairs(v, (from, n), (stride, at, d), &mut values),
                }
                state.step(form, &query, KeyBlock { panels: &panels, values: &values, count: n }, seen);
            }
        }
        state.normalise();
        for (i, o) in state.o.chunks_exact(d).enumerate() {
            #[allow(unsafe_code)]
            // SAFETY: segments own disjoint rows, tasks of a segment disjoint (rows, head) blocks.
            let (row, l) = unsafe {
                (out.slice((first + i) * heads * d + h * d, d), lse.slice(h * rows + first + i, 1))
            };
            row.iter_mut().zip(o).for_each(|(y, &x)| *y = T::down(x));
            l[0] = state.log_sum_exp(i);
        }
    });
}

struct Inputs<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    out: &'a [T],
    dout: &'a [T],
    lse: &'a [f32],
}

/// One task is a cluster of segments that share keys, for one key/value head. With few such tasks each query head of the group becomes
/// a task, with key gradients of its own that are added up afterwards in order; which of the two depends on the layout only.
fn backward<T: Elem>(
    layout: &SeqLayout,
    dims: Dims,
    x: Inputs<'_, T>,
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
) {
    let Dims { heads, kv_heads, d, .. } = dims;
    let group = heads / kv_heads;
    let splits = if layout.clusters().len() * kv_heads >= 8 { 1 } else { group };
    let covered: usize = layout.segments().iter().map(|s| s.query.len()).sum();
    if covered < layout.query_rows() {
        dq.fill(T::down(0.0));
    }
    // [split][k or v][M][kv_heads][d]
    let size = dk.len();
    let mut sums = Scratch::zeroed(splits * 2 * size);
    let mut tasks = Vec::new();
    for (c, cluster) in layout.clusters().iter().enumerate() {
        let work: usize = cluster
            .iter()
            .map(|&s| &layout.segments()[s])
            .map(|s| s.query.len() * s.spans.iter().map(|s| s.keys.len()).sum::<usize>())
            .sum();
        tasks.extend((0..kv_heads * splits).map(|t| (work, c, t / splits, t % splits)));
    }
    tasks.sort_by_key(|t| std::cmp::Reverse(t.0));
    let (dq_out, sums_out) = (Shared::new(dq), Shared::new(&mut sums));
    let form = form::<T>(d, dims.scale);
    tasks.par_iter().with_max_len(1).for_each(|&(_, c, kv, split)| {
        let per = group / splits;
        for h in kv * group + split * per..kv * group + (split + 1) * per {
            for &s in &layout.clusters()[c] {
                segment_backward(
                    form,
                    &layout.segments()[s],
                    dims,
                    &x,
                    h,
                    layout.query_rows(),
                    dq_out,
                    |is_v, row| {
                        #[allow(unsafe_code)]
                        // SAFETY: this task alone touches this split and key/value head of the cluster's keys, one row at a time.
                        unsafe {
                            sums_out
                                .slice((split * 2 + usize::from(is_v)) * size + (row * kv_heads + kv) * d, d)
                        }
                    },
                );
            }
        }
    });
    for (i, out) in [dk, dv].into_iter().enumerate() {
        let sums = &*sums;
        cpu::par_rows(
            out,
            1,
            #[inline(always)]
            |first, out| {
                let mut total = [0.0f32; PANEL];
                for (block, out) in out.chunks_mut(PANEL).enumerate() {
                    let at = first + block * PANEL;
                    for s in 0..splits {
                        let part = &sums[(s * 2 + i) * size + at..][..out.len()];
                        for (total, x) in total.iter_mut().zip(part) {
                            *total = if s == 0 { *x } else { *total + x };
                        }
                    }
                    for (o, x) in out.iter_mut().zip(total) {
                        *o = T::down(x);
                    }
                }
            },
        );
    }
}

/// All keys of one segment for query head `h`; `sum(is_v, row)` is where the gradients of a key row are added.
fn segment_backward<'s, T: Elem>(
    form: Form,
    segment: &Segment,
    dims: Dims,
    x: &Inputs<'_, T>,
    h: usize,
    rows: usize,
    dq_out: Shared<T>,
    sum: impl Fn(bool, usize) -> &'s mut [f32],
) {
    let Dims { heads, kv_heads, d, scale } = dims;
    let (first, n) = (segment.query.start, segment.query.len());
    let (stride, at) = (kv_heads * d, h / (heads / kv_heads) * d);
    let mine = (heads * d, h * d, d);
    let (mut dout, mut out) = (Scratch::new(n * d), Scratch::new(n * d));
    head_rows(x.dout, (first, n), mine, 1.0, &mut dout);
    head_rows(x.out, (first, n), mine, 1.0, &mut out);
    let lse = &x.lse[h * rows + first..][..n];
    let row = |i: usize| i * d..(i + 1) * d;
    let delta: Vec<f32> = cpu::vectorize(
        #[inline(always)]
        || (0..n).map(|i| cpu::math::dot(&out[row(i)], &dout[row(i)])).collect(),
    );
    // `out` is done with: its memory becomes the gradient of q.
    let mut dq = out;
    dq.fill(0.0);
    // Left operands of the scores, `[n][deep]`, and right operands of the sums over queries, `[n][d]`: in f32 the same.
    let (deep, pairs) = (form.depth(d), form.lanes == Lanes::Pairs);
    let mut q = Scratch::new(n * deep);
    let halves = |of_f32: usize| Scratch::new(if pairs { of_f32 } else { 0 });
    let (mut dout_halves, mut q_pairs, mut dout_pairs) =
        (halves(n * deep), halves(n.div_ceil(2) * d), halves(n.div_ceil(2) * d));
    if pairs {
        head_halves(x.q, (first, n), mine, &mut q);
        head_halves(x.dout, (first, n), mine, &mut dout_halves);
        head_pairs(x.q, (first, n), mine, &mut q_pairs);
        head_pairs(x.dout, (first, n), mine, &mut dout_pairs);
    } else {
        head_rows(x.q, (first, n), mine, scale, &mut q);
    }
    let block = || Scratch::new(KEYS * d);
    let (mut k_panels, mut v_panels, mut k_rows, mut dk, mut dv) =
        (block(), block(), block(), block(), block());
    let (mut p, mut dp) = (Scratch::new(QUERIES * KEYS), Scratch::new(QUERIES * KEYS));
    let (mut p_pairs, mut ds_pairs, mut ds_halves) =
        (halves(QUERIES / 2 * KEYS), halves(QUERIES / 2 * KEYS), halves(QUERIES * KEYS / 2));
    // Scores are scaled when they are computed; of their gradient, the other side of the product wants unscaled values.
    let unscaled = Form { scale: 1.0, ..form };
    for span in &segment.spans {
        for from in span.keys.clone().step_by(KEYS) {
            let count = (span.keys.end - from).min(KEYS);
            head_panels(form, x.k, (from, count), (stride, at, d), &mut k_panels);
            head_panels(form, x.v, (from, count), (stride, at, d), &mut v_panels);
            match form.lanes {
                Lanes::Single => head_rows(x.k, (from, count), (stride, at, d), 1.0, &mut k_rows),
                Lanes::Pairs => head_pairs(x.k, (from, count), (stride, at, d), &mut k_rows),
            }
            dk.fill(0.0);
            dv.fill(0.0);
            let mut next = 0;
            while next < n {
                let i = next;
                let seen = |r: usize| visible(segment, span, from, i + r);
                let m = (n - i).min(if seen(0) >= count { QUERIES } else { QUERIES / 2 });
                next += m;
                let width = seen(m - 1).min(count);
                if width == 0 {
                    continue;
                }
                let (part, lanes) = (i * d..(i + m) * d, i * deep..(i + m) * deep);
                let db = if pairs { &dout_halves[lanes.clone()] } else { &dout[part.clone()] };
                let qb = &q[lanes];
                flash::scores(form, (m, width, deep), Left { data: qb, rs: deep, cs: 1 }, &k_panels, &mut p);
                flash::scores(
                    unscaled,
                    (m, width, deep),
                    Left { data: db, rs: deep, cs: 1 },
                    &v_panels,
                    &mut dp,
                );
                let saved = (&lse[i..i + m], &delta[i..i + m]);
                flash::probabilities_and_score_grads((&mut p, &mut dp), saved, width, seen);
                let ds = if pairs {
                    flash::narrow_pairs(&p, m, width, &mut p_pairs);
                    flash::narrow_pairs(&dp, m, width, &mut ds_pairs);
                    flash::narrow(&dp, m, width, &mut ds_halves);
                    // Blocks of queries start at even rows.
                    let rows = i / 2 * d..(i + m).div_ceil(2) * d;
                    let (dout, q) = (&dout_pairs[rows.clone()], &q_pairs[rows]);
                    flash::add_transposed(form, (width, d, m), &p_pairs, dout, &mut dv, 1.0);
                    flash::add_transposed(form, (width, d, m), &ds_pairs, q, &mut dk, scale);
                    Left { data: &ds_halves, rs: KEYS / 2, cs: 1 }
                } else {
                    flash::add_transposed(form, (width, d, m), &p, db, &mut dv, 1.0);
                    flash::add_transposed(form, (width, d, m), &dp, qb, &mut dk, 1.0);
                    Left { data: &dp, rs: KEYS, cs: 1 }
                };
                let k = (&k_rows[..], d);
                tile((form.isa, form.lanes), (m, d, form.depth(width)), ds, k, (&mut dq[part], d), ADD);
            }
            for (is_v, grads) in [(false, &dk), (true, &dv)] {
                for (j, g) in grads.chunks_exact(d).take(count).enumerate() {
                    sum(is_v, from + j).iter_mut().zip(g).for_each(|(a, b)| *a += b);
                }
            }
        }
    }
    for (i, g) in dq.chunks_exact(d).enumerate() {
        #[allow(unsafe_code)]
        // SAFETY: this task alone owns this head of the segment's rows.
        let out = unsafe { dq_out.slice((first + i) * heads * d + h * d, d) };
        out.iter_mut().zip(g).for_each(|(o, &g)| *o = T::down(g * scale));
    }
}
