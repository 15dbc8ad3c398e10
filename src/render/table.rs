//! Lays out tables without rules, readable by people and `awk`: a header line, and columns two cells apart.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table as Grid, presets::NOTHING};

use super::{RESET, wrap::display_width};
use crate::model::sanitize::one_line;

/// A table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    right_aligned: Vec<bool>,
    rows: Vec<Vec<String>>,
    /// Indices of the highlighted rows.
    highlighted: Vec<usize>,
}

impl Table {
    /// A table with these columns; a leading `>` right-aligns a column, for numbers.
    #[must_use]
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self {
            header: columns.iter().map(|name| name.trim_start_matches('>').to_owned()).collect(),
            right_aligned: columns.iter().map(|name| name.starts_with('>')).collect(),
            rows: Vec::new(),
            highlighted: Vec::new(),
        }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn add_row(&mut self, cells: Vec<String>) {
        // Cells may hold text of endpoints or clients, so control characters are removed.
        let cell_text = |cell: String| if cell.is_empty() { "-".to_owned() } else { one_line(&cell) };
        self.rows.push(cells.into_iter().map(cell_text).collect());
    }

    /// Highlights the last row.
    pub(crate) fn highlight_last_row(&mut self) {
        self.highlighted.extend(self.rows.len().checked_sub(1));
    }

    /// Whether it has no rows.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The header and one line per row, not wrapped.
    #[must_use]
    pub(crate) fn lines(&self) -> Vec<String> {
        let grid = self.grid(ContentArrangement::Disabled, None);
        grid.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The text for a terminal of `width` cells, with long cells wrapped; without a width, one line per row.
    /// Highlighted rows are red if `styled`, unless cells are wrapped.
    #[must_use]
    pub(crate) fn render(&self, width: Option<usize>, styled: bool) -> String {
        let mut lines = self.lines();
        let fits = width.is_none_or(|width| lines.iter().all(|line| display_width(line) <= width));
        let wrapped = || {
            let grid = self.grid(ContentArrangement::Dynamic, width);
            grid.lines().map(|line| line.trim_end().to_owned()).collect()
        };
        if styled && fits {
            // The header is the first line.
            for row in &self.highlighted {
                if let Some(line) = lines.get_mut(row + 1) {
                    *line = format!("\u{1b}[31m{line}{RESET}");
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
        for (column, is_right_aligned) in grid.column_iter_mut().zip(&self.right_aligned) {
            column.set_padding((0, 2));
            if *is_right_aligned {
                // Numbers must not be wrapped.
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
        table.add_row(vec!["通义".into(), "7".into(), String::new()]);
        table.add_row(vec!["fast".into(), "1234".into(), "x".into()]);
        assert_eq!(table.lines(), ["name  tokens  note", "通义       7  -", "fast    1234  x"]);
    }

    #[test]
    fn cells_are_wrapped_on_a_narrow_terminal() {
        let mut table = Table::new(&["name", "note"]);
        table.add_row(vec!["a".into(), "several words that take some room".into()]);
        let text = table.render(Some(24), true);
        assert!(text.lines().count() > 2 && text.lines().all(|line| display_width(line) <= 24), "{text}");
        assert_eq!(table.render(None, false).lines().count(), 2);
        let mut priced = Table::new(&["name", ">cost"]);
        priced.add_row(vec!["a name of several words".into(), "$0.001818".into()]);
        assert!(priced.render(Some(20), true).contains("$0.001818"), "numbers are not wrapped");
    }
}
