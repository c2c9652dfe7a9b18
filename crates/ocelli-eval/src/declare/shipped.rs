//! The declarations that come with the program.

use super::Benchmark;

/// Shipped files by name.
const SHIPPED: [(&str, &str); 22] = [
    ("aime24", include_str!("../../benchmarks/aime24.toml")),
    ("aime25", include_str!("../../benchmarks/aime25.toml")),
    ("chartqa", include_str!("../../benchmarks/chartqa.toml")),
    ("csvqa", include_str!("../../benchmarks/csvqa.toml")),
    ("emma", include_str!("../../benchmarks/emma.toml")),
    ("emma-mini", include_str!("../../benchmarks/emma-mini.toml")),
    ("gsm8k", include_str!("../../benchmarks/gsm8k.toml")),
    ("hallusionbench", include_str!("../../benchmarks/hallusionbench.toml")),
    ("math500", include_str!("../../benchmarks/math500.toml")),
    ("mathv", include_str!("../../benchmarks/mathv.toml")),
    ("mathvista", include_str!("../../benchmarks/mathvista.toml")),
    ("mmk12", include_str!("../../benchmarks/mmk12.toml")),
    ("mmmu", include_str!("../../benchmarks/mmmu.toml")),
    ("mmmu-pro", include_str!("../../benchmarks/mmmu-pro.toml")),
    ("multimodal-rewardbench", include_str!("../../benchmarks/multimodal-rewardbench.toml")),
    ("olympiadbench", include_str!("../../benchmarks/olympiadbench.toml")),
    ("pandalm", include_str!("../../benchmarks/pandalm.toml")),
    ("pope", include_str!("../../benchmarks/pope.toml")),
    ("puzzlevqa", include_str!("../../benchmarks/puzzlevqa.toml")),
    ("rewardbench", include_str!("../../benchmarks/rewardbench.toml")),
    ("rewardbench2", include_str!("../../benchmarks/rewardbench2.toml")),
    ("vl-rewardbench", include_str!("../../benchmarks/vl-rewardbench.toml")),
];

/// Names of the shipped benchmarks, sorted.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// A shipped benchmark. A test parses every one of them.
pub fn shipped(name: &str) -> Option<Benchmark> {
    let (name, text) = SHIPPED.iter().find(|(n, _)| *n == name)?;
    Benchmark::parse(name, text).ok()
}
