//! Hallucinated mentions: words of an answer that name things of the picture's world which are not in the picture
//! (object-mention precision, with the drawn scene as the truth).
//!
//! ```text
//! shown       what is in the picture, `meta.shown` of the sample: names of colours, shapes, categories, series
//! vocabulary  all names that any question of the same world (`meta.world`) shows
//! precision   names mentioned and shown / names mentioned, over the responses of a step
//! ```
//!
//! Names that the question itself says are left out on both sides: repeating them claims nothing about the picture. A name is
//! found word by word and letter by letter; one in small letters also with a capital first letter, and with a plural s.
//! Samples without `meta.shown` are not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ocelli_data::{Message, Role, Sample};
use serde_json::Value;

/// Names that stand in `meta.shown`; those without a letter (years, numbers) are no names.
fn shown(sample: &Sample) -> Option<BTreeSet<&str>> {
    let list = sample.meta.get("shown").and_then(Value::as_array)?;
    Some(list.iter().filter_map(Value::as_str).filter(|n| n.contains(char::is_alphabetic)).collect())
}

fn world(sample: &Sample) -> &str {
    sample.meta.get("world").and_then(Value::as_str).unwrap_or_default()
}

/// Different names that a response mentions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Those in the picture.
    pub present: usize,
    /// Those of the vocabulary that are not.
    pub absent: usize,
}

/// Names of every world that questions come from.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary(BTreeMap<String, BTreeSet<String>>);

impl Vocabulary {
    /// The names that these samples show.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Arc<Sample>>) -> Self {
        let mut worlds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sample in samples {
            if let Some(names) = shown(sample) {
                let of_world = worlds.entry(world(sample).to_owned()).or_default();
                of_world.extend(names.into_iter().map(str::to_owned));
            }
        }
        Self(worlds)
    }

    /// What the assistant's words in `messages` mention; `None` where the sample does not tell what its picture shows.
    pub fn mentions(&self, sample: &Sample, messages: &[Message]) -> Option<Mentions> {
        let shown = shown(sample)?;
        let said = |messages: &[Message], assistant: bool| {
            let chosen = messages.iter().filter(|m| (m.role == Role::Assistant) == assistant);
            chosen.map(Message::plain_text).collect::<Vec<_>>().join("\n")
        };
        let (question, answer) = (said(&sample.messages, false), said(messages, true));
        let (question, answer) = (words(&question), words(&answer));
        let mut found = Mentions::default();
        for name in self.0.get(world(sample)).into_iter().flatten() {
            let parts = words(name);
            if mentions(&question, &parts) || !mentions(&answer, &parts) {
                continue;
            }
            if shown.contains(name.as_str()) {
                found.present += 1;
            } else {
                found.absent += 1;
            }
        }
        Some(found)
    }
}

/// Runs of letters and digits; `+` and `-` inside belong to them (`R+D`).
fn words(text: &str) -> Vec<&str> {
    let cut = |c: char| !(c.is_alphanumeric() || c == '+' || c == '-');
    text.split(cut).map(|w| w.trim_matches(['+', '-'])).filter(|w| !w.is_empty()).collect()
}

fn mentions(text: &[&str], name: &[&str]) -> bool {
    !name.is_empty() && text.windows(name.len()).any(|w| w.iter().zip(name).all(|(a, b)| is_word(a, b)))
}

/// `word` is `name`; where that has no capital, also its plural and with a capital first letter.
fn is_word(word: &str, name: &str) -> bool {
    if word == name || name.chars().any(char::is_uppercase) {
        return word == name;
    }
    let mut letters = word.chars();
    let small: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
    small == name || small.strip_suffix('s') == Some(name)
}

#[cfg(test)]
mod tests {
    use ocelli_data::{Part, Target};
    use serde_json::json;

    use super::*;

    fn sample(world: &str, question: &str, shown: Option<&[&str]>) -> Arc<Sample> {
        let mut meta = serde_json::Map::new();
        meta.insert("world".into(), world.into());
        if let Some(names) = shown {
            meta.insert("shown".into(), json!(names));
        }
        let messages = vec![Message::user([Part::text(question)])];
        let target = Target::Text { accepted: vec!["3".into()] };
        Arc::new(Sample { id: question.into(), messages, target, meta })
    }

    #[test]
    fn names_of_the_world_that_are_not_in_the_picture() {
        let all = [
            sample("scene", "How many circles are blue?", Some(&["circle", "blue", "red", "May", "2015"])),
            sample("scene", "Which?", Some(&["square", "green", "Site A", "May"])),
            sample("other", "Which?", Some(&["diamond"])),
            sample("scene", "Not told", None),
        ];
        let v = Vocabulary::of(&all);
        let count = |i: usize, said: &str| {
            let messages = [Message::user([Part::text("green?")]), Message::assistant(said)];
            v.mentions(&all[i], &messages).map(|m| (m.present, m.absent))
        };
        // `circle` and `blue` stand in the question; `red` is there, `square`, `green` and `Site A` are not. `diamond` belongs
        // to another world, `2015` is no name, `Redder` no `red`, and `may` no `May`.
        assert_eq!(count(0, "Three blue circles, two RED? Redder, 2015. You may see."), Some((0, 0)));
        assert_eq!(count(0, "Red circles beside Squares, a green one, a diamond; Site A."), Some((1, 3)));
        // The same name twice is one mention. Words of the user are not the answer's.
        assert_eq!(count(0, "red red red. Site B"), Some((1, 0)));
        assert_eq!(count(1, "A square, red or red"), Some((1, 1)));
        assert_eq!(count(3, "a red square"), None);
    }
}
