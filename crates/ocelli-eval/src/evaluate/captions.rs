//! Captions in place of pictures: asked first, then put into the prompts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ocelli_agent::endpoint::SamplingParams;
use ocelli_data::{Message, Part};

use super::{EvaluateError, Plan};
use crate::item::{CAPTION_PLACE, Item};
use crate::load::{Row, Table};
use crate::prompt::Renderer;
use crate::run::{Engine, Log, Progress, Request, RunHeader, request_key};

/// Asks for captions and puts them into the prompts. A caption that does not come leaves its place empty in the text,
/// which the answer then has to do without; the count is in the log.
pub(super) async fn captions(
    plan: &Plan<'_>,
    table: &Table,
    folder: &Path,
    header: &RunHeader,
    items: &mut [Item],
    progress: &mut impl FnMut(&str, Progress),
) -> Result<(), EvaluateError> {
    let Some(caption) = &plan.task.benchmark.prompt.caption else { return Ok(()) };
    let renderer = Renderer::new(plan.task);
    let rows: HashMap<&str, &Row> = table.rows.iter().map(|r| (r.id.as_str(), r)).collect();
    let sampling = SamplingParams {
        temperature: Some(0.0),
        max_tokens: Some(caption.max_tokens),
        ..SamplingParams::default()
    };
    let mut requests = Vec::with_capacity(items.len());
    for item in items.iter() {
        let Some(row) = rows.get(item.id.as_str()) else { continue };
        let variables = renderer.variables(row, &item.question, &item.options);
        let text = renderer.text(&item.id, &caption.user, &variables)?;
        let messages = Arc::new(vec![Message::user(renderer.cut(row, &text)?)]);
        requests.push(Request { item: item.id.clone(), variant: 0, sample: 0, messages });
    }
    let mut log = Log::open(folder, "captions", header)?;
    let engine = Engine { policy: plan.policy, sampling: &sampling, images: &table.images };
    engine.run(&requests, &mut log, None, |p| progress("captions", p)).await?;
    let name = plan.policy.name();
    for (item, request) in items.iter_mut().zip(&requests) {
        let text = log.answer(request_key(&name, request, &sampling)).map_or("", |e| e.text.as_str());
        for prompt in &mut item.prompts {
            for part in Arc::make_mut(prompt).iter_mut().flat_map(|m| &mut m.content) {
                if let Part::Text { text: body } = part {
                    *body = body.replace(CAPTION_PLACE, text);
                }
            }
        }
    }
    Ok(())
}
