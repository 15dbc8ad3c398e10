//! The addresses: what is served where.
//!
//! Owns reading a request up to the point where it is a lane that can be run, and the refusals on the way. Refuses to know
//! how it is answered.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, timeout};

use super::{
    Current, Gateway,
    connection::{Arrived, Unsent},
    error::{Refused, Why, named},
    exchange::{Exchange, Facts},
    reply::{self, Body, Manner},
    status,
};
use crate::gateway::{auth, body_budget::Place, origin_guard};
use crate::{
    config::{Client, normalised},
    engine::plan::{self, Lane, PlanError},
    model::{Call, Service},
    protocol::{
        error::shortened,
        openai::server::{self, Asked, Refusal},
    },
    routing::OnCut,
};

/// The longest a client may take between two pieces of its request.
const SLOWEST_CLIENT: Duration = Duration::from_secs(30);
/// The longest a whole body may take: a slow one holds room that others want.
const SLOWEST_BODY: Duration = Duration::from_secs(300);
/// The longest name of a model; whatever is longer is none.
const LONGEST_NAME: usize = 512;
/// A body that takes a while to read.
const LARGE: usize = 256 * 1024;

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const RERANK: &str = "/v1/rerank";
const IMAGES: &str = "/v1/images/generations";
const MODELS: &str = "/v1/models";

impl Gateway {
    /// Answers one request without a network, as one that came over loopback.
    pub async fn ask(self: &Arc<Self>, request: http::Request<Body>) -> Response<Body> {
        self.answer(self.router(), Arrived { loopback: true }, request).await
    }

    /// Answers one request, if it is let in.
    pub(super) async fn answer(
        &self,
        router: Router,
        arrived: Arrived,
        request: http::Request<Body>,
    ) -> Response<Body> {
        use hyper::service::Service;
        let current = self.current();
        let serve = &current.config.serve;
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        if let Err(refused) = origin_guard::check(serve, arrived.loopback, request.headers(), authority) {
            return self.refuse(&Facts::new("/"), &refused);
        }
        let cors = origin_guard::cors(serve, request.headers());
        if origin_guard::is_preflight(request.method(), request.headers()) && !cors.is_empty() {
            let mut reply = Response::new(Body::empty());
            *reply.status_mut() = StatusCode::NO_CONTENT;
            reply.headers_mut().extend(cors.into_iter().chain(origin_guard::preflight()));
            return reply;
        }
        drop(current);
        let reply = TowerToHyperService::new(router).call(request).await;
        let mut reply = reply.unwrap_or_else(|never| match never {});
        reply.headers_mut().extend(cors);
        reply
    }

    /// Everything that is served.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        let opaque = |path, service| {
            post(move |State(gateway): State<Arc<Self>>, request: Request| async move {
                ask(&gateway, path, request, move |body| server::parse_opaque(service, &body)).await
            })
        };
        Router::new()
            .route(CHAT, post(chat))
            .route(COMPLETIONS, opaque(COMPLETIONS, Service::Completions))
            .route(EMBEDDINGS, opaque(EMBEDDINGS, Service::Embeddings))
            .route(RERANK, opaque(RERANK, Service::Rerank))
            .route(IMAGES, opaque(IMAGES, Service::Images))
            .route(MODELS, get(models))
            .route("/v1/models/{*id}", get(model))
            .route("/health", get(async || status::health()))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/status", get(state))
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .with_state(Arc::clone(self))
    }
}

async fn chat(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    ask(&gateway, CHAT, request, |body| server::parse_chat(&body)).await
}

/// Reads what is asked and answers it.
async fn ask(
    gateway: &Arc<Gateway>,
    path: &'static str,
    request: Request,
    parse: impl FnOnce(Bytes) -> Result<Asked, Refusal> + Send + 'static,
) -> Response<Body> {
    let mut facts = Facts::new(path);
    let mut reply = match understand(gateway, &mut facts, request, parse).await {
        Ok((exchange, call, manner)) => reply::answer(exchange, call, manner).await,
        Err(refused) => return gateway.refuse(&facts, &refused),
    };
    named(&mut reply, &facts.request_id);
    reply
}

