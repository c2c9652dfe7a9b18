//! Group rollouts with a real (tiny, untrained) vision-language model and real tools: what it sampled can be scored
//! again by the training path, token for token, with the same log-probabilities.

mod toy;

use std::sync::Arc;

use ocelli_agent::batching::{BatchConfig, Driver};
use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Loan, Report, Until};
use ocelli_agent::episode::Job;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::local::LocalPolicy;
use ocelli_agent::tokens::Renderer;
use ocelli_agent::tool_env::ToolEnvConfig;
use ocelli_agent::vlm_policy::{VlmModel, VlmRenderer};
use ocelli_data::Message;
use ocelli_model::Vlm;
use ocelli_model::generate::Sampling;
use ocelli_model::vlm::Group;
use ocelli_model::vlm::tiny::TinyConfig;
use ocelli_tensor::Tape;
use toy::{samples, standard_tools, world};

fn model() -> Vlm {
    Vlm::tiny(&TinyConfig::preset("tiny-0.5m").unwrap(), 3).unwrap()
}

fn roll(vlm: &Vlm, batch: BatchConfig, until: Until) -> (Report, ocelli_agent::episode::World) {
    let mut driver = Driver::new(batch);
    let toolbox = standard_tools();
    let renderer = Arc::new(VlmRenderer::new(vlm, &toolbox.specs()).unwrap());
    let policy = Arc::new(LocalPolicy::new(&driver, renderer));
    let env = ToolEnvConfig { instructions: false, ..ToolEnvConfig::default() };
    let limits = RolloutLimits { turns: 3, turn_tokens: 12, seconds: 300.0, ..RolloutLimits::default() };
    let world = world(policy, toolbox, env, limits);
    let jobs = Job::group(&samples(&world, 2), 3, 7);
    let mut lent = VlmModel::new(vlm, Sampling::default(), 5, batch.rows).unwrap();
    let loan = Loan { driver: &mut driver, model: &mut lent };
    let report =
        Engine::new(8).unwrap().run(Some(loan), &world, &Control::default(), jobs, until, &mut |_| {});
    (report, world)
}

#[test]
fn sampled_log_probabilities_are_those_of_training() {
    let vlm = model();
    let (report, world) = roll(&vlm, BatchConfig { rows: 4, ..BatchConfig::default() }, Until::AllEnded);
    assert_eq!(report.ended.len(), 6);
    let mut checked = 0;
    for ended in &report.ended {
        let t = &ended.trajectory;
        t.validate().unwrap();
        assert!(t.status.is_policy_end(), "{:?}: {:?}", t.status, ended.why);
        assert!(t.weight_versions.iter().all(|v| *v == 5));
        assert_eq!(t.images.len(), 1);
        let context = vlm.context_of(t, &*world.pictures).unwrap();
        assert_eq!(context.ids(), t.ids);
        let batch = vlm.pack(&[Group::single(&context)]).unwrap();
        let mut tape = Tape::inference(&vlm.params);
        let hidden = vlm.hidden(&mut tape, &batch, false).unwrap();
        let mask = t.mask();
        let at: Vec<usize> = (0..mask.len()).filter(|i| mask[*i]).collect();
        let rows: Vec<usize> = at.iter().map(|i| batch.row(0, i - 1).unwrap()).collect();
        let targets: Vec<u32> = at.iter().map(|i| t.ids[*i]).collect();
        let scored = vlm.logprobs(&mut tape, &hidden, (&rows, &targets), 1.0).unwrap();
        let trained = scored.logprob.value().as_slice::<f32>().unwrap().to_vec();
        for (trained, sampled) in trained.iter().zip(&t.logprobs) {
            assert!((trained - sampled).abs() < 2e-3, "trained {trained}, sampled {sampled}");
            checked += 1;
        }
    }
    assert!(checked > 30);
}

#[test]
fn sharing_and_batches_change_no_token() {
    let vlm = model();
    let ids =
        |report: Report| -> Vec<Vec<u32>> { report.ended.into_iter().map(|e| e.trajectory.ids).collect() };
    let shared = ids(roll(&vlm, BatchConfig { rows: 6, ..BatchConfig::default() }, Until::AllEnded).0);
    let alone = BatchConfig { rows: 1, share_prompts: false, ..BatchConfig::default() };
    assert_eq!(shared, ids(roll(&vlm, alone, Until::AllEnded).0));
    // The attempts of a group differ, or there would be nothing to learn from.
    assert_ne!(shared[0], shared[1]);
}

#[test]
fn prompt_and_observation_are_what_the_template_writes_at_once() {
    let vlm = model();
    let pictures = ocelli_agent::pictures::Pictures::in_memory(1 << 20);
    let hash = pictures.put(toy::picture(90).bytes().clone()).unwrap();
    let question = toy::sample("s", &[hash]).messages.clone();
    let renderer = VlmRenderer::new(&vlm, &[]).unwrap();
    let seen = Message::user([ocelli_data::Part::image(hash), ocelli_data::Part::text("And here?")]);
    let whole: Vec<Message> =
        question.iter().cloned().chain([Message::assistant("a square"), seen.clone()]).collect();
    let whole = renderer.prompt(&whole, &pictures).unwrap();
    let prompt = renderer.prompt(&question, &pictures).unwrap();
    let end = *vlm.eos_ids.iter().find(|id| prompt.ids.contains(id)).unwrap();
    for last in [Some(end), None] {
        let mut ids = prompt.ids.clone();
        ids.extend(vlm.tokenizer().unwrap().encode("a square").unwrap());
        ids.extend(last);
        let observed = renderer.observation(std::slice::from_ref(&seen), last, &pictures).unwrap();
        ids.extend(&observed.ids);
        assert_eq!(ids, whole.ids);
        assert_eq!([prompt.images.clone(), observed.images].concat(), whole.images);
    }
}
