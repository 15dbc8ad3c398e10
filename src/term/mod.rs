//! The terminal and the two output streams.
//!
//! Owns what differs between platforms and between a terminal and a pipe: width, colour, writing, signals. Never asks
//! the terminal anything on the answer's path: sizes come from the system, not from the screen. Refuses to know
//! commands.

pub mod input;
pub mod output;
pub mod signals;

use std::io::IsTerminal;

use crate::{environment::Environment, render::Look};

/// Widths outside these are a mistake of whoever set them.
const NARROWEST: usize = 20;
const WIDEST: usize = 1000;

/// How the two streams are to look: a terminal's width, and whether styles may be used.
#[must_use]
pub fn look(environment: &Environment, plain: bool) -> Look {
    let out = std::io::stdout().is_terminal();
    let styled = !plain && environment.get("NO_COLOR").is_none() && environment.get("TERM") != Some("dumb");
    Look { out_width: out.then(|| width(environment)), err_is_terminal: std::io::stderr().is_terminal(), styled }
}

/// The terminal's width: `COLUMNS` where it is set, else what the system says, else 80.
fn width(environment: &Environment) -> usize {
    let wanted = environment.get("COLUMNS").and_then(|columns| columns.parse().ok());
    let real = || crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns));
    wanted.or_else(real).filter(|&columns| columns > 0).unwrap_or(80).clamp(NARROWEST, WIDEST)
}
