//! Items: rows with their prompts, gold answers, rules and groups, ready to be asked and scored.

use std::sync::Arc;

use ocelli_data::{ContentHash, Message};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::declare::{AnswerForm, Better, Given, Group, Kind, Task};
use crate::load::{LoadError, Problems, Row, Table, kind_of, option_list};
use crate::prompt::{Renderer, option_letter};

/// What a right answer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gold {
    /// Any of these is right.
    Answers(Vec<String>),
    /// Indices of the better ones of the given answers; none for a tie.
    Better(Vec<usize>),
}

/// One item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Name, unique within the data set.
    pub id: String,
    /// The question.
    pub question: String,
    /// Options in order; empty for an open question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// The gold answer.
    pub gold: Gold,
    /// The given answers, for benchmarks that compare such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// Index of the scoring rule.
    pub rule: usize,
    /// Labels by grouping, in the order of the declaration.
    pub groups: Vec<Vec<String>>,
    /// Cluster of items that are not independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The dialogue; one per order of the given answers for pairs.
    pub prompts: Vec<Arc<Vec<Message>>>,
    /// The row's columns, for rules that need more.
    pub columns: Map<String, Value>,
    /// Reference explanation of the solution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

impl Item {
    /// Images of the (first) prompt, in order.
    pub fn images(&self) -> impl Iterator<Item = ContentHash> + '_ {
        self.prompts.first().into_iter().flat_map(|p| p.iter()).flat_map(Message::images)
    }

    /// The gold answer as text.
    pub fn gold_text(&self) -> String {
        match &self.gold {
            Gold::Answers(answers) => answers.join(" or "),
            Gold::Better(better) if better.is_empty() => "tie".into(),
            Gold::Better(better) => better.iter().map(|i| option_letter(*i)).collect::<Vec<_>>().join(", "),
        }
    }

    /// Text of a column.
    pub fn column(&self, name: &str) -> Option<String> {
        match self.columns.get(name)? {
            Value::String(s) => Some(s.clone()),
            Value::Number(n) => Some(n.to_string()),
            _ => None,
        }
    }
}

/// Makes the items of a task; every row that cannot become one is a problem of the error.
pub fn items(task: &Task, table: &Table) -> Result<Vec<Item>, LoadError> {
    make(task, table, true)
}

/// Like [`items`], without prompts: for rescoring, where nothing is asked and pictures may be absent.
pub fn items_to_rescore(task: &Task, table: &Table) -> Result<Vec<Item>, LoadError> {
    make(task, table, false)
}

fn make(task: &Task, table: &Table, prompts: bool) -> Result<Vec<Item>, LoadError> {
    let maker = Maker { task, renderer: Renderer::new(task), prompts };
    let mut problems = Problems::default();
    let mut items = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        match maker.item(row) {
            Ok(item) => items.push(item),
            Err(message) => problems.push(&row.place, message),
        }
    }
    problems.into_result(&task.benchmark.title)?;
    Ok(items)
}

/// A pair of which only the name, the groups and the preference are known: stored verdicts without the data set.
pub(crate) fn bare_pair(task: &Task, row: &Row, gold: Gold) -> Item {
    Item {
        id: row.id.clone(),
        question: String::new(),
        options: Vec::new(),
        gold,
        answers: vec![String::new(); 2],
        rule: 0,
        groups: task.benchmark.groups.iter().map(|g| labels(g, row)).collect(),
        cluster: None,
        prompts: Vec::new(),
        columns: row.columns.clone(),
        explanation: None,
    }
}

struct Maker<'a> {
    task: &'a Task,
    renderer: Renderer<'a>,
    prompts: bool,
}

