//! Tests of several concurrent calls: independence, limits, stop and restart, and dropping the stream.

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture, stream};

use super::*;
use crate::transport::{ByteStream, TransportError};

#[tokio::test(start_paused = true)]
async fn calls_run_concurrently_and_independently() {
    let replies = [MockResponse::NoResponse, answer()];
    let script = MockTransport::new(replies);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let plan = Plan {
        calls: vec![call_to(vec![testing::target("a")]), call_to(vec![testing::target("b")])],
        max_concurrent: None,
    };
    let begun = Instant::now();
    let mut events = Box::pin(engine.run(plan));
    let finished = async {
        loop {
            let event = events.next().await.expect("two calls");
            if matches!(event.kind, EventKind::Finished(_)) {
                return event.call;
            }
        }
    };
    assert_eq!((finished.await, begun.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_drops_the_connection() {
    struct DropFlag(Arc<Mutex<bool>>);
    impl Drop for DropFlag {
        fn drop(&mut self) {
            *self.0.lock().expect("tests use one thread") = true;
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
    assert!(!*dropped.lock().expect("tests use one thread"));
    drop(events);
    assert!(*dropped.lock().expect("tests use one thread"));
}

#[tokio::test(start_paused = true)]
async fn local_limit_fails_over_without_a_request() {
    let script = MockTransport::new([MockResponse::NoResponse, answer()]);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let full = with_endpoint(testing::target("a"), |endpoint| {
        endpoint.limits = Limits { max_concurrency: Some(1), queue_timeout: Some(SECOND), ..Limits::default() };
    });
    let plan = Plan {
        calls: vec![call_to(vec![full.clone()]), call_to(vec![full, testing::target("b")])],
        max_concurrent: None,
    };
    let mut events = Box::pin(engine.run(plan));
    let outcome = loop {
        let event = events.next().await.expect("calls end");
        if let EventKind::Finished(outcome) = event.kind {
            break outcome;
        }
    };
    let classes: Vec<_> = outcome.attempts.iter().map(AttemptRecord::class).collect();
    assert_eq!(classes, [Some(ErrorClass::LocalLimit), None]);
}

/// The remaining events of each call, until all have ended.
async fn remaining_events(run: &mut Run) -> Vec<(usize, String)> {
    let mut events = Vec::new();
    while let Some(event) = run.next().await {
        let word = match event.kind {
            EventKind::Started(target) => target.id.0.clone(),
            EventKind::Deltas(_) => "text".to_owned(),
            EventKind::Restarted => "again".to_owned(),
            EventKind::Finished(outcome) if outcome.stopped => format!("stopped after {}", outcome.attempts.len()),
            EventKind::Finished(outcome) => format!("over {}", outcome.result.is_ok()),
            _ => continue,
        };
        events.push((event.call, word));
    }
    events.dedup();
    events
}

fn expected_events(words: &[(usize, &str)]) -> Vec<(usize, String)> {
    words.iter().map(|(call, word)| (*call, (*word).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn single_call_can_be_stopped_or_restarted() {
    let replies = [MockResponse::NoResponse, MockResponse::NoResponse, answer(), answer()];
    let script = MockTransport::new(replies);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
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
        (1, "again"),
        (1, "b"),
        (1, "text"),
        (1, "over true"),
    ]);
    assert_eq!(events, expected);
    // A call that has ended can be restarted; an index out of range is ignored.
    run.stop(0);
    run.restart(0);
    run.restart(2);
    assert_eq!(
        remaining_events(&mut run).await,
        expected_events(&[(0, "again"), (0, "a"), (0, "text"), (0, "over true")])
    );
}

#[tokio::test(start_paused = true)]
async fn pending_call_can_be_stopped() {
    let script = MockTransport::new([answer(), answer()]);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let calls = ["a", "b", "c"].map(|name| call_to(vec![testing::target(name)])).to_vec();
    let mut run = engine.run(Plan { calls, max_concurrent: Some(1) });
    assert_eq!(run.next().await.expect("the first call").call, 0);
    run.stop(1);
    let ends: Vec<_> =
        remaining_events(&mut run).await.into_iter().filter(|(_, word)| word.starts_with(['o', 's'])).collect();
    assert_eq!(ends, expected_events(&[(1, "stopped after 0"), (0, "over true"), (2, "over true")]));
}
