//! What must hold for every model that sees.

use ocelli_model::vlm::{Context, Group, Part};
use ocelli_model::{EngineLimits, ModelError, Sampling, Vlm};
use ocelli_tensor::{Grads, Tape, Tensor};

use crate::pictures::{Album, album, ask, png, small};
use crate::reference;

/// States of one context alone. `[N, D]`
fn states(vlm: &Vlm, context: &Context) -> Vec<f32> {
    let batch = vlm.pack(&[Group::single(context)]).unwrap();
    let mut tape = Tape::inference(&vlm.params);
    vlm.hidden(&mut tape, &batch, false).unwrap().value().to_vec()
}

fn close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 2e-5, "{what}: off by {off}");
}

fn two_pictures(vlm: &Vlm) -> (Album, Vec<ocelli_data::ContentHash>, [Context; 3]) {
    let (album, hashes) = album(&[png(20, 20, 1), png(32, 17, 2)]);
    let contexts = [
        ask(vlm, &album, &hashes, "How many?"),
        ask(vlm, &album, &hashes[1..], "Which one?"),
        ask(vlm, &album, &[], "2 + 3 ="),
    ];
    (album, hashes, contexts)
}

#[test]
fn a_batch_computes_what_each_context_computes_alone() {
    let vlm = small();
    let (_, _, contexts) = two_pictures(&vlm);
    let groups: Vec<Group<'_>> = contexts.iter().map(Group::single).collect();
    let batch = vlm.pack(&groups).unwrap();
    let mut tape = Tape::inference(&vlm.params);
    let together = vlm.hidden(&mut tape, &batch, false).unwrap().value().to_vec();
    let alone: Vec<f32> = contexts.iter().flat_map(|c| states(&vlm, c)).collect();
    close(&together, &alone, "batch");
}

#[test]
fn later_tokens_do_not_change_earlier_states() {
    let vlm = small();
    let (_, _, [context, ..]) = two_pictures(&vlm);
    let before = states(&vlm, &context);
    let mut longer = context.clone();
    longer.push(&[7, 8, 9]);
    close(&states(&vlm, &longer)[..before.len()], &before, "causality");
}

#[test]
fn a_picture_changes_the_states_behind_it_and_none_before() {
    let vlm = small();
    let (album, hashes) = album(&[png(20, 20, 1), png(20, 20, 5)]);
    let [a, b] = [0, 1].map(|i| ask(&vlm, &album, &hashes[i..=i], "How many?"));
    assert_eq!(a.ids(), b.ids());
    let (first, width) = (a.images()[0].rows.start, states(&vlm, &a).len() / a.len());
    let (a, b) = (states(&vlm, &a), states(&vlm, &b));
    close(&a[..first * width], &b[..first * width], "before the picture");
    for (row, (a, b)) in a.chunks(width).zip(b.chunks(width)).enumerate().skip(first) {
        assert!(a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-4), "row {row} does not see the picture");
    }
}

#[test]
fn a_shared_prompt_computes_what_copies_compute() {
    let vlm = small();
    let (_, _, [context, ..]) = two_pictures(&vlm);
    let answers: Vec<Context> = [vec![5, 6], vec![9], vec![4, 3, 2]]
        .iter()
        .map(|a| {
            let mut c = context.clone();
            c.push(a);
            c
        })
        .collect();
    let group = Group { contexts: answers.iter().collect(), shared: context.len() };
    let batch = vlm.pack(&[group]).unwrap();
    assert_eq!(batch.rows(), context.len() + 6);
    let mut tape = Tape::inference(&vlm.params);
    let packed = vlm.hidden(&mut tape, &batch, false).unwrap().value().to_vec();
    let width = packed.len() / batch.rows();
    for (s, answer) in answers.iter().enumerate() {
        let alone = states(&vlm, answer);
        for t in 0..answer.len() {
            let row = batch.row(s, t).unwrap();
            close(&packed[row * width..][..width], &alone[t * width..][..width], "shared prompt");
        }
    }
    // The pictures went through the tower once for the batch, and nothing that is not shared is taken for shared.
    let wrong = Group { contexts: answers.iter().collect(), shared: context.len() + 1 };
    assert!(matches!(vlm.pack(&[wrong]), Err(ModelError::Request(_))));
}

#[test]
fn every_trainable_parameter_gets_a_gradient() {
    let vlm = small();
    let (_, _, contexts) = two_pictures(&vlm);
    let mut context = contexts[0].clone();
    context.push(&[1, 2, 3]);
    let batch = vlm.pack(&[Group::single(&context)]).unwrap();
    let n = context.len();
    let (rows, targets) = batch.predictions(0, n - 3..n).unwrap();
    let mut tape = Tape::train(&vlm.params);
    let hidden = vlm.hidden(&mut tape, &batch, true).unwrap();
    let lp = vlm.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0).unwrap().logprob;
    let mut grads = Grads::new();
    let seed = Tensor::from_slice(&[3], &[-1.0f32 / 3.0; 3]).unwrap();
    tape.backward_from(&[(&lp, seed)], &mut grads).unwrap();
    for (id, p) in vlm.params.iter() {
        let grad = grads.get(id).unwrap_or_else(|| panic!("no gradient for {}", p.name())).to_vec();
        assert!(grad.iter().all(|g| g.is_finite()), "{}", p.name());
        assert!(grad.iter().any(|g| *g != 0.0), "the gradient of {} is zero", p.name());
    }
}

