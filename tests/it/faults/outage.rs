//! A primary that is down for a minute: attempts during the outage, and recovery after it.

use std::time::Duration;

use mmchat::routing::OnIncomplete;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BACKUP, PRIMARY, World};

const OUTAGE: Duration = Duration::from_secs(60);
const REQUESTS: u32 = 15;
/// The limit for attempts at the primary during the outage. Attempts are counted, because a closed port sees no
/// requests.
const MOST_ATTEMPTS: usize = 6;

/// Sends [`REQUESTS`] requests while `fail(true)` is in effect, then requests until the primary answers again.
async fn outage(env: &World, fail: impl Fn(bool)) {
    let config = env.config("instant", Some("instant"), "", "");
    assert_eq!(env.ask(&config, OnIncomplete::Error).await.text, PRIMARY);
    let started = Instant::now();
    fail(true);
    env.settled().await;
    let mut attempts = 0;
    for number in 0..REQUESTS {
        sleep_until(started + OUTAGE / REQUESTS * number).await;
        let result = env.ask(&config, OnIncomplete::Error).await;
        assert_eq!(result.text, BACKUP, "request {number}");
        attempts += result.outcome.attempts.iter().filter(|attempt| attempt.target.id.0 == "primary").count();
    }
    sleep_until(started + OUTAGE).await;
    assert!(attempts <= MOST_ATTEMPTS, "{attempts} attempts at a primary that is down");
    fail(false);
    env.settled().await;
    let restored = Instant::now();
    loop {
        let result = env.ask(&config, OnIncomplete::Error).await;
        if result.text == PRIMARY {
            break;
        }
        assert_eq!(result.text, BACKUP);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(restored.elapsed() <= Duration::from_secs(20), "used again only after {:?}", restored.elapsed());
    assert_eq!(env.ask(&config, OnIncomplete::Error).await.text, PRIMARY);
}

#[tokio::test(start_paused = true)]
async fn unreachable_primary_is_avoided_and_used_again() {
    let env = World::in_process();
    outage(&env, |down| env.primary.set_up(!down)).await;
}

#[tokio::test(start_paused = true)]
async fn failing_primary_is_avoided_and_used_again() {
    let env = World::in_process();
    outage(&env, |failing| env.primary.set_failing(failing)).await;
}

#[tokio::test]
#[ignore = "takes more than a minute of real time; .ci/run runs it"]
async fn unreachable_primary_is_avoided_and_used_again_over_sockets() {
    let env = World::for_real().await;
    outage(&env, |down| env.primary.set_up(!down)).await;
}
