//! Replies: what was answered, as HTTP.
//!
//! Owns when headers go out. They are held back until the first piece of an answer, so that until then everything can fail
//! over and the status is the truth; a stream that takes longer than `hold` begins without it. A reply in one piece is sent
//! once it is whole. Refuses to touch what it passes on.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use tokio::time::sleep_until;

use super::{
    connection::Unsent,
    error,
    exchange::Exchange,
    stream::{self, EventStream, Written},
};
use crate::{
    engine::{Event, EventKind, LaneOutcome},
    model::{Answer, Call, Delta},
    protocol::{
        Frame, FrameKind,
        openai::server::{self, ChunkWriter},
    },
};

/// The body of a reply.
pub(super) type Body = axum::body::Body;

pub(super) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a header's value cannot have in it; `%` among them, so that it can be read back.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b'%');

/// How an answer is to be given.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) stream: bool,
    /// The client wants the tokens of a stream told.
    pub(super) include_usage: bool,
    /// A stream ends with the mark that chats end with.
    pub(super) ends_with_mark: bool,
    /// How long a stream's headers are held back.
    pub(super) hold: Duration,
    /// Whether the client has taken what was written.
    pub(super) unsent: Unsent,
}

/// A reply of JSON.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    with_body(status, JSON, Body::from(body.to_string()))
}

pub(super) fn with_body(status: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, content_type);
    reply
}

/// Runs the exchange and answers.
pub(super) async fn answer(exchange: Box<Exchange>, call: Arc<Call>, manner: Manner) -> Response<Body> {
    if manner.stream { streamed(exchange, &call, manner).await } else { whole(exchange, &call, &manner).await }
}

/// A stream: once its first piece is here, or its headers were held back for long enough.
async fn streamed(mut exchange: Box<Exchange>, call: &Call, manner: Manner) -> Response<Body> {
    let until = exchange.facts.begun + manner.hold;
    let mut stream = EventStream::new(exchange.facts.request_id.clone(), call, &manner);
    let mut first = false;
    loop {
        let event = tokio::select! {
            biased;
            event = exchange.event() => event,
            () = sleep_until(until) => break,
        };
        let Some(event) = event else { break };
        match stream.take(event) {
            Written::Nothing => {}
            // How long it took is told next, and goes into the headers.
            Written::Some if !first => {
                first = true;
                continue;
            }
            Written::Some => {}
            Written::Failed(outcome) if !first => return failed(&mut exchange, &outcome),
            Written::All | Written::Failed(_) => break,
        }
        if first {
            break;
        }
    }
    exchange.status = Some(StatusCode::OK);
    let mut headers = HeaderMap::new();
    if first || stream.is_over() {
        served_by(&exchange, &mut headers);
    }
    let mut reply = with_body(StatusCode::OK, EVENT_STREAM, Body::new(stream.into_body(exchange)));
    reply.headers_mut().extend(headers);
    let fixed = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // A proxy in front is not to hold back what is passed on at once.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    reply.headers_mut().extend(fixed);
    reply
}

/// A reply in one piece.
async fn whole(mut exchange: Box<Exchange>, call: &Call, manner: &Manner) -> Response<Body> {
    let (mut frames, mut deltas) = (Vec::<Frame>::new(), Vec::<Delta>::new());
    loop {
        let Event { kind, .. } = exchange.event().await.expect("a lane ends by saying what came of it");
        match kind {
            EventKind::Deltas(read) | EventKind::Held(read) => {
                deltas.extend(read.deltas);
                frames.extend(read.frames);
            }
            EventKind::Failed { .. } | EventKind::Again => (frames, deltas) = Default::default(),
            EventKind::Finished(outcome) if outcome.result.is_err() => return failed(&mut exchange, &outcome),
            EventKind::Finished(_) => break,
            EventKind::Started(_) | EventKind::Ttft(_) | EventKind::Notice(_) => {}
        }
    }
    exchange.status = Some(StatusCode::OK);
    let (kind, body) = match frames.first() {
        Some(frame) if frame.kind == FrameKind::Body => (JSON, frame.raw.clone()),
        // Nobody knows how to put together what is no chat.
        Some(_) if call.chat().is_none() => {
            let events = frames.into_iter().map(stream::ended);
            let mark = manner.ends_with_mark.then(ChunkWriter::done);
            (EVENT_STREAM, events.chain(mark).flatten().collect())
        }
        _ => (JSON, put_together(&exchange.facts.request_id, &deltas).into()),
    };
    let mut reply = with_body(StatusCode::OK, kind, Body::from(body));
    served_by(&exchange, reply.headers_mut());
    reply
}

/// One object of what came as a stream.
fn put_together(request_id: &str, deltas: &[Delta]) -> String {
    let mut choices: Vec<(u16, Answer)> = Vec::new();
    for Delta { choice, kind } in deltas {
        let place = choices.iter().position(|(known, _)| known == choice).unwrap_or_else(|| {
            choices.push((*choice, Answer::default()));
            choices.len() - 1
        });
        // To itself each of them is the first.
        choices[place].1.add(&Delta { choice: 0, kind: kind.clone() });
    }
    choices.sort_by_key(|(choice, _)| *choice);
    let model = choices.iter().find_map(|(_, answer)| answer.model.clone()).unwrap_or_default();
    server::reply(&format!("chatcmpl-{request_id}"), &model, stream::now(), &choices).to_string()
}

fn failed(exchange: &mut Exchange, outcome: &LaneOutcome) -> Response<Body> {
    let error = outcome.result.as_ref().expect_err("only failures come here");
    let mut reply = error::reply(&exchange.facts.request_id, outcome, error);
    exchange.status = Some(reply.status());
    served_by(exchange, reply.headers_mut());
    let attempts = HeaderValue::from(outcome.attempts.len());
    reply.headers_mut().insert("x-mmchat-attempts", attempts);
    reply
}

/// Says who served it.
fn served_by(exchange: &Exchange, headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: &str| {
        let value = utf8_percent_encode(value, NOT_IN_HEADERS).to_string();
        let value = HeaderValue::try_from(value).expect("nothing is left that cannot be in a header");
        headers.insert(HeaderName::from_static(name), value);
    };
    if let Some(target) = &exchange.target {
        put("x-mmchat-endpoint", &target.endpoint.name);
        put("x-mmchat-model", &target.id.0);
    }
    if let Some(route) = exchange.route() {
        put("x-mmchat-route", route);
    }
    put("x-mmchat-attempts", &exchange.attempts().to_string());
    if let Some(overhead) = exchange.facts.overhead {
        put("x-mmchat-overhead-us", &overhead.as_micros().to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_can_be_in_a_header_and_be_read_back() {
        let encoded = utf8_percent_encode("通义 50%", NOT_IN_HEADERS).to_string();
        HeaderValue::try_from(&encoded).expect("a value");
        assert_eq!(percent_encoding::percent_decode_str(&encoded).decode_utf8_lossy(), "通义 50%");
    }
}
