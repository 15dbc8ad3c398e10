//! Accumulates the text, state and metrics of one call of a comparison from its events.
//!
//! Does not know the other calls, so no call can change what is shown of another.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    engine::{AccumulatedAnswer, CallRecord, Event, EventKind},
    model::{
        Delta, DeltaKind, FinishReason, Usage,
        sanitize::{Sanitizer, sanitize},
        target::Target,
    },
    render::{
        answer_warnings,
        metrics::{self, CallMetrics},
        notice,
        report::ReportCall,
        timeline::Timeline,
    },
};

/// Maximum bytes kept of the last line; a status row shows no more.
const MAX_TAIL_BYTES: usize = 1024;

/// One call.
#[derive(Debug)]
pub(super) struct CallView {
    /// The requested name.
    pub(super) name: String,
    pub(super) accumulated: AccumulatedAnswer,
    current_attempt: Option<(Arc<Target>, Instant)>,
    first_output_at: Option<Instant>,
    ttft: Option<Duration>,
    sanitizer: Sanitizer,
    tail: String,
    record: Option<Arc<CallRecord>>,
    /// The cost of the earlier runs of a restarted call, with its currency.
    earlier_costs: Vec<(f64, String)>,
    /// Incremented whenever the text is replaced.
    generation: u32,
}

/// The stage of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for a free slot.
    Queued,
    /// The request was sent; no output yet.
    Waiting,
    /// Output is arriving.
    Streaming,
    /// The answer is complete.
    Complete,
    /// The answer is complete, but empty or ended by a limit, a filter or tool calls.
    Warning,
    /// There is no complete answer.
    Failed,
}

