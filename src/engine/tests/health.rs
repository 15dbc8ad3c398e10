//! What one request learns and the next one uses: who is left alone, which key, how long silence is.

use proptest::prelude::{any, prop_assert, proptest};

use super::*;
use crate::routing::health::{HealthError, HealthSnapshot, HealthStore, PlaceId, Places, Updated};

fn refused() -> Reply {
    Reply::NoConnection(TransportErrorKind::Refused)
}

/// The error of a service in words, under a status.
fn says(status: u16, code: &'static str) -> Reply {
    Reply::Status(status, vec![], code)
}

fn keyed(name: &str) -> Target {
    with_endpoint(testing::target(name), |endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    })
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_passed_over_until_its_time_is_over_and_then_probed_once() {
    let process = Process::new([refused(), refused(), answer()]);
    assert_eq!(process.ask(lane(two())).await.models(), ["a-upstream", "a-upstream", "b-upstream"]);
    process.answers([answer(), refused(), answer(), answer(), answer()]);
    assert_eq!(process.ask(lane(two())).await.models(), ["b-upstream"], "it is left alone");
    sleep(SECOND * 7).await;
    let probed = process.ask(lane(two())).await;
    assert_eq!(probed.models(), ["a-upstream", "b-upstream"], "a probe is one request");
    assert_eq!(process.ask(lane(two())).await.models(), ["b-upstream"]);
    sleep(SECOND * 13).await;
    assert_eq!(process.ask(lane(two())).await.models(), ["a-upstream"], "it is back");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_was_named_is_always_asked() {
    let process = Process::new((0..20).map(|_| Reply::Status(500, vec![], "{}")));
    for _ in 0..10 {
        let ran = process.ask(lane(vec![testing::target("a")])).await;
        assert!(!ran.asked.is_empty() && ran.took < SECOND * 2, "{:?}", ran.took);
    }
}

#[tokio::test(start_paused = true)]
async fn when_everybody_is_left_alone_the_first_is_waited_for_and_asked() {
    let process = Process::new([refused(), refused(), refused()]);
    assert_eq!(process.ask(lane(two())).await.class(), ErrorClass::Connect);
    process.answers([refused(), refused(), answer()]);
    // The second one failed once only: it is not left alone yet, and the last one is asked twice.
    let ran = process.ask(lane(two())).await;
    assert_eq!(ran.models(), ["b-upstream", "b-upstream", "a-upstream"]);
    assert!(ran.notices().iter().any(|notice| matches!(notice, Notice::AllAside(..))), "{:?}", ran.notices());
    assert!(ran.outcome.result.is_ok() && ran.took <= SECOND * 5, "{:?}", ran.took);
}

#[tokio::test(start_paused = true)]
async fn who_answers_slowly_is_not_cut_short_for_one_that_is_left_alone() {
    let process = Process::new([status(403), answer()]);
    assert_eq!(process.ask(lane(two())).await.models(), ["a-upstream", "b-upstream"]);
    process.answers([Reply::Pieces(vec![(SECOND * 50, HELLO), (Duration::ZERO, STOP)])]);
    let ran = process.ask(lane(two())).await;
    assert_eq!((ran.models(), ran.took), (vec!["b-upstream"], SECOND * 50));
}

/// A process that found `a` dead and was refused by `b`; `a` may be probed again.
async fn with_nobody_left() -> Process {
    let process = Process::new([refused(), refused(), status(403)]);
    assert!(process.ask(lane(two())).await.outcome.result.is_err());
    sleep(SECOND * 6).await;
    process
}

/// How three lanes end that are asked at once.
async fn three_at_once(process: &Process) -> Vec<LaneOutcome> {
    let lanes = (0..3).map(|_| lane(two())).collect();
    let ended = process.engine.run(Plan { lanes, at_once: None }).filter_map(async |event| match event.kind {
        EventKind::Finished(outcome) => Some(*outcome),
        _ => None,
    });
    ended.collect().await
}

#[tokio::test(start_paused = true)]
async fn one_request_finds_out_and_the_others_wait_for_its_verdict() {
    let process = with_nobody_left().await;
    // The first lane to come is the probe; its answer takes three seconds to begin.
    process.answers([Reply::Pieces(vec![(SECOND * 3, HELLO), (Duration::ZERO, STOP)]), answer(), answer()]);
    let ended = three_at_once(&process).await;
    let ended: Vec<_> = ended.iter().map(|outcome| (outcome.result.is_ok(), outcome.attempts.len())).collect();
    assert_eq!(ended, [(true, 1); 3]);
}

/// A file for others to read, in memory.
#[derive(Default)]
struct Kept(Mutex<HealthSnapshot>);

impl HealthStore for Kept {
    fn read(&self) -> Result<HealthSnapshot, HealthError> {
        Ok(self.0.lock().expect("one thread").clone())
    }

    fn update(&self, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<Updated, HealthError> {
        act(&mut self.0.lock().expect("one thread"));
        Ok((self.read()?, None))
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_being_probed_by_another_keeps_nobody_from_asking_the_next() {
    let process = with_nobody_left().await;
    process.answers([Reply::Pieces(vec![(SECOND * 30, HELLO), (Duration::ZERO, STOP)]), answer(), answer()]);
    let ended = three_at_once(&process).await;
    let mut asked: Vec<_> = ended.iter().map(|outcome| outcome.target.as_ref().expect("asked").id.0.as_str()).collect();
    asked.sort_unstable();
    assert_eq!(asked, ["a", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_waits_for_long_stays_the_only_one() {
    let process = with_nobody_left().await;
    // Nobody else is left for the first; it says nothing for five minutes.
    process.answers([Reply::Pieces(vec![(SECOND * 300, HELLO), (Duration::ZERO, STOP)]), answer(), answer()]);
    let first = tokio::spawn(process.engine.run(Plan::of(lane(two()))).collect::<Vec<Event>>());
    sleep(SECOND * 200).await;
    let (a, now) = (testing::target("a"), process.engine.health.now());
    let probed = process.engine.health.look(|snapshot| snapshot.probed(&Places::of(&a, &[]), now));
    assert!(probed.is_some_and(|until| until > now), "{probed:?}");
    assert!(!first.is_finished());
    first.await.expect("it ends");
    let now = process.engine.health.now();
    let probed = process.engine.health.look(|snapshot| snapshot.probed(&Places::of(&a, &[]), now));
    assert_eq!(probed, None);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_is_given_back() {
    let mut process = Process::new([refused(), refused(), refused()]);
    let kept: Arc<dyn HealthStore> = Arc::new(Kept::default());
    process.engine = Arc::new(
        Arc::into_inner(process.engine).expect("nobody else has it").with_health(Arc::clone(&kept), Duration::MAX),
    );
    assert!(process.ask(lane(two())).await.outcome.result.is_err());
    sleep(SECOND * 6).await;
    process.answers([Reply::Silence, answer()]);
    {
        let mut events = Box::pin(process.engine.run(Plan::of(lane(two()))));
        while let Some(event) = events.next().await {
            if matches!(event.kind, EventKind::Started(_)) {
                break;
            }
        }
        // It is being asked.
        tokio::select! { _ = events.next() => {}, () = sleep(SECOND) => {} }
    }
    let snapshot = kept.read().expect("readable");
    let a = testing::target("a");
    assert_eq!(snapshot.probed(&Places::of(&a, &[]), jiff::Timestamp::now()), None, "others may ask it, too");
    assert!(snapshot.place(PlaceId::endpoint(&a.endpoint)).is_some(), "it is known there");
    let ran = process.ask(lane(two())).await;
    assert_eq!((ran.models(), ran.took), (vec!["a-upstream"], Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_known_here_all_the_same() {
    /// A folder that can be read and not written to.
    struct ReadOnly;
    impl HealthStore for ReadOnly {
        fn read(&self) -> Result<HealthSnapshot, HealthError> {
            Ok(HealthSnapshot::default())
        }
        fn update(&self, _: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<Updated, HealthError> {
            Err(HealthError("read-only".into()))
        }
    }
    let mut process = Process::new([refused(), refused(), status(403)]);
    let engine = Arc::into_inner(process.engine).expect("nobody else has it");
    process.engine = Arc::new(engine.with_health(Arc::new(ReadOnly), Duration::MAX));
    assert!(process.ask(lane(two())).await.outcome.result.is_err());
    process.answers([answer()]);
    let ran = process.ask(lane(two())).await;
    assert!(ran.took > SECOND * 3, "both are left alone: {:?}", ran.took);
}

#[tokio::test(start_paused = true)]
async fn the_next_key_is_tried_by_the_same_probe() {
    let process = Process::new([refused(), refused(), refused()]);
    let lanes = || vec![keyed("a"), testing::target("b")];
    assert!(process.ask(lane(lanes())).await.outcome.result.is_err());
    sleep(SECOND * 6).await;
    // The first key is refused while the second one is asked for long: nobody else asks in the meantime.
    process.answers([status(401), Reply::Pieces(vec![(SECOND * 3, HELLO), (Duration::ZERO, STOP)]), answer()]);
    let both = (0..2).map(|_| lane(lanes())).collect();
    let events: Vec<Event> = process.engine.run(Plan { lanes: both, at_once: None }).collect().await;
    let asked: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Finished(outcome) => Some(outcome.attempts.iter().map(|attempt| attempt.target.id.0.clone())),
            _ => None,
        })
        .collect();
    let mut asked: Vec<Vec<_>> = asked.into_iter().map(Iterator::collect).collect();
    asked.sort();
    assert_eq!(asked, [vec!["a", "a"], vec!["b"]]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_left_alone_by_the_next_request() {
    let process = Process::new([status(401), answer()]);
    let keys = |ran: &Ran| ran.asked.iter().filter_map(|asked| asked.key.clone()).collect::<Vec<_>>();
    let first = process.ask(lane(vec![keyed("a")])).await;
    assert_eq!(keys(&first), ["Bearer sk-first-key", "Bearer sk-second-key"]);
    let recorded: Vec<_> = first.outcome.attempts.iter().map(|attempt| attempt.key).collect();
    assert_eq!(recorded, [Some(0), Some(1)]);
    for _ in 0..3 {
        process.answers([answer()]);
        assert_eq!(keys(&process.ask(lane(vec![keyed("a")])).await), ["Bearer sk-second-key"]);
    }
    process.answers([says(402, "{}")]);
    assert_eq!(process.ask(lane(vec![keyed("a")])).await.class(), ErrorClass::Quota);
    process.answers([answer()]);
    let ran = process.ask(lane(vec![keyed("a")])).await;
    assert_eq!(ran.answer.text, "Hello", "when all are left alone, one is tried all the same");
}

#[tokio::test(start_paused = true)]
async fn keys_are_taken_in_turn() {
    let process = Process::new((0..4).map(|_| answer()));
    let mut used = Vec::new();
    for _ in 0..4 {
        used.extend(
            process.ask(lane(vec![keyed("a")])).await.outcome.attempts.iter().filter_map(|attempt| attempt.key),
        );
    }
    assert_eq!(used, [0, 1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_slow_as_a_rule_is_not_taken_for_silent() {
    let slow = || Reply::Pieces(vec![(SECOND * 5, HELLO), (Duration::ZERO, STOP)]);
    let process = Process::new([slow()]);
    assert_eq!(process.ask(lane(vec![testing::target("a")])).await.outcome.ttft, Some(SECOND * 5));
    process.answers([Reply::Pieces(vec![(SECOND * 14, HELLO), (Duration::ZERO, STOP)])]);
    assert_eq!(process.ask(lane(two())).await.models(), ["a-upstream"], "three times what is usual");
    process.answers([Reply::Silence, answer()]);
    let ran = process.ask(lane(two())).await;
    assert_eq!((ran.classes(), ran.took), (vec!["silent", "ok"], SECOND * 42));
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_is_asked_elsewhere_as_well_and_the_first_to_speak_is_heard() {
    let hedged = |after| {
        let policy = Policy { hedge_after: Some(after), ..Policy::default() };
        Lane { route: Some(policy), ..lane(two()) }
    };
    let late = |seconds| Reply::Pieces(vec![(SECOND * seconds, HELLO), (Duration::ZERO, STOP)]);
    let process = Process::new([late(9), answer()]);
    let ran = process.ask(hedged(SECOND)).await;
    assert_eq!((ran.models(), ran.classes()), (vec!["a-upstream", "b-upstream"], vec!["local", "ok"]));
    assert_eq!((ran.took, ran.outcome.target.map(|target| target.id.0.clone())), (SECOND, Some("b".into())));
    process.answers([late(2)]);
    let ran = process.ask(hedged(SECOND)).await;
    assert_eq!(ran.models(), ["a-upstream"], "the allowance is used up");
    let process = Process::new([late(3), late(9)]);
    let ran = process.ask(hedged(SECOND)).await;
    assert_eq!((ran.took, ran.outcome.target.map(|target| target.id.0.clone())), (SECOND * 3, Some("a".into())));
    let process = Process::new([Reply::Slow(SECOND * 2, 500), late(3)]);
    let ran = process.ask(hedged(SECOND)).await;
    assert_eq!((ran.answer.text.as_str(), ran.classes()), ("Hello", vec!["server", "ok"]));
    // The first to speak breaks off: the other one was never heard, and is asked again.
    let process = Process::new([late(9), Reply::Broken(vec![(Duration::ZERO, HELLO)]), answer()]);
    let ran = process.ask(Lane { on_cut: OnCut::Restart, ..hedged(SECOND) }).await;
    assert_eq!(
        (ran.models(), ran.classes()),
        (vec!["a-upstream", "b-upstream", "a-upstream"], vec!["local", "cut", "ok"])
    );
    assert_eq!((ran.answer.text.as_str(), ran.outcome.result.is_ok()), ("Hello", true));
}

#[tokio::test(start_paused = true)]
async fn a_spend_limit_that_is_reached_keeps_a_model_out() {
    #[derive(Debug)]
    struct Spent;
    impl crate::routing::spend::SpendLedger for Spent {
        fn reached(&self, target: &Target) -> Result<Option<crate::routing::spend::Reached>, String> {
            use crate::routing::spend::{Period, Reached, SpendLimit, SpendScope};
            let scope = SpendScope::Model("a".into());
            let limit = SpendLimit { scope, period: Period::Day, amount: 1.0, currency: "USD".into() };
            Ok((target.id.0 == "a").then_some(Reached { limit, spent: 1.5 }))
        }
    }
    let script = Arc::new(Script::of([answer()]));
    let engine = Engine::new(Arc::clone(&script) as Arc<dyn Transport>, KeyRing::default());
    let engine = Arc::new(engine.with_ledger(Arc::new(Spent)));
    let ran = ran(&engine, &script, lane(two())).await;
    assert_eq!(ran.models(), ["b-upstream"]);
    assert!(matches!(ran.notices().as_slice(), [Notice::PassedOver(id, why)] if id.0 == "a" && why.contains("1.5")));
    let refused = super::ran(&engine, &script, lane(vec![testing::target("a")])).await;
    assert_eq!((refused.class(), refused.asked.len()), (ErrorClass::Spend, 0));
}

/// One reply of every kind there is.
fn reply(kind: u8) -> Reply {
    match kind {
        0 => refused(),
        1 => Reply::NoConnection(TransportErrorKind::Reset),
        2 => Reply::NoConnection(TransportErrorKind::Dns),
        3 => status(401),
        4 => status(402),
        5 => says(429, "{}"),
        6 => Reply::Status(429, vec![("retry-after", "2")], "{}"),
        7 => Reply::Status(503, vec![("retry-after", "1")], "{}"),
        8 => status(404),
        9 => status(409),
        10 => Reply::Pieces(vec![]),
        11 => Reply::Pieces(vec![(Duration::ZERO, HELLO)]),
        12 => Reply::Silence,
        13 => answer(),
        _ => status(500),
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]
    #[test]
    fn no_sequence_of_faults_costs_more_than_the_budget(
        kinds in proptest::collection::vec(0u8..20, 400),
        candidates in 1usize..12,
        requests in 1usize..12,
        hedged in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("one");
        let spent: Vec<(usize, usize, bool)> = runtime.block_on(async {
            let process = Process::new(kinds.into_iter().map(reply));
            let mut spent = Vec::new();
            for _ in 0..requests {
                let targets: Vec<Target> = (0..candidates).map(|number| keyed(&number.to_string())).collect();
                let policy = Policy { hedge_after: hedged.then_some(SECOND), ..Policy::default() };
                let route = (candidates > 1).then_some(policy);
                let ran = process.ask(Lane { route, on_cut: OnCut::Restart, ..lane(targets) }).await;
                let mut asked: Vec<&str> = ran.models();
                asked.sort_unstable();
                asked.dedup();
                let most = asked.len();
                let whole = ran.outcome.result.is_ok();
                spent.push((ran.asked.len(), most, whole));
            }
            spent
        });
        for (requests, asked, _) in spent {
            // Each candidate once with each of its two keys, and one repeat.
            prop_assert!(asked <= 8 && requests <= asked * 2 + 1, "{requests} requests to {asked} candidates");
            prop_assert!(asked >= 1, "nobody was asked");
        }
    }
}
