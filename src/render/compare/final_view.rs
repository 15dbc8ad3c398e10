//! Renders the final view of a comparison: answers in columns or stacked, and the table.

use super::{
    AnswerBlock, CompareView, DEFAULT_PAGE_WIDTH, OutputMode, Stage, View, fits_side_by_side, max_columns,
    render_columns, summary,
};
use crate::{
    model::sanitize::sanitize,
    render::{
        Output, RESET,
        markdown::MarkdownRenderer,
        wrap::{display_width, widest_fixed_line},
    },
};

impl CompareView {
    /// Writes one answer below the previous ones, with a heading.
    pub(super) fn write_stacked(&self, index: usize, output: &mut Output) {
        let call = &self.calls[index];
        let head = self.heading(index);
        let gap = if index > 0 { "\n" } else { "" };
        let Some(width) = self.settings.terminal.stdout_width else {
            let text = call.text();
            output.out().extend([gap, "--- ", &head, "\n"]);
            if !text.trim().is_empty() {
                output.out().extend([text.trim_end(), "\n"]);
            }
            return self.write_note(index, output);
        };
        let head = format!("--- {head} ");
        let rule = "-".repeat(width.saturating_sub(1 + display_width(&head)));
        let (on, off) = if self.settings.terminal.styled { ("\u{1b}[1m", RESET) } else { ("", "") };
        output.out().extend([gap, on, &head, &rule, off, "\n"]);
        let text = call.text();
        if self.settings.render_markdown {
            let mut markdown = MarkdownRenderer::new(width).with_tables();
            markdown.push(text.trim_end(), output.out());
            markdown.finish(output.out());
        } else if !text.trim().is_empty() {
            output.out().extend([text.trim_end(), "\n"]);
        }
        if let Some(note) = call.note() {
            output.out().extend([self.style_note(&note, call.stage()).as_str(), "\n"]);
        }
    }

    /// `1 fast  ok`, `3 local  ok (length)`
    fn heading(&self, index: usize) -> String {
        let call = &self.calls[index];
        let state =
            if call.stage() == Stage::Warning { format!("ok ({})", call.state_label()) } else { call.state_label() };
        format!("{} {}  {state}", index + 1, call.name)
    }

    fn style_note(&self, note: &str, stage: Stage) -> String {
        let code = match stage {
            _ if !self.settings.terminal.styled => return note.to_owned(),
            Stage::Failed => "31",
            _ => "33",
        };
        format!("\u{1b}[{code}m{note}{RESET}")
    }

    /// Writes the answers in columns if they are suitable or requested, else stacked.
    pub(super) fn write_final_view(&self, output: &mut Output) {
        let width = self.settings.terminal.stdout_width.unwrap_or(DEFAULT_PAGE_WIDTH);
        let styled = self.settings.terminal.styled && self.settings.terminal.stdout_width.is_some();
        let blocks: Vec<AnswerBlock> = (0..self.calls.len()).map(|index| self.answer_block(index, width)).collect();
        if self.settings.view == View::Columns || fits_side_by_side(&blocks, width) {
            output.out().push_str(&render_columns(&blocks, width, styled));
            if self.settings.terminal.stdout_width.is_none() {
                for index in 0..self.calls.len() {
                    self.write_note(index, output);
                }
            }
        } else {
            for index in 0..self.calls.len() {
                self.write_stacked(index, output);
            }
        }
    }

    fn answer_block(&self, index: usize, width: usize) -> AnswerBlock {
        let call = &self.calls[index];
        let source = call.text();
        let is_terminal = self.settings.terminal.stdout_width.is_some();
        let mut text = source.trim_end().to_owned();
        if is_terminal && self.settings.render_markdown {
            let mut markdown = MarkdownRenderer::unwrapped(super::columns::column_width(
                width,
                max_columns(width).min(self.calls.len()),
            ));
            let mut out = String::new();
            markdown.push(&text, &mut out);
            markdown.finish(&mut out);
            out.trim_end().clone_into(&mut text);
        }
        if let Some(note) = call.note().filter(|_| is_terminal) {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&self.style_note(&note, call.stage()));
        }
        let has_answer = matches!(call.stage(), Stage::Complete | Stage::Warning) && !source.trim().is_empty();
        AnswerBlock { heading: self.heading(index), fixed_width: widest_fixed_line(&sanitize(&text)), text, has_answer }
    }

    /// Writes the table to stderr, or to stdout if it is the only output.
    pub(super) fn write_table(&self, output: &mut Output) {
        let terminal = self.settings.terminal;
        let is_only_output = self.mode == OutputMode::TableOnly;
        let width = terminal.stdout_width.filter(|_| is_only_output || terminal.stderr_is_terminal);
        let table = summary::summary_table(&self.calls, width, terminal.styled && width.is_some());
        let stream = if is_only_output { output.out() } else { output.err() };
        if !is_only_output {
            stream.push('\n');
        }
        stream.push_str(&table);
    }
}
