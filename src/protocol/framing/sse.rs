//! Server-sent events: bytes in, frames out.
//!
//! Owns the line and event rules of the WHATWG specification (<https://html.spec.whatwg.org/multipage/server-sent-events.html>)
//! and the two liberties that real services need: a line that begins with `{` counts as data although it has no
//! field name, and an event that is ended by the end of the stream alone is still delivered. Refuses I/O and JSON.
//!
//! Linear in its input: bytes are scanned once, events are slices of the buffer they were read into, and only an
//! event of several data lines or with invalid UTF-8 is copied. Memory is bounded by [`MAX_EVENT`] and one read.

use bytes::{Buf, Bytes, BytesMut};

use crate::protocol::{Frame, FrameKind};

/// The largest event that is read, in bytes. A service that sends more has lost its framing, or means harm.
pub const MAX_EVENT: usize = 16 * 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// An event is larger than [`MAX_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than 16 MiB without an end")]
pub struct EventTooLarge;

/// Cuts a byte stream into events.
#[derive(Debug, Default)]
pub struct SseDecoder {
    /// From the start of the open event to the last byte read.
    buffer: BytesMut,
    /// Where the open line starts in `buffer`.
    line: usize,
    /// Up to where `buffer` was searched for a line end.
    scanned: usize,
    /// The values of the open event's data lines.
    data: Vec<(usize, usize)>,
    /// The value of its `event` field.
    event: Option<(usize, usize)>,
    /// It has a field that says nothing here, and is passed on with the others.
    other: bool,
    /// The last line ended in CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The rest of the open line is a comment and was dropped.
    in_comment: bool,
    /// The first bytes were seen, so a byte-order mark can no longer come.
    begun: bool,
}

impl SseDecoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, if there is one.
    ///
    /// # Errors
    /// When the open event is larger than [`MAX_EVENT`]; the stream is then of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, EventTooLarge> {
        if !self.begun && !self.skip_bom() {
            return Ok(None);
        }
        loop {
            if self.after_cr {
                match self.buffer.get(self.line) {
                    None => return Ok(None),
                    Some(b'\n') => self.skip_line_feed(),
                    Some(_) => {}
                }
                self.after_cr = false;
            }
            let Some(found) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
                return self.wait_for_line_end();
            };
            let end = self.scanned + found;
            self.after_cr = self.buffer[end] == b'\r';
            let next = end + 1;
            if std::mem::take(&mut self.in_comment) {
                self.buffer.advance(next);
                (self.line, self.scanned) = (0, 0);
                continue;
            }
            let blank = end == self.line;
            if !blank {
                self.field(self.line, end);
            }
            (self.line, self.scanned) = (next, next);
            if blank && !self.data.is_empty() {
                return Ok(Some(self.dispatch_whole(next)));
            }
            if blank || self.has_no_fields() {
                self.forget(next);
            }
        }
    }

    /// The stream is over: the open event, if it has data.
    pub fn finish(&mut self) -> Option<Frame> {
        if !self.in_comment && self.line < self.buffer.len() {
            self.field(self.line, self.buffer.len());
        }
        (!self.data.is_empty()).then(|| self.dispatch(self.buffer.len()))
    }

    /// Drops the first `n` bytes and whatever was read of the open event.
    fn forget(&mut self, n: usize) {
        self.buffer.advance(n);
        (self.line, self.scanned) = (0, 0);
        (self.event, self.other) = (None, false);
    }

    fn has_no_fields(&self) -> bool {
        self.data.is_empty() && self.event.is_none() && !self.other
    }

    /// False while it is still open whether a byte-order mark begins.
    fn skip_bom(&mut self) -> bool {
        let seen = self.buffer.len().min(BOM.len());
        if self.buffer[..seen] == BOM[..seen] {
            if seen < BOM.len() {
                return false;
            }
            self.buffer.advance(BOM.len());
        }
        self.begun = true;
        true
    }

    /// The LF of a CR LF that was cut in two.
    fn skip_line_feed(&mut self) {
        if self.line == 0 {
            self.buffer.advance(1);
        } else {
            self.line += 1;
        }
        self.scanned = self.line;
    }

    fn wait_for_line_end(&mut self) -> Result<Option<Frame>, EventTooLarge> {
        self.scanned = self.buffer.len();
        if self.in_comment || (self.has_no_fields() && self.buffer.get(self.line) == Some(&b':')) {
            self.in_comment = true;
            self.forget(self.buffer.len());
        }
        if self.buffer.len() > MAX_EVENT { Err(EventTooLarge) } else { Ok(None) }
    }

    fn field(&mut self, start: usize, end: usize) {
        let line = &self.buffer[start..end];
        if line[0] == b'{' {
            self.data.push((start, end));
            return;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = start + (colon + 1 + usize::from(line.get(colon + 1) == Some(&b' '))).min(line.len());
        match &line[..colon] {
            b"data" => self.data.push((value, end)),
            b"event" => self.event = Some((value, end)),
            b"id" | b"retry" => self.other = true,
            // Comments, and names nobody defined.
            _ => {}
        }
    }

    /// The event up to its blank line, with all of that: whoever gets it passed on may look for CR LF CR LF.
    fn dispatch_whole(&mut self, end: usize) -> Frame {
        if !self.after_cr {
            return self.dispatch(end);
        }
        match self.buffer.get(end) {
            Some(b'\n') => {
                self.after_cr = false;
                self.dispatch(end + 1)
            }
            // The LF is on its way, if its lines end so, and is passed over when it comes.
            None if memchr::memmem::find(&self.buffer, b"\r\n").is_some() => {
                let frame = self.dispatch(end);
                Frame { raw: [&frame.raw, &b"\n"[..]].concat().into(), ..frame }
            }
            _ => self.dispatch(end),
        }
    }

    fn dispatch(&mut self, end: usize) -> Frame {
        let raw = self.buffer.split_to(end).freeze();
        (self.line, self.scanned) = (0, 0);
        let event = self.event.take().map(|(from, to)| raw.slice(from..to)).unwrap_or_default();
        let data = match self.data.as_slice() {
            [(from, to)] => raw.slice(*from..*to),
            several => {
                let lines: Vec<&[u8]> = several.iter().map(|&(from, to)| &raw[from..to]).collect();
                Bytes::from(lines.join(&b'\n'))
            }
        };
        self.data.clear();
        self.other = false;
        Frame { data: valid_utf8(data), raw, event, kind: FrameKind::Event }
    }
}

