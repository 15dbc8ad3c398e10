//! `mmchat reset`: forget what is known of a service, so that it is asked again at once.

use clap::Args;

use super::status::{file, hashes, named, targets, update};
use crate::cli::{
    CliError, Context,
    support::{complete::Offer, exit::Exit, request::unknown},
};
use crate::{
    config::{Config, Flags, normalised},
    routing::health::{HealthSnapshot, PlaceId},
    term::output::say,
    transport::keys::KeyRing,
};

/// Forget what is known of a model, an endpoint or a route, so that it is asked again at once
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Models, endpoints or routes; a model's endpoint and keys go with it
    #[arg(value_name = "NAME", required_unless_present = "all", add = Offer::Reachable.completer())]
    names: Vec<String>,
    /// Everything that is known
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

pub(crate) fn run(args: &ResetArgs, context: &Context) -> Result<Exit, CliError> {
    let file = file(context)?;
    let mut count = 0;
    if args.all {
        update(&file, &mut |snapshot| count = snapshot.forget_all())?;
    } else {
        let (config, _) = context.config(context.layers(Flags::default())?)?;
        let keys = KeyRing::new(context.environment.clone());
        for name in &args.names {
            check_name(&config, &normalised(name))?;
        }
        let forget = &mut |snapshot: &mut HealthSnapshot| {
            for name in &args.names {
                let ids = ids(&config, &normalised(name), &keys, snapshot);
                count += snapshot.forget(ids);
            }
        };
        update(&file, forget)?;
    }
    say(&match count {
        0 => "nothing was known\n".to_owned(),
        count => format!("forgotten: {count} record(s)\n"),
    });
    Ok(Exit::Ok)
}

/// Whether it is the name of an endpoint, a model or a route, or a model of an endpoint without a name.
pub(crate) fn check_name(config: &Config, name: &str) -> Result<(), CliError> {
    let targets = named(config);
    let endpoints = config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
    let models = targets.iter().map(|target| target.id.0.as_str());
    let known: Vec<&str> =
        endpoints.chain(models).chain(config.routes.iter().map(|route| route.name.as_str())).collect();
    let is_known = known.contains(&name) || config.direct(name).is_some();
    if is_known { Ok(()) } else { Err(unknown("endpoint, model or route", name, &known)) }
}

/// The places of everything called `name`.
fn ids(config: &Config, name: &str, keys: &KeyRing, snapshot: &HealthSnapshot) -> Vec<PlaceId> {
    let routed = |id: &str| config.route(name).is_some_and(|route| route.models.iter().any(|model| model.id.0 == id));
    let mut ids = Vec::new();
    for target in targets(config, snapshot).into_iter().chain(config.direct(name)) {
        if target.id.0 != name && target.endpoint.name != name && !routed(&target.id.0) {
            continue;
        }
        ids.extend([PlaceId::model(&target), PlaceId::endpoint(&target.endpoint)]);
        for hash in hashes(&target.endpoint, keys, &snapshot.salt) {
            ids.extend([PlaceId::key(&target.endpoint, hash), PlaceId::key_for_model(&target, hash)]);
        }
    }
    if let Some(endpoint) = config.endpoint(name) {
        ids.push(PlaceId::endpoint(endpoint));
        ids.extend(hashes(endpoint, keys, &snapshot.salt).into_iter().map(|hash| PlaceId::key(endpoint, hash)));
    }
    ids
}
