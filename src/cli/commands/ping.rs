//! `mmchat ping`: is each endpoint there, is the key right, does it list the models, how fast.
//!
//! Owns what is asked for nothing (a list of models) and what costs a token (`--deep`). All at once; one that is silent
//! keeps no other waiting.

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures_util::{StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::models::remember;
use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        exit::Exit,
        list_format::ListArgs,
        recording::{KeepArgs, Keeper},
        request::unknown_name,
    },
};
use crate::{
    config::{Config, Flags, direct_target, nearest, parse_duration},
    engine::{
        Engine, Event, EventKind, LaneOutcome,
        plan::{AT_ONCE, Lane, Plan},
    },
    model::{
        Call, ChatRequest, ErrorClass, Message, Params, Role, api_key::masked_url, endpoint::Endpoint, target::Target,
    },
    protocol::{ApiError, ModelInfo},
    render::{
        notice::{duration, reason},
        table::Table,
    },
    store::record::GoesOn,
    term::output::say,
};

/// Check endpoints and models: reachable, key right, model listed, time; costs nothing unless --deep
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0: all well; 7: some are not; else the code of what is wrong with all of them.\n\n\
    mmchat ping\n\
    mmchat ping openai fast --deep")]
pub(crate) struct PingArgs {
    /// Endpoints or models; all unless named
    #[arg(value_name = "NAME", add = Offer::Reachable.completer())]
    names: Vec<String>,
    /// Ask each model for one token, which is billed
    #[arg(long)]
    deep: bool,
    /// How long each may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    list: ListArgs,
}

/// One endpoint's list, or why there is none.
pub(crate) struct Pinged {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) listed: Result<Vec<ModelInfo>, ApiError>,
    /// The keys that are refused although another is not, by their places from 0.
    refused: Vec<(usize, ApiError)>,
    took: Duration,
}

/// How one model does.
struct Checked<'a> {
    model: &'a Target,
    /// Whether its endpoint lists it; `None`: there is no list.
    listed: Option<bool>,
    /// A near id that is listed.
    near: Option<String>,
    /// What came of asking it.
    asked: Option<LaneOutcome>,
}

pub(crate) fn run(args: &PingArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.layers(Flags::default())?)?;
    let (endpoints, models) = chosen(&config, &args.names)?;
    let engine = context.engine_for(&config, config.history.on);
    let runtime = context.runtime()?;
    let plan = one_token_of(&models, args.timeout);
    let mut keeper = Keeper::new(context, &config, &engine, "ping", (&KeepArgs::wordless(), &plan, GoesOn::Anew));
    let (mut pinged, outcomes) = runtime.block_on(async {
        let plan = args.deep.then_some(plan);
        let deep = async {
            match plan {
                Some(plan) => outcomes(&engine, plan, |event| keeper.event(event)).await,
                None => Vec::new(),
            }
        };
        tokio::join!(ping_all(&engine, endpoints, args.timeout), deep)
    });
    keeper.close();
    if config.path.is_none() && args.names.is_empty() {
        // Without a config these are only guesses at what may run here.
        let guess = |pinged: &Pinged| pinged.endpoint.keys.is_empty() && pinged.endpoint.connect.loopback;
        pinged.retain(|pinged| pinged.listed.is_ok() || !guess(pinged));
    }
    if pinged.is_empty() && config.path.is_some() {
        return Err(CliError::usage("the config has no endpoints", "add one: mmchat endpoint add"));
    }
    if pinged.is_empty() {
        return Err(crate::engine::plan::PlanError::NoKey.into());
    }
    for pinged in &pinged {
        if let Ok(models) = &pinged.listed {
            remember(context, &pinged.endpoint, models);
        }
    }
    let mut asked = outcomes.into_iter();
    let checked: Vec<Checked<'_>> =
        models.iter().map(|model| Checked { asked: asked.next(), ..checked(model, &pinged) }).collect();
    let document = json!({
        "endpoints": pinged.iter().map(endpoint_object).collect::<Vec<_>>(),
        "models": checked.iter().map(model_object).collect::<Vec<_>>(),
    });
    args.list.print(context, &[endpoint_table(&pinged), model_table(&checked)], &document)?;
    if args.list.is_text() {
        hints(&pinged);
    }
    Ok(exit(&pinged, &checked))
}

type Chosen = (Vec<Arc<Endpoint>>, Vec<Arc<Target>>);

