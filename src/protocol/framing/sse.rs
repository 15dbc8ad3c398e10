//! Decodes server-sent events into frames.
//!
//! Follows the WHATWG specification (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), with two
//! deviations that real services need: a line that begins with `{` is data although it has no field name, and an
//! event that is terminated only by the end of the stream is still delivered.
//!
//! Runs in linear time: each byte is scanned once, events are slices of the input buffer, and only events with several
//! data lines or invalid UTF-8 are copied. Memory is bounded by `MAX_EVENT_BYTES` plus one read.

use bytes::{Buf, Bytes, BytesMut};

use crate::protocol::{Frame, FrameKind};

/// Maximum size of an event, in bytes. A larger one means broken framing or an attack.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// An event exceeds `MAX_EVENT_BYTES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event larger than 16 MiB")]
pub struct EventTooLarge;

/// Splits a byte stream into events.
#[derive(Debug, Default)]
pub struct SseDecoder {
    /// The bytes from the start of the current event to the last byte read.
    buffer: BytesMut,
    /// Start of the current line in `buffer`.
    line_start: usize,
    /// Position up to which `buffer` was searched for a line end.
    scanned: usize,
    /// Ranges of the data values of the current event.
    data: Vec<(usize, usize)>,
    /// Range of the value of its `event` field.
    event: Option<(usize, usize)>,
    /// The current event has an `id` or `retry` field. The decoder ignores it, but it stays in the raw bytes.
    has_other_field: bool,
    /// The last line ended in CR; a following LF belongs to it.
    after_cr: bool,
    /// The current line is a comment, whose bytes are dropped.
    in_comment: bool,
    /// The start of the stream was checked for a byte-order mark.
    bom_checked: bool,
}

