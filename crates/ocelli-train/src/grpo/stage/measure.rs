//! The metrics of a step.

use std::collections::BTreeSet;

use ocelli_data::Trajectory;

use super::{Batch, Grpo, Sums};
use crate::error::TrainError;
use crate::grpo::batch::{Scored, cut_off};
use crate::hybrid_reward::Rewarded;
use crate::losses::mismatch_stats;
use crate::run::Metrics;

/// Phrases by which an answer admits that it does not see (R1V3, arXiv 2507.06167). English only, and a symptom, not a count of
/// hallucinations: those are `mentions`.
const BLIND: [&str; 4] =
    ["can't see the image", "cannot see the image", "no image is provided", "without the image"];

impl Grpo<'_> {
    pub(super) fn measure(
        &self,
        step: u64,
        groups: &[Scored],
        rounds: usize,
        sums: &Sums,
        batch: &Batch,
    ) -> Result<Metrics, TrainError> {
        let mut m: Metrics = vec![("loss".into(), sums.loss)];
        let flat: Vec<(&Trajectory, &Rewarded)> =
            groups.iter().flat_map(|g| g.trajectories.iter().zip(&g.rewards)).collect();
        let n = flat.len().max(1) as f64;
        let mean =
            |f: &dyn Fn(&Trajectory, &Rewarded) -> f64| flat.iter().map(|(t, r)| f(t, r)).sum::<f64>() / n;
        let share = |f: &dyn Fn(&Trajectory) -> bool| mean(&|t, _| f64::from(u8::from(f(t))));
        m.push(("reward".into(), mean(&|_, r| r.total)));
        m.push(("accuracy".into(), mean(&|_, r| r.accuracy)));
        let names: BTreeSet<&String> = flat.iter().flat_map(|(_, r)| r.parts.keys()).collect();
        for name in names {
            m.push((format!("reward/{name}"), mean(&|_, r| r.parts.get(name).copied().unwrap_or(0.0))));
        }
        let informative = groups.iter().filter(|g| g.stats.informative).count() as f64;
        m.push(("groups/informative".into(), informative / groups.len().max(1) as f64));
        m.push(("groups/rounds".into(), rounds as f64));
        if let Some(kept) = self.progress.kept.as_ref().filter(|_| step == 0) {
            m.push(("prompts/kept".into(), kept.len() as f64 / self.train.len().max(1) as f64));
        }
        if self.config.partial.is_some() {
            let ages = flat.iter().flat_map(|(t, _)| t.weight_versions.iter().map(|v| (step - v) as f64));
            let (count, sum, most) =
                ages.fold((0.0, 0.0, 0.0f64), |(n, s, m), age| (n + 1.0, s + age, m.max(age)));
            m.push(("rollout/staleness".into(), sum / f64::max(count, 1.0)));
            m.push(("rollout/staleness_max".into(), most));
            m.push(("rollout/carried".into(), self.progress.carried.len() as f64));
        }
        m.push(("response/length".into(), mean(&|t, _| t.sampled_len() as f64)));
        m.push(("response/truncated".into(), share(&|t| cut_off(t.status))));
        m.push(("response/failed".into(), share(&|t| !t.status.is_policy_end())));
        let blind = |t: &Trajectory| {
            let text = t.final_text().to_lowercase();
            BLIND.iter().any(|b| text.contains(b))
        };
        m.push(("response/blind".into(), share(&blind)));
        self.mentions(groups, &mut m);
        if self.rollouts.has_tools() {
            m.push(("tools/rate".into(), share(&|t| !t.tools.is_empty())));
            m.push(("tools/calls".into(), mean(&|t, _| t.tools.len() as f64)));
            let calls: f64 = flat.iter().map(|(t, _)| t.tools.len() as f64).sum();
            let errors: f64 =
                flat.iter().map(|(t, _)| t.tools.iter().filter(|u| u.result.is_error).count() as f64).sum();
            m.push(("tools/error_rate".into(), errors / calls.max(1.0)));
        }
        let p = &sums.policy;
        if p.tokens > 0.0 {
            m.push(("policy/entropy".into(), p.entropy / p.tokens));
            m.push(("policy/clip_fraction".into(), (p.clipped_low + p.clipped_high) / p.tokens));
            if let Some(kl) = batch.kl.or(self.config.loss.kl.map(|_| p.reference_kl / p.tokens)) {
                m.push(("policy/kl".into(), kl));
            }
            let failed = |source| TrainError::Loss { step, source };
            let mismatch = mismatch_stats(&sums.trainer, &sums.sampler).map_err(failed)?;
            m.push(("mismatch/k3".into(), mismatch.k3));
            m.push(("mismatch/max".into(), mismatch.max_abs));
            m.push(("mismatch/ess".into(), mismatch.ess));
        }
        if let Some(f) = batch.fill {
            m.push(("buffer/fill".into(), f.fill));
            m.push(("buffer/fresh_share".into(), f.fresh_share));
            m.push(("buffer/size".into(), self.progress.buffer.len() as f64));
            if f.replayed > 0 {
                m.push(("buffer/replayed".into(), f.replayed as f64));
                m.push(("buffer/age_p50".into(), f.age_p50));
                m.push(("buffer/age_p95".into(), f.age_p95));
                m.push(("buffer/ess".into(), f.ess));
                m.push(("buffer/drifted".into(), sums.drifted as f64));
                let r = &sums.replay;
                m.push(("buffer/clip_fraction".into(), (r.clipped_low + r.clipped_high) / r.tokens.max(1.0)));
            }
        }
        let every = self.config.dependence_every;
        if every > 0 && step.is_multiple_of(every) {
            m.extend(self.dependence(groups)?.map(|gain| ("image/dependence".to_owned(), gain)));
        }
        Ok(m)
    }

    /// What answers name of the picture's world; see `mentions`.
    fn mentions(&self, groups: &[Scored], m: &mut Metrics) {
        let found = groups.iter().flat_map(|g| {
            g.trajectories.iter().filter_map(|t| self.vocabulary.mentions(&g.sample, &t.messages))
        });
        let (mut judged, mut present, mut absent) = (0.0, 0.0, 0.0);
        for mentions in found {
            judged += 1.0;
            present += mentions.present as f64;
            absent += mentions.absent as f64;
        }
        if judged > 0.0 {
            m.push(("mentions/absent".into(), absent / judged));
        }
        if present + absent > 0.0 {
            m.push(("mentions/precision".into(), present / (present + absent)));
        }
    }

    /// How much the picture adds to the log-probability of the sampled tokens of the first turn: mean over up to four
    /// responses.
    fn dependence(&self, groups: &[Scored]) -> Result<Option<f64>, TrainError> {
        let pictures = self.rollouts.pictures().clone();
        let (mut sum, mut n) = (0.0, 0.0);
        for t in groups.iter().filter_map(|g| g.trajectories.iter().find(|t| Scored::is_trained(t))).take(4) {
            let context = self.model.context_of(t, pictures.as_ref())?;
            if context.images().is_empty() {
                continue;
            }
            let start = t.prompt_len();
            let turn = t.spans.iter().find(|s| s.kind == ocelli_data::SpanKind::Sampled).map_or(0, |s| s.len);
            if turn > 0 {
                sum += self.model.image_sensitivity(&context, start..start + turn)?.gain();
                n += 1.0;
            }
        }
        Ok((n > 0.0).then(|| sum / n))
    }
}
