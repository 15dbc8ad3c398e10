//! Chooses the fast, strong and cheap models of a new config, and more for comparisons: by flags, by questions, else by
//! vendor default.

use super::InitArgs;
use crate::cli::commands::init::detection::{DetectedService, ServiceStatus};
use crate::{
    cli::CliError,
    config::template::{ConfigTemplate, TemplateModel},
    term::{
        output::write_stderr,
        prompt::{PromptError, choose},
    },
};

/// Builds the config template from the flags, the answers, or the default models of the vendors.
pub(super) fn build_template(
    args: &InitArgs,
    found: Vec<DetectedService>,
    asks: bool,
) -> Result<ConfigTemplate, CliError> {
    let choices: Vec<TemplateModel> = found.iter().flat_map(DetectedService::models).collect();
    let usual: Vec<TemplateModel> = found.iter().filter_map(DetectedService::default_model).collect();
    let by_flag = |text: &Option<String>| text.as_ref().map(|text| find_model(text, &found)).transpose();
    let mut draft = ConfigTemplate {
        fast: by_flag(&args.fast)?,
        strong: by_flag(&args.strong)?,
        cheap: by_flag(&args.cheap)?,
        extra_models: args.also.iter().map(|text| find_model(text, &found)).collect::<Result<_, _>>()?,
        endpoints: Vec::new(),
    };
    if asks {
        prompt_for_roles(&mut draft, &choices, &usual, !args.also.is_empty())?;
    } else {
        let first = usual.first().or(choices.first()).cloned();
        draft.fast = draft.fast.or(first);
        draft.strong = draft.strong.or(usual.get(1).cloned()).or(draft.fast.clone());
        draft.cheap = draft.cheap.or(draft.fast.clone());
        // Endpoints without a chosen model contribute their default model, for comparisons.
        let chosen: Vec<String> = draft.named_models().iter().map(|(_, model)| model.endpoint.clone()).collect();
        draft.extra_models.extend(usual.into_iter().filter(|model| !chosen.contains(&model.endpoint)));
    }
    if draft.named_models().is_empty() {
        return Err(CliError::usage(
            "no models found: none is listed, and no flag names one",
            "use --fast ENDPOINT/ID",
        ));
    }
    draft.endpoints = found.into_iter().map(|found| found.endpoint).collect();
    Ok(draft)
}

/// The model that `endpoint/id` names.
fn find_model(text: &str, found: &[DetectedService]) -> Result<TemplateModel, CliError> {
    let (endpoint, upstream) = text.split_once('/').unwrap_or((text, ""));
    let known: Vec<&str> = found.iter().map(|found| found.endpoint.name.as_str()).collect();
    let Some(found) = found.iter().find(|found| found.endpoint.name == endpoint && !upstream.is_empty()) else {
        let hint = format!("write ENDPOINT/ID; endpoints: {}", known.join(", "));
        return Err(CliError::usage(format!("unknown model \"{text}\""), hint));
    };
    if found.status() == ServiceStatus::ListsModels && !found.models().any(|model| model.upstream == upstream) {
        write_stderr(&format!("warning: endpoint \"{endpoint}\" does not list \"{upstream}\"\n"));
    }
    let listed = found.models().find(|model| model.upstream == upstream);
    let new = TemplateModel { endpoint: endpoint.to_owned(), upstream: upstream.to_owned(), context: None };
    Ok(listed.unwrap_or(new))
}

/// Prompts for the models that the flags do not specify.
fn prompt_for_roles(
    draft: &mut ConfigTemplate,
    choices: &[TemplateModel],
    usual: &[TemplateModel],
    also_given: bool,
) -> Result<(), CliError> {
    if choices.is_empty() && draft.fast.is_none() {
        return Err(CliError::usage("none of the endpoints lists its models", "use --fast ENDPOINT/ID"));
    }
    let lines: Vec<String> = choices.iter().map(qualified_id).collect();
    let index_of = |wanted: Option<&TemplateModel>| choices.iter().position(|model| Some(model) == wanted).unwrap_or(0);
    let pick = |question: &str, default: usize| -> Result<TemplateModel, PromptError> {
        Ok(choices[choose(&format!("{question} (type to search)"), &lines, default)?].clone())
    };
    if draft.fast.is_none() {
        draft.fast = Some(pick("Fast model, for everyday chat", index_of(usual.first()))?);
    }
    if draft.strong.is_none() && !choices.is_empty() {
        draft.strong = Some(pick("Strong model, for analysis", index_of(usual.get(1).or(usual.first())))?);
    }
    if draft.cheap.is_none() && !choices.is_empty() {
        draft.cheap = Some(pick("Cheap model, for simple tasks", index_of(draft.fast.as_ref()))?);
    }
    if !also_given {
        prompt_for_more_models(draft, choices)?;
    }
    Ok(())
}

/// Prompts for more models to compare with, one at a time.
fn prompt_for_more_models(draft: &mut ConfigTemplate, choices: &[TemplateModel]) -> Result<(), CliError> {
    loop {
        let chosen = draft.named_models();
        let remaining: Vec<&TemplateModel> =
            choices.iter().filter(|model| !chosen.iter().any(|(_, known)| known == model)).collect();
        if remaining.is_empty() {
            return Ok(());
        }
        let mut lines = vec!["no more models".to_owned()];
        lines.extend(remaining.iter().map(|model| qualified_id(model)));
        match choose("Another model to compare with", &lines, 0)?.checked_sub(1) {
            Some(index) => {
                let model = remaining[index].clone();
                draft.extra_models.push(model);
            }
            None => return Ok(()),
        }
    }
}

fn qualified_id(model: &TemplateModel) -> String {
    format!("{}/{}", model.endpoint, model.upstream)
}
