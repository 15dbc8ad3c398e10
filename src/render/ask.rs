//! One answer, as `ask` shows it.
//!
//! Owns what goes where: content to stdout, everything else to stderr, and line ends between them where both are the
//! same terminal. On a pipe content passes exactly; on a terminal it is stripped of control sequences first.

use super::{Format, Look, Output, dim, json, markdown::Markdown, notice, stats};
use crate::render::answer_warnings;
use crate::{
    engine::{Account, Event, EventKind, LaneOutcome, Next},
    model::{Delta, DeltaKind, Held, Usage, sanitize::Sanitiser, target::Target},
};

/// What is to be shown, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name that was asked for.
    pub name: String,
    /// The format of the data.
    pub format: Format,
    /// The two streams.
    pub look: Look,
    /// Markdown is rendered where it can be.
    pub rendered: bool,
    /// A line with figures at the end.
    pub stats: bool,
    /// Every attempt is told.
    pub verbose: bool,
    /// The tokens of the prompt, estimated, in case nobody reports them.
    pub prompt_tokens: u64,
}

/// Shows one lane.
#[derive(Debug)]
pub struct AskView {
    settings: Settings,
    kept: Account,
    held: Held,
    /// The heading of the Markdown source is there.
    headed: bool,
    markdown: Option<Markdown>,
    sanitiser: Sanitiser,
    reasoning_sanitiser: Sanitiser,
    /// Thinking was shown and its line is open.
    thinking: bool,
    /// The last thing on the terminal was content without a line end.
    open_line: bool,
}

