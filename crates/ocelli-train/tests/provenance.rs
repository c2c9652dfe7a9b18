//! Which tokens are trained: every sampled token of every turn of a recorded tool trajectory, and nothing else; and the
//! context of training is that of the rollout.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::*;
use ocelli_data::{Message, Part, Span, SpanKind, Status, ToolResult, Trajectory};
use ocelli_model::ChatOptions;
use ocelli_model::vlm::Vlm;
use ocelli_tensor::{Grads, Tape, Tensor};
use ocelli_train::examples::from_dialogue;
use ocelli_train::responses::{Pass, Response, TokenGrads, learn, score};

/// A dialogue of two turns with a tool picture between them, as a rollout records it.
fn recorded(m: &Vlm) -> (Trajectory, Vec<Message>, Bytes) {
    let (items, bytes) = items(2, 9);
    let picture = items[1].pictures[0].hash;
    let result = ToolResult {
        id: String::new(),
        name: "crop".into(),
        content: vec![Part::text("img_1"), Part::image(picture)],
        is_error: false,
    };
    let call = r#"<tool_call>{"name": "crop", "arguments": {"image": "img_0"}}</tool_call>"#;
    let mut messages = items[0].sample.messages.clone();
    let mut spans = Vec::new();
    let mut context = m.prompt(&messages, &ChatOptions::prompt(), &bytes).unwrap();
    spans.push(Span { kind: SpanKind::Prompt, len: context.len() });
    let encode = |text: &str| m.tokenizer().unwrap().encode(text).unwrap();
    let say = |context: &mut ocelli_model::vlm::Context, spans: &mut Vec<Span>, text: &str, end: bool| {
        let before = context.len();
        context.push(&encode(text));
        if end {
            context.push(&m.eos_ids[..1]);
        }
        spans.push(Span { kind: SpanKind::Sampled, len: context.len() - before });
    };
    // The policy samples the end-of-turn token itself; the template's continuation begins behind it.
    say(&mut context, &mut spans, call, true);
    messages.push(Message::assistant(call));
    let new = [Message::tool(result)];
    let mut after = context.clone();
    after.truncate(context.len() - 1).unwrap();
    let rows = m.continue_dialogue(&mut after, &new, &ChatOptions::prompt(), &bytes).unwrap();
    spans.push(Span { kind: SpanKind::Observation, len: rows.len() - 1 });
    context = after;
    messages.extend(new);
    say(&mut context, &mut spans, "It is 7.", true);
    messages.push(Message::assistant("It is 7."));
    let sampled = spans.iter().filter(|s| s.kind == SpanKind::Sampled).map(|s| s.len).sum();
    let trajectory = Trajectory {
        sample_id: "recorded".into(),
        attempt: 0,
        messages: messages.clone(),
        ids: context.ids().to_vec(),
        spans,
        logprobs: vec![-1.0; sampled],
        weight_versions: vec![],
        images: context.images().iter().map(|i| i.hash).collect(),
        tools: vec![],
        status: Status::Answered,
        scores: vec![],
    };
    trajectory.validate().unwrap();
    (trajectory, messages, bytes)
}

#[test]
fn every_sampled_token_of_every_turn_and_no_other() {
    let m = model(4);
    let (t, _, bytes) = recorded(&m);
    let response = Response::of_trajectory(&m, &t, &bytes).unwrap();
    let mask = t.mask();
    let expected: Vec<usize> = (0..mask.len()).filter(|i| mask[*i]).collect();
    assert_eq!(response.trained, expected);
    let turns = t.spans.iter().filter(|s| s.kind == SpanKind::Sampled).count();
    assert_eq!((turns, response.context.images().len()), (2, 2));
    assert_eq!(response.context.ids(), t.ids, "nothing is tokenised again");
    // The text of the second turn is trained: V-ToolRL's code stopped at the first end-of-turn token.
    let second = m.tokenizer().unwrap().encode("It is 7.").unwrap();
    let tail: Vec<u32> = expected.iter().rev().take(second.len() + 1).rev().map(|i| t.ids[*i]).collect();
    assert_eq!(tail[..second.len()], second);
    assert_eq!(tail[second.len()], m.eos_ids[0]);
}

