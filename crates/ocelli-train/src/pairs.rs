//! Preference pairs: from verifier scores, from a reward model's scores, and from continuations without the picture;
//! and pairs as the model takes them.

use ocelli_data::{Message, PreferencePair, Sample};
use ocelli_model::ChatOptions;
use ocelli_model::vlm::{Pictures, Vlm};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;
use crate::examples::from_dialogue_with;
use crate::responses::Response;

/// Two responses behind one prompt.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The preferred one.
    pub chosen: Response,
    /// The other one.
    pub rejected: Response,
    /// How much better.
    pub margin: Option<f64>,
    /// A judge called them equally good.
    pub tie: bool,
}

impl Pair {
    /// Writes a pair; its two responses share the prompt token for token.
    pub fn new(model: &Vlm, pair: &PreferencePair, pictures: &dyn Pictures) -> Result<Self, TrainError> {
        let options = ChatOptions { tools: pair.tools.clone(), ..ChatOptions::prompt() };
        let write = |answer: &[Message], which: &str| {
            let messages = [pair.prompt.as_slice(), answer].concat();
            let name = format!("pair {}, {which} answer", pair.id);
            let response = from_dialogue_with(model, &name, &messages, &options, pictures)?;
            response.validate(&name)?;
            Ok::<_, TrainError>(response)
        };
        if pair.chosen == pair.rejected && !pair.tie {
            return Err(TrainError::Data(format!("pair {}: the two answers are the same", pair.id)));
        }
        if pair.margin.is_some_and(|m| !m.is_finite()) {
            return Err(TrainError::Data(format!("pair {}: its margin is no finite number", pair.id)));
        }
        let (chosen, rejected) = (write(&pair.chosen, "chosen")?, write(&pair.rejected, "rejected")?);
        Ok(Self { chosen, rejected, margin: pair.margin, tie: pair.tie })
    }

    /// True where the prompt holds a picture.
    pub fn has_picture(&self) -> bool {
        !self.chosen.context.images().is_empty()
    }
}

/// Which of the scored answers to a question become pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PairRule {
    /// The better answer has at least this score (a verifier's 1; a reward model's calibrated threshold).
    pub at_least: Option<f64>,
    /// The worse answer has at most this score.
    pub at_most: Option<f64>,
    /// The scores differ by at least this.
    pub gap: f64,
    /// Most pairs of one question.
    pub per_question: usize,
}

impl Default for PairRule {
    fn default() -> Self {
        Self { at_least: None, at_most: None, gap: f64::MIN_POSITIVE, per_question: 4 }
    }
}

/// What all answers to one question stand behind.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Begins the names of the pairs.
    pub id: &'a str,
    /// The dialogue up to the answers.
    pub prompt: &'a [Message],
    /// Tools that the chat template lists.
    pub tools: &'a [Value],
}

/// Pairs of the scored answers to one question, drawn with `seed`; equal answers are used once. An answer is all that was
/// said and replied behind the prompt. `source` names the judge.
pub fn from_scores(
    asked: Asked<'_>,
    answers: &[(Vec<Message>, f64)],
    rule: &PairRule,
    source: &str,
    seed: u64,
) -> Vec<PreferencePair> {
    let mut distinct: Vec<&(Vec<Message>, f64)> = Vec::new();
    for answer in answers {
        if !distinct.iter().any(|d| d.0 == answer.0) {
            distinct.push(answer);
        }
    }
    let mut found = Vec::new();
    for (i, good) in distinct.iter().enumerate() {
        for (j, bad) in distinct.iter().enumerate() {
            let enough = good.1 - bad.1 >= rule.gap;
            let high = rule.at_least.is_none_or(|t| good.1 >= t);
            let low = rule.at_most.is_none_or(|t| bad.1 <= t);
            if i != j && enough && high && low {
                found.push((i, j));
            }
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for i in (1..found.len()).rev() {
        found.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    found.truncate(rule.per_question);
    let pair = |(n, (i, j)): (usize, (usize, usize))| PreferencePair {
        id: format!("{}/{source}/{n}", asked.id),
        prompt: asked.prompt.to_vec(),
        tools: asked.tools.to_vec(),
        chosen: distinct[i].0.clone(),
        rejected: distinct[j].0.clone(),
        margin: Some(distinct[i].1 - distinct[j].1),
        tie: false,
        source: source.into(),
    };
    found.into_iter().enumerate().map(pair).collect()
}

/// The text that a dropped-image continuation starts from: the first half of the good answer, cut between words
/// (Dropout-NTP, arXiv 2411.10442, section 3.2). Empty where the answer is one word.
pub fn first_half(answer: &str) -> &str {
    let half = answer.len() / 2;
    let cut = answer
        .char_indices()
        .map(|(i, _)| i)
        .filter(|&i| i <= half && answer[..i].ends_with(char::is_whitespace));
    &answer[..cut.max().unwrap_or(0)]
}

/// A pair of a good answer and what the model wrote from its first half without seeing the picture; `None` where the
/// two agree.
pub fn dropped_image(sample: &Sample, good: &str, continued: &str) -> Option<PreferencePair> {
    let rejected = format!("{}{continued}", first_half(good));
    (rejected.trim() != good.trim()).then(|| PreferencePair {
        id: format!("{}/dropped_image", sample.id),
        prompt: sample.messages.clone(),
        tools: Vec::new(),
        chosen: vec![Message::assistant(good)],
        rejected: vec![Message::assistant(rejected)],
        margin: None,
        tie: false,
        source: "dropped_image".into(),
    })
}

/// A pair of an oracle's answer and a wrong one: an answer of another question in `pool`, as often as it stands there, so that
/// right and wrong answers have the same distribution and only the question and its picture tell them apart. Where the pool
/// has no other answer, a number becomes another number nearby; `None` for words. Drawn with `seed`.
pub fn corrupted(sample: &Sample, answer: &str, pool: &[String], seed: u64) -> Option<PreferencePair> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let others: Vec<&String> = pool.iter().filter(|p| *p != answer).collect();
    let wrong = match others.get((rng.next_u64() % others.len().max(1) as u64) as usize) {
        Some(other) => (*other).clone(),
        None => {
            let value = answer.parse::<i64>().ok()?;
            value.checked_add(1 + (rng.next_u64() % 3) as i64)?.to_string()
        }
    };
    Some(PreferencePair {
        id: format!("{}/corrupted", sample.id),
        prompt: sample.messages.clone(),
        tools: Vec::new(),
        chosen: vec![Message::assistant(answer)],
        rejected: vec![Message::assistant(wrong)],
        margin: None,
        tie: false,
        source: "corrupted".into(),
    })
}
