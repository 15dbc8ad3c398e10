//! Renders the live region: one column per streaming answer.
//!
//! Depending on the size: columns in bands, one zoomed answer, or one status row per call. The rows depend only on the
//! calls, the size and the time; stored columns are a cache. Text is placed at absolute columns, so that a character
//! whose width the terminal counts differently shifts only its own cell. The last cell of each row stays empty.

mod column;
mod input;

use std::fmt::Write as _;

use column::{Column, ColumnSource};
use input::LiveInput;
pub(crate) use input::{Action, Key};

use super::{
    call::{CallView, Stage},
    columns::{column_width, max_columns},
    status::{self, Screen},
};
use crate::render::{
    RESET,
    wrap::{display_width, max_display_width, truncate_to_width, wrap},
};

/// Minimum rows of a band, including its heading.
const MIN_BAND_HEIGHT: usize = 6;
/// Minimum width for anything but the footer.
const MIN_WIDTH: usize = 12;
/// Rows of the heading and the rule below it.
const HEADER_ROWS: usize = 2;

/// The state of the live region.
#[derive(Debug)]
pub(super) struct LiveView {
    input: LiveInput,
    /// Keys are handled, so the footer shows them.
    has_keys: bool,
    columns: Vec<Option<Column>>,
    zoom_column: Option<Column>,
    /// Text rows of each band; they never shrink while the shape is unchanged.
    band_heights: Vec<usize>,
    band_shape: (usize, usize),
    /// The rows shown during a hold, and their size.
    frozen: Option<(Vec<String>, (usize, usize))>,
}

impl LiveView {
    pub(super) fn new(count: usize) -> Self {
        Self {
            input: LiveInput::new(),
            has_keys: false,
            columns: std::iter::repeat_with(|| None).take(count).collect(),
            zoom_column: None,
            band_heights: Vec::new(),
            band_shape: (0, 0),
            frozen: None,
        }
    }

    /// Shows the keys in the footer.
    pub(super) fn show_keys(&mut self) {
        self.has_keys = true;
    }

    /// Handles a key.
    pub(super) fn on_key(&mut self, key: Key, calls: &[CallView]) -> Option<Action> {
        let action = self.input.on_key(key, calls.len(), |index| calls[index].record().is_some());
        self.zoom_column = self.zoom_column.take().filter(|_| self.input.is_zoomed);
        // The effect of the key must be visible, also during a hold.
        self.frozen = None;
        action
    }

    /// Whether the view is frozen.
    pub(super) fn is_held(&self) -> bool {
        self.input.is_held
    }

    #[cfg(test)]
    pub(super) fn is_zoomed(&self) -> bool {
        self.input.is_zoomed
    }

    /// Ends the hold.
    pub(super) fn release_hold(&mut self) {
        self.input.is_held = false;
        self.frozen = None;
    }

    /// The index of the picked call.
    pub(super) fn picked(&self) -> Option<usize> {
        self.input.picked
    }

    /// The rows, at most two fewer than the height.
    pub(super) fn rows(&mut self, calls: &[CallView], is_plain: bool, screen: Screen) -> Vec<String> {
        let size = (screen.width, screen.height);
        if let Some((rows, frozen_size)) = &self.frozen
            && *frozen_size == size
        {
            let footer = self.footer(calls, 0, screen);
            return rows.iter().cloned().chain([footer]).collect();
        }
        if screen.width < MIN_WIDTH {
            return vec![self.footer(calls, calls.len(), screen)];
        }
        let room = screen.height.saturating_sub(2).max(1) - 1;
        let mut hidden = 0;
        let mut rows = if self.input.is_zoomed && room > HEADER_ROWS {
            self.render_zoomed(calls, room, is_plain, screen)
        } else if let Some(bands) = band_layout(calls.len(), room, screen.width) {
            self.render_bands(calls, bands, is_plain, screen)
        } else {
            let shown = status::status_rows(calls, room, screen);
            hidden = calls.len() - shown.len();
            shown
        };
        if self.input.is_held {
            self.frozen = Some((rows.clone(), size));
        }
        rows.push(self.footer(calls, hidden, screen));
        rows
    }

