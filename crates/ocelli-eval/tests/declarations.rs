//! The shipped declarations and the way to name them.

use ocelli_eval::declare::{Benchmark, Task, shipped, shipped_names};

fn file(name: &str) -> String {
    let path = format!("{}/benchmarks/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_shipped_declaration_is_sound_and_named_like_its_file() {
    let mut hashes = std::collections::HashSet::new();
    for name in shipped_names() {
        let benchmark = Benchmark::parse(name, &file(name)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(benchmark.name, name);
        assert!(hashes.insert(benchmark.hash()), "{name} has the hash of another");
        assert!(!benchmark.source.url.is_empty() && !benchmark.source.licence.is_empty(), "{name}");
    }
    let files = std::fs::read_dir(format!("{}/benchmarks", env!("CARGO_MANIFEST_DIR"))).unwrap().count();
    assert_eq!(files, hashes.len(), "a file in benchmarks/ is not shipped");
    for wanted in [
        "csvqa",
        "emma",
        "emma-mini",
        "mathv",
        "mathvista",
        "mmmu",
        "mmmu-pro",
        "mmk12",
        "puzzlevqa",
        "chartqa",
    ] {
        assert!(shipped(wanted).is_some(), "{wanted}");
    }
}

#[test]
fn variants_are_named_by_their_values() {
    let task = Task::parse("csvqa:direct,zh").unwrap();
    assert_eq!(task.axes["language"], "zh");
    assert_eq!(task.axes["input"], "image");
    assert_eq!(task.name(), "csvqa:zh,direct", "in the order of the axes");
    assert_eq!(Task::parse(&task.name()).unwrap(), task);
    assert_eq!(task.resolve("{language}_question"), "zh_question");
    let message = |text: &str| Task::parse(text).unwrap_err().to_string();
    assert!(message("csvq").contains("did you mean `csvqa`?"));
    assert!(message("csvqa:fr").contains("language: en or zh"));
    assert!(message("csvqa:en,zh").contains("both values of the axis `language`"));
}

#[test]
fn unsound_declarations_say_what_is_wrong() {
    let good = file("csvqa");
    let check = |from: &str, to: &str, part: &str| {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "`{from}` is not in the declaration");
        let message = Benchmark::parse("csvqa", &text).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    check("rows = 1378", "rows = \"many\"", "csvqa");
    check("rows = 1378", "rows = 1378\ncolour = \"red\"", "unknown field `colour`");
    check("input = [\"image\", ", "input = [\"en\", ", "`en` stands for two things");
    check("judge = \"consistency\"", "judge = \"nobody\"", "`nobody`");
    check("pattern = \"<image>\"", "pattern = \"<image(\"", "slot");
    check("answer = \"answer\"", "answer = \"\"", "must name columns");
    let metric = file("vl-rewardbench").replace("kind = \"macro_mean\"", "kind = \"macro_mean\"\nweight = 2");
    let message = Benchmark::parse("vl-rewardbench", &metric).unwrap_err().to_string();
    assert!(message.contains("unknown field `weight`"), "{message}");
    let metric = file("vl-rewardbench").replace("group = \"group\"", "group = \"grupo\"");
    let message = Benchmark::parse("vl-rewardbench", &metric).unwrap_err().to_string();
    assert!(message.contains("names the grouping `grupo`"), "{message}");
}

#[test]
fn the_hash_follows_every_change() {
    let text = file("gsm8k");
    let a = Benchmark::parse("gsm8k", &text).unwrap();
    let b = Benchmark::parse("gsm8k", &text.replace("0.6", "0.7")).unwrap();
    let c = Benchmark::parse("gsm8k", &format!("# a comment\n{text}")).unwrap();
    assert_ne!(a.hash(), b.hash());
    assert_eq!(a.hash(), c.hash(), "comments are no part of it");
}
