//! Decompresses `Content-Encoding: gzip` and `deflate` with a limit on the expansion ratio.
//!
//! Some proxies compress responses even if the request did not accept it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
};

use async_compression::tokio::bufread::{GzipDecoder, ZlibDecoder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::{ByteStream, TransportError, TransportErrorKind};

/// Output above which the expansion ratio is checked.
const BOMB_MIN_OUTPUT: u64 = 64 * 1024 * 1024;
/// Expansion ratio above which a response is treated as an attack: real answers are less repetitive.
const BOMB_MIN_RATIO: u64 = 100;
/// The largest piece of output, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// The decompressed body of a response with this `content-encoding`. Data is passed on as soon as it can be
/// decompressed.
///
/// # Errors
/// When the encoding is not supported.
pub(super) fn decompress(encoding: &str, compressed: ByteStream) -> Result<ByteStream, TransportError> {
    let input = Arc::new(Input::default());
    let reader = StreamReader::new(observe(compressed, Arc::clone(&input)));
    Ok(match encoding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Box::pin(read_limited(GzipDecoder::new(reader), input)),
        "deflate" => Box::pin(read_limited(ZlibDecoder::new(reader), input)),
        _ => {
            let message = format!("unsupported content-encoding \"{encoding}\" in the response");
            return Err(TransportError::new(TransportErrorKind::Malformed, message));
        }
    })
}

/// What was read of the compressed data.
#[derive(Debug, Default)]
struct Input {
    bytes: AtomicU64,
    ended: AtomicBool,
}

fn observe(compressed: ByteStream, input: Arc<Input>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let at_end = Arc::clone(&input);
    compressed
        .inspect_ok(move |data| _ = input.bytes.fetch_add(data.len() as u64, Ordering::Relaxed))
        .map_err(io::Error::other)
        .chain(futures_util::stream::poll_fn(move |_| {
            at_end.ended.store(true, Ordering::Relaxed);
            Poll::Ready(None)
        }))
}

/// Reads the output of `decoder` until it ends, is corrupt, or is too large for the compressed bytes read so far.
fn read_limited(
    decoder: impl AsyncRead + Send,
    input: Arc<Input>,
) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
    // Boxed because the reader is not `Unpin`, and the stream moves it.
    let chunks = Box::pin(ReaderStream::with_capacity(decoder, CHUNK_BYTES));
    futures_util::stream::unfold((Some(chunks), 0), move |(chunks, mut written_bytes)| {
        let input = Arc::clone(&input);
        async move {
            let mut chunks = chunks?;
            let error = match chunks.next().await? {
                Ok(chunk) => {
                    written_bytes += chunk.len() as u64;
                    let ratio_limit = input.bytes.load(Ordering::Relaxed).saturating_mul(BOMB_MIN_RATIO);
                    if written_bytes <= BOMB_MIN_OUTPUT || written_bytes <= ratio_limit {
                        return Some((Ok(chunk), (Some(chunks), written_bytes)));
                    }
                    let message = "compressed response expands more than 100 times; stopped at 64 MiB";
                    TransportError::new(TransportErrorKind::Malformed, message)
                }
                Err(error) => transport_error(error, input.ended.load(Ordering::Relaxed))?,
            };
            Some((Err(error), (None, written_bytes)))
        }
    })
}

/// The error of a failed read; `None` if the compressed data only ends too early: whether the answer is complete is
/// decided by its content.
fn transport_error(error: io::Error, input_ended: bool) -> Option<TransportError> {
    // The decoder of `deflate` reports an early end as an error without a kind.
    let is_early_end =
        error.kind() == io::ErrorKind::UnexpectedEof || input_ended && error.to_string().contains("BufError");
    if is_early_end {
        return None;
    }
    Some(match error.downcast::<TransportError>() {
        Ok(error) => error,
        Err(error) => TransportError {
            source: Some(Box::new(error)),
            ..TransportError::new(TransportErrorKind::Malformed, "corrupt compressed response")
        },
    })
}

