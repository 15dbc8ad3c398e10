//! Tests of how failures and answers change the health snapshot.

use super::*;
use crate::{
    model::{ErrorClass, Operation, target::testing},
    protocol::{RetryAfter, RetryWhen},
};

fn at(seconds: u64) -> Timestamp {
    saturating_add("2026-01-01T00:00:00Z".parse().expect("valid timestamp"), Duration::from_secs(seconds))
}

fn error(class: ErrorClass) -> CallError {
    CallError { status: Some(401), ..CallError::new(class, "no") }
}

const KEYS: [KeyHash; 2] = [KeyHash(1), KeyHash(2)];

fn target_keys(target: &Target) -> TargetHealthKeys {
    TargetHealthKeys::new(target, &KEYS)
}

fn attempt(target: &Target, key: usize) -> AttemptInfo<'_> {
    AttemptInfo {
        target,
        key_index: Some(key),
        sent_at: Timestamp::MAX,
        probe: None,
        operation: None,
        health_keys: AttemptHealthKeys::WithKey(KEYS[key]),
    }
}

const LEASE: Duration = Duration::from_secs(12);

fn until(snapshot: &HealthSnapshot, target: &Target, now: u64) -> Option<u64> {
    let until = snapshot.availability(&target_keys(target), at(now)).until()?;
    Some(u64::try_from(until.duration_since(at(0)).as_secs()).expect("not before the start"))
}

#[test]
fn unreachable_endpoint_opens_for_all_its_models() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let other = Target { upstream_id: "another".into(), ..target.clone() };
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Connect), at(0), 0.5);
    assert_eq!(until(&snapshot, &target, 0), None);
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Connect), at(0), 0.5);
    assert_eq!((until(&snapshot, &target, 0), until(&snapshot, &other, 0)), (Some(5), Some(5)));
    assert_eq!(snapshot.availability(&target_keys(&other), at(5)), Availability::HalfOpen);
    assert!(snapshot.acquire_probe(&target_keys(&target), at(5), (1, LEASE)));
    assert!(!snapshot.acquire_probe(&target_keys(&other), at(6), (2, LEASE)), "one probe at a time");
    assert_eq!(until(&snapshot, &other, 6), Some(17), "open until the probe lease expires");
    snapshot.record_first_delta(&HealthPolicy::default(), &attempt(&target, 0), Some(Duration::from_millis(5)), at(7));
    assert_eq!(snapshot.availability(&target_keys(&other), at(7)), Availability::Available);
}

#[test]
fn rejected_key_opens_and_the_other_key_is_used() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Auth), at(0), 0.5);
    assert_eq!(until(&snapshot, &target, 0), None);
    let keys = target_keys(&target).keys;
    assert!(
        snapshot.key_availability(keys[0], at(0)).restriction().is_some_and(|restriction| restriction.kind.is_hard())
    );
    assert_eq!(snapshot.key_availability(keys[1], at(0)), Availability::Available);
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 1), &error(ErrorClass::Quota), at(10), 0.5);
    assert_eq!(until(&snapshot, &target, 10), Some(600), "until the first key is available again");
}

#[test]
fn rate_limit_applies_to_one_key_and_model_and_doubles() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let other = Target { upstream_id: "another".into(), ..target.clone() };
    let mut now = 0;
    for wait in [5, 10, 20, 40, 60, 60] {
        for key in [0, 1] {
            snapshot.record_failure(
                &HealthPolicy::default(),
                &attempt(&target, key),
                &error(ErrorClass::Rate),
                at(now),
                0.5,
            );
        }
        assert_eq!((until(&snapshot, &target, now), until(&snapshot, &other, now)), (Some(now + wait), None));
        now += wait;
    }
    snapshot.record_success(&HealthPolicy::default(), &attempt(&target, 0), at(now));
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Rate), at(now), 0.5);
    let keys = target_keys(&target).keys;
    assert_eq!(snapshot.key_availability(keys[0], at(now)).until(), Some(at(now + 5)));
}

#[test]
fn cooldown_follows_retry_after() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let retry_after = RetryAfter { raw: "30".into(), when: RetryWhen::After(Duration::from_secs(30)) };
    let overloaded = CallError { retry_after: Some(retry_after), ..error(ErrorClass::Overloaded) };
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &overloaded, at(0), 0.5);
    assert_eq!(until(&snapshot, &target, 0), Some(30));
    assert_eq!(until(&snapshot, &target, 30), None);
}

