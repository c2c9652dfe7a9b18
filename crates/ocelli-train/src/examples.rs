//! From dialogues to trained tokens: what the assistant says is trained, all else is read.
//!
//! A dialogue is written turn by turn as a rollout writes it (prompt, then what was said, then the template's
//! continuation), so that a policy trained here meets the very same tokens when it is sampled.

use ocelli_data::{Message, Role, Sample};
use ocelli_model::ChatOptions;
use ocelli_model::vlm::{Pictures, Vlm};

use crate::error::TrainError;
use crate::responses::Response;

/// Writes a dialogue: the messages up to the first assistant message are the prompt; the text of every assistant message
/// and the end-of-turn token behind it are trained.
pub fn from_dialogue(
    model: &Vlm,
    name: &str,
    messages: &[Message],
    pictures: &dyn Pictures,
) -> Result<Response, TrainError> {
    from_dialogue_with(model, name, messages, &ChatOptions::prompt(), pictures)
}

/// [`from_dialogue`] with options of the chat template, such as the tools that it lists.
pub fn from_dialogue_with(
    model: &Vlm,
    name: &str,
    messages: &[Message],
    options: &ChatOptions,
    pictures: &dyn Pictures,
) -> Result<Response, TrainError> {
    let said = |m: &Message| m.role == Role::Assistant;
    let Some(first) = messages.iter().position(said) else {
        return Err(TrainError::Data(format!("{name} has no assistant message to learn from")));
    };
    if first == 0 {
        return Err(TrainError::Data(format!("{name} begins with the assistant; there is no prompt")));
    }
    let end = model.eos_ids.first().copied().ok_or_else(|| {
        TrainError::Config("the model names no end-of-turn token, so it could never learn to stop".into())
    })?;
    let mut context = model.prompt(&messages[..first], options, pictures)?;
    let prompt = context.len();
    let mut trained = Vec::new();
    let mut rest = &messages[first..];
    while let Some((turn, after)) = rest.split_first() {
        if !turn.tool_calls.is_empty() {
            let text = format!(
                "{name}: calls stand in the text of a turn here, not beside it; write them with the call format first"
            );
            return Err(TrainError::Data(text));
        }
        let ids = model.tokenizer()?.encode(&turn.plain_text())?;
        let start = context.len();
        context.push(&ids);
        context.push(&[end]);
        trained.extend(start..context.len());
        let next = after.iter().position(said).unwrap_or(after.len());
        if next < after.len() {
            // The template writes the end of the turn itself.
            context.truncate(context.len() - 1)?;
            model.continue_dialogue(&mut context, &after[..next], options, pictures)?;
        }
        rest = &after[next.min(after.len())..];
    }
    Ok(Response { context, prompt, trained })
}

/// A sample with its answer as a dialogue of two turns.
pub fn answered(sample: &Sample, answer: &str) -> Vec<Message> {
    let mut messages = sample.messages.clone();
    messages.push(Message::assistant(answer));
    messages
}
