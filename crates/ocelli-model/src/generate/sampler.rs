//! One token from a row of logits.
//!
//! ```text
//! z = penalise(logits) / temperature;  p = softmax(z);  keep top k, then top p, then min p;  p renormalised over the kept
//! ```
//! The order is that of the reference (`generation/logits_process.py`). Ties go to the lower id.

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Sampling;
use crate::ModelError;

/// A sampled token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub id: u32,
    /// Its log-probability under the distribution that it was sampled from.
    pub logprob: f32,
    /// Its log-probability under the softmax of the untouched logits.
    pub raw_logprob: f32,
}

/// The random numbers and the memory of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    rng: ChaCha8Rng,
    /// Ids in the context; empty until a penalty asks for it.
    seen: HashSet<u32>,
}

impl Sampler {
    /// Random numbers from `seed`; sequences of one group take different `stream`s.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { rng, seen: HashSet::new() }
    }

    /// Other random numbers for the draws to come; what the penalty remembers stays.
    pub fn reseed(&mut self, seed: u64, stream: u64) {
        self.rng = ChaCha8Rng::seed_from_u64(seed);
        self.rng.set_stream(stream);
    }

    /// Tells the repetition penalty what is in the context.
    pub fn see(&mut self, ids: &[u32]) {
        self.seen.extend(ids);
    }

    /// Chooses from `logits [V]`, with one random number per call unless greedy.
    ///
    /// # Errors
    /// A logit is not a number, or all are minus infinity.
    pub fn choose(&mut self, logits: &[f32], s: &Sampling) -> Result<Choice, ModelError> {
        let raw = LogSum::of(logits.iter().copied())?;
        let penalised;
        let z: &[f32] = if s.repetition_penalty == 1.0 || self.seen.is_empty() {
            logits
        } else {
            penalised = self.penalise(logits, s.repetition_penalty);
            &penalised
        };
        let (id, logprob) = if s.temperature == 0.0 {
            let id = argmax(z);
            let lse = if std::ptr::eq(z, logits) { raw } else { LogSum::of(z.iter().copied())? };
            (id, lse.logprob(z[id]))
        } else {
            self.draw(z, s)?
        };
        self.seen.insert(id as u32);
        Ok(Choice { id: id as u32, logprob, raw_logprob: raw.logprob(logits[id]) })
    }

    fn penalise(&self, logits: &[f32], penalty: f32) -> Vec<f32> {
        let mut z = logits.to_vec();
        for &id in &self.seen {
            if let Some(x) = z.get_mut(id as usize) {
                *x = if *x > 0.0 { *x / penalty } else { *x * penalty };
            }
        }
        z
    }

    fn draw(&mut self, z: &[f32], s: &Sampling) -> Result<(usize, f32), ModelError> {
        let uniform: f64 = self.rng.random();
        let inverse = 1.0 / s.temperature;
        let lse = LogSum::of(z.iter().map(|x| x * inverse))?;
        let kept = keep(z, s, lse);
        let (pick, lse) = match &kept {
            None => (walk(z.iter().map(|x| x * inverse), lse, uniform), lse),
            Some(kept) => {
                let lse = LogSum::of(kept.iter().map(|&i| z[i as usize] * inverse))?;
                let at = walk(kept.iter().map(|&i| z[i as usize] * inverse), lse, uniform);
                (kept[at] as usize, lse)
            }
        };
        Ok((pick, lse.logprob(z[pick] * inverse)))
    }
}

