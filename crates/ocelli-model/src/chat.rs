//! Messages to prompt text through the checkpoint's own Jinja template, byte for byte as the reference renders it.
//!
//! Reference: `apply_chat_template` of transformers 5: `trim_blocks`, `lstrip_blocks`, loop controls, `tojson` as
//! Python's `json.dumps(ensure_ascii=False)`, `raise_exception`, the special tokens by name. Deviations:
//! 1. `strftime_now` is not defined: a prompt must not depend on the day. Templates that ask `is defined` take their
//!    fixed date; a caller may set `date_string` in [`ChatOptions::extra`].
//! 2. A template's work is bounded (`FUEL` instructions), since a checkpoint is data from outside.
//! 3. `{% generation %}` marks are accepted and print nothing; which tokens are trained is decided by provenance, not
//!    by the template.

use std::borrow::Cow;

use minijinja::value::{Kwargs, Serde, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, syntax::SyntaxConfig};
use ocelli_data::{Message, Part, Role};
use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::tokenizer::SpecialTokens;

/// Instructions that one rendering may take; a dialogue of a hundred messages needs some ten thousand.
const FUEL: u64 = 20_000_000;

const NAME: &str = "chat";

/// What a template is given besides messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// JSON schemas of the tools, in the form `{"type": "function", "function": {...}}`.
    pub tools: Vec<Value>,
    /// Ends the text where the assistant begins to speak.
    pub add_generation_prompt: bool,
    /// More variables, e.g. `enable_thinking`.
    pub extra: Map<String, Value>,
}

impl ChatOptions {
    /// A prompt for the assistant's next turn, without tools.
    pub fn prompt() -> Self {
        Self { add_generation_prompt: true, ..Self::default() }
    }
}

/// A compiled chat template.
///
/// ```
/// use ocelli_data::{Message, Part};
/// use ocelli_model::{ChatOptions, ChatTemplate, SpecialTokens};
///
/// let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
/// let chat = ChatTemplate::new(source, SpecialTokens::default())?;
/// let text = chat.render(&[Message::user([Part::text("How many bars?")])], &ChatOptions::prompt())?;
/// assert_eq!(text, "<user>How many bars?<assistant>");
/// # Ok::<(), ocelli_model::ModelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    special: SpecialTokens,
    /// The template walks over parts and would lose a plain string.
    wants_parts: bool,
}

impl ChatTemplate {
    /// Compiles a template.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self, ModelError> {
        let mut env = Environment::new();
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(chat_error)?;
        env.set_syntax(syntax);
        env.set_fuel(Some(FUEL));
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_filter("tojson", tojson);
        env.add_function("raise_exception", |why: String| -> Result<Jinja, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, why))
        });
        env.add_template_owned(NAME, without_generation_marks(source)).map_err(chat_error)?;
        let mut template = Self { env, source: source.to_owned(), special, wants_parts: false };
        const PROBE: &str = "ocelliprobe";
        let probe = [Message::user([Part::text(PROBE)])];
        let shows = |t: &Self| t.render(&probe, &ChatOptions::default()).is_ok_and(|s| s.contains(PROBE));
        if !shows(&template) {
            template.wants_parts = true;
            template.wants_parts = shows(&template);
        }
        Ok(template)
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a dialogue.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String, ModelError> {
        let messages: Vec<Value> = messages.iter().map(|m| self.message(m)).collect();
        self.render_values(messages, options)
    }

    /// The text that follows an assistant turn when `new` messages (tool results, a person) come after it: from the
    /// end of what the assistant said up to where it speaks again. Starts with the template's end-of-turn mark.
    ///
    /// Multi-turn rollouts append these tokens to the ids that were sampled, which are never rendered again.
    pub fn continuation(&self, new: &[Message], options: &ChatOptions) -> Result<String, ModelError> {
        const SAID: &str = "ocelli said this";
        let mut messages = vec![Message::user([Part::text("?")]), Message::assistant(SAID)];
        messages.extend_from_slice(new);
        let text = self.render(&messages, options)?;
        match text.match_indices(SAID).collect::<Vec<_>>()[..] {
            [(at, _)] => Ok(text[at + SAID.len()..].to_owned()),
            ref all => Err(ModelError::Chat(format!(
                "the template prints an assistant message {} times, so what follows it is not defined",
                all.len()
            ))),
        }
    }

    /// True when the template prints `mark` once where a message has a picture. Templates that were written for text alone do
    /// not: they join the content as a string, or leave out what is not text.
    pub(crate) fn writes_pictures_as(&self, mark: &str) -> bool {
        let message = json!({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]});
        let text = self.render_values(vec![message], &ChatOptions::prompt());
        text.is_ok_and(|text| text.matches(mark).count() == 1)
    }

    fn render_values(&self, messages: Vec<Value>, options: &ChatOptions) -> Result<String, ModelError> {
        let mut context = Map::new();
        context.insert("messages".into(), messages.into());
        let tools = if options.tools.is_empty() { Value::Null } else { options.tools.clone().into() };
        context.insert("tools".into(), tools);
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        let special = [
            ("bos_token", &self.special.bos),
            ("eos_token", &self.special.eos),
            ("pad_token", &self.special.pad),
            ("unk_token", &self.special.unk),
        ];
        for (key, token) in special {
            if let Some(token) = token {
                context.insert(key.into(), token.as_str().into());
            }
        }
        context.extend(options.extra.clone());
        let template = self.env.get_template(NAME).map_err(chat_error)?;
        template.render(Jinja::from(Serde(&context))).map_err(chat_error)
    }

    fn message(&self, m: &Message) -> Value {
        let role = match m.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let plain = m.content.iter().all(|p| matches!(p, Part::Text { .. }));
        let content: Value = if plain && !self.wants_parts {
            m.plain_text().into()
        } else {
            m.content
                .iter()
                .map(|p| match p {
                    Part::Text { text } => json!({"type": "text", "text": text}),
                    Part::Image { .. } => json!({"type": "image"}),
                })
                .collect::<Vec<_>>()
                .into()
        };
        let mut value = json!({"role": role, "content": content});
        if !m.name.is_empty() {
            value["name"] = m.name.as_str().into();
        }
        if !m.tool_calls.is_empty() {
            let calls = m.tool_calls.iter().map(|c| {
                let mut call =
                    json!({"type": "function", "function": {"name": c.name, "arguments": c.arguments}});
                if !c.id.is_empty() {
                    call["id"] = c.id.as_str().into();
                }
                call
            });
            value["tool_calls"] = calls.collect::<Vec<_>>().into();
        }
        value
    }
}

