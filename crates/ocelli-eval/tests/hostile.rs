//! Data sets that are not what they should be: a clear error with the row, and nothing dropped.

// Helpers outside #[test] functions are tests as well.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocelli_eval::declare::{Benchmark, Task};
use ocelli_eval::item::items;
use ocelli_eval::load::{LoadError, Pictures, load};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use proptest::prelude::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

fn task(format: &str, file: &str, image_form: &str) -> Task {
    let text = format!(
        r#"
name = "t"
title = "T"
source = {{ url = "https://example.org/t", licence = "MIT" }}
[[data]]
format = "{format}"
files = ["{file}"]
id = "id"
images = ["image"]
image_form = "{image_form}"
[fields]
question = "question"
answer = "answer"
options = "options"
[prompt]
slots = [{{ pattern = "<image>", column = "image" }}]
user = "<image>{{{{ question }}}}"
[[score]]
reference = "strict"
strict = {{ compare = "math" }}
"#
    );
    Task::with_variant(Benchmark::parse("t", &text).unwrap(), "").unwrap()
}

fn outcome(format: &str, form: &str, bytes: &[u8]) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = format!("t.{format}");
    std::fs::write(dir.path().join(&file), bytes).unwrap();
    std::fs::write(dir.path().join("a.png"), PNG).unwrap();
    let task = task(format, &file, form);
    let table =
        load(&task, dir.path(), &dir.path().join("blobs"), Pictures::Read).map_err(|e| e.to_string())?;
    items(&task, &table).map(|i| i.len()).map_err(|e| e.to_string())
}

#[track_caller]
fn fails(format: &str, form: &str, text: &str, parts: &[&str]) {
    let message = outcome(format, form, text.as_bytes()).unwrap_err();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn line(id: &str, rest: &str) -> String {
    format!("{{\"id\": {id}, \"question\": \"q\", \"answer\": \"1\", \"image\": \"a.png\"{rest}}}\n")
}

#[test]
fn sound_rows_load() {
    let rows = line("1", "") + "\n" + &line("\"two\"", ", \"options\": \"['a', 'b']\"");
    assert_eq!(outcome("jsonl", "file", rows.as_bytes()), Ok(2));
    let picture = STANDARD.encode(PNG);
    let tsv = format!(
        "id\tquestion\tanswer\timage\toptions\n1\t\"a \"\"b\"\"\tc\nd\"\t2\t{picture}\t\n2\tq\t3\t{picture}\t\r\n"
    );
    assert_eq!(outcome("tsv", "base64", tsv.as_bytes()), Ok(2));
}

#[test]
fn a_missing_data_set_says_where_to_get_it_and_where_to_put_it() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        load(&task("jsonl", "t/x.jsonl", "file"), dir.path(), dir.path(), Pictures::Read).unwrap_err();
    assert!(matches!(error, LoadError::Missing { .. }));
    let message = error.to_string();
    for part in ["https://example.org/t", "licence: MIT", &dir.path().join("t/x.jsonl").display().to_string()]
    {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn wrong_columns_are_listed_with_what_is_there() {
    let row = "{\"id\": 1, \"questoin\": \"q\", \"answer\": \"1\"}\n";
    fails("jsonl", "file", row, &["lacks the column(s) `question` (is `questoin` meant?)", "`answer`"]);
    fails("jsonl", "file", "", &["hold no rows"]);
    fails("tsv", "base64", "id\tid\tquestion\n", &["`id` twice"]);
}

#[test]
fn bad_rows_are_all_named_by_number() {
    let rows = [
        line("1", ""),
        "{\"id\": 2, \"question\": 7, \"answer\": \"1\"}\n".into(),
        "{\"id\": 3, \"question\": \"q\", \"answer\": null}\n".into(),
        "{\"id\": 4, \"question\": \"q\", \"answer\": [\"x\"]}\n".into(),
        "{\"id\": 5, \"question\": \"q\", \"answer\": \"  \"}\n".into(),
    ];
    fails(
        "jsonl",
        "file",
        &rows.concat(),
        &[
            "4 row(s)",
            "t.jsonl row 2: column `question`",
            "a number",
            "row 3: column `answer`",
            "nothing",
            "row 4",
            "a list",
            "row 5",
            "empty text",
        ],
    );
    let rows = line("1", "") + &line("2", "") + &line("1", "") + &line("null", "") + &line("\"\"", "");
    fails(
        "jsonl",
        "file",
        &rows,
        &[
            "3 row(s)",
            "row 3: the name `1` is already that of t.jsonl row 1",
            "row 4",
            "names the item and holds nothing",
            "row 5",
        ],
    );
    fails(
        "jsonl",
        "file",
        &line("1", ", \"options\": {\"a\": 1}"),
        &["row 1", "column `options`", "a table"],
    );
    let many: String =
        (0..30).map(|i| format!("{{\"id\": {i}, \"question\": \"q\", \"answer\": null}}\n")).collect();
    fails("jsonl", "file", &many, &["30 row(s)", "and 10 more"]);
}

#[test]
fn broken_json_names_its_line() {
    fails("jsonl", "file", &(line("1", "") + "{\"id\": 2,\n"), &["line 2"]);
    fails("jsonl", "file", "7\n", &["row 1 is a number, not an object"]);
    fails("json", "file", "{\"a\": 1}", &["not a list of rows"]);
    fails("json", "file", "[1]", &["row 1 is a number"]);
    fails("json_map", "file", "[]", &["not a table of rows"]);
}

#[test]
fn broken_tables_name_their_row() {
    let head = "id\tquestion\tanswer\timage\toptions\n";
    fails("tsv", "base64", &format!("{head}1\tq\n"), &["row 1 has 2 fields, the header has 5"]);
    fails("tsv", "base64", &format!("{head}1\t\"q\t1\t\t\n"), &["row 1: field 2: the quote is never closed"]);
    fails(
        "tsv",
        "base64",
        &format!("{head}1\t\"q\"x\t1\t\t\n"),
        &["row 1: field 2: text after the closing quote"],
    );
    let mut bytes = format!("{head}1\tq").into_bytes();
    bytes.extend_from_slice(b"\xff\t1\t\t\n");
    assert!(outcome("tsv", "base64", &bytes).unwrap_err().contains("row 1, field 2: not UTF-8"));
}

#[test]
fn broken_pictures_name_row_and_column() {
    let head = "id\tquestion\tanswer\timage\toptions\n";
    let row = |picture: &str| format!("{head}1\tq\t1\t{picture}\t\n");
    fails("tsv", "base64", &row("iVBOR!!!"), &["row 1: column `image`: broken base64"]);
    fails("tsv", "base64", &row(&STANDARD.encode("hello")), &["neither PNG, JPEG"]);
    fails("tsv", "base64", &row("data:image/png,abc"), &["data URL that is not base64"]);
    // The prompt needs a picture and the row has none.
    fails("tsv", "base64", &row(""), &["row 1", "the text says `<image>`", "column `image` holds no image"]);
    for (name, part) in
        [("none.png", "none.png"), ("../a.png", "leaves the folder"), ("/etc/passwd", "leaves the folder")]
    {
        fails("jsonl", "file", &line("1", "").replace("a.png", name), &["row 1: column `image`", part]);
    }
    fails("jsonl", "file", &line("1", "").replace("\"a.png\"", "[1]"), &["row 1: column `image`", "a list"]);
}

#[test]
fn huge_cells_are_refused_by_row() {
    // 300 MB of text in one cell of each text format; the file is written in pieces and read in bounded ones.
    let dir = tempfile::tempdir().unwrap();
    let piece = vec![b'A'; 1 << 20];
    let write = |path: &Path, head: &str, tail: &str| {
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(head.as_bytes()).unwrap();
        (0..300).for_each(|_| file.write_all(&piece).unwrap());
        file.write_all(tail.as_bytes()).unwrap();
    };
    let tsv = dir.path().join("t.tsv");
    write(&tsv, "id\tquestion\tanswer\timage\toptions\n1\tq\t1\t\t\n2\t", "\t1\t\t\n");
    let error = load(&task("tsv", "t.tsv", "base64"), dir.path(), dir.path(), Pictures::Read)
        .unwrap_err()
        .to_string();
    assert!(error.contains("row 2: field 2 is longer than the limit"), "{error}");
    std::fs::remove_file(tsv).unwrap();
    write(&dir.path().join("t.jsonl"), &(line("1", "") + "{\"id\": \""), "\"}\n");
    let error = load(&task("jsonl", "t.jsonl", "file"), dir.path(), dir.path(), Pictures::Ignore)
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 2 is longer than the limit"), "{error}");
}

/// Compressed, the file is small: the size of a cell shows only when it is decoded.
#[test]
fn a_huge_parquet_cell_is_refused_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let schema = "message m { required binary id (UTF8); required binary question (UTF8); required binary answer (UTF8); }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let file = std::fs::File::create(dir.path().join("t.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let huge = vec![b'A'; 300 << 20];
    for cells in [
        ["1", "2"].map(|s| s.as_bytes().to_vec()),
        [b"q".to_vec(), huge],
        ["1", "1"].map(|s| s.as_bytes().to_vec()),
    ] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&cells.map(ByteArray::from), None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    let error = load(&task("parquet", "t.parquet", "bytes"), dir.path(), dir.path(), Pictures::Ignore)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("row 2") && error.contains("`question`") && error.contains("more than the limit"),
        "{error}"
    );
}

