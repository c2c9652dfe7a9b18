//! What the loss of a step is divided by.
//!
//! ```text
//! B G   places of a step, one for each response that was rolled out:  B G = f + i + m
//! f     fresh responses with an advantage
//! i     idle ones: no advantage (uninformative group, reward at the mean, failed rollout)
//! m     masked ones (a limit cut them off, and `truncated = "mask"`)
//! r     replayed responses; the buffer draws at most B G - f
//!
//! policy term           responses            tokens
//!   count all           f + max(i, r)        T_f + T_r + T_i max(i - r, 0) / i
//!   count informative   f + r'               T_f + T_r'                          r': replays whose advantage is not zero
//! KL and entropy        all that go through the model, whatever `count` is
//! ```
//!
//! A replay takes the place of an idle response, which then no longer counts; idle ones that nobody replaced do. So the
//! divisor is `B G` at every fill of the buffer, unless responses are masked: those have no place, and a replay that finds no
//! idle response takes the place of a masked one, which counts again with it. It is never more than `B G`.
//!
//! Which idle response a replay stands in for is not defined, and the reductions over tokens must not depend on it: the idle
//! ones that are left count with the mean length of all idle ones. A replay that drifted too far to be trained keeps its
//! place.
//!
//! KL and entropy are means over the responses for which they are computed: the fresh ones that the policy ended and that are
//! not masked, and the replays. They have their denominators also in a step without any advantage.

use super::Count;
use crate::losses::Divisors;

/// Divisors of the policy term, from the numbers and tokens of the three kinds; see the table at the top. `replayed` holds
/// those that `count` counts.
pub(super) fn policy(count: Count, informative: Divisors, idle: Divisors, replayed: Divisors) -> Divisors {
    let left = match count {
        Count::All => (idle.responses - replayed.responses).max(0.0),
        Count::Informative => 0.0,
    };
    let mean = if idle.responses > 0.0 { idle.tokens / idle.responses } else { 0.0 };
    Divisors {
        responses: informative.responses + replayed.responses + left,
        tokens: informative.tokens + replayed.tokens + left * mean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` responses of four tokens.
    fn fours(n: usize) -> Divisors {
        Divisors::of(vec![4; n])
    }

    #[test]
    fn the_divisor_is_constant_whatever_the_fill() {
        // B G = 16. Full: 8 fresh + 8 replayed, 4 + 12, 12 + 4. Not full: 4 fresh, 12 idle, 5 replayed. Empty: none.
        for (fresh, replayed) in [(8, 8), (4, 12), (12, 4), (4, 5), (4, 0), (16, 0), (0, 16)] {
            let found = policy(Count::All, fours(fresh), fours(16 - fresh), fours(replayed));
            assert_eq!(found, Divisors { responses: 16.0, tokens: 64.0 }, "{fresh} {replayed}");
            let found = policy(Count::Informative, fours(fresh), fours(16 - fresh), fours(replayed));
            let n = (fresh + replayed) as f64;
            assert_eq!(found, Divisors { responses: n, tokens: 4.0 * n });
        }
    }

    #[test]
    fn tokens_of_replaced_responses_do_not_count() {
        // Idle: 10, 2 and 6 tokens, mean 6. One replay of 3 tokens leaves two of them: 5 + 3 + 2 * 6.
        let (fresh, idle) = (Divisors::of([5]), Divisors::of([10, 2, 6]));
        let found = policy(Count::All, fresh, idle, Divisors::of([3]));
        assert_eq!(found, Divisors { responses: 4.0, tokens: 20.0 });
        // All three replaced, by 3, 4 and 1 tokens: none of the 18 is left.
        let found = policy(Count::All, fresh, idle, Divisors::of([3, 4, 1]));
        assert_eq!(found, Divisors { responses: 4.0, tokens: 13.0 });
        let found = policy(Count::All, fresh, idle, Divisors::default());
        assert_eq!(found, Divisors { responses: 4.0, tokens: 23.0 });
    }

    #[test]
    fn masked_responses_have_no_place_until_a_replay_takes_it() {
        // B G = 8: 3 fresh, 2 idle, 3 masked.
        for (replayed, expected) in [(0, 5.0), (2, 5.0), (4, 7.0), (5, 8.0)] {
            let found = policy(Count::All, fours(3), fours(2), fours(replayed));
            assert_eq!((found.responses, found.tokens), (expected, 4.0 * expected), "{replayed}");
        }
    }
}