fn chat_error(e: Error) -> ModelError {
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(&e);
    while let Some(c) = cause {
        text += &format!(": {c}");
        cause = c.source();
    }
    ModelError::Chat(text)
}

/// `{%- generation -%}` becomes `{%- if true -%}`: the same trimming of white space, no output.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out += before;
        let end = tag.find("%}").map_or(tag.len(), |e| e + 2);
        let (tag, after) = tag.split_at(end);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match word {
            "generation" => out += &tag.replacen("generation", "if true", 1),
            "endgeneration" => out += &tag.replacen("endgeneration", "endif", 1),
            _ => out += tag,
        }
        rest = after;
    }
    out + rest
}

/// The filter `tojson` as transformers defines it: `json.dumps(x, ensure_ascii=False, indent=...)`.
fn tojson(value: &Jinja, kwargs: Kwargs) -> Result<Jinja, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let value = serde_json::to_value(value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, "tojson").with_source(e))?;
    let mut out = String::new();
    python_json(&value, indent, 0, &mut out);
    Ok(Jinja::from_safe_string(out))
}

/// JSON as Python's `json.dumps` writes it: `", "` and `": "`, numbers by `repr`.
fn python_json(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        if let Some(n) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', n * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (i, (key, value)) in map.iter().enumerate() {
                *out += if i == 0 { "" } else { comma };
                line(depth + 1, out);
                *out += &Value::from(key.as_str()).to_string();
                *out += ": ";
                python_json(value, indent, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('[');
            for (i, value) in list.iter().enumerate() {
                *out += if i == 0 { "" } else { comma };
                line(depth + 1, out);
                python_json(value, indent, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Value::Number(n) => match n.as_f64().filter(|_| n.is_f64()) {
            Some(x) => *out += &python_float(x),
            None => *out += &n.to_string(),
        },
        other => *out += &other.to_string(),
    }
}

/// `repr(float)`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn python_float(x: f64) -> Cow<'static, str> {
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs()).into();
    }
    let plain = x.to_string();
    if plain.contains('.') { plain.into() } else { format!("{plain}.0").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_does() {
        // python3: [repr(x) for x in (0.0, 1.0, 1e-05, 0.0001, 1e15, 1e16, 1.5e300, -2.5, 123456789.125)]
        let cases = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (-2.5, "-2.5"),
            (123456789.125, "123456789.125"),
        ];
        for (x, text) in cases {
            assert_eq!(python_float(x), text);
        }
    }

    #[test]
    fn generation_marks_print_nothing_and_trim_alike() {
        let source = "a\n  {%- generation -%}  b{% endgeneration %} c";
        let chat = ChatTemplate::new(source, SpecialTokens::default()).unwrap();
        assert_eq!(chat.render(&[], &ChatOptions::default()).unwrap(), "ab c");
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let bomb = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
        let error = ChatTemplate::new(bomb, SpecialTokens::default())
            .and_then(|t| t.render(&[], &ChatOptions::default()))
            .unwrap_err();
        assert!(error.to_string().contains("fuel"), "{error}");
    }

    #[test]
    fn a_template_may_refuse() {
        let chat =
            ChatTemplate::new("{{ raise_exception('no system role') }}", SpecialTokens::default()).unwrap();
        let error = chat.render(&[], &ChatOptions::default()).unwrap_err().to_string();
        assert!(error.contains("no system role"), "{error}");
    }
}
