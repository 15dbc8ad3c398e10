//! Detects the framing of a response body from its content and splits it into frames.
//!
//! Services may answer a streaming request with one JSON object, a non-streaming request with a stream, and any request
//! with an HTML page, all with any content type. The first byte that is not whitespace determines the framing.

use std::borrow::Cow;

use bytes::Bytes;

use super::sse::{EventTooLarge, SseDecoder, to_valid_utf8};
use crate::protocol::{Frame, FrameKind};

/// Maximum bytes of a page or text that are kept for the error message.
const MAX_PAGE_BYTES: usize = 4096;

#[derive(Debug)]
enum State {
    /// Only whitespace or a prefix of a byte-order mark so far.
    Start(Vec<u8>),
    Stream(SseDecoder),
    Json(Vec<u8>),
    Page(Vec<u8>),
}

/// An object, its text as a delta, and a copy of either while it is converted.
const OBJECT_FACTOR: usize = 3;

/// Splits one response body into frames.
#[derive(Debug)]
pub struct BodyFramer {
    state: State,
    /// The first bytes of a stream that has no event yet, because it may be plain text. `None`: an event has arrived.
    possible_text: Option<Vec<u8>>,
}

impl Default for BodyFramer {
    fn default() -> Self {
        Self { state: State::Start(Vec::new()), possible_text: Some(Vec::new()) }
    }
}

impl BodyFramer {
    /// Adds the next bytes and appends the frames they complete to `out`.
    ///
    /// # Errors
    /// When an event exceeds its size limit.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Frame>) -> Result<(), EventTooLarge> {
        match &mut self.state {
            State::Start(buffered) => {
                // The first read nearly always suffices, so it is not copied.
                let input = if buffered.is_empty() {
                    Cow::from(bytes)
                } else {
                    Cow::from([buffered.as_slice(), bytes].concat())
                };
                let content = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&input).trim_ascii_start();
                match content.first() {
                    None => buffered.clear(),
                    Some(_) if b"\xef\xbb\xbf".starts_with(content) => *buffered = content.to_vec(),
                    Some(first_byte) => {
                        self.state = Self::detect(*first_byte);
                        return self.push(content, out);
                    }
                }
            }
            State::Stream(decoder) => {
                decoder.push(bytes);
                while let Some(frame) = decoder.next_frame()? {
                    self.possible_text = None;
                    out.push(frame);
                }
                if let Some(head) = &mut self.possible_text {
                    let remaining = MAX_PAGE_BYTES.saturating_sub(head.len());
                    head.extend_from_slice(&bytes[..bytes.len().min(remaining)]);
                }
            }
            State::Json(body) => body.extend_from_slice(bytes),
            State::Page(page) => {
                let remaining = MAX_PAGE_BYTES.saturating_sub(page.len());
                page.extend_from_slice(&bytes[..bytes.len().min(remaining)]);
            }
        }
        Ok(())
    }

    /// The memory of what is not part of a frame yet, in bytes. An object also has that of what it is parsed into: it arrives
    /// in one piece.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Start(_) | State::Page(_) => 0,
            State::Stream(decoder) => decoder.held_bytes(),
            State::Json(body) => body.len() * OBJECT_FACTOR,
        }
    }

    /// Ends the body: appends the unfinished frame to `out`.
    pub fn finish(&mut self, out: &mut Vec<Frame>) {
        match std::mem::replace(&mut self.state, State::Start(Vec::new())) {
            State::Start(_) => {}
            State::Stream(mut decoder) => match decoder.finish() {
                Some(frame) => out.push(frame),
                None => {
                    if let Some(head) = self.possible_text.take().filter(|head| is_plain_text(head)) {
                        out.push(body_frame(head, FrameKind::Page));
                    }
                }
            },
            State::Json(mut body) => {
                body.shrink_to_fit();
                out.push(body_frame(body, FrameKind::Body));
            }
            State::Page(page) => out.push(body_frame(page, FrameKind::Page)),
        }
    }

    fn detect(first_byte: u8) -> State {
        match first_byte {
            b'{' | b'[' => State::Json(Vec::new()),
            b'<' => State::Page(Vec::new()),
            _ => State::Stream(SseDecoder::default()),
        }
    }
}

fn body_frame(body: Vec<u8>, kind: FrameKind) -> Frame {
    let raw = Bytes::from(body);
    Frame { data: to_valid_utf8(raw.clone()), raw, event: Bytes::new(), kind }
}

/// Whether a body without events is plain text: its first line does not start with an SSE field name.
fn is_plain_text(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\n' || byte == b'\r').next().unwrap_or_default();
    let field = line.split(|&byte| byte == b':').next().unwrap_or_default();
    !line.is_empty() && !matches!(field, b"" | b"data" | b"event" | b"id" | b"retry")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(body: &[u8], chunk_size: usize) -> Vec<(FrameKind, String)> {
        let (mut framer, mut out) = (BodyFramer::default(), Vec::new());
        for chunk in body.chunks(chunk_size) {
            framer.push(chunk, &mut out).expect("below the size limit");
        }
        framer.finish(&mut out);
        out.iter().map(|frame| (frame.kind, String::from_utf8_lossy(&frame.data).into_owned())).collect()
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "test table")]
    fn framing_is_detected_from_the_body() {
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
            for chunk_size in [1, 2, 3, 1000] {
                assert_eq!(kinds(body, chunk_size), want, "{} in chunks of {chunk_size}", body.escape_ascii());
            }
        }
    }
}
