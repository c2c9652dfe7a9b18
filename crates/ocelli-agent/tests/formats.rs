//! What models write when they mean a tool call: the right forms, 60 malformed ones, and random ones.

use ocelli_agent::formats::{
    CallFormat, Complaint, MAX_CALLS_PER_TURN, MAX_TEXT, Repair, calls_from_openai, calls_to_openai,
    read_arguments, read_json,
};
use ocelli_data::ToolCall;
use ocelli_tools::{Declared, Limits, Registry, ToolSpec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NAMES: [&str; 5] = ["crop", "ocr", "zoom_in_subfigure", "draw_horizontal_line_by_y", "answer"];

/// What should come out: calls as `name{arguments}`, or a part of a complaint.
enum Want {
    Calls(&'static [(&'static str, &'static str)]),
    Complaint(&'static str),
    Prose(&'static str),
}
use Want::{Calls, Complaint as Complains, Prose};

fn check(format: CallFormat, text: &str, want: &Want, repairs: &[Repair]) {
    let parsed = format.parse(text, &NAMES);
    let shown = format!("{text}\n-> {parsed:?}");
    match want {
        Calls(calls) => {
            assert_eq!(parsed.calls.len(), calls.len(), "{shown}");
            for (got, (name, arguments)) in parsed.calls.iter().zip(*calls) {
                let got = got.as_ref().unwrap_or_else(|c| panic!("{c}\n{shown}"));
                let arguments: Map<String, Value> = serde_json::from_str(arguments).unwrap();
                assert_eq!((got.name.as_str(), &got.arguments), (*name, &arguments), "{shown}");
            }
        }
        Complains(part) => {
            assert_eq!(parsed.calls.len(), 1, "{shown}");
            let complaint = parsed.calls[0].as_ref().unwrap_err().to_string();
            assert!(complaint.contains(part), "{complaint}\n{shown}");
        }
        Prose(prose) => {
            assert!(parsed.calls.is_empty(), "{shown}");
            assert_eq!(parsed.prose, *prose, "{shown}");
        }
    }
    let mut got = parsed.repairs.clone();
    got.sort_unstable_by_key(|r| *r as u8);
    got.dedup();
    let mut wanted = repairs.to_vec();
    wanted.sort_unstable_by_key(|r| *r as u8);
    assert_eq!(got, wanted, "{shown}");
}

#[test]
fn hermes_corpus() {
    let crop: Want = Calls(&[("crop", r#"{"image":"img_0"}"#)]);
    let ocr: Want = Calls(&[("ocr", "{}")]);
    let cases: &[(&str, &Want, &[Repair])] = &[
        (
            "<tool_call>\n{\"name\": \"crop\", \"arguments\": {\"image\": \"img_0\"}}\n</tool_call>",
            &crop,
            &[],
        ),
        (
            "I see.\n<tool_call>{\"name\":\"crop\",\"arguments\":{\"image\":\"img_0\"}}</tool_call>",
            &crop,
            &[],
        ),
        (
            r#"<tool_call>{'name': 'crop', 'arguments': {'image': 'img_0'}}</tool_call>"#,
            &crop,
            &[Repair::Quotes],
        ),
        (
            r#"<tool_call>{“name”: “crop”, “arguments”: {“image”: “img_0”}}</tool_call>"#,
            &crop,
            &[Repair::Quotes],
        ),
        (r#"<tool_call>{name: "crop", arguments: {image: "img_0"}}</tool_call>"#, &crop, &[Repair::BareKey]),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0",},}</tool_call>"#,
            &crop,
            &[Repair::Comma],
        ),
        (
            r#"<tool_call>{"name": "crop" "arguments": {"image": "img_0"}}</tool_call>"#,
            &crop,
            &[Repair::Comma],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0"}</tool_call>"#,
            &crop,
            &[Repair::Unclosed],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0"</tool_call>"#,
            &crop,
            &[Repair::Unclosed],
        ),
        (r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0"}}"#, &crop, &[Repair::Tags]),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0"}}}</tool_call>"#,
            &crop,
            &[Repair::Garbage],
        ),
        (
            "<tool_call>\n```json\n{\"name\": \"crop\", \"arguments\": {\"image\": \"img_0\"}}\n```\n</tool_call>",
            &crop,
            &[Repair::Fence],
        ),
        (
            r#"< TOOL_CALL >{"name": "crop", "arguments": {"image": "img_0"}}</Tool_Call>"#,
            &crop,
            &[Repair::Tags],
        ),
        (
            r#"<function_call>{"name": "crop", "arguments": {"image": "img_0"}}</function_call>"#,
            &crop,
            &[Repair::Tags],
        ),
        ("```json\n{\"name\": \"crop\", \"arguments\": {\"image\": \"img_0\"}}\n```", &crop, &[Repair::Tags]),
        (r#"Let me look: {"name": "crop", "arguments": {"image": "img_0"}}"#, &crop, &[Repair::Tags]),
        (
            r#"<tool_call>{"name": "crop", "parameters": {"image": "img_0"}}</tool_call>"#,
            &crop,
            &[Repair::Shape],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": "{\"image\": \"img_0\"}"}</tool_call>"#,
            &crop,
            &[Repair::Shape],
        ),
        (r#"<tool_call>{"name": "crop", "image": "img_0"}</tool_call>"#, &crop, &[Repair::Shape]),
        (r#"<tool_call>{"crop": {"image": "img_0"}}</tool_call>"#, &crop, &[Repair::Shape]),
        (
            r#"<tool_call>{"type":"function","function":{"name":"crop","arguments":{"image":"img_0"}}}</tool_call>"#,
            &crop,
            &[Repair::Shape],
        ),
        (
            r#"<tool_call>[{"name": "crop", "arguments": {"image": "img_0"}}]</tool_call>"#,
            &crop,
            &[Repair::Shape],
        ),
        (
            r#"<tool_call>{"name": "Crop", "arguments": {"image": "img_0"}}</tool_call>"#,
            &crop,
            &[Repair::ToolName],
        ),
        (
            r#"<tool_call>{"name": "functions.crop", "arguments": {"image": "img_0"}}</tool_call>"#,
            &crop,
            &[Repair::ToolName],
        ),
        (r#"<tool_call>{"name": "ocr", "arguments": {}}</tool_call>"#, &ocr, &[]),
        (r#"<tool_call>{"name": "ocr", "arguments": None}</tool_call>"#, &ocr, &[Repair::PythonLiteral]),
        (r#"<tool_call>{"name": "ocr", "arguments": null}</tool_call>"#, &ocr, &[]),
        (r#"<tool_call>{"name": "ocr"}</tool_call>"#, &ocr, &[Repair::Shape]),
        (
            "<tool_call>{\"name\": \"ocr\", // read it\n \"arguments\": {}}</tool_call>",
            &ocr,
            &[Repair::Comment],
        ),
        // What a person cannot read either.
        (
            r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0</tool_call>"#,
            &Complains("a closing \" for this string"),
            &[],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"image": img_0}}</tool_call>"#,
            &Complains("line 1, column 41: expected a value (text stands in double quotes), found `img_0}}`"),
            &[],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"x": NaN}}</tool_call>"#,
            &Complains("found `NaN}}`"),
            &[],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"x" 3}}</tool_call>"#,
            &Complains("expected `:` after the key `x`"),
            &[],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": {"t": "he said "no" twice"}}</tool_call>"#,
            &Complains("expected `,` or `}`"),
            &[],
        ),
        (r#"<tool_call>crop(image="img_0")</tool_call>"#, &Complains("expected a value (text stands"), &[]),
        ("<tool_call></tool_call>", &Complains("there is nothing between the tags"), &[]),
        ("Then <tool_call>", &Complains("ends behind the opening tag"), &[Repair::Tags]),
        (r#"<tool_call>{"arguments": {"image": "img_0"}}</tool_call>"#, &Complains("`name` is missing"), &[]),
        (
            r#"<tool_call>{"name": 7, "arguments": {}}</tool_call>"#,
            &Complains("`name` should be a string, it is a number"),
            &[],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": [1, 2]}</tool_call>"#,
            &Complains("`arguments` should be a JSON object, it is a list"),
            &[],
        ),
        (
            r#"<tool_call>{"name": "crop", "arguments": "img_0"}</tool_call>"#,
            &Complains("`arguments` is a string that is not JSON"),
            &[Repair::Shape],
        ),
        (r#"<tool_call>"crop"</tool_call>"#, &Complains("a call is a JSON object, this is a string"), &[]),
        (
            r#"<tool_call>{"name": "crp", "arguments": {}}</tool_call>"#,
            &Complains("no tool `crp`. Did you mean `crop`? The tools are: crop, ocr,"),
            &[],
        ),
        (
            r#"<tool_call>{"name": "google_search", "arguments": {}}</tool_call>"#,
            &Complains("There is no tool `google_search`. The tools are"),
            &[],
        ),
        // Thinking is not calling.
        (
            r#"<think>I could <tool_call>{"name": "ocr", "arguments": {}}</tool_call></think>It is 7."#,
            &Prose("It is 7."),
            &[],
        ),
        ("<think>I wonder", &Prose(""), &[]),
        (
            "I will Terminate later; the set is {1, 2}.",
            &Prose("I will Terminate later; the set is {1, 2}."),
            &[],
        ),
        (r#"{"name": "Anna", "age": 7}"#, &Prose(r#"{"name": "Anna", "age": 7}"#), &[]),
        ("", &Prose(""), &[]),
    ];
    for (text, want, repairs) in cases {
        check(CallFormat::Hermes, text, want, repairs);
    }
}

#[test]
fn several_calls_keep_their_order_and_a_broken_one_does_not_hide_the_others() {
    let one = |name: &str| format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {{}}}}</tool_call>");
    let text = format!("{} and {} <tool_call>{{oops</tool_call> {}", one("crop"), one("nothing"), one("ocr"));
    let parsed = CallFormat::Hermes.parse(&text, &NAMES);
    let seen: Vec<_> = parsed.calls.iter().map(|c| c.as_ref().map(|c| c.name.as_str()).ok()).collect();
    assert_eq!(seen, [Some("crop"), None, None, Some("ocr")]);
    assert_eq!(parsed.prose, "and");
    let parsed =
        CallFormat::Hermes.parse("<tool_call>{\"name\":\"ocr\"}\n{\"name\":\"crop\"}</tool_call>", &NAMES);
    assert_eq!(parsed.calls.len(), 2);
}

#[test]
fn a_string_may_hold_the_end_tag() {
    let text = r#"<tool_call>{"name": "answer", "arguments": {"answer": "</tool_call>"}}</tool_call>"#;
    check(CallFormat::Hermes, text, &Calls(&[("answer", r#"{"answer":"</tool_call>"}"#)]), &[]);
}

#[test]
fn actions_corpus() {
    let ocr: Want = Calls(&[("ocr", r#"{"image":"img_0"}"#)]);
    let cases: &[(&str, &Want, &[Repair])] = &[
        (r#"{"thought": "t", "actions": [{"name": "ocr", "arguments": {"image": "img_0"}}]}"#, &ocr, &[]),
        (
            r#"{"thought": "t", "actions": [{"name": "OCR", "arguments": {"image": "img_0"}}]}"#,
            &ocr,
            &[Repair::ToolName],
        ),
        (
            r#"{"thought": "t", "actions": {"name": "ocr", "arguments": {"image": "img_0"}}}"#,
            &ocr,
            &[Repair::Shape],
        ),
        (
            r#"{"thought": "t", "actions": [{"name": "ocr", "arguments": {"image": "img_0"}}"#,
            &ocr,
            &[Repair::Unclosed],
        ),
        (
            "Here:\n```json\n{\"thought\": \"t\", \"actions\": [{\"name\": \"ocr\", \"arguments\": {\"image\": \"img_0\"}}]}\n```",
            &ocr,
            &[Repair::Garbage],
        ),
        (
            r#"{'thought': "it's", 'actions': [{'name': 'ocr', 'arguments': {'image': 'img_0'}}]}"#,
            &ocr,
            &[Repair::Quotes],
        ),
        (r#"{"name": "ocr", "arguments": {"image": "img_0"}}"#, &ocr, &[Repair::Shape]),
        // OpenThinkIMG's Terminate, with `ans` and, as in four of its own examples, with `answer`.
        (
            r#"{"thought": "t", "actions": [{"name": "Terminate", "arguments": {"ans": "1985"}}]}"#,
            &Calls(&[("answer", r#"{"answer":"1985"}"#)]),
            &[Repair::ToolName],
        ),
        (
            r#"{"thought": "t", "actions": [{"name": "Terminate", "arguments": {"answer": "1985"}}]}"#,
            &Calls(&[("answer", r#"{"answer":"1985"}"#)]),
            &[Repair::ToolName],
        ),
        (
            r#"{"thought": "t", "actions": [{"name": "ZoomInSubfigure", "arguments": {"image": "img_0", "param": "left [a [b]]"}}]}"#,
            &Calls(&[("zoom_in_subfigure", r#"{"image":"img_0","param":"left [a [b]]"}"#)]),
            &[Repair::ToolName],
        ),
        (
            r#"{"thought": "t", "actions": [{"name": "DrawHorizontalLineByY", "arguments": {}}, {"name": "ocr", "arguments": {}}]}"#,
            &Calls(&[("draw_horizontal_line_by_y", "{}"), ("ocr", "{}")]),
            &[Repair::ToolName],
        ),
        (r#"{"thought": "only a thought", "actions": []}"#, &Prose("only a thought"), &[]),
        (r#"{"thought": "only a thought"}"#, &Prose(r#"{"thought": "only a thought"}"#), &[]),
        ("The answer is 7.", &Prose("The answer is 7."), &[]),
        (r"It is \frac{1}{2}.", &Prose(r"It is \frac{1}{2}."), &[]),
        (
            r#"{"thought": "t", "actions": [{"name": "ocr", "arguments": {"image": img}}]}"#,
            &Complains("expected a value"),
            &[],
        ),
        (r#"{"thought": "t", "actions": [{"API_name": "ocr"}]}"#, &Complains("`name` is missing"), &[]),
        (
            r#"{"thought": "t", "actions": ["ocr"]}"#,
            &Complains("a call is a JSON object, this is a string"),
            &[],
        ),
        (
            r#"{"thought": "t", "actions": [{"name": "Fly", "arguments": {}}]}"#,
            &Complains("There is no tool `Fly`"),
            &[],
        ),
    ];
    for (text, want, repairs) in cases {
        check(CallFormat::Actions, text, want, repairs);
    }
}

#[test]
fn openai_calls() {
    let parsed = calls_from_openai(
        &json!([
            {"id": "c1", "type": "function", "function": {"name": "crop", "arguments": "{\"image\": \"img_0\"}"}},
            {"id": "c2", "type": "function", "function": {"name": "crop", "arguments": "{\"image\": \"img_"}},
            {"id": "c3", "type": "function", "function": {"name": "ocr", "arguments": ""}},
            {"id": "c4", "type": "function", "function": {"arguments": "{}"}},
            17
        ]),
        &NAMES,
    );
    let calls: Vec<_> =
        parsed.calls.iter().map(|c| c.as_ref().map(|c| (c.id.as_str(), c.arguments.len()))).collect();
    assert_eq!(calls[0].as_ref().unwrap(), &("c1", 1));
    assert!(calls[1].as_ref().unwrap_err().to_string().contains("a closing \""));
    assert!(calls[3].as_ref().unwrap_err().to_string().contains("`name` is missing"));
    assert!(calls[4].as_ref().unwrap_err().to_string().contains("this is a number"));
    assert!(parsed.repairs.is_empty());
    assert!(calls_from_openai(&Value::Null, &NAMES).calls.is_empty());
    assert!(calls_from_openai(&json!("x"), &NAMES).calls[0].is_err());
    assert_eq!(read_arguments("crop", " ").unwrap().0, Map::new());
    assert_eq!(read_arguments("crop", "{a: 1}").unwrap().1, [Repair::BareKey]);
    assert!(matches!(read_arguments("crop", &"x".repeat(MAX_TEXT + 1)), Err(Complaint::TooLong { .. })));
}

#[test]
fn latex_survives_json() {
    let text = r#"{"a": "\frac{1}{2}", "b": "3\times 4", "c": "\theta\neq\beta", "d": "a\tb\nc", "e": "\rho", "f": "\text{cm}"}"#;
    let (value, repairs) = read_json(text).unwrap();
    let want = json!({"a": r"\frac{1}{2}", "b": r"3\times 4", "c": r"\theta\neq\beta", "d": "a\tb\nc", "e": r"\rho", "f": r"\text{cm}"});
    assert_eq!(value, want);
    assert_eq!(repairs, [Repair::Escape]);
    // Unknown escapes keep their backslash; known ones mean what they mean.
    assert_eq!(read_json(r#"{"a": "\(x\)"}"#).unwrap().0, json!({"a": r"\(x\)"}));
    assert_eq!(read_json(r#"['\u00e9\ud83d\ude00']"#).unwrap().0, json!(["é😀"]));
}

#[test]
fn floods_are_bounded() {
    // Each would take hours if the reader were quadratic or went back.
    for text in [
        "[".repeat(60_000),
        "{\"a\":".repeat(10_000),
        "<tool_call>".repeat(5_000),
        "<tool_call></tool_call>".repeat(2_500),
        format!("<tool_call>{}</tool_call>", "{}".repeat(30_000)),
        format!("<tool_call>{}</tool_call>", "{\"name\":\"ocr\"}".repeat(4_000)),
        "<".repeat(60_000),
        format!("<tool_call>{{'a': '{}", "\\".repeat(60_000)),
    ] {
        for format in [CallFormat::Hermes, CallFormat::Actions, CallFormat::OpenAi] {
            assert!(format.parse(&text, &NAMES).calls.len() <= MAX_CALLS_PER_TURN + 1);
        }
    }
    let long = CallFormat::Hermes.parse(&" ".repeat(MAX_TEXT + 1), &NAMES);
    assert!(matches!(long.calls[..], [Err(Complaint::TooLong { .. })]));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        // Backspace, form feed and a lone return cannot be meant; see `lenient`.
        "[^\u{8}\u{c}\r\t\n]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[^\u{8}\u{c}\r\t\n]{0,6}", inner), 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_call() -> impl Strategy<Value = ToolCall> {
    (prop::sample::select(&NAMES[..]), prop::collection::vec(("[a-z_]{1,8}", any_json()), 0..4)).prop_map(
        |(name, arguments)| ToolCall {
            id: String::new(),
            name: name.to_owned(),
            arguments: arguments.into_iter().filter(|(k, _)| k != "ans").collect(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rendered_calls_are_read_back(calls in prop::collection::vec(any_call(), 1..4), thought in "[a-z ,.]{0,20}") {
        for format in [CallFormat::Hermes, CallFormat::Actions] {
            let parsed = format.parse(&format.render(&thought, &calls), &NAMES);
            let read: Vec<ToolCall> = parsed.calls.into_iter().map(|c| c.unwrap()).collect();
            prop_assert_eq!(&read, &calls);
            prop_assert_eq!(&parsed.prose, thought.trim());
            prop_assert!(parsed.repairs.is_empty());
        }
        let parsed = calls_from_openai(&calls_to_openai(&calls), &NAMES);
        let read: Vec<ToolCall> = parsed.calls.into_iter().map(|c| ToolCall { id: String::new(), ..c.unwrap() }).collect();
        prop_assert_eq!(&read, &calls);
    }

    #[test]
    fn no_text_crashes_the_reader(text in "\\PC{0,200}") {
        for format in [CallFormat::Hermes, CallFormat::Actions, CallFormat::OpenAi] {
            let parsed = format.parse(&text, &NAMES);
            parsed.calls.iter().filter_map(|c| c.as_ref().err()).for_each(|c| { let _ = c.to_string(); });
        }
        let _ = read_json(&text);
    }

    /// A good call with bytes changed, dropped and doubled, as a small model at high temperature would.
    #[test]
    fn damaged_calls_are_read_or_complained_about(
        call in any_call(),
        edits in prop::collection::vec((0usize..400, 0usize..3, any::<char>()), 1..6),
    ) {
        for format in [CallFormat::Hermes, CallFormat::Actions] {
            let mut text: Vec<char> = format.render("I look.", std::slice::from_ref(&call)).chars().collect();
            for (at, kind, c) in &edits {
                let at = at % text.len().max(1);
                match kind {
                    0 if at < text.len() => { text.remove(at); }
                    1 if at < text.len() => text[at] = *c,
                    _ => text.insert(at.min(text.len()), *c),
                }
            }
            let text: String = text.into_iter().collect();
            for complaint in format.parse(&text, &NAMES).calls.iter().filter_map(|c| c.as_ref().err()) {
                prop_assert!(!complaint.to_string().is_empty());
            }
        }
    }

    #[test]
    fn strict_json_reads_as_itself(value in any_json()) {
        let (read, repairs) = read_json(&value.to_string()).unwrap();
        prop_assert_eq!(read, value);
        prop_assert!(repairs.is_empty());
    }
}

/// Whatever is wrong with a call, the right one that is shown is read back without repairs and fits its tool.
#[test]
fn the_right_call_of_a_complaint_is_one() {
    let registry = Registry::standard(Limits::default()).with::<ocelli_tools::tools::Detect>();
    let bare = ToolSpec {
        name: "aaa_without_example".into(),
        description: "Of another server.".into(),
        parameters: json!({"type": "object", "properties": {"image": {"type": "string"}}, "required": ["image"]}),
        example: Map::new(),
    };
    let registry = Registry::empty(Limits::default())
        .with_declared(Declared::recorded(bare))
        .only(&["aaa_without_example"])
        .map(|first| {
            registry
                .specs()
                .iter()
                .fold(first, |all, s| all.with_declared(registry.declared(&s.name).unwrap().clone()))
        })
        .unwrap();
    let specs = registry.specs();
    let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    let shown = |told: &str| told.split_once("A right call looks like this: ").expect(told).1.to_owned();
    let check = |format: CallFormat, told: &str, tool: Option<&str>| {
        let example = shown(told);
        let parsed = match format {
            CallFormat::OpenAi => {
                calls_from_openai(&json!([serde_json::from_str::<Value>(&example).unwrap()]), &names)
            }
            _ => format.parse(&example, &names),
        };
        assert!(parsed.repairs.is_empty() && parsed.calls.len() == 1, "{told}\n{parsed:?}");
        let call = parsed.calls[0].as_ref().unwrap();
        registry.check(call).unwrap_or_else(|e| panic!("{told}\n{e}"));
        if let Some(tool) = tool {
            assert_eq!(call.name, tool, "{told}");
        }
    };
    for name in names.iter().copied() {
        let tool = (name != "aaa_without_example").then_some(name);
        for (format, text) in [
            (
                CallFormat::Hermes,
                format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {{]}}</tool_call>"),
            ),
            (
                CallFormat::Hermes,
                format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": 7}}</tool_call>"),
            ),
            (
                CallFormat::Actions,
                format!("{{\"thought\": \"x\", \"actions\": [{{\"name\": \"{name}\", \"arguments\": [}}"),
            ),
            (CallFormat::Actions, format!("{{\"actions\": [{{\"name\": \"{name}\", \"arguments\": 7}}]}}")),
        ] {
            let parsed = format.parse(&text, &names);
            let complaint = parsed.calls[0].as_ref().expect_err(&text);
            check(format, &complaint.told(format, &specs), tool);
        }
        for raw in ["{]", "[1, 2"] {
            let complaint = read_arguments(name, raw).expect_err(raw);
            check(CallFormat::OpenAi, &complaint.told(CallFormat::OpenAi, &specs), tool);
        }
    }
    for (format, text) in
        [(CallFormat::Hermes, "<tool_call></tool_call>"), (CallFormat::Hermes, "<tool_call>7</tool_call>")]
    {
        let parsed = format.parse(text, &names);
        check(format, &parsed.calls[0].as_ref().expect_err(text).told(format, &specs), None);
    }
}