impl Maker<'_> {
    fn item(&self, row: &Row) -> Result<Item, String> {
        let benchmark = &self.task.benchmark;
        let (question, options, gold, answers) = match &benchmark.given {
            Some(given) => self.given(row, given)?,
            None => self.asked(row)?,
        };
        let rule = match benchmark.kind {
            Kind::Answer => rule_of(self.task, row, &options).ok_or("no [[score]] applies to this row")?,
            Kind::Pair | Kind::BestOf => 0,
        };
        let explanation = benchmark.reasoning.as_ref().and_then(|r| {
            row.text(&self.task.resolve(&r.explanation)).filter(|text| !text.trim().is_empty())
        });
        let cluster = match &benchmark.cluster {
            None => None,
            // Rows that share their pictures are one cluster, however the pictures are called.
            Some(column) if column == "images" => {
                let names: Vec<String> = row.images.values().map(ContentHash::short).collect();
                Some(if names.is_empty() { row.id.clone() } else { names.join("+") })
            }
            Some(column) => Some(row.text(column).unwrap_or_else(|| row.id.clone())),
        };
        let mut item = Item {
            id: row.id.clone(),
            question,
            options,
            gold,
            answers,
            rule,
            groups: benchmark.groups.iter().map(|g| labels(g, row)).collect(),
            cluster,
            prompts: Vec::new(),
            columns: row.columns.clone(),
            explanation,
        };
        if self.prompts {
            item.prompts = self.dialogues(row, &item)?;
        }
        Ok(item)
    }

    fn asked(&self, row: &Row) -> Result<(String, Vec<String>, Gold, Vec<String>), String> {
        let fields = &self.task.benchmark.fields;
        let column = self.task.resolve(&fields.question);
        let question = match row.columns.get(&column) {
            Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
            Some(Value::String(text)) if fields.empty_question || !self.prompts => text.clone(),
            // Files of results often leave the question out; only asking needs it.
            None if !self.prompts => String::new(),
            other => {
                let found = other.map_or("nothing", kind_of);
                return Err(format!("column `{column}` is the question and holds {found}"));
            }
        };
        let mut options = Vec::new();
        if !fields.options.is_empty() {
            let column = self.task.resolve(&fields.options);
            if let Some(value) = row.columns.get(&column) {
                options = option_list(value).map_err(|m| format!("column `{column}`: {m}"))?;
            }
        }
        for column in &fields.option_columns {
            match row.text(&self.task.resolve(column)) {
                Some(text) if !text.trim().is_empty() => options.push(text),
                _ => break, // options end at the first empty column
            }
        }
        let answers = self.gold(row, &options)?;
        Ok((question, options, Gold::Answers(answers), Vec::new()))
    }

    fn gold(&self, row: &Row, options: &[String]) -> Result<Vec<String>, String> {
        let fields = &self.task.benchmark.fields;
        let column = self.task.resolve(&fields.answer);
        let found = row.columns.get(&column).unwrap_or(&Value::Null);
        let missing = || format!("column `{column}` is the gold answer and holds {}", kind_of(found));
        let answers = match fields.answer_form {
            AnswerForm::ZeroOne => match row.text(&column).as_deref().map(str::trim) {
                Some("0") => vec!["no".to_owned()],
                Some("1") => vec!["yes".to_owned()],
                _ => return Err(format!("{}, neither 0 nor 1", missing())),
            },
            AnswerForm::AnyOf | AnswerForm::List if matches!(found, Value::Array(_) | Value::String(_)) => {
                let list = match found {
                    // A text that is no list is a list of one.
                    Value::String(text) => option_list(found).unwrap_or_else(|_| vec![text.clone()]),
                    _ => option_list(found).map_err(|m| format!("column `{column}`: {m}"))?,
                };
                let several = fields.answer_form == AnswerForm::AnyOf;
                if several { list } else { vec![list.join(", ")] }
            }
            _ => vec![row.text(&column).ok_or_else(missing)?],
        };
        let mut answers: Vec<String> = answers
            .into_iter()
            .map(|a| match (fields.answer_after.as_str(), a.rfind(fields.answer_after.as_str())) {
                ("", _) | (_, None) => a,
                (mark, Some(at)) => a[at + mark.len()..].trim().to_owned(),
            })
            .collect();
        if answers.is_empty() || answers.iter().all(|a| a.trim().is_empty()) {
            return Err(missing());
        }
        if fields.answer_form == AnswerForm::OptionText && !options.is_empty() {
            let wanted = answers[0].trim();
            let at = options.iter().position(|o| o.trim() == wanted);
            let at =
                at.ok_or_else(|| format!("the gold answer `{wanted}` is none of the options {options:?}"))?;
            answers = vec![option_letter(at)];
        }
        Ok(answers)
    }

    fn given(&self, row: &Row, given: &Given) -> Result<(String, Vec<String>, Gold, Vec<String>), String> {
        let question = row.text(&given.query).unwrap_or_default();
        let mut answers = Vec::new();
        let mut first = 0;
        for (i, column) in given.answers.iter().enumerate() {
            let value = row.columns.get(column).unwrap_or(&Value::Null);
            match value {
                Value::String(text) => answers.push(text.clone()),
                // Writers of data sets turn `true` and `42` into other types (six answers of PandaLM's test set).
                Value::Bool(_) | Value::Number(_) => answers.push(value.to_string()),
                Value::Array(_) => {
                    answers.extend(option_list(value).map_err(|m| format!("column `{column}`: {m}"))?)
                }
                other => {
                    return Err(format!("column `{column}` is a given answer and holds {}", kind_of(other)));
                }
            }
            if i == 0 {
                first = answers.len();
            }
        }
        if answers.len() < 2 {
            return Err(format!("there are {} given answers, at least 2 are needed", answers.len()));
        }
        let better = match &given.better {
            Better::FirstColumn => (0..first).collect(),
            Better::Ranking(column) => {
                let ranks = row.columns.get(column).and_then(Value::as_array);
                let ranks: Option<Vec<i64>> = ranks.and_then(|r| r.iter().map(Value::as_i64).collect());
                let ranks = ranks.filter(|r| r.len() == answers.len()).ok_or_else(|| {
                    format!("column `{column}` must hold a rank for each of {} answers", answers.len())
                })?;
                let best = ranks.iter().min().copied().unwrap_or(0);
                let winners: Vec<usize> = (0..ranks.len()).filter(|i| ranks[*i] == best).collect();
                if winners.len() == ranks.len() { Vec::new() } else { winners }
            }
            Better::Named { column, names } => {
                let name = row.text(column).unwrap_or_default();
                let at = names.iter().position(|n| n.eq_ignore_ascii_case(name.trim()));
                vec![
                    at.ok_or_else(|| format!("column `{column}` says `{name}`, which is none of {names:?}"))?,
                ]
            }
            Better::Raters(columns) => {
                let mut votes = [0usize; 3];
                for column in columns {
                    match row.columns.get(column).and_then(Value::as_u64) {
                        Some(v @ 0..=2) => votes[v as usize] += 1,
                        _ => {
                            return Err(format!("column `{column}` is a rater and holds neither 0, 1 nor 2"));
                        }
                    }
                }
                let most = votes.iter().max().copied().unwrap_or(0);
                let leading: Vec<usize> = (0..3).filter(|v| votes[*v] == most).collect();
                if leading.len() == 1 && leading[0] > 0 { vec![leading[0] - 1] } else { Vec::new() }
            }
        };
        Ok((question, Vec::new(), Gold::Better(better), answers))
    }

    /// One dialogue; for pairs one per order, so that the position of an answer can be told from its merit.
    fn dialogues(&self, row: &Row, item: &Item) -> Result<Vec<Arc<Vec<Message>>>, String> {
        let variables = self.renderer.variables(row, &item.question, &item.options);
        let orders: Vec<Vec<&String>> = match self.task.benchmark.kind {
            Kind::Answer => vec![Vec::new()],
            Kind::Pair => vec![item.answers.iter().collect(), item.answers.iter().rev().collect()],
            // Every answer stands once at every place.
            Kind::BestOf => (0..item.answers.len())
                .map(|shift| item.answers.iter().cycle().skip(shift).take(item.answers.len()).collect())
                .collect(),
        };
        let mut dialogues = Vec::with_capacity(orders.len());
        for order in orders {
            let mut variables = variables.clone();
            if self.task.axes.get("input").is_some_and(|v| v == "caption") {
                variables.insert("caption".into(), Value::String(CAPTION_PLACE.into()));
            }
            variables.insert("answers".into(), order.into_iter().cloned().collect());
            dialogues.push(Arc::new(self.renderer.messages(row, &variables).map_err(|e| e.to_string())?));
        }
        Ok(dialogues)
    }
}

