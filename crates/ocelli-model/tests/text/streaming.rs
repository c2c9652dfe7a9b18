//! Text as it is generated, stop strings, and sequences that join and leave while others run; with a tokenizer whose tokens are
//! pieces of text.

use std::collections::HashMap;
use std::path::Path;

use ocelli_model::generate::{Engine, EngineLimits, Sampling, SeqId, StopReason, Turn};
use ocelli_model::{TextModel, Tokenizer};
use ocelli_tensor::Params;
use serde_json::json;

use crate::tiny::model;

const LIMITS: EngineLimits = EngineLimits { max_active: 8, rows_per_step: 64 };

/// 32 tokens: `a0`, `b1`, ... without anything between them.
fn tokenizer() -> Tokenizer {
    let vocab: serde_json::Map<_, _> = (0..32u32).map(|i| (piece(i), json!(i))).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a0"},
    });
    Tokenizer::from_bytes(json.to_string().as_bytes(), Path::new("tokenizer.json")).unwrap()
}

fn piece(id: u32) -> String {
    let letter = char::from(b'a' + (id % 26) as u8);
    format!("{letter}{id}")
}

fn text_of(ids: &[u32]) -> String {
    ids.iter().map(|&i| piece(i)).collect()
}

fn sampling(max_new_tokens: usize) -> Sampling {
    Sampling { max_new_tokens, ..Sampling::default() }
}

/// All turns, and what was streamed of each.
fn run(engine: &mut Engine<'_>) -> (Vec<Turn>, HashMap<SeqId, String>) {
    let mut shown: HashMap<SeqId, String> = HashMap::new();
    let turns = engine.run(|id, text| shown.entry(id).or_default().push_str(text)).unwrap();
    (turns, shown)
}

fn alone(model: &TextModel, params: &Params, t: &Tokenizer, prompt: &[u32], s: &Sampling, seed: u64) -> Turn {
    let mut engine = Engine::new(model, params, Some(t), LIMITS).unwrap();
    engine.start(prompt.to_vec().into(), 1, s, seed, 0).unwrap();
    run(&mut engine).0.remove(0)
}

#[test]
fn what_is_streamed_is_the_text_of_the_turn() {
    let ((model, params), t) = (model("llama_tied"), tokenizer());
    let mut engine = Engine::new(&model, &params, Some(&t), LIMITS).unwrap();
    engine.start(vec![3, 17, 5].into(), 3, &sampling(12), 1, 0).unwrap();
    let (turns, shown) = run(&mut engine);
    assert_eq!(turns.len(), 3);
    for turn in turns {
        assert_eq!(turn.text, text_of(&turn.ids));
        assert_eq!(shown[&turn.seq], turn.text);
    }
}

#[test]
fn a_stop_string_across_tokens_cuts_the_text_and_not_the_ids() {
    let ((model, params), t) = (model("llama_tied"), tokenizer());
    let prompt = [3, 17, 5];
    let free = alone(&model, &params, &t, &prompt, &sampling(16), 5);
    // The end of one token and the beginning of the next: no token is that string.
    let whole = text_of(&free.ids[..8]);
    let stop: String = [&piece(free.ids[6])[1..], &piece(free.ids[7])[..1]].concat();
    let at = whole.find(&stop).unwrap();
    let s = Sampling { stop_strings: vec!["never".into(), stop.clone()], ..sampling(16) };
    let mut engine = Engine::new(&model, &params, Some(&t), LIMITS).unwrap();
    engine.start(prompt.to_vec().into(), 1, &s, 5, 0).unwrap();
    let (turns, shown) = run(&mut engine);
    let turn = &turns[0];
    assert_eq!(turn.reason, StopReason::Text(stop.clone()));
    assert_eq!(turn.text, whole[..at]);
    assert_eq!(shown[&turn.seq], turn.text, "no part of a stop string is shown");
    assert_eq!(turn.ids, free.ids[..turn.ids.len()]);
    assert!(text_of(&turn.ids).contains(&stop), "the ids hold the tokens that made the stop string");
    assert_eq!(turn.logprobs.len(), turn.ids.len());
}

#[test]
fn the_beginning_of_a_stop_string_is_shown_when_the_turn_ends_otherwise() {
    let ((model, params), t) = (model("llama_tied"), tokenizer());
    let prompt = [3, 17, 5];
    let free = alone(&model, &params, &t, &prompt, &sampling(6), 5);
    // The last token begins this stop string, and the token limit comes first.
    let stop = format!("{}~", piece(free.ids[5]));
    let s = Sampling { stop_strings: vec![stop], ..sampling(6) };
    let mut engine = Engine::new(&model, &params, Some(&t), LIMITS).unwrap();
    engine.start(prompt.to_vec().into(), 1, &s, 5, 0).unwrap();
    let (turns, shown) = run(&mut engine);
    assert_eq!((&turns[0].reason, &turns[0].text), (&StopReason::MaxTokens, &text_of(&free.ids)));
    assert_eq!(shown[&turns[0].seq], turns[0].text);
}