impl SseDecoder {
    /// Adds the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete event, if there is one.
    ///
    /// # Errors
    /// When the current event exceeds `MAX_EVENT_BYTES`; the decoder cannot be used after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, EventTooLarge> {
        if !self.bom_checked && !self.skip_bom() {
            return Ok(None);
        }
        loop {
            if self.after_cr {
                match self.buffer.get(self.line_start) {
                    None => return Ok(None),
                    Some(b'\n') => self.skip_line_feed(),
                    Some(_) => {}
                }
                self.after_cr = false;
            }
            let Some(offset) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
                return self.wait_for_line_end();
            };
            let line_end = self.scanned + offset;
            self.after_cr = self.buffer[line_end] == b'\r';
            let next_line = line_end + 1;
            if std::mem::take(&mut self.in_comment) {
                self.buffer.advance(next_line);
                (self.line_start, self.scanned) = (0, 0);
                continue;
            }
            let is_blank = line_end == self.line_start;
            if !is_blank {
                self.parse_field(self.line_start, line_end);
            }
            (self.line_start, self.scanned) = (next_line, next_line);
            if is_blank && !self.data.is_empty() {
                return Ok(Some(self.dispatch_with_blank_line(next_line)));
            }
            if is_blank || self.has_no_fields() {
                self.discard(next_line);
            }
        }
    }

    /// The memory of the event that has not ended yet, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        // The buffer has up to twice the size of its content.
        2 * self.buffer.len() + size_of_val(self.data.as_slice())
    }

    /// Ends the stream: returns the current event if it has data.
    pub fn finish(&mut self) -> Option<Frame> {
        if !self.in_comment && self.line_start < self.buffer.len() {
            self.parse_field(self.line_start, self.buffer.len());
        }
        (!self.data.is_empty()).then(|| self.dispatch(self.buffer.len()))
    }

    /// Drops the first `n` bytes and the fields of the current event.
    fn discard(&mut self, n: usize) {
        self.buffer.advance(n);
        (self.line_start, self.scanned) = (0, 0);
        (self.event, self.has_other_field) = (None, false);
    }

    fn has_no_fields(&self) -> bool {
        self.data.is_empty() && self.event.is_none() && !self.has_other_field
    }

    /// Skips a byte-order mark; returns false while more bytes are needed to detect it.
    fn skip_bom(&mut self) -> bool {
        let length = self.buffer.len().min(BOM.len());
        if self.buffer[..length] == BOM[..length] {
            if length < BOM.len() {
                return false;
            }
            self.buffer.advance(BOM.len());
        }
        self.bom_checked = true;
        true
    }

    /// Skips the LF of a CR LF that was split between two reads.
    fn skip_line_feed(&mut self) {
        if self.line_start == 0 {
            self.buffer.advance(1);
        } else {
            self.line_start += 1;
        }
        self.scanned = self.line_start;
    }

    fn wait_for_line_end(&mut self) -> Result<Option<Frame>, EventTooLarge> {
        self.scanned = self.buffer.len();
        if self.in_comment || (self.has_no_fields() && self.buffer.get(self.line_start) == Some(&b':')) {
            self.in_comment = true;
            self.discard(self.buffer.len());
        }
        if self.buffer.len() > MAX_EVENT_BYTES { Err(EventTooLarge) } else { Ok(None) }
    }

    fn parse_field(&mut self, start: usize, end: usize) {
        let line = &self.buffer[start..end];
        if line[0] == b'{' {
            self.data.push((start, end));
            return;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value_start = start + (colon + 1 + usize::from(line.get(colon + 1) == Some(&b' '))).min(line.len());
        match &line[..colon] {
            b"data" => self.data.push((value_start, end)),
            b"event" => self.event = Some((value_start, end)),
            b"id" | b"retry" => self.has_other_field = true,
            // Comments and unknown fields.
            _ => {}
        }
    }

    /// Emits the event including its complete blank line: a client of the raw bytes may search for CR LF CR LF.
    fn dispatch_with_blank_line(&mut self, end: usize) -> Frame {
        if !self.after_cr {
            return self.dispatch(end);
        }
        match self.buffer.get(end) {
            Some(b'\n') => {
                self.after_cr = false;
                self.dispatch(end + 1)
            }
            // The stream uses CR LF, so the LF will follow; it is added here and skipped when it arrives.
            None if memchr::memmem::find(&self.buffer, b"\r\n").is_some() => {
                let frame = self.dispatch(end);
                Frame { raw: [&frame.raw, &b"\n"[..]].concat().into(), ..frame }
            }
            _ => self.dispatch(end),
        }
    }

    fn dispatch(&mut self, end: usize) -> Frame {
        let raw = self.buffer.split_to(end).freeze();
        (self.line_start, self.scanned) = (0, 0);
        let event = self.event.take().map(|(from, to)| raw.slice(from..to)).unwrap_or_default();
        let data = match self.data.as_slice() {
            [(from, to)] => raw.slice(*from..*to),
            ranges => {
                let lines: Vec<&[u8]> = ranges.iter().map(|&(from, to)| &raw[from..to]).collect();
                Bytes::from(lines.join(&b'\n'))
            }
        };
        self.data.clear();
        self.has_other_field = false;
        Frame { data: to_valid_utf8(data), raw, event, kind: FrameKind::Event }
    }
}

