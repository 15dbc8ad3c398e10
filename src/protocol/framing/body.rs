//! Decides what a reply's body is by looking at it, and cuts it into frames.
//!
//! Services answer a stream request with one JSON object, a plain request with a stream, and anything with an HTML
//! page, under any content type; so the first byte that is not white space decides. Owns that decision and the size
//! cap of whole bodies. Refuses to know what the JSON means.

use std::borrow::Cow;

use bytes::Bytes;

use super::sse::{EventTooLarge, SseDecoder, valid_utf8};
use crate::protocol::{Frame, FrameKind};

/// The largest body that is read whole, in bytes; streams have no such limit.
pub const MAX_BODY: usize = 64 * 1024 * 1024;

/// How much of a page or a text is kept for the message.
const PAGE_KEPT: usize = 4096;

/// A body that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// One event of a stream.
    #[error(transparent)]
    Event(#[from] EventTooLarge),
    /// A body that has to be read whole.
    #[error("a reply of more than 64 MiB in one piece")]
    Body,
}

#[derive(Debug)]
enum State {
    /// Only white space or a part of a byte-order mark so far.
    Start(Vec<u8>),
    Stream(SseDecoder),
    Json(Vec<u8>),
    Page(Vec<u8>),
}

/// Cuts one reply's body into frames.
#[derive(Debug)]
pub struct BodyFramer {
    state: State,
    /// The start of a stream that held no event yet: a text in place of an answer. `None`: an event has come.
    head: Option<Vec<u8>>,
}

impl Default for BodyFramer {
    fn default() -> Self {
        Self { state: State::Start(Vec::new()), head: Some(Vec::new()) }
    }
}

impl BodyFramer {
    /// Takes the next bytes and appends the frames they complete to `out`.
    ///
    /// # Errors
    /// When an event or a whole body is larger than its cap.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Frame>) -> Result<(), FrameError> {
        match &mut self.state {
            State::Start(held) => {
                // Most often all of it is here at once.
                let so_far =
                    if held.is_empty() { Cow::from(bytes) } else { Cow::from([held.as_slice(), bytes].concat()) };
                let body = so_far.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&so_far).trim_ascii_start();
                match body.first() {
                    None => held.clear(),
                    Some(_) if b"\xef\xbb\xbf".starts_with(body) => *held = body.to_vec(),
                    Some(first) => {
                        self.state = Self::decide(*first);
                        return self.push(body, out);
                    }
                }
            }
            State::Stream(decoder) => {
                decoder.push(bytes);
                while let Some(frame) = decoder.next_frame()? {
                    self.head = None;
                    out.push(frame);
                }
                if let Some(head) = &mut self.head {
                    let room = PAGE_KEPT.saturating_sub(head.len());
                    head.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
            }
            State::Json(body) => {
                if body.len() + bytes.len() > MAX_BODY {
                    return Err(FrameError::Body);
                }
                body.extend_from_slice(bytes);
            }
            State::Page(page) => {
                let room = PAGE_KEPT.saturating_sub(page.len());
                page.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        }
        Ok(())
    }

    /// The body is over: appends what was still open.
    pub fn finish(&mut self, out: &mut Vec<Frame>) {
        match std::mem::replace(&mut self.state, State::Start(Vec::new())) {
            State::Start(_) => {}
            State::Stream(mut decoder) => match decoder.finish() {
                Some(frame) => out.push(frame),
                None => {
                    if let Some(head) = self.head.take().filter(|head| is_plain_text(head)) {
                        out.push(whole(head, FrameKind::Page));
                    }
                }
            },
            State::Json(body) => out.push(whole(body, FrameKind::Body)),
            State::Page(page) => out.push(whole(page, FrameKind::Page)),
        }
    }

    fn decide(first: u8) -> State {
        match first {
            b'{' | b'[' => State::Json(Vec::new()),
            b'<' => State::Page(Vec::new()),
            _ => State::Stream(SseDecoder::default()),
        }
    }
}

fn whole(body: Vec<u8>, kind: FrameKind) -> Frame {
    let raw = Bytes::from(body);
    Frame { data: valid_utf8(raw.clone()), raw, event: Bytes::new(), kind }
}

/// Whether a stream without events was none: its first line has no field name of an event stream.
fn is_plain_text(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\n' || byte == b'\r').next().unwrap_or_default();
    let field = line.split(|&byte| byte == b':').next().unwrap_or_default();
    !line.is_empty() && !matches!(field, b"" | b"data" | b"event" | b"id" | b"retry")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(body: &[u8], step: usize) -> Vec<(FrameKind, String)> {
        let (mut framer, mut out) = (BodyFramer::default(), Vec::new());
        for piece in body.chunks(step) {
            framer.push(piece, &mut out).expect("small");
        }
        framer.finish(&mut out);
        out.iter().map(|frame| (frame.kind, String::from_utf8_lossy(&frame.data).into_owned())).collect()
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a table")]
    fn the_body_decides_and_not_its_label() {
        let cases: [(&[u8], &[(FrameKind, &str)]); 7] = [
            (b"\n\n \r\n{\"a\":1}", &[(FrameKind::Body, "{\"a\":1}")]),
            (b"\xef\xbb\xbf[1]", &[(FrameKind::Body, "[1]")]),
            (b"\xef\xbb\xbfdata: x\n\n", &[(FrameKind::Event, "x")]),
            (b"\n: wait\n\ndata: x\n\n", &[(FrameKind::Event, "x")]),
            (b"<html>no</html>", &[(FrameKind::Page, "<html>no</html>")]),
            (b"Internal Server Error", &[(FrameKind::Page, "Internal Server Error")]),
            (b" \n", &[]),
        ];
        for (body, want) in cases {
            let want: Vec<_> = want.iter().map(|(kind, data)| (*kind, (*data).to_owned())).collect();
            for step in [1, 2, 3, 1000] {
                assert_eq!(kinds(body, step), want, "{} in steps of {step}", body.escape_ascii());
            }
        }
    }

    #[test]
    fn a_body_over_the_cap_is_refused() {
        let (mut framer, mut out) = (BodyFramer::default(), Vec::new());
        framer.push(b"{", &mut out).expect("small");
        let block = vec![b' '; 1 << 24];
        let refused = (0..5).any(|_| framer.push(&block, &mut out) == Err(FrameError::Body));
        assert!(refused);
    }
}
