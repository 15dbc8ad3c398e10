//! Answers side by side, as they are left in the scrollback: nothing is cut.
//!
//! Owns when columns serve (they fit, nothing in them must stay wider, none is much longer than the others) and how
//! they are laid out. Refuses to know where the texts come from.

use crate::render::wrap::{Row, cells, shortened, wrap};

/// The narrowest column of text.
const NARROWEST: usize = 36;
const SEPARATOR: &str = " | ";
/// A terminal narrower than this has one column.
const ONE_COLUMN: usize = 75;
/// An answer so many times as long as the shortest would leave a page of empty cells beside it.
const MOST_UNEVEN: usize = 3;

/// One answer, ready to be laid out.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Its number, name and state.
    pub head: String,
    /// Its text, which may carry styles.
    pub text: String,
    /// The cells of its widest line that must not be wrapped: of code, or of a table.
    pub fixed: usize,
    /// There is an answer; failures and empty ones do not count for how even the others are.
    pub counts: bool,
}

/// How many columns fit a terminal of `width` cells.
#[must_use]
pub fn fit(width: usize) -> usize {
    if width < ONE_COLUMN { 1 } else { (width + SEPARATOR.len()) / (NARROWEST + SEPARATOR.len()) }
}

/// The cells of each of `count` columns: one cell is free at either edge.
pub(super) fn column(width: usize, count: usize) -> usize {
    width.saturating_sub(2 + SEPARATOR.len() * (count - 1)) / count
}

/// Whether these answers read well side by side.
#[must_use]
pub fn suit(blocks: &[Block], width: usize) -> bool {
    if blocks.len() < 2 || blocks.len() > fit(width) {
        return false;
    }
    let column = column(width, blocks.len());
    if blocks.iter().any(|block| block.fixed > column) {
        return false;
    }
    let lengths = || blocks.iter().filter(|block| block.counts).map(|block| wrap(&block.text, column).len());
    let (shortest, longest) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
    longest <= shortest * MOST_UNEVEN
}

/// The answers side by side; more than fit go into bands. `bold` marks the heads.
#[must_use]
pub fn columns(blocks: &[Block], width: usize, bold: bool) -> String {
    let mut out = String::new();
    for band in blocks.chunks(fit(width).min(blocks.len()).max(1)) {
        if !out.is_empty() {
            out.push('\n');
        }
        lay_out(band, column(width, band.len()), bold, &mut out);
    }
    out
}

fn lay_out(band: &[Block], column: usize, bold: bool, out: &mut String) {
    let heads: Vec<Row> = band.iter().map(|block| head(&block.head, column, bold)).collect();
    push_row(heads.iter().map(Some), column, out);
    let rules: Vec<String> = band.iter().map(|_| "-".repeat(column + 2)).collect();
    out.push_str(&rules.join("+"));
    // The last cell of a row stays empty.
    out.pop();
    out.push('\n');
    let bodies: Vec<Vec<Row>> = band.iter().map(|block| wrap(block.text.trim_end(), column)).collect();
    for index in 0..bodies.iter().map(Vec::len).max().unwrap_or(0) {
        push_row(bodies.iter().map(|body| body.get(index)), column, out);
    }
}

fn head(text: &str, column: usize, bold: bool) -> Row {
    let text = shortened(text, column);
    let cells = cells(&text);
    Row { text: if bold { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text }, cells }
}

