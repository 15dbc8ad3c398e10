//! `mmchat models sync`: an entry for each model that an endpoint lists.

use std::time::Duration;

use clap::Args;

use super::{listed, named_endpoint};
use crate::{
    cli::{
        CliError, Context,
        support::{complete::Offer, config_input::new_name, config_transaction::Change, exit::Exit},
    },
    config::{Config, edit::NewModel, parse_duration, template::name_of},
    import::free,
    model::sanitize::one_line,
    protocol::ModelInfo,
    term::output::say,
};

/// Write an entry for each model that an endpoint lists; entries and names that are there stay as they are
#[derive(Debug, Args)]
#[command(
    after_help = "For gateways, whose models come and go. Comments stay; nothing is ever removed: models of the config that\n\
    the endpoint no longer lists are told.\n\n\
    mmchat models sync one-api --filter qwen --tag cheap"
)]
pub(super) struct SyncArgs {
    /// The endpoint
    #[arg(value_name = "ENDPOINT", add = Offer::Endpoints.completer())]
    endpoint: String,
    /// Only ids with this text in them
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// A label for each new entry
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// Put this in front of each new name
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Tell what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How long the endpoint may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
}

pub(super) fn run(args: &SyncArgs, config: &Config, context: &Context) -> Result<Exit, CliError> {
    let endpoint = named_endpoint(config, &args.endpoint)?;
    let listed = match listed(endpoint, args.timeout, context)? {
        Ok(listed) => listed,
        Err(exit) => return Ok(exit),
    };
    if !args.prefix.is_empty() {
        new_name(&format!("{}x", args.prefix))?;
    }
    let change = Change::begin(context)?;
    let config = change.config()?;
    // Another command may have taken it away since.
    named_endpoint(&config, &endpoint.name)?;
    let new = new_entries(args, &config, &listed);
    for gone in gone(&config, &endpoint.name, &listed) {
        say(&format!("warning: {gone}\n"));
    }
    let known = listed.len() - new.len();
    if !args.dry_run && !new.is_empty() {
        change.edit(|edit| new.iter().try_for_each(|model| edit.add_model(model)))?;
    }
    for model in &new {
        let verb = if args.dry_run { "would add" } else { "added" };
        say(&format!("{verb} {}: {}\n", model.name, one_line(&model.upstream)));
    }
    say(&format!("{} new, {known} with an entry already or left out by --filter\n", new.len()));
    Ok(Exit::Ok)
}

/// The entries to be: those whose upstream id has none yet, each with a name nobody has.
fn new_entries(args: &SyncArgs, config: &Config, listed: &[ModelInfo]) -> Vec<NewModel> {
    let filter = args.filter.as_ref().map(|text| text.to_lowercase());
    let mut taken: Vec<String> = config.names().map(str::to_owned).collect();
    let mut new = Vec::new();
    for model in listed {
        let has_entry =
            config.models.iter().any(|known| known.endpoint.name == args.endpoint && known.upstream == model.id);
        if has_entry || filter.as_ref().is_some_and(|text| !model.id.to_lowercase().contains(text)) {
            continue;
        }
        let name = free(&format!("{}{}", args.prefix, name_of(&model.id)), &taken);
        taken.push(name.clone());
        new.push(NewModel {
            name,
            endpoint: args.endpoint.clone(),
            upstream: model.id.clone(),
            tags: args.tags.clone(),
            context: model.context,
            ..NewModel::default()
        });
    }
    new
}

/// Models of the config that the endpoint does not list.
fn gone(config: &Config, endpoint: &str, listed: &[ModelInfo]) -> Vec<String> {
    let ours = config.models.iter().filter(|model| model.endpoint.name == endpoint);
    let gone = ours.filter(|model| !listed.iter().any(|known| known.id == model.upstream));
    gone.map(|model| format!("{} is not listed any more: {}", model.id, model.upstream)).collect()
}
