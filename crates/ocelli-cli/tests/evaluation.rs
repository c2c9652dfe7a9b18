//! The commands of evaluation as a user types them: verify, eval, rescore, compare, check-table; their output for people and
//! for machines, exit codes, and what they say about bad input.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

mod endpoint;
#[path = "../../ocelli-eval/tests/made_data/mod.rs"]
mod made_data;

use std::path::Path;
use std::process::Command;

use endpoint::Endpoint;
use made_data::{
    CSVQA_ROWS, EMMA_PER_SUBJECT, EMMA_SUBJECTS, csvqa_gold, emma_gold, write_csvqa, write_emma,
};
use serde_json::Value;

struct Output {
    code: i32,
    out: String,
    err: String,
}

fn ocelli(args: &[&str]) -> Output {
    let done =
        Command::new(env!("CARGO_BIN_EXE_ocelli")).args(args).env_remove("OCELLI_DATA").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(done.stdout), text(done.stderr));
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "no colours into a pipe: {out}{err}");
    Output { code: done.status.code().unwrap(), out, err }
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.out).unwrap_or_else(|e| panic!("{e}: {}{}", output.out, output.err))
}

fn number_after(text: &str, mark: &str) -> usize {
    let at = text.find(mark).unwrap_or_else(|| panic!("`{mark}` is not in `{text}`")) + mark.len();
    text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn verify_explains_itself() {
    let equal = ocelli(&["verify", r"\frac{3}{4}", "0.75"]);
    assert_eq!(equal.code, 0, "{}", equal.out);
    assert!(equal.out.starts_with("equal by rule"), "{}", equal.out);
    let different = ocelli(&["verify", "1/2004!", "1/2006!"]);
    assert_eq!((different.code, different.out.starts_with("different")), (1, true), "{}", different.out);
    let unknown = ocelli(&["verify", "a blue whale", "a large animal of the sea"]);
    assert_eq!((unknown.code, unknown.out.starts_with("unknown")), (2, true), "{}", unknown.out);
    let negative = ocelli(&["verify", "-3", "--response", "so it is -3"]);
    assert_eq!(negative.code, 0, "{}{}", negative.out, negative.err);
    let choice =
        ocelli(&["verify", "--option", "red", "--option", "blue", "B", "The answer is (B).", "--json"]);
    assert_eq!((choice.code, &json(&choice)["outcome"]), (0, &Value::from("equal")));
    for (gold, answer) in
        [("yes", "Yes."), ("1/3", "三分之一"), (r"\emptyset", "{}"), ("AC", "A and C"), ("B", "答案：B")]
    {
        let v = ocelli(&["verify", gold, answer]);
        assert_eq!(v.code, 0, "{gold} {answer}: {}", v.out);
    }
    let units = ocelli(&["verify", "12 cm", "0.12 m"]);
    assert!(
        units.out.contains("rule `quantity`") && units.out.matches("(quantity)").count() == 2,
        "{}",
        units.out
    );
    let outside = ocelli(&["verify", "--option", "red", "--option", "blue", "C", "C"]);
    assert_eq!((outside.code, outside.out.as_str()), (2, ""));
    assert!(outside.err.contains("none of the 2 options"), "{}", outside.err);
    // What the help says of --exact.
    for (gold, answer, code) in [
        ("3.14", r"\pi", 1),
        ("12", "12 cm", 1),
        ("12 cm", "12", 1),
        ("$5", "5", 1),
        ("33.5%", "33.5", 1),
        ("33.5%", "0.335", 0),
        ("12 cm", "120 mm", 0),
        ("0.50", "1/2", 0),
        ("12 apples", "12 pears", 2),
    ] {
        let v = ocelli(&["verify", "--exact", gold, answer]);
        assert_eq!(v.code, code, "{gold} {answer}: {}", v.out);
    }
    let bad = ocelli(&["verify", "--relative", "-1", "1", "1"]);
    assert_eq!((bad.code, bad.out.as_str()), (2, ""));
    assert!(bad.err.contains("--relative"), "{}", bad.err);
}

#[test]
fn check_table_finds_what_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    let table = |overall: &str| {
        format!(
            "title = \"T\"\ndecimals = 1\nparts = [{{ name = \"a\", n = 100 }}, {{ name = \"b\", n = 300 }}]\nrows = [{{ name = \"m\", overall = {overall}, parts = [50.0, 40.0] }}]\n"
        )
    };
    let name = path.to_str().unwrap();
    std::fs::write(&path, table("42.5")).unwrap();
    let good = ocelli(&["check-table", name]);
    assert_eq!(
        (good.code, good.out.contains("every number is possible")),
        (0, true),
        "{}{}",
        good.out,
        good.err
    );
    std::fs::write(&path, table("45.0")).unwrap();
    let bad = ocelli(&["check-table", name]);
    assert_eq!((bad.code, bad.out.contains("overall")), (1, true), "{}{}", bad.out, bad.err);
    assert_eq!(json(&ocelli(&["check-table", name, "--json"])).as_array().unwrap().len(), 1);
    std::fs::write(&path, "title = 3").unwrap();
    let broken = ocelli(&["check-table", name]);
    assert!(broken.code == 2 && broken.err.contains("t.toml"), "{}", broken.err);
    let absent = ocelli(&["check-table", "no-such-file.toml"]);
    assert!(absent.code == 2 && absent.err.contains("no-such-file.toml"), "{}", absent.err);
}

