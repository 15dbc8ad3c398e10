//! Tests of the engine with a scripted transport and a paused clock: the requests sent, their order, and the outcome.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

mod calls;
mod failover;
mod health;
mod health_store;
mod incomplete;
mod probes;
mod retry_after;
mod timeouts;

use super::*;
use crate::{
    engine::plan::Call,
    model::{
        Answer, ChatRequest, DeltaBuffer, ErrorClass, FinishReason, Message, ModelRequest, Role,
        api_key::{ApiKey, KeySource},
        endpoint::{ConnectOptions, Endpoint, Limits, Timeouts},
        target::{Target, testing},
    },
    routing::{OnIncomplete, RoutePolicy},
    transport::{
        TransportErrorKind,
        keys::KeyRing,
        mock::{MockResponse, MockTransport, RecordedRequest},
    },
};

const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const REASONING: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
/// Seed of the random numbers, for reproducible tests.
const SEED: u64 = 3;
const SECOND: Duration = Duration::from_secs(1);

fn answer() -> MockResponse {
    MockResponse::Chunks(vec![(Duration::ZERO, HELLO), (Duration::ZERO, STOP)])
}

fn status(code: u16) -> MockResponse {
    MockResponse::Status(code, vec![], "{\"error\":{\"message\":\"no\"}}")
}

fn call_to(targets: Vec<Target>) -> Call {
    let messages = vec![Message::text(Role::User, "hi")];
    let route = (targets.len() > 1).then(RoutePolicy::default);
    let request = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    let candidates: Vec<Arc<Target>> = targets.into_iter().map(Arc::new).collect();
    let first = Arc::clone(&candidates[0]);
    Call { candidates, route, ..Call::single("route", request, first) }
}

fn two_targets() -> Vec<Target> {
    vec![testing::target("a"), testing::target("b")]
}

fn with_endpoint(mut target: Target, change: impl FnOnce(&mut Endpoint)) -> Target {
    change(Arc::make_mut(&mut target.endpoint));
    target
}

/// The result of one call: its events and the requests sent.
struct CallResult {
    events: Vec<Event>,
    record: Arc<CallRecord>,
    answer: Answer,
    requests: Vec<RecordedRequest>,
    took: Duration,
    /// The number of scripted replies not used.
    unused_replies: usize,
}

impl CallResult {
    /// Asserts that every scripted reply was used.
    fn assert_all_replies_used(self) -> Self {
        assert_eq!(self.unused_replies, 0, "a scripted reply was not used");
        self
    }

    fn models(&self) -> Vec<&str> {
        self.requests.iter().map(|request| request.model.as_str()).collect()
    }

    fn classes(&self) -> Vec<&str> {
        self.record.attempts.iter().map(|attempt| attempt.class().map_or("ok", ErrorClass::as_str)).collect()
    }

    fn failovers(&self) -> Vec<NextStep> {
        let failed = |event: &Event| match &event.kind {
            EventKind::Failed { next, .. } => Some(next.clone()),
            _ => None,
        };
        self.events.iter().filter_map(failed).collect()
    }

    fn notices(&self) -> Vec<Notice> {
        let notice = |event: &Event| match &event.kind {
            EventKind::Notice(notice) => Some(notice.clone()),
            _ => None,
        };
        self.events.iter().filter_map(notice).collect()
    }

    fn class(&self) -> ErrorClass {
        self.record.result.as_ref().expect_err("the call failed").class
    }
}

async fn run(call: Call, replies: impl IntoIterator<Item = MockResponse>) -> CallResult {
    TestEngine::new(replies).run(call).await.assert_all_replies_used()
}

/// A long-lived engine with a scripted transport.
struct TestEngine {
    transport: Arc<MockTransport>,
    engine: Arc<Engine>,
}

impl TestEngine {
    fn new(replies: impl IntoIterator<Item = MockResponse>) -> Self {
        Self::with_policies(replies, Policies::default())
    }

    fn with_policies(replies: impl IntoIterator<Item = MockResponse>, policies: Policies) -> Self {
        let transport = Arc::new(MockTransport::new(replies));
        let shared = Arc::clone(&transport) as Arc<dyn Transport>;
        let engine =
            Engine::with_policies(shared, KeyRing::default(), policies).with_long_lived_process().with_seed(SEED);
        Self { engine: Arc::new(engine), transport }
    }

    /// With the limits of a server that has many clients.
    fn server(replies: impl IntoIterator<Item = MockResponse>) -> Self {
        Self::with_policies(replies, Policies::default().for_server())
    }

    /// Adds scripted replies.
    fn add_replies(&self, replies: impl IntoIterator<Item = MockResponse>) {
        self.transport.responses.lock().extend(replies);
    }

    async fn run(&self, call: Call) -> CallResult {
        run_call(&self.engine, &self.transport, call).await
    }
}

async fn run_call(engine: &Arc<Engine>, transport: &Arc<MockTransport>, call: Call) -> CallResult {
    let earlier_requests = transport.requests.lock().len();
    let started_at = Instant::now();
    let events: Vec<Event> = engine.run(Plan::single(call)).collect().await;
    let took = started_at.elapsed();
    let (mut answer, mut buffer) = (Answer::default(), DeltaBuffer::default());
    for event in &events {
        match &event.kind {
            EventKind::Deltas(batch) => batch.deltas.iter().for_each(|delta| answer.add(delta)),
            EventKind::BufferedDeltas(batch) => batch.deltas.iter().for_each(|delta| buffer.add(delta.clone())),
            EventKind::Failed { .. } => {
                answer = Answer::default();
                buffer.restart();
            }
            _ => {}
        }
    }
    let failed =
        matches!(events.last(), Some(Event { kind: EventKind::Finished(outcome), .. }) if outcome.result.is_err());
    buffer.take(failed).iter().for_each(|delta| answer.add(delta));
    let Some(EventKind::Finished(outcome)) = events.last().map(|event| event.kind.clone()) else {
        panic!("the last event is not `Finished`: {events:?}")
    };
    let unused_replies = transport.responses.lock().len();
    let requests = transport.requests.lock()[earlier_requests..].to_vec();
    CallResult { events, record: outcome, answer, requests, took, unused_replies }
}