#[test]
fn long_text_is_refused_by_row() {
    let text = "x".repeat(5 << 20);
    fails(
        "jsonl",
        "file",
        &line("1", "").replace("\"q\"", &format!("\"{text}\"")),
        &["row 1", "column `question`", "more than the limit"],
    );
}

#[test]
fn corrupt_parquet_is_an_error() {
    for bytes in
        [&b""[..], b"PAR1", b"PAR1PAR1", b"PAR1\x00\x00\x00\x00\xff\xff\xff\x7fPAR1", b"not parquet at all"]
    {
        let message = outcome("parquet", "bytes", bytes).unwrap_err();
        assert!(message.contains("t.parquet"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), format in 0usize..5) {
        let format = ["tsv", "jsonl", "json", "json_map", "parquet"][format];
        let _ = outcome(format, "base64", &bytes);
    }

    #[test]
    fn quoted_fields_round_trip(fields in proptest::collection::vec("[a-z\t\n\" ,é]{1,12}", 3)) {
        let quoted: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
        let dir = tempfile::tempdir().unwrap();
        let text = format!("id\tquestion\tanswer\tx\ty\tz\n1\tq\t1\t{}\n", quoted.join("\t"));
        std::fs::write(dir.path().join("t.tsv"), text).unwrap();
        let table = load(&task("tsv", "t.tsv", "base64"), dir.path(), dir.path(), Pictures::Read).unwrap();
        let found: Vec<String> = ["x", "y", "z"].iter().map(|c| table.rows[0].text(c).unwrap_or_default()).collect();
        prop_assert_eq!(found, fields);
    }
}
