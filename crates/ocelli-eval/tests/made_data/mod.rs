//! Data sets with pictures in the exact schema of CSVQA and EMMA, made up: the originals must be got by the user.

// Each test file compiles its own copy and uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// A picture that differs for every `seed`: stripes.
pub(crate) fn picture(seed: u32, format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(48, 32, |x, y| {
        let v = (x * (seed % 7 + 1) + y * (seed % 5 + 1) + seed) % 256;
        Rgb([v as u8, (seed % 256) as u8, (y * 8) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) const CSVQA_ROWS: usize = 48;

/// Gold of CSVQA row `i`: every fourth is open, some choices have two right letters.
pub(crate) fn csvqa_gold(i: usize) -> String {
    match (i % 4, i % 3) {
        (3, _) => format!("{} \\mathrm{{cm}}", i + 2),
        (_, 0) => "AC".into(),
        (n, _) => ["A", "B", "D"][n].into(),
    }
}

/// Writes `csvqa/csvqa_data.tsv` below `data`.
pub(crate) fn write_csvqa(data: &Path) {
    let columns = "id zh_question en_question image_type image zh_A zh_B zh_C zh_D en_A en_B en_C en_D answer question_type category difficulty zh_explanation en_explanation";
    let mut text = columns.replace(' ', "\t") + "\n";
    let subjects = ["Math", "Physics", "Chemistry", "Biology"];
    for i in 0..CSVQA_ROWS {
        let open = i % 4 == 3;
        let subject = subjects[i % subjects.len()];
        let options = |prefix: &str| -> Vec<String> {
            "ABCD".chars().map(|c| if open { String::new() } else { format!("{prefix}{i}{c}") }).collect()
        };
        let explanation =
            if i % 5 == 0 { String::new() } else { format!("First look at number {i}. Then add two.") };
        let mut cells = vec![
            format!("{subject}_{i}"),
            format!("\"如图<image>，第{i}题：求\"\"x\"\"的值？\""),
            format!("In the figure <image>, question {i}: which holds?"),
            ["Charts", "Tables,Charts", "Diagrams", "Illustration"][i % 4].to_owned(),
            STANDARD.encode(picture(i as u32, ImageFormat::Jpeg)),
        ];
        cells.extend(options("选项"));
        cells.extend(options("option "));
        cells.extend([
            csvqa_gold(i),
            if open { "open" } else { "multiple-choice" }.into(),
            subject.into(),
            ["easy", "medium", "middle", "hard"][i % 4].into(),
            format!("先看{i}。再加二。"),
            explanation,
        ]);
        text.push_str(&cells.join("\t"));
        text.push('\n');
    }
    std::fs::create_dir_all(data.join("csvqa")).unwrap();
    std::fs::write(data.join("csvqa/csvqa_data.tsv"), text).unwrap();
}

const EMMA_SCHEMA: &str = "message schema {
  optional binary pid (UTF8); optional binary question (UTF8); optional binary options (UTF8);
  optional binary answer (UTF8);
  optional group image_1 { optional binary bytes; optional binary path (UTF8); }
  optional group image_2 { optional binary bytes; optional binary path (UTF8); }
  optional group image_3 { optional binary bytes; optional binary path (UTF8); }
  optional group image_4 { optional binary bytes; optional binary path (UTF8); }
  optional group image_5 { optional binary bytes; optional binary path (UTF8); }
  optional binary solution (UTF8); optional binary subject (UTF8); optional binary task (UTF8);
  optional binary category (UTF8); optional binary source (UTF8); optional binary type (UTF8);
  optional binary context (UTF8); }";

pub(crate) const EMMA_PER_SUBJECT: usize = 12;
pub(crate) const EMMA_SUBJECTS: [&str; 4] = ["Math", "Physics", "Chemistry", "Coding"];

/// Gold letter or value of EMMA item `i` of a subject.
pub(crate) fn emma_gold(i: usize) -> String {
    if i % 3 == 2 { format!("{}.5", i) } else { ["a", "B", "C", "D"][i % 4].into() }
}

/// Writes `emma-mini/<Subject>/test-00000-of-00001.parquet` below `data`, as the hub does.
pub(crate) fn write_emma(data: &Path) {
    for (s, subject) in EMMA_SUBJECTS.iter().enumerate() {
        let dir = data.join("emma-mini").join(subject);
        std::fs::create_dir_all(&dir).unwrap();
        write_emma_file(&dir.join("test-00000-of-00001.parquet"), s, subject);
    }
}

fn write_emma_file(path: &Path, s: usize, subject: &str) {
    let schema = Arc::new(parse_message_type(EMMA_SCHEMA).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let n = EMMA_PER_SUBJECT;
    let open = |i: usize| i % 3 == 2;
    // (values per row or null, definition level of a value)
    let text = |f: &dyn Fn(usize) -> Option<String>| -> (Vec<Option<Vec<u8>>>, i16) {
        ((0..n).map(|i| f(i).map(String::into_bytes)).collect(), 1)
    };
    let some = |f: &dyn Fn(usize) -> String| text(&|i| Some(f(i)));
    let mut columns = vec![
        some(&|i| format!("{subject}_{i}")),
        some(&|i| {
            if i % 2 == 0 {
                format!("Compare <image_1> with <image_2> in case {i}.")
            } else {
                format!("Look at <image_1>, case {i}.")
            }
        }),
        some(&|i| if open(i) { "[]".into() } else { format!("['it\\'s {i}', \"b, {i}\", 'c{i}', 'd{i}']") }),
        some(&emma_gold),
    ];
    for image in 1..=5usize {
        let present = |i: usize| image == 1 || (image == 2 && i % 2 == 0);
        let bytes =
            (0..n).map(|i| present(i).then(|| picture((s * 100 + i * 10 + image) as u32, ImageFormat::Png)));
        columns.push((bytes.collect(), 2));
        columns
            .push(((0..n).map(|i| present(i).then(|| format!("{i}_{image}.png").into_bytes())).collect(), 2));
    }
    columns.extend([
        text(&|_| None),
        some(&|_| subject.to_owned()),
        some(&|i| format!("task {}", i % 2)),
        some(&|i| if subject == "Coding" { "Polar;3D".into() } else { format!("category {}", i % 3) }),
        some(&|_| "made up".into()),
        some(&|i| {
            if open(i) { "Open-ended".into() } else { ["Multiple Choice", "Multiple choice"][i % 2].into() }
        }),
        text(&|i| (i % 4 == 0).then(|| format!("Context {i}."))),
    ]);
    for (values, level) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let levels: Vec<i16> = values.iter().map(|v| if v.is_some() { level } else { 0 }).collect();
        let present: Vec<ByteArray> = values.into_iter().flatten().map(ByteArray::from).collect();
        column.typed::<ByteArrayType>().write_batch(&present, Some(&levels), None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}
