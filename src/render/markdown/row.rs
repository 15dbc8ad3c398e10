//! Words into rows of a terminal: wrapping, hanging indents and styles.
//!
//! Owns what is on the open row and the word that may not fit on it any more. Refuses to know what the text means.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::render::wrap::most_cells_of;

const RESET: &str = "\u{1b}[0m";
/// Fewer cells hold no text.
const NARROWEST: usize = 8;
/// A word that begins so near the end of a row waits until it is whole.
const EDGE: usize = 12;
/// No line begins with these: they may use the cells kept free at its end.
const CLOSING: &str = "。，、．！？：；”’）》」』】〉…,.!?:;)]}";

/// The marks in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) bold: bool,
    pub(super) italic: bool,
    /// Backticks that opened the code span; 0: none.
    pub(super) code: usize,
    pub(super) heading: bool,
    pub(super) dim: bool,
}

/// The open row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) width: usize,
    /// Nobody else breaks what is wider: not even code may be.
    pub(super) is_hard: bool,
    pub(super) style: Style,
    shown: Style,
    /// Cells used of it.
    pub(super) column: usize,
    /// What a wrapped row begins with.
    pub(super) indent: String,
    /// A space that is put out only when a word follows it on the same row.
    space: bool,
    /// The open word and its cells, styles included.
    word: String,
    word_width: usize,
    /// Some of the open word is on the row already.
    word_begun: bool,
}

impl Row {
    /// Rows of a terminal of `width` cells.
    pub(super) fn new(width: usize) -> Self {
        Self {
            // The last cell of a row stays empty: terminals differ in what they do there.
            width: width.saturating_sub(1).max(NARROWEST),
            is_hard: false,
            style: Style::default(),
            shown: Style::default(),
            column: 0,
            indent: String::new(),
            space: false,
            word: String::new(),
            word_width: 0,
            word_begun: false,
        }
    }

    /// Ends the row, if there is anything on it.
    pub(super) fn close(&mut self, out: &mut String) {
        if self.column > 0 {
            self.end(out);
        }
    }

    /// Ends the row.
    pub(super) fn end(&mut self, out: &mut String) {
        out.push('\n');
        self.column = 0;
        self.space = false;
    }

    /// The cells that `piece`, a grapheme, takes. A column has room for what any terminal takes.
    fn cells(&self, piece: &str) -> usize {
        if self.is_hard { most_cells_of(piece) } else { piece.width() }
    }

    pub(super) fn verbatim(&mut self, piece: &str, out: &mut String) {
        self.restyle(out);
        let shown = if piece == "\t" { "    " } else { piece };
        let cells = self.cells(shown);
        if self.is_hard && self.column + cells > self.width {
            self.new_row(out);
        }
        out.push_str(shown);
        self.column += cells;
    }

    /// What stands in front of a line's text, so long that some of the text has room beside it.
    pub(super) fn prefix(&mut self, text: &str, out: &mut String) {
        let mut shown = String::new();
        for piece in text.graphemes(true) {
            if self.is_hard && shown.width() + piece.width() > self.width / 2 {
                break;
            }
            shown.push_str(piece);
        }
        out.push_str(&shown);
        self.column = shown.width();
    }

    /// Wrapped rows begin so far in.
    pub(super) fn hang(&mut self, cells: usize) {
        self.indent = " ".repeat(if self.is_hard { cells.min(self.width / 2) } else { cells });
    }

    /// Whether the row has nothing on it, not even what a wrapped one begins with.
    pub(super) fn is_unindented(&self) -> bool {
        self.column == 0 && self.indent.is_empty() && self.word.is_empty()
    }

    /// A space at the start of a line, which is kept.
    pub(super) fn indentation(&mut self, out: &mut String) {
        out.push(' ');
        self.column += 1;
    }

    /// A space between words: shown only when another follows on the same row.
    pub(super) fn space(&mut self, out: &mut String) {
        self.flush_word(out);
        self.space = true;
    }

    /// One grapheme of a word.
    pub(super) fn put(&mut self, piece: &str, out: &mut String) {
        let cells = self.cells(piece);
        let closing = CLOSING.contains(piece);
        if cells >= 2 || (closing && !piece.is_ascii()) {
            self.flush_word(out);
            self.wide(piece, cells, closing, out);
        } else {
            self.style_into_word();
            self.word.push_str(piece);
            self.word_width += cells;
        }
    }

    /// A wide character is a word of its own; closing ones may use the two cells that others leave free.
    fn wide(&mut self, piece: &str, cells: usize, closing: bool, out: &mut String) {
        let room = if closing { self.width } else { self.width - 2 };
        if self.column + usize::from(self.space) + cells > room && self.column > 0 {
            self.new_row(out);
        }
        self.put_space(out);
        self.restyle(out);
        out.push_str(piece);
        self.column += cells;
        self.word_begun = false;
    }

    /// Puts the open word out: it is whole.
    pub(super) fn flush_word(&mut self, out: &mut String) {
        if !self.word.is_empty() {
            let fits = self.column + usize::from(self.space) + self.word_width <= self.width;
            if !fits && !self.word_begun && self.column > self.indent.width() {
                self.new_row(out);
            }
            self.put_word(out);
        }
        self.word_begun = false;
    }

    /// Puts out what there is of the open word, unless it may have to go to the next row as a whole.
    pub(super) fn show_open_word(&mut self, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let end = self.column + usize::from(self.space) + self.word_width;
        if !self.word_begun && self.column > 0 {
            if end > self.width {
                self.new_row(out);
            } else if end + EDGE > self.width {
                return;
            }
        }
        self.put_word(out);
        self.word_begun = true;
    }

    fn put_word(&mut self, out: &mut String) {
        self.put_space(out);
        if self.word_begun && self.column + self.word_width > self.width {
            // Longer than what was left of its row, and its head is shown: it is broken where the row ends.
            self.new_row(out);
        }
        let (word, cells) = (std::mem::take(&mut self.word), std::mem::take(&mut self.word_width));
        if self.column + cells <= self.width {
            out.push_str(&word);
            self.column += cells;
        } else {
            self.break_apart(&word, out);
        }
    }

    /// A word longer than a row: as many clusters on each as fit. Styles take no cells.
    fn break_apart(&mut self, word: &str, out: &mut String) {
        let mut parts = word.split('\u{1b}');
        let plain = parts.next().map(|part| ("", part));
        let styled = parts.map(|part| part.split_at(part.find('m').map_or(0, |end| end + 1)));
        for (at, (code, text)) in plain.into_iter().chain(styled).enumerate() {
            if at > 0 {
                out.extend(["\u{1b}", code]);
            }
            for cluster in text.graphemes(true) {
                let cells = self.cells(cluster);
                if self.column + cells > self.width && self.column > self.indent.width() {
                    self.new_row(out);
                }
                out.push_str(cluster);
                self.column += cells;
            }
        }
    }

    fn put_space(&mut self, out: &mut String) {
        if std::mem::take(&mut self.space) && self.column < self.width {
            out.push(' ');
            self.column += 1;
        }
    }

    fn new_row(&mut self, out: &mut String) {
        out.push('\n');
        out.push_str(&self.indent);
        self.column = self.indent.width();
        self.space = false;
    }

    /// Makes the terminal's style the one in force, right here.
    pub(super) fn restyle(&mut self, out: &mut String) {
        if self.shown != self.style {
            self.shown = self.style;
            out.push_str(&codes(self.style));
        }
    }

    fn style_into_word(&mut self) {
        if self.shown != self.style {
            self.shown = self.style;
            self.word.push_str(&codes(self.style));
        }
    }
}

fn codes(style: Style) -> String {
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
