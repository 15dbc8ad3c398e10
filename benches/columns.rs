//! Benchmark: column layout of long answers.
#![allow(missing_docs, reason = "criterion's macros generate undocumented functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mmchat::internals::render::{AnswerBlock, render_columns, wrap};

/// At least `size` bytes of text in several scripts, with lists and code.
fn prose(size: usize) -> String {
    let page = "Rust's borrow checker enforces three rules at compile time: one owner, many readers or one writer.\n\
        借用检查器在编译期运行。它记录谁拥有一个值，并且拒绝悬垂引用。\n\n\
        - a list item that is long enough to be wrapped in its column, 👋 and more of it\n\
        ```\nlet x = 1;\n```\n";
    page.repeat(size / page.len() + 1)
}

fn layout(criterion: &mut Criterion) {
    let text = prose(200_000);
    let block = AnswerBlock {
        heading: "1 model  ok".into(),
        fixed_width: wrap::widest_fixed_line(&text),
        text,
        has_answer: true,
    };
    let blocks = vec![block; 5];
    let mut group = criterion.benchmark_group("columns");
    group.throughput(Throughput::Bytes(1_000_000));
    group.bench_function("1 MB in five columns", |bencher| bencher.iter(|| render_columns(&blocks, 200, true)));
    group.finish();
}

criterion_group!(benches, layout);
criterion_main!(benches);
