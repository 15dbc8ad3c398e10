//! `mmchat ping`: checks whether endpoints respond, accept their keys and list the configured models, and the time it
//! takes.
//!
//! Listing models is free; `--deep` requests one token from each model. All requests run concurrently, so an endpoint
//! that times out does not delay the others.

use std::{collections::HashSet, sync::Arc, time::Duration};

use clap::Args;
use futures_util::{StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::models::cache_model_list;
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        error::unknown_endpoint_or_model,
        exit::Exit,
        list_format::ListArgs,
        recording::{RecordingArgs, RunRecorder},
    },
};
use crate::{
    config::{Config, Flags, closest_name, direct_target, parse_duration},
    engine::{
        CallRecord, Engine, Event, EventKind,
        plan::{Call, MAX_CONCURRENT_CALLS, Plan},
    },
    model::{
        ChatRequest, ErrorClass, Message, ModelRequest, Params, Role, api_key::redact_url, endpoint::Endpoint,
        target::Target,
    },
    protocol::{CallError, ModelInfo},
    render::{
        notice::{format_duration, format_reason},
        table::Table,
    },
    store::record::Continuation,
    term::output::write_stderr,
};

/// Check that endpoints are reachable, accept their keys and list the models
#[derive(Debug, Args)]
#[command(after_help = "Listing models is free of charge; with --deep, the requests are billed.\n\n\
    Exit code 0: no problems; 7: some checks failed. If all failed: the exit code that they have in common, else 5.\n\n\
    Examples:\n  \
      mmchat ping\n  \
      mmchat ping openai fast --deep\n  \
      mmchat ping --format json")]
pub(crate) struct PingArgs {
    /// Endpoints, models or routes to check [default: all]
    #[arg(value_name = "NAME", add = CompletionKind::EndpointsAndModels.completer())]
    names: Vec<String>,
    /// Also request one token from each model, which is billed
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    list: ListArgs,
    /// Limit the time of each request
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Limits")]
    timeout: Duration,
}

/// The model list of one endpoint, or the error of the request.
pub(crate) struct EndpointCheck {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) model_list: Result<Vec<ModelInfo>, CallError>,
    /// Rejected keys, where another key is accepted, by index from 0.
    rejected_keys: Vec<(usize, CallError)>,
    elapsed: Duration,
}

/// The check of one model.
struct ModelCheck<'a> {
    model: &'a Target,
    /// Whether its endpoint lists it; `None` when there is no list.
    is_listed: Option<bool>,
    /// The most similar listed id, when the model is not listed.
    nearest: Option<String>,
    /// The record of the `--deep` request.
    record: Option<Arc<CallRecord>>,
}

pub(crate) fn run(args: &PingArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.settings(Flags::default())?)?;
    let (endpoints, models) = select(&config, &args.names)?;
    context.warn_about_exposed_keys(&endpoints);
    let engine = context.engine_for(&config, config.history.store_content);
    let runtime = context.runtime()?;
    let plan = one_token_plan(&models, args.timeout);
    let mut recorder = RunRecorder::new(
        context,
        &config,
        &engine,
        "ping",
        (&RecordingArgs::metadata_only(), &plan, Continuation::New),
    );
    let (mut endpoint_checks, records) = runtime.block_on(async {
        let plan = args.deep.then_some(plan);
        let deep = async {
            match plan {
                Some(plan) => collect_records(&engine, plan, |event| recorder.on_event(event)).await,
                None => Vec::new(),
            }
        };
        tokio::join!(check_endpoints(&engine, endpoints, args.timeout), deep)
    });
    recorder.close();
    if config.files.is_empty() && args.names.is_empty() {
        // Without a config, keyless loopback endpoints are only default ports where a server may run.
        let is_guess = |check: &EndpointCheck| check.endpoint.keys.is_empty() && check.endpoint.connect.loopback;
        endpoint_checks.retain(|check| check.model_list.is_ok() || !is_guess(check));
    }
    if endpoint_checks.is_empty() && !config.files.is_empty() {
        return Err(CliError::usage("no endpoints in the config", "run \"mmchat endpoint add\""));
    }
    if endpoint_checks.is_empty() {
        return Err(crate::engine::plan::PlanError::NoEndpoints.into());
    }
    for check in &endpoint_checks {
        if let Ok(models) = &check.model_list {
            cache_model_list(context, &check.endpoint, models);
        }
    }
    let mut records = records.into_iter();
    let model_checks: Vec<ModelCheck<'_>> = models
        .iter()
        .map(|model| ModelCheck { record: records.next(), ..check_model(model, &endpoint_checks) })
        .collect();
    let document = json!({
        "endpoints": endpoint_checks.iter().map(endpoint_json).collect::<Vec<_>>(),
        "models": model_checks.iter().map(model_json).collect::<Vec<_>>(),
    });
    args.list.print(context, &[endpoint_table(&endpoint_checks), model_table(&model_checks)], &document)?;
    if args.list.is_text() {
        print_hints(&endpoint_checks);
    }
    Ok(exit_code(&endpoint_checks, &model_checks))
}

