//! Telling what happens in a lane.
//!
//! Owns the hand-over: work goes on only once the last event was taken. Refuses to know what is told.

use std::{pin::pin, task::Poll, time::Duration};

use futures_util::future::Either;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    engine::{Event, EventKind, Notice},
    target::Target,
};

/// How often a person is told that nothing has come yet.
const WAITING: Duration = Duration::from_secs(30);

/// Tells what happens.
pub(super) struct Reporter {
    pub(super) lane: usize,
    pub(super) sink: mpsc::Sender<Event>,
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

    pub(super) async fn emit(&self, kind: EventKind) {
        let event = Event { lane: self.lane, at: Instant::now(), kind };
        // The receiver lives in the same stream as this future: it is gone only when this is dropped too.
        let _ = self.sink.send(event).await;
        // Work goes on only when the event was taken and the next one is wanted, so that no timer of the network runs
        // while the reader is busy with what it has.
        let mut handed_over = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut handed_over, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
