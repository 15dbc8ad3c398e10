//! One answer among several: what came of it so far, and how it ended.
//!
//! Owns a lane's text and figures between the engine's events and the arrangements. Refuses to know how many others
//! there are: no lane can change what is shown of another.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::timeline::Timeline;
use crate::{
    engine::{Account, Event, EventKind, LaneOutcome, Progress},
    model::{
        Delta, DeltaKind, FinishReason, Usage,
        sanitize::{Sanitiser, sanitised},
        target::Target,
    },
    render::{
        answer_warnings, notice,
        report::ReportLane,
        stats::{self, Figures},
    },
};

/// As much of the open line as a status row could show.
const LONGEST_TAIL: usize = 1024;

/// One lane.
#[derive(Debug)]
pub(super) struct LaneView {
    /// What it was asked for as.
    pub(super) name: String,
    pub(super) prompt_tokens: u64,
    pub(super) kept: Account,
    /// Until its turn comes: nothing.
    progress: Option<Progress>,
    asking: Option<(Arc<Target>, Instant)>,
    first: Option<Instant>,
    ttft: Option<Duration>,
    sanitiser: Sanitiser,
    tail: String,
    outcome: Option<LaneOutcome>,
    /// Which try its text is of.
    generation: u32,
}

/// Where a lane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Others come first.
    Queued,
    /// Asked, and nothing came yet.
    Waiting,
    /// Some of it is there.
    Coming,
    /// Whole, and as it should be.
    Good,
    /// Whole, but there is something to know: it is empty, or was ended by a limit.
    Odd,
    /// There is no whole answer.
    Bad,
}

impl LaneView {
    pub(super) fn new(name: String, prompt_tokens: u64) -> Self {
        Self {
            name,
            prompt_tokens,
            kept: Account::default(),
            progress: None,
            asking: None,
            first: None,
            ttft: None,
            sanitiser: Sanitiser::default(),
            tail: String::new(),
            outcome: None,
            generation: 0,
        }
    }

    /// Takes notice of what happened in this lane.
    pub(super) fn event(&mut self, event: &Event) {
        self.progress.get_or_insert_with(|| Progress::new(event.at)).event(event);
        match &event.kind {
            EventKind::Started(target) => self.asking = Some((Arc::clone(target), event.at)),
            EventKind::Deltas(deltas) | EventKind::Held(deltas) => {
                if deltas.iter().any(|delta| delta.kind.is_output()) {
                    self.first.get_or_insert(event.at);
                }
                for delta in deltas {
                    self.delta(delta);
                }
            }
            EventKind::Ttft(ttft) => self.ttft = Some(*ttft),
            EventKind::Failed { record, .. } => {
                self.asking = Some((Arc::clone(&record.target), event.at));
                self.start_again(&record.target);
            }
            EventKind::Notice(_) => {}
            EventKind::Again => self.begin_anew(),
            EventKind::Finished(outcome) => self.finish((**outcome).clone()),
        }
    }

    /// The person has had enough at `now`; a lane that is over already stays as it is.
    pub(super) fn interrupt(&mut self, now: Instant) {
        if self.outcome.is_none() {
            let progress = self.progress.take().unwrap_or_else(|| Progress::new(now));
            self.finish(progress.interrupted(now));
        }
    }

    /// The person wants it asked once more: what it cost so far is all that stays.
    fn begin_anew(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.ask_again(self.target().map(|target| &**target), self.prompt_tokens);
        let (name, generation) = (std::mem::take(&mut self.name), self.generation + 1);
        *self = Self { kept, generation, ..Self::new(name, self.prompt_tokens) };
    }

    fn delta(&mut self, delta: &Delta) {
        let only_refusal = !self.kept.answer.refusal.is_empty() && self.kept.answer.text.is_empty();
        self.kept.add(delta, true);
        // Text is shown in place of a refusal.
        self.generation += u32::from(only_refusal && !self.kept.answer.text.is_empty());
        if let (0, DeltaKind::Text(text) | DeltaKind::Refusal(text) | DeltaKind::Reasoning(text)) =
            (delta.choice, &delta.kind)
        {
            self.sanitiser.push(text, &mut self.tail);
            let line = self.tail.trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
            let mut from = line.max(self.tail.len().saturating_sub(LONGEST_TAIL));
            while !self.tail.is_char_boundary(from) {
                from += 1;
            }
            self.tail.drain(..from);
        }
    }

