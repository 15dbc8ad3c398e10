//! Reads one successful response from the first byte to its outcome, combining framing and decoding.
//!
//! Applies the two rules that depend on several frames: a frame that cannot be parsed makes the answer invalid, and an
//! error after the answer was complete is only a warning.

use super::{CallError, Decoder, Flow, Frame, FrameKind, StreamEnd, StreamOutcome};
use crate::model::{Delta, ErrorClass, FinishReason};
use crate::protocol::framing::body::BodyFramer;

/// What the allocator and the reference counter of a buffer take.
const BUFFER_BYTES: usize = 64;

/// The deltas and frames decoded from one network read.
#[derive(Clone, Debug, Default)]
pub struct DecodedBatch {
    /// The deltas, in order.
    pub deltas: Vec<Delta>,
    /// The frames, when they are retained for pass-through. End signals, frames that cannot be parsed and errors are
    /// not included: only the final outcome says whether the answer is complete.
    pub frames: Vec<Frame>,
}

impl DecodedBatch {
    /// Whether there are no deltas and no frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.frames.is_empty()
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let deltas = self.deltas.iter().map(|delta| size_of::<Delta>() + delta.kind.held_len());
        // Lists have up to twice the size of their items, and each frame has a buffer of its own. With events of 60 kB, a
        // process takes about a quarter more than their bytes.
        let buffer = |frame: &Frame| BUFFER_BYTES + frame.raw.len() + frame.raw.len() / 4;
        let frames = self.frames.iter().map(|frame| 2 * size_of::<Frame>() + buffer(frame));
        deltas.chain(frames).sum()
    }

    /// The batch with copies of its frames, for one that is kept.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { frames: self.frames.into_iter().map(Frame::detached).collect(), ..self }
    }

    /// Appends the next batch.
    pub fn extend(&mut self, next: Self) {
        self.deltas.extend(next.deltas);
        self.frames.extend(next.frames);
    }
}

impl From<Vec<Delta>> for DecodedBatch {
    fn from(deltas: Vec<Delta>) -> Self {
        Self { deltas, frames: Vec::new() }
    }
}

/// Reads one response.
pub struct ReplyReader {
    framer: BodyFramer,
    decoder: Box<dyn Decoder>,
    frames: Vec<Frame>,
    /// The frames retained for pass-through; `None`: frames are not retained.
    retained: Option<Vec<Frame>>,
    has_output: bool,
    /// The last flow before the end.
    last_flow: Flow,
    chunk_lost: bool,
    warning: Option<CallError>,
}

impl std::fmt::Debug for ReplyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyReader").field("has_output", &self.has_output).finish_non_exhaustive()
    }
}

impl ReplyReader {
    /// A reader that decodes with `decoder`.
    #[must_use]
    pub fn new(decoder: Box<dyn Decoder>) -> Self {
        Self {
            framer: BodyFramer::default(),
            decoder,
            frames: Vec::new(),
            retained: None,
            has_output: false,
            last_flow: Flow::More,
            chunk_lost: false,
            warning: None,
        }
    }

    /// Retains the frames for pass-through.
    #[must_use]
    pub fn retain_frames(mut self) -> Self {
        self.retained = Some(Vec::new());
        self
    }

    /// Takes the frames retained since the last call.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        self.retained.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The memory of what is not decoded yet, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.framer.held_bytes()
    }

    /// Whether the model has produced any output.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.has_output
    }

    /// The finish reason of an answer that is complete but for its usage.
    #[must_use]
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if self.chunk_lost || self.last_flow != Flow::SoftEnd { None } else { self.decoder.finish_reason() }
    }

    /// Takes the error that arrived after the answer was complete.
    pub fn take_warning(&mut self) -> Option<CallError> {
        self.warning.take()
    }

    /// Decodes the next bytes and appends the deltas to `out`. They are valid even when an error is returned.
    ///
    /// # Errors
    /// When the service reports an error, or the response cannot be parsed.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Delta>) -> Result<Flow, CallError> {
        let mut frames = std::mem::take(&mut self.frames);
        let framing_result = self.framer.push(bytes, &mut frames);
        let flow = self.decode(&mut frames, out);
        self.frames = frames;
        match (flow?, framing_result) {
            (Flow::End, _) => Ok(Flow::End),
            (flow, Ok(())) => Ok(flow),
            (_, Err(error)) => {
                self.fail(CallError::from_source(self.error_class(ErrorClass::InvalidResponse), error), out)
            }
        }
    }

    /// Ends the response: appends buffered deltas to `out` and returns the outcome.
    ///
    /// # Errors
    /// When the remaining data contains an error, or a chunk was lost.
    pub fn finish(&mut self, end: StreamEnd, out: &mut Vec<Delta>) -> Result<StreamOutcome, CallError> {
        let mut frames = Vec::new();
        if end != StreamEnd::EndSignal {
            self.framer.finish(&mut frames);
        }
        self.decode(&mut frames, out)?;
        let first_new = out.len();
        let outcome = self.decoder.finish(end, out)?;
        self.has_output |= out[first_new..].iter().any(|delta| delta.kind.is_output());
        if self.chunk_lost {
            return Err(CallError::new(ErrorClass::InvalidChunk, "invalid chunk in the answer"));
        }
        Ok(outcome)
    }

    fn decode(&mut self, frames: &mut Vec<Frame>, out: &mut Vec<Delta>) -> Result<Flow, CallError> {
        let mut flow = self.last_flow;
        for frame in frames.drain(..) {
            let first_new = out.len();
            let result = self.decoder.decode_frame(&frame, out);
            self.has_output |= out[first_new..].iter().any(|delta| delta.kind.is_output());
            if let (Some(retained), Ok(flow)) = (&mut self.retained, &result)
                // After a lost chunk no frame is passed on: a later finish reason would make the answer look complete.
                && *flow != Flow::InvalidChunk
                && !self.chunk_lost
                && (*flow != Flow::End || frame.kind == FrameKind::Body || out.len() > first_new)
            {
                retained.push(frame.clone());
            }
            match result {
                Ok(Flow::InvalidChunk) if self.last_flow == Flow::SoftEnd => {}
                Ok(Flow::InvalidChunk) if self.has_output => self.chunk_lost = true,
                Ok(Flow::InvalidChunk) => {
                    let text = String::from_utf8_lossy(&frame.data);
                    let message =
                        format!("invalid chunk: expected JSON, got {}", super::error::truncate_message(&text));
                    return self.fail(CallError::new(ErrorClass::InvalidChunk, message), out);
                }
                Ok(Flow::End) => return Ok(Flow::End),
                Ok(next_flow) => {
                    self.last_flow = next_flow;
                    flow = next_flow;
                }
                Err(error) if self.last_flow == Flow::SoftEnd => {
                    self.warning = Some(error);
                    return Ok(Flow::End);
                }
                Err(error) => return self.fail(error, out),
            }
        }
        Ok(flow)
    }

    /// Flushes the deltas that the decoder buffered, then returns the error.
    fn fail(&mut self, error: CallError, out: &mut Vec<Delta>) -> Result<Flow, CallError> {
        // The error takes precedence over the outcome.
        let _ = self.decoder.finish(StreamEnd::Broken, out);
        Err(error)
    }

    fn error_class(&self, class_before_output: ErrorClass) -> ErrorClass {
        if self.has_output { ErrorClass::Incomplete } else { class_before_output }
    }
}