    /// Columns side by side, in bands of `per_band` columns and at most `max_height` rows.
    fn render_bands(
        &mut self,
        calls: &[CallView],
        (per_band, max_height): (usize, usize),
        is_plain: bool,
        screen: Screen,
    ) -> Vec<String> {
        if self.band_shape != (screen.width, max_height) {
            self.band_shape = (screen.width, max_height);
            self.band_heights.clear();
        }
        let mut rows = Vec::new();
        for (band, first_index) in (0..calls.len()).step_by(per_band).enumerate() {
            let range = first_index..(first_index + per_band).min(calls.len());
            let cells = column_width(screen.width, per_band);
            for index in range.clone() {
                let column = update_column(&mut self.columns[index], &calls[index], cells, is_plain);
                let needed = (column.row_count() + note_rows(&calls[index], cells, screen).len()).max(1);
                let height = needed.min(max_height - HEADER_ROWS);
                match self.band_heights.get_mut(band) {
                    Some(current) => *current = height.max(*current),
                    None => self.band_heights.push(height),
                }
            }
            let height = self.band_heights[band];
            let headings: Vec<String> =
                range.clone().map(|index| self.heading(index, &calls[index], cells, screen)).collect();
            rows.push(join_columns(headings.iter().map(String::as_str), cells));
            rows.push(header_rule(range.len(), cells));
            let bodies: Vec<Vec<String>> = range
                .map(|index| {
                    let column = self.columns[index].as_mut().expect("the column was updated above");
                    column_body(index, &calls[index], column, (cells, height), screen)
                })
                .collect();
            for row in 0..height {
                rows.push(join_columns(bodies.iter().map(|body| body.get(row).map_or("", String::as_str)), cells));
            }
        }
        rows
    }

    /// One answer, as wide as the screen.
    fn render_zoomed(&mut self, calls: &[CallView], room: usize, is_plain: bool, screen: Screen) -> Vec<String> {
        let (index, cells) = (self.input.focus, column_width(screen.width, 1));
        let Some(call) = calls.get(index) else { return Vec::new() };
        let head = self.heading(index, call, cells, screen);
        let column = update_column(&mut self.zoom_column, call, cells, is_plain);
        let height = room.saturating_sub(HEADER_ROWS).max(1);
        let mut rows = vec![join_columns([head.as_str()].into_iter(), cells), header_rule(1, cells)];
        let body = column_body(index, call, column, (cells, height), screen);
        rows.extend(body.iter().map(|row| join_columns([row.as_str()].into_iter(), cells)));
        rows.truncate(room);
        rows
    }

    /// `1 fast  .. 212 ms 96 t/s 88 tok`, as far as it fits.
    fn heading(&self, index: usize, call: &CallView, width: usize, screen: Screen) -> String {
        let picked = if self.input.picked == Some(index) { "*" } else { "" };
        let name = truncate_to_width(&call.name, width / 2);
        let mut head = truncate_to_width(
            &format!("{}{picked} {name}  {}", index + 1, status::state_text(call, screen.now)),
            width,
        );
        for metric in status::metrics(call, screen.now) {
            if max_display_width(&head) + 1 + display_width(&metric) > width {
                break;
            }
            head.extend([" ", metric.as_str()]);
        }
        let focused = !self.input.is_untouched && self.input.focus == index;
        let code = match call.stage() {
            _ if !screen.styled => "",
            _ if focused => "\u{1b}[7m",
            Stage::Failed => "\u{1b}[31m",
            Stage::Warning => "\u{1b}[33m",
            Stage::Queued | Stage::Waiting => "\u{1b}[2m",
            Stage::Streaming | Stage::Complete => "\u{1b}[1m",
        };
        // Without colors the focus is shown by a mark.
        if focused && code.is_empty() {
            head = format!("{}<", truncate_to_width(&head, width - 1));
        }
        if code.is_empty() { head } else { format!("{code}{head}{RESET}") }
    }