#[test]
fn a_stop_token_before_a_stop_string_gives_the_token_as_reason() {
    let ((model, params), t) = (model("llama_tied"), tokenizer());
    let prompt = [3, 17, 5];
    let free = alone(&model, &params, &t, &prompt, &sampling(6), 5);
    let last = free.ids[3];
    let s = Sampling { stop_ids: vec![last], stop_strings: vec![piece(last)], ..sampling(6) };
    let turn = alone(&model, &params, &t, &prompt, &s, 5);
    let first = free.ids.iter().position(|&i| i == last).unwrap();
    assert_eq!((turn.reason, turn.ids), (StopReason::Token(last), free.ids[..=first].to_vec()));
    assert_eq!(turn.text, text_of(&free.ids[..first]));
}

#[test]
fn sequences_that_join_while_others_run_are_as_if_alone() {
    let ((model, params), t) = (model("qwen2_untied"), tokenizer());
    let prompts: [&[u32]; 4] = [&[3, 17, 5], &[9; 11], &[1], &[30, 2, 2, 8, 1]];
    let lengths = [14, 3, 9, 6];
    // Two places for four sequences, which arrive at different times.
    let mut engine =
        Engine::new(&model, &params, Some(&t), EngineLimits { max_active: 2, rows_per_step: 4 }).unwrap();
    let (mut ids, mut turns, mut steps) = (Vec::new(), Vec::new(), 0);
    while ids.len() < 4 || !engine.is_idle() {
        if steps % 3 == 0 && ids.len() < 4 {
            let i = ids.len();
            ids.extend(
                engine.start(prompts[i].to_vec().into(), 1, &sampling(lengths[i]), i as u64, 0).unwrap(),
            );
        }
        turns.extend(engine.step().unwrap().ended);
        steps += 1;
    }
    turns.sort_by_key(|t: &Turn| t.seq);
    for (i, turn) in turns.iter().enumerate() {
        let want = alone(&model, &params, &t, prompts[i], &sampling(lengths[i]), i as u64);
        assert_eq!((turn.seq, &turn.ids, &turn.text), (ids[i], &want.ids, &want.text), "sequence {i}");
    }
}

#[test]
fn a_released_sequence_leaves_and_the_others_do_not_notice() {
    let ((model, params), t) = (model("llama_tied"), tokenizer());
    let limits = EngineLimits { max_active: 3, rows_per_step: 8 };
    let group = |release: &[usize], after: usize| {
        let mut engine = Engine::new(&model, &params, Some(&t), limits).unwrap();
        let ids = engine.start(vec![3, 17, 5].into(), 5, &sampling(8), 2, 0).unwrap();
        let mut ended = Vec::new();
        for _ in 0..after {
            ended.extend(engine.step().unwrap().ended);
        }
        release.iter().for_each(|&i| engine.release(ids[i]));
        ended.extend(run(&mut engine).0);
        ended.sort_by_key(|t: &Turn| t.seq);
        ended.into_iter().map(|t| (t.seq.0, t.ids)).collect::<Vec<_>>()
    };
    let all = group(&[], 0);
    assert_eq!(all.len(), 5);
    let without = |gone: &[u64]| all.iter().filter(|(s, _)| !gone.contains(s)).cloned().collect::<Vec<_>>();
    // While queued as a group, while some run and some wait, and twice.
    assert_eq!(group(&[1], 0), without(&[1]));
    assert_eq!(group(&[0, 4], 3), without(&[0, 4]));
    assert_eq!(group(&[2, 2], 4), without(&[2]));
    assert_eq!(group(&[0, 1, 2, 3, 4], 2), vec![]);
}

#[test]
fn a_turn_of_one_token_and_a_group_of_none() {
    let ((model, params), t) = (model("llama_tied"), tokenizer());
    let mut engine = Engine::new(&model, &params, Some(&t), LIMITS).unwrap();
    assert_eq!(engine.start(vec![3].into(), 0, &sampling(1), 0, 0).unwrap(), vec![]);
    assert!(engine.is_idle());
    let ids = engine.start(vec![3].into(), 2, &sampling(1), 0, 0).unwrap();
    let (turns, _) = run(&mut engine);
    assert_eq!(turns.iter().map(|t| (t.seq, t.ids.len())).collect::<Vec<_>>(), [(ids[0], 1), (ids[1], 1)]);
    assert!(engine.step().unwrap().ended.is_empty(), "an idle engine does nothing");
}

#[test]
fn a_stop_string_ends_a_second_turn_by_what_that_turn_says() {
    let ((model, params), t) = (model("llama_tied"), tokenizer());
    let mut engine = Engine::new(&model, &params, Some(&t), LIMITS).unwrap();
    let id = engine.start(vec![3, 17, 5].into(), 1, &sampling(4), 5, 0).unwrap()[0];
    let (first, _) = run(&mut engine);
    // The end of the first turn together with the beginning of the second would be this string: it must not count.
    let end = piece(first[0].ids[3]);
    let mut probe = Engine::new(&model, &params, Some(&t), LIMITS).unwrap();
    probe.start(vec![3, 17, 5].into(), 1, &sampling(4), 5, 0).unwrap();
    run(&mut probe);
    probe.resume(id, vec![7].into(), &sampling(5)).unwrap();
    let (free, _) = run(&mut probe);
    let stop = format!("{end}{}", piece(free[0].ids[0]));
    let s = Sampling { stop_strings: vec![stop], ..sampling(5) };
    engine.resume(id, vec![7].into(), &s).unwrap();
    let (second, shown) = run(&mut engine);
    assert_eq!((&second[0].ids, &second[0].reason), (&free[0].ids, &StopReason::MaxTokens));
    assert_eq!(shown[&id], text_of(&free[0].ids));
}
