//! The answers as they are left on the page: side by side, or one below the other.

use super::{Arrangement, Block, CompareView, PAGE, Stage, View, columns, fit, suit, summary};
use crate::{
    model::sanitize::sanitised,
    render::{
        Output,
        markdown::Markdown,
        wrap::{cells, widest_fixed_line},
    },
};

impl CompareView {
    /// One answer below the others, with its head.
    pub(super) fn stacked(&self, index: usize, to: &mut Output) {
        let lane = &self.lanes[index];
        let head = self.head(index);
        let gap = if index > 0 { "\n" } else { "" };
        let Some(width) = self.settings.look.out_width else {
            let text = lane.text();
            to.out().extend([gap, "--- ", &head, "\n"]);
            if !text.trim().is_empty() {
                to.out().extend([text.trim_end(), "\n"]);
            }
            return self.note_apart(index, to);
        };
        let head = format!("--- {head} ");
        let rule = "-".repeat(width.saturating_sub(1 + cells(&head)));
        let (on, off) = if self.settings.look.styled { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        to.out().extend([gap, on, &head, &rule, off, "\n"]);
        let text = lane.text();
        if self.settings.rendered {
            let mut markdown = Markdown::new(width).with_tables();
            markdown.push(text.trim_end(), to.out());
            markdown.finish(to.out());
        } else if !text.trim().is_empty() {
            to.out().extend([text.trim_end(), "\n"]);
        }
        if let Some(note) = lane.note() {
            to.out().extend([self.painted(&note, lane.stage()).as_str(), "\n"]);
        }
    }

    /// `1 fast  ok`, `3 local  ok (length)`
    fn head(&self, index: usize) -> String {
        let lane = &self.lanes[index];
        let state = if lane.stage() == Stage::Odd { format!("ok ({})", lane.state()) } else { lane.state() };
        format!("{} {}  {state}", index + 1, lane.name)
    }

    fn painted(&self, note: &str, stage: Stage) -> String {
        let code = match stage {
            _ if !self.settings.look.styled => return note.to_owned(),
            Stage::Bad => "31",
            _ => "33",
        };
        format!("\u{1b}[{code}m{note}\u{1b}[0m")
    }

    /// Side by side where that reads well, or was asked for; else one below the other.
    pub(super) fn final_view(&self, to: &mut Output) {
        let width = self.settings.look.out_width.unwrap_or(PAGE);
        let styled = self.settings.look.styled && self.settings.look.out_width.is_some();
        let blocks: Vec<Block> = (0..self.lanes.len()).map(|index| self.block(index, width)).collect();
        if self.settings.view == View::Columns || suit(&blocks, width) {
            to.out().push_str(&columns(&blocks, width, styled));
            if self.settings.look.out_width.is_none() {
                for index in 0..self.lanes.len() {
                    self.note_apart(index, to);
                }
            }
        } else {
            for index in 0..self.lanes.len() {
                self.stacked(index, to);
            }
        }
    }

    fn block(&self, index: usize, width: usize) -> Block {
        let lane = &self.lanes[index];
        let source = lane.text();
        let terminal = self.settings.look.out_width.is_some();
        let mut text = source.trim_end().to_owned();
        if terminal && self.settings.rendered {
            let mut markdown = Markdown::unwrapped(columns::column(width, fit(width).min(self.lanes.len())));
            let mut out = String::new();
            markdown.push(&text, &mut out);
            markdown.finish(&mut out);
            out.trim_end().clone_into(&mut text);
        }
        if let Some(note) = lane.note().filter(|_| terminal) {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&self.painted(&note, lane.stage()));
        }
        let counts = matches!(lane.stage(), Stage::Good | Stage::Odd) && !source.trim().is_empty();
        Block { head: self.head(index), fixed: widest_fixed_line(&sanitised(&text)), text, counts }
    }

    /// The table: beside the answers on a terminal, apart from them on a pipe, and on stdout when it is all there is.
    pub(super) fn figures(&self, to: &mut Output) {
        let look = self.settings.look;
        let alone = self.arrangement == Arrangement::Figures;
        let width = look.out_width.filter(|_| alone || look.err_is_terminal);
        let table = summary::summary(&self.lanes, width, look.styled && width.is_some());
        let to = if alone { to.out() } else { to.err() };
        if !alone {
            to.push('\n');
        }
        to.push_str(&table);
    }
}
