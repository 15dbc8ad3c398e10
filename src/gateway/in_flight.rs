//! Runs the call of one client request and settles it exactly once: on an answer, a failure or a client disconnect.
//!
//! The log, the metrics and the record all get the same `CallRecord`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use http::{HeaderMap, StatusCode};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::{ConfigGeneration, Gateway, failure::response_status, log, request_context::RequestContext};

use crate::{
    config::listed_headers,
    engine::{
        CallRecord, Event, EventKind, Notice, Run,
        memory::{AnswerMemory, RequestMemory},
        plan::{Call, Plan},
    },
    gateway::quota::QuotaGuard,
    model::{ErrorClass, target::Target},
    protocol::CallError,
    routing::OnIncomplete,
    store::record::StoredCall,
};

/// Notices kept per request.
const MAX_NOTICES: usize = 16;

/// A client request in flight.
pub(super) struct InFlightRequest {
    pub(super) context: RequestContext,
    gateway: Arc<Gateway>,
    /// Configuration in force when the request started.
    current: Arc<ConfigGeneration>,
    run: Run,
    /// The call is settled.
    is_settled: bool,
    /// A finished call whose answer is still being converted.
    finished: Option<Arc<CallRecord>>,
    /// Whether a call that has finished is settled only when its answer is converted.
    pub(super) settles_after_conversion: bool,
    /// The client gets nothing of the answer before it is complete.
    is_buffered: bool,
    quota_guard: QuotaGuard,
    /// Memory of the request, which is kept for retries.
    _request_memory: RequestMemory,
    /// Memory of the answer.
    pub(super) answer_memory: AnswerMemory,
    is_route: bool,
    /// Target of the current attempt.
    pub(super) target: Option<Arc<Target>>,
    /// Upstream requests besides the current one: failed attempts and hedged ones.
    other_attempts: usize,
    /// Time until the first upstream request.
    time_to_upstream: Option<Duration>,
    /// Time of the first chunk of the current attempt.
    first_chunk_at: Option<Instant>,
    /// Time of the last chunk.
    last_chunk_at: Option<Instant>,
    /// Histogram of the time between chunks, for the current target.
    chunk_gaps: Option<Histogram>,
    /// Response status, once it is determined.
    pub(super) status: Option<StatusCode>,
    /// Headers of the service that the client gets.
    pub(super) service_headers: Arc<HeaderMap>,
}

impl InFlightRequest {
    /// Starts the call. Boxed because the value is moved several times.
    pub(super) fn start(
        gateway: &Arc<Gateway>,
        current: Arc<ConfigGeneration>,
        context: RequestContext,
        mut call: Call,
        quota_guard: QuotaGuard,
        request_memory: RequestMemory,
    ) -> Box<Self> {
        gateway.metrics.request_started();
        call.memory = gateway.memory.new_answer();
        Box::new(Self {
            is_settled: false,
            finished: None,
            settles_after_conversion: false,
            is_buffered: call.on_incomplete == OnIncomplete::Buffer,
            is_route: call.route.is_some(),
            answer_memory: call.memory.clone(),
            run: gateway.deps.engine.run(Plan::single(call)),
            gateway: Arc::clone(gateway),
            current,
            context,
            quota_guard,
            _request_memory: request_memory,
            target: None,
            other_attempts: 0,
            time_to_upstream: None,
            first_chunk_at: None,
            last_chunk_at: None,
            chunk_gaps: None,
            status: None,
            service_headers: Arc::default(),
        })
    }

    /// The interval of comments in a stream while no chunk arrives.
    pub(super) fn keep_alive_interval(&self) -> Duration {
        self.gateway.deps.limits.keep_alive_interval
    }

    /// The time between the error event of an incomplete answer and the break of the transfer.
    pub(super) fn break_delay(&self) -> Duration {
        self.gateway.deps.limits.break_delay
    }

