//! `mmchat models sync`: adds a config entry for each model that an endpoint lists.

use std::time::Duration;

use clap::Args;

use super::{fetch_model_list, find_endpoint};
use crate::{
    cli::{
        CliError, Context,
        support::{
            completion::CompletionKind, config_input::validate_name, config_transaction::ConfigTransaction, exit::Exit,
        },
    },
    config::{Config, edit::NewModel, parse_duration, template::name_from_upstream_id, unique_name},
    model::sanitize::one_line,
    protocol::ModelInfo,
    term::output::write_stderr,
};

/// Add a config entry for each model that an endpoint lists
#[derive(Debug, Args)]
#[command(
    after_help = "For gateways, whose model lists change. Existing entries, names and comments are not changed, and \
    nothing is removed: models of the config that the endpoint no longer lists are reported.\n\n\
    Examples:\n  \
      mmchat models sync one-api --dry-run\n  \
      mmchat models sync one-api --filter qwen --tag cheap"
)]
pub(super) struct SyncArgs {
    /// Endpoint of the config
    #[arg(value_name = "ENDPOINT", add = CompletionKind::Endpoints.completer())]
    endpoint: String,
    /// Add only IDs that contain this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Add a tag to each new entry
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// Prepend this text to each new name
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Print what would be added, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Limit the time of the request
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, help_heading = "Limits")]
    timeout: Duration,
}

pub(super) fn run(args: &SyncArgs, config: &Config, context: &Context) -> Result<Exit, CliError> {
    let endpoint = find_endpoint(config, &args.endpoint)?;
    let listed = match fetch_model_list(endpoint, args.timeout, context)? {
        Ok(listed) => listed,
        Err(exit) => return Ok(exit),
    };
    if !args.prefix.is_empty() {
        validate_name(crate::config::NameKind::Model, &format!("{}x", args.prefix))?;
    }
    let transaction = ConfigTransaction::open(context, args.dry_run)?;
    let config = transaction.config()?;
    // Another command may have removed the endpoint while its models were listed.
    find_endpoint(&config, &endpoint.name)?;
    let new = new_entries(args, &config, &listed);
    for warning in unlisted_warnings(&config, &endpoint.name, &listed) {
        write_stderr(&format!("warning: {warning}\n"));
    }
    let skipped = listed.len() - new.len();
    if !args.dry_run && !new.is_empty() {
        transaction.edit(|editor| new.iter().try_for_each(|model| editor.add_model(model)))?;
    }
    for model in &new {
        let verb = if args.dry_run { "would add" } else { "added" };
        write_stderr(&format!("{verb} \"{}\": {}\n", model.name, one_line(&model.upstream)));
    }
    write_stderr(&format!("{} new, {skipped} already in the config or excluded by --filter\n", new.len()));
    Ok(Exit::Ok)
}

/// New entries for the listed ids that have none yet, each with a name that is not taken.
fn new_entries(args: &SyncArgs, config: &Config, listed: &[ModelInfo]) -> Vec<NewModel> {
    let filter = args.filter.as_ref().map(|text| text.to_lowercase());
    let mut taken: Vec<String> = config.names().map(str::to_owned).collect();
    let mut new = Vec::new();
    for model in listed {
        let has_entry =
            config.models.iter().any(|known| known.endpoint.name == args.endpoint && known.upstream_id == model.id);
        if has_entry || filter.as_ref().is_some_and(|text| !model.id.to_lowercase().contains(text)) {
            continue;
        }
        let name = unique_name(&format!("{}{}", args.prefix, name_from_upstream_id(&model.id)), &taken);
        taken.push(name.clone());
        new.push(NewModel {
            name,
            endpoint: args.endpoint.clone(),
            upstream: model.id.clone(),
            tags: args.tags.clone(),
            context: model.context_window,
            ..NewModel::default()
        });
    }
    new
}

/// Warnings about models of the config that the endpoint does not list.
fn unlisted_warnings(config: &Config, endpoint: &str, listed: &[ModelInfo]) -> Vec<String> {
    let configured = config.models.iter().filter(|model| model.endpoint.name == endpoint);
    let unlisted = configured.filter(|model| !listed.iter().any(|known| known.id == model.upstream_id));
    unlisted.map(|model| format!("model \"{}\" is no longer listed: {}", model.id, model.upstream_id)).collect()
}
