//! The page of trajectories: hostile text stays text, images appear once, nothing is fetched, limits hold.

use std::sync::Arc;

use ocelli_agent::episode::Ended;
use ocelli_agent::viewer::{ViewerConfig, render};
use ocelli_data::{
    ContentHash, Message, Part, Score, Span, SpanKind, Status, ToolCall, ToolResult, ToolUse, Trajectory,
};
use serde_json::json;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";
const HOSTILE: &str =
    "</script><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>\"'&\u{202e}";

fn row(attempt: u32) -> Ended {
    let hash = ContentHash::of(PNG);
    let arguments = json!({"image": "img_0", HOSTILE: HOSTILE});
    let call = ToolCall {
        id: String::new(),
        name: HOSTILE.into(),
        arguments: arguments.as_object().unwrap().clone(),
    };
    let result = ToolResult {
        id: String::new(),
        name: HOSTILE.into(),
        content: vec![Part::text(HOSTILE)],
        is_error: true,
    };
    let trajectory = Trajectory {
        sample_id: HOSTILE.into(),
        attempt,
        messages: vec![
            Message::system(HOSTILE),
            Message::user([Part::image(hash), Part::image(ContentHash::of(b"missing")), Part::text(HOSTILE)]),
            Message::assistant(HOSTILE),
            Message::tool(result.clone()),
            Message::assistant("the end"),
        ],
        ids: vec![1, 2, 3],
        spans: vec![Span { kind: SpanKind::Prompt, len: 2 }, Span { kind: SpanKind::Sampled, len: 1 }],
        logprobs: vec![-0.5],
        weight_versions: vec![],
        images: vec![hash],
        tools: vec![ToolUse { turn: 0, call, result, millis: 1234.0, waited_ms: 5600.0 }],
        status: Status::Answered,
        scores: vec![(HOSTILE.into(), Score::new(1.0, HOSTILE, HOSTILE))],
    };
    Ended { trajectory, why: Some(HOSTILE.into()), seconds: 2.5 }
}

fn page(rows: &[Ended], config: &ViewerConfig) -> String {
    let hash = ContentHash::of(PNG);
    render(rows, config, &|h| (h == hash).then(|| Arc::from(PNG)))
}

#[test]
fn hostile_text_stays_text() {
    let config = ViewerConfig { title: HOSTILE.into(), subtitle: HOSTILE.into(), ..ViewerConfig::default() };
    let html = page(&[row(0)], &config);
    assert_eq!(html.matches("<script").count(), 1);
    assert_eq!(html.matches("</script").count(), 1);
    assert!(!html.contains("<img src") && !html.contains('\u{202e}'));
    assert!(!html.contains("alert(1)</"));
    // Nothing on the page names another place.
    for outside in ["src=\"http", "href=", "url(", "@import", "fetch("] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn an_image_is_embedded_once_and_a_missing_one_is_named() {
    let html = page(&[row(0), row(1), row(2)], &ViewerConfig::default());
    assert_eq!(html.matches("data:image/png;base64,").count(), 1);
    assert_eq!(html.matches(&format!("data-i=\"{}\"", ContentHash::of(PNG).short())).count(), 3);
    let missing = ContentHash::of(b"missing").short();
    assert_eq!(html.matches(&format!("image {missing} is not on this page")).count(), 3);
    assert_eq!(html.matches("class=\"card\"").count(), 3);
    assert!(html.contains("1.2 s") && html.contains("sampled 1") && html.contains("-0.500"));
}

#[test]
fn limits_are_said() {
    let rows: Vec<Ended> = (0..5).map(row).collect();
    let html =
        page(&rows, &ViewerConfig { max_trajectories: 2, max_image_bytes: 3, ..ViewerConfig::default() });
    assert_eq!(html.matches("class=\"card\"").count(), 2);
    assert!(html.contains("3 further trajectories are not on this page"));
    assert!(!html.contains("data:image"));
    let empty = page(&[], &ViewerConfig::default());
    assert!(empty.contains("<b>0</b><span>trajectories</span>"));
}

#[test]
fn what_is_no_image_is_not_embedded() {
    let html =
        render(&[row(0)], &ViewerConfig::default(), &|_| Some(Arc::from(&b"<svg onload=alert(1)>"[..])));
    assert!(!html.contains("base64,"));
}

#[test]
fn a_thousand_fit_on_one_page() {
    let rows: Vec<Ended> = (0..1000).map(row).collect();
    let html = page(&rows, &ViewerConfig::default());
    assert_eq!(html.matches("class=\"card\"").count(), 1000);
    assert!(!html.contains("further trajectories"));
}
