//! Lays out complete answers in columns, without truncating them.
//!
//! Also decides whether columns are suitable: they fit, no code or table is wider than its column, and the lengths are
//! similar.

use crate::render::{
    RESET,
    wrap::{WrappedRow, display_width, truncate_to_width, wrap},
};

/// Minimum width of a column of text.
const MIN_COLUMN_WIDTH: usize = 36;
const SEPARATOR: &str = " | ";
/// A narrower terminal gets one column.
const MIN_MULTI_COLUMN_WIDTH: usize = 75;
/// Maximum ratio of the longest answer to the shortest; above it, the space beside the longest would be empty.
const MAX_LENGTH_RATIO: usize = 3;

/// One answer to lay out.
#[derive(Clone, Debug, Default)]
pub struct AnswerBlock {
    /// Number, name and state.
    pub heading: String,
    /// The text, which may contain styles.
    pub text: String,
    /// Width of the widest line of code or of a table, which must not be wrapped.
    pub fixed_width: usize,
    /// Whether there is an answer. Failed and empty answers are ignored when lengths are compared.
    pub has_answer: bool,
}

/// The number of columns that fit a terminal of `width` cells.
#[must_use]
pub(crate) fn max_columns(width: usize) -> usize {
    if width < MIN_MULTI_COLUMN_WIDTH { 1 } else { (width + SEPARATOR.len()) / (MIN_COLUMN_WIDTH + SEPARATOR.len()) }
}

/// The width of each of `count` columns; one cell is left free at each edge.
pub(super) fn column_width(width: usize, count: usize) -> usize {
    width.saturating_sub(2 + SEPARATOR.len() * (count - 1)) / count
}

/// Whether these answers are suitable for columns.
#[must_use]
pub(crate) fn fits_side_by_side(blocks: &[AnswerBlock], width: usize) -> bool {
    if blocks.len() < 2 || blocks.len() > max_columns(width) {
        return false;
    }
    let column_width = column_width(width, blocks.len());
    if blocks.iter().any(|block| block.fixed_width > column_width) {
        return false;
    }
    let lengths = || blocks.iter().filter(|block| block.has_answer).map(|block| wrap(&block.text, column_width).len());
    let (shortest, longest) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
    longest <= shortest * MAX_LENGTH_RATIO
}

/// The answers in columns, in several bands if needed. `bold` styles the headings.
#[must_use]
pub fn render_columns(blocks: &[AnswerBlock], width: usize, bold: bool) -> String {
    let mut out = String::new();
    for band in blocks.chunks(max_columns(width).min(blocks.len()).max(1)) {
        if !out.is_empty() {
            out.push('\n');
        }
        render_band(band, column_width(width, band.len()), bold, &mut out);
    }
    out
}

fn render_band(band: &[AnswerBlock], width: usize, bold: bool, out: &mut String) {
    let heads: Vec<WrappedRow> = band.iter().map(|block| heading_row(&block.heading, width, bold)).collect();
    push_row(heads.iter().map(Some), width, out);
    let rules: Vec<String> = band.iter().map(|_| "-".repeat(width + 2)).collect();
    out.push_str(&rules.join("+"));
    // The last cell of a row stays empty, so that the terminal does not wrap it.
    out.pop();
    out.push('\n');
    let bodies: Vec<Vec<WrappedRow>> = band.iter().map(|block| wrap(block.text.trim_end(), width)).collect();
    for index in 0..bodies.iter().map(Vec::len).max().unwrap_or(0) {
        push_row(bodies.iter().map(|body| body.get(index)), width, out);
    }
}

fn heading_row(text: &str, width: usize, bold: bool) -> WrappedRow {
    let text = truncate_to_width(text, width);
    let cells = display_width(&text);
    WrappedRow { text: if bold { format!("\u{1b}[1m{text}{RESET}") } else { text }, cells }
}

