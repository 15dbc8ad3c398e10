//! A Markdown table, laid out when its last row is there.
//!
//! Owns its rows, what its columns are and whether they fit. Refuses to be waited for without end.

use unicode_width::UnicodeWidthStr;

use super::Markdown;
use crate::{model::sanitize::sanitised, render::wrap::most_cells};

/// A longer table is shown as its source.
const MOST_ROWS: usize = 200;
const LONGEST: usize = 64 * 1024;
const BETWEEN: &str = " │ ";

/// The source of an open table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    lines: Vec<String>,
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Middle,
    Right,
}

impl Table {
    /// Adds a line; whether there may be more.
    pub(super) fn add(&mut self, line: String) -> bool {
        self.length += line.len();
        self.lines.push(line);
        self.lines.len() < MOST_ROWS && self.length < LONGEST
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn source(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Its rows, none wider than `cells`; `None`: it does not fit, or is none.
    pub(super) fn laid_out(&self, cells: usize) -> Option<String> {
        let [head, rule, rows @ ..] = self.lines.as_slice() else { return None };
        let aligns: Vec<Align> = split(rule).into_iter().map(alignment).collect::<Option<_>>()?;
        let count = aligns.len();
        if split(head).len() != count {
            return None;
        }
        let row = |line: &String| {
            let mut texts: Vec<String> = split(line).into_iter().take(count).map(inline).collect();
            texts.resize(count, String::new());
            texts
        };
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).map(row).collect();
        let widest =
            |column: usize, of: fn(&str) -> usize| rows.iter().map(|row| of(&row[column])).max().unwrap_or(0).max(1);
        let widths: Vec<usize> = (0..count).map(|column| widest(column, wide)).collect();
        // Wherever it is shown.
        let most: usize = (0..count).map(|column| widest(column, |text| most_cells(&sanitised(text)))).sum();
        if most + BETWEEN.width() * (count - 1) > cells {
            return None;
        }
        let mut out = String::new();
        for (index, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).zip(&aligns).map(|((text, width), align)| placed(text, *width, *align));
            let line = cells.collect::<Vec<_>>().join(BETWEEN);
            let line = line.trim_end();
            if index > 0 {
                out.extend([line, "\n"]);
                continue;
            }
            out.extend(["\u{1b}[0m\u{1b}[1m", line, "\u{1b}[0m\n"]);
            out.push_str(&widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("─┼─"));
            out.push('\n');
        }
        Some(out)
    }
}

/// The cells of a line; a bar in code or behind a backslash ends none.
fn split(line: &str) -> Vec<&str> {
    let line = line.trim();
    let line = line.strip_prefix('|').unwrap_or(line);
    let (mut cells, mut from, mut escaped, mut code) = (Vec::new(), 0, false, false);
    for (at, c) in line.char_indices() {
        match c {
            '|' if !escaped && !code => {
                cells.push(line[from..at].trim());
                from = at + 1;
            }
            '`' if !escaped => code = !code,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    if !line[from..].trim().is_empty() {
        cells.push(line[from..].trim());
    }
    cells
}

/// `:--`, `:-:`, `--:`.
fn alignment(cell: &str) -> Option<Align> {
    let bare = cell.trim_matches(':');
    if bare.is_empty() || bare.bytes().any(|byte| byte != b'-') {
        return None;
    }
    Some(match (cell.starts_with(':'), cell.ends_with(':')) {
        (true, true) => Align::Middle,
        (false, true) => Align::Right,
        _ => Align::Left,
    })
}

/// A cell's text with its styles. What would begin a block elsewhere is text here.
fn inline(cell: &str) -> String {
    let (mut markdown, mut out) = (Markdown::new(usize::MAX), String::new());
    markdown.block = super::Block::Paragraph;
    markdown.push(&cell.replace('\t', " ").replace("\\|", "|"), &mut out);
    markdown.finish(&mut out);
    out.trim_end_matches('\n').to_owned()
}

fn wide(styled: &str) -> usize {
    sanitised(styled).width()
}

fn placed(text: &str, width: usize, align: Align) -> String {
    let free = width - wide(text);
    let before = match align {
        Align::Left => 0,
        Align::Middle => free / 2,
        Align::Right => free,
    };
    format!("{}{text}{}", " ".repeat(before), " ".repeat(free - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(text: &str, cells: usize) -> Option<String> {
        let mut table = Table::default();
        for line in text.lines() {
            assert!(table.add(line.to_owned()));
        }
        table.laid_out(cells).map(|out| sanitised(&out))
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let text = "| name | 价格 | x |\n|:--|--:|:-:|\n| **a** | 1 | `b|c` |\n| 借用检查 | 22 |\n| 3 | 4 | 5 | 6 |";
        let shown = "name     │ 价格 │  x\n─────────┼──────┼────\na        │    1 │ b|c\n借用检查 │   22 │\n3        │    4 │  5\n";
        let out = laid_out(text, 40).expect("it fits");
        let rows: Vec<&str> = out.lines().map(str::trim_end).collect();
        assert_eq!(rows, shown.lines().collect::<Vec<_>>());
        assert_eq!(laid_out(text, 18), None, "it does not fit");
    }

    #[test]
    fn what_has_no_rule_below_its_head_is_no_table() {
        assert_eq!(laid_out("| a | b |", 40), None);
        assert_eq!(laid_out("| a | b |\n| c | d |", 40), None);
        assert_eq!(laid_out("| a | b |\n|---|", 40), None);
        assert_eq!(
            laid_out("| # no heading |\n|---|\n| - no list |", 40).as_deref(),
            Some("# no heading\n────────────\n- no list\n")
        );
    }
}
