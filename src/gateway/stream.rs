//! A streamed reply: events of the engine in, bytes for the client out.
//!
//! Owns what of an upstream's stream is passed on (every event as it came, but for what was only asked for by us), its
//! translation where the upstream answered in another shape than it was asked for, and the end: a mark where the answer is
//! whole; where it is not, an error event and a transfer that breaks off, so that no client takes it for whole; and never one
//! for the other. Refuses to buffer: a client that reads slowly is not read for.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame as BodyFrame;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{connection::Unsent, error, exchange::Exchange, reply::Manner};
use crate::{
    engine::{Event, EventKind, LaneOutcome},
    model::{Call, DeltaKind},
    protocol::{
        Frame, FrameKind,
        openai::server::{ChunkWriter, is_usage_only},
        reply_reader::Read,
    },
};

/// A client that waits is told that it is not forgotten so often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How often it is looked whether a slow client has taken the end.
const UNSENT: Duration = Duration::from_millis(20);
const COMMENT: Bytes = Bytes::from_static(b": waiting\n\n");

/// How what comes is given to the client.
enum Mode {
    /// Nothing came yet.
    Open,
    /// As it came.
    Passing,
    /// Put into chunks.
    Writing(ChunkWriter),
}

/// What an event came to.
pub(super) enum Written {
    /// Nothing the client sees.
    Nothing,
    /// A piece of the answer.
    Some,
    /// The rest of it.
    All,
    /// Why there is no more.
    Failed(Box<LaneOutcome>),
}

/// The stream, as far as it is written.
pub(super) struct EventStream {
    request_id: String,
    mode: Mode,
    is_chat: bool,
    include_usage: bool,
    ends_with_mark: bool,
    /// Written, and not taken yet.
    out: VecDeque<Bytes>,
    /// Written, and not to be seen before the answer is whole.
    held: Vec<Bytes>,
    over: bool,
    /// It is no whole answer.
    failed: bool,
    unsent: Unsent,
}