/// From a request to what is run for it.
async fn understand(
    gateway: &Arc<Gateway>,
    facts: &mut Facts,
    request: Request,
    parse: impl FnOnce(Bytes) -> Result<Asked, Refusal> + Send + 'static,
) -> Result<(Box<Exchange>, Arc<Call>, Manner), Refused> {
    if gateway.is_stopping() {
        return Err(Refused::new(Why::Draining));
    }
    let current = gateway.current();
    let (parts, body) = request.into_parts();
    let client = auth::who(&current.keys, &parts.headers)?;
    facts.client = client.map(|client| client.name.clone());
    // Before its body, so that limits hold for what reading that takes, too.
    let ticket = gateway.clients.admit(client)?;
    let mut place = gateway.bodies.place();
    let body = read(body, &parts.headers, current.config.serve.max_body, &mut place).await?;
    facts.begun = Instant::now();
    let asked = parsed(body, parse).await?;
    facts.asked = Some(shortened(&asked.model));
    let call = Arc::new(asked.call);
    let lane = lane(&current, client, &asked.model, &call, &parts)?;
    facts.asked = Some(lane.name.clone());
    facts.stream = call.streams();
    let hold = current.config.route(&lane.name).and_then(|route| route.hold).unwrap_or(current.config.serve.hold);
    let ends_with_mark = match &*call {
        Call::Chat(_) => true,
        Call::Opaque(opaque) => opaque.service == Service::Completions,
    };
    let unsent = parts.extensions.get::<Unsent>().cloned().unwrap_or_default();
    let manner = Manner { stream: call.streams(), include_usage: asked.include_usage, ends_with_mark, hold, unsent };
    Ok((Exchange::begin(gateway, current, facts.clone(), lane, ticket, place), call, manner))
}

/// Reads what is asked; what takes long to read is not read where others wait for their answers.
async fn parsed(
    body: Bytes,
    parse: impl FnOnce(Bytes) -> Result<Asked, Refusal> + Send + 'static,
) -> Result<Asked, Refused> {
    let parsed = if body.len() > LARGE {
        let reading = tokio::task::spawn_blocking(move || parse(body));
        reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    } else {
        parse(body)
    };
    parsed.map_err(|refusal| Refused::new(Why::Body(refusal)))
}

/// The lane that answers `call` under `name`.
fn lane(
    current: &Current,
    client: Option<&Client>,
    name: &str,
    call: &Arc<Call>,
    parts: &Parts,
) -> Result<Lane, Refused> {
    if name.len() > LONGEST_NAME {
        let hint = "names are shorter".to_owned();
        return Err(Refused::new(Why::UnknownModel { name: name.to_owned(), hint }));
    }
    let limited = client.is_some_and(|client| client.models.is_some());
    // Before anything is said of it.
    if let Some(client) = client
        && !auth::may_use(Some(client), &normalised(name))
    {
        return Err(Refused::new(Why::NotAllowed { name: client.name.clone(), model: name.to_owned() }));
    }
    let lane = plan::lane(&current.config, Some(name), call, OnCut::Error)
        .map_err(|error| unknown_model(name, &error, limited))?;
    if let Some(client) = client {
        let (who, model) = (client.name.clone(), name.to_owned());
        // A name without an entry would be a way around the limit.
        let known = lane.route.is_some() || current.config.model(&lane.name).is_some();
        if !client.spend.is_empty() && !known && lane.candidates.iter().any(|target| target.price.is_none()) {
            return Err(Refused::new(Why::NoPrice { name: who, model }));
        }
    }
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let buffer = !call.streams()
        || lane.on_cut == OnCut::Buffer
        || header("x-mmchat-buffer").is_some_and(|value| value == "1")
        // There the end of a transfer looks the same whether or not it broke off.
        || parts.version < Version::HTTP_11;
    Ok(Lane {
        verbatim: true,
        session: header("x-mmchat-session").map(str::to_owned),
        // What was sent cannot be taken back, so that nothing is begun again behind it.
        on_cut: if buffer { OnCut::Buffer } else { OnCut::Error },
        ..lane
    })
}

/// `limited`: who asks is not to know what else there is.
fn unknown_model(name: &str, error: &PlanError, limited: bool) -> Refused {
    match error {
        PlanError::Blind(_) => {
            let message = error.to_string();
            Refused::new(Why::Body(Refusal { message, param: Some("messages") }))
        }
        _ if limited => {
            let hint = "GET /v1/models lists what there is".to_owned();
            Refused::new(Why::UnknownModel { name: name.to_owned(), hint })
        }
        PlanError::IsSet(_) => {
            let hint = "it is a set, which gives several answers; ask for one of its models".to_owned();
            Refused::new(Why::UnknownModel { name: name.to_owned(), hint })
        }
        _ => Refused::new(Why::UnknownModel { name: name.to_owned(), hint: error.hint() }),
    }
}