fn push_row<'a>(cells: impl Iterator<Item = Option<&'a Row>>, column: usize, out: &mut String) {
    out.push(' ');
    let mut missing = 0;
    for (place, row) in cells.enumerate() {
        if place > 0 {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(SEPARATOR);
        }
        if let Some(row) = row {
            out.push_str(&row.text);
        }
        missing = column.saturating_sub(row.map_or(0, |row| row.cells));
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

    fn block(head: &str, text: &str) -> Block {
        Block { head: head.into(), fixed: widest_fixed_line(text), text: text.into(), counts: true }
    }

    #[test]
    fn as_many_columns_fit_as_the_width_allows() {
        assert_eq!([40, 74, 80, 120, 200].map(fit), [1, 1, 2, 3, 5]);
        assert_eq!((column(80, 2), column(120, 3), column(200, 5)), (37, 37, 37));
    }

    #[test]
    fn answers_stand_side_by_side_whole() {
        let blocks = [block("1 a  ok", "one\ntwo"), block("2 通义  ok", "借用检查器在编译期运行。")];
        let text = columns(&blocks, 80, false);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], format!(" {:37} | 2 通义  ok", "1 a  ok"));
        assert_eq!(rows[1], format!("{}+{}", "-".repeat(39), "-".repeat(38)));
        assert_eq!(rows[2], format!(" {:37} | 借用检查器在编译期运行。", "one"));
        assert_eq!(rows[3], format!(" {:37} |", "two"));
    }

    #[test]
    fn columns_are_refused_where_they_would_not_read_well() {
        let short = || block("a", "words");
        assert!(suit(&[short(), short()], 80));
        assert!(!suit(&[short(), short()], 74) && !suit(&[short(), short(), short()], 80) && !suit(&[short()], 80));
        assert!(!suit(&[short(), block("b", &format!("```\n{}\n```", "x".repeat(38)))], 80));
        assert!(!suit(&[short(), block("b", &"line\n".repeat(9))], 80));
        let failed = Block { counts: false, ..block("b", &"reason\n".repeat(9)) };
        assert!(suit(&[short(), failed, short()], 120));
    }

    #[test]
    fn more_than_fit_go_into_bands() {
        let blocks: Vec<Block> = (1..=5).map(|n| block(&format!("{n} m"), "text")).collect();
        let text = columns(&blocks, 80, false);
        let heads: Vec<&str> = text.lines().filter(|line| line.contains(" m")).collect();
        assert_eq!(heads.len(), 3);
        assert!(heads[0].contains("1 m") && heads[0].contains("2 m") && heads[2].trim() == "5 m");
    }

    /// The text of column `index` of `count`, read from the screen by its cells.
    fn read_column(rows: &[&str], index: usize, count: usize, column: usize) -> String {
        let begin = 1 + index * (column + SEPARATOR.len());
        let mut found = String::new();
        for row in rows {
            let mut at = 0;
            for cluster in row.graphemes(true) {
                if at >= begin && at < begin + column {
                    found.push_str(cluster);
                } else if at > column && count > 1 {
                    let between = (at - 1) % (column + SEPARATOR.len()) >= column;
                    assert!(!between || matches!(cluster, " " | "|"), "{cluster:?} between the columns of {row:?}");
                }
                at += cluster.width();
            }
        }
        found
    }

    proptest! {
        #[test]
        fn every_row_fits_separators_stand_in_line_and_nothing_is_lost(
            texts in prop::collection::vec(
                "([a-z]{1,14}|[借用检查器。，]{1,8}|👋|👨‍👩‍👧|\\t| |\n|- ){0,40}", 1..7),
            width in prop::sample::select(vec![20usize, 40, 80, 120, 200]),
        ) {
            let per_band = fit(width).min(texts.len());
            for band in texts.chunks(per_band) {
                let blocks: Vec<Block> = band.iter().map(|text| block("head", text)).collect();
                let out = columns(&blocks, width, false);
                prop_assert!(!out.contains('\u{1b}'), "{:?}", out);
                for row in out.lines() {
                    prop_assert!(row.width() < width, "{row:?} in {width}");
                }
                let rows: Vec<&str> = out.lines().skip(2).collect();
                let bare = |text: &str| text.split_whitespace().collect::<String>();
                for (index, text) in band.iter().enumerate() {
                    let found = read_column(&rows, index, band.len(), column(width, band.len()));
                    prop_assert_eq!(bare(&found), bare(text));
                }
            }
        }
    }
}
