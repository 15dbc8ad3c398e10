//! One scripted reply: the answer, or the fault.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Fault, Hangup, Script, failure, hang_up, json, page, response,
    text::{Tokens, seed},
};
use crate::{
    model::{Answer, DeltaKind, ErrorClass, FinishReason, Usage, estimate},
    protocol::openai::server::{self, Asked, ChunkWriter},
};

const ID: &str = "chatcmpl-mock";

/// The reply of `script` to `asked`.
pub(super) async fn make(script: &Script, asked: &Asked, body: &[u8], server_seed: u64) -> Response<Body> {
    if let Some(fault) = script.fault.filter(|fault| !fault.is_midway())
        && let Some(refusal) = early(fault, script, asked, body).await
    {
        return refusal;
    }
    let plan = Answering::new(script, asked, seed(server_seed, &asked.model, &asked.prompt()));
    if asked.call.streams() {
        let mut reply = response(StatusCode::OK, "text/event-stream", Body::from_stream(plan.stream()));
        if script.fault == Some(Fault::CutForged) {
            reply.headers_mut().insert("x-oneapi-request-id", HeaderValue::from_static("mock"));
        }
        reply
    } else {
        sleep(plan.duration()).await;
        plan.whole()
    }
}

/// The reply of a fault that shows before the answer; `None`: it does not show for this request.
async fn early(fault: Fault, script: &Script, asked: &Asked, body: &[u8]) -> Option<Response<Body>> {
    use ErrorClass as C;
    let status = |code: u16| StatusCode::from_u16(code).expect("a status");
    let fail = |code, class, word: &str, message: &str| failure(status(code), class, word, message);
    let retry_after = |mut reply: Response<Body>| {
        let value = script.retry_after.as_deref().unwrap_or("2");
        reply.headers_mut().extend(HeaderValue::from_str(value).ok().map(|value| (header::RETRY_AFTER, value)));
        reply
    };
    Some(match fault {
        Fault::Reset => hang_up(),
        Fault::Silent => std::future::pending::<Response<Body>>().await,
        Fault::Server => fail(500, C::Server, "server_error", "The mock had an error."),
        Fault::BadGateway => page(status(502), "502 Bad Gateway"),
        Fault::Overloaded => retry_after(fail(503, C::Overloaded, "overloaded", "The mock is overloaded.")),
        Fault::NoChannel => {
            let message = format!("no available channel for model {} under group default", asked.model);
            let mut reply = fail(503, C::NoChannel, "model_not_found", &message);
            reply.headers_mut().insert("x-oneapi-request-id", HeaderValue::from_static("mock"));
            reply
        }
        Fault::GatewayTimeout => page(status(504), "504 Gateway Time-out"),
        Fault::Rate => retry_after(fail(429, C::Rate, "rate_limit_exceeded", "Rate limit reached for the mock.")),
        Fault::Quota => fail(429, C::Quota, "insufficient_quota", "You exceeded your current quota."),
        Fault::Auth => fail(401, C::Auth, "invalid_api_key", "Incorrect API key provided."),
        Fault::Forbidden => fail(403, C::Forbidden, "forbidden", "This key may not use this model."),
        Fault::Model => fail(404, C::Model, "model_not_found", "The model does not exist."),
        Fault::Path => page(status(404), "404 Not Found"),
        Fault::Context => {
            fail(400, C::Context, "context_length_exceeded", "This model's maximum context length is 8 tokens.")
        }
        Fault::Filter => {
            fail(400, C::Filter, "content_policy_violation", "The prompt was refused by the mock's policy.")
        }
        Fault::Request => fail(400, C::Request, "invalid_request", "The mock does not like this request."),
        Fault::Conflict => fail(409, C::Conflict, "conflict", "The mock is in conflict."),
        Fault::Redirect => {
            let mut reply = response(status(302), "text/plain", Body::empty());
            reply.headers_mut().insert(header::LOCATION, HeaderValue::from_static("http://elsewhere.invalid/v1"));
            reply
        }
        Fault::Garbage => page(StatusCode::OK, "Welcome to the mock"),
        Fault::Empty => response(StatusCode::OK, "text/event-stream", Body::empty()),
        Fault::ErrorBody => {
            let error = server::error(C::Server, "server_error", "The mock's upstream failed.");
            json(StatusCode::OK, &error)
        }
        Fault::InStream => {
            let error = serde_json::json!({"error": {"message": "The mock's upstream failed."}});
            response(StatusCode::OK, "text/event-stream", Body::from(format!("data: {error}\n\ndata: [DONE]\n\n")))
        }
        Fault::MaxTokens if memchr::memmem::find(body, b"\"max_tokens\"").is_some() => json(
            status(400),
            &serde_json::json!({"error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter",
            }}),
        ),
        _ => return None,
    })
}

/// An answer about to be given.
struct Answering {
    script: Script,
    include_usage: bool,
    model: String,
    reasoning: Vec<String>,
    text: Vec<String>,
    finish: FinishReason,
    usage: Usage,
}

