//! Decompresses `Content-Encoding: gzip` and `deflate` with a limit on the expansion ratio.
//!
//! Some proxies compress responses even if the request did not accept it.

use flate2::{Decompress, FlushDecompress, Status};

/// Output above which the expansion ratio is checked.
const BOMB_MIN_OUTPUT: u64 = 64 * 1024 * 1024;
/// Expansion ratio above which a response is treated as an attack: real answers are less repetitive.
const BOMB_MIN_RATIO: u64 = 100;
const MAX_GZIP_HEADER: usize = 64 * 1024;

/// Invalid compressed data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InflateError {
    /// The data is corrupt.
    #[error("corrupt compressed response")]
    Corrupt(#[source] flate2::DecompressError),
    /// The gzip header is invalid.
    #[error("invalid gzip header in the response")]
    InvalidGzipHeader,
    /// The expansion ratio is too high.
    #[error("compressed response expands more than 100 times; stopped at 64 MiB")]
    Bomb,
}

/// Decompresses one response body.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    /// The part of the gzip header read so far; `None`: the header is complete, or the format has none.
    header: Option<Vec<u8>>,
    done: bool,
}

impl Inflater {
    /// Creates a decompressor for a `content-encoding`; `None`: unsupported encoding.
    #[must_use]
    pub fn for_encoding(encoding: &str) -> Option<Self> {
        match encoding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self { stream: Decompress::new(false), header: Some(Vec::new()), done: false }),
            "deflate" => Some(Self { stream: Decompress::new(true), header: None, done: false }),
            _ => None,
        }
    }

    /// Decompresses `input` and passes the output to `sink` in chunks of at most 16 KiB.
    ///
    /// # Errors
    /// When the data is corrupt or its expansion ratio is too high.
    pub fn push(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), InflateError> {
        let after_header;
        let mut input = match &mut self.header {
            None => input,
            Some(header) => {
                header.extend_from_slice(input);
                match gzip_header_len(header)? {
                    // File names and comments in a gzip header are short.
                    None if header.len() > MAX_GZIP_HEADER => return Err(InflateError::InvalidGzipHeader),
                    None => return Ok(()),
                    Some(length) => {
                        after_header = header.split_off(length);
                        self.header = None;
                        &after_header
                    }
                }
            }
        };
        let mut chunk = vec![0; 16 * 1024];
        while !self.done {
            let (read_before, written_before) = (self.stream.total_in(), self.stream.total_out());
            let status =
                self.stream.decompress(input, &mut chunk, FlushDecompress::Sync).map_err(InflateError::Corrupt)?;
            let (read, written) = (self.stream.total_in() - read_before, self.stream.total_out() - written_before);
            if self.is_bomb() {
                return Err(InflateError::Bomb);
            }
            sink(&chunk[..usize::try_from(written).expect("at most one chunk")]);
            input = &input[usize::try_from(read).expect("at most the input length")..];
            // After the end only the checksum follows. It is not verified, because TCP and TLS protect the data.
            self.done = status == Status::StreamEnd;
            if read == 0 && written == 0 {
                break;
            }
        }
        Ok(())
    }

    fn is_bomb(&self) -> bool {
        let output = self.stream.total_out();
        output > BOMB_MIN_OUTPUT && output / BOMB_MIN_RATIO > self.stream.total_in()
    }
}

/// Length of the gzip header (RFC 1952, 2.3); `None` while it is incomplete.
fn gzip_header_len(bytes: &[u8]) -> Result<Option<usize>, InflateError> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const CHECKSUM: u8 = 2;
    if !b"\x1f\x8b\x08".starts_with(&bytes[..bytes.len().min(3)]) {
        return Err(InflateError::InvalidGzipHeader);
    }
    let Some(&flags) = bytes.get(3) else { return Ok(None) };
    let mut offset = 10;
    if flags & EXTRA != 0 {
        let (Some(&low), Some(&high)) = (bytes.get(offset), bytes.get(offset + 1)) else { return Ok(None) };
        offset += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let Some(text_len) = bytes.get(offset..).and_then(|text| memchr::memchr(0, text)) else { return Ok(None) };
            offset += text_len + 1;
        }
    }
    if flags & CHECKSUM != 0 {
        offset += 2;
    }
    Ok((bytes.len() >= offset).then_some(offset))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new().filename("name").write(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("writing to memory");
        encoder.finish().expect("writing to memory")
    }

    #[test]
    fn input_can_be_split_anywhere() {
        let compressed = gzip(b"data: hello hello hello\n\n");
        for split in 0..=compressed.len() {
            let (mut inflater, mut out) = (Inflater::for_encoding("gzip").expect("supported encoding"), Vec::new());
            for part in [&compressed[..split], &compressed[split..]] {
                inflater.push(part, |bytes| out.extend_from_slice(bytes)).expect("valid gzip");
            }
            assert_eq!(out, b"data: hello hello hello\n\n", "split at {split}");
        }
    }

    #[test]
    fn decompression_bomb_and_invalid_gzip_header_are_rejected() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..80 {
            encoder.write_all(&vec![b'x'; 1 << 20]).expect("writing to memory");
        }
        let bomb = encoder.finish().expect("writing to memory");
        let mut inflater = Inflater::for_encoding("gzip").expect("supported encoding");
        assert!(matches!(inflater.push(&bomb, |_| {}), Err(InflateError::Bomb)));
        let mut inflater = Inflater::for_encoding("gzip").expect("supported encoding");
        assert!(matches!(inflater.push(b"<html>", |_| {}), Err(InflateError::InvalidGzipHeader)));
        assert!(Inflater::for_encoding("br").is_none());
        let mut inflater = Inflater::for_encoding("gzip").expect("supported encoding");
        inflater.push(b"\x1f\x8b\x08\x08\0\0\0\0\0\0", |_| {}).expect("incomplete header");
        let long_name = vec![b'n'; MAX_GZIP_HEADER];
        assert!(matches!(inflater.push(&long_name, |_| {}), Err(InflateError::InvalidGzipHeader)));
    }
}
