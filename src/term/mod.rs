//! The terminal and the two output streams.
//!
//! Owns what differs between platforms and between a terminal and a pipe: width, colour, writing, signals. Never asks
//! the terminal anything on the answer's path: sizes come from the system, not from the screen. Refuses to know
//! commands.

pub mod editor;
pub mod files;
pub mod input;
pub mod keyboard;
pub mod live;
pub mod log;
pub mod output;
pub mod prompt;
pub mod region;
pub mod signals;

use std::io::IsTerminal;

use crate::{model::environment::Environment, render::Look};

/// Widths outside these are a mistake of whoever set them.
const NARROWEST: usize = 20;
const WIDEST: usize = 1000;

/// How the two streams are to look: a terminal's width, and whether styles may be used.
#[must_use]
pub fn look(environment: &Environment, plain: bool) -> Look {
    let out = std::io::stdout().is_terminal();
    let styled = !plain && environment.get("NO_COLOR").is_none() && can_move(environment);
    Look { out_width: out.then(|| width(environment)), err_is_terminal: std::io::stderr().is_terminal(), styled }
}

/// Whether this kind of terminal can move its cursor.
#[must_use]
pub fn can_move(environment: &Environment) -> bool {
    environment.get("TERM") != Some("dumb")
}

/// The terminal's width: `COLUMNS` where it is set, else what the system says, else 80.
#[must_use]
pub fn width(environment: &Environment) -> usize {
    wanted_width(environment).unwrap_or_else(|| size().0).clamp(NARROWEST, WIDEST)
}

/// The width the person wants: `COLUMNS`, where it is set.
#[must_use]
pub fn wanted_width(environment: &Environment) -> Option<usize> {
    environment.get("COLUMNS")?.parse().ok().filter(|&columns: &usize| columns > 0)
}

/// Columns and rows as the system has them, else 80 and 24.
#[must_use]
pub fn size() -> (usize, usize) {
    let known = crossterm::terminal::size().ok().filter(|&(columns, rows)| columns > 0 && rows > 0);
    known.map_or((80, 24), |(columns, rows)| (usize::from(columns), usize::from(rows)))
}
