//! `mmchat reset`: removes health entries, so that a model, endpoint or route gets requests again at once.

use clap::{ArgGroup, Args};

use super::status::{all_targets, configured_targets, health_file, key_hashes, update_health};
use crate::cli::{
    CliError, Context,
    support::{completion::CompletionKind, error::unknown_value, exit::Exit},
};
use crate::{
    config::{Config, Flags, normalize_name},
    routing::health::{HealthKey, HealthSnapshot},
    term::output::write_stderr,
    transport::keys::KeyRing,
};

/// Clear cooldowns and close circuit breakers, so that requests are sent again at once
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("selection").required(true)))]
#[command(after_help = "Examples:\n  \
      mmchat reset chat\n  \
      mmchat reset openai fast\n  \
      mmchat reset --all")]
pub(crate) struct ResetArgs {
    /// Models, endpoints or routes to reset; a model includes its endpoint and keys
    #[arg(value_name = "NAME", group = "selection", add = CompletionKind::EndpointsAndModels.completer())]
    names: Vec<String>,
    /// Reset everything
    #[arg(long, group = "selection")]
    all: bool,
}

pub(crate) fn run(args: &ResetArgs, context: &Context) -> Result<Exit, CliError> {
    let file = health_file(context)?;
    let mut count = 0;
    if args.all {
        update_health(&file, &mut |snapshot| count = snapshot.clear())?;
    } else {
        let (config, _) = context.config(context.settings(Flags::default())?)?;
        let keys = KeyRing::new(context.environment.clone());
        for name in &args.names {
            check_name(&config, &normalize_name(name))?;
        }
        let remove_records = &mut |snapshot: &mut HealthSnapshot| {
            for name in &args.names {
                let ids = health_keys(&config, &normalize_name(name), &keys, snapshot);
                count += snapshot.remove(ids);
            }
        };
        update_health(&file, remove_records)?;
    }
    write_stderr(&match count {
        0 => "nothing to reset\n".to_owned(),
        1 => "reset 1 health entry\n".to_owned(),
        count => format!("reset {count} health entries\n"),
    });
    Ok(Exit::Ok)
}

/// Checks that `name` is an endpoint, a model, a route or `endpoint/id`.
pub(crate) fn check_name(config: &Config, name: &str) -> Result<(), CliError> {
    let targets = configured_targets(config);
    let endpoints = config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
    let models = targets.iter().map(|target| target.id.0.as_str());
    let known: Vec<&str> =
        endpoints.chain(models).chain(config.routes.iter().map(|route| route.name.as_str())).collect();
    let is_known = known.contains(&name) || config.direct_model(name).is_some();
    if is_known { Ok(()) } else { Err(unknown_value("endpoint, model or route", name, &known)) }
}

/// The health keys of everything called `name`.
fn health_keys(config: &Config, name: &str, keys: &KeyRing, snapshot: &HealthSnapshot) -> Vec<HealthKey> {
    let is_in_route =
        |id: &str| config.route(name).is_some_and(|route| route.models.iter().any(|model| model.id.0 == id));
    let mut ids = Vec::new();
    for target in all_targets(config, snapshot).into_iter().chain(config.direct_model(name)) {
        if target.id.0 != name && target.endpoint.name != name && !is_in_route(&target.id.0) {
            continue;
        }
        ids.extend([HealthKey::model(&target), HealthKey::endpoint(&target.endpoint)]);
        for hash in key_hashes(&target.endpoint, keys, &snapshot.key_salt) {
            ids.extend([HealthKey::key(&target.endpoint, hash), HealthKey::key_for_model(&target, hash)]);
        }
    }
    if let Some(endpoint) = config.endpoint(name) {
        ids.push(HealthKey::endpoint(endpoint));
        ids.extend(
            key_hashes(endpoint, keys, &snapshot.key_salt).into_iter().map(|hash| HealthKey::key(endpoint, hash)),
        );
    }
    ids
}
