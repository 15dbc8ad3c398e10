//! One request of a client, from the moment it is understood to its end, whichever that is.
//!
//! Owns the account: whatever ends an exchange (its answer, a failure, a client that leaves) it is settled once, and the log,
//! the figures and the record are told the same. Refuses to write to the client.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use http::StatusCode;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::{Current, Gateway, log};
use crate::gateway::{auth::Ticket, body_budget::Place};
use crate::{
    engine::{
        Event, EventKind, Notice, Run,
        plan::{Lane, Plan},
    },
    model::{ErrorClass, target::Target},
    protocol::ApiError,
    store::record::{CallRecord, Listener},
};

/// More than this is told of no request.
const MOST_NOTICES: usize = 16;

/// What is known of a request from its beginning.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) request_id: String,
    /// Of the route, as it is written in the documentation.
    pub(super) path: &'static str,
    /// The name of the key that was brought.
    pub(super) client: Option<String>,
    /// The name that was asked for, where there is such a thing.
    pub(super) asked: Option<String>,
    pub(super) stream: bool,
    pub(super) begun: Instant,
    /// What this server added to the time to the first piece.
    pub(super) overhead: Option<Duration>,
    /// What should be known of it, although nothing failed.
    pub(super) notices: Vec<String>,
}

impl Facts {
    pub(super) fn new(path: &'static str) -> Self {
        Self {
            request_id: uuid::Uuid::now_v7().simple().to_string(),
            path,
            client: None,
            asked: None,
            stream: false,
            begun: Instant::now(),
            overhead: None,
            notices: Vec::new(),
        }
    }
}

/// A request under way.
pub(super) struct Exchange {
    pub(super) facts: Facts,
    gateway: Arc<Gateway>,
    /// The config it began with.
    current: Arc<Current>,
    run: Run,
    listener: Listener,
    ticket: Ticket,
    /// Of its body, which may be sent once more.
    _place: Place,
    is_route: bool,
    /// Whom the attempt under way asks.
    pub(super) target: Option<Arc<Target>>,
    /// How many requests there were beside the one under way: that failed, or that nobody waits for any more.
    others: usize,
    /// How long it was until the first request.
    before: Option<Duration>,
    /// When the first piece of the attempt under way came.
    first: Option<Instant>,
    /// When the last piece of the answer came.
    last: Option<Instant>,
    /// Where the gaps between its pieces are counted.
    gaps: Option<Histogram>,
    /// The status the client was told, once it was.
    pub(super) status: Option<StatusCode>,
}

impl Exchange {
    /// Begins to ask. Boxed, since it is handed on from one to the next.
    pub(super) fn begin(
        gateway: &Arc<Gateway>,
        current: Arc<Current>,
        facts: Facts,
        lane: Lane,
        ticket: Ticket,
        place: Place,
    ) -> Box<Self> {
        gateway.metrics.begun();
        Box::new(Self {
            listener: Listener::new(&lane, false),
            is_route: lane.route.is_some(),
            run: gateway.outside.engine.run(Plan::of(lane)),
            gateway: Arc::clone(gateway),
            current,
            facts,
            ticket,
            _place: place,
            target: None,
            others: 0,
            before: None,
            first: None,
            last: None,
            gaps: None,
            status: None,
        })
    }

    /// What happens next; `None`: it is over.
    pub(super) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = ready!(Pin::new(&mut self.run).poll_next(context));
        if let Some(event) = &event {
            self.hear(event);
        }
        Poll::Ready(event)
    }

    /// As [`Exchange::poll_event`].
    pub(super) async fn event(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    fn hear(&mut self, event: &Event) {
        let metrics = &self.gateway.metrics;
        match &event.kind {
            EventKind::Started(target) => {
                self.before.get_or_insert(event.at - self.facts.begun);
                self.target = Some(Arc::clone(target));
                self.gaps = Some(metrics.gaps(&self.current.config, target));
            }
            EventKind::Deltas(_) | EventKind::Held(_) => {
                match (self.last.replace(event.at), &self.gaps) {
                    (Some(last), Some(gaps)) => gaps.observe((event.at - last).as_secs_f64()),
                    // The first piece of this attempt: what follows until it is passed on is our own time.
                    _ => self.first = Some(event.at),
                }
            }
            EventKind::Ttft(_) if self.facts.overhead.is_none() => {
                let behind = self.first.map(|first| first.elapsed()).unwrap_or_default();
                let overhead = self.before.unwrap_or_default() + behind;
                self.facts.overhead = Some(overhead);
                metrics.overhead(overhead);
            }
            EventKind::Ttft(_) => {}
            EventKind::Failed { record, .. } => {
                // What our own limits kept from being sent was no request.
                self.others += usize::from(record.class() != Some(ErrorClass::Local));
                self.last = None;
            }
            EventKind::Notice(notice) => {
                self.others += usize::from(matches!(notice, Notice::Hedged(..)));
                if self.facts.notices.len() < MOST_NOTICES {
                    self.facts.notices.extend(log::notice(notice));
                }
            }
            EventKind::Finished(_) | EventKind::Again => {}
        }
        if let Some(call) = self.listener.event(event) {
            self.settle(call);
        }
    }

    /// How many upstream requests there were so far, the one under way among them.
    pub(super) fn attempts(&self) -> usize {
        self.others + 1
    }

    /// The route that was asked, if it was one.
    pub(super) fn route(&self) -> Option<&str> {
        self.facts.asked.as_deref().filter(|_| self.is_route)
    }

    /// The account of it; the listener gives it once.
    fn settle(&self, call: CallRecord) {
        let call = CallRecord { command: "serve", client: self.facts.client.clone(), ..call };
        self.ticket.pay(&call);
        let status = self.final_status(&call);
        self.gateway.metrics.call(&self.facts, &self.current.config, &call);
        self.gateway.outside.log.call(&self.facts, status.as_u16(), &call);
        if let Some(scribe) = &self.gateway.outside.scribe
            && !call.outcome.attempts.is_empty()
        {
            scribe.write(Box::new(call));
        }
    }

    /// The status the client saw or will see; 499, as nginx has it, where it left before there was one.
    fn final_status(&self, call: &CallRecord) -> StatusCode {
        match (self.status, &call.outcome.result) {
            (Some(told), _) => told,
            (None, Ok(_)) => StatusCode::OK,
            (None, Err(_)) if call.outcome.stopped => StatusCode::from_u16(499).expect("a number of three digits"),
            (None, Err(error)) => super::error::status_of(&call.outcome, error),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(mut call) = self.listener.stop() {
            if self.gateway.ended.load(Ordering::Relaxed) {
                call.outcome.stopped = false;
                call.outcome.result = Err(ApiError::new(ErrorClass::Local, "this server was stopped"));
            }
            self.settle(call);
        }
        self.gateway.metrics.ended();
    }
}
