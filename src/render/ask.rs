//! Renders one answer, for `ask`.
//!
//! Content goes to stdout, everything else to stderr, with line ends between them where both are the same terminal. On
//! a pipe the content is unchanged; on a terminal control sequences are removed.

use super::{Format, Output, TerminalInfo, dim, json, markdown::MarkdownRenderer, metrics, notice};
use crate::render::answer_warnings;
use crate::{
    engine::{CallRecord, Event, EventKind, NextStep},
    model::{Delta, DeltaBuffer, DeltaKind, sanitize::Sanitizer},
};

/// Settings of the view of one answer.
#[derive(Clone, Debug)]
pub(crate) struct AskSettings {
    /// The requested name.
    pub name: String,
    /// The format of the data on stdout.
    pub format: Format,
    /// The terminal properties of the two streams.
    pub terminal: TerminalInfo,
    /// Whether Markdown is rendered on a terminal.
    pub render_markdown: bool,
    /// Whether a line with metrics follows the answer.
    pub show_stats: bool,
    /// Whether every attempt is reported.
    pub verbose: bool,
}

/// Renders one call.
#[derive(Debug)]
pub(crate) struct AskView {
    settings: AskSettings,
    /// The answer has text or a refusal.
    has_content: bool,
    buffered: DeltaBuffer,
    /// The heading of the Markdown source was written.
    has_heading: bool,
    markdown: Option<MarkdownRenderer>,
    sanitizer: Sanitizer,
    reasoning_sanitizer: Sanitizer,
    /// Reasoning was shown and its line is open.
    is_reasoning_open: bool,
    /// The output ends with content without a line end.
    is_line_open: bool,
}

impl AskView {
    /// A view with these settings.
    #[must_use]
    pub(crate) fn new(settings: AskSettings) -> Self {
        let markdown =
            settings.terminal.stdout_width.filter(|_| settings.render_markdown && settings.format == Format::Text);
        Self {
            markdown: markdown.map(MarkdownRenderer::new),
            settings,
            has_content: false,
            buffered: DeltaBuffer::default(),
            has_heading: false,
            sanitizer: Sanitizer::default(),
            reasoning_sanitizer: Sanitizer::default(),
            is_reasoning_open: false,
            is_line_open: false,
        }
    }

    /// Appends the output for `event`.
    pub(crate) fn on_event(&mut self, event: &Event, output: &mut Output) {
        if self.settings.format == Format::Jsonl {
            json::write_lines(&json::event(event), output);
        }
        match &event.kind {
            EventKind::Started(target) => {
                if self.settings.verbose {
                    let (endpoint, upstream) = (&target.endpoint.name, &target.upstream_id);
                    self.write_line(&format!("trying {} ({endpoint}: {upstream})", target.id), output);
                }
            }
            EventKind::Deltas(batch) => {
                for delta in &batch.deltas {
                    self.on_delta(delta, output);
                }
            }
            EventKind::BufferedDeltas(batch) => {
                for delta in &batch.deltas {
                    self.buffered.add(delta.clone());
                }
            }
            EventKind::Headers(_) | EventKind::FirstToken(_) => {}
            EventKind::Failed { record, next } => {
                if matches!(next, NextStep::RestartOutput(_)) {
                    if self.is_line_open
                        && self.settings.format == Format::Text
                        && self.settings.terminal.stdout_width.is_none()
                    {
                        // Separates the incomplete answer from the restarted one.
                        output.out().push('\n');
                    }
                    self.end_answer(output);
                }
                if let Some(line) = notice::format_attempt_failure(record, next, self.settings.verbose) {
                    self.write_line(&line, output);
                }
                self.restart(output);
            }
            EventKind::Notice(notice) if notice::is_verbose_only(notice) && !self.settings.verbose => {}
            EventKind::Notice(notice) => self.write_line(&notice::format_notice(notice), output),
            EventKind::Restarted => (self.has_content, self.buffered) = Default::default(),
            EventKind::Finished(record) => self.on_finished(record, output),
        }
    }

    /// Discards the output of a failed attempt before the next one starts.
    fn restart(&mut self, output: &mut Output) {
        self.end_reasoning(output);
        self.has_content = false;
        self.buffered.restart();
        self.markdown = self.markdown.as_ref().and(self.settings.terminal.stdout_width).map(MarkdownRenderer::new);
        self.sanitizer = Sanitizer::default();
        self.reasoning_sanitizer = Sanitizer::default();
    }

    fn on_delta(&mut self, delta: &Delta, output: &mut Output) {
        match &delta.kind {
            DeltaKind::Text(_) | DeltaKind::Refusal(_) | DeltaKind::Reasoning(_) if delta.choice != 0 => {}
            DeltaKind::Text(text) | DeltaKind::Refusal(text) => self.write_content(text, output),
            DeltaKind::Reasoning(text) => self.write_reasoning(text, output),
            DeltaKind::ToolCall(_)
            | DeltaKind::Usage(_)
            | DeltaKind::Finish(_)
            | DeltaKind::Model(_)
            | DeltaKind::Opaque(_)
            | DeltaKind::OpaqueReasoning(_) => {}
        }
    }

