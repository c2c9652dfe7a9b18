//! Equations, assignments, and sets of real numbers given by inequalities or intervals.

use std::cmp::Ordering;

use super::Outcome;
use super::answer::flipped;
use super::evaluate::{Precision, enclose, residue};
use super::expr::{Expr, SymbolId};
use super::identity::{Decision, Points};
use super::scalar::Context;
use super::token::{Bracket, Relation};
use super::value::Value;
use crate::number::Stop;
use crate::number::residue::FIELDS;

/// Whether a side only names what the other side says: `x`, `f(x)`, `AB`, `\angle ABC`, `(x, y)`.
fn is_name(value: &Value) -> bool {
    match value {
        Value::Tuple { items, .. } => items.iter().all(is_name),
        Value::Text(_) => true,
        _ => value.as_expr().is_some_and(is_named),
    }
}

fn is_named(e: &Expr) -> bool {
    match e {
        Expr::Symbol(_) => true,
        Expr::Opaque(_, args) => args.iter().all(|a| matches!(a, Expr::Symbol(_))),
        // The letters of a segment or a polygon.
        Expr::Product(factors) => factors.iter().all(|f| matches!(f, Expr::Symbol(_))),
        _ => false,
    }
}

fn has_symbols(value: &Value) -> bool {
    match value {
        Value::Scalar(s) => s.expr.has_symbols(),
        _ => true,
    }
}

/// Name and value of `x = 5`, `5 = x`, `x \in S`, `x = 2 + 3 = 5`, or of a chain of numbers, which has no name.
pub(crate) fn assignment(value: &Value) -> Option<(Option<&Value>, &Value)> {
    let Value::Relation { sides, ops } = value else { return None };
    if let ([name, set], [Relation::In]) = (&sides[..], &ops[..]) {
        return Some((Some(name), set));
    }
    if !ops.iter().all(is_equation) {
        return None;
    }
    let (first, last) = (sides.first()?, sides.last()?);
    let product = |v: &Value| matches!(v.as_expr(), Some(Expr::Product(_)));
    if is_name(first) && !(product(first) && sides.len() == 2 && has_symbols(last)) {
        return Some((Some(first), last));
    }
    if sides.len() == 2 && is_name(last) && !product(last) {
        return Some((Some(last), first));
    }
    sides.iter().all(|s| !has_symbols(s)).then_some((None, last))
}

/// As [`assignment`], for a relation whose other side is no relation: `\Delta p = v` names `v` too, when the symbols of
/// the product do not occur in it.
pub(crate) fn named_value(value: &Value) -> Option<&Value> {
    if let Some((_, v)) = assignment(value) {
        return Some(v);
    }
    let Value::Relation { sides, ops } = value else { return None };
    // `\pi r^2 = \pi 5^2 = 25\pi` ends with its value.
    if sides.len() > 2 && ops.iter().all(is_equation) {
        return sides.last().filter(|last| !has_symbols(last));
    }
    let ([name, v], [Relation::Equal | Relation::Approx]) = (&sides[..], &ops[..]) else { return None };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    name.as_expr().filter(|e| is_named(e))?.symbols(&mut ours);
    match v {
        Value::Scalar(s) => s.expr.symbols(&mut theirs),
        _ => return None,
    }
    ours.iter().all(|s| !theirs.contains(s)).then_some(v)
}

/// `=` or `\approx`.
fn is_equation(op: &Relation) -> bool {
    matches!(op, Relation::Equal | Relation::Approx)
}

/// One end of an interval.
#[derive(Clone, Debug)]
pub(crate) struct End {
    at: Expr,
    closed: bool,
}

/// Pieces of a set of reals, and the variable that ranges over it.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    name: Option<Expr>,
    pieces: Vec<(End, End)>,
}

fn infinite(e: &Expr) -> bool {
    *e == Expr::Infinity || e.is_minus_infinity()
}

fn lowest() -> End {
    End { at: Expr::Infinity.negated(), closed: false }
}

fn highest() -> End {
    End { at: Expr::Infinity, closed: false }
}

