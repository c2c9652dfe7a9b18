//! Attention of new tokens over cached ones, for generation (inference only).
//!
//! ```text
//! q [R, heads * d]   k, v [R, kv_heads * d]    R = sum of new[s] rows, sequence after sequence
//! k, v are appended to the caches; row i of sequence s sees all its cached tokens and its new ones up to itself
//! ```
//!
//! Sequences behind one [`KvPrefix`] are multiplied with it together, so the prefix is read once per step and not once per sequence;
//! partial results over different key ranges are merged through their maxima and sums ([`crate::cpu::flash`]).

use std::sync::Arc;

use rayon::prelude::*;

use super::attention::AttentionSpec;
use crate::cpu::flash::{Form, KEYS, KeyBlock, Online};
use crate::cpu::{self, Isa, Scratch, Shared};
use crate::error::{Result, TensorError, shape_error};
use crate::kv::{KvCache, KvPrefix, KvRun};
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// Rows (tokens times query heads of a group) one task carries.
const TASK_ROWS: usize = 192;

/// Query rows of one key/value head: token `row` stands `offset` tokens after the start of its sequence's new ones.
struct Query {
    row: usize,
    offset: usize,
}

/// One stretch of keys and the queries that see it.
struct Task<'a> {
    run: &'a KvRun,
    queries: Vec<Query>,
    /// Tokens of the run that were there before this call: query `offset` sees `before + offset + 1` of them; all for a prefix.
    before: Option<usize>,
}

/// Appends `k`, `v` to layer `layer` of the caches and attends `q` to everything cached. `new[s]` is the number of rows of
/// sequence `s`: 1 while decoding, more for a prompt.
///
/// # Errors
/// On a recording tape; when rows do not add up; when a cache has another shape.
pub fn attend_cached(
    tape: &Tape<'_>,
    (q, k, v): (&Var, &Var, &Var),
    (caches, new): (&mut [&mut KvCache], &[usize]),
    layer: usize,
    spec: AttentionSpec,
) -> Result<Var> {
    const OP: &str = "attend_cached";
    if tape.mode() != crate::Mode::Inference {
        let what = "cached attention has no backward pass; use a tape in inference mode".to_owned();
        return Err(TensorError::Mode { op: OP, what });
    }
    let rows: usize = new.iter().sum();
    let d = spec.head_dim(OP, (rows, q.value()), (rows, k.value(), v.value()))?;
    if caches.len() != new.len() {
        return shape_error(OP, format!("{} caches and {} counts of new rows", caches.len(), new.len()));
    }
    for c in caches.iter() {
        let s = c.shape();
        if s.kv_heads != spec.kv_heads || (s.head_dim != d && rows > 0) || layer >= s.layers {
            let what = format!("layer {layer}, {} kv_heads of {d}, but the cache is {s:?}", spec.kv_heads);
            return shape_error(OP, what);
        }
    }
    let mut out = Tensor::uninit(q.shape(), q.value().dtype());
    by_dtype!(q.value().dtype(), T => {
        let width = spec.kv_heads * d;
        let (k, v) = (k.value().slice::<T>(), v.value().slice::<T>());
        let mut row = 0;
        let mut before = Vec::with_capacity(new.len());
        for (c, &n) in caches.iter_mut().zip(new) {
            before.push(c.own().len(layer));
            c.own_mut().append(layer, &k[row * width..(row + n) * width], &v[row * width..(row + n) * width]);
            row += n;
        }
        let tasks = tasks(caches, new, &before, spec.heads / spec.kv_heads);
        run::<T>(&tasks, q.value().slice(), out.fresh(), (spec, d, layer), rows);
    });
    Ok(tape.constant(out))
}