/// Replaces invalid UTF-8 with U+FFFD.
pub(crate) fn to_valid_utf8(bytes: Bytes) -> Bytes {
    match std::str::from_utf8(&bytes) {
        Ok(_) => bytes,
        Err(_) => Bytes::from(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<String> {
        let (mut decoder, mut out) = (SseDecoder::default(), Vec::new());
        let mut collect = |frame: Frame| out.push(String::from_utf8(frame.data.to_vec()).expect("valid UTF-8"));
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame().expect("below the size limit") {
                collect(frame);
            }
        }
        decoder.finish().into_iter().for_each(collect);
        out
    }

    const CASES: &[(&[u8], &[&str])] = &[
        (b"data: a\n\ndata: b\n\n", &["a", "b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
        (b"data: a\r\rdata: b\r\r", &["a", "b"]),
        (b"\xef\xbb\xbfdata: a\n\n", &["a"]),
        (b"data:a\n\ndata:  b\n\n", &["a", " b"]),
        (b"data: a\ndata: b\ndata\n\n", &["a\nb\n"]),
        (b": hi\ndata: a\n: more\n\n:\n\n", &["a"]),
        (b"event: x\n\ndata: a\n\n", &["a"]),
        (b"id: 1\nretry: 5\nevent: error\ndata: a\n\n", &["a"]),
        (b"data: a\n\ndata: last", &["a", "last"]),
        (b"data: \xff\xfe\n\n", &["\u{fffd}\u{fffd}"]),
        (b"data: \xe4\xbd\xa0\n\n", &["\u{4f60}"]),
        (b"{\"error\":1}\n\n", &["{\"error\":1}"]),
        (b"data:\n\ndata: a\n\n", &["", "a"]),
        (b"\n\n\r\n: c", &[]),
    ];

    #[test]
    fn events_do_not_depend_on_chunk_boundaries() {
        for (bytes, want) in CASES {
            assert_eq!(decode(&[bytes]), *want, "{:?}", bytes.escape_ascii().to_string());
            for at in 0..=bytes.len() {
                assert_eq!(decode(&[&bytes[..at], &bytes[at..]]), *want, "{} split at {at}", bytes.escape_ascii());
            }
            let single_bytes: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode(&single_bytes), *want, "{} byte by byte", bytes.escape_ascii());
        }
    }

    #[test]
    fn event_name_and_raw_bytes_are_preserved() {
        let mut decoder = SseDecoder::default();
        decoder.push(b"event: error\ndata: x\n\nrest");
        let frame = decoder.next_frame().expect("below the size limit").expect("a complete event");
        assert_eq!((&frame.event[..], &frame.raw[..]), (&b"error"[..], &b"event: error\ndata: x\n\n"[..]));
    }

    #[test]
    fn raw_frames_add_up_to_the_input_stream() {
        let streams: [&[u8]; 4] = [
            b"data: a\n\nevent: x\nid: 3\ndata: b\n\n",
            b"data: a\r\n\r\ndata: b\r\ndata: c\r\n\r\n",
            b"data: a\r\rdata: b\r\r",
            b"data:a\n\ndata\n\n",
        ];
        for stream in streams {
            for at in 0..=stream.len() {
                let (mut decoder, mut raw) = (SseDecoder::default(), Vec::new());
                for chunk in [&stream[..at], &stream[at..]] {
                    decoder.push(chunk);
                    while let Some(frame) = decoder.next_frame().expect("below the size limit") {
                        raw.extend_from_slice(&frame.raw);
                    }
                }
                assert_eq!(raw.escape_ascii().to_string(), stream.escape_ascii().to_string(), "split at {at}");
            }
        }
    }

    #[test]
    fn endless_line_is_an_error_and_endless_comment_is_not_buffered() {
        let block = vec![b'x'; 1 << 20];
        let mut decoder = SseDecoder::default();
        decoder.push(b"data: ");
        let mut is_error = false;
        for _ in 0..20 {
            decoder.push(&block);
            is_error |= decoder.next_frame().is_err();
        }
        assert!(is_error);

        let mut decoder = SseDecoder::default();
        decoder.push(b": ");
        for _ in 0..40 {
            decoder.push(&block);
            assert!(decoder.next_frame().expect("comments do not count").is_none());
            assert_eq!(decoder.buffer.len(), 0);
        }
        decoder.push(b"\ndata: a\n\n");
        assert_eq!(&decoder.next_frame().expect("below the size limit").expect("a complete event").data[..], b"a");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_give_the_same_events_for_all_chunk_boundaries(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'{'), Just(b'd'), any::<u8>(),
                ], 0..120),
            lines in proptest::collection::vec(prop_oneof!["data: ?[a-c]*", ": .*", "event: x", ""], 0..12),
            splits in proptest::collection::vec(0usize..400, 0..6),
        ) {
            let mut input = lines.join("\n").into_bytes();
            input.extend(bytes);
            let mut splits: Vec<usize> = splits.into_iter().map(|split| split.min(input.len())).collect();
            splits.extend([0, input.len()]);
            splits.sort_unstable();
            let chunks: Vec<&[u8]> = splits.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&[&input]), decode(&chunks));
        }
    }
}
