//! Telling what happens in a lane.
//!
//! Owns the hand-over: work goes on only once the last event was taken. Refuses to know what is told.

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

/// How often a person is told that nothing has come yet.
const WAITING: Duration = Duration::from_secs(30);

/// Tells what happens.
pub(super) struct Reporter {
    pub(super) lane: usize,
    pub(super) slot: Arc<Slot>,
}

/// Where an event lies until it is taken.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Event>>);

impl Slot {
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

/// How long nothing has come of an attempt; what is no answer (pings) does not break it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) since: Instant,
    /// How often that was said.
    pub(super) told: u32,
    /// Whether to say it: nobody else is left to ask.
    pub(super) tell: bool,
}

impl Reporter {
    /// Awaits `work`; says so every half minute when there is nobody else to ask.
    pub(super) async fn while_waiting<T>(
        &self,
        target: &Target,
        silence: &mut Silence,
        work: impl Future<Output = T>,
    ) -> T {
        if !silence.tell {
            return work.await;
        }
        let mut work = pin!(work);
        loop {
            let waited = WAITING * (silence.told + 1);
            match futures_util::future::select(work, pin!(sleep_until(silence.since + waited))).await {
                Either::Left((done, _)) => return done,
                Either::Right(((), unfinished)) => {
                    work = unfinished;
                    silence.told += 1;
                    self.emit(EventKind::Notice(Notice::Waiting(target.id.clone(), waited))).await;
                }
            }
        }
    }

    /// Tells `kind` now; over when it was taken.
    pub(super) fn emit(&self, kind: EventKind) -> impl Future<Output = ()> + Send + use<'_> {
        self.slot.put(Event { lane: self.lane, at: Instant::now(), kind });
        // Work goes on only when the event was taken and the next one is wanted, so that no timer of the network runs
        // while the reader is busy with what it has. Nobody need be woken: whoever takes it polls again for the next one.
        std::future::poll_fn(|_| if self.slot.is_empty() { Poll::Ready(()) } else { Poll::Pending })
    }
}