#[test]
fn request_errors_do_not_affect_health_or_release_a_probe() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    for _ in 0..9 {
        snapshot.record_failure(
            &HealthPolicy::default(),
            &attempt(&target, 0),
            &error(ErrorClass::Request),
            at(0),
            0.5,
        );
    }
    assert_eq!(snapshot, HealthSnapshot::default());
    for _ in 0..3 {
        snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Server), at(0), 0.5);
    }
    let probe =
        |snapshot: &mut HealthSnapshot, owner| snapshot.acquire_probe(&target_keys(&target), at(6), (owner, LEASE));
    assert!(probe(&mut snapshot, 1) && !probe(&mut snapshot, 2));
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Context), at(6), 0.5);
    assert!(!probe(&mut snapshot, 2), "a request without the lease does not release it");
    let probe_attempt = AttemptInfo { probe: Some(1), ..attempt(&target, 0) };
    snapshot.record_failure(&HealthPolicy::default(), &probe_attempt, &error(ErrorClass::Context), at(6), 0.5);
    assert!(!probe(&mut snapshot, 2), "the probe continues with the next key");
    snapshot.release_probe(&target, 1);
    assert!(probe(&mut snapshot, 2));
    snapshot.release_probe(&target, 2);
    assert!(probe(&mut snapshot, 3));
}

#[test]
fn first_delta_ends_the_cooldown_but_keeps_the_doubling() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    for key in [0, 1] {
        snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, key), &error(ErrorClass::Rate), at(0), 0.5);
    }
    let sent = |second| AttemptInfo { sent_at: at(second), ..attempt(&target, 0) };
    assert!(snapshot.has_failures(&sent(6)), "the success must be shared");
    snapshot.record_first_delta(
        &HealthPolicy::default(),
        &AttemptInfo { sent_at: at(0) - jiff::SignedDuration::from_secs(1), ..sent(0) },
        None,
        at(1),
    );
    assert_eq!(until(&snapshot, &target, 1), Some(5), "sent before the failure");
    snapshot.record_first_delta(&HealthPolicy::default(), &sent(2), None, at(3));
    assert_eq!(until(&snapshot, &target, 3), None);
    snapshot.record_failure(&HealthPolicy::default(), &sent(2), &error(ErrorClass::Rate), at(4), 0.5);
    let keys = target_keys(&target).keys;
    assert_eq!(snapshot.key_availability(keys[0], at(4)).until(), Some(at(14)));
}

#[test]
fn expired_cooldown_of_an_endpoint_does_not_block_probes_of_other_models() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let other = Target { upstream_id: "another".into(), ..target.clone() };
    snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Path), at(0), 0.5);
    for model in [&target, &other] {
        for _ in 0..3 {
            snapshot.record_failure(
                &HealthPolicy::default(),
                &attempt(model, 0),
                &error(ErrorClass::Server),
                at(700),
                0.5,
            );
        }
    }
    assert!(snapshot.acquire_probe(&target_keys(&target), at(706), (1, LEASE)));
    assert_eq!(snapshot.availability(&target_keys(&other), at(706)), Availability::HalfOpen);
    assert!(snapshot.acquire_probe(&target_keys(&other), at(706), (2, LEASE)), "the endpoint is available");
}

#[test]
fn restricted_candidate_gets_no_probe() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    for _ in 0..3 {
        snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Server), at(0), 0.5);
    }
    assert!(!snapshot.acquire_probe(&target_keys(&target), at(4), (1, LEASE)), "open");
    assert!(snapshot.acquire_probe(&target_keys(&target), at(5), (1, LEASE)), "half-open");
}

#[test]
fn unknown_path_of_an_operation_affects_only_that_operation() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    let rerank = AttemptInfo { operation: Some(Operation::Rerank), ..attempt(&target, 0) };
    snapshot.record_failure(&HealthPolicy::default(), &rerank, &error(ErrorClass::Path), at(0), 0.5);
    assert_eq!(until(&snapshot, &target, 0), None);
    let operation = Some(HealthKey::operation(&target.endpoint, Operation::Rerank));
    let rerank_keys = TargetHealthKeys { operation, ..target_keys(&target) };
    let availability = snapshot.availability(&rerank_keys, at(0));
    assert_eq!(availability.until(), Some(at(30)));
    snapshot.record_success(&HealthPolicy::default(), &rerank, at(1));
    assert_eq!(snapshot.availability(&rerank_keys, at(1)), Availability::Available);
}

#[test]
fn concurrent_failures_count_once_and_the_longest_cooldown_wins() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    for _ in 0..3 {
        snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &error(ErrorClass::Rate), at(0), 0.5);
        snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 1), &error(ErrorClass::Rate), at(0), 0.5);
    }
    assert!(until(&snapshot, &target, 0).is_some_and(|until| until <= 10));
    let mut model_snapshot = HealthSnapshot::default();
    for key in [0, 1] {
        assert_eq!(until(&model_snapshot, &target, 0), None, "the other key is available");
        model_snapshot.record_failure(
            &HealthPolicy::default(),
            &attempt(&target, key),
            &error(ErrorClass::Forbidden),
            at(0),
            0.5,
        );
    }
    model_snapshot.record_failure(
        &HealthPolicy::default(),
        &attempt(&target, 0),
        &error(ErrorClass::Overloaded),
        at(1),
        0.5,
    );
    assert_eq!(until(&model_snapshot, &target, 1), Some(600));
}