/// The whole body, if it is no larger than `most`, comes without long pauses and has a `place`.
async fn read(body: Body, headers: &HeaderMap, most: usize, place: &mut Place) -> Result<Bytes, Refused> {
    if let Some(how) = packed(headers) {
        return Err(Refused::new(Why::Encoded(how)));
    }
    let announced =
        headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        return Err(Refused::new(Why::TooLarge(most)));
    }
    let until = Instant::now() + SLOWEST_BODY;
    let mut body = Limited::new(body, most);
    let mut whole = BytesMut::new();
    loop {
        let patience = SLOWEST_CLIENT.min(until.saturating_duration_since(Instant::now()));
        let frame = timeout(patience, body.frame()).await.map_err(|_| Refused::new(Why::Slow))?;
        match frame {
            None => return Ok(whole.freeze()),
            // Put together as they come: many small ones would take many times their room.
            Some(Ok(frame)) => {
                whole.extend_from_slice(&frame.into_data().unwrap_or_default());
                place.grow_to(whole.len(), most)?;
            }
            Some(Err(error)) if error.is::<LengthLimitError>() => return Err(Refused::new(Why::TooLarge(most))),
            Some(Err(_)) => return Err(Refused::new(Why::Broken)),
        }
    }
}

/// How a body is packed, where that is no way that is read.
fn packed(headers: &HeaderMap) -> Option<String> {
    let (content, transfer) =
        (headers.get_all(http::header::CONTENT_ENCODING), headers.get_all(http::header::TRANSFER_ENCODING));
    let named = |value: &HeaderValue, plain: &str| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.split(',')
            .map(str::trim)
            .find(|how| !how.is_empty() && !how.eq_ignore_ascii_case(plain))
            .map(str::to_owned)
    };
    let content = content.iter().find_map(|value| named(value, "identity"));
    content.or_else(|| transfer.iter().find_map(|value| named(value, "chunked")))
}

/// As [`known`], for what only those may read that may see everything.
fn trusted(gateway: &Gateway, path: &'static str, headers: &HeaderMap) -> Result<Arc<Current>, Response<Body>> {
    match known(gateway, path, headers)? {
        (_, Some(client)) if !client.metrics => {
            let facts = Facts { client: Some(client.name.clone()), ..Facts::new(path) };
            Err(gateway.refuse(&facts, &Refused::new(Why::NoFigures { name: client.name })))
        }
        (current, _) => Ok(current),
    }
}

/// Who asks, for what is not asked of a model.
fn known(
    gateway: &Gateway,
    path: &'static str,
    headers: &HeaderMap,
) -> Result<(Arc<Current>, Option<Client>), Response<Body>> {
    let current = gateway.current();
    let client = auth::who(&current.keys, headers).map(Option::<&Client>::cloned);
    match client {
        Ok(client) => Ok((current, client)),
        Err(refused) => Err(gateway.refuse(&Facts::new(path), &refused)),
    }
}

async fn models(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match known(&gateway, MODELS, &headers) {
        Ok((current, client)) => reply::json(StatusCode::OK, &status::models(&current.config, client.as_ref())),
        Err(refused) => refused,
    }
}

async fn model(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response<Body> {
    let (current, client) = match known(&gateway, MODELS, &headers) {
        Ok(known) => known,
        Err(refused) => return refused,
    };
    // What is no text is no name either.
    let id = id.map(|Path(id)| normalised(&id)).unwrap_or_default();
    let found = (id.len() <= LONGEST_NAME && auth::may_use(client.as_ref(), &id))
        .then(|| status::model(&current.config, &id))
        .flatten();
    if let Some(model) = found {
        return reply::json(StatusCode::OK, &model);
    }
    let hint = "GET /v1/models lists what there is".to_owned();
    gateway.refuse(&Facts::new(MODELS), &Refused::new(Why::UnknownModel { name: id, hint }))
}

async fn ready(State(gateway): State<Arc<Gateway>>) -> Response<Body> {
    status::ready(&gateway)
}

async fn metrics(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match trusted(&gateway, "/metrics", &headers) {
        Ok(current) => {
            let text = gateway.metrics.text(&current.config, &gateway.outside);
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            reply::with_body(StatusCode::OK, kind, Body::from(text))
        }
        Err(refused) => refused,
    }
}

async fn state(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response<Body> {
    match trusted(&gateway, "/status", &headers) {
        Ok(current) => reply::json(StatusCode::OK, &status::state(&gateway, &current)),
        Err(refused) => refused,
    }
}

async fn unknown(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    gateway.refuse(&Facts::new("/"), &Refused::new(Why::UnknownPath { path }))
}

async fn wrong_method(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    gateway.refuse(&Facts::new("/"), &Refused::new(Why::Method { path }))
}

impl Gateway {
    /// Refuses a request, and notes it.
    fn refuse(&self, facts: &Facts, refused: &Refused) -> Response<Body> {
        let reply = refused.reply(&facts.request_id);
        self.metrics.refused(facts, &self.current().config, refused.code());
        self.outside.log.refused(facts, reply.status().as_u16(), refused.code());
        reply
    }
}
