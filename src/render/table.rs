//! Tables without lines, for people and for `awk`: columns two cells apart, a header in front.
//!
//! Owns how a list of things looks in every command. Refuses to know what is in it.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table as Grid, presets::NOTHING};

use super::wrap::cells;
use crate::model::sanitize::one_line;

/// A table in the making.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
    /// Rows that are bad news.
    bad: Vec<usize>,
}

impl Table {
    /// A table with these columns; a `>` in front of a name moves its column to the right, as figures want.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self {
            header: columns.iter().map(|name| name.trim_start_matches('>').to_owned()).collect(),
            right: columns.iter().map(|name| name.starts_with('>')).collect(),
            rows: Vec::new(),
            bad: Vec::new(),
        }
    }

    /// Adds a row; what is empty is shown as `-`.
    pub fn row(&mut self, cells: Vec<String>) {
        // What others named or said does not steer a terminal.
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { one_line(&cell) };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The last row is bad news.
    pub fn mark_bad(&mut self) {
        self.bad.extend(self.rows.len().checked_sub(1));
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The header and a line for each row; none is wrapped.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let grid = self.grid(ContentArrangement::Disabled, None);
        grid.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The text for a terminal of `width` cells, in which long cells are wrapped; for a pipe one line for each row. Bad news
    /// is red where that is `styled`.
    #[must_use]
    pub fn text(&self, width: Option<usize>, styled: bool) -> String {
        let mut lines = self.lines();
        let fits = width.is_none_or(|width| lines.iter().all(|line| cells(line) <= width));
        let wrapped = || {
            let grid = self.grid(ContentArrangement::Dynamic, width);
            grid.lines().map(|line| line.trim_end().to_owned()).collect()
        };
        if styled && fits {
            // The header is the first line.
            for row in &self.bad {
                if let Some(line) = lines.get_mut(row + 1) {
                    *line = format!("\u{1b}[31m{line}\u{1b}[0m");
                }
            }
        }
        let lines: Vec<String> = if fits { lines } else { wrapped() };
        lines.join("\n") + "\n"
    }

    fn grid(&self, arrangement: ContentArrangement, width: Option<usize>) -> Grid {
        let mut grid = Grid::new();
        grid.load_style(NOTHING).set_content_arrangement(arrangement).set_header(&self.header);
        if let Some(width) = width {
            grid.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        }
        for row in &self.rows {
            grid.add_row(row);
        }
        for (column, right) in grid.column_iter_mut().zip(&self.right) {
            column.set_padding((0, 2));
            if *right {
                // A figure that is broken in two is none.
                column.set_cell_alignment(CellAlignment::Right);
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        grid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_cells() {
        let mut table = Table::new(&["name", ">tokens", "note"]);
        table.row(vec!["通义".into(), "7".into(), String::new()]);
        table.row(vec!["fast".into(), "1234".into(), "x".into()]);
        assert_eq!(table.lines(), ["name  tokens  note", "通义       7  -", "fast    1234  x"]);
    }

    #[test]
    fn a_terminal_that_is_too_narrow_gets_wrapped_cells() {
        let mut table = Table::new(&["name", "note"]);
        table.row(vec!["a".into(), "several words that take some room".into()]);
        let text = table.text(Some(24), true);
        assert!(text.lines().count() > 2 && text.lines().all(|line| cells(line) <= 24), "{text}");
        assert_eq!(table.text(None, false).lines().count(), 2);
        let mut figures = Table::new(&["name", ">cost"]);
        figures.row(vec!["a name of several words".into(), "$0.001818".into()]);
        assert!(figures.text(Some(20), true).contains("$0.001818"), "a figure stays whole");
    }
}
