//! [`SeqLayout`]: which keys each query of a packed batch may attend to.
//!
//! A batch is one array of rows, sequences one after another. A *segment* is a range of query rows with the same view: a list
//! of key spans, each seen in full or causally. That covers everything here without a mask:
//!
//! ```text
//! packed causal       segment [0..5)  -> causal 0..5          segment [5..9) -> causal 5..9
//! windows (vision)    segment [0..64) -> full 0..64           segment [64..128) -> full 64..128
//! shared prefix       segment [0..P)  -> causal 0..P
//!                     segment [P..P+a) -> full 0..P, causal P..P+a
//!                     segment [P+a..P+a+b) -> full 0..P, causal P+a..P+a+b
//! ```

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Result, shape_error};

/// A range of keys as one segment of queries sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of the key and value arrays.
    pub keys: Range<usize>,
    /// With `false`, every query sees every key. With `true` the two ends are aligned: the last query sees all keys, the one
    /// before it all but the last, and so on (`key_index <= query_index + keys.len() - query.len()`).
    pub causal: bool,
}

/// Query rows with a common view of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the query array.
    pub query: Range<usize>,
    /// What they see. May be empty: such rows get zeros.
    pub spans: Vec<Span>,
}

/// One prompt and the continuations behind it, in that order in the packed rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixGroup {
    /// Rows of the shared prompt.
    pub prefix: usize,
    /// Rows of each continuation.
    pub continuations: Vec<usize>,
}

/// A validated description of a packed batch. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct SeqLayout(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    segments: Vec<Segment>,
    /// Segments (by index) that share keys, directly or through others; ordered. The backward pass works on one cluster at a time.
    clusters: Vec<Vec<usize>>,
    query_rows: usize,
    key_rows: usize,
}

impl SeqLayout {
    /// Any segments over `query_rows` queries and `key_rows` keys.
    ///
    /// # Errors
    /// A range is reversed or outside, two segments share queries, or two spans of a segment share keys.
    pub fn custom(query_rows: usize, key_rows: usize, segments: Vec<Segment>) -> Result<SeqLayout> {
        let bad = |what: String| shape_error("SeqLayout", what);
        let mut queries: Vec<&Range<usize>> = Vec::new();
        for s in &segments {
            if s.query.start > s.query.end || s.query.end > query_rows {
                return bad(format!("queries {:?} are not inside 0..{query_rows}", s.query));
            }
            queries.push(&s.query);
            let mut spans: Vec<&Range<usize>> = s.spans.iter().map(|s| &s.keys).collect();
            for k in &spans {
                if k.start > k.end || k.end > key_rows {
                    return bad(format!("keys {k:?} are not inside 0..{key_rows}"));
                }
            }
            spans.sort_by_key(|k| (k.start, k.end));
            if let Some(w) = spans.windows(2).find(|w| w[0].end > w[1].start) {
                return bad(format!("queries {:?} would see keys {:?} and {:?} twice", s.query, w[0], w[1]));
            }
        }
        queries.sort_by_key(|q| (q.start, q.end));
        if let Some(w) = queries.windows(2).find(|w| w[0].end > w[1].start) {
            return bad(format!("segments {:?} and {:?} overlap", w[0], w[1]));
        }
        let clusters = clusters(&segments);
        Ok(SeqLayout(Arc::new(Inner { segments, clusters, query_rows, key_rows })))
    }

    /// Sequences of the given lengths, one after another, each causal.
    pub fn causal(lengths: &[usize]) -> SeqLayout {
        Self::packed(lengths, true)
    }

    /// Sequences of the given lengths, one after another, each seeing all of itself and nothing else.
    pub fn full(lengths: &[usize]) -> SeqLayout {
        Self::packed(lengths, false)
    }

    /// Windows between consecutive cumulative lengths (`[0, 64, 128, ...]`), as Qwen2.5-VL's vision tower describes them.
    ///
    /// # Errors
    /// The list does not start with 0 or decreases.
    pub fn windows(cumulative: &[usize]) -> Result<SeqLayout> {
        if cumulative.first() != Some(&0) || cumulative.windows(2).any(|w| w[0] > w[1]) {
            return shape_error("SeqLayout::windows", "cumulative lengths start with 0 and never decrease");
        }
        let lengths: Vec<usize> = cumulative.windows(2).map(|w| w[1] - w[0]).collect();
        Ok(Self::full(&lengths))
    }

