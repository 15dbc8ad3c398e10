//! Renders the answers of several calls, for `compare`: columns, stack, tagged lines, table only, or a data format.
//!
//! On a pipe, answers are complete, in the requested order, and without escape bytes. Text is appended to an
//! [`Output`]; rows of the live region are returned to the caller.

mod call;
mod columns;
mod final_view;
mod live;
mod settings;
mod status;
mod summary;
mod tagged;
#[cfg(test)]
mod tests;

use tokio::time::Instant;

use call::{CallView, Stage};
pub use columns::{AnswerBlock, render_columns};
pub(crate) use columns::{fits_side_by_side, max_columns};
use live::LiveView;
pub(crate) use live::{Action, Key};
use settings::OutputMode;
pub(crate) use settings::{CompareSettings, View};
use tagged::TaggedLines;

use super::{Format, Output, json, notice, report::ReportCall, timeline::Timeline, wrap::wrap};
use crate::{
    engine::{CallRecord, Event, EventKind},
    model::target::TargetId,
};

/// Width of a page without a terminal.
const DEFAULT_PAGE_WIDTH: usize = 80;

/// Renders the calls of a run.
#[derive(Debug)]
pub(crate) struct CompareView {
    settings: CompareSettings,
    mode: OutputMode,
    calls: Vec<CallView>,
    /// The streaming state of each call, for tagged lines and events.
    tagged_lines: Vec<TaggedLines>,
    /// The call whose answer is shown next.
    next_index: usize,
    started_at: Instant,
    live: LiveView,
    /// The cost of the run is limited, and the limit does not allow for restarted calls.
    has_cost_limit: bool,
    /// Tokens over time of each answer, if needed.
    timelines: Vec<Timeline>,
}

impl CompareView {
    /// A view of the calls with these names, which start at `now`.
    #[must_use]
    pub(crate) fn new(settings: CompareSettings, names: impl Iterator<Item = impl Into<String>>, now: Instant) -> Self {
        let calls: Vec<CallView> = names.map(|name| CallView::new(name.into())).collect();
        let mode = settings.output_mode();
        let (tagged_lines, live) = (vec![TaggedLines::default(); calls.len()], LiveView::new(calls.len()));
        let timelines = vec![Timeline::default(); calls.len()];
        Self {
            tagged_lines,
            settings,
            mode,
            calls,
            next_index: 0,
            started_at: now,
            live,
            has_cost_limit: false,
            timelines,
        }
    }

    /// Writes the start of the output.
    pub(crate) fn start(&mut self, output: &mut Output) {
        match self.settings.format {
            Format::Json => {
                output.out().push_str(if self.settings.answers_in_object { "{\"answers\": [\n" } else { "[\n" });
            }
            Format::Jsonl => {
                let names: Vec<&str> = self.calls.iter().map(|call| call.name.as_str()).collect();
                json::write_lines(&[json::run_started(&names)], output);
            }
            Format::Text | Format::Markdown => {}
        }
    }

    /// Appends the output for `event`.
    pub(crate) fn on_event(&mut self, event: &Event, output: &mut Output) {
        if self.mode == OutputMode::Events {
            json::write_lines(&json::event(event), output);
        }
        if let Some((line, target)) = self.message_for(event) {
            self.write_message(event.call, &line, &target.0, output);
        }
        self.calls[event.call].on_event(event);
        if self.settings.keep_answers {
            self.record_timeline(event);
        }
        if matches!(self.mode, OutputMode::Tagged | OutputMode::Events) {
            self.stream_event(event, output);
        }
        if let EventKind::Finished(_) = &event.kind {
            self.on_call_ended(event.call, output);
        }
    }

    /// The message to show immediately, and the target that it names.
    fn message_for(&self, event: &Event) -> Option<(String, TargetId)> {
        match &event.kind {
            EventKind::Started(target) if self.settings.verbose => {
                let (endpoint, upstream) = (&target.endpoint.name, &target.upstream_id);
                Some((format!("trying {} ({endpoint}: {upstream})", target.id), target.id.clone()))
            }
            EventKind::Failed { record, next } => {
                Some((notice::format_attempt_failure(record, next, self.settings.verbose)?, record.target.id.clone()))
            }
            EventKind::Notice(notice) if notice::is_verbose_only(notice) && !self.settings.verbose => None,
            EventKind::Notice(notice) => Some((notice::format_notice(notice), notice.target().clone())),
            EventKind::Started(_)
            | EventKind::Headers(_)
            | EventKind::Deltas(_)
            | EventKind::BufferedDeltas(_)
            | EventKind::FirstToken(_)
            | EventKind::Restarted
            | EventKind::Finished(_) => None,
        }
    }

