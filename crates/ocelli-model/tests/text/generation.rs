//! The engine on tiny decoders: against the plain forward pass, and against itself in other company.

use ocelli_model::generate::{
    Engine, EngineLimits, MropePositions, Prompt, Sampling, Splice, StopReason, Turn,
};
use ocelli_model::{ModelConfig, TextModel, TextNames};
use ocelli_tensor::{DType, Params, SeqLayout, Tape, Tensor};
use rand::SeedableRng;
use serde_json::json;

use crate::tiny::{cases, model};

const LIMITS: EngineLimits = EngineLimits { max_active: 8, rows_per_step: 64 };

fn sampling(max_new_tokens: usize) -> Sampling {
    Sampling { max_new_tokens, ..Sampling::default() }
}

/// All turns for prompts that start together, by sequence.
fn run(
    model: &TextModel,
    params: &Params,
    limits: EngineLimits,
    jobs: &[(&[u32], usize, Sampling, u64)],
) -> Vec<Turn> {
    let mut engine = Engine::new(model, params, None, limits).unwrap();
    for (prompt, n, sampling, seed) in jobs {
        engine.start(prompt.to_vec().into(), *n, sampling, *seed, 0).unwrap();
    }
    engine.run(|_, _| {}).unwrap()
}

/// Log-probabilities of `answer` after `prompt` from one whole forward pass.
fn scored(model: &TextModel, params: &Params, prompt: &[u32], answer: &[u32], temperature: f32) -> Vec<f32> {
    let ids = [prompt, answer].concat();
    let mut tape = Tape::inference(params);
    let hidden = model.hidden(&mut tape, &ids, &SeqLayout::causal(&[ids.len()]), false).unwrap();
    let rows: Vec<usize> = (prompt.len() - 1..ids.len() - 1).collect();
    model.logprobs(&mut tape, &hidden, &rows, answer, temperature).unwrap().logprob.value().to_vec()
}

fn near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 2e-5, "{a} and {b}");
    }
}

#[test]
fn log_probabilities_are_those_of_a_whole_pass() {
    for case in cases() {
        let (model, params) = model(&case);
        let prompt = [3, 17, 5, 9, 30];
        let s = Sampling { temperature: 0.7, ..sampling(10) };
        for turn in run(&model, &params, LIMITS, &[(&prompt, 3, s, 11)]) {
            assert_eq!((turn.ids.len(), turn.reason), (10, StopReason::MaxTokens));
            near(&turn.logprobs, &scored(&model, &params, &prompt, &turn.ids, 0.7));
            near(&turn.raw_logprobs, &scored(&model, &params, &prompt, &turn.ids, 1.0));
        }
    }
}

#[test]
fn greedy_takes_the_most_likely_token_of_a_whole_pass() {
    let (model, params) = model("llama_tied");
    let prompt = [3, 17, 5];
    let turns = run(
        &model,
        &params,
        LIMITS,
        &[(&prompt, 1, Sampling { max_new_tokens: 12, ..Sampling::greedy() }, 0)],
    );
    let mut ids = prompt.to_vec();
    for &id in &turns[0].ids {
        let mut tape = Tape::inference(&params);
        let hidden = model.hidden(&mut tape, &ids, &SeqLayout::causal(&[ids.len()]), false).unwrap();
        let logits = model.logits(&mut tape, &hidden, &[ids.len() - 1]).unwrap().value().to_vec();
        let best = (0..logits.len()).fold(0, |b, i| if logits[i] > logits[b] { i } else { b });
        assert_eq!(best as u32, id);
        ids.push(id);
    }
}

#[test]
fn company_queueing_and_chunked_prompts_change_nothing() {
    let (model, params) = model("qwen3_head_dim");
    let (a, b, c): (Vec<u32>, Vec<u32>, Vec<u32>) = ((0..20).collect(), vec![4, 9], vec![8; 7]);
    let jobs: Vec<(&[u32], usize, Sampling, u64)> =
        vec![(&a, 3, sampling(9), 1), (&b, 2, sampling(5), 2), (&c, 1, sampling(14), 3)];
    let together = run(&model, &params, LIMITS, &jobs);
    let alone: Vec<Turn> =
        jobs.iter().flat_map(|j| run(&model, &params, LIMITS, std::slice::from_ref(j))).collect();
    let crowded = run(&model, &params, EngineLimits { max_active: 2, rows_per_step: 3 }, &jobs);
    assert_eq!(together.len(), 6);
    for other in [&alone, &crowded] {
        for (x, y) in together.iter().zip(other) {
            assert_eq!((&x.ids, &x.reason), (&y.ids, &y.reason));
            near(&x.logprobs, &y.logprobs);
        }
    }
    assert_ne!(together[0].ids, together[1].ids, "members of a group draw different numbers");
    // The same calls give the same bits.
    assert_eq!(run(&model, &params, LIMITS, &jobs), together);
}

