//! Wraps text into rows of a given width in terminal cells.
//!
//! Rows end where UAX 14 allows it, so that no row begins with `。` or `，`; widths are those of grapheme clusters. A
//! word longer than a row is broken between clusters. Wrapped list items get a hanging indent. Styles (`ESC [ … m`, as
//! written by the Markdown renderer) take no cells and are closed at the end of each row, so that rows can be placed
//! side by side. The input must be sanitized. Linear in the length of the text.

use unicode_linebreak::BreakOpportunity;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::RESET;

const TAB: &str = "    ";

/// One row: its text and its width in cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrappedRow {
    /// The text with its styles, which end with the row.
    pub text: String,
    /// Width in cells.
    pub cells: usize,
}

/// Rows of at most `width` cells, at least one per line of `text`.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<WrappedRow> {
    let mut wrapper = Wrapper { width: width.max(2), rows: Vec::new(), active_style: String::new() };
    for line in text.split('\n') {
        wrapper.wrap_line(line);
    }
    wrapper.rows
}

/// The width of the widest line of code or of a table, which must not be wrapped.
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
            widest = widest.max(display_width(&line.replace('\t', TAB)));
        }
    }
    widest
}

/// The width of `text` in cells. `text` must not contain styles.
#[must_use]
pub fn display_width(text: &str) -> usize {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) { text.len() } else { text.width() }
}

/// The largest width that any terminal uses for `text`: terminals differ on joined emoji.
#[must_use]
pub fn max_display_width(text: &str) -> usize {
    if text.is_ascii() {
        return display_width(text);
    }
    text.graphemes(true).map(max_cluster_width).sum()
}

/// The largest width of one grapheme cluster.
pub(super) fn max_cluster_width(cluster: &str) -> usize {
    cluster.width().max(cluster.chars().filter_map(UnicodeWidthChar::width).sum())
}