#[test]
fn gradients_flow_from_sampled_tokens_only() {
    // The gradient of the response's loss equals that of a plain pass in which *every* position is predicted and all but
    // the sampled ones have weight zero, by the definition of the mask; and each single token of either turn moves it.
    let m = model(4);
    let (t, _, bytes) = recorded(&m);
    let response = Response::of_trajectory(&m, &t, &bytes).unwrap();
    let run = |weights: &(dyn Fn(usize) -> f64 + Sync)| {
        let mut grads = Grads::new();
        learn(&m, &[vec![&response]], Pass::default(), &mut grads, |s| {
            Ok(vec![TokenGrads { d_logp: (0..s[0].logp.len()).map(weights).collect(), d_entropy: vec![] }])
        })
        .unwrap();
        grads
    };
    let whole = run(&|_| -1.0);
    let mut reference = Grads::new();
    let context = m.context_of(&t, &bytes).unwrap();
    let batch = m.pack(&[ocelli_model::vlm::Group::single(&context)]).unwrap();
    let mut tape = Tape::train(&m.params);
    let hidden = m.hidden(&mut tape, &batch, false).unwrap();
    let rows: Vec<usize> = (0..t.ids.len() - 1).collect();
    let out = m.logprobs(&mut tape, &hidden, (&rows, &t.ids[1..]), 1.0).unwrap();
    let seed: Vec<f32> = t.mask()[1..].iter().map(|trained| if *trained { -1.0 } else { 0.0 }).collect();
    let seed = Tensor::from_slice(&[rows.len()], &seed).unwrap();
    tape.backward_from(&[(&out.logprob, seed)], &mut reference).unwrap();
    let norm = reference.norm();
    for ((_, a), (_, b)) in whole.iter().zip(reference.iter()) {
        let apart: f64 = a.to_vec().iter().zip(b.to_vec()).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        assert!(apart.sqrt() < 1e-5 * norm);
    }
    for token in 0..response.trained.len() {
        assert!(run(&|t| if t == token { 1.0 } else { 0.0 }).norm() > 1e-6, "token {token} has no gradient");
    }
}

#[test]
fn the_tool_picture_is_seen() {
    // With the second picture replaced by the first, what is said after it must change.
    let m = model(4);
    let (t, _, bytes) = recorded(&m);
    let mut swapped = t.clone();
    swapped.images[1] = swapped.images[0];
    let stats = |t: &Trajectory| {
        let r = Response::of_trajectory(&m, t, &bytes).unwrap();
        score(&m, &[vec![&r]], Pass::default()).unwrap()[0].logp.clone()
    };
    let (a, b) = (stats(&t), stats(&swapped));
    let first = t.spans[1].len;
    // Two equal pictures go through the tower once, so its products have other shapes and round differently.
    let same = a[..first].iter().zip(&b[..first]).all(|(x, y)| (x - y).abs() < 2e-6);
    assert!(same, "the first turn was said before the second picture: {:?} {:?}", &a[..first], &b[..first]);
    assert!(a[first..].iter().zip(&b[first..]).any(|(x, y)| (x - y).abs() > 1e-5));
}

#[test]
fn a_written_dialogue_has_the_tokens_of_the_rollout() {
    let m = model(4);
    let (t, messages, bytes) = recorded(&m);
    let written = from_dialogue(&m, "x", &messages, &bytes).unwrap();
    assert_eq!(written.context.ids(), t.ids);
    let mask = t.mask();
    // The end-of-turn token of a turn that others follow is trained as well, although the template writes it.
    let expected: Vec<usize> = (0..mask.len()).filter(|i| mask[*i]).collect();
    assert_eq!(written.trained, expected, "the end of a calling turn must be learned too");
}