#[test]
fn requests_that_make_no_sense_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().to_str().unwrap();
    let fails = |args: &[&str], parts: &[&str]| {
        let done = ocelli(args);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
        for part in parts {
            assert!(done.err.contains(part), "`{part}` is not in: {}", done.err);
        }
    };
    fails(&["rescore", "mathvsta", "x.jsonl"], &["mathvsta", "did you mean `mathvista`?"]);
    fails(&["rescore", "mathv:trian", "x.jsonl"], &["no variant `trian`", "testmini"]);
    fails(&["rescore", "mathv", "absent.jsonl", "--data", here], &["absent.jsonl"]);
    std::fs::write(dir.path().join("o.jsonl"), "{\"id\": 1, \"response\": \"2\"}\n").unwrap();
    let file = dir.path().join("o.jsonl");
    fails(
        &["rescore", "gsm8k", file.to_str().unwrap(), "--data", here],
        &["is not here", "huggingface.co", "gsm8k_test.jsonl"],
    );
    fails(
        &["eval", "csvqa", "--model", "m", "--endpoint", "http://127.0.0.1:1/v1", "--data", here],
        &["CSVQA", "csvqa_data.tsv"],
    );
    fails(&["eval", "csvqa", "--model", "m", "--endpoint", "nowhere", "--data", here], &["nowhere"]);
    // Nothing listens: said at once, before anything is counted as failed.
    std::fs::create_dir_all(dir.path().join("math")).unwrap();
    std::fs::write(dir.path().join("math/aime_2024.jsonl"), "{\"problem\": \"1 + 1?\", \"answer\": \"2\"}\n")
        .unwrap();
    let out = dir.path().join("out");
    fails(
        &[
            "eval",
            "aime24",
            "--model",
            "m",
            "--endpoint",
            "http://127.0.0.1:1/v1",
            "--data",
            here,
            "--out",
            out.to_str().unwrap(),
        ],
        &["http://127.0.0.1:1/v1", "Is the server running"],
    );
    fails(
        &["eval", "csvqa", "--model", "m", "--endpoint", "http://127.0.0.1:1/v1", "--samples", "0"],
        &["--samples"],
    );
    for (flag, value, part) in [
        ("--limit", "0", "--limit is 0"),
        ("--temperature", "-1", "--temperature is -1"),
        ("--timeout", "0", "--timeout is 0"),
        ("--limit", "-1", "invalid value '-1' for '--limit"),
    ] {
        fails(
            &["eval", "aime24", "--model", "m", "--endpoint", "http://127.0.0.1:1/v1", flag, value],
            &[part],
        );
    }
    // A folder that is no run, the data set in place of outputs, an empty file.
    let math = dir.path().join("math");
    fails(
        &["rescore", "aime24", math.to_str().unwrap(), "--data", here],
        &["without log.jsonl", "aime_2024.jsonl"],
    );
    let file = dir.path().join("empty.jsonl");
    std::fs::write(&file, "").unwrap();
    fails(&["rescore", "aime24", file.to_str().unwrap(), "--data", here], &["is empty"]);
    fails(&["compare", here, here], &["report.json"]);
    std::fs::write(dir.path().join("report.json"), "{\"no\": 1}").unwrap();
    fails(&["compare", here, here], &["is not a report of `ocelli eval`"]);
}

