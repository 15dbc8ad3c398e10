//! Builds the responses of `/v1/models`, `/health`, `/ready` and `/status`.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    ConfigGeneration, Gateway,
    aliases::resolve_alias,
    response::{self, Body},
};
use crate::gateway::auth;
use crate::{
    config::{ClientConfig, Config, Route, normalize_name},
    engine::plan::Call,
    model::{ChatRequest, ModelRequest, target::Target},
    protocol::openai::server_response::{self, ListedModel},
};
use std::{collections::BTreeSet, sync::Arc};

/// `owned_by` of routes in model lists.
const ROUTE_OWNER: &str = "mmchat";

/// Model list in OpenAI's format, with the models, routes and aliases without `*` that a client may use. `created`: the
/// Unix time of the config.
pub(super) fn model_list(config: &Config, created: i64, client: Option<&ClientConfig>) -> Value {
    let routes = config.routes.iter().map(|route| route.name.as_str());
    let models = config.models.iter().map(|model| model.id.0.as_str());
    let aliases = config.serve.aliases.iter().map(|alias| alias.pattern.as_str()).filter(|name| !name.contains('*'));
    let names: BTreeSet<&str> = routes.clone().chain(models.clone()).collect();
    let aliases = aliases.filter(|name| !names.contains(name));
    let entries = routes.chain(models).chain(aliases);
    server_response::model_list(entries.filter_map(|name| model_entry(config, created, client, name)))
}

/// A route has the smallest context window of its models: each of them may answer.
fn listed_route(route: &Route, created: i64) -> ListedModel<'_> {
    let windows: Option<Vec<u64>> = route.models.iter().map(|model| model.context_window).collect();
    let context_window = windows.and_then(|windows| windows.into_iter().min());
    ListedModel { id: &route.name, owner: ROUTE_OWNER, context_window, created }
}

fn listed_model<'m>(id: &'m str, target: &'m Target, created: i64) -> ListedModel<'m> {
    ListedModel { id, owner: &target.endpoint.name, context_window: target.context_window, created }
}

/// One entry of the model list; `None` if the name is unknown or the client may not use it.
pub(super) fn model_entry(config: &Config, created: i64, client: Option<&ClientConfig>, id: &str) -> Option<Value> {
    let id = normalize_name(id);
    let name = resolve_alias(config, &id);
    if !auth::is_model_allowed(client, &name) {
        return None;
    }
    if let Some(route) = config.route(&name) {
        return Some(server_response::model_entry(&ListedModel { id: &id, ..listed_route(route, created) }));
    }
    let target = config.model(&name).cloned().or_else(|| config.direct_model(&name))?;
    Some(server_response::model_entry(&listed_model(&id, &target, created)))
}

/// Response of `/health`: the process runs.
pub(super) fn health() -> Response<Body> {
    response::json_response(StatusCode::OK, &json!({"status": "ok"}))
}

/// Response of `/ready`: whether new requests are accepted.
pub(super) fn ready(gateway: &Gateway) -> Response<Body> {
    let (status, state) =
        if gateway.is_stopping() { (StatusCode::SERVICE_UNAVAILABLE, "stopping") } else { (StatusCode::OK, "ready") };
    response::json_response(status, &json!({"status": state}))
}

/// Body of `/status`: availability of all models, and the routes.
pub(super) fn status_body(gateway: &Gateway, current: &ConfigGeneration) -> Value {
    let engine = &gateway.deps.engine;
    let request = Arc::new(ModelRequest::Chat(ChatRequest::default()));
    let models = current.config.models.iter().map(|target| {
        let call = Call::single(target.id.0.clone(), Arc::clone(&request), Arc::clone(target));
        let explained = engine.explain(&call).pop().expect("a single-model call has one candidate");
        let until = explained.state.availability.until().map(|until| until.to_string());
        json!({
            "model": target.id.0,
            "endpoint": target.endpoint.name,
            "upstream_model": target.upstream_id,
            "state": explained.health_state.as_str(),
            "until": until,
            "cause": explained.last_error,
            "spend_limit": explained.spend_limit_reached,
            "in_flight": explained.state.in_flight,
            "ttft_ms": explained.state.latency_ms,
        })
    });
    let routes = current.config.routes.iter().map(|route| {
        let models: Vec<&str> = route.models.iter().map(|model| model.id.0.as_str()).collect();
        json!({"route": route.name, "strategy": route.policy.strategy.as_str(), "models": models})
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": gateway.started_at.elapsed().as_secs(),
        "config_generation": current.number,
        "stopping": gateway.is_stopping(),
        "models": models.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
    })
}
