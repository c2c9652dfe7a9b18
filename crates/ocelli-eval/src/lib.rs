//! Benchmarks as data: running, scoring, judging and honest statistics.
