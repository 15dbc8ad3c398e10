//! Controls the terminal, the output streams and the signals of the process, on all platforms.
//!
//! Sizes come from the operating system: no escape sequence that needs a reply of the terminal is sent while an answer
//! is printed.

#[cfg(feature = "chat")]
pub(crate) mod editor;
#[cfg(feature = "serve")]
pub(crate) mod file_limit;
pub(crate) mod input;
pub(crate) mod keyboard;
pub(crate) mod live;
#[cfg(feature = "serve")]
pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod prompt;
pub(crate) mod region;
#[cfg(feature = "serve")]
pub(crate) mod server_signals;
pub(crate) mod signals;

use std::io::IsTerminal;

use crate::{model::environment::Environment, render::TerminalInfo};

/// Widths outside this range are clamped: they come from a wrong `COLUMNS` or terminal setting.
const MIN_WIDTH: usize = 20;
const MAX_WIDTH: usize = 1000;

/// Detects how to format output: terminal width of stdout, whether stderr is a terminal, and whether to use styles.
#[must_use]
pub(crate) fn detect_style(environment: &Environment, plain: bool) -> TerminalInfo {
    let out = std::io::stdout().is_terminal();
    let styled = !plain && environment.get("NO_COLOR").is_none() && supports_cursor(environment);
    TerminalInfo {
        stdout_width: out.then(|| width(environment)),
        stderr_is_terminal: std::io::stderr().is_terminal(),
        styled,
    }
}

/// Whether the terminal can move its cursor (`TERM` is not `dumb`).
#[must_use]
pub(crate) fn supports_cursor(environment: &Environment) -> bool {
    environment.get("TERM") != Some("dumb")
}

/// Terminal width: `COLUMNS` if set, otherwise the width that the system reports, otherwise 80.
#[must_use]
pub(crate) fn width(environment: &Environment) -> usize {
    columns_override(environment).unwrap_or_else(|| size().0).clamp(MIN_WIDTH, MAX_WIDTH)
}

/// `COLUMNS`, if it is set to a positive number.
#[must_use]
pub(crate) fn columns_override(environment: &Environment) -> Option<usize> {
    environment.get("COLUMNS")?.parse().ok().filter(|&columns: &usize| columns > 0)
}

/// Columns and rows that the system reports, otherwise 80 and 24.
#[must_use]
pub(crate) fn size() -> (usize, usize) {
    let reported = crossterm::terminal::size().ok().filter(|&(columns, rows)| columns > 0 && rows > 0);
    reported.map_or((80, 24), |(columns, rows)| (usize::from(columns), usize::from(rows)))
}
