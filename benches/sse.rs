//! Benchmark: throughput of the SSE decoder with reads of 64 KiB.
#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mmchat::internals::protocol::framing::sse::SseDecoder;

const READ: usize = 64 * 1024;

/// A stream of typical chunks, `size` bytes or slightly more.
fn stream(size: usize, line_end: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut count = 0;
    while out.len() < size {
        count += 1;
        let chunk = format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word{count} \"}},\"finish_reason\":null}}]}}{line_end}{line_end}"
        );
        out.extend_from_slice(chunk.as_bytes());
    }
    out
}

fn decode(bytes: &[u8]) -> usize {
    let (mut decoder, mut total) = (SseDecoder::default(), 0);
    for read in bytes.chunks(READ) {
        decoder.push(read);
        while let Some(frame) = decoder.next_frame().expect("events within the size limit") {
            total += frame.data.len();
        }
    }
    total
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse");
    let large = format!("data: {}\n\n", "x".repeat(2 << 20)).into_bytes();
    for (name, bytes) in
        [("lf", stream(8 << 20, "\n")), ("crlf", stream(8 << 20, "\r\n")), ("one event of 2 MiB", large)]
    {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(black_box(&bytes))));
    }
    group.finish();
}

criterion_group!(sse, benches);
criterion_main!(sse);