/// The endpoints and models that were named, or all. A named model brings its endpoint, a named endpoint its models.
fn chosen(config: &Config, names: &[String]) -> Result<Chosen, CliError> {
    if names.is_empty() {
        return Ok((config.endpoints.clone(), config.models.clone()));
    }
    let (mut endpoints, mut models) = (Vec::<Arc<Endpoint>>::new(), Vec::<Arc<Target>>::new());
    for name in names {
        let found: Vec<Arc<Target>> = if let Some(endpoint) = config.endpoint(name) {
            endpoints.push(Arc::clone(endpoint));
            config.models.iter().filter(|model| model.endpoint.name == *name).cloned().collect()
        } else if let Some(model) = config.model(name) {
            vec![Arc::clone(model)]
        } else if let Some(route) = config.route(name) {
            route.models.clone()
        } else if let Some(target) = config.direct(name) {
            vec![target]
        } else {
            return Err(unknown_name(config, name));
        };
        endpoints.extend(found.iter().map(|model| Arc::clone(&model.endpoint)));
        models.extend(found);
    }
    let mut seen = Vec::new();
    endpoints.retain(|endpoint| is_new(&mut seen, endpoint.name.clone()));
    let mut seen = Vec::new();
    models.retain(|model| is_new(&mut seen, model.id.clone()));
    Ok((endpoints, models))
}

/// Whether nobody was called so before.
pub(crate) fn is_new<T: PartialEq>(seen: &mut Vec<T>, name: T) -> bool {
    let new = !seen.contains(&name);
    seen.push(name);
    new
}

/// Asks every endpoint for its list, all at once.
pub(crate) async fn ping_all(engine: &Engine, endpoints: Vec<Arc<Endpoint>>, limit: Duration) -> Vec<Pinged> {
    join_all(endpoints.into_iter().map(async |endpoint| {
        let begun = Instant::now();
        let listed = engine.list_models(&direct_target(&endpoint, ""), limit).await;
        let took = begun.elapsed();
        let refused = if listed.is_ok() { engine.refused_keys(&endpoint, limit).await } else { Vec::new() };
        Pinged { endpoint, listed, refused, took }
    }))
    .await
}

/// The plan to ask every model for one token.
pub(crate) fn one_token_of(models: &[Arc<Target>], limit: Duration) -> Plan {
    let messages = vec![Message::text(Role::User, "hello")];
    let params = Params { max_tokens: Some(1), ..Params::default() };
    let call = Arc::new(Call::Chat(ChatRequest { messages, params, stream: true, ..ChatRequest::default() }));
    let alone = |model: &Arc<Target>| Lane::alone(model.id.0.clone(), Arc::clone(&call), Arc::clone(model));
    let lanes = models.iter().map(|model| Lane { deadline: Some(limit), ..alone(model) });
    Plan { lanes: lanes.collect(), at_once: Some(AT_ONCE) }
}

/// How each lane ended, in the order of the plan.
pub(crate) async fn outcomes(engine: &Arc<Engine>, plan: Plan, mut told: impl FnMut(&Event)) -> Vec<LaneOutcome> {
    let mut events = std::pin::pin!(engine.run(plan));
    let mut outcomes: Vec<(usize, LaneOutcome)> = Vec::new();
    while let Some(event) = events.next().await {
        told(&event);
        if let EventKind::Finished(outcome) = event.kind {
            outcomes.push((event.lane, *outcome));
        }
    }
    outcomes.sort_by_key(|(lane, _)| *lane);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn checked<'a>(model: &'a Target, pinged: &[Pinged]) -> Checked<'a> {
    let list = pinged.iter().find(|pinged| pinged.endpoint.name == model.endpoint.name);
    let ids: Option<Vec<&str>> =
        list.and_then(|pinged| Some(pinged.listed.as_ref().ok()?.iter().map(|model| model.id.as_str()).collect()));
    let listed = ids.as_ref().map(|ids| ids.contains(&model.upstream.as_str()));
    let near = ids
        .filter(|_| listed == Some(false))
        .and_then(|ids| nearest(&model.upstream, ids.into_iter()).map(str::to_owned));
    Checked { model, listed, near, asked: None }
}

fn endpoint_table(pinged: &[Pinged]) -> Table {
    let mut table = Table::new(&["endpoint", "state", ">time", ">models", "note"]);
    for Pinged { endpoint, listed, refused, took } in pinged {
        let (state, count, note) = match listed {
            Ok(models) => {
                let keys = refused.iter().map(|(place, error)| format!("key {}: {}", place + 1, reason(error)));
                ("ok".to_owned(), models.len().to_string(), keys.collect::<Vec<_>>().join("; "))
            }
            Err(error) => {
                let note = format!("{} ({})", said(error), masked_url(&endpoint.base_url));
                (format!("ERR {}", error.class), String::new(), note)
            }
        };
        table.row(vec![endpoint.name.clone(), state, duration(*took), count, note]);
    }
    table
}

