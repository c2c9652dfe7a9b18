//! Blocks of attention: scores of a block of queries against a block of keys, folded into a running softmax.
//!
//! For each query row `i` the state after any number of keys is `m = max_j s_ij`, `l = sum_j e^(s_ij - m)` and
//! `o = sum_j e^(s_ij - m) v_j`; a further block with a larger maximum rescales `o` and `l` (Milakov & Gimelshein 2018; Dao et al. 2022,
//! "FlashAttention", algorithm 1). Nothing of size queries x keys is kept: the backward pass recomputes a block of probabilities from the
//! saved log-sum-exp (Dao 2023, algorithm 2).

use half::bf16;

use super::tile::{ADD, Lanes, Left, PANEL, Store, tile};
use super::{Isa, Scratch, math, vectorize};
use crate::tensor::Elem;

/// Keys per block (a multiple of 16).
pub(crate) const KEYS: usize = 64;
/// Queries per block (a multiple of 6).
pub(crate) const QUERIES: usize = 48;
/// Queries per block where only some of the keys are visible: on the diagonal, large blocks would compute mostly what is masked.
const QUERIES_MASKED: usize = 12;

/// How a block's operands are held: in `f32`, or, where the processor multiplies bf16, in pairs along the depth of each product.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) isa: Isa,
    pub(crate) lanes: Lanes,
    /// Factor on the scores that is not in the queries yet.
    pub(crate) scale: f32,
}

impl Form {
    /// `f32`, the queries scaled.
    pub(crate) fn single(isa: Isa) -> Form {
        Form { isa, lanes: Lanes::Single, scale: 1.0 }
    }

    /// Columns of a panel of keys.
    pub(crate) fn panel(self) -> usize {
        match self.lanes {
            Lanes::Single => PANEL,
            Lanes::Pairs => 2 * PANEL,
        }
    }

    /// Lanes that `n` elements along the depth take.
    pub(crate) fn depth(self, n: usize) -> usize {
        n.div_ceil(self.lanes.elements())
    }

    fn tile(
        self,
        size: (usize, usize, usize),
        a: Left<'_>,
        b: (&[f32], usize),
        c: (&mut [f32], usize),
        store: Store,
    ) {
        tile((self.isa, self.lanes), size, a, b, c, store);
    }
}

/// Running softmax of `rows` queries.
pub(crate) struct Online {
    pub(crate) o: Scratch,
    pub(crate) m: Vec<f32>,
    pub(crate) l: Vec<f32>,
    scores: Scratch,
    /// The probabilities of a block as bf16.
    narrow: Scratch,
    d: usize,
}

/// A block of at most [`KEYS`] keys: scores come from panels of 16 keys `[ceil(count/16)][d][16]`, values from rows `[count][d]`. In pairs:
/// panels `[ceil(count/32)][d/2][32]`, rows `[ceil(count/2)][d]`.
#[derive(Clone, Copy)]
pub(crate) struct KeyBlock<'a> {
    pub(crate) panels: &'a [f32],
    pub(crate) values: &'a [f32],
    pub(crate) count: usize,
}

impl Online {
    pub(crate) fn new(rows: usize, d: usize) -> Online {
        Online {
            o: Scratch::zeroed(rows * d),
            m: vec![f32::NEG_INFINITY; rows],
            l: vec![0.0; rows],
            scores: Scratch::new(rows.min(QUERIES) * KEYS),
            narrow: Scratch::new(rows.min(QUERIES) * KEYS / 2),
            d,
        }
    }