    fn write_content(&mut self, text: &str, output: &mut Output) {
        let is_first = !std::mem::replace(&mut self.has_content, true);
        if matches!(self.settings.format, Format::Json | Format::Jsonl) {
            return;
        }
        self.end_reasoning(output);
        if is_first && self.settings.format == Format::Markdown && !std::mem::replace(&mut self.has_heading, true) {
            output.out().extend(["# ", &self.settings.name, "\n\n"]);
        }
        if self.settings.terminal.stdout_width.is_none() {
            output.out().push_str(text);
            self.is_line_open = !text.ends_with('\n');
            return;
        }
        let mut clean = String::new();
        self.sanitizer.push(text, &mut clean);
        match &mut self.markdown {
            Some(markdown) => markdown.push(&clean, output.out()),
            None => output.out().push_str(&clean),
        }
        self.is_line_open = !clean.ends_with('\n');
    }

    fn write_reasoning(&mut self, text: &str, output: &mut Output) {
        let mut clean = String::new();
        self.reasoning_sanitizer.push(text, &mut clean);
        if clean.is_empty() {
            return;
        }
        self.start_new_row(output);
        self.is_reasoning_open = true;
        output.err().push_str(&dim(&clean, self.settings.terminal));
    }

    fn end_reasoning(&mut self, output: &mut Output) {
        if std::mem::take(&mut self.is_reasoning_open) {
            output.err().push_str("\n\n");
        }
    }

    /// Writes one line to stderr, on its own row.
    fn write_line(&mut self, line: &str, output: &mut Output) {
        self.end_reasoning(output);
        self.start_new_row(output);
        output.err().push_str(line);
        output.err().push('\n');
    }

    /// Ends an open row of the answer before stderr output on the same terminal.
    fn start_new_row(&mut self, output: &mut Output) {
        let same_screen = self.settings.terminal.stdout_width.is_some() && self.settings.terminal.stderr_is_terminal;
        if same_screen && std::mem::take(&mut self.is_line_open) {
            match &mut self.markdown {
                Some(markdown) => markdown.start_new_row(output.out()),
                None => output.out().push('\n'),
            }
        }
    }

    /// Ends the last line of the answer, on a terminal and in Markdown source.
    fn end_answer(&mut self, output: &mut Output) {
        if let Some(markdown) = &mut self.markdown {
            markdown.finish(output.out());
        } else if self.is_line_open
            && (self.settings.terminal.stdout_width.is_some() || self.settings.format == Format::Markdown)
        {
            output.out().push('\n');
        }
        self.is_line_open = false;
    }

    fn on_finished(&mut self, record: &CallRecord, output: &mut Output) {
        self.show_buffered(record, output);
        let message = match &record.result {
            Err(_) if record.stopped => Some("[interrupted]".to_owned()),
            Err(error) => Some(notice::format_call_failure(&self.settings.name, error, record)),
            Ok(completion) => answer_warnings::warnings(&record.answer, completion.finish_reason.as_ref()),
        };
        self.finish(record, message, output);
    }

    /// Shows the buffered deltas.
    fn show_buffered(&mut self, record: &CallRecord, output: &mut Output) {
        let deltas = self.buffered.take(record.result.is_err());
        if self.settings.format == Format::Jsonl {
            json::write_lines(&json::deltas(CALL_INDEX, &deltas), output);
        }
        for delta in deltas {
            self.on_delta(&delta, output);
        }
    }

    /// Writes the end of the call: the last line of the answer, the JSON object, the message and the metrics.
    fn finish(&mut self, record: &CallRecord, message: Option<String>, output: &mut Output) {
        self.end_reasoning(output);
        self.end_answer(output);
        if matches!(self.settings.format, Format::Json | Format::Jsonl) {
            self.write_json(record, output);
        }
        if let Some(message) = message {
            self.write_line(&message, output);
        }
        if self.settings.show_stats {
            let name = record.target.as_ref().map_or(self.settings.name.as_str(), |target| target.id.0.as_str());
            let line = metrics::summary_line(name, record.usage.as_ref(), record.cost(), record);
            self.write_line(&line, output);
        }
    }

    fn write_json(&mut self, record: &CallRecord, output: &mut Output) {
        let usage_cost = (record.usage.as_ref(), record.cost().map(|(cost, _)| cost));
        let mut object = json::answer(&self.settings.name, record.answer.content.clone(), usage_cost, record);
        if self.settings.format == Format::Jsonl {
            object["event"] = "finished".into();
            object["call"] = CALL_INDEX.into();
        }
        json::write_lines(&[object], output);
    }
}

/// The index of the only call of `ask`.
const CALL_INDEX: usize = 0;