impl AskView {
    /// A view with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let markdown = settings.look.out_width.filter(|_| settings.rendered && settings.format == Format::Text);
        Self {
            markdown: markdown.map(Markdown::new),
            settings,
            kept: Account::default(),
            held: Held::default(),
            headed: false,
            sanitiser: Sanitiser::default(),
            reasoning_sanitiser: Sanitiser::default(),
            thinking: false,
            open_line: false,
        }
    }

    /// What `event` adds to the two streams.
    pub fn event(&mut self, event: &Event, to: &mut Output) {
        if self.settings.format == Format::Jsonl {
            json::lines(&json::event(event), to);
        }
        match &event.kind {
            EventKind::Started(target) => {
                if self.settings.verbose {
                    let (endpoint, upstream) = (&target.endpoint.name, &target.upstream);
                    self.say(&format!("asking {} ({endpoint}: {upstream})", target.id), to);
                }
            }
            EventKind::Deltas(deltas) => {
                for delta in deltas {
                    self.delta(delta, to);
                }
            }
            EventKind::Held(deltas) => {
                for delta in deltas {
                    self.held.add(delta.clone());
                }
            }
            EventKind::Ttft(_) => {}
            EventKind::Failed { record, next } => {
                if matches!(next, Next::Restart(_)) {
                    if self.open_line && self.settings.format == Format::Text && self.settings.look.out_width.is_none()
                    {
                        // The two beginnings must not run into each other.
                        to.out().push('\n');
                    }
                    self.close_answer(to);
                }
                if let Some(line) = notice::failed(record, next, self.settings.verbose) {
                    self.say(&line, to);
                }
                self.start_again(&record.target, to);
            }
            EventKind::Notice(what) if notice::is_detail(what) && !self.settings.verbose => {}
            EventKind::Notice(what) => self.say(&notice::notice(what), to),
            EventKind::Again => (self.kept, self.held) = Default::default(),
            EventKind::Finished(outcome) => self.finished(outcome, to),
        }
    }

    /// Ctrl-C: what arrived is shown, marked.
    pub fn interrupted(&mut self, outcome: &LaneOutcome, to: &mut Output) {
        self.show_held(outcome, to);
        self.over(outcome, Some("[interrupted]".to_owned()), to);
    }

    /// Another attempt begins: what the failed one put out is no part of the answer.
    fn start_again(&mut self, failed: &Target, to: &mut Output) {
        self.end_thinking(to);
        self.kept.begin_again(failed, self.settings.prompt_tokens);
        self.held.start_again();
        self.markdown = self.markdown.as_ref().and(self.settings.look.out_width).map(Markdown::new);
        self.sanitiser = Sanitiser::default();
        self.reasoning_sanitiser = Sanitiser::default();
    }

    fn delta(&mut self, delta: &Delta, to: &mut Output) {
        match &delta.kind {
            DeltaKind::Text(_) | DeltaKind::Refusal(_) | DeltaKind::Reasoning(_) if delta.choice != 0 => {}
            DeltaKind::Text(text) | DeltaKind::Refusal(text) => self.content(text, to),
            DeltaKind::Reasoning(text) => self.thinking(text, to),
            DeltaKind::ToolCall(_)
            | DeltaKind::Usage(_)
            | DeltaKind::Finish(_)
            | DeltaKind::Model(_)
            | DeltaKind::Opaque(_) => {}
        }
        // The whole text is kept only where it is the data.
        self.kept.add(delta, matches!(self.settings.format, Format::Json | Format::Jsonl));
    }

    fn content(&mut self, text: &str, to: &mut Output) {
        let first = !self.kept.any_content;
        if matches!(self.settings.format, Format::Json | Format::Jsonl) {
            return;
        }
        self.end_thinking(to);
        if first && self.settings.format == Format::Markdown && !std::mem::replace(&mut self.headed, true) {
            to.out().extend(["# ", &self.settings.name, "\n\n"]);
        }
        if self.settings.look.out_width.is_none() {
            to.out().push_str(text);
            self.open_line = !text.ends_with('\n');
            return;
        }
        let mut clean = String::new();
        self.sanitiser.push(text, &mut clean);
        match &mut self.markdown {
            Some(markdown) => markdown.push(&clean, to.out()),
            None => to.out().push_str(&clean),
        }
        self.open_line = !clean.ends_with('\n');
    }

    fn thinking(&mut self, text: &str, to: &mut Output) {
        let mut clean = String::new();
        self.reasoning_sanitiser.push(text, &mut clean);
        if clean.is_empty() {
            return;
        }
        self.fresh_row(to);
        self.thinking = true;
        to.err().push_str(&dim(&clean, self.settings.look));
    }

    fn end_thinking(&mut self, to: &mut Output) {
        if std::mem::take(&mut self.thinking) {
            to.err().push_str("\n\n");
        }
    }

    /// One line on stderr, on a row of its own.
    fn say(&mut self, line: &str, to: &mut Output) {
        self.end_thinking(to);
        self.fresh_row(to);
        to.err().push_str(line);
        to.err().push('\n');
    }

    /// What goes to stderr next does not end up in the middle of a row of the answer, where both are one screen.
    fn fresh_row(&mut self, to: &mut Output) {
        let same_screen = self.settings.look.out_width.is_some() && self.settings.look.err_is_terminal;
        if same_screen && std::mem::take(&mut self.open_line) {
            match &mut self.markdown {
                Some(markdown) => markdown.fresh_row(to.out()),
                None => to.out().push('\n'),
            }
        }
    }

    /// Ends what is on stdout: the terminal's line, the Markdown source's.
    fn close_answer(&mut self, to: &mut Output) {
        if let Some(markdown) = &mut self.markdown {
            markdown.finish(to.out());
        } else if self.open_line && (self.settings.look.out_width.is_some() || self.settings.format == Format::Markdown)
        {
            to.out().push('\n');
        }
        self.open_line = false;
    }

    fn finished(&mut self, outcome: &LaneOutcome, to: &mut Output) {
        self.show_held(outcome, to);
        let message = match &outcome.result {
            Err(error) => Some(notice::failure(&self.settings.name, error, outcome)),
            Ok(whole) => answer_warnings::warnings(&self.kept, whole.reason.as_ref()),
        };
        self.over(outcome, message, to);
    }

    /// Shows what could not be shown before.
    fn show_held(&mut self, outcome: &LaneOutcome, to: &mut Output) {
        let deltas = self.held.take(outcome.result.is_err());
        if self.settings.format == Format::Jsonl {
            json::lines(&json::deltas(LANE, &deltas), to);
        }
        for delta in deltas {
            self.delta(&delta, to);
        }
    }

    /// The end, however it came: the answer's last line, the object, the message, the figures.
    fn over(&mut self, outcome: &LaneOutcome, message: Option<String>, to: &mut Output) {
        self.end_thinking(to);
        self.close_answer(to);
        self.kept.close(outcome, self.settings.prompt_tokens);
        let usage = self.kept.usage(outcome, self.settings.prompt_tokens);
        let cost = self.kept.cost(usage.as_ref(), outcome);
        if matches!(self.settings.format, Format::Json | Format::Jsonl) {
            self.object(outcome, (usage.as_ref(), cost.map(|(cost, _)| cost)), to);
        }
        if let Some(message) = message {
            self.say(&message, to);
        }
        if self.settings.stats {
            let name = outcome.target.as_ref().map_or(self.settings.name.as_str(), |target| target.id.0.as_str());
            let line = stats::line(name, usage.as_ref(), cost, outcome);
            self.say(&line, to);
        }
    }

    fn object(&mut self, outcome: &LaneOutcome, figures: (Option<&Usage>, Option<f64>), to: &mut Output) {
        let mut object = json::answer(&self.settings.name, std::mem::take(&mut self.kept.answer), figures, outcome);
        if self.settings.format == Format::Jsonl {
            object["event"] = "finished".into();
            object["lane"] = LANE.into();
        }
        json::lines(&[object], to);
    }
}

/// `ask` has one lane.
const LANE: usize = 0;