#[test]
fn a_group_sampled_in_parts_is_the_same_group() {
    let (model, params) = model("llama_tied");
    let prompt: Vec<u32> = vec![3, 17, 5, 9];
    let whole = run(&model, &params, LIMITS, &[(&prompt, 4, sampling(6), 7)]);
    let mut engine = Engine::new(&model, &params, None, LIMITS).unwrap();
    engine.start(prompt.clone().into(), 1, &sampling(6), 7, 0).unwrap();
    engine.start(prompt.into(), 3, &sampling(6), 7, 1).unwrap();
    let parts = engine.run(|_, _| {}).unwrap();
    let ids = |turns: &[Turn]| turns.iter().map(|t| t.ids.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&whole), ids(&parts));
}

#[test]
fn a_resumed_sequence_sees_prompt_answer_and_observation() {
    let (model, params) = model("qwen2_untied");
    let prompt = vec![3, 17, 5];
    let mut engine = Engine::new(&model, &params, None, LIMITS).unwrap();
    let ids = engine.start(prompt.clone().into(), 2, &sampling(4), 1, 0).unwrap();
    let first = engine.run(|_, _| {}).unwrap();
    let observation = vec![9, 9, 2];
    for id in &ids {
        assert_eq!(engine.context_len(*id), Some(7));
        engine.resume(*id, observation.clone().into(), &sampling(5)).unwrap();
    }
    let second = engine.run(|_, _| {}).unwrap();
    for (a, b) in first.iter().zip(&second) {
        let context = [&prompt[..], &a.ids, &observation].concat();
        near(&b.logprobs, &scored(&model, &params, &context, &b.ids, 1.0));
    }
    assert!(engine.resume(ids[0], vec![99].into(), &sampling(5)).is_err());
    assert_eq!(engine.context_len(ids[0]), Some(15), "a refused observation leaves the sequence as it was");
    engine.release(ids[0]);
    assert_eq!(engine.context_len(ids[0]), None);
}

#[test]
fn stop_tokens_and_a_full_context_end_a_turn() {
    let (model, params) = model("llama_tied");
    let prompt = [3, 17, 5];
    let free = &run(&model, &params, LIMITS, &[(&prompt, 1, sampling(20), 5)])[0];
    let stop = free.ids[6];
    let first = free.ids.iter().position(|i| *i == stop).unwrap();
    let s = Sampling { stop_ids: vec![stop], ..sampling(20) };
    let stopped = &run(&model, &params, LIMITS, &[(&prompt, 1, s, 5)])[0];
    assert_eq!(stopped.reason, StopReason::Token(stop));
    assert_eq!(stopped.ids, free.ids[..=first]);

    // The context is 64 tokens.
    let long: Vec<u32> = (0..60).map(|i| i % 30).collect();
    let full = &run(&model, &params, LIMITS, &[(&long, 1, sampling(20), 5)])[0];
    assert_eq!((full.ids.len(), &full.reason), (4, &StopReason::ContextFull));
}