    /// Writes one line to stderr that names `subject`, prefixed with the name of the call unless they are equal.
    fn write_message(&self, index: usize, line: &str, subject: &str, output: &mut Output) {
        let name = &self.calls[index].name;
        let err = output.err();
        if subject != name {
            err.extend([name.as_str(), ": "]);
        }
        err.extend([line, "\n"]);
    }

    fn on_call_ended(&mut self, index: usize, output: &mut Output) {
        match self.mode {
            OutputMode::InOrder => {
                while self.calls.get(self.next_index).is_some_and(|call| call.record().is_some()) {
                    self.write_answer(self.next_index, output);
                    self.next_index += 1;
                }
            }
            OutputMode::Tagged => {
                self.show_buffered(index, output);
                self.end_tagged_line(index, output);
                self.write_note(index, output);
                self.release_text(index);
            }
            OutputMode::Events => {
                self.show_buffered(index, output);
                let mut object = self.answer_json(index);
                object["event"] = "finished".into();
                object["call"] = index.into();
                json::write_lines(&[object], output);
            }
            OutputMode::TableOnly => {
                self.write_note(index, output);
                self.release_text(index);
            }
            OutputMode::AtEnd => {}
        }
    }

    /// Writes the answer that is next in the requested order.
    fn write_answer(&mut self, index: usize, output: &mut Output) {
        match self.settings.format {
            Format::Json | Format::Jsonl => {
                let object = self.answer_json(index);
                let separator = if index + 1 < self.calls.len() { "," } else { "" };
                output.out().extend([object.to_string().as_str(), separator, "\n"]);
            }
            Format::Markdown => {
                let call = &self.calls[index];
                let gap = if index > 0 { "\n" } else { "" };
                // On a pipe the source is data; on a terminal control sequences must be removed.
                let source =
                    if self.settings.terminal.stdout_width.is_some() { call.text().into() } else { call.raw_text() };
                let text = format!("{gap}# {}\n\n{}", call.name, source.trim_end());
                output.out().extend([text.trim_end(), "\n"]);
                self.write_note(index, output);
            }
            Format::Text => self.write_stacked(index, output),
        }
        self.release_text(index);
    }

    /// Drops the text of an answer that was shown, unless it is needed later.
    fn release_text(&mut self, index: usize) {
        if !self.settings.keep_answers {
            self.calls[index].clear_text();
        }
    }

    /// Records the tokens of an answer over time.
    fn record_timeline(&mut self, event: &Event) {
        let timeline = &mut self.timelines[event.call];
        match &event.kind {
            EventKind::Deltas(_) | EventKind::BufferedDeltas(_) => {
                let at = event.at.saturating_duration_since(self.started_at);
                timeline.record(at, self.calls[event.call].accumulated.output_counter.tokens());
            }
            EventKind::Failed { .. } | EventKind::Restarted => *timeline = Timeline::default(),
            EventKind::Started(_)
            | EventKind::Headers(_)
            | EventKind::FirstToken(_)
            | EventKind::Notice(_)
            | EventKind::Finished(_) => {}
        }
    }

    fn answer_json(&mut self, index: usize) -> serde_json::Value {
        let call = &mut self.calls[index];
        let (usage, cost) = (call.usage(), call.cost().map(|(cost, _)| cost));
        let answer = if self.settings.keep_answers {
            call.accumulated.content.clone()
        } else {
            std::mem::take(&mut call.accumulated.content)
        };
        // The table still needs the usage.
        call.accumulated.content.usage = answer.usage;
        let record = call.record().expect("the call has ended");
        json::answer(&call.name, answer, (usage.as_ref(), cost), record)
    }

    /// Writes the note of an answer to stderr: on a pipe stdout holds only answers.
    fn write_note(&self, index: usize, output: &mut Output) {
        let call = &self.calls[index];
        if let Some(note) = call.note() {
            self.write_message(index, &note, call.note_subject(), output);
        }
    }

    /// Sets the width of the terminal, if there is one.
    pub(crate) fn set_width(&mut self, width: usize) {
        if let Some(current) = &mut self.settings.terminal.stdout_width {
            *current = width;
        }
    }

