//! Real sets in the same shape as drawn worlds: PuzzleVQA and easy-VQA (pictures), GSM8K (text).
//!
//! Files are read where they lie; nothing is downloaded. Items are named after the row, so that a split by row
//! number is a split by instance.

use std::path::{Path, PathBuf};

use ocelli_data::io::{read_bounded, read_jsonl};
use ocelli_data::{ContentHash, Message, Part, Sample, Target};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::dice::Dice;
use crate::item::{Item, Picture, Plan, WorldError};
use crate::truth::Truth;

const MAX_PICTURE: u64 = 16 << 20;
const MAX_TEXT: u64 = 64 << 20;

/// Names under which the folder of PuzzleVQA is met; the first is ours.
pub const PUZZLEVQA_FOLDERS: &[&str] = &["puzzlevqa", "PuzzleVQA"];

/// Names under which the folder of easy-VQA is met; the second is that of the unzipped package.
pub const EASY_VQA_FOLDERS: &[&str] = &["easy-vqa", "easy_vqa"];

/// Where PuzzleVQA can be had.
pub const PUZZLEVQA_ORIGIN: &str =
    "it is public: the folder PuzzleVQA of the repository declare-lab/LLM-PuzzleTest (MIT)";

/// Where easy-VQA can be had.
pub const EASY_VQA_ORIGIN: &str = "it is the Python package easy-vqa 1.0 (MIT): `pip download --no-deps easy-vqa==1.0`, then unzip the wheel";

/// Which part of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Rows to learn from.
    Train,
    /// Rows held out.
    Test,
}

/// The twenty puzzles of PuzzleVQA.
pub const PUZZLES: [&str; 20] = [
    "circle_size_number",
    "color_grid",
    "color_hexagon",
    "color_number_hexagon",
    "color_overlap_squares",
    "color_size_circle",
    "grid_number",
    "grid_number_color",
    "polygon_sides_color",
    "polygon_sides_number",
    "rectangle_height_color",
    "rectangle_height_number",
    "shape_morph",
    "shape_reflect",
    "shape_size_grid",
    "shape_size_hexagon",
    "size_cycle",
    "size_grid",
    "triangle",
    "venn",
];

fn row_error(path: &Path, row: usize, what: impl Into<String>) -> WorldError {
    WorldError::Row { path: path.to_owned(), row, what: what.into() }
}

fn picture(path: PathBuf) -> Result<Picture, WorldError> {
    let bytes = read_bounded(&path, MAX_PICTURE)?;
    Ok(Picture { hash: ContentHash::of(&bytes), bytes })
}

#[derive(Deserialize)]
struct PuzzleRow {
    image: String,
    question: String,
    answer: Value,
    options: Vec<Value>,
    caption: String,
    explanation: String,
    deduction: String,
}

