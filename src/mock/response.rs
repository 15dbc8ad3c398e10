//! Builds one scripted response: the answer or the fault.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    ConnectionAborted, Fault, Script, abort_connection, error_response, html_response, json_response, mock_response,
    text::{TokenGenerator, request_seed},
};
use crate::{
    model::{Answer, DeltaKind, ErrorClass, FinishReason, Usage},
    protocol::openai::{
        server::{self, ParsedRequest},
        server_response::{self, ChunkWriter},
    },
};

const ID: &str = "chatcmpl-mock";

/// The response of `script` to `request`.
pub(super) async fn respond(script: &Script, request: &ParsedRequest, body: &[u8], server_seed: u64) -> Response<Body> {
    if let Some(fault) = script.fault.filter(|fault| !fault.is_midway())
        && let Some(response) = fault_response(fault, script, request, body).await
    {
        return response;
    }
    let plan = AnswerPlan::new(script, request, request_seed(server_seed, &request.model, &server::prompt_text(body)));
    if request.request.is_streaming() {
        let mut response = mock_response(StatusCode::OK, "text/event-stream", Body::from_stream(plan.into_stream()));
        if script.fault == Some(Fault::FalseDone) {
            response.headers_mut().insert("x-oneapi-request-id", HeaderValue::from_static("mock"));
        }
        response
    } else {
        sleep(plan.duration()).await;
        plan.into_response()
    }
}

/// The response of a fault that occurs before the answer; `None`: the fault does not apply to this request.
async fn fault_response(fault: Fault, script: &Script, request: &ParsedRequest, body: &[u8]) -> Option<Response<Body>> {
    use ErrorClass as C;
    let status = |code: u16| StatusCode::from_u16(code).expect("valid status");
    let fail = |code, class, error_code: &str, message: &str| error_response(status(code), class, error_code, message);
    let retry_after = |mut response: Response<Body>| {
        let value = script.retry_after.as_deref().unwrap_or("2");
        response.headers_mut().extend(HeaderValue::from_str(value).ok().map(|value| (header::RETRY_AFTER, value)));
        response
    };
    Some(match fault {
        Fault::Reset => abort_connection(),
        Fault::NoResponse => std::future::pending::<Response<Body>>().await,
        Fault::Server => fail(500, C::Server, "server_error", "The mock had an error."),
        Fault::BadGateway => html_response(status(502), "502 Bad Gateway"),
        Fault::Overloaded => retry_after(fail(503, C::Overloaded, "overloaded", "The mock is overloaded.")),
        Fault::NoChannel => {
            let message = format!("no available channel for model {} under group default", request.model);
            let mut response = fail(503, C::NoChannel, "model_not_found", &message);
            response.headers_mut().insert("x-oneapi-request-id", HeaderValue::from_static("mock"));
            response
        }
        Fault::GatewayTimeout => html_response(status(504), "504 Gateway Time-out"),
        Fault::Rate => retry_after(fail(429, C::Rate, "rate_limit_exceeded", "Rate limit reached for the mock.")),
        Fault::Quota => fail(429, C::Quota, "insufficient_quota", "You exceeded your current quota."),
        Fault::Auth => fail(401, C::Auth, "invalid_api_key", "Incorrect API key provided."),
        Fault::Forbidden => fail(403, C::Forbidden, "forbidden", "This key may not use this model."),
        Fault::Model => fail(404, C::Model, "model_not_found", "The model does not exist."),
        Fault::Path => html_response(status(404), "404 Not Found"),
        Fault::Context => {
            fail(400, C::Context, "context_length_exceeded", "This model's maximum context length is 8 tokens.")
        }
        Fault::Filter => {
            fail(400, C::Filter, "content_policy_violation", "The prompt was refused by the mock's policy.")
        }
        Fault::Request => fail(400, C::Request, "invalid_request", "The mock rejects this request."),
        Fault::Conflict => fail(409, C::Conflict, "conflict", "The mock is in conflict."),
        Fault::Redirect => {
            let mut response = mock_response(status(302), "text/plain", Body::empty());
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("http://elsewhere.invalid/v1"));
            response
        }
        Fault::HtmlPage => html_response(StatusCode::OK, "Welcome to the mock"),
        Fault::Empty => mock_response(StatusCode::OK, "text/event-stream", Body::empty()),
        Fault::ErrorBody => {
            let error = server_response::error_body(C::Server, "server_error", "The mock's upstream failed.");
            json_response(StatusCode::OK, &error)
        }
        Fault::InStream => {
            let error = serde_json::json!({"error": {"message": "The mock's upstream failed."}});
            mock_response(StatusCode::OK, "text/event-stream", Body::from(format!("data: {error}\n\ndata: [DONE]\n\n")))
        }
        Fault::MaxTokens if memchr::memmem::find(body, b"\"max_tokens\"").is_some() => json_response(
            status(400),
            &serde_json::json!({"error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter",
            }}),
        ),
        _ => return None,
    })
}

/// Everything that determines one answer.
struct AnswerPlan {
    script: Script,
    include_usage: bool,
    model: String,
    reasoning: Vec<String>,
    text: Vec<String>,
    finish_reason: FinishReason,
    usage: Usage,
}