/// The start of `text` that fits `width` cells on any terminal, ending in `…` if truncated.
#[must_use]
pub fn truncate_to_width(text: &str, width: usize) -> String {
    if max_display_width(text) <= width {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 1);
    for cluster in text.graphemes(true) {
        used += max_cluster_width(cluster);
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
pub fn tail_to_width(text: &str, width: usize) -> &str {
    let (mut from, mut used) = (text.len(), 0);
    for (at, cluster) in text.grapheme_indices(true).rev() {
        used += max_cluster_width(cluster);
        if used > width {
            break;
        }
        from = at;
    }
    &text[from..]
}

struct Wrapper {
    width: usize,
    rows: Vec<WrappedRow>,
    /// The codes of the active style, which continues across lines.
    active_style: String,
}

/// The row being filled.
struct OpenRow {
    row: WrappedRow,
    /// Width of its indent.
    indent: usize,
}

/// The remaining style codes of a line, with their byte offsets.
type StyleMarks = std::iter::Peekable<std::vec::IntoIter<(usize, String)>>;

impl Wrapper {
    fn wrap_line(&mut self, line: &str) {
        let line = line.trim_end_matches(['\r', ' ']);
        if line.len() <= self.width
            && self.active_style.is_empty()
            && line.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        {
            self.rows.push(WrappedRow { text: line.to_owned(), cells: line.len() });
            return;
        }
        let (text, codes) = split_styles(line);
        let hanging = hanging_indent(&text).min(self.width / 2);
        let mut marks = codes.into_iter().peekable();
        let mut open = self.start_row(0);
        let mut at = 0;
        for (end, opportunity) in unicode_linebreak::linebreaks(&text) {
            let segment = &text[at..end];
            let word = segment.trim_end_matches(' ');
            let width = display_width(word);
            if open.row.cells + width > self.width && open.row.cells > open.indent {
                open = self.next_row(open, hanging);
            }
            if open.row.cells + width <= self.width {
                self.push_text(&mut open.row, word, width, at, &mut marks);
            } else {
                // The word is longer than a row: break it between clusters.
                for (offset, cluster) in word.grapheme_indices(true) {
                    let width = cluster.width();
                    if open.row.cells + width > self.width && open.row.cells > open.indent {
                        open = self.next_row(open, hanging);
                    }
                    self.push_text(&mut open.row, cluster, width, at + offset, &mut marks);
                }
            }
            // Spaces that do not fit are dropped.
            let spaces = (segment.len() - word.len()).min(self.width.saturating_sub(open.row.cells));
            open.row.text.push_str(&" ".repeat(spaces));
            open.row.cells += spaces;
            at = end;
            if opportunity == BreakOpportunity::Mandatory && at < text.len() {
                open = self.next_row(open, hanging);
            }
        }
        for (_, code) in marks {
            self.apply_style(&mut open.row, &code);
        }
        self.finish_row(open.row);
    }

    /// Appends `text`, which begins at byte `at` of its line, with the styles in it.
    fn push_text(&mut self, row: &mut WrappedRow, text: &str, width: usize, at: usize, marks: &mut StyleMarks) {
        let mut from = 0;
        while let Some((offset, code)) = marks.next_if(|(offset, _)| *offset < at + text.len()) {
            let until = offset.saturating_sub(at).max(from);
            row.text.push_str(&text[from..until]);
            from = until;
            self.apply_style(row, &code);
        }
        row.text.push_str(&text[from..]);
        row.cells += width;
    }

    fn apply_style(&mut self, row: &mut WrappedRow, code: &str) {
        row.text.push_str(code);
        if code == RESET {
            self.active_style.clear();
        } else {
            self.active_style.push_str(code);
        }
    }

    fn start_row(&self, indent: usize) -> OpenRow {
        OpenRow { row: WrappedRow { text: " ".repeat(indent) + &self.active_style, cells: indent }, indent }
    }

    fn next_row(&mut self, open: OpenRow, indent: usize) -> OpenRow {
        self.finish_row(open.row);
        self.start_row(indent)
    }

    fn finish_row(&mut self, mut row: WrappedRow) {
        let trimmed = row.text.trim_end_matches(' ').len();
        row.cells -= row.text.len() - trimmed;
        row.text.truncate(trimmed);
        if !self.active_style.is_empty() {
            row.text.push_str(RESET);
        }
        self.rows.push(row);
    }
}

/// The line without its styles, and each style with its byte offset. Tabs are expanded.
fn split_styles(line: &str) -> (String, Vec<(usize, String)>) {
    let mut parts = line.split('\u{1b}');
    let (mut text, mut codes) = (parts.next().unwrap_or_default().replace('\t', TAB), Vec::new());
    for part in parts {
        let end = part.find('m').map_or(part.len(), |end| end + 1);
        codes.push((text.len(), format!("\u{1b}{}", &part[..end])));
        text.push_str(&part[end..].replace('\t', TAB));
    }
    (text, codes)
}

/// The indent of continuation rows: the offset of the text after a bullet, number or quote mark.
fn hanging_indent(line: &str) -> usize {
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
    use crate::model::sanitize::sanitize;

    fn texts(text: &str, width: usize) -> Vec<String> {
        wrap(text, width).into_iter().map(|row| row.text).collect()
    }

    #[test]
    fn words_are_not_broken_unless_longer_than_a_row() {
        assert_eq!(texts("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(texts("a\n\nb", 9), ["a", "", "b"]);
        assert_eq!(texts("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(texts("x https://example.com/a/long/path", 12), ["x https://", "example.com/", "a/long/path"]);
        assert_eq!(texts("👨‍👩‍👧👨‍👩‍👧👨‍👩‍👧", 5), ["👨‍👩‍👧👨‍👩‍👧", "👨‍👩‍👧"]);
    }

    #[test]
    fn rows_never_begin_with_closing_punctuation_and_wide_characters_are_not_split() {
        assert_eq!(texts("借用检查器在编译期运行。它", 11), ["借用检查器", "在编译期运", "行。它"]);
        for row in texts(&"它记录谁拥有一个值，并且拒绝悬垂引用。".repeat(5), 16) {
            assert!(!row.starts_with(['，', '。']), "{row}");
        }
    }

    #[test]
    fn lists_and_quotes_get_a_hanging_indent() {
        assert_eq!(texts("- one two three", 9), ["- one two", "  three"]);
        assert_eq!(texts("12. one two three", 9), ["12. one", "    two", "    three"]);
        assert_eq!(texts("│ said so often", 9), ["│ said so", "  often"]);
    }

    #[test]
    fn styles_take_no_cells_and_are_closed_at_the_end_of_each_row() {
        let rows = wrap("a \u{1b}[0m\u{1b}[1mbold text\u{1b}[0m end", 7);
        assert_eq!(
            rows.iter().map(|row| (row.text.as_str(), row.cells)).collect::<Vec<_>>(),
            [("a \u{1b}[0m\u{1b}[1mbold\u{1b}[0m", 6), ("\u{1b}[1mtext\u{1b}[0m", 4), ("\u{1b}[1m\u{1b}[0mend", 3)]
        );
    }

    #[test]
    fn width_of_code_and_tables_is_measured() {
        assert_eq!(widest_fixed_line("a very long line of ordinary words"), 0);
        assert_eq!(widest_fixed_line("```\nlet x = 1;\n```\nmore words than that"), 10);
        assert_eq!(widest_fixed_line("| a | b |\n|---|---|"), 9);
    }

    #[test]
    fn text_is_truncated_at_either_end() {
        assert_eq!((truncate_to_width("abc", 3), truncate_to_width("abcd", 3)), ("abc".into(), "ab…".into()));
        assert_eq!((truncate_to_width("借用检查", 5), truncate_to_width("ab", 0)), ("借用…".into(), String::new()));
        assert_eq!(
            (tail_to_width("abcd", 3), tail_to_width("借用检查", 5), tail_to_width("a", 5)),
            ("bcd", "检查", "a")
        );
    }

    proptest! {
        #[test]
        fn rows_fit_the_width_and_no_text_is_lost(
            text in "([a-z]{1,12}|[借用检查器。，]{1,6}|👋|👨‍👩‍👧|e\u{301}|\\t|\u{1b}\\[1m|\u{1b}\\[0m| |\n|- |1\\. ){0,60}",
            width in 8usize..60,
        ) {
            let rows = wrap(&text, width);
            let wrapped_text: String = rows.iter().map(|row| row.text.as_str()).collect();
            let bare = |text: &str| sanitize(text).split_whitespace().collect::<String>();
            prop_assert_eq!(bare(&wrapped_text), bare(&text));
            for row in &rows {
                let shown = sanitize(&row.text);
                prop_assert!(row.cells <= width && shown.width() <= width, "{:?} in {}", row, width);
                let last_code = row.text.rfind('\u{1b}').map(|at| &row.text[at..at + 4]);
                prop_assert!(last_code.is_none_or(|code| code == RESET) , "{row:?} has an unclosed style");
            }
        }
    }
}
