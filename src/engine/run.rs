//! The lanes of a plan under way: begun in order, merged into one stream, stopped and begun again one by one.
//!
//! Owns fan-in and what a person can do to one lane while the others go on. What a lane says after it was stopped is never
//! told, so that nothing of it can be taken for what is said when it is asked once more. Refuses how a lane works.

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

use super::{Engine, Event, EventKind, Progress};
use crate::engine::call;
use crate::engine::plan::{Lane, Plan};

/// A plan under way. Dropping it drops every connection below it.
pub struct Run {
    engine: Arc<Engine>,
    lanes: Vec<Lane>,
    at_once: usize,
    /// Lanes whose turn has not come.
    waiting: VecDeque<usize>,
    under_way: UnderWay,
    /// What can be done to each lane that is under way.
    handles: Vec<Option<Handle>>,
    /// How many that are.
    count: usize,
    /// What came of a person's wishes, and was not told yet.
    told: VecDeque<Event>,
}

struct Handle {
    /// `None`: it is the only lane.
    abort: Option<AbortHandle>,
    progress: Progress,
}

/// Lanes under way.
enum UnderWay {
    /// The only lane there is, as most often: nobody has to find out whose turn it is.
    One(Option<BoxStream<'static, Event>>),
    Many(SelectAll<BoxStream<'static, Event>>),
}

impl UnderWay {
    fn begin(&mut self, lane: BoxStream<'static, Event>) -> Option<AbortHandle> {
        match self {
            Self::One(place) => {
                *place = Some(lane);
                None
            }
            Self::Many(lanes) => {
                let (lane, abort) = abortable(lane);
                lanes.push(lane.boxed());
                Some(abort)
            }
        }
    }

    fn stop(&mut self, abort: Option<&AbortHandle>) {
        match (self, abort) {
            (Self::One(lane), _) => *lane = None,
            (Self::Many(_), abort) => abort.into_iter().for_each(AbortHandle::abort),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Self::One(Some(lane)) => lane.poll_next_unpin(context),
            Self::One(None) => Poll::Ready(None),
            Self::Many(lanes) => lanes.poll_next_unpin(context),
        }
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("lanes", &self.lanes.len()).field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Run {
    pub(super) fn new(engine: Arc<Engine>, plan: Plan) -> Self {
        Self {
            engine,
            at_once: plan.at_once.unwrap_or(usize::MAX).max(1),
            waiting: (0..plan.lanes.len()).collect(),
            under_way: if plan.lanes.len() == 1 { UnderWay::One(None) } else { UnderWay::Many(SelectAll::new()) },
            handles: plan.lanes.iter().map(|_| None).collect(),
            count: 0,
            told: VecDeque::new(),
            lanes: plan.lanes,
        }
    }

    /// Stops a lane, if it is not over: it ends with what came of it.
    pub fn stop(&mut self, lane: usize) {
        let now = Instant::now();
        let progress = if let Some(Handle { abort, progress }) = self.handles.get_mut(lane).and_then(Option::take) {
            self.under_way.stop(abort.as_ref());
            self.count -= 1;
            progress
        } else if let Some(place) = self.waiting.iter().position(|waiting| *waiting == lane) {
            self.waiting.remove(place);
            Progress::new(now)
        } else {
            return;
        };
        self.told.push_back(Event { lane, at: now, kind: EventKind::Finished(Box::new(progress.interrupted(now))) });
    }

    /// Asks once more what a lane was asked; what came of it before is no part of its answer.
    pub fn again(&mut self, lane: usize) {
        if lane >= self.lanes.len() {
            return;
        }
        self.stop(lane);
        self.told.push_back(Event { lane, at: Instant::now(), kind: EventKind::Again });
        self.waiting.push_back(lane);
    }

    fn begin_those_whose_turn_it_is(&mut self) {
        while self.count < self.at_once
            && let Some(index) = self.waiting.pop_front()
        {
            let lane = call::run(Arc::clone(&self.engine), index, self.lanes[index].clone());
            let abort = self.under_way.begin(lane.boxed());
            self.handles[index] = Some(Handle { abort, progress: Progress::new(Instant::now()) });
            self.count += 1;
        }
    }
}

impl Stream for Run {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(event) = self.told.pop_front() {
            return Poll::Ready(Some(event));
        }
        if !self.waiting.is_empty() {
            self.begin_those_whose_turn_it_is();
        }
        let event = std::task::ready!(self.under_way.poll_next(context));
        if let Some(event) = &event
            && let Some(handle) = &mut self.handles[event.lane]
        {
            handle.progress.event(event);
            if let EventKind::Finished(_) = event.kind {
                self.handles[event.lane] = None;
                self.count -= 1;
            }
        }
        Poll::Ready(event)
    }
}