impl Answering {
    fn new(script: &Script, asked: &Asked, seed: u64) -> Self {
        let mut text: Vec<String> = match &script.text {
            Some(text) => text.split_inclusive(' ').map(str::to_owned).collect(),
            None => Tokens::new(seed, script.tokens).collect(),
        };
        let limit = asked.call.max_tokens().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let finish = if text.len() > limit { FinishReason::Length } else { FinishReason::Stop };
        text.truncate(limit);
        let reasoning: Vec<String> = Tokens::new(!seed, script.reasoning).collect();
        let usage = Usage {
            input: Some(estimate::tokens(&asked.prompt()).max(1)),
            output: Some((text.len() + reasoning.len()) as u64),
            cached: None,
            reasoning: (script.reasoning > 0).then_some(reasoning.len() as u64),
            estimated: false,
        };
        let include_usage = asked.include_usage && script.usage;
        Self { script: script.clone(), include_usage, model: asked.model.clone(), reasoning, text, finish, usage }
    }

    /// How long the whole takes.
    fn duration(&self) -> Duration {
        let tokens = u32::try_from(self.text.len() + self.reasoning.len()).unwrap_or(u32::MAX);
        self.script.ttft + per_token(self.script.tps) * tokens
    }

    fn whole(self) -> Response<Body> {
        let mut answer = Answer {
            text: self.text.concat(),
            reasoning: self.reasoning.concat(),
            finish: Some(self.finish),
            usage: self.script.usage.then_some(self.usage),
            ..Answer::default()
        };
        match self.script.fault {
            Some(Fault::Cut | Fault::CutClean | Fault::CutForged | Fault::CutError | Fault::Garbled) => {
                let body = server::reply(ID, &self.model, now(), &[(0, answer)]).to_string();
                let half = body.char_indices().nth(body.chars().count() / 2).map_or(0, |(at, _)| at);
                return response(StatusCode::OK, "application/json", Body::from(body[..half].to_owned()));
            }
            Some(Fault::DoneOnly) => answer.finish = None,
            _ => {}
        }
        json(StatusCode::OK, &server::reply(ID, &self.model, now(), &[(0, answer)]))
    }

    /// The events, each at its time. Without a speed limit they are joined into pieces of many events, as a fast
    /// server's writes are.
    fn stream(self) -> impl futures_util::Stream<Item = Result<Bytes, Hangup>> + Send {
        let writer = ChunkWriter::new(ID, &self.model, now());
        async_stream::stream! {
            let begun = Instant::now();
            let step = per_token(self.script.tps);
            let fault = self.script.fault;
            let midway = self.text.len() / 2;
            sleep_until(begun + self.script.ttft).await;
            yield Ok(writer.role());
            let mut count = 0;
            for token in &self.reasoning {
                sleep_until(begun + self.script.ttft + step * count).await;
                count += 1;
                yield Ok(writer.delta(0, &DeltaKind::Reasoning(token.clone())));
            }
            let mut joined = BytesMut::new();
            for (position, token) in self.text.iter().enumerate() {
                if position == midway && let Some(fault) = fault {
                    yield Ok(joined.split().freeze());
                    match fault {
                        Fault::Cut => {
                            // What was written so far is sent before the connection breaks.
                            tokio::task::yield_now().await;
                            yield Err(Hangup);
                            return;
                        }
                        Fault::CutClean => return,
                        Fault::CutForged => { yield Ok(ChunkWriter::done()); return }
                        Fault::CutError => {
                            let error = server::error(ErrorClass::Server, "server_error", "The mock broke off.");
                            yield Ok(Bytes::from(format!("event: error\ndata: {error}\n\n")));
                            return;
                        }
                        Fault::Stall => std::future::pending::<()>().await,
                        Fault::Garbled => yield Ok(Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"lost\n\n")),
                        _ => {}
                    }
                }
                let event = writer.delta(0, &DeltaKind::Text(token.clone()));
                if step.is_zero() {
                    joined.extend_from_slice(&event);
                    if joined.len() >= 8192 {
                        yield Ok(joined.split().freeze());
                    }
                } else {
                    sleep_until(begun + self.script.ttft + step * count).await;
                    yield Ok(event);
                }
                count += 1;
            }
            yield Ok(joined.freeze());
            if fault != Some(Fault::DoneOnly) {
                yield Ok(writer.delta(0, &DeltaKind::Finish(self.finish.clone())));
            }
            if self.include_usage {
                yield Ok(writer.delta(0, &DeltaKind::Usage(self.usage)));
            }
            yield Ok(ChunkWriter::done());
            if fault == Some(Fault::Lingering) {
                match std::future::pending::<Infallible>().await {}
            }
        }
    }
}

fn per_token(tps: f64) -> Duration {
    if tps <= 0.0 { Duration::ZERO } else { Duration::try_from_secs_f64(1.0 / tps).unwrap_or(Duration::MAX) }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
