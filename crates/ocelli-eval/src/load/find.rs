//! Files by pattern: `*` stands for any characters within one name.

use std::path::{Path, PathBuf};

/// Files below `root` that match `pattern`, sorted by name. Links out of `root` are followed: the folder is the user's.
pub(super) fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for dir in &found {
            if !part.contains('*') {
                next.push(dir.join(part));
                continue;
            }
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            next.extend(
                entries
                    .flatten()
                    .filter(|e| matches(part, &e.file_name().to_string_lossy()))
                    .map(|e| e.path()),
            );
        }
        found = next;
    }
    found.retain(|p| p.is_file());
    found.sort();
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    rest.char_indices().map(|(i, _)| i).chain([rest.len()]).any(|i| matches(tail, &rest[i..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_name() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["b/test-1.parquet", "a/test-0.parquet", "a/train-0.parquet", "a/c/test-0.parquet"] {
            std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let relative = |p: PathBuf| p.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned();
            expand(dir.path(), pattern).into_iter().map(relative).collect()
        };
        assert_eq!(names("*/test-*.parquet"), ["a/test-0.parquet", "b/test-1.parquet"]);
        assert_eq!(names("a/train-0.parquet"), ["a/train-0.parquet"]);
        assert!(names("a/none.parquet").is_empty() && names("*/*/none*").is_empty());
        assert!(matches("a*b*c", "aXbYbZc") && !matches("a*b", "abc"));
    }
}
