//! Runs the calls of a plan: starts them in order, merges their events, and stops or restarts single calls.
//!
//! Events of a call after it was stopped are dropped, so that they are not mistaken for events of its restart.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    Stream, StreamExt,
    stream::{AbortHandle, BoxStream, SelectAll, abortable},
};
use tokio::time::Instant;

use super::{Engine, Event, EventKind};
use crate::engine::{
    call::{self, CallAccumulator, CallState},
    plan::{Call, Plan},
};

/// A running plan. Dropping it closes every connection below it.
pub struct Run {
    engine: Arc<Engine>,
    calls: Vec<Call>,
    max_concurrent: usize,
    /// Indices of the calls that are not started yet.
    pending: VecDeque<usize>,
    active: ActiveCalls,
    /// Handles of the running calls, by index.
    handles: Vec<Option<CallHandle>>,
    /// The number of running calls.
    active_count: usize,
    /// Events of `stop` and `restart` that are not emitted yet.
    queued_events: VecDeque<Event>,
}

struct CallHandle {
    /// `None`: it is the only call.
    abort: Option<AbortHandle>,
    state: Arc<CallState>,
}

/// The event streams of the running calls.
enum ActiveCalls {
    /// A plan with one call, the common case: avoids the overhead of `SelectAll`.
    One(Option<BoxStream<'static, Event>>),
    Many(SelectAll<BoxStream<'static, Event>>),
}

impl ActiveCalls {
    fn start(&mut self, events: BoxStream<'static, Event>) -> Option<AbortHandle> {
        match self {
            Self::One(slot) => {
                *slot = Some(events);
                None
            }
            Self::Many(streams) => {
                let (events, abort) = abortable(events);
                streams.push(events.boxed());
                Some(abort)
            }
        }
    }

    fn stop(&mut self, abort: Option<&AbortHandle>) {
        match (self, abort) {
            (Self::One(events), _) => *events = None,
            (Self::Many(_), abort) => abort.into_iter().for_each(AbortHandle::abort),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Self::One(Some(events)) => events.poll_next_unpin(context),
            Self::One(None) => Poll::Ready(None),
            Self::Many(streams) => streams.poll_next_unpin(context),
        }
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("calls", &self.calls.len()).field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Run {
    pub(super) fn new(engine: Arc<Engine>, plan: Plan) -> Self {
        Self {
            engine,
            max_concurrent: plan.max_concurrent.unwrap_or(usize::MAX).max(1),
            pending: (0..plan.calls.len()).collect(),
            active: if plan.calls.len() == 1 { ActiveCalls::One(None) } else { ActiveCalls::Many(SelectAll::new()) },
            handles: plan.calls.iter().map(|_| None).collect(),
            active_count: 0,
            queued_events: VecDeque::new(),
            calls: plan.calls,
        }
    }

    /// Stops a call, unless it has ended. Its record contains the output so far.
    pub fn stop(&mut self, call: usize) {
        let now = Instant::now();
        let record = if let Some(CallHandle { abort, state }) = self.handles.get_mut(call).and_then(Option::take) {
            self.active.stop(abort.as_ref());
            self.active_count -= 1;
            state.interrupt(now)
        } else if let Some(position) = self.pending.iter().position(|pending| *pending == call) {
            self.pending.remove(position);
            CallAccumulator::new(&self.calls[call], now, self.engine.health.now()).interrupt(now)
        } else {
            return;
        };
        self.queued_events.push_back(Event { call, at: now, kind: EventKind::Finished(record) });
    }

    /// Stops all calls that have not ended. Returns the events not emitted yet, with the `Finished` of each stopped call.
    #[must_use]
    pub fn stop_all(&mut self) -> Vec<Event> {
        (0..self.calls.len()).for_each(|call| self.stop(call));
        self.queued_events.drain(..).collect()
    }

    /// Restarts a call, also one that has ended. Its earlier output is not part of the answer.
    pub fn restart(&mut self, call: usize) {
        if call >= self.calls.len() {
            return;
        }
        self.stop(call);
        self.queued_events.push_back(Event { call, at: Instant::now(), kind: EventKind::Restarted });
        self.pending.push_back(call);
    }

    fn start_pending(&mut self) {
        while self.active_count < self.max_concurrent
            && let Some(index) = self.pending.pop_front()
        {
            let (state, events) = call::run(Arc::clone(&self.engine), index, self.calls[index].clone());
            let abort = self.active.start(events.boxed());
            self.handles[index] = Some(CallHandle { abort, state });
            self.active_count += 1;
        }
    }
}

impl Stream for Run {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(event) = self.queued_events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if !self.pending.is_empty() {
            self.start_pending();
        }
        let event = std::task::ready!(self.active.poll_next(context));
        if let Some(Event { call, kind: EventKind::Finished(_), .. }) = event {
            self.handles[call] = None;
            self.active_count -= 1;
        }
        Poll::Ready(event)
    }
}