type Selection = (Vec<Arc<Endpoint>>, Vec<Arc<Target>>);

/// The named endpoints and models, or all. A model includes its endpoint, an endpoint includes its models.
fn select(config: &Config, names: &[String]) -> Result<Selection, CliError> {
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
        } else if let Some(target) = config.direct_model(name) {
            vec![target]
        } else {
            return Err(unknown_endpoint_or_model(config, name));
        };
        endpoints.extend(found.iter().map(|model| Arc::clone(&model.endpoint)));
        models.extend(found);
    }
    let mut endpoint_names = HashSet::new();
    endpoints.retain(|endpoint| endpoint_names.insert(endpoint.name.clone()));
    let mut model_ids = HashSet::new();
    models.retain(|model| model_ids.insert(model.id.clone()));
    Ok((endpoints, models))
}

/// Lists the models of every endpoint concurrently.
pub(crate) async fn check_endpoints(
    engine: &Engine,
    endpoints: Vec<Arc<Endpoint>>,
    timeout: Duration,
) -> Vec<EndpointCheck> {
    join_all(endpoints.into_iter().map(async |endpoint| {
        let started = Instant::now();
        let listed = engine.list_models(&direct_target(&endpoint, ""), timeout).await;
        let elapsed = started.elapsed();
        let rejected_keys = if listed.is_ok() { engine.rejected_keys(&endpoint, timeout).await } else { Vec::new() };
        EndpointCheck { endpoint, model_list: listed, rejected_keys, elapsed }
    }))
    .await
}

/// A plan that requests one token from every model.
pub(crate) fn one_token_plan(models: &[Arc<Target>], timeout: Duration) -> Plan {
    let messages = vec![Message::text(Role::User, "hello")];
    let params = Params { max_tokens: Some(1), ..Params::default() };
    let request =
        Arc::new(ModelRequest::Chat(ChatRequest { messages, params, stream: true, ..ChatRequest::default() }));
    let call = |model: &Arc<Target>| Call::single(model.id.0.clone(), Arc::clone(&request), Arc::clone(model));
    let calls = models.iter().map(|model| Call { deadline: Some(timeout), ..call(model) });
    Plan { calls: calls.collect(), max_concurrent: Some(MAX_CONCURRENT_CALLS) }
}

/// Runs the plan and returns the record of each call in the order of the plan.
pub(crate) async fn collect_records(
    engine: &Arc<Engine>,
    plan: Plan,
    mut on_event: impl FnMut(&Event),
) -> Vec<Arc<CallRecord>> {
    let mut events = std::pin::pin!(engine.run(plan));
    let mut records = Vec::new();
    while let Some(event) = events.next().await {
        on_event(&event);
        if let EventKind::Finished(record) = event.kind {
            records.push((event.call, record));
        }
    }
    records.sort_by_key(|(index, _)| *index);
    records.into_iter().map(|(_, record)| record).collect()
}

fn check_model<'a>(model: &'a Target, endpoint_checks: &[EndpointCheck]) -> ModelCheck<'a> {
    let check = endpoint_checks.iter().find(|check| check.endpoint.name == model.endpoint.name);
    let ids: Option<Vec<&str>> =
        check.and_then(|check| Some(check.model_list.as_ref().ok()?.iter().map(|model| model.id.as_str()).collect()));
    let listed = ids.as_ref().map(|ids| ids.contains(&model.upstream_id.as_str()));
    let nearest = ids
        .filter(|_| listed == Some(false))
        .and_then(|ids| closest_name(&model.upstream_id, ids.into_iter()).map(str::to_owned));
    ModelCheck { model, is_listed: listed, nearest, record: None }
}

fn endpoint_table(checks: &[EndpointCheck]) -> Table {
    let mut table = Table::new(&["endpoint", "state", ">time", ">models", "note"]);
    for EndpointCheck { endpoint, model_list: listed, rejected_keys, elapsed } in checks {
        let (state, count, note) = match listed {
            Ok(models) => {
                let keys =
                    rejected_keys.iter().map(|(index, error)| format!("key {}: {}", index + 1, format_reason(error)));
                ("ok".to_owned(), models.len().to_string(), keys.collect::<Vec<_>>().join("; "))
            }
            Err(error) => {
                let note = format!("{} ({})", error_message(error), redact_url(&endpoint.base_url));
                (format!("ERR {}", error.class), String::new(), note)
            }
        };
        table.add_row(vec![endpoint.name.clone(), state, format_duration(*elapsed), count, note]);
    }
    table
}

