//! Escape sequences for a live region: rows at the bottom of the terminal that are redrawn in place and finally erased.
//!
//! Between two draws the cursor is on the first cell of the region, so that "from here down" is the region even after a
//! resize, a scroll or a reflow. Cursor movements are relative, and no sequence needs a reply of the terminal.

use crossterm::{
    Command,
    cursor::{MoveDown, MoveToColumn, MoveUp},
    terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate},
};

/// Erases the region; also written by the panic hook. The first row is erased separately, because some terminals (tmux)
/// move the screen into the scrollback when it is erased from its first cell on.
pub(super) const ERASE_SEQUENCE: &str = "\r\u{1b}[K\u{1b}[C\u{1b}[J\r";

/// The rows on the screen.
#[derive(Debug, Default)]
pub(crate) struct Region {
    rows: Vec<String>,
    /// Columns and rows of the terminal at the last draw.
    size: (usize, usize),
}

impl Region {
    /// Returns the text that shows `rows` on a terminal of `size`. Only changed rows are redrawn. Rows must be at least
    /// one cell narrower than the terminal.
    pub(crate) fn draw(&mut self, rows: Vec<String>, size: (usize, usize)) -> String {
        let same_shape = self.size == size && self.rows.len() == rows.len() && !rows.is_empty();
        if same_shape && self.rows == rows {
            return String::new();
        }
        let mut out = String::new();
        push_command(BeginSynchronizedUpdate, &mut out);
        if same_shape {
            self.draw_changed_rows(&rows, &mut out);
        } else {
            out.push_str(ERASE_SEQUENCE);
            out.push_str(&rows.join("\r\n"));
            move_up(rows.len().saturating_sub(1), &mut out);
            push_command(MoveToColumn(0), &mut out);
        }
        push_command(EndSynchronizedUpdate, &mut out);
        (self.rows, self.size) = (rows, size);
        out
    }

    /// Returns the text that erases the region.
    pub(crate) fn erase(&mut self) -> &'static str {
        if std::mem::take(&mut self.rows).is_empty() { "" } else { ERASE_SEQUENCE }
    }

    fn draw_changed_rows(&self, rows: &[String], out: &mut String) {
        let mut current_row = 0;
        for (index, row) in rows.iter().enumerate().filter(|(index, row)| self.rows[*index] != **row) {
            move_down(index - current_row, out);
            current_row = index;
            // Cleared first, because a row may skip cells.
            out.push('\r');
            push_command(Clear(ClearType::UntilNewLine), out);
            out.push_str(row);
        }
        move_up(current_row, out);
        push_command(MoveToColumn(0), out);
    }
}

fn push_command(command: impl Command, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = command.write_ansi(out);
}

/// Skips 0, which would move by one row.
fn move_down(rows: usize, out: &mut String) {
    if rows > 0 {
        push_command(MoveDown(u16::try_from(rows).unwrap_or(u16::MAX)), out);
    }
}

fn move_up(rows: usize, out: &mut String) {
    if rows > 0 {
        push_command(MoveUp(u16::try_from(rows).unwrap_or(u16::MAX)), out);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    fn rows(rows: &[&str]) -> Vec<String> {
        rows.iter().map(|&row| row.to_owned()).collect()
    }

    /// A terminal with text that the region must not overwrite.
    fn terminal(height: u16, width: u16) -> vt100::Parser {
        let mut terminal = empty(height, width);
        terminal.process(b"$ mmchat compare\r\n");
        terminal
    }

    fn empty(height: u16, width: u16) -> vt100::Parser {
        vt100::Parser::new(cells(height), cells(width), 100)
    }

    fn cells(count: u16) -> NonZero<u16> {
        NonZero::new(count).expect("sizes are positive")
    }

    fn screen_lines(terminal: &vt100::Parser) -> Vec<String> {
        terminal.screen().contents().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn rows_are_redrawn_in_place_and_erased() {
        let (mut terminal, mut region) = (terminal(10, 40), Region::default());
        for state in [["1 a  queued", "2 b  queued"], ["1 a  ..", "2 b  queued"], ["1 a  ok", "2 b  通义"]] {
            let text = region.draw(rows(&state), (40, 10));
            terminal.process(text.as_bytes());
            assert_eq!(screen_lines(&terminal), [&["$ mmchat compare"], &state[..]].concat());
            assert_eq!(terminal.screen().cursor_position(), (1, 0), "the cursor is on the first cell");
        }
        assert_eq!(region.draw(rows(&["1 a  ok", "2 b  通义"]), (40, 10)), "", "unchanged rows are not redrawn");
        let text = region.draw(rows(&["1 a  ok", "2 b  ok"]), (40, 10));
        assert!(!text.contains("1 a") && text.contains("2 b"), "only changed rows are redrawn: {text:?}");
        terminal.process(text.as_bytes());
        terminal.process(region.erase().as_bytes());
        terminal.process(b"final\r\n");
        assert_eq!(screen_lines(&terminal), ["$ mmchat compare", "final"]);
        assert_eq!(region.erase(), "", "an erased region has nothing to erase");
    }

    #[test]
    fn changing_row_counts_at_the_bottom_scroll_the_previous_text() {
        let (mut terminal, mut region) = (empty(5, 20), Region::default());
        terminal.process(b"1\r\n2\r\n3\r\n4\r\n");
        for count in [3, 1, 2] {
            let lines: Vec<String> = (0..count).map(|n| format!("row {n}")).collect();
            terminal.process(region.draw(lines.clone(), (20, 5)).as_bytes());
            assert!(screen_lines(&terminal).join("\n").ends_with(&lines.join("\n")), "{:?}", screen_lines(&terminal));
        }
        terminal.process(region.erase().as_bytes());
        assert_eq!(screen_lines(&terminal), ["3", "4"]);
        terminal.screen_mut().set_scrollback(10);
        assert!(terminal.screen().contents().starts_with("1\n2\n3\n4"));
    }

    #[test]
    fn resize_redraws_all_rows_and_leaves_no_remains() {
        let (mut terminal, mut region) = (terminal(10, 60), Region::default());
        for (turn, width) in [60, 20, 33, 60, 25].into_iter().cycle().take(40).enumerate() {
            terminal.screen_mut().set_size(cells(10), cells(width));
            let lines = vec![format!("{turn} a").repeat(2), "x".repeat(usize::from(width) - 1)];
            terminal.process(region.draw(lines.clone(), (usize::from(width), 10)).as_bytes());
            assert_eq!(screen_lines(&terminal)[1..], lines[..], "at {width}");
        }
        terminal.process(region.erase().as_bytes());
        assert_eq!(screen_lines(&terminal), ["$ mmchat compare"]);
    }

    #[test]
    fn no_sequence_needs_a_reply_of_the_terminal() {
        let mut region = Region::default();
        let mut text = region.draw(rows(&["a", "b"]), (20, 5));
        text += &region.draw(rows(&["a", "c"]), (20, 5));
        text += region.erase();
        for sequence in text.split('\u{1b}').skip(1) {
            let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends with a letter");
            assert!(matches!(&sequence[end..=end], "h" | "l" | "A" | "B" | "C" | "G" | "J" | "K"), "{sequence:?}");
        }
    }
}
