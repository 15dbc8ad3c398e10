//! Lays out a Markdown table after its last row. The size is limited, so that a table is not delayed indefinitely.

use unicode_width::UnicodeWidthStr;

use super::MarkdownRenderer;
use crate::{
    model::sanitize::sanitize,
    render::{RESET, wrap::max_display_width},
};

/// Maximum number of lines; a longer table is shown as source.
const MAX_LINES: usize = 200;
/// Maximum bytes; a longer table is shown as source.
const MAX_BYTES: usize = 64 * 1024;
const SEPARATOR: &str = " │ ";

/// The source of an open table.
#[derive(Clone, Debug, Default)]
pub(super) struct MarkdownTable {
    lines: Vec<String>,
    byte_len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Center,
    Right,
}

impl MarkdownTable {
    /// Adds a line. Returns whether more lines may follow.
    pub(super) fn push_line(&mut self, line: String) -> bool {
        self.byte_len += line.len();
        self.lines.push(line);
        self.lines.len() < MAX_LINES && self.byte_len < MAX_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn source(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// The rows, none wider than `cells`; `None` if it does not fit or is not a table.
    pub(super) fn render(&self, cells: usize) -> Option<String> {
        let [head, rule, rows @ ..] = self.lines.as_slice() else { return None };
        let aligns: Vec<Align> = split_cells(rule).into_iter().map(parse_alignment).collect::<Option<_>>()?;
        let count = aligns.len();
        if split_cells(head).len() != count {
            return None;
        }
        let row = |line: &String| {
            let mut texts: Vec<String> = split_cells(line).into_iter().take(count).map(render_cell).collect();
            texts.resize(count, String::new());
            texts
        };
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).map(row).collect();
        let widest = |column: usize, measure: fn(&str) -> usize| {
            rows.iter().map(|row| measure(&row[column])).max().unwrap_or(0).max(1)
        };
        let widths: Vec<usize> = (0..count).map(|column| widest(column, text_width)).collect();
        // Must fit on any terminal.
        let max_width: usize = (0..count).map(|column| widest(column, |text| max_display_width(&sanitize(text)))).sum();
        if max_width + SEPARATOR.width() * (count - 1) > cells {
            return None;
        }
        let mut out = String::new();
        for (index, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).zip(&aligns).map(|((text, width), align)| pad(text, *width, *align));
            let line = cells.collect::<Vec<_>>().join(SEPARATOR);
            let line = line.trim_end();
            if index > 0 {
                out.extend([line, "\n"]);
                continue;
            }
            out.extend([RESET, "\u{1b}[1m", line, RESET, "\n"]);
            out.push_str(&widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("─┼─"));
            out.push('\n');
        }
        Some(out)
    }
}

/// The cells of a line. A bar inside code or after a backslash is not a separator.
fn split_cells(line: &str) -> Vec<&str> {
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

/// Parses `:--`, `:-:` or `--:`.
fn parse_alignment(cell: &str) -> Option<Align> {
    let bare = cell.trim_matches(':');
    if bare.is_empty() || bare.bytes().any(|byte| byte != b'-') {
        return None;
    }
    Some(match (cell.starts_with(':'), cell.ends_with(':')) {
        (true, true) => Align::Center,
        (false, true) => Align::Right,
        _ => Align::Left,
    })
}

/// The rendered text of a cell. Block markup is not interpreted.
fn render_cell(cell: &str) -> String {
    let (mut markdown, mut out) = (MarkdownRenderer::new(usize::MAX), String::new());
    markdown.block = super::Block::Paragraph;
    markdown.push(&cell.replace('\t', " ").replace("\\|", "|"), &mut out);
    markdown.finish(&mut out);
    out.trim_end_matches('\n').to_owned()
}

fn text_width(styled: &str) -> usize {
    sanitize(styled).width()
}

fn pad(text: &str, width: usize, align: Align) -> String {
    let free = width - text_width(text);
    let before = match align {
        Align::Left => 0,
        Align::Center => free / 2,
        Align::Right => free,
    };
    format!("{}{text}{}", " ".repeat(before), " ".repeat(free - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(text: &str, cells: usize) -> Option<String> {
        let mut table = MarkdownTable::default();
        for line in text.lines() {
            assert!(table.push_line(line.to_owned()));
        }
        table.render(cells).map(|out| sanitize(&out))
    }

    #[test]
    fn column_width_follows_the_content() {
        let text = "| name | 价格 | x |\n|:--|--:|:-:|\n| **a** | 1 | `b|c` |\n| 借用检查 | 22 |\n| 3 | 4 | 5 | 6 |";
        let expected = "name     │ 价格 │  x\n─────────┼──────┼────\na        │    1 │ b|c\n借用检查 │   22 │\n3        │    4 │  5\n";
        let out = laid_out(text, 40).expect("the table fits");
        let rows: Vec<&str> = out.lines().map(str::trim_end).collect();
        assert_eq!(rows, expected.lines().collect::<Vec<_>>());
        assert_eq!(laid_out(text, 18), None, "the table does not fit");
    }

    #[test]
    fn lines_without_a_rule_below_the_header_are_not_a_table() {
        assert_eq!(laid_out("| a | b |", 40), None);
        assert_eq!(laid_out("| a | b |\n| c | d |", 40), None);
        assert_eq!(laid_out("| a | b |\n|---|", 40), None);
        assert_eq!(
            laid_out("| # no heading |\n|---|\n| - no list |", 40).as_deref(),
            Some("# no heading\n────────────\n- no list\n")
        );
    }
}
