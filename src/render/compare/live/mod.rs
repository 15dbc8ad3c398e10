//! The live region: every answer in a column of its own while it comes.
//!
//! Owns what there is room for (columns in bands, one answer zoomed, else a row for each) and what every row says. A function
//! of the lanes, the size and the time; the columns it keeps only spare it laying out what it has laid out already. Text
//! begins at absolute columns, so that a character whose width the terminal sees otherwise moves its own cell alone. No row is
//! wider than the screen, whose last cell stays empty.

mod column;
mod input;

use std::fmt::Write as _;

use column::{Column, Source};
use input::Desk;
pub use input::{Key, Wish};

use super::{
    columns::{column as cells_of, fit},
    lane::{LaneView, Stage},
    status::{self, Screen},
};
use crate::render::wrap::{cells, most_cells, shortened, wrap};

/// A band with fewer rows, its head included, shows nothing worth reading.
const LOWEST_BAND: usize = 6;
/// Where there are fewer cells, nothing fits but a word or two about all.
const NARROWEST: usize = 12;
/// Its head and the rule below it.
const HEAD: usize = 2;
const RESET: &str = "\u{1b}[0m";

/// The region's own state.
#[derive(Debug)]
pub(super) struct LiveView {
    desk: Desk,
    /// Keys are listened to.
    has_keys: bool,
    columns: Vec<Option<Column>>,
    zoom: Option<Column>,
    /// Rows of text of each band so far: they are never taken back while the shape is the same.
    heights: Vec<usize>,
    shape: (usize, usize),
    /// What is shown while the person holds it, and for which size.
    frozen: Option<(Vec<String>, (usize, usize))>,
}

