//! What the server tells of itself: which models there are, whether it is well, how everybody stands.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Current, Gateway,
    reply::{self, Body},
};
use crate::gateway::auth;
use crate::{
    config::{Client, Config},
    engine::plan::Lane,
    model::{Call, ChatRequest},
    protocol::openai::server,
    routing::health::Standing,
};
use std::sync::Arc;

/// Who owns a route, as far as lists of models have owners.
const OURS: &str = "mmchat";

/// The models and routes that a client may use, as clients of OpenAI read it.
pub(super) fn models(config: &Config, client: Option<&Client>) -> Value {
    let routes = config.routes.iter().map(|route| (route.name.as_str(), OURS));
    let models = config.models.iter().map(|model| (model.id.0.as_str(), model.endpoint.name.as_str()));
    server::models(routes.chain(models).filter(|(name, _)| auth::may_use(client, name)))
}

/// One of them; `None`: nothing is called so.
pub(super) fn model(config: &Config, id: &str) -> Option<Value> {
    let id = crate::config::normalised(id);
    if config.route(&id).is_some() {
        return Some(server::model(&id, OURS));
    }
    let target = config.model(&id).cloned().or_else(|| config.direct(&id))?;
    Some(server::model(&id, &target.endpoint.name))
}

/// The process is there.
pub(super) fn health() -> Response<Body> {
    reply::json(StatusCode::OK, &json!({"status": "ok"}))
}

/// New requests are welcome.
pub(super) fn ready(gateway: &Gateway) -> Response<Body> {
    let (status, word) =
        if gateway.is_stopping() { (StatusCode::SERVICE_UNAVAILABLE, "stopping") } else { (StatusCode::OK, "ready") };
    reply::json(status, &json!({"status": word}))
}

/// How everybody stands.
pub(super) fn state(gateway: &Gateway, current: &Current) -> Value {
    let engine = &gateway.outside.engine;
    let call = Arc::new(Call::Chat(ChatRequest::default()));
    let models = current.config.models.iter().map(|target| {
        let lane = Lane::alone(target.id.0.clone(), Arc::clone(&call), Arc::clone(target));
        let explained = engine.explain(&lane).pop().expect("a lane has its candidate");
        let (state, until) = match explained.seat.standing {
            Standing::Free => ("ok", None),
            Standing::HalfOpen => ("probing", None),
            Standing::Aside(until, _) => ("left alone", Some(until.to_string())),
        };
        json!({
            "model": target.id.0,
            "endpoint": target.endpoint.name,
            "upstream_model": target.upstream,
            "state": state,
            "until": until,
            "why": explained.blame,
            "spend_limit": explained.spent,
            "in_flight": explained.seat.busy,
            "ttft_ms": explained.seat.latency,
        })
    });
    let routes = current.config.routes.iter().map(|route| {
        let models: Vec<&str> = route.models.iter().map(|model| model.id.0.as_str()).collect();
        json!({"route": route.name, "strategy": route.policy.strategy.as_str(), "models": models})
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": gateway.begun.elapsed().as_secs(),
        "config_generation": current.generation,
        "stopping": gateway.is_stopping(),
        "models": models.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
    })
}