    /// Writes the final view and the table after all calls have ended.
    pub(crate) fn finish(&mut self, output: &mut Output) {
        if self.settings.format == Format::Json {
            output.out().push_str(if self.settings.answers_in_object { "]" } else { "]\n" });
        }
        if self.mode == OutputMode::AtEnd {
            self.write_final_view(output);
        }
        if self.settings.format == Format::Text {
            self.write_table(output);
        }
    }

    /// The line below the table, for terminals: the number of the conversation, and commands for its answers.
    /// `numbers`: the number of each answer in the record.
    #[must_use]
    pub(crate) fn record_hint(&self, conversation: i64, numbers: &[Option<i64>]) -> String {
        if self.settings.format != Format::Text || !self.settings.terminal.stderr_is_terminal {
            return String::new();
        }
        let is_complete = |call: &CallView| matches!(call.stage(), Stage::Complete | Stage::Warning);
        let mut complete = self.calls.iter().zip(numbers).filter(|(call, _)| is_complete(call));
        let text = match complete.find_map(|(_, number)| *number) {
            Some(n) => {
                format!("conversation {conversation}    show: mmchat history show @{n}    continue: mmchat pick @{n}")
            }
            None => format!("conversation {conversation}    retry the failed calls: mmchat retry"),
        };
        // Without a width stdout is a pipe; the terminal of stderr wraps the line itself.
        let rows = wrap(&text, self.settings.terminal.stdout_width.map_or(text.len(), |width| width.saturating_sub(1)));
        rows.into_iter().fold(String::new(), |text, row| text + row.text.trim_end() + "\n")
    }

    /// The rows of the live region.
    #[must_use]
    pub(crate) fn live_rows(&mut self, width: usize, height: usize, now: Instant) -> Vec<String> {
        let screen =
            status::Screen { width, height, styled: self.settings.terminal.styled, now, started_at: self.started_at };
        self.live.rows(&self.calls, !self.settings.render_markdown, screen)
    }

    /// Shows the keys in the live region.
    #[must_use]
    pub(crate) fn with_keys(mut self) -> Self {
        self.live.show_keys();
        self
    }

    /// Handles a key and returns the action to perform. A call whose answer was written cannot be restarted.
    pub(crate) fn on_key(&mut self, key: Key) -> Option<Action> {
        let action = self.live.on_key(key, &self.calls);
        action.filter(|action| match action {
            Action::Restart(index) => self.can_restart(*index),
            Action::Stop(_) | Action::Leave => true,
        })
    }

    fn can_restart(&self, index: usize) -> bool {
        let is_written = match self.mode {
            OutputMode::AtEnd | OutputMode::TableOnly => false,
            OutputMode::InOrder => index < self.next_index,
            OutputMode::Tagged | OutputMode::Events => true,
        };
        !is_written && !self.has_cost_limit
    }

    /// Sets that the cost of the calls is limited, so that they cannot be restarted.
    #[must_use]
    pub(crate) fn with_cost_limit(mut self) -> Self {
        self.has_cost_limit = true;
        self
    }

    /// Whether the live region is frozen.
    #[must_use]
    pub(crate) fn is_held(&self) -> bool {
        self.live.is_held()
    }

    /// Unfreezes it.
    pub(crate) fn release_hold(&mut self) {
        self.live.release_hold();
    }

    /// The index of the call that the user picked, if it has an answer.
    #[must_use]
    pub(crate) fn picked(&self) -> Option<usize> {
        self.live.picked().filter(|index| !self.calls[*index].accumulated.is_empty())
    }

    /// The names of the calls.
    #[must_use]
    pub(crate) fn names(&self) -> Vec<String> {
        self.calls.iter().map(|call| call.name.clone()).collect()
    }

    /// The complete answers; `None` for a call without one.
    #[must_use]
    pub(crate) fn complete_texts(&self) -> Vec<Option<String>> {
        self.calls.iter().map(CallView::complete_text).collect()
    }

    /// The data of each call for a report.
    #[must_use]
    pub(crate) fn report_calls(&self) -> Vec<ReportCall> {
        self.calls.iter().zip(&self.timelines).map(|(call, timeline)| call.report(timeline.clone())).collect()
    }

    /// The records of the calls that have ended.
    pub(crate) fn records(&self) -> impl Iterator<Item = &CallRecord> {
        self.calls.iter().filter_map(CallView::record)
    }
}