impl LiveView {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            desk: Desk::new(),
            has_keys: false,
            columns: std::iter::repeat_with(|| None).take(lanes).collect(),
            zoom: None,
            heights: Vec::new(),
            shape: (0, 0),
            frozen: None,
        }
    }

    /// Keys are listened to from now on.
    pub(super) fn with_keys(&mut self) {
        self.has_keys = true;
    }

    /// What the person does.
    pub(super) fn key(&mut self, key: Key, lanes: &[LaneView]) -> Option<Wish> {
        let wish = self.desk.key(key, lanes.len(), |lane| lanes[lane].outcome().is_some());
        self.zoom = self.zoom.take().filter(|_| self.desk.zoomed);
        // What was done is to be seen, held or not.
        self.frozen = None;
        wish
    }

    /// Whether the person holds the view.
    pub(super) fn is_held(&self) -> bool {
        self.desk.held
    }

    #[cfg(test)]
    pub(super) fn is_zoomed(&self) -> bool {
        self.desk.zoomed
    }

    /// Nobody holds it any more.
    pub(super) fn release(&mut self) {
        self.desk.held = false;
        self.frozen = None;
    }

    /// The lane the person wants to go on with.
    pub(super) fn picked(&self) -> Option<usize> {
        self.desk.picked
    }

    /// The rows: at most the height less two.
    pub(super) fn rows(&mut self, lanes: &[LaneView], is_plain: bool, screen: Screen) -> Vec<String> {
        let size = (screen.width, screen.height);
        if let Some((rows, known)) = &self.frozen
            && *known == size
        {
            let footer = self.footer(lanes, 0, screen);
            return rows.iter().cloned().chain([footer]).collect();
        }
        if screen.width < NARROWEST {
            return vec![self.footer(lanes, lanes.len(), screen)];
        }
        let room = screen.height.saturating_sub(2).max(1) - 1;
        let mut unseen = 0;
        let mut rows = if self.desk.zoomed && room > HEAD {
            self.zoomed(lanes, room, is_plain, screen)
        } else if let Some(bands) = bands(lanes.len(), room, screen.width) {
            self.bands(lanes, bands, is_plain, screen)
        } else {
            let shown = status::rows(lanes, room, screen);
            unseen = lanes.len() - shown.len();
            shown
        };
        if self.desk.held {
            self.frozen = Some((rows.clone(), size));
        }
        rows.push(self.footer(lanes, unseen, screen));
        rows
    }

    /// Columns side by side, in bands of `per` with at most `height` rows each.
    fn bands(
        &mut self,
        lanes: &[LaneView],
        (per, height): (usize, usize),
        is_plain: bool,
        screen: Screen,
    ) -> Vec<String> {
        if self.shape != (screen.width, height) {
            self.shape = (screen.width, height);
            self.heights.clear();
        }
        let mut rows = Vec::new();
        for (band, first) in (0..lanes.len()).step_by(per).enumerate() {
            let those = first..(first + per).min(lanes.len());
            let cells = cells_of(screen.width, per);
            for index in those.clone() {
                let column = follow(&mut self.columns[index], &lanes[index], cells, is_plain);
                let wanted = (column.count() + notes(&lanes[index], cells, screen).len()).max(1);
                let height = wanted.min(height - HEAD);
                match self.heights.get_mut(band) {
                    Some(known) => *known = height.max(*known),
                    None => self.heights.push(height),
                }
            }
            let height = self.heights[band];
            let heads: Vec<String> =
                those.clone().map(|index| self.head(index, &lanes[index], cells, screen)).collect();
            rows.push(beside(heads.iter().map(String::as_str), cells));
            rows.push(rule(those.len(), cells));
            let bodies: Vec<Vec<String>> = those
                .map(|index| {
                    let column = self.columns[index].as_mut().expect("it was just followed");
                    body(index, &lanes[index], column, (cells, height), screen)
                })
                .collect();
            for row in 0..height {
                rows.push(beside(bodies.iter().map(|body| body.get(row).map_or("", String::as_str)), cells));
            }
        }
        rows
    }

    /// One answer alone, as wide as the screen.
    fn zoomed(&mut self, lanes: &[LaneView], room: usize, is_plain: bool, screen: Screen) -> Vec<String> {
        let (index, cells) = (self.desk.focus, cells_of(screen.width, 1));
        let Some(lane) = lanes.get(index) else { return Vec::new() };
        let head = self.head(index, lane, cells, screen);
        let column = follow(&mut self.zoom, lane, cells, is_plain);
        let height = room.saturating_sub(HEAD).max(1);
        let mut rows = vec![beside([head.as_str()].into_iter(), cells), rule(1, cells)];
        let body = body(index, lane, column, (cells, height), screen);
        rows.extend(body.iter().map(|row| beside([row.as_str()].into_iter(), cells)));
        rows.truncate(room);
        rows
    }

    /// `1 fast  .. 212 ms 96 t/s 88 tok`, as much of it as fits.
    fn head(&self, index: usize, lane: &LaneView, cells_there: usize, screen: Screen) -> String {
        let picked = if self.desk.picked == Some(index) { "*" } else { "" };
        let name = shortened(&lane.name, cells_there / 2);
        let mut head =
            shortened(&format!("{}{picked} {name}  {}", index + 1, status::state(lane, screen.now)), cells_there);
        for figure in status::figures(lane, screen.now) {
            if most_cells(&head) + 1 + cells(&figure) > cells_there {
                break;
            }
            head.extend([" ", figure.as_str()]);
        }
        let focused = !self.desk.untouched && self.desk.focus == index;
        let code = match lane.stage() {
            _ if !screen.styled => "",
            _ if focused => "\u{1b}[7m",
            Stage::Bad => "\u{1b}[31m",
            Stage::Odd => "\u{1b}[33m",
            Stage::Queued | Stage::Waiting => "\u{1b}[2m",
            Stage::Coming | Stage::Good => "\u{1b}[1m",
        };
        // Without colours the focus is a mark.
        if focused && code.is_empty() {
            head = format!("{}<", shortened(&head, cells_there - 1));
        }
        if code.is_empty() { head } else { format!("{code}{head}{RESET}") }
    }

    /// The keys, and how all of them do.
    fn footer(&self, lanes: &[LaneView], unseen: usize, screen: Screen) -> String {
        let width = screen.width.saturating_sub(1);
        let total = status::total(lanes, unseen, screen);
        let hold = if self.desk.held { "[space]go on (held)" } else { "[space]hold" };
        let zoom = if self.desk.zoomed { "un[z]oom" } else { "[z]oom" };
        let some = format!(" [x]cancel [r]erun {zoom} [p]ick {hold}  ");
        let all = format!(" [1-9]focus{} [q]uit  ", some.trim_end());
        let least = if self.desk.held { " [space]go on (held)  " } else { "" };
        let fits = |keys: &&str| self.has_keys && cells(keys) + cells(&total) <= width;
        let keys = [all.as_str(), &some, least].into_iter().find(fits).unwrap_or_default();
        shortened(&format!("{keys}{total}"), width)
    }
}

