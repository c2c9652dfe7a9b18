//! Knock-out tournaments among k samples, judged pair by pair. Exact over all subsets of k samples and all brackets.
//!
//! A bracket of a set S is two brackets of its halves and a final. With W(S, i) the probability that i wins a random
//! bracket of S: `W(S, i) = mean over halvings (A, B), i in A, of W(A, i) sum_{j in B} W(B, j) P(i beats j)`.

use super::{StatsError, check_values, choose, domain};

/// Most samples per item: the table has a row per subset.
pub const MAX_TOURNAMENT: usize = 16;

/// Expected credit of the winner of a random bracket of `k` (a power of two) of the samples. `beats[i][j]` is the
/// probability that i is preferred to j, so `beats[i][j] + beats[j][i] = 1`.
pub fn tournament_at_k(credits: &[f64], beats: &[Vec<f64>], k: usize) -> Result<f64, StatsError> {
    const WHAT: &str = "tournament@k";
    let n = credits.len();
    check_values(WHAT, credits)?;
    if !k.is_power_of_two() || k > n || n > MAX_TOURNAMENT {
        let why = format!("k = {k} of n = {n}; k must be a power of two, and k <= n <= {MAX_TOURNAMENT}");
        return Err(domain(WHAT, why));
    }
    if beats.len() != n || beats.iter().any(|row| row.len() != n) {
        return Err(domain(WHAT, format!("the table of preferences must have {n} rows of {n}")));
    }
    for i in 0..n {
        for j in 0..i {
            if !(0.0..=1.0).contains(&beats[i][j]) || (beats[i][j] + beats[j][i] - 1.0).abs() > 1e-9 {
                let (p, q) = (beats[i][j], beats[j][i]);
                return Err(domain(
                    WHAT,
                    format!("P({i} beats {j}) = {p} and P({j} beats {i}) = {q} do not add to 1"),
                ));
            }
        }
    }
    let mut wins: Vec<Option<Vec<f64>>> = vec![None; 1 << n];
    let mut total = 0.0;
    for set in 0..1usize << n {
        if set.count_ones() as usize == k {
            total += credits.iter().zip(winner(set, beats, &mut wins)).map(|(c, w)| c * w).sum::<f64>();
        }
    }
    Ok(total / choose(n, k))
}

/// Probability of each sample to win a random bracket of `set`; filled in on first need.
fn winner(set: usize, beats: &[Vec<f64>], wins: &mut Vec<Option<Vec<f64>>>) -> Vec<f64> {
    if let Some(known) = &wins[set] {
        return known.clone();
    }
    let n = beats.len();
    let mut result = vec![0.0; n];
    let size = set.count_ones();
    if size == 1 {
        result[set.trailing_zeros() as usize] = 1.0;
    } else {
        let lowest = set & set.wrapping_neg();
        let rest = set ^ lowest;
        let mut halvings = 0.0;
        // All subsets of the rest; with the lowest member they make the first half, each halving once.
        let mut part = rest;
        loop {
            let (a, b) = (part | lowest, set ^ (part | lowest));
            if a.count_ones() * 2 == size {
                let (of_a, of_b) = (winner(a, beats, wins), winner(b, beats, wins));
                for i in (0..n).filter(|i| a >> i & 1 == 1) {
                    for j in (0..n).filter(|j| b >> j & 1 == 1) {
                        let meet = of_a[i] * of_b[j];
                        result[i] += meet * beats[i][j];
                        result[j] += meet * beats[j][i];
                    }
                }
                halvings += 1.0;
            }
            if part == 0 {
                break;
            }
            part = (part - 1) & rest;
        }
        result.iter_mut().for_each(|w| *w /= halvings);
    }
    wins[set] = Some(result.clone());
    result
}
