//! `detect`: objects in a photograph, by name. Its network is not part of the program (see `networks.rs`).

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::detector::{NAMES, canonical};
use crate::error::for_model;
use crate::{Call, ImageRef, Reply, Tool, ToolError};

/// Find everyday objects in a photograph: people, animals, vehicles, furniture, food and the like. Answers name, box and
/// score of each; `point` takes the same names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Detect {
    /// Picture to search, such as img_0.
    image: ImageRef,
    /// Names of what to look for, such as ["cat", "dining table"]; everything that is known if left out.
    #[serde(default)]
    names: Option<Vec<String>>,
    /// Least score, from 0.05 to 1; 0.5 if left out.
    #[serde(default)]
    #[schemars(range(min = 0.05, max = 1.0))]
    at_least: Option<f64>,
}

/// Least score where a call names none.
pub(crate) const AT_LEAST: f64 = 0.5;

impl Tool for Detect {
    const NAME: &'static str = "detect";
    const EXAMPLE: &'static str = r#"{"image": "img_0", "names": ["cat"]}"#;

    fn run(self, call: &Call<'_>) -> Result<Reply, ToolError> {
        let at_least = self.at_least.unwrap_or(AT_LEAST);
        let mut wanted = Vec::new();
        for name in self.names.iter().flatten() {
            wanted.push(canonical(name).ok_or_else(|| unknown(name))?);
        }
        let pixels = call.pixels(&self.image)?;
        let mut objects = call.engines.detector()?.detect(&pixels, at_least)?;
        if !wanted.is_empty() {
            objects.retain(|o| wanted.contains(&o.name));
        }
        let mut text = match (objects.len(), wanted.is_empty()) {
            (0, true) => format!("No object found with a score of at least {at_least}."),
            (0, false) => format!("Found no {} with a score of at least {at_least}.", wanted.join(", no ")),
            (1, _) => "1 object (name, box, score):".to_owned(),
            (n, _) => format!("{n} objects (name, box, score):"),
        };
        for object in &objects {
            text.push_str(&format!("\n{} {} {:.2}", object.name, object.bbox, object.score));
        }
        Ok(Reply { text, data: json!({ "objects": objects }), image: None, answer: None })
    }
}

fn unknown(name: &str) -> ToolError {
    let shown: String = name.chars().take(40).collect();
    let known: Vec<&str> = NAMES.into_iter().filter(|n| !n.is_empty()).collect();
    for_model(format!("`{shown}` is nothing that can be detected; the names are {}", known.join(", ")))
}