#[test]
fn benchmarks_are_listed_with_the_whereabouts_of_their_data() {
    let dir = tempfile::tempdir().unwrap();
    write_csvqa(dir.path());
    let here = dir.path().to_str().unwrap();
    let done = ocelli(&["eval", "--list", "--data", here]);
    assert_eq!(done.code, 0, "{}", done.err);
    let line = |name: &str| done.out.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
    assert!(line("csvqa").contains("here") && line("csvqa").contains("normal|direct"), "{}", done.out);
    assert!(line("mmmu ").contains("absent") && line("mmmu ").contains("900"), "{}", done.out);
    let rows = json(&ocelli(&["eval", "--list", "--data", here, "--json"]));
    assert!(rows.as_array().unwrap().len() >= 20 && rows[0]["url"].is_string());
    // Rows without their pictures are here in part, and asking them says how many are missing.
    std::fs::create_dir_all(dir.path().join("mathv/images")).unwrap();
    let row = |id: usize| {
        format!(
            "{{\"id\": \"{id}\", \"question\": \"q\", \"options\": [], \"answer\": \"1\", \"image\": \"images/{id}.png\", \"level\": 1, \"subject\": \"s\"}}\n"
        )
    };
    std::fs::write(dir.path().join("mathv/test.jsonl"), (1..=5).map(row).collect::<String>()).unwrap();
    std::fs::write(dir.path().join("mathv/testmini.jsonl"), row(1)).unwrap();
    let mut picture = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(2, 2).write_to(&mut picture, image::ImageFormat::Png).unwrap();
    std::fs::write(dir.path().join("mathv/images/1.png"), picture.into_inner()).unwrap();
    let done = ocelli(&["eval", "--list", "--data", here]);
    let line =
        done.out.lines().find(|l| l.contains("1 of 5 pictures")).unwrap_or_else(|| panic!("{}", done.out));
    assert!(line.contains("5 of 3040 items") && line.contains("complete: mathv:testmini"), "{line}");
    let asked = ocelli(&[
        "eval",
        "mathv",
        "--model",
        "m",
        "--endpoint",
        "http://127.0.0.1:1/v1",
        "--data",
        here,
        "--out",
        here,
    ]);
    for part in [
        "4 of 5 pictures are not here",
        "mathv/images",
        "row 2: column `image`",
        "and 1 more",
        "`mathv:testmini`",
    ] {
        assert!(asked.err.contains(part), "`{part}` is not in {}", asked.err);
    }
    let bare = ocelli(&["eval"]);
    assert!(bare.code == 2 && bare.err.contains("--model"), "{}", bare.err);
}

fn strict(path: &Path) -> f64 {
    let report: Value = serde_json::from_slice(&std::fs::read(path.join("report.json")).unwrap()).unwrap();
    report["summary"]["strict"]["credit"].as_f64().unwrap()
}

