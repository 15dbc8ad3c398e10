//! Undoes `Content-Encoding: gzip` and `deflate`, sent by some proxies whether asked for or not.
//!
//! Owns the limit on what a few bytes may become. Refuses I/O: bytes in, bytes out.

use flate2::{Decompress, FlushDecompress, Status};

/// An answer is not as repetitive as this: more than so much output, at more than so much per byte, is an attack.
const SUSPICIOUS_OUTPUT: u64 = 64 * 1024 * 1024;
const SUSPICIOUS_RATIO: u64 = 100;
const LONGEST_HEADER: usize = 64 * 1024;

/// Compressed bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InflateError {
    /// They are damaged.
    #[error("the compressed reply is damaged")]
    Damaged(#[source] flate2::DecompressError),
    /// The gzip header is none.
    #[error("the reply claims to be gzip and is not")]
    NotGzip,
    /// They grow out of all proportion.
    #[error("the compressed reply grows more than a hundredfold; stopped at 64 MiB")]
    Bomb,
}

/// Inflates one body.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    /// The gzip header, until it is whole; `None` once past it.
    header: Option<Vec<u8>>,
    done: bool,
}

impl Inflater {
    /// For a `content-encoding`; `None` when it is one this cannot undo.
    #[must_use]
    pub fn for_encoding(encoding: &str) -> Option<Self> {
        match encoding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self { stream: Decompress::new(false), header: Some(Vec::new()), done: false }),
            "deflate" => Some(Self { stream: Decompress::new(true), header: None, done: false }),
            _ => None,
        }
    }

    /// Inflates `input` piece by piece into `sink`, in bounded pieces.
    ///
    /// # Errors
    /// When the bytes are damaged or grow out of proportion.
    pub fn push(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), InflateError> {
        let rest;
        let mut input = match &mut self.header {
            None => input,
            Some(header) => {
                header.extend_from_slice(input);
                match gzip_header_length(header)? {
                    // A file's name and comment are short: this is no header.
                    None if header.len() > LONGEST_HEADER => return Err(InflateError::NotGzip),
                    None => return Ok(()),
                    Some(length) => {
                        rest = header.split_off(length);
                        self.header = None;
                        &rest
                    }
                }
            }
        };
        let mut piece = vec![0; 16 * 1024];
        while !self.done {
            let (read_before, written_before) = (self.stream.total_in(), self.stream.total_out());
            let status =
                self.stream.decompress(input, &mut piece, FlushDecompress::Sync).map_err(InflateError::Damaged)?;
            let (read, written) = (self.stream.total_in() - read_before, self.stream.total_out() - written_before);
            if self.is_bomb() {
                return Err(InflateError::Bomb);
            }
            sink(&piece[..usize::try_from(written).expect("at most one piece")]);
            input = &input[usize::try_from(read).expect("at most the input")..];
            // What follows the end is the checksum, which TCP and TLS have made needless.
            self.done = status == Status::StreamEnd;
            if read == 0 && written == 0 {
                break;
            }
        }
        Ok(())
    }

    fn is_bomb(&self) -> bool {
        let output = self.stream.total_out();
        output > SUSPICIOUS_OUTPUT && output / SUSPICIOUS_RATIO > self.stream.total_in()
    }
}

/// The length of the gzip header (RFC 1952, 2.3), once it is whole.
fn gzip_header_length(bytes: &[u8]) -> Result<Option<usize>, InflateError> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const CHECKSUM: u8 = 2;
    if !b"\x1f\x8b\x08".starts_with(&bytes[..bytes.len().min(3)]) {
        return Err(InflateError::NotGzip);
    }
    let Some(&flags) = bytes.get(3) else { return Ok(None) };
    let mut at = 10;
    if flags & EXTRA != 0 {
        let (Some(&low), Some(&high)) = (bytes.get(at), bytes.get(at + 1)) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(0, rest)) else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & CHECKSUM != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new().filename("name").write(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn cut_anywhere_it_is_the_same() {
        let packed = gzip(b"data: hello hello hello\n\n");
        for cut in 0..=packed.len() {
            let (mut inflater, mut out) = (Inflater::for_encoding("gzip").expect("known"), Vec::new());
            for piece in [&packed[..cut], &packed[cut..]] {
                inflater.push(piece, |bytes| out.extend_from_slice(bytes)).expect("whole");
            }
            assert_eq!(out, b"data: hello hello hello\n\n", "cut at {cut}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_and_damage_is_named() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..80 {
            encoder.write_all(&vec![b'x'; 1 << 20]).expect("memory");
        }
        let bomb = encoder.finish().expect("memory");
        let mut inflater = Inflater::for_encoding("gzip").expect("known");
        assert!(matches!(inflater.push(&bomb, |_| {}), Err(InflateError::Bomb)));
        let mut inflater = Inflater::for_encoding("gzip").expect("known");
        assert!(matches!(inflater.push(b"<html>", |_| {}), Err(InflateError::NotGzip)));
        assert!(Inflater::for_encoding("br").is_none());
        let mut inflater = Inflater::for_encoding("gzip").expect("known");
        inflater.push(b"\x1f\x8b\x08\x08\0\0\0\0\0\0", |_| {}).expect("a header begins");
        let endless_name = vec![b'n'; LONGEST_HEADER];
        assert!(matches!(inflater.push(&endless_name, |_| {}), Err(InflateError::NotGzip)));
    }
}
