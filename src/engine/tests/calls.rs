//! Tests of several concurrent calls: independence, limits, stop and restart, and dropping the stream.

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture, stream};

use super::*;
use crate::transport::{ByteStream, TransportError};

#[tokio::test(start_paused = true)]
async fn calls_run_concurrently_and_independently() {
    let replies = [MockResponse::NoResponse, answer()];
    let transport = MockTransport::new(replies);
    let engine = Arc::new(Engine::new(Arc::new(transport), KeyRing::default()));
    let plan = Plan {
        calls: vec![call_to(vec![testing::target("a")]), call_to(vec![testing::target("b")])],
        max_concurrent: None,
    };
    let started_at = Instant::now();
    let mut events = Box::pin(engine.run(plan));
    let finished = async {
        loop {
            let event = events.next().await.expect("two calls");
            if matches!(event.kind, EventKind::Finished(_)) {
                return event.call;
            }
        }
    };
    assert_eq!((finished.await, started_at.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_drops_the_connection() {
    struct DropFlag(Arc<Mutex<bool>>);
    impl Drop for DropFlag {
        fn drop(&mut self) {
            *self.0.lock() = true;
        }
    }
    struct EndlessTransport(Arc<Mutex<bool>>);
    impl Transport for EndlessTransport {
        fn send(
            &self,
            _: &ConnectOptions,
            _: http::Request<Bytes>,
        ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
            let flag = DropFlag(Arc::clone(&self.0));
            let body: ByteStream = Box::pin(stream::repeat(()).then(move |()| {
                let _keep = &flag;
                async { Ok(Bytes::from_static(HELLO.as_bytes())) }
            }));
            async { Ok(http::Response::new(body)) }.boxed()
        }
    }
    let dropped = Arc::new(Mutex::new(false));
    let engine = Arc::new(Engine::new(Arc::new(EndlessTransport(Arc::clone(&dropped))), KeyRing::default()));
    let mut events = Box::pin(engine.run(Plan::single(call_to(two_targets()))));
    for _ in 0..5 {
        events.next().await.expect("the body never ends");
    }
    assert!(!*dropped.lock());
    drop(events);
    assert!(*dropped.lock());
}

#[tokio::test(start_paused = true)]
async fn local_limit_fails_over_without_a_request() {
    let transport = MockTransport::new([MockResponse::NoResponse, answer()]);
    let engine = Arc::new(Engine::new(Arc::new(transport), KeyRing::default()));
    let full = with_endpoint(testing::target("a"), |endpoint| {
        endpoint.limits = Limits { max_concurrency: Some(1), queue_timeout: Some(SECOND), ..Limits::default() };
    });
    let plan = Plan {
        calls: vec![call_to(vec![full.clone()]), call_to(vec![full, testing::target("b")])],
        max_concurrent: None,
    };
    let mut events = Box::pin(engine.run(plan));
    let record = loop {
        let event = events.next().await.expect("calls end");
        if let EventKind::Finished(record) = event.kind {
            break record;
        }
    };
    let classes: Vec<_> = record.attempts.iter().map(AttemptRecord::class).collect();
    assert_eq!(classes, [Some(ErrorClass::LocalLimit), None]);
}

/// The remaining events until all calls have ended, each with its call.
async fn remaining_events(run: &mut Run) -> Vec<(usize, String)> {
    let mut events = Vec::new();
    while let Some(event) = run.next().await {
        let description = match event.kind {
            EventKind::Started(target) => target.id.0.clone(),
            EventKind::Deltas(_) => "text".to_owned(),
            EventKind::Restarted => "restarted".to_owned(),
            EventKind::Finished(record) if record.stopped => format!("stopped after {}", record.attempts.len()),
            EventKind::Finished(record) => format!("finished {}", record.result.is_ok()),
            _ => continue,
        };
        events.push((event.call, description));
    }
    events.dedup();
    events
}

fn expected_events(events: &[(usize, &str)]) -> Vec<(usize, String)> {
    events.iter().map(|(call, description)| (*call, (*description).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn single_call_can_be_stopped_or_restarted() {
    let replies = [MockResponse::NoResponse, MockResponse::NoResponse, answer(), answer()];
    let transport = MockTransport::new(replies);
    let engine = Arc::new(Engine::new(Arc::new(transport), KeyRing::default()));
    let calls = ["a", "b"].map(|name| call_to(vec![testing::target(name)])).to_vec();
    let mut run = engine.run(Plan { calls, max_concurrent: None });
    for _ in 0..2 {
        assert!(matches!(run.next().await.expect("two calls").kind, EventKind::Started(_)));
    }
    assert!(run.next().now_or_never().is_none(), "both requests were sent and have no response");
    run.stop(0);
    run.restart(1);
    let events = remaining_events(&mut run).await;
    let expected = expected_events(&[
        (0, "stopped after 1"),
        (1, "stopped after 1"),
        (1, "restarted"),
        (1, "b"),
        (1, "text"),
        (1, "finished true"),
    ]);
    assert_eq!(events, expected);
    // A call that has ended can be restarted; an index out of range is ignored.
    run.stop(0);
    run.restart(0);
    run.restart(2);
    assert_eq!(
        remaining_events(&mut run).await,
        expected_events(&[(0, "restarted"), (0, "a"), (0, "text"), (0, "finished true")])
    );
}

#[tokio::test(start_paused = true)]
async fn pending_call_can_be_stopped() {
    let transport = MockTransport::new([answer(), answer()]);
    let engine = Arc::new(Engine::new(Arc::new(transport), KeyRing::default()));
    let calls = ["a", "b", "c"].map(|name| call_to(vec![testing::target(name)])).to_vec();
    let mut run = engine.run(Plan { calls, max_concurrent: Some(1) });
    assert_eq!(run.next().await.expect("the first call").call, 0);
    run.stop(1);
    let ends: Vec<_> = remaining_events(&mut run)
        .await
        .into_iter()
        .filter(|(_, description)| description.starts_with(['f', 's']))
        .collect();
    assert_eq!(ends, expected_events(&[(1, "stopped after 0"), (0, "finished true"), (2, "finished true")]));
}

/// Runs a call until `stop_at` accepts an event, then stops it.
async fn record_of_stopped_call(
    call: Call,
    replies: impl IntoIterator<Item = MockResponse>,
    mut stop_at: impl FnMut(&EventKind) -> bool,
) -> Arc<CallRecord> {
    let transport = Arc::new(MockTransport::new(replies)) as Arc<dyn Transport>;
    let engine = Arc::new(Engine::new(transport, KeyRing::default()));
    let mut run = engine.run(Plan::single(call).retaining_text());
    while let Some(event) = run.next().await {
        if stop_at(&event.kind) {
            break;
        }
    }
    let mut ended = run.stop_all();
    let Some(EventKind::Finished(record)) = ended.pop().map(|event| event.kind) else { panic!("no record: {ended:?}") };
    assert!(record.stopped && ended.is_empty());
    record
}

fn partial_answer() -> MockResponse {
    MockResponse::Chunks(vec![(Duration::ZERO, HELLO)])
}

#[tokio::test(start_paused = true)]
async fn both_requests_of_a_call_stopped_during_a_hedge_are_recorded() {
    let policy = RoutePolicy { hedge_after: Some(SECOND), ..RoutePolicy::default() };
    let call = Call { route: Some(policy), ..call_to(two_targets()) };
    let replies = [MockResponse::NoResponse, MockResponse::NoResponse];
    let is_hedged = |kind: &EventKind| matches!(kind, EventKind::Notice(Notice::Hedged(..)));
    let record = record_of_stopped_call(call, replies, is_hedged).await;
    let tried: Vec<&str> = record.attempts.iter().map(|attempt| attempt.target.id.0.as_str()).collect();
    assert_eq!(tried, ["b", "a"]);
    assert!(record.attempts.iter().all(|attempt| attempt.error.is_some()), "{record:?}");
}

#[tokio::test(start_paused = true)]
async fn call_stopped_after_a_partial_answer_failed_keeps_it() {
    for on_incomplete in [OnIncomplete::Restart, OnIncomplete::Buffer] {
        let call = Call { on_incomplete, ..call_to(two_targets()) };
        let replies = [partial_answer(), MockResponse::NoResponse];
        let record = record_of_stopped_call(call, replies, |kind| matches!(kind, EventKind::Failed { .. })).await;
        assert_eq!((record.answer.content.text.as_str(), record.incomplete), ("Hello", true), "{on_incomplete:?}");
        assert_eq!(record.attempts.len(), 1, "the failed attempt is recorded once: {record:?}");
        assert_eq!(record.target.as_ref().map(|target| target.id.0.as_str()), Some("a"));
    }
}

const OTHER: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Bye\"}}]}\n\n";

#[tokio::test(start_paused = true)]
async fn call_stopped_during_the_next_attempt_has_both_attempts_and_the_partial_answer() {
    let call = Call { on_incomplete: OnIncomplete::Restart, ..call_to(two_targets()) };
    let mut started = 0;
    let other_answer = MockResponse::Chunks(vec![(Duration::ZERO, OTHER)]);
    let record = record_of_stopped_call(call, [partial_answer(), other_answer], |kind| {
        started += usize::from(matches!(kind, EventKind::Started(_)));
        started == 2 && matches!(kind, EventKind::FirstToken(_))
    });
    let record = record.await;
    let targets: Vec<_> = record.attempts.iter().map(|attempt| attempt.target.id.0.as_str()).collect();
    assert_eq!((targets, record.answer.content.text.as_str()), (vec!["a", "b"], "Bye"));
    assert_eq!(record.target.as_ref().map(|target| target.id.0.as_str()), Some("b"));
    assert!(record.attempts.iter().all(|attempt| attempt.usage.is_some()), "{record:?}");
}

#[tokio::test(start_paused = true)]
async fn call_stopped_before_its_first_request_is_sent_has_no_attempt() {
    let record = record_of_stopped_call(call_to(two_targets()), [], |kind| matches!(kind, EventKind::Started(_))).await;
    assert!(record.attempts.is_empty() && record.usage.is_none() && !record.incomplete, "{record:?}");
}
