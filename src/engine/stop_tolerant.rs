//! A timeout that does not count the time in which the process was stopped.

use std::{pin::pin, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};

/// A timer that fires this much too late shows that the process was stopped (SIGSTOP, a suspended machine).
const LATE: Duration = Duration::from_millis(250);
/// Then, what arrives within this time is still in time.
const GRACE: Duration = Duration::from_secs(1);

/// Awaits `work` for at most `limit`. Returns its output (`None`: timed out), and the time that it took, which is nothing
/// if the process was stopped meanwhile: it cannot be known when.
///
/// When the process continues after a stop, the timer and the connection are ready at the same time, and the timer may be
/// seen first although the data has arrived.
pub(crate) async fn wait_for<T>(limit: Duration, work: impl Future<Output = T>) -> (Option<T>, Duration) {
    let started = Instant::now();
    let mut work = pin!(work);
    let mut output = timeout(limit, work.as_mut()).await.ok();
    let was_stopped = started.elapsed().saturating_sub(limit) > LATE;
    if output.is_none() {
        // Lets the task of the connection read what has arrived.
        yield_now().await;
        output = timeout(if was_stopped { GRACE } else { Duration::ZERO }, work).await.ok();
    }
    let took = if was_stopped && output.is_some() { Duration::ZERO } else { started.elapsed().min(limit) };
    (output, took)
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// The result for data that another task delivers after `delay`, if the process stops for `stop`.
    async fn wait(delay: Duration, stop: Duration) -> (Option<&'static str>, Duration) {
        let (sender, receiver) = oneshot::channel();
        let waiting = tokio::spawn(wait_for(LIMIT, receiver));
        let connection = tokio::spawn(async move {
            sleep(delay).await;
            // The wait may have ended.
            let _ = sender.send("data");
        });
        yield_now().await;
        tokio::time::advance(stop).await;
        let (output, waited) = waiting.await.expect("no panic");
        connection.abort();
        (output.and_then(Result::ok), waited)
    }

    #[tokio::test(start_paused = true)]
    async fn data_that_arrived_while_the_process_was_stopped_is_in_time() {
        let hour = Duration::from_secs(3600);
        assert_eq!(wait(LIMIT / 2, Duration::ZERO).await, (Some("data"), LIMIT / 2));
        assert_eq!(wait(LIMIT * 2, Duration::ZERO).await, (None, LIMIT));
        assert_eq!(wait(LIMIT * 2, hour).await, (Some("data"), Duration::ZERO), "the timer is seen first");
        assert_eq!(wait(LIMIT / 2, hour).await, (Some("data"), Duration::ZERO));
        assert_eq!(wait(2 * hour, hour).await, (None, LIMIT));
    }
}
