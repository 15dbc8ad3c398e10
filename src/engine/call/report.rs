//! Passes the events of a call to its consumer one at a time: work continues only after the previous event was taken.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::future::Either;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

use super::accumulator::CallAccumulator;
use crate::{
    engine::{CallRecord, Event, EventKind, Notice},
    model::target::Target,
};

/// Interval of the notice that there is no output yet.
const WAIT_NOTICE_INTERVAL: Duration = Duration::from_secs(30);

/// Emits the events of one call.
pub(super) struct Reporter {
    pub(super) call: usize,
    pub(super) state: Arc<CallState>,
}

/// What a running call shares with the `Run` that polls it: the event not taken yet, and the accumulator.
pub(in crate::engine) struct CallState {
    event: Mutex<Option<Event>>,
    accumulator: Mutex<CallAccumulator>,
}

impl CallState {
    pub(super) fn new(accumulator: CallAccumulator) -> Self {
        Self { event: Mutex::default(), accumulator: Mutex::new(accumulator) }
    }

    /// Ends the call because the user stops it at `now`.
    pub(in crate::engine) fn interrupt(&self, now: Instant) -> Arc<CallRecord> {
        self.accumulator().interrupt(now)
    }

    pub(super) fn accumulator(&self) -> MutexGuard<'_, CallAccumulator> {
        self.accumulator.lock()
    }

    pub(super) fn take_event(&self) -> Option<Event> {
        self.event.lock().take()
    }

    fn put_event(&self, event: Event) {
        *self.event.lock() = Some(event);
    }

    fn has_event(&self) -> bool {
        self.event.lock().is_some()
    }
}

/// The wait for the first token of an attempt. Pings do not end it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstTokenWait {
    pub(super) since: Instant,
    /// The number of notices sent.
    pub(super) notices_sent: u32,
    /// Whether to send notices: only if no other candidate is left.
    pub(super) notify: bool,
}

impl Reporter {
    /// Awaits `work`; sends a notice every 30 s if no other candidate is left.
    pub(super) async fn notify_while_waiting<T>(
        &self,
        target: &Target,
        wait: &mut FirstTokenWait,
        work: impl Future<Output = T>,
    ) -> T {
        if !wait.notify {
            return work.await;
        }
        let mut work = pin!(work);
        loop {
            let waited = WAIT_NOTICE_INTERVAL * (wait.notices_sent + 1);
            match futures_util::future::select(work, pin!(sleep_until(wait.since + waited))).await {
                Either::Left((output, _)) => return output,
                Either::Right(((), unfinished)) => {
                    work = unfinished;
                    wait.notices_sent += 1;
                    self.emit(EventKind::Notice(Notice::WaitingForFirstToken(target.id.clone(), waited))).await;
                }
            }
        }
    }

    /// Emits an event immediately; completes when the event has been taken.
    pub(super) fn emit(&self, kind: EventKind) -> impl Future<Output = ()> + Send + use<'_> {
        self.state.put_event(Event { call: self.call, at: Instant::now(), kind });
        // Work continues only when the event was taken and the next one is requested, so that no network timer runs
        // while the consumer is busy. No waker is needed: the consumer polls again after taking the event.
        std::future::poll_fn(|_| if self.state.has_event() { Poll::Pending } else { Poll::Ready(()) })
    }
}
