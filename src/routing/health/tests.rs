//! What failures and answers do to the places they came from.

use super::*;
use crate::{
    model::{ErrorClass, target::testing},
    protocol::{RetryAfter, RetryWhen},
};

fn at(seconds: u64) -> Timestamp {
    later("2026-01-01T00:00:00Z".parse().expect("a date"), Duration::from_secs(seconds))
}

fn error(class: ErrorClass) -> ApiError {
    ApiError { status: Some(401), ..ApiError::new(class, "no") }
}

const KEYS: [KeyHash; 2] = [KeyHash(1), KeyHash(2)];

fn places(target: &Target) -> Places {
    Places::of(target, &KEYS)
}

fn blame(target: &Target, key: usize) -> Blame<'_> {
    Blame { target, key: KEYS[key], index: Some(key), sent: Timestamp::MAX, probe: None }
}

const LEASE: Duration = Duration::from_secs(12);

fn until(snapshot: &HealthSnapshot, target: &Target, now: u64) -> Option<u64> {
    match snapshot.standing(&places(target), at(now)) {
        Standing::Aside(until, _) => Some(u64::try_from(until.duration_since(at(0)).as_secs()).expect("later")),
        _ => None,
    }
}

#[test]
fn a_dead_endpoint_is_left_alone_with_all_its_models() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let other = Target { upstream: "another".into(), ..target.clone() };
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Connect), at(0), 0.5);
    assert_eq!(until(&snapshot, &target, 0), None);
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Connect), at(0), 0.5);
    assert_eq!((until(&snapshot, &target, 0), until(&snapshot, &other, 0)), (Some(5), Some(5)));
    assert_eq!(snapshot.standing(&places(&other), at(5)), Standing::HalfOpen);
    assert!(snapshot.probe(&places(&target), at(5), (1, LEASE), false));
    assert!(!snapshot.probe(&places(&other), at(6), (2, LEASE), true), "one probe at a time");
    assert_eq!(until(&snapshot, &other, 6), Some(17), "who comes meanwhile waits for its verdict");
    snapshot.began(&blame(&target, 0), Some(Duration::from_millis(5)), at(7));
    assert_eq!(snapshot.standing(&places(&other), at(7)), Standing::Free);
}

#[test]
fn a_refused_key_is_left_alone_and_the_other_serves() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Auth), at(0), 0.5);
    assert_eq!(until(&snapshot, &target, 0), None);
    let keys = places(&target).keys;
    assert!(matches!(snapshot.standing_of_key(keys[0], at(0)), Standing::Aside(..)));
    assert_eq!(snapshot.standing_of_key(keys[1], at(0)), Standing::Free);
    snapshot.failed(&blame(&target, 1), &error(ErrorClass::Quota), at(10), 0.5);
    assert_eq!(until(&snapshot, &target, 10), Some(600), "until the first of them may be tried again");
}

#[test]
fn a_rate_limit_is_of_one_key_and_one_model_and_doubles() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let other = Target { upstream: "another".into(), ..target.clone() };
    let mut now = 0;
    for wait in [5, 10, 20, 40, 60, 60] {
        for key in [0, 1] {
            snapshot.failed(&blame(&target, key), &error(ErrorClass::Rate), at(now), 0.5);
        }
        assert_eq!((until(&snapshot, &target, now), until(&snapshot, &other, now)), (Some(now + wait), None));
        now += wait;
    }
    snapshot.ended_well(&blame(&target, 0), at(now));
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Rate), at(now), 0.5);
    let keys = places(&target).keys;
    assert!(matches!(snapshot.standing_of_key(keys[0], at(now)), Standing::Aside(until, _) if until == at(now + 5)));
}

#[test]
fn a_service_that_asks_for_time_gets_it() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let after = RetryAfter { raw: "30".into(), when: RetryWhen::After(Duration::from_secs(30)) };
    let busy = ApiError { retry_after: Some(after), ..error(ErrorClass::Overloaded) };
    snapshot.failed(&blame(&target, 0), &busy, at(0), 0.5);
    assert_eq!(until(&snapshot, &target, 0), Some(30));
    assert_eq!(until(&snapshot, &target, 30), None);
}