impl CallView {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            accumulated: AccumulatedAnswer::default(),
            current_attempt: None,
            first_output_at: None,
            ttft: None,
            sanitizer: Sanitizer::default(),
            tail: String::new(),
            record: None,
            earlier_costs: Vec::new(),
            generation: 0,
        }
    }

    /// Applies an event of this call.
    pub(super) fn on_event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Started(target) => self.current_attempt = Some((Arc::clone(target), event.at)),
            EventKind::Deltas(batch) | EventKind::BufferedDeltas(batch) => {
                if batch.deltas.iter().any(|delta| delta.kind.is_output()) {
                    self.first_output_at.get_or_insert(event.at);
                }
                for delta in &batch.deltas {
                    self.on_delta(delta);
                }
            }
            EventKind::FirstToken(ttft) => self.ttft = Some(*ttft),
            EventKind::Failed { record, .. } => {
                self.current_attempt = Some((Arc::clone(&record.target), event.at));
                self.restart();
            }
            EventKind::Headers(_) | EventKind::Notice(_) => {}
            EventKind::Restarted => self.reset(),
            EventKind::Finished(record) => self.finish(record),
        }
    }

    /// Resets everything but the cost so far, because the user restarted the call.
    fn reset(&mut self) {
        let mut earlier_costs = std::mem::take(&mut self.earlier_costs);
        let cost = self.record.as_ref().and_then(|record| record.cost());
        earlier_costs.extend(cost.map(|(cost, currency)| (cost, currency.to_owned())));
        let (name, generation) = (std::mem::take(&mut self.name), self.generation + 1);
        *self = Self { earlier_costs, generation, ..Self::new(name) };
    }

    fn on_delta(&mut self, delta: &Delta) {
        let only_refusal = !self.accumulated.content.refusal.is_empty() && self.accumulated.content.text.is_empty();
        self.accumulated.add(delta, true);
        // Text replaces a refusal that was shown.
        self.generation += u32::from(only_refusal && !self.accumulated.content.text.is_empty());
        if let (0, DeltaKind::Text(text) | DeltaKind::Refusal(text) | DeltaKind::Reasoning(text)) =
            (delta.choice, &delta.kind)
        {
            self.sanitizer.push(text, &mut self.tail);
            let line_start = self.tail.trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
            let mut start = line_start.max(self.tail.len().saturating_sub(MAX_TAIL_BYTES));
            while !self.tail.is_char_boundary(start) {
                start += 1;
            }
            self.tail.drain(..start);
        }
    }

    /// Discards the output of a failed attempt before the next one starts.
    fn restart(&mut self) {
        self.generation += 1;
        self.accumulated = AccumulatedAnswer::default();
        self.sanitizer = Sanitizer::default();
        self.tail.clear();
        self.first_output_at = None;
        self.ttft = None;
    }

    fn finish(&mut self, record: &Arc<CallRecord>) {
        let previous_length = self.visible_text().len();
        self.accumulated = record.answer.clone();
        // The record may hold the incomplete answer of an earlier attempt.
        self.generation += u32::from(previous_length != self.visible_text().len());
        self.tail = String::new();
        self.record = Some(Arc::clone(record));
    }

    /// The record; `None` while the call runs.
    pub(super) fn record(&self) -> Option<&CallRecord> {
        self.record.as_deref()
    }

    /// The stage of the call, from its events so far.
    pub(super) fn stage(&self) -> Stage {
        match (&self.record, self.current_attempt.is_some()) {
            (None, false) => Stage::Queued,
            (None, true) if self.first_output_at.is_none() => Stage::Waiting,
            (None, true) => Stage::Streaming,
            (Some(record), _) if record.result.is_err() => Stage::Failed,
            (Some(_), _) if self.warning_label().is_some() => Stage::Warning,
            (Some(_), _) => Stage::Complete,
        }
    }

    /// The state in a word.
    pub(super) fn state_label(&self) -> String {
        let Some(record) = &self.record else {
            return if self.stage() == Stage::Queued { "queued" } else { ".." }.to_owned();
        };
        match &record.result {
            Err(_) if record.stopped => "stopped".to_owned(),
            Err(_) if record.incomplete => "incomplete".to_owned(),
            Err(error) => format!("ERR {}", error.class),
            Ok(_) => self.warning_label().unwrap_or("ok").to_owned(),
        }
    }

    /// Why a complete answer needs a warning.
    fn warning_label(&self) -> Option<&'static str> {
        match self.record.as_ref()?.result.as_ref().ok()?.finish_reason {
            Some(FinishReason::Length) => Some("length"),
            Some(FinishReason::ContentFilter) => Some("filter"),
            Some(FinishReason::ToolCalls) => Some("tools"),
            _ if self.accumulated.is_empty() => Some("empty"),
            _ => None,
        }
    }

    /// The text followed by the refusal, if any, without control sequences.
    pub(super) fn text(&self) -> String {
        sanitize(&self.raw_text())
    }

    /// Like `text`, but as received.
    pub(super) fn raw_text(&self) -> std::borrow::Cow<'_, str> {
        let answer = &self.accumulated.content;
        match (answer.text.is_empty(), answer.refusal.is_empty()) {
            (_, true) => (&answer.text).into(),
            (true, false) => (&answer.refusal).into(),
            (false, false) => format!("{}\n{}", answer.text, answer.refusal).into(),
        }
    }

    /// The text to show during streaming, as received; the refusal if there is no text.
    pub(super) fn visible_text(&self) -> &str {
        let answer = &self.accumulated.content;
        if answer.text.is_empty() { &answer.refusal } else { &answer.text }
    }

    /// The generation of the text: it changes whenever the text is replaced.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The last line of the reasoning, as long as there is no text.
    pub(super) fn reasoning_line(&self) -> Option<String> {
        Some(self.last_line().replace('\t', " ")).filter(|tail| !tail.is_empty() && self.visible_text().is_empty())
    }

    /// The message about how the call ended.
    pub(super) fn note(&self) -> Option<String> {
        let record = self.record.as_ref()?;
        match &record.result {
            Err(_) if record.stopped => Some("[interrupted]".to_owned()),
            Err(error) => Some(notice::format_call_failure(&self.name, error, record)),
            Ok(completion) => answer_warnings::warnings(&self.accumulated, completion.finish_reason.as_ref()),
        }
    }

    /// The name in the note: the target of a failure, or the call if several attempts failed; empty for a warning.
    pub(super) fn note_subject(&self) -> &str {
        match &self.record {
            Some(record) if record.result.is_err() && !record.stopped => match &record.target {
                Some(target) if record.incomplete || record.attempts.len() <= 1 => &target.id.0,
                _ => &self.name,
            },
            _ => "",
        }
    }

    /// Drops the texts once they are shown.
    pub(super) fn clear_text(&mut self) {
        let answer = &mut self.accumulated.content;
        (answer.text, answer.reasoning, answer.refusal) = Default::default();
    }

    /// The answer, if it is complete.
    pub(super) fn complete_text(&self) -> Option<String> {
        matches!(self.stage(), Stage::Complete | Stage::Warning).then(|| self.text())
    }

    /// The data for a report.
    pub(super) fn report(&self, timeline: Timeline) -> ReportCall {
        let record = self.record();
        ReportCall {
            metrics: self.metrics(),
            endpoint: self.target().map(|target| target.endpoint.name.clone()),
            is_complete: matches!(self.stage(), Stage::Complete | Stage::Warning),
            note: self.note(),
            text: self.text(),
            reasoning: sanitize(&self.accumulated.content.reasoning),
            first_output: record.and_then(|record| record.first_output),
            attempt_count: record.map_or(0, |record| record.attempts.len()),
            timeline: timeline.scaled_to(self.tokens()),
        }
    }

    /// The metrics for a table.
    pub(super) fn metrics(&self) -> CallMetrics {
        let (record, usage) = (self.record(), self.usage());
        let speed = record.zip(usage).and_then(|(record, usage)| metrics::tokens_per_second(&usage, record));
        CallMetrics {
            name: self.name.clone(),
            model: self.target().map(|target| target.id.0.clone()),
            state: self.state_label(),
            ttft: self.ttft(),
            total: record.map(|record| record.total),
            usage,
            tokens_per_second: speed,
            cost: self.cost().map(|(cost, currency)| (cost, currency.to_owned())),
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.record.as_ref()?.usage
    }

    /// Time to first token, as measured by the engine.
    pub(super) fn ttft(&self) -> Option<Duration> {
        self.record.as_ref().map_or(self.ttft, |record| record.ttft)
    }

    /// Time since the current attempt started.
    pub(super) fn waiting_time(&self, now: Instant) -> Duration {
        self.current_attempt.as_ref().map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }

    /// Output tokens so far, if reported.
    pub(super) fn reported_tokens(&self) -> Option<u64> {
        self.accumulated.content.usage.and_then(|usage| usage.output)
    }

    /// Output tokens so far: reported, else estimated.
    pub(super) fn tokens(&self) -> u64 {
        self.reported_tokens().unwrap_or_else(|| self.accumulated.output_counter.tokens())
    }

    /// Tokens per second so far.
    pub(super) fn tokens_per_second(&self, now: Instant) -> Option<f64> {
        if let Some(record) = &self.record {
            return metrics::tokens_per_second(&self.usage()?, record);
        }
        let seconds = now.saturating_duration_since(self.first_output_at?).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let tokens = self.tokens() as f64;
        (seconds >= 0.2).then(|| tokens / seconds)
    }

    /// The last line of the text or the reasoning.
    pub(super) fn last_line(&self) -> &str {
        self.tail.trim_end()
    }

    /// The target that answered, else the current one.
    pub(super) fn target(&self) -> Option<&Arc<Target>> {
        let answered = self.record.as_ref().and_then(|record| record.target.as_ref());
        answered.or(self.current_attempt.as_ref().map(|(target, _)| target))
    }

    /// The cost, that of its earlier runs included, with the currency code.
    pub(super) fn cost(&self) -> Option<(f64, &str)> {
        let record = self.record.as_ref()?;
        let currency = &record.target.as_ref()?.price.as_ref()?.currency;
        let earlier = self.earlier_costs.iter().filter(|(_, own)| own == currency).map(|(cost, _)| *cost);
        let costs = earlier.chain(record.cost().map(|(cost, _)| cost));
        costs.reduce(|sum, cost| sum + cost).map(|cost| (cost, currency.as_str()))
    }
}
