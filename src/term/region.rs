//! The live region: rows at the bottom of the terminal that are drawn again and again, and then gone.
//!
//! Owns the escape sequences, as text. The cursor is parked on the region's first cell between two drawings, so that
//! "from here down" is the region whatever became of the screen: a resize, a scroll, a reflow. Moves are relative;
//! nothing is ever asked of the terminal. Refuses to write, and to know what the rows say.

use crossterm::{
    Command,
    cursor::{MoveDown, MoveToColumn, MoveUp},
    terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate},
};

/// What takes the region away when it may be shown: also for a panic's hook. The first row goes by itself: there are
/// terminals (tmux) that put the whole screen into the scrollback when it is erased from its first cell on.
pub(super) const ERASE: &str = "\r\u{1b}[K\u{1b}[C\u{1b}[J\r";

/// What is drawn.
#[derive(Debug, Default)]
pub struct Region {
    rows: Vec<String>,
    /// The terminal's columns and rows when that was drawn.
    size: (usize, usize),
}

impl Region {
    /// The text that makes the region show `rows`, none wider than the terminal less a cell, on a terminal of this size.
    /// Only what changed is drawn.
    pub fn draw(&mut self, rows: Vec<String>, size: (usize, usize)) -> String {
        let same_shape = self.size == size && self.rows.len() == rows.len() && !rows.is_empty();
        if same_shape && self.rows == rows {
            return String::new();
        }
        let mut out = String::new();
        put(BeginSynchronizedUpdate, &mut out);
        if same_shape {
            self.changes(&rows, &mut out);
        } else {
            out.push_str(ERASE);
            out.push_str(&rows.join("\r\n"));
            up(rows.len().saturating_sub(1), &mut out);
            put(MoveToColumn(0), &mut out);
        }
        put(EndSynchronizedUpdate, &mut out);
        (self.rows, self.size) = (rows, size);
        out
    }

    /// The text that takes the region away.
    pub fn erase(&mut self) -> &'static str {
        if std::mem::take(&mut self.rows).is_empty() { "" } else { ERASE }
    }

    fn changes(&self, rows: &[String], out: &mut String) {
        let mut at = 0;
        for (index, row) in rows.iter().enumerate().filter(|(index, row)| self.rows[*index] != **row) {
            down(index - at, out);
            at = index;
            // First: a row may leave cells out.
            out.push('\r');
            put(Clear(ClearType::UntilNewLine), out);
            out.push_str(row);
        }
        up(at, out);
        put(MoveToColumn(0), out);
    }
}

fn put(command: impl Command, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = command.write_ansi(out);
}

/// A count of 0 would move by one.
fn down(rows: usize, out: &mut String) {
    if rows > 0 {
        put(MoveDown(u16::try_from(rows).unwrap_or(u16::MAX)), out);
    }
}

fn up(rows: usize, out: &mut String) {
    if rows > 0 {
        put(MoveUp(u16::try_from(rows).unwrap_or(u16::MAX)), out);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    fn rows(rows: &[&str]) -> Vec<String> {
        rows.iter().map(|&row| row.to_owned()).collect()
    }

    /// A terminal with some text on it, which the region must leave alone.
    fn terminal(height: u16, width: u16) -> vt100::Parser {
        let mut terminal = empty(height, width);
        terminal.process(b"$ mmchat compare\r\n");
        terminal
    }

    fn empty(height: u16, width: u16) -> vt100::Parser {
        vt100::Parser::new(cells(height), cells(width), 100)
    }

    fn cells(count: u16) -> NonZero<u16> {
        NonZero::new(count).expect("some")
    }

    fn shown(terminal: &vt100::Parser) -> Vec<String> {
        terminal.screen().contents().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn rows_are_replaced_in_place_and_then_gone() {
        let (mut terminal, mut region) = (terminal(10, 40), Region::default());
        for state in [["1 a  queued", "2 b  queued"], ["1 a  ..", "2 b  queued"], ["1 a  ok", "2 b  通义"]] {
            let text = region.draw(rows(&state), (40, 10));
            terminal.process(text.as_bytes());
            assert_eq!(shown(&terminal), [&["$ mmchat compare"], &state[..]].concat());
            assert_eq!(terminal.screen().cursor_position(), (1, 0), "parked on the first cell");
        }
        assert_eq!(region.draw(rows(&["1 a  ok", "2 b  通义"]), (40, 10)), "", "nothing changed");
        let text = region.draw(rows(&["1 a  ok", "2 b  ok"]), (40, 10));
        assert!(!text.contains("1 a") && text.contains("2 b"), "only what changed: {text:?}");
        terminal.process(text.as_bytes());
        terminal.process(region.erase().as_bytes());
        terminal.process(b"final\r\n");
        assert_eq!(shown(&terminal), ["$ mmchat compare", "final"]);
        assert_eq!(region.erase(), "", "there is nothing left to take away");
    }

    #[test]
    fn more_and_fewer_rows_at_the_bottom_of_the_screen_scroll_what_was_there() {
        let (mut terminal, mut region) = (empty(5, 20), Region::default());
        terminal.process(b"1\r\n2\r\n3\r\n4\r\n");
        for count in [3, 1, 2] {
            let lines: Vec<String> = (0..count).map(|n| format!("row {n}")).collect();
            terminal.process(region.draw(lines.clone(), (20, 5)).as_bytes());
            assert!(shown(&terminal).join("\n").ends_with(&lines.join("\n")), "{:?}", shown(&terminal));
        }
        terminal.process(region.erase().as_bytes());
        assert_eq!(shown(&terminal), ["3", "4"]);
        terminal.screen_mut().set_scrollback(10);
        assert!(terminal.screen().contents().starts_with("1\n2\n3\n4"));
    }

    #[test]
    fn a_resize_draws_everything_anew_and_leaves_no_trace() {
        let (mut terminal, mut region) = (terminal(10, 60), Region::default());
        for (turn, width) in [60, 20, 33, 60, 25].into_iter().cycle().take(40).enumerate() {
            terminal.screen_mut().set_size(cells(10), cells(width));
            let lines = vec![format!("{turn} a").repeat(2), "x".repeat(usize::from(width) - 1)];
            terminal.process(region.draw(lines.clone(), (usize::from(width), 10)).as_bytes());
            assert_eq!(shown(&terminal)[1..], lines[..], "at {width}");
        }
        terminal.process(region.erase().as_bytes());
        assert_eq!(shown(&terminal), ["$ mmchat compare"]);
    }

    #[test]
    fn nothing_is_asked_of_the_terminal() {
        let mut region = Region::default();
        let mut text = region.draw(rows(&["a", "b"]), (20, 5));
        text += &region.draw(rows(&["a", "c"]), (20, 5));
        text += region.erase();
        for sequence in text.split('\u{1b}').skip(1) {
            let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends");
            assert!(matches!(&sequence[end..=end], "h" | "l" | "A" | "B" | "C" | "G" | "J" | "K"), "{sequence:?}");
        }
    }
}
