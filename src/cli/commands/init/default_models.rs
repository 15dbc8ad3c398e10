//! Which model is whose role: what a person calls fast, strong and cheap, and whom else to compare with.
//!
//! Owns the choice: the flags', the answers', else what is usual.

use super::InitArgs;
use crate::cli::commands::init::detection::{Found, Seen};
use crate::{
    cli::CliError,
    config::template::{Draft, DraftModel},
    term::{
        output::say,
        prompt::{PromptError, choose},
    },
};

/// What the config is to hold: by the flags, by the answers, else by what is usual.
pub(super) fn draft(args: &InitArgs, found: Vec<Found>, asks: bool) -> Result<Draft, CliError> {
    let choices: Vec<DraftModel> = found.iter().flat_map(Found::models).collect();
    let usual: Vec<DraftModel> = found.iter().filter_map(Found::usual).collect();
    let by_flag = |text: &Option<String>| text.as_ref().map(|text| by_name(text, &found)).transpose();
    let mut draft = Draft {
        fast: by_flag(&args.fast)?,
        strong: by_flag(&args.strong)?,
        cheap: by_flag(&args.cheap)?,
        also: args.also.iter().map(|text| by_name(text, &found)).collect::<Result<_, _>>()?,
        endpoints: Vec::new(),
    };
    if asks {
        ask_roles(&mut draft, &choices, &usual, !args.also.is_empty())?;
    } else {
        let first = usual.first().or(choices.first()).cloned();
        draft.fast = draft.fast.or(first);
        draft.strong = draft.strong.or(usual.get(1).cloned()).or(draft.fast.clone());
        draft.cheap = draft.cheap.or(draft.fast.clone());
        // An endpoint nobody was chosen from is one to compare with.
        let chosen: Vec<String> = draft.models().iter().map(|(_, model)| model.endpoint.clone()).collect();
        draft.also.extend(usual.into_iter().filter(|model| !chosen.contains(&model.endpoint)));
    }
    if draft.models().is_empty() {
        return Err(CliError::usage("no model was named, and none is listed", "name one: --fast ENDPOINT/ID"));
    }
    draft.endpoints = found.into_iter().map(|found| found.endpoint).collect();
    Ok(draft)
}

/// The model of `endpoint/id`.
fn by_name(text: &str, found: &[Found]) -> Result<DraftModel, CliError> {
    let (endpoint, upstream) = text.split_once('/').unwrap_or((text, ""));
    let known: Vec<&str> = found.iter().map(|found| found.endpoint.name.as_str()).collect();
    let Some(found) = found.iter().find(|found| found.endpoint.name == endpoint && !upstream.is_empty()) else {
        let hint = format!("write ENDPOINT/ID; the endpoints are: {}", known.join(", "));
        return Err(CliError::usage(format!("`{text}` names no model"), hint));
    };
    if found.seen() == Seen::Models && !found.models().any(|model| model.upstream == upstream) {
        say(&format!("warning: {endpoint} does not list {upstream}\n"));
    }
    let listed = found.models().find(|model| model.upstream == upstream);
    let new = DraftModel { endpoint: endpoint.to_owned(), upstream: upstream.to_owned(), context: None };
    Ok(listed.unwrap_or(new))
}

/// Asks for what the flags leave open.
fn ask_roles(
    draft: &mut Draft,
    choices: &[DraftModel],
    usual: &[DraftModel],
    also_given: bool,
) -> Result<(), CliError> {
    if choices.is_empty() && draft.fast.is_none() {
        return Err(CliError::usage(
            "none of these services lists its models",
            "name one: mmchat init --fast ENDPOINT/ID",
        ));
    }
    let lines: Vec<String> = choices.iter().map(shown).collect();
    let place = |wanted: Option<&DraftModel>| choices.iter().position(|model| Some(model) == wanted).unwrap_or(0);
    let pick = |question: &str, default: usize| -> Result<DraftModel, PromptError> {
        Ok(choices[choose(&format!("{question} (type to search)"), &lines, default)?].clone())
    };
    if draft.fast.is_none() {
        draft.fast = Some(pick("Which is your fast one, for everyday chat", place(usual.first()))?);
    }
    if draft.strong.is_none() && !choices.is_empty() {
        draft.strong = Some(pick("Which is your strong one, for analysis", place(usual.get(1).or(usual.first())))?);
    }
    if draft.cheap.is_none() && !choices.is_empty() {
        draft.cheap = Some(pick("Which is your cheap one, for simple things", place(draft.fast.as_ref()))?);
    }
    if !also_given {
        ask_for_others(draft, choices)?;
    }
    Ok(())
}

/// Asks, one after the other, whom else to compare with.
fn ask_for_others(draft: &mut Draft, choices: &[DraftModel]) -> Result<(), CliError> {
    loop {
        let chosen = draft.models();
        let left: Vec<&DraftModel> =
            choices.iter().filter(|model| !chosen.iter().any(|(_, known)| known == model)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let mut lines = vec!["nobody else".to_owned()];
        lines.extend(left.iter().map(|model| shown(model)));
        match choose("Whom else do you want to compare with", &lines, 0)?.checked_sub(1) {
            Some(index) => {
                let model = left[index].clone();
                draft.also.push(model);
            }
            None => return Ok(()),
        }
    }
}

fn shown(model: &DraftModel) -> String {
    format!("{}/{}", model.endpoint, model.upstream)
}
