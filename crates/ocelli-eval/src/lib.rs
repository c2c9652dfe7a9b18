//! Benchmarks as data: running, scoring, judging and honest statistics.
//!
//! ```
//! use ocelli_eval::stats;
//!
//! // 148 of 400 right: 37.0 %, with its Wilson interval.
//! let interval = stats::wilson(148, 400, 0.95)?;
//! assert!((interval.low - 0.3240).abs() < 1e-3 && (interval.high - 0.4183).abs() < 1e-3);
//! # Ok::<(), stats::StatsError>(())
//! ```

pub mod audit;
pub mod compare;
pub mod declare;
pub mod evaluate;
pub mod item;
pub mod judge;
pub mod load;
pub mod prompt;
pub mod report;
pub mod run;
pub mod score;
pub mod stats;
pub mod stored;
pub mod summary;
