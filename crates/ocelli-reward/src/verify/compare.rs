//! Comparison of typed answers: which types may mean the same, and how their parts are matched.

use super::expr::Expr;
use super::identity::Decision;
use super::numeral::english;
use super::relation::{named_value, region};
use super::scalar::{Context, all};
use super::token::{Bracket, Relation};
use super::value::Value;
use super::{Outcome, text_rule};

impl Context<'_> {
    /// Compares two answers; `index` is the place of the gold answer in a list, for its tolerance.
    pub(crate) fn compare(&mut self, gold: &Value, answer: &Value, index: usize) -> Decision {
        use Value::{List, Matrix, Ratio, Scalar, Sequence, Set, SetOperation, Text, Tuple, Union};
        if matches!(answer, Value::Relation { .. }) && !self.is_consistent(answer) {
            return Decision::of(false, "contradiction").noted("the answer equates different numbers");
        }
        match (gold, answer) {
            (Scalar(g), Scalar(a)) => self.scalars(g, a, index),
            (Text(g), Text(a)) => text_rule::compare(g, a),
            (Text(t), other) | (other, Text(t)) => self.text_with(t, other, matches!(gold, Text(_)), index),
            (Value::Relation { .. }, Value::Relation { .. }) => self.relations(gold, answer, index),
            (Value::Relation { .. }, other) => match named_value(gold) {
                Some(value) => self.compare(value, other, index),
                None => self.regions(gold, other),
            },
            (other, Value::Relation { .. }) => match named_value(answer) {
                Some(value) => self.compare(other, value, index),
                None => self.regions(other, answer),
            },
            (Union(_) | SetOperation { .. }, _) | (_, Union(_) | SetOperation { .. }) => {
                self.regions(gold, answer)
            }
            (Tuple { .. }, Tuple { .. }) => self.tuples(gold, answer),
            (Sequence(g), Sequence(a)) => self.ordered(g, a, "sequence"),
            (Sequence(g), List(a)) | (List(g), Sequence(a)) => self.ordered(g, a, "sequence"),
            (List(g), List(a)) if self.policy.ordered_lists => self.ordered(g, a, "list"),
            (List(g), List(a)) => self.unordered(g, a, "list"),
            (Set(g), Set(a)) => {
                let (g, a) = (self.distinct(g), self.distinct(a));
                self.unordered(&g, &a, "set")
            }
            (Set(g), List(a)) | (List(g), Set(a)) => {
                self.unordered(g, a, "set").noted("braces on one side only")
            }
            (Set(items), other) | (other, Set(items)) if items.len() == 1 => {
                let braces = "a set of one element";
                let gold_is_set = matches!(gold, Set(_));
                let d = if gold_is_set {
                    self.compare(&items[0], other, index)
                } else {
                    self.compare(other, &items[0], index)
                };
                d.noted(braces)
            }
            (Tuple { open: Bracket::Round, items: g, .. }, List(a) | Sequence(a))
            | (List(g) | Sequence(g), Tuple { open: Bracket::Round, items: a, .. }) => {
                let d = self.ordered(g, a, "tuple");
                if d.is_equal() { d.noted("brackets on one side only") } else { d }
            }
            (Matrix(g), Matrix(a)) => self.matrices(g, a),
            // `[[1, 2], [3, 4]]`, and `{{1, 2}, {3, 4}}` of some programs.
            (Matrix(g), Tuple { items, .. } | Set(items)) if let Some(a) = nested_rows(items) => {
                self.matrices(g, &a)
            }
            (Tuple { items, .. } | Set(items), Matrix(a)) if let Some(g) = nested_rows(items) => {
                self.matrices(&g, a)
            }
            (Matrix(rows), Tuple { items, .. }) | (Tuple { items, .. }, Matrix(rows)) => {
                let flat: Vec<Value> = rows.iter().flatten().cloned().map(Value::expr).collect();
                if rows.len() > 1 && rows.iter().any(|r| r.len() > 1) {
                    return Decision::of(false, "matrix");
                }
                let matrix_is_gold = matches!(gold, Matrix(_));
                let (g, a) = if matrix_is_gold { (&flat, items) } else { (items, &flat) };
                self.ordered(g, a, "vector")
            }
            (Ratio { parts: g, clock: gc }, Ratio { parts: a, clock: ac }) => {
                self.ratios(g, gc.as_deref(), a, ac.as_deref())
            }
            (Ratio { parts, clock }, Scalar(s)) | (Scalar(s), Ratio { parts, clock }) => {
                let [top, bottom] = &parts[..] else { return Decision::of(false, "ratio") };
                if clock.is_some() && parts.iter().any(Expr::is_zero) {
                    return Decision::of(false, "time");
                }
                let d = self.exprs(&top.clone().over(bottom.clone()), &s.expr);
                if d.is_equal() {
                    d.noted("a ratio read as a quotient")
                } else {
                    Decision { rule: "ratio", ..d }
                }
            }
            _ => Decision::of(false, "type").noted(&format!("{} against {}", gold.kind(), answer.kind())),
        }
    }

    fn text_with(&mut self, text: &str, other: &Value, text_is_gold: bool, index: usize) -> Decision {
        if let Some(n) = english(text) {
            let word = Value::expr(Expr::Number(n));
            let d = if text_is_gold {
                self.compare(&word, other, index)
            } else {
                self.compare(other, &word, index)
            };
            return d.noted("a number in words");
        }
        // A short text without a digit names something; it is no number.
        let short = text.split_whitespace().count() <= 3 && !text.contains(|c: char| c.is_ascii_digit());
        let mathematical = !matches!(other, Value::Scalar(s) if s.expr.has_symbols());
        if short && mathematical {
            return Decision::of(false, "type").noted(&format!("a text against {}", other.kind()));
        }
        Decision::unknown("text", "one side is prose that no rule reads")
    }

    fn ordered(&mut self, gold: &[Value], answer: &[Value], rule: &'static str) -> Decision {
        if gold.len() != answer.len() {
            return Decision::of(false, rule).noted("not the same number of elements");
        }
        let decisions: Vec<Decision> =
            gold.iter().zip(answer).enumerate().map(|(i, (g, a))| self.compare(g, a, i)).collect();
        all(decisions.into_iter(), rule)
    }

    /// Elements that differ from all before them.
    fn distinct(&mut self, items: &[Value]) -> Vec<Value> {
        let mut kept: Vec<Value> = Vec::new();
        for item in items {
            if !kept.iter().any(|k| self.compare(k, item, 0).is_equal()) {
                kept.push(item.clone());
            }
        }
        kept
    }

    /// Matches the elements one to one, by augmenting paths.
    fn unordered(&mut self, gold: &[Value], answer: &[Value], rule: &'static str) -> Decision {
        if gold.len() != answer.len() {
            return Decision::of(false, rule).noted("not the same number of elements");
        }
        let n = gold.len();
        // In order first: most answers keep the order of the gold.
        let mut table: Vec<Option<Outcome>> = vec![None; n * n];
        let mut outcome = |cx: &mut Self, i: usize, j: usize| match table[i * n + j] {
            Some(o) => o,
            None => {
                let o = cx.compare(&gold[i], &answer[j], i).outcome;
                table[i * n + j] = Some(o);
                o
            }
        };
        if (0..n).all(|i| outcome(self, i, i) == Outcome::Equal) {
            return Decision::of(true, rule);
        }
        for (wanted, verdict) in [(false, Outcome::Equal), (true, Outcome::Unknown)] {
            let fits = |cx: &mut Self, i, j| match outcome(cx, i, j) {
                Outcome::Equal => true,
                Outcome::Unknown => wanted,
                Outcome::Different => false,
            };
            if self.matches_all(n, fits) {
                return match verdict {
                    Outcome::Equal => Decision::of(true, rule).noted("in another order"),
                    _ => Decision::unknown(rule, "some elements could not be compared"),
                };
            }
        }
        Decision::of(false, rule)
    }

    fn matches_all(&mut self, n: usize, mut fits: impl FnMut(&mut Self, usize, usize) -> bool) -> bool {
        let mut owner: Vec<Option<usize>> = vec![None; n];
        for start in 0..n {
            // Breadth-first search for a free answer element.
            let mut from: Vec<Option<usize>> = vec![None; n];
            let mut queue = std::collections::VecDeque::from([start]);
            let mut free = None;
            'search: while let Some(i) = queue.pop_front() {
                for j in 0..n {
                    if from[j].is_none() && fits(self, i, j) {
                        from[j] = Some(i);
                        match owner[j] {
                            Some(next) => queue.push_back(next),
                            None => {
                                free = Some(j);
                                break 'search;
                            }
                        }
                    }
                }
            }
            let Some(mut j) = free else { return false };
            while let Some(i) = from[j] {
                let before = owner.iter().position(|o| *o == Some(i));
                owner[j] = Some(i);
                match before {
                    Some(previous) if i != start => j = previous,
                    _ => break,
                }
            }
        }
        true
    }

    fn tuples(&mut self, gold: &Value, answer: &Value) -> Decision {
        let (Value::Tuple { open: go, close: gc, items: g }, Value::Tuple { open: ao, close: ac, items: a }) =
            (gold, answer)
        else {
            return Decision::unknown("tuple", "no tuples");
        };
        if (go, gc) != (ao, ac) && g.len() == a.len() {
            let vector = |open: &Bracket, close: &Bracket| {
                matches!((open, close), (Bracket::Angle, Bracket::Angle))
                    || g.len() != 2 && matches!((open, close), (Bracket::Square, Bracket::Square))
            };
            let round = |open: &Bracket, close: &Bracket| (*open, *close) == (Bracket::Round, Bracket::Round);
            let vectors = (vector(go, gc) || round(go, gc)) && (vector(ao, ac) || round(ao, ac));
            if !vectors {
                // A bracket at infinity says nothing.
                let d = self.regions(gold, answer);
                return if d.is_equal() {
                    d
                } else {
                    Decision::of(false, "interval").noted("other brackets")
                };
            }
        }
        self.ordered(g, a, "tuple")
    }

    fn matrices(&mut self, gold: &[Vec<Expr>], answer: &[Vec<Expr>]) -> Decision {
        let shape = |m: &[Vec<Expr>]| m.iter().map(Vec::len).collect::<Vec<_>>();
        if shape(gold) != shape(answer) {
            let column = |m: &[Vec<Expr>]| m.len() == 1 || m.iter().all(|r| r.len() == 1);
            let flat = |m: &[Vec<Expr>]| m.iter().flatten().cloned().collect::<Vec<_>>();
            let (g, a) = (flat(gold), flat(answer));
            if !(column(gold) && column(answer) && g.len() == a.len()) {
                return Decision::of(false, "matrix").noted("other shapes");
            }
            return self.cells(&g, &a).noted("a row against a column");
        }
        let (g, a): (Vec<Expr>, Vec<Expr>) =
            (gold.iter().flatten().cloned().collect(), answer.iter().flatten().cloned().collect());
        self.cells(&g, &a)
    }

    fn cells(&mut self, gold: &[Expr], answer: &[Expr]) -> Decision {
        let decisions: Vec<Decision> = gold.iter().zip(answer).map(|(g, a)| self.exprs(g, a)).collect();
        all(decisions.into_iter(), "matrix")
    }

    fn ratios(
        &mut self,
        gold: &[Expr],
        gold_clock: Option<&[i64]>,
        answer: &[Expr],
        answer_clock: Option<&[i64]>,
    ) -> Decision {
        if gold == answer {
            return Decision::of(true, "ratio");
        }
        if gold.len() != answer.len() {
            return Decision::of(false, "ratio").noted("not the same number of parts");
        }
        let zero = gold.iter().chain(answer).any(Expr::is_zero);
        let times = gold_clock.is_some() && answer_clock.is_some();
        if zero {
            return Decision::of(times && gold_clock == answer_clock, "time");
        }
        // a0 : a1 = b0 : b1 exactly when a1 b0 = a0 b1.
        let decisions: Vec<Decision> = (1..gold.len())
            .map(|i| {
                self.exprs(
                    &gold[i].clone().times(answer[0].clone()),
                    &answer[i].clone().times(gold[0].clone()),
                )
            })
            .collect();
        let d = all(decisions.into_iter(), "ratio");
        if d.is_equal() && times && gold_clock != answer_clock {
            return Decision::unknown("ratio", "equal as ratios, different as times of day");
        }
        d
    }

    /// Compares two sets of real numbers.
    pub(crate) fn regions(&mut self, gold: &Value, answer: &Value) -> Decision {
        let (Some(g), Some(a)) = (region(gold, self), region(answer, self)) else {
            let equation =
                |v: &Value| matches!(v, Value::Relation { ops, .. } if ops.contains(&Relation::Equal));
            if equation(gold) || equation(answer) {
                return Decision::unknown("relation", "an equation that is not solved for a name");
            }
            let plain = |v: &Value| matches!(v, Value::Scalar(_));
            if plain(gold) || plain(answer) {
                return Decision::of(false, "type").noted(&format!(
                    "{} against {}",
                    gold.kind(),
                    answer.kind()
                ));
            }
            return Decision::unknown("region", "not read as a set of real numbers");
        };
        self.same_region(&g, &a)
    }
}

/// Rows of a matrix written as a list of lists of expressions, all of one length.
fn nested_rows(items: &[Value]) -> Option<Vec<Vec<Expr>>> {
    let row = |item: &Value| match item {
        Value::Tuple { items, .. } | Value::Set(items) => {
            items.iter().map(|cell| cell.as_expr().cloned()).collect::<Option<Vec<Expr>>>()
        }
        _ => None,
    };
    let rows: Vec<Vec<Expr>> = items.iter().map(row).collect::<Option<_>>()?;
    let width = rows.first()?.len();
    (width > 0 && rows.iter().all(|r| r.len() == width)).then_some(rows)
}