#[test]
fn the_callers_own_errors_count_as_nothing_and_give_the_probe_back() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    for _ in 0..9 {
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Request), at(0), 0.5);
    }
    assert_eq!(snapshot, HealthSnapshot::default());
    for _ in 0..3 {
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Server), at(0), 0.5);
    }
    let probe = |snapshot: &mut HealthSnapshot, owner| snapshot.probe(&places(&target), at(6), (owner, LEASE), false);
    assert!(probe(&mut snapshot, 1) && !probe(&mut snapshot, 2));
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Context), at(6), 0.5);
    assert!(!probe(&mut snapshot, 2), "somebody else's request is no verdict");
    let own = Blame { probe: Some(1), ..blame(&target, 0) };
    snapshot.failed(&own, &error(ErrorClass::Context), at(6), 0.5);
    assert!(!probe(&mut snapshot, 2), "its next key is the same probe");
    snapshot.give_back(&target, 1);
    assert!(probe(&mut snapshot, 2));
    snapshot.give_back(&target, 2);
    assert!(probe(&mut snapshot, 3));
}

#[test]
fn a_first_delta_ends_what_a_service_asked_for_and_a_failure_after_it_counts_on() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    for key in [0, 1] {
        snapshot.failed(&blame(&target, key), &error(ErrorClass::Rate), at(0), 0.5);
    }
    let sent = |second| Blame { sent: at(second), ..blame(&target, 0) };
    assert!(snapshot.is_blamed(&sent(6)), "a key that is back is news for others");
    snapshot.began(&Blame { sent: at(0) - jiff::SignedDuration::from_secs(1), ..sent(0) }, None, at(1));
    assert_eq!(until(&snapshot, &target, 1), Some(5), "it was sent before");
    snapshot.began(&sent(2), None, at(3));
    assert_eq!(until(&snapshot, &target, 3), None);
    snapshot.failed(&sent(2), &error(ErrorClass::Rate), at(4), 0.5);
    let keys = places(&target).keys;
    assert!(matches!(snapshot.standing_of_key(keys[0], at(4)), Standing::Aside(until, _) if until == at(14)));
}

#[test]
fn what_is_over_keeps_nobody_from_the_probe_of_another_model() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let other = Target { upstream: "another".into(), ..target.clone() };
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Path), at(0), 0.5);
    for model in [&target, &other] {
        for _ in 0..3 {
            snapshot.failed(&blame(model, 0), &error(ErrorClass::Server), at(700), 0.5);
        }
    }
    assert!(snapshot.probe(&places(&target), at(706), (1, LEASE), false));
    assert_eq!(snapshot.standing(&places(&other), at(706)), Standing::HalfOpen);
    assert!(snapshot.probe(&places(&other), at(706), (2, LEASE), false), "its endpoint is well");
}

#[test]
fn what_a_service_asked_for_is_probed_by_one_at_a_time_too() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Overloaded), at(0), 0.5);
    let early = |snapshot: &mut HealthSnapshot, owner| snapshot.probe(&places(&target), at(5), (owner, LEASE), true);
    assert!(early(&mut snapshot, 1) && !early(&mut snapshot, 2));
    let mut keys = HealthSnapshot::default();
    for key in [0, 1] {
        keys.failed(&blame(&target, key), &error(ErrorClass::Quota), at(0), 0.5);
    }
    assert!(early(&mut keys, 1) && !early(&mut keys, 2));
}

#[test]
fn requests_that_failed_together_are_one_occasion_and_the_longest_wait_counts() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    for _ in 0..3 {
        snapshot.failed(&blame(&target, 0), &error(ErrorClass::Rate), at(0), 0.5);
        snapshot.failed(&blame(&target, 1), &error(ErrorClass::Rate), at(0), 0.5);
    }
    assert!(until(&snapshot, &target, 0).is_some_and(|until| until <= 10));
    let mut model = HealthSnapshot::default();
    for key in [0, 1] {
        assert_eq!(until(&model, &target, 0), None, "another key may be let in");
        model.failed(&blame(&target, key), &error(ErrorClass::Forbidden), at(0), 0.5);
    }
    model.failed(&blame(&target, 0), &error(ErrorClass::Overloaded), at(1), 0.5);
    assert_eq!(until(&model, &target, 1), Some(600));
}