/// `bytes`, with what is no UTF-8 replaced by U+FFFD.
pub(crate) fn valid_utf8(bytes: Bytes) -> Bytes {
    match std::str::from_utf8(&bytes) {
        Ok(_) => bytes,
        Err(_) => Bytes::from(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut decoder, mut out) = (SseDecoder::default(), Vec::new());
        let mut keep = |frame: Frame| out.push(String::from_utf8(frame.data.to_vec()).expect("valid UTF-8"));
        for piece in pieces {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().expect("small events") {
                keep(frame);
            }
        }
        decoder.finish().into_iter().for_each(keep);
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
    fn events_are_the_same_however_the_bytes_are_cut() {
        for (bytes, want) in CASES {
            assert_eq!(read(&[bytes]), *want, "{:?}", bytes.escape_ascii().to_string());
            for cut in 0..=bytes.len() {
                assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), *want, "{} cut at {cut}", bytes.escape_ascii());
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(&single), *want, "{} byte by byte", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_event_name_and_the_raw_bytes_are_kept() {
        let mut decoder = SseDecoder::default();
        decoder.push(b"event: error\ndata: x\n\nrest");
        let frame = decoder.next_frame().expect("small").expect("a frame");
        assert_eq!((&frame.event[..], &frame.raw[..]), (&b"error"[..], &b"event: error\ndata: x\n\n"[..]));
    }

    #[test]
    fn what_is_passed_on_is_every_byte_of_the_events() {
        let streams: [&[u8]; 4] = [
            b"data: a\n\nevent: x\nid: 3\ndata: b\n\n",
            b"data: a\r\n\r\ndata: b\r\ndata: c\r\n\r\n",
            b"data: a\r\rdata: b\r\r",
            b"data:a\n\ndata\n\n",
        ];
        for stream in streams {
            for cut in 0..=stream.len() {
                let (mut decoder, mut raw) = (SseDecoder::default(), Vec::new());
                for piece in [&stream[..cut], &stream[cut..]] {
                    decoder.push(piece);
                    while let Some(frame) = decoder.next_frame().expect("small events") {
                        raw.extend_from_slice(&frame.raw);
                    }
                }
                assert_eq!(raw.escape_ascii().to_string(), stream.escape_ascii().to_string(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused_and_an_endless_comment_costs_nothing() {
        let block = vec![b'x'; 1 << 20];
        let mut decoder = SseDecoder::default();
        decoder.push(b"data: ");
        let mut refused = false;
        for _ in 0..20 {
            decoder.push(&block);
            refused |= decoder.next_frame().is_err();
        }
        assert!(refused);

        let mut decoder = SseDecoder::default();
        decoder.push(b": ");
        for _ in 0..40 {
            decoder.push(&block);
            assert!(decoder.next_frame().expect("a comment has no size").is_none());
            assert_eq!(decoder.buffer.len(), 0);
        }
        decoder.push(b"\ndata: a\n\n");
        assert_eq!(&decoder.next_frame().expect("small").expect("a frame").data[..], b"a");
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_events_whole_and_cut(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'{'), Just(b'd'), any::<u8>(),
                ], 0..120),
            lines in proptest::collection::vec(prop_oneof!["data: ?[a-c]*", ": .*", "event: x", ""], 0..12),
            cuts in proptest::collection::vec(0usize..400, 0..6),
        ) {
            let mut input = lines.join("\n").into_bytes();
            input.extend(bytes);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&[&input]), read(&pieces));
        }
    }
}
