//! Writes words to the rows of a terminal: wrapping, hanging indents and styles.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::render::{RESET, wrap::max_cluster_width};

/// Minimum width of a row.
const MIN_WIDTH: usize = 8;
/// A word that ends within this many cells of the row end is held back until it is complete.
const HOLD_BACK_WIDTH: usize = 12;
/// Closing punctuation must not begin a row: it may use the cells kept free at the end.
const CLOSING_PUNCTUATION: &str = "。，、．！？：；”’）》」』】〉…,.!?:;)]}";

/// The active styles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) bold: bool,
    pub(super) italic: bool,
    /// Number of backticks that opened the code span; 0: none.
    pub(super) code: usize,
    pub(super) heading: bool,
    pub(super) dim: bool,
}

/// The open row.
#[derive(Debug)]
pub(super) struct RowWriter {
    pub(super) width: usize,
    /// No row may exceed the width, not even code: the caller does not wrap rows.
    pub(super) has_hard_width: bool,
    pub(super) style: Style,
    written_style: Style,
    /// Cells used on the row.
    pub(super) column: usize,
    /// The start of continuation rows.
    pub(super) indent: String,
    /// A space to write if a word follows on the same row.
    has_pending_space: bool,
    /// The open word, including style codes.
    word: String,
    word_width: usize,
    /// Part of the open word is already on the row.
    is_word_started: bool,
}

impl RowWriter {
    /// An empty row of a terminal of `width` cells.
    pub(super) fn new(width: usize) -> Self {
        Self {
            // The last cell of a row stays empty: terminals differ in how they wrap there.
            width: width.saturating_sub(1).max(MIN_WIDTH),
            has_hard_width: false,
            style: Style::default(),
            written_style: Style::default(),
            column: 0,
            indent: String::new(),
            has_pending_space: false,
            word: String::new(),
            word_width: 0,
            is_word_started: false,
        }
    }

    /// Ends the row unless it is empty.
    pub(super) fn end_if_not_empty(&mut self, out: &mut String) {
        if self.column > 0 {
            self.end(out);
        }
    }

    /// Ends the row.
    pub(super) fn end(&mut self, out: &mut String) {
        out.push('\n');
        self.column = 0;
        self.has_pending_space = false;
    }

    /// The width of a grapheme; in a column the largest width that any terminal uses.
    fn grapheme_width(&self, grapheme: &str) -> usize {
        if self.has_hard_width { max_cluster_width(grapheme) } else { grapheme.width() }
    }

    pub(super) fn push_verbatim(&mut self, grapheme: &str, out: &mut String) {
        self.write_style(out);
        let shown = if grapheme == "\t" { "    " } else { grapheme };
        let cells = self.grapheme_width(shown);
        if self.has_hard_width && self.column + cells > self.width {
            self.new_row(out);
        }
        out.push_str(shown);
        self.column += cells;
    }

    /// Writes the prefix of a line; in a column at most half the width, so that text fits beside it.
    pub(super) fn push_prefix(&mut self, text: &str, out: &mut String) {
        let mut shown = String::new();
        for grapheme in text.graphemes(true) {
            if self.has_hard_width && shown.width() + grapheme.width() > self.width / 2 {
                break;
            }
            shown.push_str(grapheme);
        }
        out.push_str(&shown);
        self.column = shown.width();
    }

    /// Sets the indent of continuation rows.
    pub(super) fn set_indent(&mut self, cells: usize) {
        self.indent = " ".repeat(if self.has_hard_width { cells.min(self.width / 2) } else { cells });
    }

    /// Whether the row is empty and has no indent.
    pub(super) fn is_at_line_start(&self) -> bool {
        self.column == 0 && self.indent.is_empty() && self.word.is_empty()
    }

    /// Writes a space of the indentation at the start of a line.
    pub(super) fn push_indent(&mut self, out: &mut String) {
        out.push(' ');
        self.column += 1;
    }

    /// Processes a space between words; it is written if another word follows on the same row.
    pub(super) fn push_space(&mut self, out: &mut String) {
        self.flush_word(out);
        self.has_pending_space = true;
    }