/// How many columns there are in a band and how many rows a band has, if there is room for all.
fn bands(lanes: usize, room: usize, width: usize) -> Option<(usize, usize)> {
    let bands = lanes.div_ceil(fit(width).min(lanes).max(1)).max(1);
    // As even as can be: no column alone in a band when others could stand beside it.
    let per = lanes.div_ceil(bands).max(1);
    let height = room / bands;
    (height >= LOWEST_BAND).then_some((per, height))
}

fn follow<'c>(column: &'c mut Option<Column>, lane: &LaneView, cells: usize, is_plain: bool) -> &'c mut Column {
    let known = column.take().filter(|column| column.suits(cells, is_plain));
    let column = column.insert(known.unwrap_or_else(|| Column::new(cells, is_plain)));
    column.follow(source(lane));
    column
}

fn source(lane: &LaneView) -> Source<'_> {
    Source { text: lane.shown_text(), generation: lane.generation(), is_over: lane.outcome().is_some() }
}

/// The rows of one column: the end of what comes, the start of what is whole, and what there is to say about it.
fn body(
    index: usize,
    lane: &LaneView,
    column: &mut Column,
    (cells, height): (usize, usize),
    screen: Screen,
) -> Vec<String> {
    let notes = notes(lane, cells, screen);
    let room = height.saturating_sub(notes.len());
    if lane.outcome().is_none() || column.count() <= room {
        let mut rows = column.tail(room.max(1)).0;
        rows.extend(notes);
        let over = rows.len().saturating_sub(height);
        return rows.split_off(over);
    }
    let (mut rows, more) = column.head(source(lane), room.saturating_sub(1));
    let count = more.map(|count| format!("{count} ")).unwrap_or_default();
    rows.push(shortened(&format!("({count}more lines: {} z)", index + 1), cells));
    rows.extend(notes);
    rows.truncate(height);
    rows
}

/// What is to be said of a lane below its text: why it failed, what it waits for.
fn notes(lane: &LaneView, cells: usize, screen: Screen) -> Vec<String> {
    let dim = |text: String| if screen.styled { format!("\u{1b}[2m{text}{RESET}") } else { text };
    if let Some(note) = lane.note() {
        let code = if lane.stage() == Stage::Bad { "31" } else { "33" };
        let rows = wrap(&note, cells).into_iter().map(|row| shortened(&row.text, cells));
        return rows.map(|row| if screen.styled { format!("\u{1b}[{code}m{row}{RESET}") } else { row }).collect();
    }
    match lane.thought() {
        Some(tail) if lane.shown_text().is_empty() => vec![dim(shortened(&format!("thinking: {tail}"), cells))],
        _ => match lane.target().filter(|target| target.id.0 != lane.name && lane.stage() == Stage::Waiting) {
            Some(target) => vec![dim(shortened(&format!("({})", target.id), cells))],
            None => Vec::new(),
        },
    }
}

/// The line below the heads. The last cell of a row stays empty.
fn rule(columns: usize, cells: usize) -> String {
    let mut rule = vec!["-".repeat(cells + 2); columns].join("+");
    rule.pop();
    rule
}

/// Texts side by side, each at the column where it belongs.
fn beside<'t>(texts: impl Iterator<Item = &'t str>, cells: usize) -> String {
    let mut row = String::from(" ");
    for (place, text) in texts.enumerate() {
        if place > 0 {
            let at = place * (cells + 3);
            // Counted from 1, as terminals do.
            let _ = write!(row, "\u{1b}[{at}G| ");
        }
        row.push_str(text);
    }
    row
}
