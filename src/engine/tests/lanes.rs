//! Several lanes at once, and the end of a stream that is dropped.

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture, stream};

use super::*;
use crate::transport::{ByteStream, TransportError};

#[tokio::test(start_paused = true)]
async fn lanes_run_at_once_and_one_does_not_hold_another() {
    let replies = [Reply::Silence, answer()];
    let script = Script::of(replies);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let plan = Plan { lanes: vec![lane(vec![testing::target("a")]), lane(vec![testing::target("b")])], at_once: None };
    let begun = Instant::now();
    let mut events = Box::pin(engine.run(plan));
    let finished = async {
        loop {
            let event = events.next().await.expect("two lanes");
            if matches!(event.kind, EventKind::Finished(_)) {
                return event.lane;
            }
        }
    };
    assert_eq!((finished.await, begun.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_drops_the_connection() {
    struct Flag(Arc<Mutex<bool>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            *self.0.lock().expect("one thread") = true;
        }
    }
    struct Endless(Arc<Mutex<bool>>);
    impl Transport for Endless {
        fn send(
            &self,
            _: &ConnectOptions,
            _: http::Request<Bytes>,
        ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
            let flag = Flag(Arc::clone(&self.0));
            let body: ByteStream = Box::pin(stream::repeat(()).then(move |()| {
                let _held = &flag;
                async { Ok(Bytes::from_static(HELLO.as_bytes())) }
            }));
            async { Ok(http::Response::new(body)) }.boxed()
        }
    }
    let dropped = Arc::new(Mutex::new(false));
    let engine = Arc::new(Engine::new(Arc::new(Endless(Arc::clone(&dropped))), KeyRing::default()));
    let mut events = Box::pin(engine.run(Plan::of(lane(two()))));
    for _ in 0..5 {
        events.next().await.expect("endless");
    }
    assert!(!*dropped.lock().expect("one thread"));
    drop(events);
    assert!(*dropped.lock().expect("one thread"));
}

#[tokio::test(start_paused = true)]
async fn our_own_limit_fails_over_without_a_request() {
    let script = Script::of([Reply::Silence, answer()]);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let full = with_endpoint(testing::target("a"), |endpoint| {
        endpoint.limits = Limits { max_concurrency: Some(1), queue: Some(SECOND), ..Limits::default() };
    });
    let plan = Plan { lanes: vec![lane(vec![full.clone()]), lane(vec![full, testing::target("b")])], at_once: None };
    let mut events = Box::pin(engine.run(plan));
    let outcome = loop {
        let event = events.next().await.expect("lanes end");
        if let EventKind::Finished(outcome) = event.kind {
            break outcome;
        }
    };
    let classes: Vec<_> = outcome.attempts.iter().map(AttemptRecord::class).collect();
    assert_eq!(classes, [Some(ErrorClass::Local), None]);
}

/// What each lane tells from now on, until all are over.
async fn rest(run: &mut Run) -> Vec<(usize, String)> {
    let mut told = Vec::new();
    while let Some(event) = run.next().await {
        let word = match event.kind {
            EventKind::Started(target) => target.id.0.clone(),
            EventKind::Deltas(_) => "text".to_owned(),
            EventKind::Again => "again".to_owned(),
            EventKind::Finished(outcome) if outcome.stopped => format!("stopped after {}", outcome.attempts.len()),
            EventKind::Finished(outcome) => format!("over {}", outcome.result.is_ok()),
            _ => continue,
        };
        told.push((event.lane, word));
    }
    told.dedup();
    told
}

fn told(words: &[(usize, &str)]) -> Vec<(usize, String)> {
    words.iter().map(|(lane, word)| (*lane, (*word).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn one_lane_is_stopped_or_asked_once_more_while_others_go_on() {
    let replies = [Reply::Silence, Reply::Silence, answer(), answer()];
    let script = Script::of(replies);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let lanes = ["a", "b"].map(|name| lane(vec![testing::target(name)])).to_vec();
    let mut run = engine.run(Plan { lanes, at_once: None });
    for _ in 0..2 {
        assert!(matches!(run.next().await.expect("two lanes").kind, EventKind::Started(_)));
    }
    assert!(run.next().now_or_never().is_none(), "both were sent, and both services are silent");
    run.stop(0);
    run.again(1);
    let seen = rest(&mut run).await;
    let wanted =
        told(&[(0, "stopped after 1"), (1, "stopped after 1"), (1, "again"), (1, "b"), (1, "text"), (1, "over true")]);
    assert_eq!(seen, wanted);
    // One that is over can be had again; one that is not there cannot.
    run.stop(0);
    run.again(0);
    run.again(2);
    assert_eq!(rest(&mut run).await, told(&[(0, "again"), (0, "a"), (0, "text"), (0, "over true")]));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_its_turn_can_be_stopped() {
    let script = Script::of([answer(), answer()]);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let lanes = ["a", "b", "c"].map(|name| lane(vec![testing::target(name)])).to_vec();
    let mut run = engine.run(Plan { lanes, at_once: Some(1) });
    assert_eq!(run.next().await.expect("the first").lane, 0);
    run.stop(1);
    let ends: Vec<_> = rest(&mut run).await.into_iter().filter(|(_, word)| word.starts_with(['o', 's'])).collect();
    assert_eq!(ends, told(&[(1, "stopped after 0"), (0, "over true"), (2, "over true")]));
}