fn plain(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

/// The first of `places` below `root` that holds `landmark`.
fn found(
    root: &Path,
    places: &[&str],
    landmark: &str,
    set: &'static str,
    origin: &'static str,
) -> Result<PathBuf, WorldError> {
    let there = places.iter().map(|p| root.join(p)).find(|p| p.join(landmark).exists());
    there.ok_or_else(|| WorldError::Absent {
        set,
        root: root.to_owned(),
        landmark: landmark.to_owned(),
        origin,
    })
}

/// PuzzleVQA (declare-lab, MIT) below `root` (the folder that holds `data/`, or `PuzzleVQA/data/`): 20 puzzles x 100 instances.
/// Instances 80..=99 of each puzzle are the test split.
///
/// Deviation: the options of every instance are put into an order drawn from its name. As published, the right option of
/// all 100 instances of `grid_number` stands last, and a model that never looked could learn it.
pub fn puzzlevqa(root: &Path, split: Split) -> Result<Vec<Item>, WorldError> {
    let places = ["", "PuzzleVQA", "puzzlevqa", "puzzlevqa/PuzzleVQA"];
    let root = &found(root, &places, "data/color_grid.json", "PuzzleVQA", PUZZLEVQA_ORIGIN)?;
    let mut items = Vec::new();
    for puzzle in PUZZLES {
        let path = root.join("data").join(format!("{puzzle}.json"));
        let rows: Vec<PuzzleRow> = read_jsonl(&path)?;
        for (i, row) in rows.into_iter().enumerate() {
            let held_out = i % 100 >= 80;
            if held_out != (split == Split::Test) {
                continue;
            }
            let mut options: Vec<String> = row.options.iter().map(plain).collect();
            Dice::new(puzzle, 0, i as u64).shuffle(&mut options);
            let answer = plain(&row.answer);
            let Some(at) = options.iter().position(|o| *o == answer) else {
                return Err(row_error(
                    &path,
                    i + 1,
                    format!("the answer `{answer}` is none of the options {options:?}"),
                ));
            };
            if options.len() > 26 || row.image.contains("..") {
                return Err(row_error(
                    &path,
                    i + 1,
                    format!("{} options, image `{}`", options.len(), row.image),
                ));
            }
            let letter = |i: usize| char::from(b'A' + i as u8).to_string();
            let listed: Vec<String> =
                options.iter().enumerate().map(|(i, o)| format!("{}: {o}", letter(i))).collect();
            let picture = picture(root.join("data").join(&row.image))?;
            let text = format!("{} {}", row.question, listed.join(", "));
            let meta = [("world", "puzzlevqa"), ("puzzle", puzzle), ("caption", &row.caption)];
            items.push(Item {
                sample: Sample {
                    id: format!("puzzlevqa/{puzzle}/{i}"),
                    messages: vec![Message::user([Part::image(picture.hash), Part::text(text)])],
                    target: Target::Choice { letters: vec![letter(at)], options },
                    meta: columns(&meta),
                },
                pictures: vec![picture],
                truth: Truth::default(),
                plan: Plan::direct(format!("{} {}", row.explanation, row.deduction), letter(at)),
            });
        }
    }
    Ok(items)
}

fn columns(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect()
}

/// easy-VQA (MIT) from the package's `data` folder (or a folder that holds the unzipped package): 64x64 pictures of one
/// coloured shape, short answers. `meta.asks` is `colour`, `shape` or `yes or no`. At most `limit` questions, in file order.
pub fn easy_vqa(root: &Path, split: Split, limit: usize) -> Result<Vec<Item>, WorldError> {
    let places = ["", "data", "easy_vqa/data", "easy-vqa/easy_vqa/data"];
    let root = found(root, &places, "train/questions.json", "easy-VQA", EASY_VQA_ORIGIN)?;
    let part = root.join(if split == Split::Train { "train" } else { "test" });
    let path = part.join("questions.json");
    let bytes = read_bounded(&path, MAX_TEXT)?;
    let rows: Vec<(String, String, u64)> = serde_json::from_slice(&bytes)
        .map_err(|e| row_error(&path, 0, format!("not a list of [question, answer, image]: {e}")))?;
    let mut items = Vec::new();
    for (i, (question, answer, image)) in rows.into_iter().enumerate().take(limit) {
        let picture = picture(part.join("images").join(format!("{image}.png")))?;
        let name = if split == Split::Train { "train" } else { "test" };
        let asks = match answer.as_str() {
            "yes" | "no" => "yes or no",
            "circle" | "rectangle" | "triangle" => "shape",
            _ => "colour",
        };
        items.push(Item {
            sample: Sample {
                id: format!("easy-vqa/{name}/{i}"),
                messages: vec![Message::user([Part::image(picture.hash), Part::text(question)])],
                target: Target::Text { accepted: vec![answer.clone()] },
                meta: columns(&[("world", "easy-vqa"), ("image", &image.to_string()), ("asks", asks)]),
            },
            pictures: vec![picture],
            truth: Truth::default(),
            plan: Plan::direct("", answer),
        });
    }
    Ok(items)
}

#[derive(Deserialize)]
struct WordProblem {
    #[serde(alias = "problem")]
    question: String,
    answer: String,
    #[serde(default)]
    solution: String,
}

/// GSM8K (MIT) from a file of JSON lines in either of its two layouts: `question` and an `answer` whose last `####` is
/// followed by the gold value, or `problem`, `solution` and a bare `answer`.
pub fn gsm8k(path: &Path) -> Result<Vec<Item>, WorldError> {
    let rows: Vec<WordProblem> = read_jsonl(path)?;
    let item = |(i, row): (usize, WordProblem)| {
        let (steps, gold) = row.answer.rsplit_once("####").unwrap_or((&row.solution, &row.answer));
        let gold = gold.trim().replace(',', "");
        if gold.is_empty() {
            return Err(row_error(path, i + 1, "the answer is empty"));
        }
        Ok(Item {
            sample: Sample {
                id: format!("gsm8k/{i}"),
                messages: vec![Message::user([Part::text(row.question)])],
                target: Target::Math { answer: gold.clone() },
                meta: columns(&[("world", "gsm8k")]),
            },
            pictures: Vec::new(),
            truth: Truth::default(),
            plan: Plan::direct(steps.trim(), gold),
        })
    };
    rows.into_iter().enumerate().map(item).collect()
}
