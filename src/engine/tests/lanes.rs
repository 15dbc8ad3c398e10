//! Several lanes at once, and the end of a stream that is dropped.

use super::*;

#[tokio::test(start_paused = true)]
async fn lanes_run_at_once_and_one_does_not_hold_another() {
    let replies = [Reply::Silence, answer()];
    let script = Script { replies: Mutex::new(replies.into()), asked: Mutex::default() };
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
    let script = Script { replies: Mutex::new([Reply::Silence, answer()].into()), asked: Mutex::default() };
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
