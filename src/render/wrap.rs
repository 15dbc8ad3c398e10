//! Text into rows of so many cells.
//!
//! Owns where a row may end (UAX 14, so that no row begins with `。` or `，`), what fits on it (grapheme clusters, cells
//! as terminals count them) and how a wrapped list item hangs. A word longer than a row is broken between clusters.
//! Styles (`ESC [ … m`, as the Markdown view puts them out) take no cells and are closed at the end of each row, so that
//! rows can stand beside others. Input is sanitised already. Linear in the text.

use unicode_linebreak::BreakOpportunity;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const RESET: &str = "\u{1b}[0m";
const TAB: &str = "    ";

/// One row: its text, and the cells it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// With its styles, which end with it.
    pub text: String,
    /// Its cells.
    pub cells: usize,
}

/// Rows of at most `width` cells, one at least for each line of `text`.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<Row> {
    let mut wrapper = Wrapper { width: width.max(2), rows: Vec::new(), style: String::new() };
    for line in text.split('\n') {
        wrapper.line(line);
    }
    wrapper.rows
}

/// The cells of the widest line that must not be wrapped: code and tables, which mean nothing in pieces.
#[must_use]
pub fn widest_fixed_line(text: &str) -> usize {
    let (mut widest, mut fence) = (0, None::<char>);
    for line in text.lines() {
        let body = line.trim_start();
        let mark =
            body.chars().next().filter(|mark| "`~".contains(*mark) && body.starts_with(&mark.to_string().repeat(3)));
        let inside = fence.is_some();
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark && body.trim_end().chars().all(|c| c == mark) => fence = None,
            _ => {}
        }
        if inside || body.starts_with('|') {
            widest = widest.max(cells(&line.replace('\t', TAB)));
        }
    }
    widest
}

/// The cells `text` takes, styles apart.
#[must_use]
pub fn cells(text: &str) -> usize {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) { text.len() } else { text.width() }
}

/// The most cells that any terminal takes for `text`: they differ about emoji that are joined.
#[must_use]
pub fn most_cells(text: &str) -> usize {
    if text.is_ascii() {
        return cells(text);
    }
    text.graphemes(true).map(most_cells_of).sum()
}

/// The same of one grapheme cluster.
pub(super) fn most_cells_of(cluster: &str) -> usize {
    cluster.width().max(cluster.chars().filter_map(UnicodeWidthChar::width).sum())
}