#[test]
fn impossible_requests_say_why() {
    let (model, params) = model("llama_tied");
    let mut engine = Engine::new(&model, &params, None, LIMITS).unwrap();
    let mut refuse = |prompt: Prompt, s: Sampling, words: &[&str]| {
        let error = engine.start(prompt, 1, &s, 0, 0).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    refuse(vec![].into(), sampling(1), &["empty"]);
    refuse(vec![1; 64].into(), sampling(1), &["64 new tokens", "64 tokens"]);
    refuse(vec![1, 32].into(), sampling(1), &["token id 32", "position 1", "32"]);
    refuse(vec![1].into(), Sampling { temperature: -1.0, ..sampling(1) }, &["temperature -1"]);
    refuse(vec![1].into(), Sampling { temperature: f32::NAN, ..sampling(1) }, &["temperature"]);
    refuse(vec![1].into(), Sampling { top_p: 0.0, ..sampling(1) }, &["top_p"]);
    refuse(vec![1].into(), Sampling { min_p: 2.0, ..sampling(1) }, &["min_p"]);
    refuse(vec![1].into(), sampling(0), &["max_new_tokens"]);
    refuse(vec![1].into(), Sampling { stop_strings: vec!["x".into()], ..sampling(1) }, &["tokenizer"]);
    let features = |at, shape: &[usize]| Prompt {
        ids: vec![1; 4],
        splices: vec![Splice { at, rows: Tensor::zeros(shape, DType::F32), deep: vec![] }],
        positions: None,
    };
    refuse(features(3, &[2, 16]), sampling(1), &["[2, 16]", "4 tokens"]);
    refuse(features(0, &[2, 8]), sampling(1), &["[2, 8]", "width 16"]);
    let axes = [vec![0.0], vec![0.0], vec![0.0]];
    let positions = Some(MropePositions { axes, next: 1.0 });
    refuse(Prompt { ids: vec![1], splices: vec![], positions }, sampling(1), &["mrope_section"]);
    assert!(engine.resume(ocelli_model::SeqId(77), vec![1].into(), &sampling(1)).is_err());
}

#[test]
fn spliced_embeddings_of_the_same_token_change_nothing_and_others_do() {
    let (model, params) = model("llama_tied");
    let ids = vec![3, 17, 5, 9];
    let plain = run(&model, &params, LIMITS, &[(&ids, 1, sampling(8), 2)]);
    let table = params.get(model.embedding()).unwrap().value().clone();
    let with = |rows: Tensor, limits| {
        let mut placeholders = ids.clone();
        placeholders[1..3].fill(0);
        let mut engine = Engine::new(&model, &params, None, limits).unwrap();
        let prompt = Prompt {
            ids: placeholders,
            splices: vec![Splice { at: 1, rows, deep: vec![] }],
            positions: None,
        };
        engine.start(prompt, 1, &sampling(8), 2, 0).unwrap();
        engine.run(|_, _| {}).unwrap()
    };
    let row = |id: usize| table.slice_rows(id..id + 1).unwrap().to_vec();
    let same = Tensor::from_slice(&[2, 16], &[row(17), row(5)].concat()).unwrap();
    assert_eq!(with(same.clone(), LIMITS), plain);
    // The splice is cut by the chunks in which the prompt is read.
    let chunked = with(same, EngineLimits { max_active: 1, rows_per_step: 2 });
    assert_eq!(chunked[0].ids, plain[0].ids);
    let other = Tensor::full(&[2, 16], 0.5, DType::F32);
    assert_ne!(with(other, LIMITS)[0].logprobs, plain[0].logprobs);
}

#[test]
fn equal_multimodal_axes_are_plain_positions() {
    let config = json!({"model_type": "qwen2_vl", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 2, "tie_word_embeddings": true,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}});
    let build = |config: serde_json::Value| {
        let config = ModelConfig::from_value(config, "config.json".as_ref()).unwrap();
        let mut params = Params::new();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let model = TextModel::init(&mut params, &config.text, &TextNames::default(), &mut rng).unwrap();
        (model, params)
    };
    let (mrope, params) = build(config.clone());
    let mut flat = config;
    flat["rope_scaling"] = serde_json::Value::Null;
    let (plain, plain_params) = build(flat);
    let ids = vec![3, 17, 5, 9];
    let want = run(&plain, &plain_params, LIMITS, &[(&ids, 2, sampling(6), 2)]);
    assert_eq!(run(&mrope, &params, LIMITS, &[(&ids, 2, sampling(6), 2)]), want);
    let with = |axes: [Vec<f32>; 3], next| {
        let mut engine = Engine::new(&mrope, &params, None, LIMITS).unwrap();
        let prompt =
            Prompt { ids: ids.clone(), splices: vec![], positions: Some(MropePositions { axes, next }) };
        let seqs = engine.start(prompt, 2, &sampling(6), 2, 0).unwrap();
        let first = engine.run(|_, _| {}).unwrap();
        engine.resume(seqs[0], vec![4].into(), &sampling(3)).unwrap();
        (first, engine.run(|_, _| {}).unwrap())
    };
    let line = vec![0.0, 1.0, 2.0, 3.0];
    let (first, second) = with([line.clone(), line.clone(), line.clone()], 4.0);
    assert_eq!(first, want);
    near(&second[0].logprobs, &{
        let context = [&ids[..], &first[0].ids, &[4]].concat();
        scored(&plain, &plain_params, &context, &second[0].ids, 1.0)
    });
    let (moved, _) = with([line.clone(), vec![0.0, 1.0, 1.0, 2.0], line], 9.0);
    assert_ne!(moved[0].logprobs, want[0].logprobs);
}
