//! Embedding lookup.
//!
//! ```text
//! y[i] = table[ids[i]]          ids [N]   table [V, D]   y [N, D]
//! dtable[v] = sum over i with ids[i] = v of dy[i]
//! ```

use crate::cpu;
use crate::error::{Result, TensorError, shape_error};
use crate::params::ParamId;
use crate::tape::{Tape, Var};
use crate::tensor::{Elem, Tensor, by_dtype};

/// Rows of `table` (shape `[V, D]`) by token id. The result has the parameters' compute type.
///
/// # Errors
/// An id is not below `V`; the table is not a matrix.
pub fn embedding(tape: &mut Tape<'_>, table: ParamId, ids: &[u32]) -> Result<Var> {
    const OP: &str = "embedding";
    let params = tape.params();
    let weight = params.get(table)?.compute();
    let &[vocab, d] = weight.shape() else {
        return shape_error(OP, format!("the table is [V, D], not {:?}", weight.shape()));
    };
    if let Some((at, &id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= vocab) {
        return Err(TensorError::Index { op: OP, index: id as usize, at, limit: vocab });
    }
    let mut y = Tensor::uninit(&[ids.len(), d], params.compute_dtype());
    by_dtype!(weight.dtype(), W => by_dtype!(y.dtype(), Y => {
        let w = weight.slice::<W>();
        cpu::par_rows(y.fresh::<Y>(), d, #[inline(always)] |first, rows| {
            for (row, &id) in rows.chunks_exact_mut(d).zip(&ids[first..]) {
                for (o, x) in row.iter_mut().zip(&w[id as usize * d..][..d]) {
                    *o = Y::down(x.up());
                }
            }
        });
    }));
    if !tape.wants(table)? {
        return Ok(tape.constant(y));
    }
    let ids = ids.to_vec();
    Ok(tape.record(y, move |dy, back| {
        let g = back.grads.accumulate_zeroed(table, &[vocab, d]);
        by_dtype!(dy.dtype(), T => super::rows::scatter_add(g, d, dy.slice::<T>(), |i| ids[i] as usize));
        Ok(())
    }))
}
