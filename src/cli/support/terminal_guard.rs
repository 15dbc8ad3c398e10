//! Restores the terminal when a question is interrupted.

use super::{error::CliError, exit::Exit};
use crate::term::{
    output::write_stderr,
    signals::{InterruptHandler, TerminalState},
};

/// While this exists, an interruption restores the terminal and ends the process.
pub(crate) struct TerminalGuard {
    state: TerminalState,
    _interruption: InterruptHandler,
}

impl TerminalGuard {
    pub(crate) fn install() -> Result<Self, CliError> {
        let state = TerminalState::save();
        let saved = state.clone();
        let interruption = Exit::listen_for_interruption_with_cleanup(move || {
            saved.restore();
            write_stderr("\ninterrupted; nothing was changed\n");
        })?;
        Ok(Self { state, _interruption: interruption })
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        self.state.restore();
    }
}
