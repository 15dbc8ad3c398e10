//! Converts the events of a call into the body of a streamed response.
//!
//! Upstream events are forwarded unchanged, except for usage that only the gateway requested; a response that is not a
//! stream is converted to chunks. A complete answer ends with `data: [DONE]`, an incomplete one with an error event and
//! an aborted transfer, so that it does not look complete to any client. Nothing is read ahead for a slow client.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame as BodyFrame;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    failure::error_body, in_flight::InFlightRequest, rejection::Rejection, request_context::ResponseOptions,
    write_timeout::PendingWrite,
};

use crate::{
    engine::{
        CallRecord, Event, EventKind,
        attempt_error::memory_error,
        memory::{AnswerMemory, MemoryFull},
    },
    model::{DeltaKind, ModelRequest},
    protocol::{
        Frame, FrameKind,
        openai::{
            reshape::{AnswerDefaults, AnswerFormat, conversion_bytes, events_from_body},
            server_response::{ChunkWriter, is_usage_only},
        },
        reply_reader::DecodedBatch,
    },
};

/// Interval of checks whether a slow client has read the error event, after which the transfer is aborted.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_millis(20);
const KEEP_ALIVE_COMMENT: Bytes = Bytes::from_static(b": waiting\n\n");

/// Effect of an event on the stream.
pub(super) enum WriteOutcome {
    /// No bytes for the client.
    Nothing,
    /// A part of the answer.
    Chunk,
    /// The end of a complete answer.
    Complete,
    /// The error event of a failed call.
    Failed(Arc<CallRecord>),
    /// The error event of an answer that cannot be converted: no memory is left.
    MemoryFull,
}

/// State of a response stream.
pub(super) struct EventStream {
    request_id: String,
    /// The format to which an answer in one object is converted.
    format: Option<AnswerFormat>,
    include_usage: bool,
    sends_done: bool,
    /// Encoded bytes that hyper has not polled yet.
    queue: VecDeque<Bytes>,
    /// Encoded bytes that are held back until the answer is complete.
    buffered: Vec<Bytes>,
    ended: bool,
    /// The answer is incomplete.
    failed: bool,
    /// No memory is left for the conversion of the answer.
    is_memory_full: bool,
    pending_write: PendingWrite,
    memory: AnswerMemory,
}

impl EventStream {
    pub(super) fn new(
        request_id: String,
        request: &ModelRequest,
        options: &ResponseOptions,
        memory: AnswerMemory,
    ) -> Self {
        Self {
            memory,
            request_id,
            format: AnswerFormat::of(request),
            include_usage: options.include_usage,
            sends_done: options.sends_done,
            queue: VecDeque::new(),
            buffered: Vec::new(),
            ended: false,
            failed: false,
            is_memory_full: false,
            pending_write: options.pending_write.clone(),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Applies an event of the call.
    pub(super) fn handle_event(&mut self, event: Event) -> WriteOutcome {
        match event.kind {
            EventKind::Deltas(batch) => {
                let chunks = self.encode(batch);
                self.queue.extend(chunks);
                match (self.is_memory_full, self.queue.is_empty()) {
                    (true, _) => WriteOutcome::MemoryFull,
                    (false, true) => WriteOutcome::Nothing,
                    (false, false) => WriteOutcome::Chunk,
                }
            }
            EventKind::BufferedDeltas(batch) => {
                let chunks = self.encode(batch);
                if self.is_memory_full {
                    self.queue.extend(chunks);
                    return WriteOutcome::MemoryFull;
                }
                self.buffered.extend(chunks);
                WriteOutcome::Nothing
            }
            EventKind::Failed { .. } | EventKind::Restarted => {
                self.buffered.clear();
                WriteOutcome::Nothing
            }
            EventKind::Finished(record) => self.finish(record),
            EventKind::Started(_) | EventKind::Headers(_) | EventKind::FirstToken(_) | EventKind::Notice(_) => {
                WriteOutcome::Nothing
            }
        }
    }

    fn finish(&mut self, record: Arc<CallRecord>) -> WriteOutcome {
        self.ended = true;
        match &record.result {
            Ok(_) => {
                self.queue.extend(self.buffered.drain(..));
                if self.sends_done {
                    self.queue.push_back(ChunkWriter::done());
                }
                WriteOutcome::Complete
            }
            Err(error) => {
                let event = format!("data: {}\n\n", error_body(&self.request_id, &record, error));
                self.buffered.clear();
                self.failed = true;
                self.queue.push_back(event.into());
                WriteOutcome::Failed(record)
            }
        }
    }

    /// Encodes one decoded batch.
    fn encode(&mut self, batch: DecodedBatch) -> Vec<Bytes> {
        let has_usage = batch.deltas.iter().any(|delta| matches!(delta.kind, DeltaKind::Usage(_)));
        // Usage that the gateway requested and the client did not.
        let hides_usage = has_usage && !self.include_usage;
        let is_unrequested = |frame: &Frame| hides_usage && is_usage_only(&frame.data);
        let mut chunks = Vec::with_capacity(batch.frames.len());
        for frame in batch.frames {
            if !is_unrequested(&frame) {
                self.encode_frame(frame, &mut chunks);
            }
        }
        chunks
    }

    /// Appends the events for one frame: itself, or those of an answer that came as one object.
    fn encode_frame(&mut self, frame: Frame, chunks: &mut Vec<Bytes>) {
        if let Some(format) = self.format.filter(|_| frame.kind != FrameKind::Event) {
            let Ok(_memory) = self.memory.try_part(conversion_bytes(&frame.data)) else {
                let event = format!("data: {}\n\n", Rejection::MemoryFull.error_body(&self.request_id));
                (self.ended, self.failed, self.is_memory_full) = (true, true, true);
                // Without what was converted before, which may look complete.
                *chunks = vec![event.into()];
                return;
            };
            let defaults = AnswerDefaults { format, id: &self.request_id, created: unix_time() };
            if let Some(events) = events_from_body(&frame.data, &defaults, self.include_usage) {
                return chunks.extend(events);
            }
        }
        chunks.push(to_sse_event(frame));
    }

    /// Converts the stream into a response body that continues to poll the call.
    pub(super) fn into_body(self, in_flight: Box<InFlightRequest>) -> StreamBody {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + in_flight.keep_alive_interval()));
        StreamBody { stream: self, in_flight, last_write: now, timer, is_break_due: false }
    }
}