/// Groups the rows by the stretch of keys they see: one entry per distinct prefix, one per sequence's own tokens; each cut into tasks.
fn tasks<'a>(caches: &'a [&'a mut KvCache], new: &[usize], before: &[usize], group: usize) -> Vec<Task<'a>> {
    let mut prefixes: Vec<(&Arc<KvPrefix>, Vec<Query>)> = Vec::new();
    let mut own = Vec::new();
    let mut row = 0;
    for ((cache, &n), &before) in caches.iter().zip(new).zip(before) {
        let queries = || (0..n).map(move |offset| Query { row: row + offset, offset });
        let mut at = cache.prefix();
        while let Some(prefix) = at {
            match prefixes.iter_mut().find(|(p, _)| Arc::ptr_eq(p, prefix)) {
                Some((_, q)) => q.extend(queries()),
                None => prefixes.push((prefix, queries().collect())),
            }
            at = prefix.before();
        }
        own.push((cache.own(), queries().collect::<Vec<_>>(), before));
        row += n;
    }
    let per = (TASK_ROWS / group).max(1);
    let mut out = Vec::new();
    let mut cut = |run: &'a KvRun, queries: Vec<Query>, before: Option<usize>| {
        let mut queries = queries.into_iter().peekable();
        while queries.peek().is_some() {
            out.push(Task { run, queries: queries.by_ref().take(per).collect(), before });
        }
    };
    for (p, queries) in prefixes {
        cut(p.run(), queries, None);
    }
    for (run, queries, before) in own {
        cut(run, queries, Some(before));
    }
    out
}

fn run<T: Elem>(
    tasks: &[Task<'_>],
    q: &[T],
    out: &mut [T],
    (spec, d, layer): (AttentionSpec, usize, usize),
    rows: usize,
) {
    let AttentionSpec { heads, kv_heads, scale } = spec;
    let group = heads / kv_heads;
    let isa = cpu::isa();
    let units: Vec<(usize, usize)> =
        (0..tasks.len()).flat_map(|t| (0..kv_heads).map(move |h| (t, h))).collect();
    let work: usize = tasks.iter().map(|t| t.queries.len() * t.run.len(layer)).sum::<usize>() * heads * d;
    let one = |&(t, kv): &(usize, usize)| {
        let task = &tasks[t];
        let mut query = Scratch::new(task.queries.len() * group * d);
        for (r, o) in query.chunks_exact_mut(d).enumerate() {
            let at = task.queries[r / group].row * heads * d + (kv * group + r % group) * d;
            o.iter_mut().zip(&q[at..at + d]).for_each(|(o, x)| *o = x.up() * scale);
        }
        attend(isa, task, &query, (layer, kv, d, group))
    };
    let states: Vec<Online> = if work < 1 << 15 {
        units.iter().map(one).collect()
    } else {
        units.par_iter().with_max_len(1).map(one).collect()
    };
    // Merge per row in the order of the tasks: the same bits whatever ran where.
    let mut parts: Vec<Vec<(usize, usize)>> = vec![Vec::new(); rows];
    for (t, task) in tasks.iter().enumerate() {
        for (i, query) in task.queries.iter().enumerate() {
            parts[query.row].push((t, i));
        }
    }
    let shared = Shared::new(out);
    let merge = |row: usize| {
        for kv in 0..kv_heads {
            let mut state = Online::new(group, d);
            for &(t, i) in &parts[row] {
                let from = &states[t * kv_heads + kv];
                let r = i * group..(i + 1) * group;
                state.merge(&from.o[r.start * d..r.end * d], &from.m[r.clone()], &from.l[r]);
            }
            state.normalise();
            #[allow(unsafe_code)]
            // SAFETY: each (row, key/value head) writes its own range.
            let o = unsafe { shared.slice(row * heads * d + kv * group * d, group * d) };
            o.iter_mut().zip(state.o.iter()).for_each(|(o, &x)| *o = T::down(x));
        }
    };
    if rows * heads * d < cpu::PIECE {
        (0..rows).for_each(merge);
    } else {
        (0..rows).into_par_iter().with_min_len((cpu::PIECE / (heads * d)).max(1)).for_each(merge);
    }
}

fn attend(
    isa: Isa,
    task: &Task<'_>,
    query: &[f32],
    (layer, kv, d, group): (usize, usize, usize, usize),
) -> Online {
    let len = task.run.len(layer);
    let mut state = Online::new(task.queries.len() * group, d);
    for from in (0..len).step_by(KEYS) {
        let count = (len - from).min(KEYS);
        let block = KeyBlock {
            panels: task.run.panels(layer, kv, from),
            values: task.run.values(layer, kv, from),
            count,
        };
        let seen = |r: usize| match task.before {
            None => count,
            Some(before) => (before + task.queries[r / group].offset + 1).saturating_sub(from),
        };
        state.step(Form::single(isa), query, block, seen);
    }
    state
}