/// Ids that the filters keep, most likely first; `None` when they keep all.
fn keep(z: &[f32], s: &Sampling, lse: LogSum) -> Option<Vec<u32>> {
    let (top_k, top_p, min_p) = (s.top_k > 0 && s.top_k < z.len(), s.top_p < 1.0, s.min_p > 0.0);
    if !(top_k || top_p || min_p) {
        return None;
    }
    let inverse = 1.0 / s.temperature;
    let logp = |i: u32| lse.logprob(z[i as usize] * inverse);
    let order = |a: &u32, b: &u32| z[*b as usize].total_cmp(&z[*a as usize]).then(a.cmp(b));
    // Tokens below (1 - top_p) / V have less than 1 - top_p together, so the nucleus never needs them; those below
    // min_p of the most likely one are cut anyway unless an earlier filter lowers nothing. Both spare the sorting.
    let n = z.len() as f32;
    let mut floor = f32::NEG_INFINITY;
    if top_p && !top_k {
        floor = floor.max(((1.0 - s.top_p) / n).ln());
    }
    if min_p {
        floor = floor.max(lse.max - lse.log_sum + s.min_p.ln());
    }
    let mut ids: Vec<u32> =
        (0..z.len() as u32).filter(|&i| logp(i) >= floor || z[i as usize] * inverse == lse.max).collect();
    if top_k && ids.len() > s.top_k {
        ids.select_nth_unstable_by(s.top_k - 1, order);
        ids.truncate(s.top_k);
    }
    ids.sort_unstable_by(order);
    if top_p {
        // Probabilities are relative to what top k has left, before min p is applied.
        let whole = match top_k {
            false => 1.0,
            true => top_mass(z, s, lse),
        };
        let mut mass = 0.0;
        let nucleus = ids.iter().position(|&i| {
            mass += f64::from(logp(i).exp());
            mass >= f64::from(s.top_p) * whole
        });
        ids.truncate(nucleus.map_or(ids.len(), |at| at + 1));
    }
    Some(ids)
}

/// Probability of the k most likely tokens.
fn top_mass(z: &[f32], s: &Sampling, lse: LogSum) -> f64 {
    let mut all: Vec<f32> = z.to_vec();
    all.select_nth_unstable_by(s.top_k - 1, |a, b| b.total_cmp(a));
    all[..s.top_k].iter().map(|&x| f64::from(lse.logprob(x / s.temperature).exp())).sum()
}

/// Index of the first entry at which the cumulated probability passes `uniform`.
fn walk(z: impl Iterator<Item = f32> + Clone, lse: LogSum, uniform: f64) -> usize {
    let target = uniform * lse.sum;
    let (mut sum, mut last) = (0.0f64, 0);
    for (i, x) in z.enumerate() {
        let p = f64::from((x - lse.max).exp());
        if p > 0.0 {
            last = i;
        }
        sum += p;
        if sum > target {
            return i;
        }
    }
    last
}

fn argmax(z: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in z.iter().enumerate() {
        if *x > z[best] {
            best = i;
        }
    }
    best
}

/// `max`, `sum exp(z - max)` and the logarithm of `sum exp(z)`.
#[derive(Clone, Copy)]
struct LogSum {
    max: f32,
    sum: f64,
    log_sum: f32,
}

impl LogSum {
    fn of(z: impl Iterator<Item = f32> + Clone) -> Result<Self, ModelError> {
        // `f32::max` drops a NaN; the sum below does not.
        let max = z.clone().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = z.map(|x| f64::from((x - max).exp())).sum();
        if !(max.is_finite() && sum.is_finite()) {
            let why = format!(
                "the logits of a position are not numbers (largest {max}, sum of exponentials {sum})"
            );
            return Err(ModelError::Request(why));
        }
        Ok(Self { max, sum, log_sum: max + sum.ln() as f32 })
    }