fn push_row<'a>(cells: impl Iterator<Item = Option<&'a WrappedRow>>, width: usize, out: &mut String) {
    out.push(' ');
    let mut padding = 0;
    for (index, row) in cells.enumerate() {
        if index > 0 {
            out.extend(std::iter::repeat_n(' ', padding));
            out.push_str(SEPARATOR);
        }
        if let Some(row) = row {
            out.push_str(&row.text);
        }
        padding = width.saturating_sub(row.map_or(0, |row| row.cells));
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_segmentation::UnicodeSegmentation;
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::render::wrap::widest_fixed_line;

    fn block(head: &str, text: &str) -> AnswerBlock {
        AnswerBlock { heading: head.into(), fixed_width: widest_fixed_line(text), text: text.into(), has_answer: true }
    }

    #[test]
    fn number_of_columns_follows_the_width() {
        assert_eq!([40, 74, 80, 120, 200].map(max_columns), [1, 1, 2, 3, 5]);
        assert_eq!((column_width(80, 2), column_width(120, 3), column_width(200, 5)), (37, 37, 37));
    }

    #[test]
    fn answers_are_complete_in_columns() {
        let blocks = [block("1 a  ok", "one\ntwo"), block("2 通义  ok", "借用检查器在编译期运行。")];
        let text = render_columns(&blocks, 80, false);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], format!(" {:37} | 2 通义  ok", "1 a  ok"));
        assert_eq!(rows[1], format!("{}+{}", "-".repeat(39), "-".repeat(38)));
        assert_eq!(rows[2], format!(" {:37} | 借用检查器在编译期运行。", "one"));
        assert_eq!(rows[3], format!(" {:37} |", "two"));
    }

    #[test]
    fn columns_are_unsuitable_for_wide_code_uneven_lengths_or_a_narrow_terminal() {
        let short = || block("a", "words");
        assert!(fits_side_by_side(&[short(), short()], 80));
        assert!(
            !fits_side_by_side(&[short(), short()], 74)
                && !fits_side_by_side(&[short(), short(), short()], 80)
                && !fits_side_by_side(&[short()], 80)
        );
        assert!(!fits_side_by_side(&[short(), block("b", &format!("```\n{}\n```", "x".repeat(38)))], 80));
        assert!(!fits_side_by_side(&[short(), block("b", &"line\n".repeat(9))], 80));
        let failed = AnswerBlock { has_answer: false, ..block("b", &"reason\n".repeat(9)) };
        assert!(fits_side_by_side(&[short(), failed, short()], 120));
    }

    #[test]
    fn answers_that_do_not_fit_go_into_more_bands() {
        let blocks: Vec<AnswerBlock> = (1..=5).map(|n| block(&format!("{n} m"), "text")).collect();
        let text = render_columns(&blocks, 80, false);
        let heads: Vec<&str> = text.lines().filter(|line| line.contains(" m")).collect();
        assert_eq!(heads.len(), 3);
        assert!(heads[0].contains("1 m") && heads[0].contains("2 m") && heads[2].trim() == "5 m");
    }

    /// The text of column `index` of `count`, read from the screen by cell position.
    fn read_column(rows: &[&str], index: usize, count: usize, width: usize) -> String {
        let start = 1 + index * (width + SEPARATOR.len());
        let mut text = String::new();
        for row in rows {
            let mut at = 0;
            for cluster in row.graphemes(true) {
                if at >= start && at < start + width {
                    text.push_str(cluster);
                } else if at > width && count > 1 {
                    let between = (at - 1) % (width + SEPARATOR.len()) >= width;
                    assert!(!between || matches!(cluster, " " | "|"), "{cluster:?} between the columns of {row:?}");
                }
                at += cluster.width();
            }
        }
        text
    }

    proptest! {
        #[test]
        fn rows_fit_separators_are_aligned_and_no_text_is_lost(
            texts in prop::collection::vec(
                "([a-z]{1,14}|[借用检查器。，]{1,8}|👋|👨‍👩‍👧|\\t| |\n|- ){0,40}", 1..7),
            width in prop::sample::select(vec![20usize, 40, 80, 120, 200]),
        ) {
            let per_band = max_columns(width).min(texts.len());
            for band in texts.chunks(per_band) {
                let blocks: Vec<AnswerBlock> = band.iter().map(|text| block("head", text)).collect();
                let out = render_columns(&blocks, width, false);
                prop_assert!(!out.contains('\u{1b}'), "{:?}", out);
                for row in out.lines() {
                    prop_assert!(row.width() < width, "{row:?} in {width}");
                }
                let rows: Vec<&str> = out.lines().skip(2).collect();
                let bare = |text: &str| text.split_whitespace().collect::<String>();
                for (index, text) in band.iter().enumerate() {
                    let shown = read_column(&rows, index, band.len(), column_width(width, band.len()));
                    prop_assert_eq!(bare(&shown), bare(text));
                }
            }
        }
    }
}