    /// Folds one block of keys into all rows. `q` is `[rows][d]`; row `i` sees the first `visible(i)` keys of the block, which must not
    /// decrease with `i`.
    pub(crate) fn step(
        &mut self,
        form: Form,
        q: &[f32],
        keys: KeyBlock<'_>,
        visible: impl Fn(usize) -> usize,
    ) {
        let (d, rows) = (self.d, self.m.len());
        let deep = form.depth(d);
        let visible = |i: usize| visible(i).min(keys.count);
        let mut first = 0;
        while first < rows {
            let whole = visible(first) == keys.count;
            let n = (rows - first).min(if whole { QUERIES } else { QUERIES_MASKED });
            let count = visible(first + n - 1);
            if count > 0 {
                let q = Left { data: &q[first * deep..(first + n) * deep], rs: deep, cs: 1 };
                scores(form, (n, count, deep), q, keys.panels, &mut self.scores);
                let state = (&mut self.m[first..first + n], &mut self.l[first..first + n]);
                let o = &mut self.o[first * d..(first + n) * d];
                fold(&mut self.scores, state, (o, d), count, |i| visible(first + i));
                let p = match form.lanes {
                    Lanes::Single => Left { data: &self.scores, rs: KEYS, cs: 1 },
                    Lanes::Pairs => {
                        narrow(&self.scores, n, count, &mut self.narrow);
                        Left { data: &self.narrow, rs: KEYS / 2, cs: 1 }
                    }
                };
                form.tile((n, d, form.depth(count)), p, (keys.values, d), (o, d), ADD);
            }
            first += n;
        }
    }

    /// Merges another state over other keys of the same rows (`rows x d` output, maxima, sums).
    pub(crate) fn merge(&mut self, o: &[f32], m: &[f32], l: &[f32]) {
        let d = self.d;
        for i in 0..self.m.len() {
            let top = self.m[i].max(m[i]);
            if top == f32::NEG_INFINITY {
                continue;
            }
            let (a, b) = (math::exp(self.m[i] - top), math::exp(m[i] - top));
            self.l[i] = self.l[i] * a + l[i] * b;
            self.m[i] = top;
            for (x, y) in self.o[i * d..(i + 1) * d].iter_mut().zip(&o[i * d..(i + 1) * d]) {
                *x = *x * a + y * b;
            }
        }
    }

    /// Divides by the sums. A row that saw nothing is zero.
    pub(crate) fn normalise(&mut self) {
        let d = self.d;
        for (row, &l) in self.o.chunks_exact_mut(d).zip(&self.l) {
            let inv = if l > 0.0 || l.is_nan() { 1.0 / l } else { 0.0 };
            row.iter_mut().for_each(|x| *x *= inv);
        }
    }

    /// `log sum_j e^(s_ij)` of row `i`; positive infinity if it saw nothing, so that `e^(s - lse)` is 0.
    pub(crate) fn log_sum_exp(&self, i: usize) -> f32 {
        if self.l[i] == 0.0 { f32::INFINITY } else { self.m[i] + self.l[i].ln() }
    }
}

/// `s[n][count] = scale q[n][d] k[count][d]^T`, rows [`KEYS`] apart; `deep` lanes hold the `d` elements.
pub(crate) fn scores(
    form: Form,
    (n, count, deep): (usize, usize, usize),
    q: Left<'_>,
    panels: &[f32],
    s: &mut [f32],
) {
    let width = form.panel();
    let store = Store { alpha: form.scale, accumulate: false };
    for (panel, j) in (0..count).step_by(width).enumerate() {
        let b = &panels[panel * deep * width..(panel + 1) * deep * width];
        form.tile((n, width, deep), q, (b, width), (&mut s[j..], KEYS), store);
    }
}

/// Rounds `rows` rows of `count` elements, [`KEYS`] apart, to bf16, as far apart; a last lone one gets a zero beside it.
pub(crate) fn narrow(p: &[f32], rows: usize, count: usize, out: &mut Scratch) {
    let width = count.next_multiple_of(PANEL);
    let out = out.halves_mut();
    vectorize(
        #[inline(always)]
        || {
            for (p, out) in p.chunks_exact(KEYS).zip(out.chunks_exact_mut(KEYS)).take(rows) {
                for (o, p) in out[..width].iter_mut().zip(&p[..width]) {
                    *o = bf16::down(*p);
                }
            }
        },
    );
}