impl EventStream {
    pub(super) fn new(request_id: String, call: &Call, manner: &Manner) -> Self {
        Self {
            request_id,
            mode: Mode::Open,
            is_chat: call.chat().is_some(),
            include_usage: manner.include_usage,
            ends_with_mark: manner.ends_with_mark,
            out: VecDeque::new(),
            held: Vec::new(),
            over: false,
            failed: false,
            unsent: manner.unsent.clone(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes what happened.
    pub(super) fn take(&mut self, event: Event) -> Written {
        match event.kind {
            EventKind::Deltas(read) => {
                let pieces = self.pieces(read);
                self.out.extend(pieces);
                if self.out.is_empty() { Written::Nothing } else { Written::Some }
            }
            EventKind::Held(read) => {
                let pieces = self.pieces(read);
                self.held.extend(pieces);
                Written::Nothing
            }
            EventKind::Failed { .. } | EventKind::Again => {
                self.held.clear();
                self.mode = Mode::Open;
                Written::Nothing
            }
            EventKind::Finished(outcome) => self.end(outcome),
            EventKind::Started(_) | EventKind::Ttft(_) | EventKind::Notice(_) => Written::Nothing,
        }
    }

    fn end(&mut self, outcome: Box<LaneOutcome>) -> Written {
        self.over = true;
        match &outcome.result {
            Ok(_) => {
                self.out.extend(self.held.drain(..));
                if self.ends_with_mark {
                    self.out.push_back(ChunkWriter::done());
                }
                Written::All
            }
            Err(problem) => {
                let event = format!("data: {}\n\n", error::body(&self.request_id, &outcome, problem));
                self.held.clear();
                self.failed = true;
                self.out.push_back(event.into());
                Written::Failed(outcome)
            }
        }
    }

    /// The bytes for what one read of the upstream brought.
    fn pieces(&mut self, read: Read) -> Vec<Bytes> {
        if let Mode::Open = self.mode
            && !read.is_empty()
        {
            self.mode = match read.frames.first() {
                Some(frame) if frame.kind == FrameKind::Event => Mode::Passing,
                _ => self.writing(&read),
            };
            if let Mode::Writing(writer) = &self.mode {
                return std::iter::once(writer.role()).chain(self.written(writer, &read)).collect();
            }
        }
        match &self.mode {
            Mode::Passing => self.passed(read),
            Mode::Writing(writer) => self.written(writer, &read).collect(),
            Mode::Open => Vec::new(),
        }
    }

    fn written<'r>(&'r self, writer: &'r ChunkWriter, read: &'r Read) -> impl Iterator<Item = Bytes> + 'r {
        let wanted = |kind: &DeltaKind| self.include_usage || !matches!(kind, DeltaKind::Usage(_));
        let deltas = read.iter().filter(move |delta| wanted(&delta.kind));
        deltas.map(|delta| writer.delta(delta.choice, &delta.kind)).filter(|chunk| !chunk.is_empty())
    }

    fn writing(&self, read: &Read) -> Mode {
        // What is no chat cannot be put into chunks, and is passed on as it is.
        if !self.is_chat {
            return Mode::Passing;
        }
        let model = read.iter().find_map(|delta| match &delta.kind {
            DeltaKind::Model(model) => Some(model.as_str()),
            _ => None,
        });
        let id = format!("chatcmpl-{}", self.request_id);
        Mode::Writing(ChunkWriter::new(&id, model.unwrap_or_default(), now()))
    }

    fn passed(&self, read: Read) -> Vec<Bytes> {
        let any_usage = read.iter().any(|delta| matches!(delta.kind, DeltaKind::Usage(_)));
        // Only we asked for it.
        let ours = |frame: &Frame| any_usage && !self.include_usage && is_usage_only(&frame.data);
        let Read { frames, .. } = read;
        frames.into_iter().filter(|frame| !ours(frame)).map(ended).collect()
    }

    /// The body of the reply: what is written, and what the exchange still brings.
    pub(super) fn into_body(self, exchange: Box<Exchange>) -> StreamBody {
        let now = Instant::now();
        let alive = Box::pin(sleep_until(now + SIGN_OF_LIFE));
        StreamBody { stream: self, exchange, last: now, alive, end_seen: false }
    }
}

/// A frame as an event, with the blank line that ends it: the last one of a stream may have come without.
pub(super) fn ended(frame: Frame) -> Bytes {
    let raw = frame.raw;
    if frame.kind != FrameKind::Event {
        // Line breaks of JSON mean nothing, and would end the event's line.
        let line = raw.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
        return b"data: ".iter().copied().chain(line).chain(*b"\n\n").collect();
    }
    if raw.ends_with(b"\n\n") || raw.ends_with(b"\r\n\r\n") || raw.ends_with(b"\r\r") || raw.ends_with(b"\n\r") {
        return raw;
    }
    [raw.as_ref(), b"\n\n"].concat().into()
}

/// The seconds since 1970, as chunks have them.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The body of a streamed reply. Dropping it, as when the client leaves, ends the exchange and everything below it.
pub(super) struct StreamBody {
    stream: EventStream,
    exchange: Box<Exchange>,
    /// When it was last told something.
    last: Instant,
    /// When that may have been long ago.
    alive: Pin<Box<Sleep>>,
    /// What was written last was given the time to go out.
    end_seen: bool,
}

/// The answer broke off, and so does its transfer: some clients read over an error event, and would take a half for a whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not whole")]
pub(super) struct BrokenOff;

impl StreamBody {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        loop {
            if let Some(piece) = self.stream.out.pop_front() {
                self.last = Instant::now();
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.stream.over {
                return self.end(context);
            }
            match self.exchange.poll_event(context) {
                Poll::Ready(Some(event)) => drop(self.stream.take(event)),
                // A lane that does not say how it ended is no answer.
                Poll::Ready(None) => (self.stream.over, self.stream.failed) = (true, true),
                Poll::Pending if self.alive.as_mut().poll(context).is_ready() => {
                    if self.last.elapsed() >= SIGN_OF_LIFE {
                        self.last = Instant::now();
                        self.stream.out.push_back(COMMENT);
                    }
                    let due = self.last + SIGN_OF_LIFE;
                    self.alive.as_mut().reset(due);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// What follows the last piece: nothing, or, once the client has what was written, that the answer is not whole.
    fn end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if !self.stream.failed {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.end_seen, true) {
            // Whoever writes it writes what it has when there is nothing more at hand, and closes a broken transfer at once.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.stream.unsent.any() {
            self.alive.as_mut().reset(Instant::now() + UNSENT);
            // It is the timer that is waited for; that of the connection ends a client that takes nothing.
            if self.alive.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.stream.failed = false;
        Poll::Ready(Some(Err(BrokenOff)))
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, BrokenOff>>> {
        let next = self.get_mut().next(context);
        next.map(|piece| piece.map(|piece| piece.map(BodyFrame::data)))
    }
}