/// Stands in a prompt where the caption will be, until there is one.
pub const CAPTION_PLACE: &str = "\u{1}caption\u{1}";

fn rule_of(task: &Task, row: &Row, options: &[String]) -> Option<usize> {
    let text = |column: &str| match column.strip_prefix('#') {
        Some("options") => if options.is_empty() { "no" } else { "yes" }.to_owned(),
        Some(axis) => task.axes.get(axis).cloned().unwrap_or_default(),
        None => row.text(column).unwrap_or_default(),
    };
    task.benchmark
        .score
        .iter()
        .position(|r| r.when.iter().all(|(column, value)| text(column).trim().eq_ignore_ascii_case(value)))
}

/// Labels of a row in a grouping; `(none)` where the cells are empty, so that no row is lost from a table.
fn labels(group: &Group, row: &Row) -> Vec<String> {
    let rename = |label: &str| -> String {
        let label = label.trim();
        let by_prefix =
            group.prefix.iter().filter(|(p, _)| label.starts_with(p.as_str())).max_by_key(|(p, _)| p.len());
        let label = by_prefix.map_or(label, |(_, to)| to.as_str());
        group.alias.get(label).map_or(label, String::as_str).to_owned()
    };
    let cells = group.by.iter().map(|column| {
        let text = if column == "#id" { row.id.clone() } else { column_text(row, column) };
        let labels: Vec<String> = if group.split.is_empty() {
            vec![rename(&text)]
        } else {
            text.split(group.split.as_str()).map(rename).filter(|l| !l.is_empty()).collect()
        };
        let mut labels: Vec<String> =
            labels.into_iter().map(|l| if l.is_empty() { "(none)".into() } else { l }).collect();
        if labels.is_empty() {
            labels.push("(none)".into());
        }
        labels.dedup();
        labels
    });
    cells.fold(vec![String::new()], |crossed, next| {
        let join = |a: &String, b: &String| if a.is_empty() { b.clone() } else { format!("{a} / {b}") };
        crossed.iter().flat_map(|a| next.iter().map(move |b| join(a, b))).collect()
    })
}

/// Text of a column, `a.b` for a column within a table.
fn column_text(row: &Row, column: &str) -> String {
    if let Some(text) = row.text(column) {
        return text;
    }
    let mut parts = column.split('.');
    let mut value = parts.next().and_then(|p| row.columns.get(p));
    for part in parts {
        value = value.and_then(|v| v.get(part));
    }
    match value {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => n.to_string(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(";"),
        _ => String::new(),
    }
}