    fn logprob(&self, x: f32) -> f32 {
        x - self.log_sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logarithms of 0.5, 0.25, 0.125, 0.125 (shuffled: ids 2, 0, 1, 3).
    fn logits() -> Vec<f32> {
        [0.25f32, 0.125, 0.5, 0.125].map(f32::ln).to_vec()
    }

    fn counts(s: &Sampling) -> [usize; 4] {
        let mut n = [0; 4];
        for stream in 0..4000 {
            n[Sampler::new(1, stream).choose(&logits(), s).unwrap().id as usize] += 1;
        }
        n
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        // 4000 draws: standard deviations are 32, 27, 21, 21; five of them are allowed.
        for (n, p) in counts(&Sampling::default()).into_iter().zip([0.25, 0.125, 0.5, 0.125]) {
            let (mean, sd) = (4000.0 * p, (4000.0 * p * (1.0 - p) as f64).sqrt());
            assert!((n as f64 - mean).abs() < 5.0 * sd, "{n} of 4000 at probability {p}");
        }
    }

    #[test]
    fn filters_keep_what_they_should_and_renormalise() {
        let check = |s: Sampling, want: [f32; 4]| {
            let n = counts(&s);
            for id in 0..4 {
                assert_eq!(n[id] > 0, want[id] > 0.0, "{s:?}: {n:?}");
            }
            for stream in 0..20 {
                let c = Sampler::new(3, stream).choose(&logits(), &s).unwrap();
                assert!((c.logprob - want[c.id as usize].ln()).abs() < 1e-6, "{s:?}: {c:?}");
                assert!((c.raw_logprob - logits()[c.id as usize]).abs() < 1e-6);
            }
        };
        let base = Sampling::default;
        check(Sampling { top_k: 2, ..base() }, [1.0 / 3.0, 0.0, 2.0 / 3.0, 0.0]);
        check(Sampling { top_k: 3, ..base() }, [2.0 / 7.0, 1.0 / 7.0, 4.0 / 7.0, 0.0]); // the tie goes to id 1
        check(Sampling { top_p: 0.5, ..base() }, [0.0, 0.0, 1.0, 0.0]);
        check(Sampling { top_p: 0.7, ..base() }, [1.0 / 3.0, 0.0, 2.0 / 3.0, 0.0]);
        check(Sampling { min_p: 0.3, ..base() }, [1.0 / 3.0, 0.0, 2.0 / 3.0, 0.0]);
        // After top k = 2, the first token has 2/3 and alone suffices for 0.6.
        check(Sampling { top_k: 2, top_p: 0.6, ..base() }, [0.0, 0.0, 1.0, 0.0]);
        // Temperature 0.5 squares probabilities: 4, 1, 16, 1 of 22.
        check(Sampling { temperature: 0.5, ..base() }, [4.0 / 22.0, 1.0 / 22.0, 16.0 / 22.0, 1.0 / 22.0]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let c = Sampler::new(0, 0).choose(&[1.0, 3.0, 3.0, -1.0], &Sampling::greedy()).unwrap();
        assert_eq!(c.id, 1);
        // 1 / (2 + e^-2 + e^-4) = 0.464: hand calculation.
        assert!((c.logprob - (1.0f32 / (2.0 + (-2f32).exp() + (-4f32).exp())).ln()).abs() < 1e-6);
    }

    #[test]
    fn repetition_is_penalised_on_both_signs() {
        let s = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        let mut sampler = Sampler::new(0, 0);
        sampler.see(&[0]);
        assert_eq!(sampler.choose(&[3.0, 2.0, -1.0], &s).unwrap().id, 1); // 1.5, 2, -1
        assert_eq!(sampler.choose(&[3.0, 2.0, 1.2], &s).unwrap().id, 0); // 1.5, 1, 1.2
        let mut sampler = Sampler::new(0, 0);
        sampler.see(&[0]);
        assert_eq!(sampler.choose(&[-1.0, -1.5], &s).unwrap().id, 1); // -2, -1.5
    }

    #[test]
    fn same_seed_and_stream_same_draws() {
        let draw = |seed, stream| {
            let mut s = Sampler::new(seed, stream);
            (0..50).map(|_| s.choose(&logits(), &Sampling::default()).unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn a_logit_that_is_no_number_is_an_error() {
        for bad in [vec![0.0, f32::NAN], vec![f32::NEG_INFINITY; 2], vec![f32::INFINITY, 0.0], vec![]] {
            assert!(Sampler::new(0, 0).choose(&bad, &Sampling::default()).is_err(), "{bad:?}");
        }
    }
}
