//! Bytes of a response body: framing them in one read and in reads of any size gives the same frames.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mmchat::internals::protocol::framing::sse::SseDecoder;

/// The data of all frames, and whether an event was too large.
fn decode(reads: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut decoder, mut frames) = (SseDecoder::default(), Vec::new());
    for read in reads {
        decoder.push(read);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame.data.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    frames.extend(decoder.finish().map(|frame| frame.data.to_vec()));
    (frames, false)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let reads: Vec<&[u8]> = bytes.chunks(usize::from(size).max(1)).collect();
    assert_eq!(decode(&[bytes]), decode(&reads));
});