/// Rounds rows as [`narrow`] does and puts two neighbouring ones into one row of pairs: `out[r * KEYS + j]` holds `p[2 r][j]` and `p[2 r + 1][j]`.
pub(crate) fn narrow_pairs(p: &[f32], rows: usize, count: usize, out: &mut Scratch) {
    let width = count.next_multiple_of(PANEL);
    let out = out.lanes_mut();
    let zeros = [0.0f32; KEYS];
    vectorize(
        #[inline(always)]
        || {
            for (r, out) in out.chunks_exact_mut(KEYS).take(rows.div_ceil(2)).enumerate() {
                let first = &p[2 * r * KEYS..][..width];
                let second =
                    if 2 * r + 1 < rows { &p[(2 * r + 1) * KEYS..][..width] } else { &zeros[..width] };
                for ((o, a), b) in out[..width].iter_mut().zip(first).zip(second) {
                    *o = u32::from(bf16::down(*a).to_bits()) | u32::from(bf16::down(*b).to_bits()) << 16;
                }
            }
        },
    );
}

/// Turns scores into probabilities relative to the new maximum, rescaling what was there.
fn fold(
    s: &mut [f32],
    (m, l): (&mut [f32], &mut [f32]),
    (o, d): (&mut [f32], usize),
    count: usize,
    visible: impl Fn(usize) -> usize,
) {
    vectorize(
        #[inline(always)]
        || {
            // Whole vectors: what is hidden, or was computed beyond the last key, is minus infinity and becomes 0.
            let width = count.next_multiple_of(PANEL);
            for i in 0..m.len() {
                let row = &mut s[i * KEYS..i * KEYS + width];
                let seen = visible(i);
                if seen == 0 {
                    row.fill(0.0);
                    continue;
                }
                if seen < width {
                    row[seen..].fill(f32::NEG_INFINITY);
                }
                let top = math::max(row).max(m[i]);
                let mut sums = [0.0f32; PANEL];
                for x in row.as_chunks_mut::<PANEL>().0 {
                    let mut e = [0.0f32; PANEL];
                    for l in 0..PANEL {
                        e[l] = math::exp_negative(x[l] - top);
                        sums[l] += e[l];
                    }
                    *x = e;
                }
                let sum = math::lanes_sum(
                    PANEL,
                    #[inline(always)]
                    |l| sums[l],
                );
                if top > m[i] {
                    let scale = math::exp_negative(m[i] - top);
                    o[i * d..(i + 1) * d].iter_mut().for_each(|x| *x *= scale);
                    l[i] *= scale;
                    m[i] = top;
                }
                l[i] += sum;
            }
        },
    );
}

/// Gradients of one block. `p` holds the scores on entry; both `p` and `dp` are rows [`KEYS`] apart. Afterwards `p` holds the probabilities
/// and `dp` the gradient of the scores, `p * (dp - delta)`.
pub(crate) fn probabilities_and_score_grads(
    (p, dp): (&mut [f32], &mut [f32]),
    (lse, delta): (&[f32], &[f32]),
    count: usize,
    visible: impl Fn(usize) -> usize,
) {
    vectorize(
        #[inline(always)]
        || {
            let width = count.next_multiple_of(PANEL);
            for i in 0..lse.len() {
                let seen = visible(i).min(count);
                let p = &mut p[i * KEYS..i * KEYS + width];
                let dp = &mut dp[i * KEYS..i * KEYS + width];
                let (lse, delta) = (lse[i], delta[i]);
                for (p, dp) in p.as_chunks_mut::<PANEL>().0.iter_mut().zip(dp.as_chunks_mut::<PANEL>().0) {
                    // In registers of their own: the two arrays might overlap for all the compiler knows.
                    let (mut e, mut g) = ([0.0f32; PANEL], [0.0f32; PANEL]);
                    for l in 0..PANEL {
                        e[l] = math::exp_negative(p[l] - lse);
                        g[l] = e[l] * (dp[l] - delta);
                    }
                    (*p, *dp) = (e, g);
                }
                p[seen..].fill(0.0);
                dp[seen..].fill(0.0);
            }
        },
    );
}

/// `c[m][d] += scale a^T b` for a block `a[k][m]` with rows [`KEYS`] apart and `b[k][d]`, both in pairs along `k` if the form is.
pub(crate) fn add_transposed(
    form: Form,
    (m, d, k): (usize, usize, usize),
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    scale: f32,
) {
    let a = Left { data: a, rs: 1, cs: KEYS };
    form.tile((m, d, form.depth(k)), a, (b, d), (c, d), Store { alpha: scale, accumulate: true });
}