#[test]
fn snapshot_round_trips_through_json_and_a_clock_jump_is_limited() {
    let (mut snapshot, target) = (HealthSnapshot::default(), testing::target("a"));
    snapshot.record_failure(
        &HealthPolicy::default(),
        &attempt(&target, 0),
        &error(ErrorClass::Quota),
        at(1_000_000),
        0.5,
    );
    snapshot.record_first_delta(
        &HealthPolicy::default(),
        &attempt(&target, 0),
        Some(Duration::from_millis(1234)),
        at(1_000_000),
    );
    let text = serde_json::to_string(&snapshot).expect("serializable data");
    let mut parsed: HealthSnapshot = serde_json::from_str(&text).expect("valid snapshot");
    assert_eq!(parsed, snapshot);
    parsed.prune(&HealthPolicy::default(), at(0));
    let keys = target_keys(&target).keys;
    assert_eq!(parsed.key_availability(keys[0], at(0)).until(), Some(at(600)));
    parsed.prune(&HealthPolicy::default(), at(40 * 24 * 3600));
    assert_eq!(parsed.entries.len(), 0);
}

#[test]
fn snapshot_size_is_limited() {
    let mut snapshot = HealthSnapshot::default();
    for number in 0..300 {
        let target = Target { upstream_id: format!("model-{number}"), ..testing::target("a") };
        for _ in 0..20 {
            snapshot.record_first_delta(
                &HealthPolicy::default(),
                &attempt(&target, 0),
                Some(Duration::from_secs(100)),
                at(number),
            );
            let long_error = CallError::new(ErrorClass::Server, "x".repeat(10_000));
            snapshot.record_failure(&HealthPolicy::default(), &attempt(&target, 0), &long_error, at(number), 0.5);
        }
    }
    snapshot.prune(&HealthPolicy::default(), at(1000));
    assert_eq!(snapshot.entries.len(), MAX_ENTRIES);
    assert_eq!(snapshot.retain_latest(3, at(1000)), 3);
    assert!(
        snapshot.entry(HealthKey::model(&Target { upstream_id: "model-299".into(), ..testing::target("a") })).is_some()
    );
}

#[test]
fn restricted_entries_are_retained_before_available_ones() {
    let mut snapshot = HealthSnapshot::default();
    let rejected = testing::target("rejected");
    for key in [0, 1] {
        snapshot.record_failure(
            &HealthPolicy::default(),
            &attempt(&rejected, key),
            &error(ErrorClass::Quota),
            at(0),
            0.5,
        );
    }
    for number in 0..1000 {
        let target = Target { upstream_id: format!("model-{number}"), ..testing::target("a") };
        snapshot.record_first_delta(
            &HealthPolicy::default(),
            &attempt(&target, 0),
            Some(Duration::from_secs(1)),
            at(1),
        );
    }
    snapshot.prune(&HealthPolicy::default(), at(2));
    assert!(snapshot.availability(&target_keys(&rejected), at(2)).restriction().is_some());
}

proptest::proptest! {
    #[test]
    fn at_most_one_probe_at_a_time(steps in proptest::collection::vec((0u64..8, 0u8..8, 0.0f64..1.0), 1..200)) {
        let (mut snapshot, target, mut now) = (HealthSnapshot::default(), testing::target("a"), 0);
        // The owner of the probe, and when its lease expires.
        let mut held_lease: Option<(u64, u64)> = None;
        for (number, (wait, step, random)) in (1u64..).zip(steps) {
            now += wait;
            held_lease = held_lease.filter(|(_, until)| *until > now);
            let other_attempt = AttemptInfo { sent_at: at(now), ..attempt(&target, 0) };
            let class = [ErrorClass::Server, ErrorClass::Connect, ErrorClass::Request, ErrorClass::Rate][usize::from(step % 4)];
            match step {
                0..4 => snapshot.record_failure(&HealthPolicy::default(), &other_attempt, &error(class), at(now), random),
                4 => if let Some((owner, _)) = held_lease.take() {
                    let probe_attempt = AttemptInfo { probe: Some(owner), ..other_attempt };
                    snapshot.record_failure(&HealthPolicy::default(), &probe_attempt, &error(class), at(now), random);
                    snapshot.release_probe(&target, owner);
                },
                _ => {
                    let is_available = snapshot.availability(&target_keys(&target), at(now)) == Availability::Available;
                    if snapshot.acquire_probe(&target_keys(&target), at(now), (number, LEASE)) && !is_available {
                        proptest::prop_assert!(held_lease.is_none(), "a second probe");
                        held_lease = Some((number, now + 12));
                    }
                }
            }
        }
    }
}