/// Reads a set of real numbers.
pub(crate) fn region(value: &Value, cx: &mut Context<'_>) -> Option<Region> {
    let unnamed = |pieces| Some(Region { name: None, pieces });
    match value {
        Value::Tuple { open, close, items } => {
            let [low, high] = &items[..] else { return None };
            let closed = |b: &Bracket| match b {
                Bracket::Square => Some(true),
                Bracket::Round => Some(false),
                _ => None,
            };
            let (low, high) = (low.as_expr()?.clone(), high.as_expr()?.clone());
            let low = End { closed: closed(open)? && !infinite(&low), at: low };
            let high = End { closed: closed(close)? && !infinite(&high), at: high };
            unnamed(vec![(low, high)])
        }
        Value::Set(items) => {
            let point = |v: &Value| v.as_expr().map(|e| End { at: e.clone(), closed: true });
            unnamed(items.iter().map(|v| point(v).map(|p| (p.clone(), p))).collect::<Option<_>>()?)
        }
        Value::Union(parts) => {
            let mut pieces = Vec::new();
            for part in parts {
                pieces.extend(region(part, cx)?.pieces);
            }
            unnamed(pieces)
        }
        Value::SetOperation { difference: true, sets } => {
            let whole = match &sets.0 {
                Value::Scalar(s) => matches!(&s.expr, Expr::Symbol(id) if cx.names.name(*id) == "R"),
                other => region(other, cx)?.pieces.iter().all(|(l, h)| infinite(&l.at) && infinite(&h.at)),
            };
            let points = region(&sets.1, cx)?;
            if whole {
                without_points(points.pieces, cx).map(|pieces| Region { name: None, pieces })
            } else {
                None
            }
        }
        Value::Scalar(s) if matches!(&s.expr, Expr::Symbol(id) if cx.names.name(*id) == "R") => {
            unnamed(vec![(lowest(), highest())])
        }
        Value::Relation { sides, ops } => inequality(sides, ops, cx),
        Value::List(parts) => {
            let regions: Vec<Region> = parts.iter().map(|p| region(p, cx)).collect::<Option<_>>()?;
            joined(regions, cx)
        }
        _ => None,
    }
}

fn without_points(points: Vec<(End, End)>, cx: &mut Context<'_>) -> Option<Vec<(End, End)>> {
    let mut at: Vec<Expr> = points.into_iter().map(|p| p.0.at).collect();
    sort(&mut at, |e| e, cx)?;
    let mut pieces = Vec::new();
    let mut low = lowest();
    for e in at {
        pieces.push((low, End { at: e.clone(), closed: false }));
        low = End { at: e, closed: false };
    }
    pieces.push((low, highest()));
    Some(pieces)
}

/// `x < 2`, `-1 <= x < 3`, `> 4`, `x \ne 3`.
fn inequality(sides: &[Value], ops: &[Relation], cx: &mut Context<'_>) -> Option<Region> {
    let name = |v: &Value| matches!(v, Value::Blank) || v.as_expr().is_some_and(is_named);
    let middle = sides.iter().position(name)?;
    let named = sides[middle].as_expr().cloned();
    let end = |v: &Value, op: Relation| -> Option<End> {
        let at = match v {
            Value::Scalar(s) => s.expr.clone(),
            _ => return None,
        };
        (!at.has_symbols())
            .then_some(End { at, closed: matches!(op, Relation::LessEqual | Relation::GreaterEqual) })
    };
    let up = |op: Relation| matches!(op, Relation::Less | Relation::LessEqual);
    let down = |op: Relation| matches!(op, Relation::Greater | Relation::GreaterEqual);
    let piece = match (sides.len(), middle, ops) {
        (2, _, [op]) => {
            let (op, other) = if middle == 0 { (*op, &sides[1]) } else { (flipped(*op), &sides[0]) };
            match op {
                Relation::NotEqual => {
                    let point = end(other, op)?;
                    let pieces = without_points(vec![(point.clone(), point)], cx)?;
                    return Some(Region { name: named, pieces });
                }
                op if up(op) => (lowest(), end(other, op)?),
                op if down(op) => (end(other, op)?, highest()),
                _ => return None,
            }
        }
        (3, 1, [a, b]) if up(*a) && up(*b) => (end(&sides[0], *a)?, end(&sides[2], *b)?),
        (3, 1, [a, b]) if down(*a) && down(*b) => (end(&sides[2], *b)?, end(&sides[0], *a)?),
        _ => return None,
    };
    Some(Region { name: named, pieces: vec![piece] })
}