#[test]
fn it_survives_its_file_and_a_clock_that_jumps() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    snapshot.failed(&blame(&target, 0), &error(ErrorClass::Quota), at(1_000_000), 0.5);
    snapshot.began(&blame(&target, 0), Some(Duration::from_millis(1234)), at(1_000_000));
    let text = serde_json::to_string(&snapshot).expect("plain data");
    let mut read: HealthSnapshot = serde_json::from_str(&text).expect("what was written");
    assert_eq!(read, snapshot);
    read.tidy(at(0));
    let keys = places(&target).keys;
    assert!(matches!(read.standing_of_key(keys[0], at(0)), Standing::Aside(until, _) if until == at(600)));
    read.tidy(at(40 * 24 * 3600));
    assert_eq!(read.places.len(), 0);
}

#[test]
fn it_stays_small() {
    let mut snapshot = HealthSnapshot::default();
    for number in 0..1000 {
        let target = Target { upstream: format!("model-{number}"), ..testing::target("a") };
        for _ in 0..20 {
            snapshot.began(&blame(&target, 0), Some(Duration::from_secs(100)), at(number));
            let long = ApiError::new(ErrorClass::Server, "x".repeat(10_000));
            snapshot.failed(&blame(&target, 0), &long, at(number), 0.5);
        }
    }
    snapshot.tidy(at(1000));
    assert_eq!(snapshot.places.len(), MOST_PLACES);
    assert_eq!(snapshot.keep_latest(3, at(1000)), 3);
    assert!(snapshot.place(PlaceId::model(&Target { upstream: "model-999".into(), ..testing::target("a") })).is_some());
}

#[test]
fn who_is_left_alone_is_not_forgotten_for_those_who_are_well() {
    let mut snapshot = HealthSnapshot::default();
    let refused = testing::target("refused");
    for key in [0, 1] {
        snapshot.failed(&blame(&refused, key), &error(ErrorClass::Quota), at(0), 0.5);
    }
    for number in 0..1000 {
        let target = Target { upstream: format!("model-{number}"), ..testing::target("a") };
        snapshot.began(&blame(&target, 0), Some(Duration::from_secs(1)), at(1));
    }
    snapshot.tidy(at(2));
    assert!(matches!(snapshot.standing(&places(&refused), at(2)), Standing::Aside(..)));
}

proptest::proptest! {
    #[test]
    fn never_two_probes_at_once(steps in proptest::collection::vec((0u64..8, 0u8..8, 0.0f64..1.0), 1..200)) {
        let (mut snapshot, target, mut now) = (HealthSnapshot::default(), testing::target("a"), 0);
        // Who has the probe, and until when.
        let mut held: Option<(u64, u64)> = None;
        for (number, (wait, what, chance)) in (1u64..).zip(steps) {
            now += wait;
            held = held.filter(|(_, until)| *until > now);
            let foreign = Blame { sent: at(now), ..blame(&target, 0) };
            let class = [ErrorClass::Server, ErrorClass::Connect, ErrorClass::Request, ErrorClass::Rate][usize::from(what % 4)];
            match what {
                0..4 => snapshot.failed(&foreign, &error(class), at(now), chance),
                4 => if let Some((owner, _)) = held.take() {
                    let own = Blame { probe: Some(owner), ..foreign };
                    snapshot.failed(&own, &error(class), at(now), chance);
                    snapshot.give_back(&target, owner);
                },
                _ => {
                    let free = snapshot.standing(&places(&target), at(now)) == Standing::Free;
                    if snapshot.probe(&places(&target), at(now), (number, LEASE), what == 5) && !free {
                        proptest::prop_assert!(held.is_none(), "a second probe");
                        held = Some((number, now + 12));
                    }
                }
            }
        }
    }
}