    /// Polls the next event; `None` after the end of the call.
    pub(super) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = if self.gateway.phase.is_ending() && !self.is_settled {
            self.stop()
        } else {
            ready!(Pin::new(&mut self.run).poll_next(context))
        };
        if let Some(event) = &event {
            self.observe(event);
        }
        Poll::Ready(event)
    }

    /// Async version of [`InFlightRequest::poll_event`].
    pub(super) async fn next_event(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    fn observe(&mut self, event: &Event) {
        let metrics = &self.gateway.metrics;
        match &event.kind {
            EventKind::Started(target) => {
                self.time_to_upstream.get_or_insert(event.at - self.context.started_at);
                self.target = Some(Arc::clone(target));
                self.chunk_gaps = Some(metrics.chunk_gap_histogram(&self.current.config, target));
            }
            EventKind::Deltas(_) | EventKind::BufferedDeltas(_) => {
                match (self.last_chunk_at.replace(event.at), &self.chunk_gaps) {
                    (Some(last_at), Some(histogram)) => histogram.observe((event.at - last_at).as_secs_f64()),
                    // First chunk of this attempt: the time until it is forwarded counts as overhead.
                    _ => self.first_chunk_at = Some(event.at),
                }
            }
            EventKind::FirstToken(_) if self.context.overhead.is_none() => {
                let after_first_chunk = self.first_chunk_at.map(|first_at| first_at.elapsed()).unwrap_or_default();
                let overhead = self.time_to_upstream.unwrap_or_default() + after_first_chunk;
                self.context.overhead = Some(overhead);
                metrics.observe_overhead(overhead);
            }
            EventKind::FirstToken(_) => {}
            EventKind::Headers(headers) => self.service_headers = Arc::clone(headers),
            EventKind::Failed { record, .. } => {
                // A request rejected by a local limit was not sent.
                self.other_attempts += usize::from(record.class() != Some(ErrorClass::LocalLimit));
                self.last_chunk_at = None;
            }
            EventKind::Notice(notice) => {
                self.other_attempts += usize::from(matches!(notice, Notice::Hedged(..)));
                if self.context.notices.len() < MAX_NOTICES {
                    self.context.notices.extend(log::notice_text(notice));
                }
            }
            EventKind::Finished(record) if self.settles_after_conversion && record.result.is_ok() => {
                self.finished = Some(Arc::clone(record));
            }
            EventKind::Finished(record) => self.settle(Arc::clone(record)),
            EventKind::Restarted => {}
        }
    }

    /// The headers of an error response that the client gets.
    pub(super) fn listed_headers(&self, error: &CallError) -> HeaderMap {
        let headers = error.headers.as_deref();
        headers.map(|headers| listed_headers(headers, &self.current.response_headers)).unwrap_or_default()
    }

    /// Number of attempts so far, including the current one, without those that a limit of mmchat rejected.
    pub(super) fn attempt_count(&self) -> usize {
        self.other_attempts + 1
    }

    /// Requested route; `None` if a model was requested.
    pub(super) fn requested_route(&self) -> Option<&str> {
        self.context.requested_name.as_deref().filter(|_| self.is_route)
    }

    /// Charges, counts, logs and records the finished call, once.
    fn settle(&mut self, record: Arc<CallRecord>) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        self.quota_guard.charge(&record);
        let status = self.final_status(&record);
        self.gateway.metrics.observe_call(&self.context, &self.current.config, &record);
        self.gateway.deps.log.finished(&self.context, status.as_u16(), &record);
        if let Some(writer) = &self.gateway.deps.writer
            && !record.attempts.is_empty()
        {
            let client = self.context.client.clone();
            writer.submit(Box::new(StoredCall { record, command: "serve", client, index: 0, transcript: None }));
        }
    }

    /// Settles the call after its answer was converted.
    pub(super) fn settle_converted(&mut self) {
        if let Some(record) = self.finished.take() {
            self.settle(record);
        }
    }

    /// Ends the call with `error`, although the service has answered.
    pub(super) fn fail(&mut self, error: CallError) {
        if let Some(mut record) = self.finished.take() {
            Arc::make_mut(&mut record).result = Err(error);
            self.settle(record);
        } else if let Some(event) = self.stop_with(Some(error)) {
            self.observe(&event);
        }
    }

    /// Cancels the call, because the client or the server ends it. Returns its last event.
    fn stop(&mut self) -> Option<Event> {
        let is_ending = self.gateway.phase.is_ending();
        self.stop_with(is_ending.then(|| CallError::new(ErrorClass::LocalLimit, "the server was stopped")))
    }

    /// Cancels the call. Its error is `error`; `None`: the client has disconnected.
    fn stop_with(&mut self, error: Option<CallError>) -> Option<Event> {
        let mut event = self.run.stop_all().into_iter().find(|event| matches!(event.kind, EventKind::Finished(_)))?;
        if let EventKind::Finished(record) = &mut event.kind
            && record.stopped
            && let Some(error) = error
        {
            let record = Arc::make_mut(record);
            record.stopped = false;
            record.result = Err(error);
        }
        Some(event)
    }

    /// Status sent to the client; 499, as in nginx, if the client disconnected before a status was sent.
    fn final_status(&self, record: &CallRecord) -> StatusCode {
        match (self.status, &record.result) {
            (Some(sent), _) => sent,
            (None, Ok(_)) => StatusCode::OK,
            (None, Err(_)) if record.stopped => StatusCode::from_u16(499).expect("499 is a valid status"),
            (None, Err(error)) => response_status(record, error),
        }
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        let unsent = self.finished.take();
        let stopped = self.stop().and_then(|event| match event.kind {
            EventKind::Finished(record) => Some(record),
            _ => None,
        });
        if let Some(mut record) = unsent.or(stopped) {
            // Nothing of a buffered answer was sent, so the client did not get it.
            if self.is_buffered && record.result.is_ok() {
                let record = Arc::make_mut(&mut record);
                (record.stopped, record.result) = (true, Err(CallError::new(ErrorClass::LocalLimit, "interrupted")));
            }
            self.settle(record);
        }
        // A probe that goes on has a clone of the memory.
        drop(self.answer_memory.take_kept());
        self.gateway.metrics.request_ended();
    }
}