/// Several conditions: alternatives where they exclude each other (`x<1, x>5`), else both (`x>1, x<5`).
fn joined(regions: Vec<Region>, cx: &mut Context<'_>) -> Option<Region> {
    let name = regions.first()?.name.clone();
    if regions.iter().any(|r| r.name != name) {
        return None;
    }
    if let [a, b] = &regions[..]
        && let ([(al, ah)], [(bl, bh)]) = (&a.pieces[..], &b.pieces[..])
    {
        let opposed = |low: &End, high: &End| !infinite(&low.at) && !infinite(&high.at);
        if infinite(&ah.at)
            && infinite(&bl.at)
            && opposed(al, bh)
            && cx.order(&al.at, &bh.at) == Some(Ordering::Less)
        {
            return Some(Region { name, pieces: vec![(al.clone(), bh.clone())] });
        }
        if infinite(&al.at)
            && infinite(&bh.at)
            && opposed(bl, ah)
            && cx.order(&bl.at, &ah.at) == Some(Ordering::Less)
        {
            return Some(Region { name, pieces: vec![(bl.clone(), ah.clone())] });
        }
    }
    Some(Region { name, pieces: regions.into_iter().flat_map(|r| r.pieces).collect() })
}

/// Sorts by a symbol-free key; `None` where two keys cannot be ordered.
fn sort<T>(items: &mut [T], key: impl Fn(&T) -> &Expr, cx: &mut Context<'_>) -> Option<()> {
    for i in 1..items.len() {
        let mut j = i;
        while j > 0 {
            let (a, b) = (key(&items[j - 1]), key(&items[j]));
            let order = match (infinite(a), infinite(b)) {
                _ if a == b => Ordering::Equal,
                (true, _) => {
                    if *a == Expr::Infinity {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
                }
                (_, true) => {
                    if *b == Expr::Infinity {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
                _ if a.has_symbols() || b.has_symbols() => Ordering::Equal,
                _ => cx.order(a, b).unwrap_or(Ordering::Equal),
            };
            if order != Ordering::Greater {
                break;
            }
            items.swap(j - 1, j);
            j -= 1;
        }
    }
    Some(())
}

impl Context<'_> {
    /// Compares two regions piece by piece.
    pub(crate) fn same_region(&mut self, gold: &Region, answer: &Region) -> Decision {
        if let (Some(g), Some(a)) = (&gold.name, &answer.name)
            && g != a
        {
            return Decision::of(false, "region").noted("another variable");
        }
        if gold.pieces.len() != answer.pieces.len() {
            return Decision::of(false, "region").noted("not the same number of pieces");
        }
        let (mut g, mut a) = (gold.pieces.clone(), answer.pieces.clone());
        if sort(&mut g, |p| &p.0.at, self).is_none() || sort(&mut a, |p| &p.0.at, self).is_none() {
            return Decision::unknown("region", "ends that cannot be ordered");
        }
        let mut result = Decision::of(true, "region");
        for ((gl, gh), (al, ah)) in g.iter().zip(&a) {
            for (x, y) in [(gl, al), (gh, ah)] {
                let d = self.exprs(&x.at, &y.at);
                match d.outcome {
                    Outcome::Different => return Decision { rule: "region", ..d },
                    Outcome::Unknown => result.outcome = Outcome::Unknown,
                    Outcome::Equal if x.closed != y.closed => {
                        return Decision::of(false, "region").noted("an end belongs to one set only");
                    }
                    Outcome::Equal => {}
                }
            }
        }
        result
    }

    /// False where a chain states that two different numbers are equal, such as `3 = 5`.
    pub(crate) fn is_consistent(&mut self, value: &Value) -> bool {
        let Value::Relation { sides, ops } = value else { return true };
        (0..ops.len()).all(|i| match (&ops[i], &sides[i], &sides[i + 1]) {
            (Relation::Equal, l @ Value::Scalar(_), r @ Value::Scalar(_))
                if !has_symbols(l) && !has_symbols(r) =>
            {
                self.compare(l, r, 0).outcome != Outcome::Different
            }
            _ => true,
        })
    }

    /// Compares two relations.
    pub(crate) fn relations(&mut self, gold: &Value, answer: &Value, index: usize) -> Decision {
        let (Value::Relation { sides: gs, ops: go }, Value::Relation { sides: sa, ops: ao }) = (gold, answer)
        else {
            return Decision::unknown("relation", "no relations");
        };
        if let (Some((gn, gv)), Some((an, av))) = (assignment(gold), assignment(answer))
            && self.same_name(gn, an)
        {
            let d = self.compare(gv, av, index);
            if d.is_equal() || gn.is_none() || an.is_none() {
                return d;
            }
            // Two equations solved for the same symbol differ when their values do.
            let free = |name: &Value, value: &Value| match (name.as_expr(), value.as_expr()) {
                (Some(n), Some(v)) => !v.any(&|e| e == n),
                _ => true,
            };
            if gn.is_some_and(|n| free(n, gv)) && an.is_some_and(|n| free(n, av)) {
                return d;
            }
        }
        let pair = |sides: &[Value]| match sides {
            [l, r] => Some((l.as_expr()?.clone(), r.as_expr()?.clone())),
            _ => None,
        };
        if let (Some((gl, gr)), Some((al, ar))) = (pair(gs), pair(sa)) {
            let (g_op, a_op) = (go[0], ao[0]);
            let equation = |op| matches!(op, Relation::Equal | Relation::Approx);
            if equation(g_op) && equation(a_op) {
                return self.equations(&gl.minus(gr), &al.minus(ar));
            }
            if equation(g_op) != equation(a_op) {
                return Decision::of(false, "relation").noted("other relations");
            }
        }
        if let (Some(g), Some(a)) = (region(gold, self), region(answer, self)) {
            return self.same_region(&g, &a);
        }
        self.as_written(gs, go, sa, ao)
    }

    fn same_name(&mut self, gold: Option<&Value>, answer: Option<&Value>) -> bool {
        let (Some(g), Some(a)) = (gold, answer) else { return true };
        if g == a {
            return true;
        }
        // `y = ...` and `f(x) = ...` state the same function.
        let function = |v: &Value| match v.as_expr() {
            Some(Expr::Opaque(_, args)) => args.len() == 1,
            Some(Expr::Symbol(s)) => self.names.name(*s) == "y",
            _ => false,
        };
        let letters = |v: &Value| match v.as_expr() {
            Some(Expr::Product(factors)) => {
                let mut ids: Vec<SymbolId> = factors
                    .iter()
                    .filter_map(|f| if let Expr::Symbol(s) = f { Some(*s) } else { None })
                    .collect();
                ids.sort_unstable();
                ids
            }
            _ => Vec::new(),
        };
        (function(g) && function(a)) || (!letters(g).is_empty() && letters(g) == letters(a))
    }

    /// Side by side with the same relations, or mirrored.
    fn as_written(&mut self, gs: &[Value], go: &[Relation], sa: &[Value], ao: &[Relation]) -> Decision {
        let mirrored: Vec<Value> = sa.iter().rev().cloned().collect();
        let mirrored_ops: Vec<Relation> = ao.iter().rev().map(|op| flipped(*op)).collect();
        for (sides, ops) in [(sa, ao), (&mirrored[..], &mirrored_ops[..])] {
            if go == ops && gs.len() == sides.len() {
                let same = gs.iter().zip(sides).all(|(g, a)| g == a || self.compare(g, a, 0).is_equal());
                if same {
                    return Decision::of(true, "relation");
                }
            }
        }
        Decision::unknown("relation", "not read as a set of real numbers")
    }

    /// Same zero set: the two left sides differ by a constant factor other than zero.
    fn equations(&mut self, gold: &Expr, answer: &Expr) -> Decision {
        let mut symbols = Vec::new();
        gold.symbols(&mut symbols);
        answer.symbols(&mut symbols);
        if symbols.is_empty() {
            return Decision::unknown("equation", "no unknown in the equation");
        }
        match self.constant_ratio(gold, answer, &symbols) {
            Ok(true) => Decision::of(true, "equation").noted("the sides differ by a constant factor"),
            Ok(false) => {
                let polynomial = |e: &Expr| {
                    !e.any(&|x| match x {
                        Expr::Quotient(_, b) => b.has_symbols(),
                        Expr::Power(_, n) => n.as_int().is_none_or(|n| n < 0),
                        Expr::Sum(_) | Expr::Product(_) | Expr::Number(_) | Expr::Symbol(_) => false,
                        _ => true,
                    })
                };
                if polynomial(gold) && polynomial(answer) {
                    return Decision::of(false, "equation");
                }
                let (g, a) = (numerator(gold), numerator(answer));
                match self.constant_ratio(&g, &a, &symbols) {
                    Ok(true) => Decision::of(true, "equation").noted("after multiplying by the denominators"),
                    _ => Decision::unknown("equation", "not multiples of each other, and not polynomials"),
                }
            }
            Err(stop) => Decision::unknown("equation", super::identity::reason(stop)),
        }
    }

    fn constant_ratio(&mut self, f: &Expr, g: &Expr, symbols: &[SymbolId]) -> Result<bool, Stop> {
        let mut points = Points::new(4);
        let mut pairs = Vec::new();
        let field = FIELDS[0];
        for _ in 0..4 {
            let point = points.residues(symbols, field.p);
            match (residue(f, &point, field, &mut self.budget), residue(g, &point, field, &mut self.budget)) {
                (Ok(x), Ok(y)) => pairs.push((x, y)),
                (Err(Stop::Undefined), _) | (_, Err(Stop::Undefined)) => {}
                _ => break,
            }
        }
        if let [(x, y), rest @ ..] = &pairs[..]
            && rest.len() >= 2
        {
            let constant = rest.iter().all(|(u, v)| field.mul(*x, *v) == field.mul(*y, *u));
            return if *x == 0 && *y == 0 {
                Err(Stop::Undefined)
            } else {
                Ok(constant && *x != 0 && *y != 0)
            };
        }
        // Balls: x v - y u contains zero tightly at every pair of points.
        let p = Precision { bits: 256, complex: false };
        let mut values = Vec::new();
        for k in 0..10 {
            let point = points.balls(symbols, k >= 5);
            let both = (enclose(f, &point, p, &mut self.budget), enclose(g, &point, p, &mut self.budget));
            if let (Ok(x), Ok(y)) = both {
                values.push((x.as_real()?.clone(), y.as_real()?.clone()));
            }
        }
        let [(x, y), rest @ ..] = &values[..] else { return Err(Stop::Undefined) };
        if rest.len() < 2 || x.contains_zero() || y.contains_zero() {
            return Err(Stop::Undefined);
        }
        for (u, v) in rest {
            let (left, right) = (x.mul(v, 256)?, y.mul(u, 256)?);
            let difference = left.sub(&right, 256)?;
            if !difference.contains_zero() {
                return Ok(false);
            }
            if !difference.upper().less(left.upper().shift(-150)) {
                return Err(Stop::Imprecise);
            }
        }
        Ok(true)
    }
}

/// The numerator over a common denominator, as an expression.
fn numerator(e: &Expr) -> Expr {
    fraction(e).0
}

fn fraction(e: &Expr) -> (Expr, Expr) {
    match e {
        Expr::Quotient(a, b) => {
            let ((an, ad), (bn, bd)) = (fraction(a), fraction(b));
            (product(an, bd), product(ad, bn))
        }
        Expr::Product(factors) => factors
            .iter()
            .map(fraction)
            .fold((Expr::int(1), Expr::int(1)), |(n, d), (fn_, fd)| (product(n, fn_), product(d, fd))),
        Expr::Sum(terms) => {
            // Terms over the same denominator share it.
            let mut total: Option<(Expr, Expr)> = None;
            for (tn, td) in terms.iter().map(fraction) {
                total = Some(match total {
                    None => (tn, td),
                    Some((n, d)) if d == td => (n.plus(tn), d),
                    Some((n, d)) => (product(n, td.clone()).plus(product(tn, d.clone())), product(d, td)),
                });
            }
            total.unwrap_or((Expr::int(0), Expr::int(1)))
        }
        _ => (e.clone(), Expr::int(1)),
    }
}

fn product(a: Expr, b: Expr) -> Expr {
    if a.is_one() {
        b
    } else if b.is_one() {
        a
    } else {
        a.times(b)
    }
}
