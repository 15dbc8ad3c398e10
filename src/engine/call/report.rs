//! Hands the events of a call to its consumer, one at a time: work continues only after the last event was taken.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures_util::future::Either;
use tokio::time::{Instant, sleep_until};

use crate::{
    engine::{Event, EventKind, Notice},
    model::target::Target,
};

/// Interval of the notice that there is no output yet.
const WAIT_NOTICE_INTERVAL: Duration = Duration::from_secs(30);

/// Emits the events of one call.
pub(super) struct Reporter {
    pub(super) call: usize,
    pub(super) slot: Arc<EventSlot>,
}

/// Holds one event until it is taken.
#[derive(Default)]
pub(super) struct EventSlot(Mutex<Option<Event>>);

impl EventSlot {
    pub(super) fn take(&self) -> Option<Event> {
        self.0.lock().expect("no code panics while it holds this lock").take()
    }

    fn put(&self, event: Event) {
        *self.0.lock().expect("no code panics while it holds this lock") = Some(event);
    }

    fn is_empty(&self) -> bool {
        self.0.lock().expect("no code panics while it holds this lock").is_none()
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

    /// Emits an event at once; completes when the event was taken.
    pub(super) fn emit(&self, kind: EventKind) -> impl Future<Output = ()> + Send + use<'_> {
        self.slot.put(Event { call: self.call, at: Instant::now(), kind });
        // Work continues only when the event was taken and the next one is requested, so that no network timer runs
        // while the consumer is busy. No waker is needed: the consumer polls again after taking the event.
        std::future::poll_fn(|_| if self.slot.is_empty() { Poll::Ready(()) } else { Poll::Pending })
    }
}
