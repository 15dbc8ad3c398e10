//! Chooses the fast, strong and cheap models of a new config, and more for comparisons: from the flags, else from the
//! answers of the user, else the default models of the vendors.

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
    services: Vec<DetectedService>,
    interactive: bool,
) -> Result<ConfigTemplate, CliError> {
    let choices: Vec<TemplateModel> = services.iter().flat_map(DetectedService::models).collect();
    let defaults: Vec<TemplateModel> = services.iter().filter_map(DetectedService::default_model).collect();
    let from_flag = |text: &Option<String>| text.as_ref().map(|text| find_model(text, &services)).transpose();
    let mut template = ConfigTemplate {
        fast: from_flag(&args.fast)?,
        strong: from_flag(&args.strong)?,
        cheap: from_flag(&args.cheap)?,
        extra_models: args.also.iter().map(|text| find_model(text, &services)).collect::<Result<_, _>>()?,
        endpoints: Vec::new(),
    };
    if interactive {
        prompt_for_roles(&mut template, &choices, &defaults, !args.also.is_empty())?;
    } else {
        let first = defaults.first().or(choices.first()).cloned();
        template.fast = template.fast.or(first);
        template.strong = template.strong.or(defaults.get(1).cloned()).or(template.fast.clone());
        template.cheap = template.cheap.or(template.fast.clone());
        // Endpoints without a chosen model contribute their default model, for comparisons.
        let used: Vec<String> = template.named_models().iter().map(|(_, model)| model.endpoint.clone()).collect();
        template.extra_models.extend(defaults.into_iter().filter(|model| !used.contains(&model.endpoint)));
    }
    if template.named_models().is_empty() {
        return Err(CliError::usage(
            "no models found: no endpoint lists any, and no option names one",
            "use --fast ENDPOINT/ID",
        ));
    }
    template.endpoints = services.into_iter().map(|service| service.endpoint).collect();
    Ok(template)
}

/// The model that `endpoint/id` names.
fn find_model(text: &str, services: &[DetectedService]) -> Result<TemplateModel, CliError> {
    let (endpoint, upstream) = text.split_once('/').unwrap_or((text, ""));
    let known: Vec<&str> = services.iter().map(|service| service.endpoint.name.as_str()).collect();
    let Some(service) = services.iter().find(|service| service.endpoint.name == endpoint && !upstream.is_empty())
    else {
        let hint = format!("write ENDPOINT/ID; available endpoints: {}", known.join(", "));
        return Err(CliError::usage(format!("unknown model \"{text}\""), hint));
    };
    if service.status() == ServiceStatus::ListsModels && !service.models().any(|model| model.upstream == upstream) {
        write_stderr(&format!("warning: endpoint \"{endpoint}\" does not list \"{upstream}\"\n"));
    }
    let listed = service.models().find(|model| model.upstream == upstream);
    let unlisted = TemplateModel { endpoint: endpoint.to_owned(), upstream: upstream.to_owned(), context: None };
    Ok(listed.unwrap_or(unlisted))
}

/// Prompts for the models that the flags do not specify.
fn prompt_for_roles(
    template: &mut ConfigTemplate,
    choices: &[TemplateModel],
    defaults: &[TemplateModel],
    has_extra_models: bool,
) -> Result<(), CliError> {
    if choices.is_empty() && template.fast.is_none() {
        return Err(CliError::usage("none of the endpoints lists its models", "use --fast ENDPOINT/ID"));
    }
    let lines: Vec<String> = choices.iter().map(qualified_id).collect();
    let index_of = |model: Option<&TemplateModel>| choices.iter().position(|choice| Some(choice) == model).unwrap_or(0);
    let ask = |question: &str, default: usize| -> Result<TemplateModel, PromptError> {
        Ok(choices[choose(&format!("{question} (type to search)"), &lines, default)?].clone())
    };
    if template.fast.is_none() {
        template.fast = Some(ask("Fast model, for everyday chat", index_of(defaults.first()))?);
    }
    if template.strong.is_none() && !choices.is_empty() {
        template.strong = Some(ask("Strong model, for analysis", index_of(defaults.get(1).or(defaults.first())))?);
    }
    if template.cheap.is_none() && !choices.is_empty() {
        template.cheap = Some(ask("Cheap model, for simple tasks", index_of(template.fast.as_ref()))?);
    }
    if !has_extra_models {
        prompt_for_more_models(template, choices)?;
    }
    Ok(())
}

/// Prompts for more models to compare with, one at a time.
fn prompt_for_more_models(template: &mut ConfigTemplate, choices: &[TemplateModel]) -> Result<(), CliError> {
    loop {
        let chosen = template.named_models();
        let remaining: Vec<&TemplateModel> =
            choices.iter().filter(|choice| !chosen.iter().any(|(_, model)| model == choice)).collect();
        if remaining.is_empty() {
            return Ok(());
        }
        let mut lines = vec!["no more models".to_owned()];
        lines.extend(remaining.iter().map(|model| qualified_id(model)));
        match choose("Another model to compare with", &lines, 0)?.checked_sub(1) {
            Some(index) => {
                let model = remaining[index].clone();
                template.extra_models.push(model);
            }
            None => return Ok(()),
        }
    }
}

fn qualified_id(model: &TemplateModel) -> String {
    format!("{}/{}", model.endpoint, model.upstream)
}