#[test]
fn states_of_some_rows_are_those_rows_with_the_same_gradients() {
    let vlm = small();
    let (_, _, [context, ..]) = two_pictures(&vlm);
    let batch = vlm.pack(&[Group::single(&context)]).unwrap();
    let n = context.len();
    let rows = [n - 1, 2, n - 1, n - 3];
    for checkpoint in [false, true] {
        let run = |some: bool| {
            let mut tape = Tape::train(&vlm.params);
            let (hidden, at) = match some {
                true => (vlm.hidden_at(&mut tape, &batch, &rows, checkpoint).unwrap(), vec![0, 1, 2, 3]),
                false => (vlm.hidden(&mut tape, &batch, checkpoint).unwrap(), rows.to_vec()),
            };
            let targets = [3, 1, 4, 1];
            let lp = vlm.logprobs(&mut tape, &hidden, (&at, &targets), 1.0).unwrap().logprob;
            let mut grads = Grads::new();
            let seed = Tensor::from_slice(&[4], &[-0.25f32; 4]).unwrap();
            tape.backward_from(&[(&lp, seed)], &mut grads).unwrap();
            (lp.value().to_vec(), grads)
        };
        let ((some, g), (all, h)) = (run(true), run(false));
        close(&some, &all, "log-probabilities");
        for (id, p) in vlm.params.iter() {
            let (g, h) = (g.get(id).unwrap().to_vec(), h.get(id).unwrap().to_vec());
            let top = h.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
            let off = g.iter().zip(&h).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-4 * top, "{}: off by {off} of {top}", p.name());
        }
    }
}

#[test]
fn the_model_looks_and_a_blind_one_is_found() {
    let mut vlm = small();
    let (_, _, [context, _, text]) = two_pictures(&vlm);
    let mut context = context.clone();
    context.push(&[1, 2, 3]);
    let answer = context.len() - 3..context.len();
    let found = vlm.assert_sees(&context, answer.clone(), 1e-4).unwrap();
    assert!(found.gain().abs() > 1e-4 && found.seen < 0.0);
    assert!(vlm.image_sensitivity(&text, 1..2).is_err(), "there is nothing to see");
    // A projector of zeros passes nothing on.
    let ids: Vec<_> = vlm.parameters(Part::Projector).collect();
    for id in ids {
        let zero = Tensor::zeros(vlm.params.get(id).unwrap().value().shape(), ocelli_tensor::DType::F32);
        vlm.params.set_value(id, zero).unwrap();
    }
    assert!(matches!(vlm.assert_sees(&context, answer, 1e-4), Err(ModelError::Blind { .. })));
}

#[test]
fn features_of_a_frozen_tower_are_computed_once() {
    let mut vlm = small();
    let (_, _, contexts) = two_pictures(&vlm);
    let thawed = states(&vlm, &contexts[0]);
    assert_eq!(vlm.feature_stats().computed, 2);
    vlm.set_trainable(Part::Tower, false).unwrap();
    let first = states(&vlm, &contexts[0]);
    let again = states(&vlm, &contexts[0]);
    let one = states(&vlm, &contexts[1]);
    assert_eq!(first, thawed);
    assert_eq!(again, thawed);
    let stats = vlm.feature_stats();
    assert_eq!((stats.computed, stats.reused), (4, 3));
    assert!(stats.bytes > 0);
    vlm.set_feature_memory(0);
    assert_eq!(vlm.feature_stats().bytes, 0);
    close(&states(&vlm, &contexts[1]), &one, "computed again, now by itself");
}