impl AnswerPlan {
    fn new(script: &Script, request: &ParsedRequest, seed: u64) -> Self {
        let mut text: Vec<String> = match &script.text {
            Some(text) => text.split_inclusive(' ').map(str::to_owned).collect(),
            None => TokenGenerator::new(seed, script.tokens).collect(),
        };
        let limit = request.request.max_tokens().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let finish_reason = if text.len() > limit { FinishReason::Length } else { FinishReason::Stop };
        text.truncate(limit);
        let reasoning: Vec<String> = TokenGenerator::new(!seed, script.reasoning).collect();
        let usage = Usage {
            input: Some(request.request.estimated_tokens().max(1)),
            output: Some((text.len() + reasoning.len()) as u64),
            cached: None,
            reasoning: (script.reasoning > 0).then_some(reasoning.len() as u64),
            estimated: false,
        };
        let include_usage = request.include_usage && script.usage;
        Self {
            script: script.clone(),
            include_usage,
            model: request.model.clone(),
            reasoning,
            text,
            finish_reason,
            usage,
        }
    }

    /// Time until the answer is complete.
    fn duration(&self) -> Duration {
        let tokens = u32::try_from(self.text.len() + self.reasoning.len()).unwrap_or(u32::MAX);
        self.script.ttft + token_interval(self.script.tps) * tokens
    }

    fn into_response(self) -> Response<Body> {
        let mut answer = Answer {
            text: self.text.concat(),
            reasoning: self.reasoning.concat(),
            finish_reason: Some(self.finish_reason),
            usage: self.script.usage.then_some(self.usage),
            ..Answer::default()
        };
        match self.script.fault {
            Some(
                Fault::BrokenConnection
                | Fault::MissingEnd
                | Fault::FalseDone
                | Fault::ErrorEvent
                | Fault::InvalidChunk,
            ) => {
                let body = server_response::response_body(ID, &self.model, unix_now(), &[(0, answer)]).to_string();
                let middle = body.char_indices().nth(body.chars().count() / 2).map_or(0, |(offset, _)| offset);
                return mock_response(StatusCode::OK, "application/json", Body::from(body[..middle].to_owned()));
            }
            Some(Fault::DoneOnly) => answer.finish_reason = None,
            _ => {}
        }
        json_response(StatusCode::OK, &server_response::response_body(ID, &self.model, unix_now(), &[(0, answer)]))
    }

    /// Streams the events according to the script's timing. Without a speed limit, events are joined into larger
    /// chunks, like the writes of a fast server.
    fn into_stream(self) -> impl futures_util::Stream<Item = Result<Bytes, ConnectionAborted>> + Send {
        let writer = ChunkWriter::new(ID, &self.model, unix_now());
        async_stream::stream! {
            let started = Instant::now();
            let interval = token_interval(self.script.tps);
            let fault = self.script.fault;
            let midway = self.text.len() / 2;
            sleep_until(started + self.script.ttft).await;
            yield Ok(writer.role());
            let mut count = 0;
            for token in &self.reasoning {
                sleep_until(started + self.script.ttft + interval * count).await;
                count += 1;
                yield Ok(writer.delta(0, &DeltaKind::Reasoning(token.clone())));
            }
            let mut joined = BytesMut::new();
            for (position, token) in self.text.iter().enumerate() {
                if position == midway && let Some(fault) = fault {
                    yield Ok(joined.split().freeze());
                    match fault {
                        Fault::BrokenConnection => {
                            // Yield so that everything written so far is sent before the connection breaks.
                            tokio::task::yield_now().await;
                            yield Err(ConnectionAborted);
                            return;
                        }
                        Fault::MissingEnd => return,
                        Fault::FalseDone => { yield Ok(ChunkWriter::done()); return }
                        Fault::ErrorEvent => {
                            let error = server_response::error_body(ErrorClass::Server, "server_error", "The mock's stream failed.");
                            yield Ok(Bytes::from(format!("event: error\ndata: {error}\n\n")));
                            return;
                        }
                        Fault::Stall => std::future::pending::<()>().await,
                        Fault::InvalidChunk => yield Ok(Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"lost\n\n")),
                        _ => {}
                    }
                }
                let event = writer.delta(0, &DeltaKind::Text(token.clone()));
                if interval.is_zero() {
                    joined.extend_from_slice(&event);
                    if joined.len() >= 8192 {
                        yield Ok(joined.split().freeze());
                    }
                } else {
                    sleep_until(started + self.script.ttft + interval * count).await;
                    yield Ok(event);
                }
                count += 1;
            }
            yield Ok(joined.freeze());
            if fault != Some(Fault::DoneOnly) {
                yield Ok(writer.delta(0, &DeltaKind::Finish(self.finish_reason.clone())));
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

fn token_interval(tps: f64) -> Duration {
    if tps <= 0.0 { Duration::ZERO } else { Duration::try_from_secs_f64(1.0 / tps).unwrap_or(Duration::MAX) }
}

fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}
