//! Sends a test request to a model and checks the answer: streaming, completeness and reported usage.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{DoctorObserver, Finding, Verdict};
use crate::{
    engine::{
        CallRecord, Engine, EventKind,
        plan::{Call, Plan},
    },
    model::{ChatRequest, Message, ModelRequest, Params, Role, target::Target},
};

/// The answer is long enough to detect streaming, and cheap.
const QUESTION: &str = "Count from 1 to 20 in words, one on each line, and nothing else.";
const MAX_TOKENS: u64 = 120;
/// Minimum wait for the first token from which buffering can be detected.
const MIN_CONCLUSIVE_WAIT: Duration = Duration::from_millis(400);

/// Result of the test request.
struct TestAnswer {
    record: Arc<CallRecord>,
    /// Times of the reads that contained output.
    reads: Vec<Instant>,
    /// Number of output chunks.
    chunks: usize,
    started: Instant,
}

pub(super) async fn check_answer(
    engine: &Arc<Engine>,
    model: &Arc<Target>,
    timeout: Duration,
    observer: &dyn DoctorObserver,
) -> Vec<Finding> {
    let messages = vec![Message::text(Role::User, QUESTION)];
    let params = Params { max_tokens: Some(MAX_TOKENS), ..Params::default() };
    let request = ModelRequest::Chat(ChatRequest { messages, params, stream: true, ..ChatRequest::default() });
    let call = Call::single(model.id.0.clone(), Arc::new(request), Arc::clone(model));
    let call = Call { deadline: Some(timeout), ..call };
    let plan = Plan::single(call);
    observer.on_start(&plan);
    let started = Instant::now();
    let mut test_answer: Option<TestAnswer> = None;
    let (mut reads, mut chunks) = (Vec::new(), 0);
    let mut events = std::pin::pin!(engine.run(plan.clone()));
    while let Some(event) = events.next().await {
        observer.on_event(&plan, &event);
        match event.kind {
            EventKind::Deltas(batch) => {
                let new_chunks = batch.deltas.iter().filter(|delta| delta.kind.is_output()).count();
                if new_chunks > 0 {
                    reads.push(event.at);
                    chunks += new_chunks;
                }
            }
            EventKind::Finished(record) => {
                let reads = std::mem::take(&mut reads);
                test_answer = Some(TestAnswer { record, reads, chunks, started });
            }
            _ => {}
        }
    }
    test_answer.map(|test_answer| findings(&test_answer)).unwrap_or_default()
}

fn findings(test_answer: &TestAnswer) -> Vec<Finding> {
    let record = &test_answer.record;
    let mut findings = Vec::new();
    if let Err(error) = &record.result {
        findings.push(Finding::from_error("answer", error));
        if !record.incomplete {
            return findings;
        }
    } else {
        let ttft = record.ttft.map(|ttft| format!("first token after {} ms, ", ttft.as_millis())).unwrap_or_default();
        let detail = format!("{ttft}complete after {} ms", record.total.as_millis());
        findings.push(Finding::new("answer", Verdict::Pass, detail));
    }
    findings.push(check_streaming(test_answer));
    findings.push(match record.answer.reported_usage() {
        Some(_) => Finding::new("usage", Verdict::Pass, "token usage is reported"),
        None => Finding::new("usage", Verdict::Note, "token usage is not reported; tokens and cost are estimated"),
    });
    if let Ok(completion) = &record.result {
        findings.push(match &completion.finish_reason {
            Some(reason) => Finding::new("finish", Verdict::Pass, format!("finish_reason: {}", reason.as_str())),
            None => Finding::new("finish", Verdict::Note, "no finish_reason: an incomplete answer cannot be detected"),
        });
    }
    findings
}

/// Checks whether the answer arrived incrementally or all at once at the end.
fn check_streaming(test_answer: &TestAnswer) -> Finding {
    let TestAnswer { reads, chunks, started, .. } = test_answer;
    let check = "streaming";
    let (Some(&first), Some(&last)) = (reads.first(), reads.last()) else {
        return Finding::new(check, Verdict::Unknown, "no output");
    };
    let (waited, streamed) = (first - *started, last - first);
    if *chunks < 3 {
        return Finding::new(check, Verdict::Note, "the answer arrived in fewer than 3 chunks")
            .with_hint("check for a proxy that joins the chunks; not every service streams");
    }
    // Generating tokens takes time: if all of them arrive together with the first, a proxy buffered them.
    if waited >= MIN_CONCLUSIVE_WAIT && streamed < waited / 10 && reads.len() < *chunks / 3 {
        let detail = format!("{chunks} chunks arrived at once, after {} ms", waited.as_millis());
        return Finding::new(check, Verdict::Note, detail)
            .with_hint("turn off buffering in the proxy before the service (nginx: proxy_buffering off)");
    }
    Finding::new(check, Verdict::Pass, format!("{chunks} chunks over {} ms", streamed.as_millis()))
}