    /// Processes one grapheme of a word.
    pub(super) fn push_grapheme(&mut self, grapheme: &str, out: &mut String) {
        let cells = self.grapheme_width(grapheme);
        let closing = CLOSING_PUNCTUATION.contains(grapheme);
        if cells >= 2 || (closing && !grapheme.is_ascii()) {
            self.flush_word(out);
            self.push_wide(grapheme, cells, closing, out);
        } else {
            self.push_style_to_word();
            self.word.push_str(grapheme);
            self.word_width += cells;
        }
    }

    /// Writes a wide character, which is a word of its own. Only closing punctuation may use the last two cells.
    fn push_wide(&mut self, grapheme: &str, cells: usize, closing: bool, out: &mut String) {
        let room = if closing { self.width } else { self.width - 2 };
        if self.column + usize::from(self.has_pending_space) + cells > room && self.column > 0 {
            self.new_row(out);
        }
        self.write_space(out);
        self.write_style(out);
        out.push_str(grapheme);
        self.column += cells;
        self.is_word_started = false;
    }

    /// Writes the open word, which is complete.
    pub(super) fn flush_word(&mut self, out: &mut String) {
        if !self.word.is_empty() {
            let fits = self.column + usize::from(self.has_pending_space) + self.word_width <= self.width;
            if !fits && !self.is_word_started && self.column > self.indent.width() {
                self.new_row(out);
            }
            self.write_word(out);
        }
        self.is_word_started = false;
    }

    /// Writes the open word so far, unless it may still have to move to the next row.
    pub(super) fn show_open_word(&mut self, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let end = self.column + usize::from(self.has_pending_space) + self.word_width;
        if !self.is_word_started && self.column > 0 {
            if end > self.width {
                self.new_row(out);
            } else if end + HOLD_BACK_WIDTH > self.width {
                return;
            }
        }
        self.write_word(out);
        self.is_word_started = true;
    }

    fn write_word(&mut self, out: &mut String) {
        self.write_space(out);
        if self.is_word_started && self.column + self.word_width > self.width {
            // The start of the word is already written, so the word is broken at the row end.
            self.new_row(out);
        }
        let (word, cells) = (std::mem::take(&mut self.word), std::mem::take(&mut self.word_width));
        if self.column + cells <= self.width {
            out.push_str(&word);
            self.column += cells;
        } else {
            self.write_broken_word(&word, out);
        }
    }

    /// Writes a word longer than a row, broken between clusters. Styles take no cells.
    fn write_broken_word(&mut self, word: &str, out: &mut String) {
        let mut parts = word.split('\u{1b}');
        let plain = parts.next().map(|part| ("", part));
        let styled = parts.map(|part| part.split_at(part.find('m').map_or(0, |end| end + 1)));
        for (at, (code, text)) in plain.into_iter().chain(styled).enumerate() {
            if at > 0 {
                out.extend(["\u{1b}", code]);
            }
            for cluster in text.graphemes(true) {
                let cells = self.grapheme_width(cluster);
                if self.column + cells > self.width && self.column > self.indent.width() {
                    self.new_row(out);
                }
                out.push_str(cluster);
                self.column += cells;
            }
        }
    }

    fn write_space(&mut self, out: &mut String) {
        if std::mem::take(&mut self.has_pending_space) && self.column < self.width {
            out.push(' ');
            self.column += 1;
        }
    }

    fn new_row(&mut self, out: &mut String) {
        out.push('\n');
        out.push_str(&self.indent);
        self.column = self.indent.width();
        self.has_pending_space = false;
    }

    /// Writes the codes of the active style if it changed.
    pub(super) fn write_style(&mut self, out: &mut String) {
        if self.written_style != self.style {
            self.written_style = self.style;
            out.push_str(&style_codes(self.style));
        }
    }

    fn push_style_to_word(&mut self) {
        if self.written_style != self.style {
            self.written_style = self.style;
            self.word.push_str(&style_codes(self.style));
        }
    }
}

fn style_codes(style: Style) -> String {
    let mut out = RESET.to_owned();
    if style.bold || style.heading {
        out.push_str("\u{1b}[1m");
    }
    if style.dim {
        out.push_str("\u{1b}[2m");
    }
    if style.italic {
        out.push_str("\u{1b}[3m");
    }
    if style.heading {
        out.push_str("\u{1b}[4m");
    }
    if style.code > 0 {
        out.push_str("\u{1b}[36m");
    }
    out
}