/// The start of `text` that fits `width` cells on any terminal, with `…` where something is missing.
#[must_use]
pub fn shortened(text: &str, width: usize) -> String {
    if most_cells(text) <= width {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 1);
    for cluster in text.graphemes(true) {
        used += most_cells_of(cluster);
        if used > width {
            break;
        }
        out.push_str(cluster);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// The end of `text` that fits `width` cells on any terminal. `text` is one line.
#[must_use]
pub fn end_of(text: &str, width: usize) -> &str {
    let (mut from, mut used) = (text.len(), 0);
    for (at, cluster) in text.grapheme_indices(true).rev() {
        used += most_cells_of(cluster);
        if used > width {
            break;
        }
        from = at;
    }
    &text[from..]
}

struct Wrapper {
    width: usize,
    rows: Vec<Row>,
    /// The style in force, as its codes; it lasts over lines.
    style: String,
}

/// The row that is being filled.
struct Open {
    row: Row,
    /// The cells it began with.
    indent: usize,
}

/// The styles of a line and where they stand in it, those not put out yet.
type Marks = std::iter::Peekable<std::vec::IntoIter<(usize, String)>>;

impl Wrapper {
    fn line(&mut self, line: &str) {
        let line = line.trim_end_matches(['\r', ' ']);
        if line.len() <= self.width && self.style.is_empty() && line.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            self.rows.push(Row { text: line.to_owned(), cells: line.len() });
            return;
        }
        let (text, codes) = without_codes(line);
        let hanging = hanging(&text).min(self.width / 2);
        let mut marks = codes.into_iter().peekable();
        let mut open = self.begin(0);
        let mut at = 0;
        for (end, opportunity) in unicode_linebreak::linebreaks(&text) {
            let piece = &text[at..end];
            let word = piece.trim_end_matches(' ');
            let wide = cells(word);
            if open.row.cells + wide > self.width && open.row.cells > open.indent {
                open = self.next(open, hanging);
            }
            if open.row.cells + wide <= self.width {
                self.put(&mut open.row, word, wide, at, &mut marks);
            } else {
                // Longer than a row: as many clusters on each as fit.
                for (offset, cluster) in word.grapheme_indices(true) {
                    let wide = cluster.width();
                    if open.row.cells + wide > self.width && open.row.cells > open.indent {
                        open = self.next(open, hanging);
                    }
                    self.put(&mut open.row, cluster, wide, at + offset, &mut marks);
                }
            }
            // A space that does not fit is where the row ends.
            let spaces = (piece.len() - word.len()).min(self.width.saturating_sub(open.row.cells));
            open.row.text.push_str(&" ".repeat(spaces));
            open.row.cells += spaces;
            at = end;
            if opportunity == BreakOpportunity::Mandatory && at < text.len() {
                open = self.next(open, hanging);
            }
        }
        for (_, code) in marks {
            self.restyle(&mut open.row, &code);
        }
        self.end(open.row);
    }

    /// Puts `piece`, which begins at `at` of its line, on the row, styles where they belong.
    fn put(&mut self, row: &mut Row, piece: &str, wide: usize, at: usize, marks: &mut Marks) {
        let mut from = 0;
        while let Some((place, code)) = marks.next_if(|(place, _)| *place < at + piece.len()) {
            let until = place.saturating_sub(at).max(from);
            row.text.push_str(&piece[from..until]);
            from = until;
            self.restyle(row, &code);
        }
        row.text.push_str(&piece[from..]);
        row.cells += wide;
    }

    fn restyle(&mut self, row: &mut Row, code: &str) {
        row.text.push_str(code);
        if code == RESET {
            self.style.clear();
        } else {
            self.style.push_str(code);
        }
    }

    fn begin(&self, indent: usize) -> Open {
        Open { row: Row { text: " ".repeat(indent) + &self.style, cells: indent }, indent }
    }

    fn next(&mut self, open: Open, indent: usize) -> Open {
        self.end(open.row);
        self.begin(indent)
    }

    fn end(&mut self, mut row: Row) {
        let kept = row.text.trim_end_matches(' ').len();
        row.cells -= row.text.len() - kept;
        row.text.truncate(kept);
        if !self.style.is_empty() {
            row.text.push_str(RESET);
        }
        self.rows.push(row);
    }
}

/// The line without its styles, and each with the place where it stood. Tabs are spread.
fn without_codes(line: &str) -> (String, Vec<(usize, String)>) {
    let mut parts = line.split('\u{1b}');
    let (mut text, mut codes) = (parts.next().unwrap_or_default().replace('\t', TAB), Vec::new());
    for part in parts {
        let end = part.find('m').map_or(part.len(), |end| end + 1);
        codes.push((text.len(), format!("\u{1b}{}", &part[..end])));
        text.push_str(&part[end..].replace('\t', TAB));
    }
    (text, codes)
}

/// How far the rest of a wrapped line is moved in: as far as its text begins behind a bullet, number or quote mark.
fn hanging(line: &str) -> usize {
    let body = line.trim_start_matches(' ');
    let spaces = line.len() - body.len();
    let digits = body.bytes().take_while(u8::is_ascii_digit).count();
    let mark = match body.as_bytes() {
        _ if body.starts_with("• ") || body.starts_with("│ ") => 2,
        [b'-' | b'*' | b'+' | b'>', b' ', ..] => 2,
        bytes if (1..=9).contains(&digits) && matches!(bytes[digits..], [b'.' | b')', b' ', ..]) => digits + 2,
        _ => 0,
    };
    spaces + mark
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::sanitize::sanitised;

    fn texts(text: &str, width: usize) -> Vec<String> {
        wrap(text, width).into_iter().map(|row| row.text).collect()
    }

    #[test]
    fn words_stay_whole_and_long_ones_are_broken_between_clusters() {
        assert_eq!(texts("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(texts("a\n\nb", 9), ["a", "", "b"]);
        assert_eq!(texts("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(texts("x https://example.com/a/long/path", 12), ["x https://", "example.com/", "a/long/path"]);
        assert_eq!(texts("👨‍👩‍👧👨‍👩‍👧👨‍👩‍👧", 5), ["👨‍👩‍👧👨‍👩‍👧", "👨‍👩‍👧"]);
    }

    #[test]
    fn no_row_begins_with_closing_punctuation_and_wide_characters_leave_a_cell() {
        assert_eq!(texts("借用检查器在编译期运行。它", 11), ["借用检查器", "在编译期运", "行。它"]);
        for row in texts(&"它记录谁拥有一个值，并且拒绝悬垂引用。".repeat(5), 16) {
            assert!(!row.starts_with(['，', '。']), "{row}");
        }
    }

    #[test]
    fn lists_and_quotes_hang() {
        assert_eq!(texts("- one two three", 9), ["- one two", "  three"]);
        assert_eq!(texts("12. one two three", 9), ["12. one", "    two", "    three"]);
        assert_eq!(texts("│ said so often", 9), ["│ said so", "  often"]);
    }

    #[test]
    fn styles_take_no_cells_and_end_with_their_row() {
        let rows = wrap("a \u{1b}[0m\u{1b}[1mbold text\u{1b}[0m end", 7);
        assert_eq!(
            rows.iter().map(|row| (row.text.as_str(), row.cells)).collect::<Vec<_>>(),
            [("a \u{1b}[0m\u{1b}[1mbold\u{1b}[0m", 6), ("\u{1b}[1mtext\u{1b}[0m", 4), ("\u{1b}[1m\u{1b}[0mend", 3)]
        );
    }

    #[test]
    fn code_and_tables_are_measured() {
        assert_eq!(widest_fixed_line("a very long line of ordinary words"), 0);
        assert_eq!(widest_fixed_line("```\nlet x = 1;\n```\nmore words than that"), 10);
        assert_eq!(widest_fixed_line("| a | b |\n|---|---|"), 9);
    }

    #[test]
    fn texts_are_shortened_at_either_end() {
        assert_eq!((shortened("abc", 3), shortened("abcd", 3)), ("abc".into(), "ab…".into()));
        assert_eq!((shortened("借用检查", 5), shortened("ab", 0)), ("借用…".into(), String::new()));
        assert_eq!((end_of("abcd", 3), end_of("借用检查", 5), end_of("a", 5)), ("bcd", "检查", "a"));
    }

    proptest! {
        #[test]
        fn rows_fit_and_nothing_is_lost(
            text in "([a-z]{1,12}|[借用检查器。，]{1,6}|👋|👨‍👩‍👧|e\u{301}|\\t|\u{1b}\\[1m|\u{1b}\\[0m| |\n|- |1\\. ){0,60}",
            width in 8usize..60,
        ) {
            let rows = wrap(&text, width);
            let seen: String = rows.iter().map(|row| row.text.as_str()).collect();
            let bare = |text: &str| sanitised(text).split_whitespace().collect::<String>();
            prop_assert_eq!(bare(&seen), bare(&text));
            for row in &rows {
                let shown = sanitised(&row.text);
                prop_assert!(row.cells <= width && shown.width() <= width, "{:?} in {}", row, width);
                let last = row.text.rfind('\u{1b}').map(|at| &row.text[at..at + 4]);
                prop_assert!(last.is_none_or(|code| code == RESET) , "{row:?} leaves a style open");
            }
        }
    }
}
