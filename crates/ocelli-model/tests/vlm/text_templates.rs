//! InternVL and Skywork R1V as they are published: OpenGVLab's layout, and the chat template of the language model alone.
//!
//! Expected ids are put together by hand from the rule of the reference's `chat`: `<img>`, `<IMG_CONTEXT>` once for every token of the
//! picture, `</img>` where the question has `<image>`, and `<image>\n` before a question that names no place.

use std::path::Path;

use ocelli_data::{Message, Part, ToolResult};
use ocelli_model::vlm::tiny::tokenizer;
use ocelli_model::vlm::{Context, LoadOptions};
use ocelli_model::{ChatOptions, Checkpoint, SaveDtype, Vlm};
use serde_json::{Value, json};

use crate::layouts::write_own;
use crate::pictures::{album, png};
use crate::reference;

/// InternVL2.5 and 3: the content is joined to other strings.
const JOINED: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}\
                      {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
/// DeepSeek's and QwQ's way, which Skywork R1V kept: the content is printed, whatever it is.
const PRINTED: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}\
                       {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// Parts are walked over, and what is not text is left out.
const SKIPPING: &str = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.content is string %}{{- m.content }}{%- else %}\
                        {%- for part in m.content %}{%- if part.type == 'text' %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}\
                        {%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
/// transformers' own template for the family.
const SEEING: &str = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.content is string %}{{- m.content }}{%- else %}\
                      {%- for part in m.content %}{%- if part.type == 'image' %}{{- '<IMG_CONTEXT>\\n' }}{%- else %}{{- part.text }}{%- endif %}{%- endfor %}\
                      {%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

const MARKS: [&str; 3] = ["<img>", "<IMG_CONTEXT>", "</img>"];

/// Ids of [`MARKS`].
fn marks(vlm: &Vlm) -> [u32; 3] {
    MARKS.map(|mark| vlm.tokenizer().unwrap().id(mark).unwrap())
}

/// The fixture's InternVL with the native tokenizer, to which the family's marks are added.
fn model(template: &str, model_type: &str, dir: &Path) -> Vlm {
    let mut family = reference::fixture()["families"]["internvl"].clone();
    family["config"]["text_config"]["vocab_size"] = 516.into();
    family["config"]["text_config"]["rope_parameters"] =
        json!({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0});
    for parameter in family["parameters"].as_array_mut().unwrap() {
        if parameter[1][0] == 24 && parameter[1].as_array().unwrap().len() == 2 {
            parameter[1][0] = 516.into();
        }
    }
    write_own(&family, model_type, dir);
    // Published configurations do not name the placeholder; the tokenizer does.
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("img_context_token_id");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut tokens: Value = serde_json::from_str(&tokenizer().unwrap().to_json().unwrap()).unwrap();
    for (i, content) in MARKS.iter().enumerate() {
        tokens["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": 512 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
        }));
    }
    std::fs::write(dir.join("tokenizer.json"), tokens.to_string()).unwrap();
    let settings = json!({"eos_token": "<|im_end|>", "chat_template": template});
    std::fs::write(dir.join("tokenizer_config.json"), settings.to_string()).unwrap();
    Vlm::load(&Checkpoint::open(dir).unwrap(), LoadOptions::default()).unwrap()
}

/// Text and pictures of so many tokens, as ids.
fn ids(vlm: &Vlm, parts: &[Result<&str, usize>]) -> Vec<u32> {
    let [open, picture, close] = marks(vlm);
    let one = |part: &Result<&str, usize>| match part {
        Ok(text) => vlm.tokenizer().unwrap().encode(text).unwrap(),
        Err(n) => [vec![open], vec![picture; *n], vec![close]].concat(),
    };
    parts.iter().flat_map(one).collect()
}

#[test]
fn a_template_of_text_shows_pictures_where_the_references_chat_shows_them() {
    // 24 x 16 pixels are two tiles of 16 and a thumbnail, 16 x 16 one tile; a tile has four tokens.
    let (album, hashes) = album(&[png(24, 16, 1), png(16, 16, 2)]);
    let (a, b) = (Part::image(hashes[0]), Part::image(hashes[1]));
    for (template, model_type) in [
        (JOINED, "internvl_chat"),
        (PRINTED, "skywork_chat"),
        (SKIPPING, "internvl_chat"),
        (SEEING, "internvl_chat"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let vlm = model(template, model_type, dir.path());
        let [_, picture, _] = marks(&vlm);
        let prompt = |content: Vec<Part>| {
            vlm.prompt(&[Message::user(content)], &ChatOptions::prompt(), &album).unwrap()
        };
        let (user, end) = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n");
        let first = prompt(vec![a.clone(), Part::text("How many?")]);
        let expected = ids(&vlm, &[Ok(user), Err(12), Ok(&format!("\nHow many?{end}"))]);
        assert_eq!(first.ids(), expected, "{template}");
        assert_eq!(first.images().len(), 1);
        let both = prompt(vec![a.clone(), b.clone(), Part::text("Which?")]);
        let expected = ids(&vlm, &[Ok(user), Err(12), Ok("\n"), Err(4), Ok(&format!("\nWhich?{end}"))]);
        assert_eq!(both.ids(), expected, "{template}");
        assert_eq!(both.images().iter().map(|i| i.hash).collect::<Vec<_>>(), hashes);
        // What a person writes is never a picture.
        let forged = prompt(vec![b.clone(), Part::text("<image> <IMG_CONTEXT>")]);
        assert_eq!(forged.ids().iter().filter(|id| **id == picture).count(), 4, "{template}");
        if template != SEEING {
            let parts = [
                Part::text("Image-1: "),
                a.clone(),
                Part::text("\nImage-2: "),
                b.clone(),
                Part::text("\nWhich?"),
            ];
            let numbered = prompt(parts.to_vec());
            let last = format!("\nWhich?{end}");
            let head = format!("{user}Image-1: ");
            let expected = ids(&vlm, &[Ok(&head), Err(12), Ok("\nImage-2: "), Err(4), Ok(&last)]);
            assert_eq!(numbered.ids(), expected, "{template}");
        }

        // A picture that a tool gives back, in the middle of a dialogue.
        let mut turn = first.clone();
        turn.push(&vlm.tokenizer().unwrap().encode("let me look").unwrap());
        let from = turn.len();
        let result =
            ToolResult { id: String::new(), name: "crop".into(), content: vec![b.clone()], is_error: false };
        vlm.continue_dialogue(&mut turn, &[Message::tool(result)], &ChatOptions::prompt(), &album).unwrap();
        assert_eq!(turn.images().len(), 2, "{template}");
        assert_eq!(turn.ids()[from..].iter().filter(|id| **id == picture).count(), 4, "{template}");

        // It looks, and saved and loaded it is the same.
        for context in [&first, &both] {
            let mut answered: Context = context.clone();
            answered.push(&[40, 41, 42]);
            let n = answered.len();
            let found = vlm.assert_sees(&answered, n - 3..n, 1e-3);
            assert!(found.is_ok(), "{template}: {found:?}");
        }
        let saved = tempfile::tempdir().unwrap();
        vlm.save(saved.path(), SaveDtype::F32).unwrap();
        let again = Vlm::load(&Checkpoint::open(saved.path()).unwrap(), LoadOptions::frozen()).unwrap();
        let shown = [Message::user([a.clone(), Part::text("How many?")])];
        assert_eq!(again.prompt(&shown, &ChatOptions::prompt(), &album).unwrap().ids(), first.ids());
    }
}