    /// Another attempt begins: what the failed one put out is no part of the answer.
    fn start_again(&mut self, failed: &Target) {
        self.generation += 1;
        self.kept.begin_again(failed, self.prompt_tokens);
        self.sanitiser = Sanitiser::default();
        self.tail.clear();
        self.first = None;
        self.ttft = None;
    }

    fn finish(&mut self, outcome: LaneOutcome) {
        let length = self.shown_text().len();
        self.kept.close(&outcome, self.prompt_tokens);
        // What broke off earlier may stand for the answer now.
        self.generation += u32::from(length != self.shown_text().len());
        self.tail = String::new();
        self.outcome = Some(outcome);
    }

    /// How it ended, once it has.
    pub(super) fn outcome(&self) -> Option<&LaneOutcome> {
        self.outcome.as_ref()
    }

    /// Where it stands.
    pub(super) fn stage(&self) -> Stage {
        match (&self.outcome, self.asking.is_some()) {
            (None, false) => Stage::Queued,
            (None, true) if self.first.is_none() => Stage::Waiting,
            (None, true) => Stage::Coming,
            (Some(outcome), _) if outcome.result.is_err() => Stage::Bad,
            (Some(_), _) if self.odd_ending().is_some() => Stage::Odd,
            (Some(_), _) => Stage::Good,
        }
    }

    /// The state in a word, as every arrangement shows it.
    pub(super) fn state(&self) -> String {
        let Some(outcome) = &self.outcome else {
            return if self.stage() == Stage::Queued { "queued" } else { ".." }.to_owned();
        };
        match &outcome.result {
            Err(_) if outcome.stopped => "stopped".to_owned(),
            Err(_) if outcome.cut => "cut".to_owned(),
            Err(error) => format!("ERR {}", error.class),
            Ok(_) => self.odd_ending().unwrap_or("ok").to_owned(),
        }
    }

