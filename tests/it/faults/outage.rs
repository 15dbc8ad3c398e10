//! A primary that is down for a minute: attempts during the outage, and recovery after it.

use std::time::Duration;

use mmchat::internals::routing::OnIncomplete;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BACKUP, FaultEnv, PRIMARY};

const OUTAGE: Duration = Duration::from_secs(60);
const REQUESTS: u32 = 15;
/// The limit for attempts at the primary during the outage. Attempts are counted, because a closed port sees no
/// requests.
const MAX_ATTEMPTS: usize = 6;

/// Sends [`REQUESTS`] requests while `fail(true)` is in effect, then requests until the primary answers again.
async fn run_outage(env: &FaultEnv, fail: impl Fn(bool)) {
    let config = env.config("instant", Some("instant"), "", "");
    assert_eq!(env.send_request(&config, OnIncomplete::Error).await.text, PRIMARY);
    let started = Instant::now();
    fail(true);
    env.wait_for_ports().await;
    let mut attempts = 0;
    for number in 0..REQUESTS {
        sleep_until(started + OUTAGE / REQUESTS * number).await;
        let result = env.send_request(&config, OnIncomplete::Error).await;
        assert_eq!(result.text, BACKUP, "request {number}");
        attempts += result.outcome.attempts.iter().filter(|attempt| attempt.target.id.0 == "primary").count();
    }
    sleep_until(started + OUTAGE).await;
    assert!(attempts <= MAX_ATTEMPTS, "{attempts} attempts at a primary that is down");
    fail(false);
    env.wait_for_ports().await;
    let restored = Instant::now();
    loop {
        let result = env.send_request(&config, OnIncomplete::Error).await;
        if result.text == PRIMARY {
            break;
        }
        assert_eq!(result.text, BACKUP);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(restored.elapsed() <= Duration::from_secs(20), "used again only after {:?}", restored.elapsed());
    assert_eq!(env.send_request(&config, OnIncomplete::Error).await.text, PRIMARY);
}

#[tokio::test(start_paused = true)]
async fn unreachable_primary_is_avoided_and_used_again() {
    let env = FaultEnv::in_process();
    run_outage(&env, |down| env.primary.set_up(!down)).await;
}

#[tokio::test(start_paused = true)]
async fn failing_primary_is_avoided_and_used_again() {
    let env = FaultEnv::in_process();
    run_outage(&env, |failing| env.primary.set_failing(failing)).await;
}

#[tokio::test]
#[ignore = "takes more than a minute of real time; .ci/run runs it"]
async fn unreachable_primary_is_avoided_and_used_again_over_sockets() {
    let env = FaultEnv::over_sockets().await;
    run_outage(&env, |down| env.primary.set_up(!down)).await;
}
