//! The oracle's plan of each world, run through the real tools: the answer scores full marks, and what the tools say
//! leads to it. The tools know nothing of the truth; they look at the pixels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ocelli_agent::control::Control;
use ocelli_agent::engine::{Engine, Until};
use ocelli_agent::episode::{Ended, Job, World as Rollouts};
use ocelli_agent::formats::CallFormat;
use ocelli_agent::limits::RolloutLimits;
use ocelli_agent::pictures::Pictures;
use ocelli_agent::policy::BoxFuture;
use ocelli_agent::score::score;
use ocelli_agent::scripted::ScriptedPolicy;
use ocelli_agent::tool_env::{AnswerRule, ToolEnvConfig, ToolEnvs};
use ocelli_agent::toolbox::{LocalTools, Toolbox};
use ocelli_data::{Sample, Score, Status, ToolCall};
use ocelli_reward::{Accuracy, Rubric, Scorer};
use ocelli_tools::{Images, Limits, Registry, Reply, ToolError, ToolSpec};
use ocelli_worlds::{Item, Level, Setup, world};
use serde_json::{Value, json};

/// What the tools said to each call of each picture: their data, or their complaint.
type Seen = Arc<Mutex<BTreeMap<String, Result<Value, String>>>>;

fn key(hash: impl std::fmt::Display, call: &ToolCall) -> String {
    format!("{hash} {} {}", call.name, Value::Object(call.arguments.clone()))
}

/// The real tools, with their data kept beside the text that the policy reads.
struct Watched(LocalTools, Seen);

impl Toolbox for Watched {
    fn specs(&self) -> Arc<[ToolSpec]> {
        self.0.specs()
    }

    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        images: &'a Images,
        time: Duration,
    ) -> BoxFuture<'a, Result<Reply, ToolError>> {
        Box::pin(async move {
            let reply = self.0.call(call, images, time).await;
            let heard = reply.as_ref().map(|r| r.data.clone()).map_err(ToString::to_string);
            if let Some(first) = images.get(0) {
                self.1.lock().unwrap().insert(key(first.picture.hash(), call), heard);
            }
            reply
        })
    }
}

struct Case {
    item: Item,
    ended: Ended,
    /// What each step of the plan led to.
    heard: Vec<Result<Value, String>>,
}

impl Case {
    fn skill(&self) -> &str {
        self.item.sample.meta.get("skill").and_then(Value::as_str).unwrap_or("all")
    }

    fn answer(&self) -> &str {
        &self.item.plan.answer
    }
}

/// Rolls out the plans of `count` items with the real tools.
fn cases(name: &str, level: Level, count: u64) -> Vec<Case> {
    let setup = Setup::new(448, 336, level).unwrap();
    let world = world(name).unwrap();
    let items: Vec<Item> = (0..count).map(|i| world.generate(17, i, &setup).unwrap()).collect();
    let pictures = Arc::new(Pictures::in_memory(512 << 20));
    let samples: Vec<Arc<Sample>> = items
        .iter()
        .map(|item| {
            item.pictures.iter().for_each(|p| {
                pictures.put(p.bytes.clone().into()).unwrap();
            });
            let mut sample = item.sample.clone();
            sample.meta.insert("plan".into(), serde_json::to_value(&item.plan).unwrap());
            Arc::new(sample)
        })
        .collect();
    let seen = Seen::default();
    let tools = LocalTools::new(Arc::new(Registry::standard(Limits::default())), 2);
    let env = ToolEnvConfig { answer: AnswerRule::Tool, ..ToolEnvConfig::default() };
    let toolbox = Arc::new(Watched(tools, seen.clone()));
    let envs = Arc::new(ToolEnvs::new(env, toolbox, pictures.clone(), Limits::default()));
    let policy = Arc::new(ScriptedPolicy::oracle(CallFormat::Hermes));
    let limits = RolloutLimits { seconds: 900.0, ..RolloutLimits::default() };
    let rollouts = Rollouts { policy, envs, pictures, limits };
    let jobs = Job::group(&samples, 1, 0);
    let engine = Engine::new(4).unwrap();
    let mut rows = engine.run(None, &rollouts, &Control::default(), jobs, Until::AllEnded, &mut |_| {}).ended;
    let rubric = Rubric::new(vec![(1.0, Box::new(Accuracy::default()) as Box<dyn Scorer>)]).unwrap();
    score(&mut rows, &rubric, samples.iter().map(AsRef::as_ref));
    let seen = seen.lock().unwrap();
    items
        .into_iter()
        .zip(rows)
        .map(|(item, ended)| {
            let hash = item.pictures[0].hash;
            let heard = item.plan.steps.iter().map(|s| seen[&key(hash, &s.call)].clone()).collect();
            Case { item, ended, heard }
        })
        .collect()
}

/// Every plan of the world runs to its end, and its answer scores full marks.
fn all_answered(cases: &[Case]) {
    for c in cases {
        let t = &c.ended.trajectory;
        assert_eq!(t.status, Status::Answered, "{}: {:?}", t.sample_id, c.ended.why);
        assert_eq!(t.score("reward").and_then(|s: &Score| s.value), Some(1.0), "{}", t.sample_id);
        assert_eq!(t.tools.len(), c.item.plan.steps.len() + 1, "{}", t.sample_id);
    }
}