    /// What makes a whole answer less than it should be.
    fn odd_ending(&self) -> Option<&'static str> {
        match self.outcome.as_ref()?.result.as_ref().ok()?.reason {
            Some(FinishReason::Length) => Some("length"),
            Some(FinishReason::ContentFilter) => Some("filter"),
            Some(FinishReason::ToolCalls) => Some("tools"),
            _ if self.kept.is_empty() => Some("empty"),
            _ => None,
        }
    }

    /// The text without control sequences; a refusal in its place.
    pub(super) fn text(&self) -> String {
        sanitised(&self.source())
    }

    /// The text as it came.
    pub(super) fn source(&self) -> std::borrow::Cow<'_, str> {
        let answer = &self.kept.answer;
        match (answer.text.is_empty(), answer.refusal.is_empty()) {
            (_, true) => (&answer.text).into(),
            (true, false) => (&answer.refusal).into(),
            (false, false) => format!("{}\n{}", answer.text, answer.refusal).into(),
        }
    }

    /// The text that is shown while it comes, as it came: a refusal where there is nothing else.
    pub(super) fn shown_text(&self) -> &str {
        let answer = &self.kept.answer;
        if answer.text.is_empty() { &answer.refusal } else { &answer.text }
    }

    /// Which try that is of.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The open line of what it thinks, as long as it says nothing.
    pub(super) fn thought(&self) -> Option<String> {
        Some(self.tail().replace('\t', " ")).filter(|tail| !tail.is_empty() && self.shown_text().is_empty())
    }

    /// What there is to say about how it ended, beside its text.
    pub(super) fn note(&self) -> Option<String> {
        let outcome = self.outcome.as_ref()?;
        match &outcome.result {
            Err(_) if outcome.stopped => Some("[interrupted]".to_owned()),
            Err(error) => Some(notice::failure(&self.name, error, outcome)),
            Ok(whole) => answer_warnings::warnings(&self.kept, whole.reason.as_ref()),
        }
    }

    /// Whom the note names: a failure its target, or the lane where several were asked; a warning nobody.
    pub(super) fn named_in_note(&self) -> &str {
        match &self.outcome {
            Some(outcome) if outcome.result.is_err() && !outcome.stopped => match &outcome.target {
                Some(target) if outcome.cut || outcome.attempts.len() <= 1 => &target.id.0,
                _ => &self.name,
            },
            _ => "",
        }
    }

    /// The text is shown, and not needed any more.
    pub(super) fn forget_text(&mut self) {
        let answer = &mut self.kept.answer;
        (answer.text, answer.reasoning, answer.refusal) = Default::default();
    }

    /// The answer, if it is whole.
    pub(super) fn whole_text(&self) -> Option<String> {
        matches!(self.stage(), Stage::Good | Stage::Odd).then(|| self.text())
    }

    /// Everything there is to tell of it.
    pub(super) fn report(&self, timeline: Timeline) -> ReportLane {
        let outcome = self.outcome();
        ReportLane {
            figures: self.figures(),
            endpoint: self.target().map(|target| target.endpoint.name.clone()),
            is_whole: matches!(self.stage(), Stage::Good | Stage::Odd),
            note: self.note(),
            text: self.text(),
            reasoning: sanitised(&self.kept.answer.reasoning),
            first: outcome.and_then(|outcome| outcome.first),
            attempts: outcome.map_or(0, |outcome| outcome.attempts.len()),
            timeline: timeline.ending_with(self.tokens()),
        }
    }

    /// How it went, as tables have it.
    pub(super) fn figures(&self) -> Figures {
        let (outcome, usage) = (self.outcome(), self.usage());
        let speed = outcome.zip(usage).and_then(|(outcome, usage)| stats::tokens_per_second(&usage, outcome));
        Figures {
            name: self.name.clone(),
            model: self.target().map(|target| target.id.0.clone()),
            state: self.state(),
            ttft: self.ttft(),
            total: outcome.map(|outcome| outcome.total),
            usage,
            tokens_per_second: speed,
            cost: self.cost().map(|(cost, currency)| (cost, currency.to_owned())),
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.kept.usage(self.outcome.as_ref()?, self.prompt_tokens)
    }

    /// The time to the first token, measured by the engine.
    pub(super) fn ttft(&self) -> Option<Duration> {
        self.outcome.as_ref().map_or(self.ttft, |outcome| outcome.ttft)
    }

    /// How long nothing has come.
    pub(super) fn waiting(&self, now: Instant) -> Duration {
        self.asking.as_ref().map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }

    /// Tokens of output so far, as reported.
    pub(super) fn reported_tokens(&self) -> Option<u64> {
        self.kept.answer.usage.and_then(|usage| usage.output)
    }

    /// Tokens of output so far: reported, or estimated.
    pub(super) fn tokens(&self) -> u64 {
        self.reported_tokens().unwrap_or_else(|| self.kept.tokens.tokens())
    }

    /// Tokens a second, so far.
    pub(super) fn speed(&self, now: Instant) -> Option<f64> {
        if let Some(outcome) = &self.outcome {
            return stats::tokens_per_second(&self.usage()?, outcome);
        }
        let seconds = now.saturating_duration_since(self.first?).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let tokens = self.tokens() as f64;
        (seconds >= 0.2).then(|| tokens / seconds)
    }

    /// The open line of its text.
    pub(super) fn tail(&self) -> &str {
        self.tail.trim_end()
    }

    /// Whom it asks, or who answered.
    pub(super) fn target(&self) -> Option<&Arc<Target>> {
        let answered = self.outcome.as_ref().and_then(|outcome| outcome.target.as_ref());
        answered.or(self.asking.as_ref().map(|(target, _)| target))
    }

    /// What it cost, with the currency's code.
    pub(super) fn cost(&self) -> Option<(f64, &str)> {
        self.kept.cost(self.usage().as_ref(), self.outcome.as_ref()?)
    }
}