/// Encodes a frame as an SSE event that ends with a blank line, which the last event of an upstream may lack.
pub(super) fn to_sse_event(frame: Frame) -> Bytes {
    let raw = frame.raw;
    if frame.kind != FrameKind::Event {
        // Line breaks are insignificant in JSON, but would end the `data` line.
        let line = raw.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
        return b"data: ".iter().copied().chain(line).chain(*b"\n\n").collect();
    }
    if raw.ends_with(b"\n\n") || raw.ends_with(b"\r\n\r\n") || raw.ends_with(b"\r\r") || raw.ends_with(b"\n\r") {
        return raw;
    }
    [raw.as_ref(), b"\n\n"].concat().into()
}

/// Current Unix time in seconds, for `created`.
pub(super) fn unix_time() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Body of a streamed response. Dropping it, as on a client disconnect, cancels the call.
pub(super) struct StreamBody {
    stream: EventStream,
    in_flight: Box<InFlightRequest>,
    /// Time of the last bytes given to hyper.
    last_write: Instant,
    /// Timer for comments, and for polling a slow client at the end.
    timer: Pin<Box<Sleep>>,
    /// Whether the time between the error event and the break of the transfer has begun.
    is_break_due: bool,
}

/// Aborts the transfer of an incomplete answer: clients that ignore the error event would take the answer for complete.
#[derive(Debug, thiserror::Error)]
#[error("incomplete answer")]
pub(super) struct IncompleteBody;

impl StreamBody {
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, IncompleteBody>>> {
        loop {
            if let Some(chunk) = self.stream.queue.pop_front() {
                self.last_write = Instant::now();
                return Poll::Ready(Some(Ok(chunk)));
            }
            if self.stream.ended {
                return self.poll_end(context);
            }
            match self.in_flight.poll_event(context) {
                Poll::Ready(Some(event)) => {
                    if let WriteOutcome::MemoryFull = self.stream.handle_event(event) {
                        self.in_flight.fail(memory_error(MemoryFull));
                    }
                }
                // A call ends with `Finished`; without it, the answer counts as incomplete.
                Poll::Ready(None) => (self.stream.ended, self.stream.failed) = (true, true),
                Poll::Pending if self.timer.as_mut().poll(context).is_ready() => {
                    if self.last_write.elapsed() >= self.in_flight.keep_alive_interval() {
                        self.last_write = Instant::now();
                        self.stream.queue.push_back(KEEP_ALIVE_COMMENT);
                    }
                    let due = self.last_write + self.in_flight.keep_alive_interval();
                    self.timer.as_mut().reset(due);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ends the body: normally, or with [`IncompleteBody`] once the client has read the error event.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, IncompleteBody>>> {
        if !self.stream.failed {
            return Poll::Ready(None);
        }
        // hyper flushes buffered data while the body is pending, but drops it when the body returns an error.
        if !std::mem::replace(&mut self.is_break_due, true) {
            self.timer.as_mut().reset(Instant::now() + self.in_flight.break_delay());
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if self.stream.pending_write.is_pending() {
            self.timer.as_mut().reset(Instant::now() + FLUSH_POLL_INTERVAL);
            // Only this timer wakes the task. If the client does not read, the write timeout closes the connection.
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.stream.failed = false;
        Poll::Ready(Some(Err(IncompleteBody)))
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = IncompleteBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, IncompleteBody>>> {
        let next = self.get_mut().poll_chunk(context);
        next.map(|chunk| chunk.map(|chunk| chunk.map(BodyFrame::data)))
    }
}
