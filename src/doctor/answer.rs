//! A real question to a model: does it answer, does the answer stream, is it whole, are its tokens told.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{Finding, Told, Verdict};
use crate::{
    engine::{
        Account, Engine, EventKind, LaneOutcome,
        plan::{Lane, Plan},
    },
    model::{Call, ChatRequest, Message, Params, Role, target::Target},
};

/// Long enough to see whether it streams, and cheap.
const QUESTION: &str = "Count from 1 to 20 in words, one on each line, and nothing else.";
const MOST_TOKENS: u64 = 120;
/// An answer that took less came too fast to tell.
const TELLING: Duration = Duration::from_millis(400);

/// What came of it.
struct Answered {
    account: Account,
    outcome: LaneOutcome,
    /// When each read of the network brought words.
    reads: Vec<Instant>,
    /// How many pieces they were.
    pieces: usize,
    begun: Instant,
}

pub(super) async fn ask(engine: &Arc<Engine>, model: &Arc<Target>, limit: Duration, told: &dyn Told) -> Vec<Finding> {
    let messages = vec![Message::text(Role::User, QUESTION)];
    let params = Params { max_tokens: Some(MOST_TOKENS), ..Params::default() };
    let call = Call::Chat(ChatRequest { messages, params, stream: true, ..ChatRequest::default() });
    let alone = Lane::alone(model.id.0.clone(), Arc::new(call), Arc::clone(model));
    let lane = Lane { deadline: Some(limit), ..alone };
    let plan = Plan::of(lane);
    told.begins(&plan);
    let begun = Instant::now();
    let mut answered: Option<Answered> = None;
    let (mut account, mut reads, mut pieces) = (Account::default(), Vec::new(), 0);
    let mut events = std::pin::pin!(engine.run(plan.clone()));
    while let Some(event) = events.next().await {
        told.event(&plan, &event);
        match event.kind {
            EventKind::Deltas(deltas) => {
                let words = deltas.iter().filter(|delta| delta.kind.is_output()).count();
                if words > 0 {
                    reads.push(event.at);
                    pieces += words;
                }
                for delta in &deltas {
                    account.add(delta, false);
                }
            }
            EventKind::Finished(outcome) => {
                let (account, reads) = (std::mem::take(&mut account), std::mem::take(&mut reads));
                answered = Some(Answered { account, outcome: *outcome, reads, pieces, begun });
            }
            _ => {}
        }
    }
    answered.map(|answered| findings(&answered)).unwrap_or_default()
}

fn findings(answered: &Answered) -> Vec<Finding> {
    let outcome = &answered.outcome;
    let mut findings = Vec::new();
    if let Err(error) = &outcome.result {
        findings.push(Finding::failed("answer", error));
        if !outcome.cut {
            return findings;
        }
    } else {
        let ttft = outcome.ttft.map(|ttft| format!("first words after {} ms, ", ttft.as_millis())).unwrap_or_default();
        let seen = format!("{ttft}all after {} ms", outcome.total.as_millis());
        findings.push(Finding::new("answer", Verdict::Good, seen));
    }
    findings.push(streaming(answered));
    findings.push(match answered.account.reported() {
        Some(_) => Finding::new("usage", Verdict::Good, "tokens are reported"),
        None => Finding::new("usage", Verdict::Note, "no tokens are reported: they, and the cost, are estimated"),
    });
    if let Ok(whole) = &outcome.result {
        findings.push(match &whole.reason {
            Some(reason) => Finding::new("finish", Verdict::Good, format!("finish_reason: {}", reason.as_str())),
            None => Finding::new("finish", Verdict::Note, "no finish_reason: a cut answer looks like a whole one"),
        });
    }
    findings
}

/// Whether words came as they were made, or all at once at the end.
fn streaming(answered: &Answered) -> Finding {
    let Answered { reads, pieces, begun, .. } = answered;
    let what = "streaming";
    let (Some(&first), Some(&last)) = (reads.first(), reads.last()) else {
        return Finding::new(what, Verdict::Unknown, "there were no words");
    };
    let (waited, flowed) = (first - *begun, last - first);
    if *pieces < 3 {
        return Finding::new(what, Verdict::Note, "the answer came in one piece")
            .advice("the service does not stream, or something on the way joins its pieces");
    }
    // Words take time to make: when all were there as soon as the first was, somebody held them back.
    if waited >= TELLING && flowed < waited / 10 && reads.len() < *pieces / 3 {
        let seen = format!("{pieces} pieces came at once, after {} ms", waited.as_millis());
        return Finding::new(what, Verdict::Note, seen)
            .advice("something on the way holds the answer back until it is whole: switch buffering off there (nginx: proxy_buffering off)");
    }
    Finding::new(what, Verdict::Good, format!("{pieces} pieces over {} ms", flowed.as_millis()))
}
