//! Benchmark: the record with a million calls: statistics queries, and one more insert.
//!
//! Does not use criterion, because writing the calls takes a while and happens once. `RECORD_CALLS` changes their
//! number.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "benchmark output")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use mmchat::internals::{
    config,
    engine::{AttemptRecord, CallRecord, Completion},
    model::{FinishReason, Usage, target::Target},
    store::record::{Database, GroupBy, RunPlacement, StoredCall},
};

const MODELS: u64 = 10;
/// The hours over which the calls are spread.
const HOURS: u64 = 24 * 30;

fn main() {
    let calls = std::env::var("RECORD_CALLS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("temporary directory");
    let mut database = Database::open(&Database::path_in(folder.path())).expect("new database");
    let models = sample_models();
    let started = Instant::now();
    let now = Timestamp::now();
    let records = (0..calls).map(|number| sample_call(number, now, &models));
    database.insert_calls(records).expect("writable database");
    println!(
        "{calls} calls written in {:.1} s, {:.1} µs each",
        started.elapsed().as_secs_f64(),
        started.elapsed().as_secs_f64() * 1e6 / calls as f64
    );
    for (name, by) in
        [("model", GroupBy::Model), ("endpoint", GroupBy::Endpoint), ("route", GroupBy::Route), ("day", GroupBy::Day)]
    {
        let times: Vec<Duration> = (0..11)
            .map(|_| {
                let started = Instant::now();
                let rows = database.stats(by, None, None).expect("readable database");
                assert!(!rows.is_empty());
                started.elapsed()
            })
            .collect();
        println!("stats --by {name}: {:.1} ms", median(times).as_secs_f64() * 1e3);
    }
    let record = sample_call(1, now, &models);
    let times = (0..101).map(|_| {
        let started = Instant::now();
        database.insert_call(&record, &mut RunPlacement::default()).expect("writable database");
        started.elapsed()
    });
    println!("one more call: {:.3} ms", median(times.collect()).as_secs_f64() * 1e3);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn sample_models() -> Vec<Arc<Target>> {
    let entry = |number: u64| {
        format!("[models.m{number}]\nendpoint = \"e\"\nmodel = \"x{number}\"\nprice = {{ input = 1, output = 2 }}\n")
    };
    let text: String = std::iter::once("[endpoints.e]\nbase_url = \"http://h/v1\"\n".to_owned())
        .chain((0..MODELS).map(entry))
        .collect();
    config::resolve(&text, std::path::Path::new("bench.toml")).expect("valid config").models
}

/// A call of one of the models within the last month.
fn sample_call(number: u64, now: Timestamp, models: &[Arc<Target>]) -> StoredCall {
    let target = Arc::clone(&models[(number % MODELS) as usize]);
    let at = now.checked_sub(Duration::from_secs((number * 7919) % (HOURS * 3600))).expect("timestamp in range");
    // From 50 ms to about 3 s.
    let ttft = Duration::from_micros(50_000 + (number * 2_654_435_761) % 3_000_000);
    let usage = Usage { input: Some(1000), output: Some(300), ..Usage::default() };
    let attempt =
        AttemptRecord { status: Some(200), ttft: Some(ttft), ..AttemptRecord::new(Arc::clone(&target), at, ttft * 3) };
    let attempt = AttemptRecord { usage: Some(usage), ..attempt };
    let record = CallRecord {
        is_route: true,
        started_at: at,
        target: Some(target),
        attempts: vec![attempt],
        ttft: Some(ttft),
        first_output: Some(ttft),
        total: ttft * 3,
        output_duration: ttft * 2,
        usage: Some(usage),
        ..CallRecord::new("chat", Ok(Completion { finish_reason: Some(FinishReason::Stop) }))
    };
    StoredCall { record: Arc::new(record), command: "ask", client: None, index: 0, transcript: None }
}