#[test]
fn generation_continues_what_training_computes() {
    let vlm = small();
    let (album, hashes, [context, ..]) = two_pictures(&vlm);
    let mut engine = vlm.engine(EngineLimits { max_active: 4, rows_per_step: 16 }).unwrap();
    let before = vlm.feature_stats().computed;
    let prompt = vlm.generation_prompt(&context, 0).unwrap();
    let sampling = Sampling { max_new_tokens: 4, ..Sampling::default() };
    let ids = engine.start(prompt, 3, &sampling, 11, 0).unwrap();
    let turns = engine.run(|_, _| ()).unwrap();
    // Two pictures, three answers: each picture went through the tower once.
    assert_eq!(vlm.feature_stats().computed - before, 2);
    assert_eq!(turns.len(), 3);
    let check = |context: &Context, first: usize, expected: &[f32], what: &str| {
        let batch = vlm.pack(&[Group::single(context)]).unwrap();
        let (rows, targets) = batch.predictions(0, first..first + expected.len()).unwrap();
        let mut tape = Tape::inference(&vlm.params);
        let hidden = vlm.hidden(&mut tape, &batch, false).unwrap();
        let lp = vlm.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0).unwrap().logprob;
        close(&lp.value().to_vec(), expected, what);
    };
    let mut contexts = Vec::new();
    for turn in &turns {
        let mut c = context.clone();
        c.push(&turn.ids);
        check(&c, context.len(), &turn.logprobs, "first turn");
        contexts.push(c);
    }
    // A second turn with another picture in the observation.
    let mut c = contexts[1].clone();
    let from = c.len();
    let result = ocelli_data::ToolResult {
        id: String::new(),
        name: "crop".into(),
        content: vec![ocelli_data::Part::image(hashes[1])],
        is_error: false,
    };
    let options = ocelli_model::ChatOptions::prompt();
    vlm.continue_dialogue(&mut c, &[ocelli_data::Message::tool(result)], &options, &album).unwrap();
    engine.resume(ids[1], vlm.generation_prompt(&c, from).unwrap(), &sampling).unwrap();
    let turns = engine.run(|_, _| ()).unwrap();
    let first = c.len();
    c.push(&turns[0].ids);
    check(&c, first, &turns[0].logprobs, "second turn");
}

/// The fixture's models, with the contexts that `reference.rs` compares (one picture, two of different sizes, text).
fn families() -> Vec<(&'static str, Vlm, Vec<Context>)> {
    let fixture = reference::fixture();
    let load = |name: &'static str| {
        let vlm = reference::load(&fixture["families"][name]);
        let contexts = reference::contexts(&fixture, &vlm, name);
        (name, vlm, contexts)
    };
    reference::FAMILIES.map(load).into()
}

#[test]
fn all_families_compute_in_a_batch_what_they_compute_alone() {
    for (name, vlm, contexts) in families() {
        let batch = vlm.pack(&contexts.iter().map(Group::single).collect::<Vec<_>>()).unwrap();
        let mut tape = Tape::inference(&vlm.params);
        let together = vlm.hidden(&mut tape, &batch, false).unwrap().value().to_vec();
        let alone: Vec<f32> = contexts.iter().flat_map(|c| states(&vlm, c)).collect();
        close(&together, &alone, name);
    }
}

#[test]
fn all_families_decode_what_they_prefill() {
    for (name, vlm, contexts) in families() {
        let limits = EngineLimits { max_active: 4, rows_per_step: 7 };
        let mut engine = vlm.engine(limits).unwrap();
        let sampling = Sampling { max_new_tokens: 5, ..Sampling::default() };
        for (i, context) in contexts.iter().enumerate() {
            let prompt = vlm.generation_prompt(context, 0).unwrap();
            engine.start(prompt, 2, &sampling, 1, 10 * i as u64).unwrap();
        }
        let turns = engine.run(|_, _| ()).unwrap();
        assert_eq!(turns.len(), 6);
        for (i, turn) in turns.iter().enumerate() {
            let mut context = contexts[i / 2].clone();
            let first = context.len();
            context.push(&turn.ids);
            let batch = vlm.pack(&[Group::single(&context)]).unwrap();
            let (rows, targets) = batch.predictions(0, first..context.len()).unwrap();
            let mut tape = Tape::inference(&vlm.params);
            let hidden = vlm.hidden(&mut tape, &batch, false).unwrap();
            let lp = vlm.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0).unwrap().logprob;
            close(&lp.value().to_vec(), &turn.logprobs, name);
        }
    }
}

#[test]
fn all_families_train_every_parameter() {
    for (name, vlm, contexts) in families() {
        let (_, grads) = reference::loss_and_grads(&vlm, &contexts, true);
        for (id, p) in vlm.params.iter() {
            let grad =
                grads.get(id).unwrap_or_else(|| panic!("{name}: no gradient for {}", p.name())).to_vec();
            assert!(grad.iter().all(|g| g.is_finite()), "{name}: {}", p.name());
            assert!(grad.iter().any(|g| *g != 0.0), "{name}: the gradient of {} is zero", p.name());
        }
    }
}

#[test]
fn all_families_look() {
    for (name, vlm, contexts) in families() {
        let n = contexts[0].len();
        let found = vlm.assert_sees(&contexts[0], n - 3..n, 1e-3);
        assert!(found.is_ok(), "{name}: {found:?}");
    }
}

#[test]
fn frozen_parts_keep_their_values_and_cost_no_gradient() {
    for (name, mut vlm, contexts) in families() {
        vlm.set_trainable(Part::Tower, false).unwrap();
        vlm.set_trainable(Part::Language, false).unwrap();
        let (_, grads) = reference::loss_and_grads(&vlm, &contexts, false);
        let projector: Vec<_> = vlm.parameters(Part::Projector).collect();
        assert!(!projector.is_empty(), "{name}");
        for id in vlm.params.ids() {
            assert_eq!(
                grads.get(id).is_some(),
                projector.contains(&id),
                "{name}: {}",
                vlm.params.get(id).unwrap().name()
            );
        }
    }
}
