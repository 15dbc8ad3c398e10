//! `mmchat models`: lists the models of the config with the reason why one is unusable, and those of an endpoint.

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

mod sync;

use crate::cli::{
    CliError, Context,
    support::{completion::CompletionKind, error::unknown_value, exit::Exit, list_format::ListArgs},
};
use crate::{
    config::{Config, Flags, direct_target, parse_duration},
    model::{api_key::redact_url, endpoint::Endpoint, plural, target::Target},
    protocol::ModelInfo,
    render::{notice::format_reason, table::Table},
    store,
    term::output::write_stderr,
    transport::keys::KeyRing,
};

/// Number of models on a page of `models available`.
const PAGE_SIZE: usize = 50;

/// List the models of the config, with the reason if one cannot be used
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  \
      mmchat models\n  \
      mmchat models --format json\n  \
      mmchat models available openai --filter mini")]
pub(crate) struct ModelsArgs {
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Option<ModelsCommand>,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    Available(AvailableArgs),
    Sync(sync::SyncArgs),
}

/// List the models that an endpoint offers
#[derive(Debug, Args)]
#[command(after_help = "The list is cached, so that the shell can complete endpoint/id.\n\n\
    Examples:\n  \
      mmchat models available openai\n  \
      mmchat models available openai --filter mini --format json")]
struct AvailableArgs {
    /// Endpoint of the config, or a known vendor whose key is set
    #[arg(value_name = "ENDPOINT", add = CompletionKind::Endpoints.completer())]
    endpoint: String,
    /// List only IDs that contain this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Print this page of a long list [default: 1 on a terminal, else the complete list]
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    page: Option<u16>,
    #[command(flatten)]
    list: ListArgs,
    /// Limit the time of the request
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, help_heading = "Limits")]
    timeout: Duration,
}

pub(crate) fn run(args: &ModelsArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.settings(Flags::default())?)?;
    match &args.command {
        None => list_configured(args, &config, context),
        Some(ModelsCommand::Available(args)) => list_available(args, &config, context),
        Some(ModelsCommand::Sync(args)) => sync::run(args, &config, context),
    }
}

fn list_configured(args: &ModelsArgs, config: &Config, context: &Context) -> Result<Exit, CliError> {
    if config.models.is_empty() && args.list.is_text() {
        write_stderr(
            "no models configured; run \"mmchat init\" to create a config, or \"mmchat model add\" to add a model\n",
        );
    }
    let ring = KeyRing::new(context.environment.clone());
    let mut models = Table::new(&["model", "endpoint", "upstream id", ">context", "price in/out", "tags", "usable"]);
    for model in &config.models {
        models.add_row(row(model, &ring));
    }
    let mut groups = Table::new(&["name", "kind", "models"]);
    for route in &config.routes {
        let names: Vec<&str> = route.models.iter().map(|model| model.id.0.as_str()).collect();
        groups.add_row(vec![route.name.clone(), "route".into(), names.join(" > ")]);
    }
    for set in &config.sets {
        groups.add_row(vec![set.name.clone(), "set".into(), set.members.join(", ")]);
    }
    args.list.print(context, &[models, groups], &models_json(config, &ring))?;
    Ok(Exit::Ok)
}

fn row(model: &Target, ring: &KeyRing) -> Vec<String> {
    let price = model.price.as_ref().map(|price| {
        let sign = if price.currency == "USD" { "$".to_owned() } else { format!("{} ", price.currency) };
        format!("{sign}{} / {}", price.input, price.output)
    });
    vec![
        model.id.0.clone(),
        model.endpoint.name.clone(),
        model.upstream_id.clone(),
        model.context_window.map(|context| context.to_string()).unwrap_or_default(),
        price.unwrap_or_default(),
        model.tags.join(", "),
        unusable_reason(model, ring).unwrap_or_else(|| "yes".into()),
    ]
}

/// Why a model is unusable, as far as that is known without sending a request.
fn unusable_reason(model: &Target, ring: &KeyRing) -> Option<String> {
    let Endpoint { keys, headers, .. } = &*model.endpoint;
    let mut errors: Vec<_> = keys.iter().filter_map(|key| ring.check(key).err()).collect();
    // One usable key of several is enough.
    let key_error = errors.pop().filter(|_| errors.len() + 1 == keys.len());
    let header_error = || headers.iter().find_map(|(_, source)| ring.check(source).err());
    key_error.or_else(header_error).map(|error| format!("no: {error}"))
}