/// The error text without its class, which has its own column.
fn error_message(error: &CallError) -> String {
    let reason = format_reason(error);
    reason.split_once(": ").map_or(reason.as_str(), |(_, message)| message).to_owned()
}

fn model_table(checks: &[ModelCheck<'_>]) -> Table {
    let has_records = checks.iter().any(|check| check.record.is_some());
    let columns = ["model", "endpoint", "upstream id", "listed", "note", "state", ">TTFT"];
    let mut table = Table::new(if has_records { &columns } else { &columns[..5] });
    for check in checks {
        let listed = match check.is_listed {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "?",
        };
        let model = check.model;
        let mut row = vec![
            model.id.0.clone(),
            model.endpoint.name.clone(),
            model.upstream_id.clone(),
            listed.to_owned(),
            note(check),
        ];
        if let Some(record) = &check.record {
            row.extend([record_state(record), record.ttft.map(format_duration).unwrap_or_default()]);
        }
        table.add_row(row);
    }
    table
}

/// The result of a request, for a table: `ok` or `ERR` with the error class.
pub(crate) fn record_state(record: &CallRecord) -> String {
    match &record.result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("ERR {}", error.class),
    }
}

fn note(check: &ModelCheck<'_>) -> String {
    match (&check.record, &check.nearest) {
        (Some(record), _) => record.result.as_ref().err().map(error_message).unwrap_or_default(),
        (None, Some(nearest)) => format!("did you mean \"{nearest}\"?"),
        (None, None) => String::new(),
    }
}

fn endpoint_json(check: &EndpointCheck) -> Value {
    json!({
        "endpoint": check.endpoint.name,
        "base_url": redact_url(&check.endpoint.base_url),
        "ok": check.model_list.is_ok(),
        "ms": u64::try_from(check.elapsed.as_millis()).unwrap_or(u64::MAX),
        "models": check.model_list.as_ref().ok().map(Vec::len),
        "error": check.model_list.as_ref().err().map(crate::render::json::error),
        "refused_keys": check.rejected_keys.iter()
            .map(|(index, error)| json!({"key": index + 1, "error": crate::render::json::error(error)}))
            .collect::<Vec<_>>(),
    })
}

fn model_json(check: &ModelCheck<'_>) -> Value {
    let response = check.record.as_ref().map(|record| {
        json!({
            "ok": record.result.is_ok(),
            "ttft_ms": record.ttft.map(|ttft| u64::try_from(ttft.as_millis()).unwrap_or(u64::MAX)),
            "error": record.result.as_ref().err().map(crate::render::json::error),
        })
    });
    json!({
        "model": check.model.id.0,
        "endpoint": check.model.endpoint.name,
        "upstream_model": check.model.upstream_id,
        "listed": check.is_listed,
        "nearest": check.nearest,
        "asked": response,
    })
}

/// Prints each hint once.
fn print_hints(checks: &[EndpointCheck]) {
    let mut printed = HashSet::new();
    for hint in checks.iter().filter_map(|check| check.model_list.as_ref().err()?.hint.as_ref()) {
        if printed.insert(hint) {
            write_stderr(&format!("hint: {hint}\n"));
        }
    }
}

/// The exit code. A model passes when it answered, or without `--deep` when it is listed.
fn exit_code(endpoint_checks: &[EndpointCheck], model_checks: &[ModelCheck<'_>]) -> Exit {
    let endpoints = endpoint_checks.iter().map(|check| match (&check.model_list, check.rejected_keys.first()) {
        (Err(error), _) | (Ok(_), Some((_, error))) => Exit::from_class(error.class),
        (Ok(_), None) => Exit::Ok,
    });
    let models = model_checks.iter().map(|check| match (&check.record, check.is_listed) {
        (Some(record), _) => Exit::from_record(record),
        (None, Some(false)) => Exit::from_class(ErrorClass::Model),
        (None, Some(true)) => Exit::Ok,
        // Without a list, the failure of the endpoint counts for its models.
        (None, None) => Exit::from_class(
            endpoint_checks
                .iter()
                .find(|endpoint_check| endpoint_check.endpoint.name == check.model.endpoint.name)
                .and_then(|endpoint_check| Some(endpoint_check.model_list.as_ref().err()?.class))
                .unwrap_or(ErrorClass::Model),
        ),
    });
    Exit::combine(endpoints.chain(models))
}