#[cfg(test)]
mod tests {
    use std::{io::Write, pin::Pin};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new().filename("name").write(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("writing to memory");
        encoder.finish().expect("writing to memory")
    }

    /// The output for compressed data that arrives in these parts, and whether it ends with an error.
    async fn output(encoding: &str, parts: &[&[u8]]) -> (Vec<u8>, Option<String>) {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let mut stream = decompress(encoding, Box::pin(futures_util::stream::iter(parts))).expect("supported encoding");
        let mut out = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => out.extend_from_slice(&chunk),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "nothing follows an error");
                    return (out, Some(error.to_string()));
                }
            }
        }
        (out, None)
    }

    #[tokio::test]
    async fn input_can_be_split_anywhere() {
        let compressed = gzip(b"data: hello hello hello\n\n");
        for split in 0..=compressed.len() {
            let (out, error) = output("GZip", &[&compressed[..split], &compressed[split..]]).await;
            assert_eq!((&out[..], error), (&b"data: hello hello hello\n\n"[..], None), "split at {split}");
        }
    }

    #[tokio::test]
    async fn flushed_data_is_passed_on_while_the_stream_is_open() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"data: 1\n\n").and_then(|()| encoder.flush()).expect("writing to memory");
        let flushed = Bytes::from(encoder.get_ref().clone());
        let open_stream = futures_util::stream::iter([Ok(flushed)]).chain(futures_util::stream::pending());
        let mut stream = decompress("deflate", Box::pin(open_stream)).expect("supported encoding");
        let first = stream.next().await.expect("the stream is open").expect("valid data");
        assert_eq!(&first[..], b"data: 1\n\n");
        let next = futures_util::poll!(Pin::new(&mut stream).next());
        assert!(next.is_pending(), "{next:?}");
    }

    #[tokio::test]
    async fn truncated_data_ends_without_an_error_and_errors_of_the_connection_are_kept() {
        let compressed = gzip(b"data: hello hello hello\n\n");
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(b"data: hello hello hello\n\n").expect("writing to memory");
        let deflated = encoder.finish().expect("writing to memory");
        for (encoding, complete) in [("gzip", compressed), ("deflate", deflated)] {
            for end in 0..complete.len() {
                let (out, error) = output(encoding, &[&complete[..end]]).await;
                assert!(
                    error.is_none() && b"data: hello hello hello\n\n".starts_with(&out),
                    "{encoding} {end}: {error:?}"
                );
            }
        }
        let broken: ByteStream =
            Box::pin(futures_util::stream::iter([Err(TransportError::new(TransportErrorKind::Reset, "lost"))]));
        let mut stream = decompress("gzip", broken).expect("supported encoding");
        let error = stream.next().await.expect("an item").expect_err("the connection is lost");
        assert_eq!((error.kind, error.to_string()), (TransportErrorKind::Reset, "lost".to_owned()));
    }

    #[tokio::test]
    async fn decompression_bomb_and_invalid_data_are_rejected() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..80 {
            encoder.write_all(&vec![b'x'; 1 << 20]).expect("writing to memory");
        }
        let bomb = encoder.finish().expect("writing to memory");
        let (out, error) = output("gzip", &[&bomb]).await;
        assert!(out.len() <= 65 << 20, "{}", out.len());
        assert!(error.is_some_and(|error| error.contains("expands more than 100 times")));
        for corrupt in [&b"<html><body>"[..], b"\x1f\x8b\x08\0\0\0\0\0\0\0<html>"] {
            assert_eq!(output("gzip", &[corrupt]).await.1.as_deref(), Some("corrupt compressed response"));
        }
        let empty: ByteStream = Box::pin(futures_util::stream::empty());
        let error = decompress("br", empty).err().expect("unsupported encoding");
        assert!(error.to_string().contains("\"br\""), "{error}");
    }
}
