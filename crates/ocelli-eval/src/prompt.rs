//! A row becomes a dialogue: templates rendered, then cut at the places of images.
//!
//! Templates are Jinja (`minijinja`); a variable that does not exist is an error, so that a misspelt column cannot
//! silently become empty text.

use minijinja::value::Value as Jinja;
use minijinja::{Environment, UndefinedBehavior};
use ocelli_data::{Message, Part};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::declare::{Prompt, Task};
use crate::load::Row;

/// A prompt that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The template is wrong or names a column that the row lacks.
    #[error("{place}: the prompt cannot be rendered: {message}")]
    Template {
        /// The row.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// The text asks for an image that the row lacks.
    #[error("{place}: the text says `{slot}`, but column `{column}` holds no image")]
    Image {
        /// The row.
        place: String,
        /// The text.
        slot: String,
        /// The column.
        column: String,
    },
}

/// Renders Jinja templates for rows of one task.
#[derive(Debug)]
pub struct Renderer<'a> {
    task: &'a Task,
    environment: Environment<'static>,
    slots: Vec<(Regex, String)>,
}

/// Letter of option `i` from 0: A to Z, then AA.
pub fn option_letter(i: usize) -> String {
    let mut name = String::new();
    let mut rest = i + 1;
    while rest > 0 {
        name.insert(0, char::from(b'A' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    name
}

impl<'a> Renderer<'a> {
    /// Prepares the templates; slots were checked when the declaration was read.
    pub fn new(task: &'a Task) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_filter("without", |text: String, part: String| text.replace(&part, ""));
        let prompt: &Prompt = &task.benchmark.prompt;
        let slots =
            prompt.slots.iter().filter_map(|s| Some((Regex::new(&s.pattern).ok()?, s.column.clone())));
        Self { task, slots: slots.collect(), environment }
    }

    /// Variables that templates see.
    pub fn variables(&self, row: &Row, question: &str, options: &[String]) -> Map<String, Value> {
        let mut variables = Map::new();
        for (axis, value) in &self.task.axes {
            variables.insert(axis.clone(), Value::String(value.clone()));
        }
        let letters: Vec<String> = (0..options.len()).map(option_letter).collect();
        variables.insert("row".into(), Value::Object(row.columns.clone()));
        variables.insert("question".into(), json!(question));
        variables.insert("options".into(), json!(options));
        variables.insert("letters".into(), json!(letters));
        variables
    }

    /// Renders any template with any variables; `place` is for messages.
    pub fn text(
        &self,
        place: &str,
        template: &str,
        variables: &Map<String, Value>,
    ) -> Result<String, PromptError> {
        self.environment
            .render_str(template, to_jinja(variables))
            .map_err(|e| PromptError::Template { place: place.to_owned(), message: explain(&e) })
    }

    /// The dialogue for a row.
    pub fn messages(&self, row: &Row, variables: &Map<String, Value>) -> Result<Vec<Message>, PromptError> {
        let place = row.place.to_string();
        let prompt = &self.task.benchmark.prompt;
        let mut messages = Vec::new();
        if !prompt.system.is_empty() {
            messages.push(Message::system(self.text(&place, &prompt.system, variables)?));
        }
        let text = self.text(&place, &prompt.user, variables)?;
        messages.push(Message::user(self.cut(row, &text)?));
        Ok(messages)
    }

    /// Cuts a text at its slots.
    pub fn cut(&self, row: &Row, text: &str) -> Result<Vec<Part>, PromptError> {
        let mut places = Vec::new();
        for (pattern, column) in &self.slots {
            for captures in pattern.captures_iter(text) {
                let Some(whole) = captures.get(0) else { continue };
                let mut name = String::new();
                captures.expand(column, &mut name);
                places.push((whole.range(), name));
            }
        }
        places.sort_by_key(|(range, _)| range.start);
        let (mut parts, mut at) = (Vec::new(), 0);
        for (range, column) in places {
            if range.start < at {
                continue; // inside an image that another slot already placed
            }
            let hash = row.images.get(&column).ok_or_else(|| PromptError::Image {
                place: row.place.to_string(),
                slot: text[range.clone()].to_owned(),
                column,
            })?;
            if range.start > at {
                parts.push(Part::text(&text[at..range.start]));
            }
            parts.push(Part::image(*hash));
            at = range.end;
        }
        if at < text.len() {
            parts.push(Part::text(&text[at..]));
        }
        Ok(parts)
    }
}

/// A JSON object as a template sees it; null is `none`.
fn to_jinja(object: &Map<String, Value>) -> Jinja {
    fn convert(value: &Value) -> Jinja {
        match value {
            Value::Null => Jinja::from(()),
            Value::Bool(b) => Jinja::from(*b),
            Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Jinja::from(i),
                (None, Some(x)) => Jinja::from(x),
                (None, None) => Jinja::from(n.to_string()),
            },
            Value::String(s) => Jinja::from(s.as_str()),
            Value::Array(list) => Jinja::from(list.iter().map(convert).collect::<Vec<_>>()),
            Value::Object(object) => to_jinja(object),
        }
    }
    Jinja::from_pairs(object.iter().map(|(name, value)| (name.as_str(), convert(value))))
}

fn explain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters() {
        let names: Vec<String> = [0, 1, 25, 26, 51, 52, 701, 702].into_iter().map(option_letter).collect();
        assert_eq!(names, ["A", "B", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
    }
}