/// What was said, without the class, which has a column of its own.
fn said(error: &ApiError) -> String {
    let reason = reason(error);
    reason.split_once(": ").map_or(reason.as_str(), |(_, said)| said).to_owned()
}

fn model_table(checked: &[Checked<'_>]) -> Table {
    let deep = checked.iter().any(|check| check.asked.is_some());
    let columns = ["model", "endpoint", "upstream id", "listed", "note", "state", ">TTFT"];
    let mut table = Table::new(if deep { &columns } else { &columns[..5] });
    for check in checked {
        let listed = match check.listed {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "?",
        };
        let model = check.model;
        let mut row = vec![
            model.id.0.clone(),
            model.endpoint.name.clone(),
            model.upstream.clone(),
            listed.to_owned(),
            note(check),
        ];
        if let Some(outcome) = &check.asked {
            row.extend([state(outcome), outcome.ttft.map(duration).unwrap_or_default()]);
        }
        table.row(row);
    }
    table
}

/// What came of asking the model.
pub(crate) fn state(outcome: &LaneOutcome) -> String {
    match &outcome.result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("ERR {}", error.class),
    }
}

fn note(check: &Checked<'_>) -> String {
    match (&check.asked, &check.near) {
        (Some(LaneOutcome { result: Err(error), .. }), _) => said(error),
        (None, Some(near)) => format!("did you mean {near}?"),
        _ => String::new(),
    }
}

fn endpoint_object(pinged: &Pinged) -> Value {
    json!({
        "endpoint": pinged.endpoint.name,
        "base_url": masked_url(&pinged.endpoint.base_url),
        "ok": pinged.listed.is_ok(),
        "ms": u64::try_from(pinged.took.as_millis()).unwrap_or(u64::MAX),
        "models": pinged.listed.as_ref().ok().map(Vec::len),
        "error": pinged.listed.as_ref().err().map(crate::render::json::error),
        "refused_keys": pinged.refused.iter()
            .map(|(place, error)| json!({"key": place + 1, "error": crate::render::json::error(error)}))
            .collect::<Vec<_>>(),
    })
}

fn model_object(check: &Checked<'_>) -> Value {
    let asked = check.asked.as_ref().map(|outcome| {
        json!({
            "ok": outcome.result.is_ok(),
            "ttft_ms": outcome.ttft.map(|ttft| u64::try_from(ttft.as_millis()).unwrap_or(u64::MAX)),
            "error": outcome.result.as_ref().err().map(crate::render::json::error),
        })
    });
    json!({
        "model": check.model.id.0,
        "endpoint": check.model.endpoint.name,
        "upstream_model": check.model.upstream,
        "listed": check.listed,
        "nearest": check.near,
        "asked": asked,
    })
}

/// What to do about what is wrong, once for each.
fn hints(pinged: &[Pinged]) {
    let mut told = Vec::new();
    for hint in pinged.iter().filter_map(|pinged| pinged.listed.as_ref().err()?.hint.as_ref()) {
        if is_new(&mut told, hint) {
            say(&format!("hint: {hint}\n"));
        }
    }
}

/// A model is well when it answered; one that was not asked, when it is listed or nobody could say.
fn exit(pinged: &[Pinged], checked: &[Checked<'_>]) -> Exit {
    let endpoints = pinged.iter().map(|pinged| match (&pinged.listed, pinged.refused.first()) {
        (Err(error), _) | (Ok(_), Some((_, error))) => Exit::of_class(error.class),
        (Ok(_), None) => Exit::Ok,
    });
    let models = checked.iter().map(|check| match (&check.asked, check.listed) {
        (Some(outcome), _) => Exit::of(outcome),
        (None, Some(false)) => Exit::of_class(ErrorClass::Model),
        (None, Some(true)) => Exit::Ok,
        // The endpoint's own failure counts for it.
        (None, None) => Exit::of_class(
            pinged
                .iter()
                .find(|pinged| pinged.endpoint.name == check.model.endpoint.name)
                .and_then(|pinged| Some(pinged.listed.as_ref().err()?.class))
                .unwrap_or(ErrorClass::Model),
        ),
    });
    Exit::shared(endpoints.chain(models))
}