/// Per skill: items of which `leads` says that the tools' replies lead to the answer, and all items with calls.
fn tally(cases: &[Case], leads: impl Fn(&Case) -> bool) -> BTreeMap<String, (usize, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for c in cases.iter().filter(|c| !c.heard.is_empty()) {
        let entry = counts.entry(c.skill().to_owned()).or_default();
        let right = leads(c);
        entry.0 += usize::from(right);
        entry.1 += 1;
        if !right {
            eprintln!("{} ({}): {} but {:?}", c.item.sample.id, c.skill(), c.answer(), c.heard);
        }
    }
    eprintln!("{counts:?}");
    counts
}

/// At least `share` of the items that call tools, and at least one of each skill in `skills`.
fn at_least(counts: &BTreeMap<String, (usize, usize)>, share: f64, skills: &[&str]) {
    for skill in skills {
        assert!(counts.contains_key(*skill), "no item asks {skill}: {counts:?}");
    }
    let (right, all) = counts.values().fold((0, 0), |(r, a), (right, all)| (r + right, a + all));
    assert!(right as f64 >= share * all as f64, "{right} of {all}: {counts:?}");
}

/// How many things `point` found; a thing that is not there is answered by a complaint that says so.
fn found(heard: &Result<Value, String>) -> Option<usize> {
    match heard {
        Ok(data) => data["points"].as_array().map(Vec::len),
        Err(why) => why.contains("found nothing").then_some(0),
    }
}

#[test]
fn counting() {
    for level in [Level::Easy, Level::Medium, Level::Hard] {
        let cases = cases("counting", level, 120);
        all_answered(&cases);
        let counts = tally(&cases, |c| {
            let found: Option<Vec<usize>> = c.heard.iter().map(found).collect();
            let Some(found) = found else { return false };
            match (c.skill(), found.as_slice()) {
                ("exists", [n]) => (*n > 0) == (c.answer() == "yes"),
                ("compare", [a, b]) => {
                    let asked = |i: usize| c.item.plan.steps[i].call.arguments["label"].as_str().unwrap();
                    let right = match a.cmp(b) {
                        std::cmp::Ordering::Greater => asked(0).split(' ').next().unwrap(),
                        std::cmp::Ordering::Less => asked(1).split(' ').next().unwrap(),
                        std::cmp::Ordering::Equal => "equal",
                    };
                    right == c.answer()
                }
                (_, [n]) => n.to_string() == c.answer(),
                _ => false,
            }
        });
        at_least(&counts, 0.99, &["count_one", "count_both", "exists", "compare"]);
    }
}

#[test]
fn geometry() {
    for level in [Level::Easy, Level::Medium, Level::Hard] {
        let cases = cases("geometry", level, 60);
        all_answered(&cases);
        let counts = tally(&cases, |c| {
            let [Ok(read), Ok(calculated)] = c.heard.as_slice() else { return false };
            let texts: Vec<String> = read["lines"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|l| l["text"].as_str())
                .map(|t| t.chars().filter(char::is_ascii_digit).collect())
                .collect();
            // Every measure that stands in the picture was read; the degree sign may be read as something else.
            let drawn = c.item.truth.labels.iter().filter(|l| l.text != "?");
            let all = drawn.map(|l| l.text.trim_end_matches('°').to_owned()).all(|n| texts.contains(&n));
            all && calculated["decimal"] == json!(c.answer())
        });
        at_least(
            &counts,
            0.9,
            &["triangle_angle", "rectangle_area", "rectangle_perimeter", "hypotenuse", "line_angle"],
        );
    }
}

/// The numbers that the calls of `measure` gave, in order.
fn measured(c: &Case) -> Option<Vec<f64>> {
    let steps = c.item.plan.steps.iter().zip(&c.heard).filter(|(s, _)| s.call.name == "measure");
    steps
        .map(|(step, heard)| {
            let data = heard.as_ref().ok()?;
            match step.call.arguments["what"].as_str()? {
                "share" => data["percent"].as_f64(),
                "bar" => data["length"].as_f64(),
                _ => data["y"].as_f64(),
            }
        })
        .collect()
}

#[test]
fn charts() {
    for level in [Level::Easy, Level::Medium, Level::Hard] {
        let cases = cases("charts", level, 120);
        all_answered(&cases);
        let counts = tally(&cases, |c| {
            let Some(numbers) = measured(c) else { return false };
            let right =
                |said: &str| Accuracy::default().score_text(said, &c.item.sample.target).value == Some(1.0);
            match (c.skill(), numbers.as_slice()) {
                ("value", [v]) => right(&format!("{v:.4}")),
                // A difference of two readings, each right to 2 % of the axis.
                ("difference", [a, b]) => {
                    let range = c.item.truth.axes.first().map_or(100.0, |x| (x.value1 - x.value0).abs());
                    let gold: f64 = c.answer().parse().unwrap_or(f64::NAN);
                    (a - b - gold).abs() <= 0.02 * range
                }
                ("compare", [a, b]) => (a > b) == (c.answer() == "yes"),
                ("trend", [first, last]) => (last > first) == (c.answer() == "rises"),
                ("extremum", [best, second]) => {
                    let largest = c.item.plan.conclusion.contains("the largest");
                    if largest { best > second } else { best < second }
                }
                // The line at the threshold was drawn; what lies above it is for the policy to see.
                ("count", []) => c.heard.iter().all(Result::is_ok),
                _ => false,
            }
        });
        at_least(&counts, 0.9, &["value", "difference", "compare", "extremum", "count"]);
    }
}

/// No tool follows a line or completes a pattern, so these plans look for themselves and answer.
#[test]
fn paths_and_patterns() {
    for name in ["paths", "patterns"] {
        for level in [Level::Easy, Level::Medium, Level::Hard] {
            let cases = cases(name, level, 40);
            all_answered(&cases);
            assert!(cases.iter().all(|c| c.heard.is_empty()));
        }
    }
}
