//! `mmchat models`: every model of the config and why one cannot be used; what an endpoint itself lists.

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

mod sync;

use crate::cli::{
    CliError, Context,
    support::{complete::Offer, exit::Exit, list_format::ListArgs, request::unknown},
};
use crate::{
    config::{Config, Flags, direct_target, parse_duration},
    model::{api_key::masked_url, endpoint::Endpoint, target::Target},
    protocol::ModelInfo,
    render::{notice::reason, table::Table},
    store,
    term::output::say,
    transport::keys::KeyRing,
};

/// As many as are read at a glance.
const PAGE: usize = 50;

/// List the models of the config, and why one cannot be used
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
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

/// Ask an endpoint which models it has
#[derive(Debug, Args)]
#[command(after_help = "The list is remembered, so that the shell can complete endpoint/id.")]
struct AvailableArgs {
    /// The endpoint, or a known service whose key is set
    #[arg(value_name = "ENDPOINT", add = Offer::Endpoints.completer())]
    endpoint: String,
    /// Only ids with this text in them
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// A page of a long list; on a pipe all of it is printed unless a page is named
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    page: Option<u16>,
    /// How long the endpoint may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) fn run(args: &ModelsArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.layers(Flags::default())?)?;
    match &args.command {
        None => configured(args, &config, context),
        Some(ModelsCommand::Available(args)) => available(args, &config, context),
        Some(ModelsCommand::Sync(args)) => sync::run(args, &config, context),
    }
}

fn configured(args: &ModelsArgs, config: &Config, context: &Context) -> Result<Exit, CliError> {
    if config.models.is_empty() && args.list.is_text() {
        say("there are no models; mmchat init makes a config, mmchat model add adds one\n");
    }
    let ring = KeyRing::new(context.environment.clone());
    let mut models = Table::new(&["model", "endpoint", "upstream id", ">context", "price in/out", "tags", "usable"]);
    for model in &config.models {
        models.row(row(model, &ring));
    }
    let mut groups = Table::new(&["name", "kind", "models"]);
    for route in &config.routes {
        let names: Vec<&str> = route.models.iter().map(|model| model.id.0.as_str()).collect();
        groups.row(vec![route.name.clone(), "route".into(), names.join(" > ")]);
    }
    for set in &config.sets {
        groups.row(vec![set.name.clone(), "set".into(), set.members.join(", ")]);
    }
    args.list.print(context, &[models, groups], &document(config, &ring))?;
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
        model.upstream.clone(),
        model.context.map(|context| context.to_string()).unwrap_or_default(),
        price.unwrap_or_default(),
        model.tags.join(", "),
        unusable(model, ring).unwrap_or_else(|| "yes".into()),
    ]
}

/// Why a model cannot be asked, as far as that can be told without asking anybody.
fn unusable(model: &Target, ring: &KeyRing) -> Option<String> {
    let Endpoint { keys, headers, .. } = &*model.endpoint;
    let mut errors: Vec<_> = keys.iter().filter_map(|key| ring.glance(key).err()).collect();
    // With several keys one good one is enough.
    let key = errors.pop().filter(|_| errors.len() + 1 == keys.len());
    let header = || headers.iter().find_map(|(_, source)| ring.glance(source).err());
    key.or_else(header).map(|error| format!("no: {error}"))
}

fn document(config: &Config, ring: &KeyRing) -> Value {
    let models = config.models.iter().map(|model| {
        let price = model.price.as_ref().map(|price| {
            json!({
                "input": price.input,
                "output": price.output,
                "cached_input": price.cached_input,
                "currency": price.currency,
            })
        });
        let why = unusable(model, ring);
        json!({
            "model": model.id.0,
            "endpoint": model.endpoint.name,
            "base_url": masked_url(&model.endpoint.base_url),
            "upstream_model": model.upstream,
            "context": model.context,
            "price": price,
            "tags": model.tags,
            "usable": why.is_none(),
            "why": why.map(|why| why.trim_start_matches("no: ").to_owned()),
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

fn available(args: &AvailableArgs, config: &Config, context: &Context) -> Result<Exit, CliError> {
    let endpoint = named_endpoint(config, &args.endpoint)?;
    let models = match listed(endpoint, args.timeout, context)? {
        Ok(models) => models,
        Err(exit) => return Ok(exit),
    };
    print(args, config, context, endpoint, models)?;
    Ok(Exit::Ok)
}

/// What the endpoint lists, which is remembered; when it lists nothing that is told, and this is the exit code for it.
fn listed(
    endpoint: &Arc<Endpoint>,
    limit: Duration,
    context: &Context,
) -> Result<Result<Vec<ModelInfo>, Exit>, CliError> {
    let target = direct_target(endpoint, "");
    let listed = context.runtime()?.block_on(context.engine().list_models(&target, limit));
    Ok(match listed {
        Ok(models) => {
            remember(context, endpoint, &models);
            Ok(models)
        }
        Err(error) => {
            let at = masked_url(&endpoint.base_url);
            say(&format!("error: {} ({at}) gives no list: {}\n", endpoint.name, reason(&error)));
            if let Some(hint) = &error.hint {
                say(&format!("  hint: {hint}\n"));
            }
            Err(Exit::of_class(error.class))
        }
    })
}

/// The endpoint called `name`.
pub(crate) fn named_endpoint<'c>(config: &'c Config, name: &str) -> Result<&'c Arc<Endpoint>, CliError> {
    let known: Vec<&str> = config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    config.endpoint(name).ok_or_else(|| unknown("endpoint", name, &known))
}

/// Keeps the list for the shell's completion. What cannot be kept is only missed there.
pub(crate) fn remember(context: &Context, endpoint: &Endpoint, models: &[ModelInfo]) {
    let ids: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
    let kept = store::cache_folder(&context.environment)
        .map(|cache| store::list_cache::write(&cache, &endpoint.name, endpoint.base_url.as_str(), &ids));
    if let Some(Err(error)) = kept {
        say(&format!("warning: the list could not be kept for completion: {error}\n"));
    }
}

fn print(
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
    let terminal = context.look(&context.layers(Flags::default())?).out_width.is_some();
    let page = args.page.map(usize::from).or((terminal && args.list.is_text() && total > PAGE).then_some(1));
    if let Some(page) = page {
        models = models.into_iter().skip((page - 1) * PAGE).take(PAGE).collect();
        let pages = total.div_ceil(PAGE).max(1);
        if page > pages {
            return Err(CliError::usage(format!("there is no page {page}"), format!("the last one is {pages}")));
        }
        say(&format!("page {page} of {pages}, {total} models (--page, --filter)\n"));
    } else if total == 0 && args.list.is_text() {
        say("there are none\n");
    }
    let ours = |id: &str| {
        let models = config.models.iter().filter(|model| model.upstream == id && model.endpoint.name == endpoint.name);
        models.map(|model| model.id.0.as_str()).collect::<Vec<_>>()
    };
    let mut table = Table::new(&["id", ">context", "your name"]);
    for model in &models {
        let context = model.context.map(|context| context.to_string()).unwrap_or_default();
        table.row(vec![crate::model::sanitize::one_line(&model.id), context, ours(&model.id).join(", ")]);
    }
    let document: Vec<Value> = models
        .iter()
        .map(|model| json!({"id": model.id, "context": model.context, "names": ours(&model.id)}))
        .collect();
    args.list.print(context, &[table], &document.into())
}