    /// The keys and the totals.
    fn footer(&self, calls: &[CallView], hidden: usize, screen: Screen) -> String {
        let width = screen.width.saturating_sub(1);
        let total = status::total_row(calls, hidden, screen);
        let hold = if self.input.is_held { "[space]resume (held)" } else { "[space]hold" };
        let zoom = if self.input.is_zoomed { "un[z]oom" } else { "[z]oom" };
        let basic = format!(" [x]cancel [r]erun {zoom} [p]ick {hold}  ");
        let all = format!(" [1-9]focus{} [q]uit  ", basic.trim_end());
        let minimal = if self.input.is_held { " [space]resume (held)  " } else { "" };
        let fits = |keys: &&str| self.has_keys && display_width(keys) + display_width(&total) <= width;
        let keys = [all.as_str(), &basic, minimal].into_iter().find(fits).unwrap_or_default();
        truncate_to_width(&format!("{keys}{total}"), width)
    }
}

/// The number of columns per band and of rows per band, if there is room for all calls.
fn band_layout(count: usize, room: usize, width: usize) -> Option<(usize, usize)> {
    let bands = count.div_ceil(max_columns(width).min(count).max(1)).max(1);
    // Columns are distributed evenly over the bands.
    let per_band = count.div_ceil(bands).max(1);
    let height = room / bands;
    (height >= MIN_BAND_HEIGHT).then_some((per_band, height))
}

fn update_column<'c>(column: &'c mut Option<Column>, call: &CallView, cells: usize, is_plain: bool) -> &'c mut Column {
    let current = column.take().filter(|column| column.matches(cells, is_plain));
    let column = column.insert(current.unwrap_or_else(|| Column::new(cells, is_plain)));
    column.update(column_source(call));
    column
}

fn column_source(call: &CallView) -> ColumnSource<'_> {
    ColumnSource { text: call.visible_text(), generation: call.generation(), has_ended: call.record().is_some() }
}

/// The rows of one column: the end of a streaming answer or the start of a finished one, then the notes.
fn column_body(
    index: usize,
    call: &CallView,
    column: &mut Column,
    (cells, height): (usize, usize),
    screen: Screen,
) -> Vec<String> {
    let notes = note_rows(call, cells, screen);
    let room = height.saturating_sub(notes.len());
    if call.record().is_none() || column.row_count() <= room {
        let mut rows = column.tail(room.max(1)).0;
        rows.extend(notes);
        let excess = rows.len().saturating_sub(height);
        return rows.split_off(excess);
    }
    let (mut rows, rows_after) = column.head(column_source(call), room.saturating_sub(1));
    let count = rows_after.map(|count| format!("{count} ")).unwrap_or_default();
    rows.push(truncate_to_width(&format!("({count}more lines: {} z)", index + 1), cells));
    rows.extend(notes);
    rows.truncate(height);
    rows
}

/// The notes below the text: why the call failed, its reasoning, or the candidate it waits for.
fn note_rows(call: &CallView, cells: usize, screen: Screen) -> Vec<String> {
    let dim = |text: String| if screen.styled { format!("\u{1b}[2m{text}{RESET}") } else { text };
    if let Some(note) = call.note() {
        let code = if call.stage() == Stage::Failed { "31" } else { "33" };
        let rows = wrap(&note, cells).into_iter().map(|row| truncate_to_width(&row.text, cells));
        return rows.map(|row| if screen.styled { format!("\u{1b}[{code}m{row}{RESET}") } else { row }).collect();
    }
    match call.reasoning_line() {
        Some(line) if call.visible_text().is_empty() => {
            vec![dim(truncate_to_width(&format!("thinking: {line}"), cells))]
        }
        _ => match call.target().filter(|target| target.id.0 != call.name && call.stage() == Stage::Waiting) {
            Some(target) => vec![dim(truncate_to_width(&format!("({})", target.id), cells))],
            None => Vec::new(),
        },
    }
}

/// The rule below the headings. The last cell stays empty.
fn header_rule(columns: usize, cells: usize) -> String {
    let mut rule = vec!["-".repeat(cells + 2); columns].join("+");
    rule.pop();
    rule
}

/// Joins texts into one row, each at its absolute column.
fn join_columns<'t>(texts: impl Iterator<Item = &'t str>, cells: usize) -> String {
    let mut row = String::from(" ");
    for (index, text) in texts.enumerate() {
        if index > 0 {
            let at = index * (cells + 3);
            // Terminal columns count from 1.
            let _ = write!(row, "\u{1b}[{at}G| ");
        }
        row.push_str(text);
    }
    row
}