    /// Groups of continuations, each behind one copy of its prompt: a continuation sees the whole prompt and itself causally,
    /// exactly as if it stood behind a copy of its own.
    pub fn shared_prefix(groups: &[PrefixGroup]) -> SeqLayout {
        let (mut segments, mut clusters, mut row) = (Vec::new(), Vec::new(), 0);
        for g in groups {
            let prefix = row..row + g.prefix;
            let first = segments.len();
            let own = |keys: Range<usize>| Span { keys, causal: true };
            segments.push(Segment { query: prefix.clone(), spans: vec![own(prefix.clone())] });
            row = prefix.end;
            for &len in &g.continuations {
                let rows = row..row + len;
                let before = Span { keys: prefix.clone(), causal: false };
                segments.push(Segment { query: rows.clone(), spans: vec![before, own(rows.clone())] });
                row = rows.end;
            }
            clusters.push((first..segments.len()).collect());
        }
        SeqLayout(Arc::new(Inner { segments, clusters, query_rows: row, key_rows: row }))
    }

    fn packed(lengths: &[usize], causal: bool) -> SeqLayout {
        let mut row = 0;
        let mut segments = Vec::with_capacity(lengths.len());
        for &len in lengths {
            let rows = row..row + len;
            segments.push(Segment { query: rows.clone(), spans: vec![Span { keys: rows.clone(), causal }] });
            row = rows.end;
        }
        let clusters = (0..segments.len()).map(|i| vec![i]).collect();
        SeqLayout(Arc::new(Inner { segments, clusters, query_rows: row, key_rows: row }))
    }

    /// Number of query rows.
    pub fn query_rows(&self) -> usize {
        self.0.query_rows
    }

    /// Number of key rows.
    pub fn key_rows(&self) -> usize {
        self.0.key_rows
    }

    /// The segments.
    pub fn segments(&self) -> &[Segment] {
        &self.0.segments
    }

    /// Position of every row in its own sequence: what 1-D rotary embedding counts. Rows of a shared-prefix continuation go on
    /// counting where the prompt ends; rows outside every segment get 0.
    pub fn positions(&self) -> Vec<usize> {
        let mut out = vec![0; self.0.query_rows];
        for s in &self.0.segments {
            let seen: usize = s.spans.iter().map(|s| s.keys.len()).sum();
            let first = seen.saturating_sub(s.query.len());
            for (i, row) in s.query.clone().enumerate() {
                out[row] = first + i;
            }
        }
        out
    }

    pub(crate) fn clusters(&self) -> &[Vec<usize>] {
        &self.0.clusters
    }
}

/// Groups segments connected by overlapping key ranges.
fn clusters(segments: &[Segment]) -> Vec<Vec<usize>> {
    let mut parent: Vec<usize> = (0..segments.len()).collect();
    fn root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    let mut ranges: Vec<(usize, usize, usize)> = segments
        .iter()
        .enumerate()
        .flat_map(|(i, s)| {
            s.spans.iter().filter(|s| !s.keys.is_empty()).map(move |s| (s.keys.start, s.keys.end, i))
        })
        .collect();
    ranges.sort_unstable();
    let mut reach: Option<(usize, usize)> = None;
    for (start, end, i) in ranges {
        match reach {
            Some((until, j)) if start < until => {
                let (a, b) = (root(&mut parent, i), root(&mut parent, j));
                parent[a.max(b)] = a.min(b);
                reach = Some((until.max(end), j));
            }
            _ => reach = Some((end, i)),
        }
    }
    let mut out: Vec<Vec<usize>> = Vec::new();
    let mut place = vec![usize::MAX; segments.len()];
    for i in 0..segments.len() {
        let r = root(&mut parent, i);
        if place[r] == usize::MAX {
            place[r] = out.len();
            out.push(Vec::new());
        }
        out[place[r]].push(i);
    }
    out
}