fn models_json(config: &Config, ring: &KeyRing) -> Value {
    let models = config.models.iter().map(|model| {
        let price = model.price.as_ref().map(|price| {
            json!({
                "input": price.input,
                "output": price.output,
                "cached_input": price.cached_input,
                "currency": price.currency,
            })
        });
        let reason = unusable_reason(model, ring);
        json!({
            "model": model.id.0,
            "endpoint": model.endpoint.name,
            "base_url": redact_url(&model.endpoint.base_url),
            "upstream_model": model.upstream_id,
            "context": model.context_window,
            "price": price,
            "tags": model.tags,
            "usable": reason.is_none(),
            "why": reason.map(|reason| reason.trim_start_matches("no: ").to_owned()),
        })
    });
    let routes = config.routes.iter().map(|route| {
        let names: Vec<&str> = route.models.iter().map(|model| model.id.0.as_str()).collect();
        json!({"route": route.name, "models": names})
    });
    let sets = config.sets.iter().map(|set| json!({"set": set.name, "models": set.members}));
    json!({
        "models": models.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "sets": sets.collect::<Vec<_>>(),
    })
}

fn list_available(args: &AvailableArgs, config: &Config, context: &Context) -> Result<Exit, CliError> {
    let endpoint = find_endpoint(config, &args.endpoint)?;
    let models = match fetch_model_list(endpoint, args.timeout, context)? {
        Ok(models) => models,
        Err(exit) => return Ok(exit),
    };
    print_models(args, config, context, endpoint, models)?;
    Ok(Exit::Ok)
}

/// Fetches the model list of the endpoint and caches it; prints a failure and returns the exit code for it.
fn fetch_model_list(
    endpoint: &Arc<Endpoint>,
    timeout: Duration,
    context: &Context,
) -> Result<Result<Vec<ModelInfo>, Exit>, CliError> {
    let target = direct_target(endpoint, "");
    let listed = context.runtime()?.block_on(context.stateless_engine().list_models(&target, timeout));
    Ok(match listed {
        Ok(models) => {
            cache_model_list(context, endpoint, &models);
            Ok(models)
        }
        Err(error) => {
            let url = redact_url(&endpoint.base_url);
            write_stderr(&format!(
                "error: cannot list the models of \"{}\" ({url}): {}\n",
                endpoint.name,
                format_reason(&error)
            ));
            if let Some(hint) = &error.hint {
                write_stderr(&format!("hint: {hint}\n"));
            }
            Err(Exit::from_class(error.class))
        }
    })
}

/// The endpoint called `name`.
pub(crate) fn find_endpoint<'c>(config: &'c Config, name: &str) -> Result<&'c Arc<Endpoint>, CliError> {
    let known: Vec<&str> = config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    config.endpoint(name).ok_or_else(|| unknown_value("endpoint", name, &known))
}

/// Caches the list for shell completion. A failure is only a warning: nothing else reads the cache.
pub(crate) fn cache_model_list(context: &Context, endpoint: &Endpoint, models: &[ModelInfo]) {
    let ids: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
    let written = store::cache_folder(&context.environment)
        .map(|cache| store::list_cache::write(&cache, &endpoint.name, endpoint.base_url.as_str(), &ids));
    if let Some(Err(error)) = written {
        write_stderr(&format!("warning: cannot cache the model list for completion: {error}\n"));
    }
}

fn print_models(
    args: &AvailableArgs,
    config: &Config,
    context: &Context,
    endpoint: &Arc<Endpoint>,
    mut models: Vec<ModelInfo>,
) -> Result<(), CliError> {
    if let Some(text) = &args.filter {
        let text = text.to_lowercase();
        models.retain(|model| model.id.to_lowercase().contains(&text));
    }
    let total = models.len();
    let is_terminal = context.terminal_info(&context.settings(Flags::default())?).stdout_width.is_some();
    let page = args.page.map(usize::from).or((is_terminal && args.list.is_text() && total > PAGE_SIZE).then_some(1));
    if let Some(page) = page {
        models = models.into_iter().skip((page - 1) * PAGE_SIZE).take(PAGE_SIZE).collect();
        let pages = total.div_ceil(PAGE_SIZE).max(1);
        if page > pages {
            return Err(CliError::usage(format!("no page {page}"), format!("the last page is {pages}")));
        }
        write_stderr(&format!("page {page} of {pages}, {} (--page, --filter)\n", plural(total, "model")));
    } else if total == 0 && args.list.is_text() {
        write_stderr("no models\n");
    }
    let names_of = |id: &str| {
        let models =
            config.models.iter().filter(|model| model.upstream_id == id && model.endpoint.name == endpoint.name);
        models.map(|model| model.id.0.as_str()).collect::<Vec<_>>()
    };
    let mut table = Table::new(&["id", ">context", "name"]);
    for model in &models {
        let context = model.context_window.map(|context| context.to_string()).unwrap_or_default();
        table.add_row(vec![crate::model::sanitize::one_line(&model.id), context, names_of(&model.id).join(", ")]);
    }
    let document: Vec<Value> = models
        .iter()
        .map(|model| json!({"id": model.id, "context": model.context_window, "names": names_of(&model.id)}))
        .collect();
    args.list.print(context, &[table], &document.into())
}