/// CSVQA and EMMA-mini from files of their schema, pictures included, to reports; resumed, rescored and compared.
#[test]
fn csvqa_and_emma_through_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    write_csvqa(dir.path());
    write_emma(dir.path());
    let server = Endpoint::start(|text, pictures| {
        if text.contains("{\"check\": 1}") {
            return "{\"check\": 1}".into();
        }
        if text.ends_with("Correct_or_not:") {
            return "Correct".into();
        }
        if text.starts_with("You are a rigorous") {
            return "Yes. It is sound.".into();
        }
        assert!(pictures > 0, "every question has its picture");
        if text.contains("high school exercises") {
            let i = number_after(text, "question ");
            // One choice without a box: the official rule reads none, ours does.
            return if i == 2 {
                format!("The answer is {}.", csvqa_gold(i))
            } else {
                format!("So \\boxed{{{}}}", csvqa_gold(i))
            };
        }
        let i = number_after(text, "case ");
        if i == 5 {
            format!("The answer is {}", emma_gold(i))
        } else {
            format!("\\boxed{{{}}}", emma_gold(i))
        }
    });
    let (data, out) = (dir.path().to_str().unwrap(), dir.path().join("runs"));
    let to = out.to_str().unwrap();
    let args = [
        "eval",
        "csvqa",
        "emma-mini",
        "--model",
        "mock",
        "--endpoint",
        &server.url,
        "--judge",
        "judge",
        "--reasoning",
        "binary",
        "--data",
        data,
        "--out",
        to,
    ];
    let done = ocelli(&args);
    assert_eq!(done.code, 0, "{}", done.err);
    let emma_rows = EMMA_PER_SUBJECT * EMMA_SUBJECTS.len();
    for part in [
        "CSVQA",
        "EMMA-mini",
        "reference",
        "strict",
        "bounds if missing",
        "the official rule reads no answer",
        "Reasoning",
        "Overview",
    ] {
        assert!(done.out.contains(part), "`{part}` is not in\n{}", done.out);
    }
    assert_eq!(strict(&out.join("csvqa/mock")), CSVQA_ROWS as f64);
    assert_eq!(strict(&out.join("emma-mini/mock")), emma_rows as f64);
    for file in ["report.html", "report.md", "report.json", "run.json", "log.jsonl", "judge.jsonl"] {
        assert!(out.join("csvqa/mock").join(file).is_file(), "{file}");
    }
    let page = std::fs::read_to_string(out.join("emma-mini/mock/report.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && page.contains("By subject"));

    // Again: everything is in the logs, nothing is asked; the numbers for machines.
    let before = server.asked();
    let again = ocelli(&[&args[..], &["--json"]].concat());
    let summaries = json(&again);
    assert_eq!(server.asked(), before, "a finished run asks nothing");
    assert_eq!(summaries[0]["reference"]["credit"], (CSVQA_ROWS - 1) as f64);
    assert_eq!(
        summaries[1]["reference"]["credit"],
        (emma_rows - 4) as f64,
        "`5.5` is cut at its point, once per subject"
    );
    assert_eq!(summaries[1]["difference_kinds"].as_object().unwrap().len(), 1);

    // The same from the log alone, judge's replies included.
    let run = out.join("csvqa/mock");
    let rescored =
        json(&ocelli(&["rescore", "csvqa", run.to_str().unwrap(), "--data", data, "--out", to, "--json"]));
    assert_eq!(rescored[0]["reference"], summaries[0]["reference"]);
    assert_eq!(rescored[0]["strict"], summaries[0]["strict"]);

    // Another task's folder, and a comparison of a run with itself.
    let other = ocelli(&["rescore", "emma-mini", run.to_str().unwrap(), "--data", data, "--out", to]);
    assert!(other.code == 2 && other.err.contains("a run of csvqa, not of emma-mini"), "{}", other.err);
    let same = ocelli(&["compare", run.to_str().unwrap(), run.to_str().unwrap()]);
    assert!(same.code == 0 && same.out.contains("exact McNemar p = 1.0000"), "{}{}", same.out, same.err);
    let apart = ocelli(&["compare", run.to_str().unwrap(), out.join("emma-mini/mock").to_str().unwrap()]);
    assert!(apart.code == 2 && apart.err.contains("different tasks"), "{}", apart.err);
}

/// Published results as the project's data folder holds them, several at once.
#[test]
fn published_outputs_through_the_command_line() {
    let Some(data) = std::env::var_os("OCELLI_DATA") else {
        println!("skipped: OCELLI_DATA does not name a folder");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (data.to_str().unwrap(), dir.path().to_str().unwrap());
    let path = |name: &str| format!("{data}/{name}");
    let (scalar, judge) =
        (path("vlrewardbench/scalar_rm_qwen2vl7b.json"), path("vlrewardbench/judge_qwen2vl7b.json"));
    let done = ocelli(&["rescore", "vl-rewardbench", &scalar, &judge, "--data", data, "--out", out]);
    assert_eq!(done.code, 0, "{}", done.err);
    for part in ["830/1247", "538/1247", "66.6 %", "43.1 %"] {
        assert!(done.out.contains(part), "`{part}` is not in\n{}", done.out);
    }
    let file = path("mathv/outputs/Gemini-Pro-CoT.jsonl");
    let summary = json(&ocelli(&["rescore", "mathv", &file, "--data", data, "--out", out, "--json"]));
    assert_eq!(
        (&summary[0]["reference"]["credit"], &summary[0]["labels"]["compared"]),
        (&436.0.into(), &3040.into())
    );
    let file = path("mathv/outputs/Gemini-Pro.jsonl");
    let named = ocelli(&["rescore", "mathv", &file, "--data", data, "--out", out]);
    let line = named
        .out
        .lines()
        .find(|l| l.trim_start().starts_with("3013"))
        .unwrap_or_else(|| panic!("{}", named.out));
    assert!(line.contains("right") && line.contains("wrong"), "{line}");
    let page = std::fs::read_to_string(dir.path().join("mathv/Gemini-Pro/report.md")).unwrap();
    assert!(page.contains("| 3013 |"), "the Markdown names it, too");
    // A comparison: small p-values, differences by group.
    let (a, b) = (format!("{out}/mathv/Gemini-Pro"), format!("{out}/mathv/Gemini-Pro-CoT"));
    let html = format!("{out}/compared.html");
    let compared = ocelli(&["compare", &a, &b, "--html", &html]);
    assert!(
        compared.out.contains("difference by level") && !compared.out.contains("p = 0.0000"),
        "{}",
        compared.out
    );
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("Difference by subject") && page.contains("track difference"), "a plot");
    let file = path("mathv/outputs/Gemini-Pro-CoT.jsonl");
    let swapped = ocelli(&["rescore", "mathv:testmini", &file, "--data", data, "--out", out]);
    assert!(swapped.code == 2 && swapped.err.contains("another split"), "{}", swapped.err);
}
