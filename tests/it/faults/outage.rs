//! A minute without the primary: who is asked meanwhile, and how soon it is back.

use std::time::Duration;

use mmchat::routing::OnIncomplete;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BACKUP, PRIMARY, World};

const OUTAGE: Duration = Duration::from_secs(60);
const REQUESTS: u32 = 15;
/// Requests that reached nobody are counted here: a closed port counts none.
const MOST_ATTEMPTS: usize = 6;

/// Fifteen requests while the primary fails as `fail` makes it; then until it is asked again.
async fn outage(world: &World, fail: impl Fn(bool)) {
    let config = world.config("instant", Some("instant"), "", "");
    assert_eq!(world.ask(&config, OnIncomplete::Error).await.text, PRIMARY);
    let begun = Instant::now();
    fail(true);
    world.settled().await;
    let mut attempts = 0;
    for number in 0..REQUESTS {
        sleep_until(begun + OUTAGE / REQUESTS * number).await;
        let seen = world.ask(&config, OnIncomplete::Error).await;
        assert_eq!(seen.text, BACKUP, "request {number}");
        attempts += seen.outcome.attempts.iter().filter(|attempt| attempt.target.id.0 == "primary").count();
    }
    sleep_until(begun + OUTAGE).await;
    assert!(attempts <= MOST_ATTEMPTS, "{attempts} attempts at a primary that is down");
    fail(false);
    world.settled().await;
    let back = Instant::now();
    loop {
        let seen = world.ask(&config, OnIncomplete::Error).await;
        if seen.text == PRIMARY {
            break;
        }
        assert_eq!(seen.text, BACKUP);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(back.elapsed() <= Duration::from_secs(20), "back only after {:?}", back.elapsed());
    assert_eq!(world.ask(&config, OnIncomplete::Error).await.text, PRIMARY);
}

#[tokio::test(start_paused = true)]
async fn of_a_primary_that_cannot_be_connected_to() {
    let world = World::in_process();
    outage(&world, |down| world.primary.set_up(!down)).await;
}

#[tokio::test(start_paused = true)]
async fn of_a_primary_that_answers_500() {
    let world = World::in_process();
    outage(&world, |failing| world.primary.set_failing(failing)).await;
}

#[tokio::test]
#[ignore = "takes more than a minute of real time; run with all checks"]
async fn for_real() {
    let world = World::for_real().await;
    outage(&world, |down| world.primary.set_up(!down)).await;
}
