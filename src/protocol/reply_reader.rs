//! Reads one successful reply from its first byte to its verdict: framing and decoding together.
//!
//! Owns the two rules that no single frame can tell: a frame that could not be read spoils the answer, and an error
//! after the answer was complete is only a warning. Refuses I/O; `attempt` feeds it, and so do the tests.

use std::ops::Deref;

use super::{ApiError, Decoder, Ending, Flow, Frame, FrameKind, StreamEnd};
use crate::model::{Delta, ErrorClass};
use crate::protocol::framing::body::BodyFramer;

/// What one read of the network added to a reply.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// What it says.
    pub deltas: Vec<Delta>,
    /// The frames it came in, where they are to be passed on. An end mark is not among them, nor what could not be read,
    /// nor an error: whether the answer is whole is said by its verdict alone.
    pub frames: Vec<Frame>,
}

impl Read {
    /// Nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.frames.is_empty()
    }

    /// Adds what the next read added.
    pub fn extend(&mut self, next: Self) {
        self.deltas.extend(next.deltas);
        self.frames.extend(next.frames);
    }
}

impl Deref for Read {
    type Target = [Delta];

    fn deref(&self) -> &[Delta] {
        &self.deltas
    }
}

impl<'r> IntoIterator for &'r Read {
    type Item = &'r Delta;
    type IntoIter = std::slice::Iter<'r, Delta>;

    fn into_iter(self) -> Self::IntoIter {
        self.deltas.iter()
    }
}

impl From<Vec<Delta>> for Read {
    fn from(deltas: Vec<Delta>) -> Self {
        Self { deltas, frames: Vec::new() }
    }
}

/// Reads one reply.
pub struct ReplyReader {
    framer: BodyFramer,
    decoder: Box<dyn Decoder>,
    frames: Vec<Frame>,
    /// Those that are to be passed on, if any are.
    kept: Option<Vec<Frame>>,
    any_output: bool,
    ended_softly: bool,
    garbled: bool,
    warning: Option<ApiError>,
}

impl std::fmt::Debug for ReplyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyReader").field("any_output", &self.any_output).finish_non_exhaustive()
    }
}

impl ReplyReader {
    /// A reader for a reply that `decoder` understands.
    #[must_use]
    pub fn new(decoder: Box<dyn Decoder>) -> Self {
        Self {
            framer: BodyFramer::default(),
            decoder,
            frames: Vec::new(),
            kept: None,
            any_output: false,
            ended_softly: false,
            garbled: false,
            warning: None,
        }
    }

    /// Keeps the frames, to be passed on.
    #[must_use]
    pub fn keeping_frames(mut self) -> Self {
        self.kept = Some(Vec::new());
        self
    }

    /// The frames since the last time.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether the model has put out anything.
    #[must_use]
    pub fn any_output(&self) -> bool {
        self.any_output
    }

    /// An error that came after the answer was complete.
    pub fn take_warning(&mut self) -> Option<ApiError> {
        self.warning.take()
    }

    /// Takes the next bytes and appends what they add to `out`, which counts even when an error is returned.
    ///
    /// # Errors
    /// When the service reports one, or nothing of the reply can be read.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Delta>) -> Result<Flow, ApiError> {
        let mut frames = std::mem::take(&mut self.frames);
        let framed = self.framer.push(bytes, &mut frames);
        let flow = self.decode(&mut frames, out);
        self.frames = frames;
        match (flow?, framed) {
            (Flow::End, _) => Ok(Flow::End),
            (flow, Ok(())) => Ok(flow),
            (_, Err(problem)) => self.fail(ApiError::new(self.class(ErrorClass::Garbage), problem.to_string()), out),
        }
    }

    /// The reply is over: appends what was held back and judges.
    ///
    /// # Errors
    /// When what was left is an error, or a piece was lost on the way.
    pub fn finish(&mut self, end: StreamEnd, out: &mut Vec<Delta>) -> Result<Ending, ApiError> {
        let mut frames = Vec::new();
        if end != StreamEnd::Hard {
            self.framer.finish(&mut frames);
        }
        self.decode(&mut frames, out)?;
        let from = out.len();
        let ending = self.decoder.finish(end, out)?;
        self.any_output |= out[from..].iter().any(|delta| delta.kind.is_output());
        if self.garbled {
            return Err(ApiError::new(ErrorClass::Garbled, "a piece of the answer could not be read"));
        }
        Ok(ending)
    }

    fn decode(&mut self, frames: &mut Vec<Frame>, out: &mut Vec<Delta>) -> Result<Flow, ApiError> {
        let mut flow = if self.ended_softly { Flow::SoftEnd } else { Flow::More };
        for frame in frames.drain(..) {
            let from = out.len();
            let step = self.decoder.frame(&frame, out);
            self.any_output |= out[from..].iter().any(|delta| delta.kind.is_output());
            if let (Some(kept), Ok(flow)) = (&mut self.kept, &step)
                // Behind a piece that is lost there is nothing to pass on: its finish reason would be that of an answer.
                && *flow != Flow::Garbled
                && !self.garbled
                && (*flow != Flow::End || frame.kind == FrameKind::Body || out.len() > from)
            {
                kept.push(frame.clone());
            }
            match step {
                Ok(Flow::Garbled) if self.ended_softly => {}
                Ok(Flow::Garbled) if self.any_output => self.garbled = true,
                Ok(Flow::Garbled) => {
                    let text = String::from_utf8_lossy(&frame.data);
                    let message = format!("a piece of the reply is not JSON: {}", super::error::shortened(&text));
                    return self.fail(ApiError::new(ErrorClass::Garbled, message), out);
                }
                Ok(Flow::End) => return Ok(Flow::End),
                Ok(next) => {
                    self.ended_softly = next == Flow::SoftEnd;
                    flow = next;
                }
                Err(problem) if self.ended_softly => {
                    self.warning = Some(problem);
                    return Ok(Flow::End);
                }
                Err(problem) => return self.fail(problem, out),
            }
        }
        Ok(flow)
    }

    /// Gives out what the decoder held back, then the error.
    fn fail(&mut self, problem: ApiError, out: &mut Vec<Delta>) -> Result<Flow, ApiError> {
        // The verdict on the ending is of no interest beside the error.
        let _ = self.decoder.finish(StreamEnd::Broken, out);
        Err(problem)
    }

    fn class(&self, before: ErrorClass) -> ErrorClass {
        if self.any_output { ErrorClass::Cut } else { before }
    }
}
