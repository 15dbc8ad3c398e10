//! Standard input: read without ever hanging in silence.
//!
//! Owns the rules for a pipe that sends nothing: said after a second, given up after a limit. Bounded: no model reads
//! more than [`MAX_INPUT`].

use std::{
    io::{self, IsTerminal, Read},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::output::say;

/// The longest prompt that is read, in bytes; some eight million tokens.
pub const MAX_INPUT: usize = 32 * 1024 * 1024;

/// How long a silent pipe is waited for before it is spoken of.
const PATIENCE: Duration = Duration::from_secs(1);

/// Standard input that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// It is open and sends nothing.
    #[error("standard input is an open pipe that sent nothing for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// It does not end.
    #[error("standard input is longer than 32 MiB: no model reads that much")]
    TooLong,
    /// One of its lines does not end.
    #[error("a line of standard input is longer than 32 MiB: no model reads that much")]
    LongLine,
    /// It cannot be read.
    #[error("standard input cannot be read: {0}")]
    Failed(#[source] io::Error),
}

/// Whether standard input is a terminal, where nothing is read unless asked for.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Text from bytes; what is no UTF-8 becomes U+FFFD, and that is said.
#[must_use]
pub fn text(bytes: Vec<u8>, from: &str) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        say(&format!("warning: {from} is not UTF-8; what could not be read became \u{fffd}\n"));
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

/// Reads standard input to its end. `limit`: the longest silence; `None`: any.
pub fn read(limit: Option<Duration>) -> Result<Vec<u8>, InputError> {
    let (sender, pieces) = sync_channel(4);
    // The thread ends with the input, or with the process: nothing can interrupt a read of standard input.
    thread::spawn(move || {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = io::stdin().lock().read(&mut piece);
            let (end, message) = match read {
                Ok(count) => (count == 0, Ok(piece[..count].to_vec())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (true, Err(error)),
            };
            if sender.send(message).is_err() || end {
                return;
            }
        }
    });
    let mut input = Vec::new();
    let mut silent_since = Instant::now();
    let mut told = false;
    loop {
        match pieces.recv_timeout(PATIENCE) {
            Ok(Ok(piece)) if piece.is_empty() => return Ok(input),
            Ok(Ok(piece)) => {
                if input.len() + piece.len() > MAX_INPUT {
                    return Err(InputError::TooLong);
                }
                input.extend_from_slice(&piece);
                silent_since = Instant::now();
            }
            Ok(Err(error)) => return Err(InputError::Failed(error)),
            Err(RecvTimeoutError::Disconnected) => return Ok(input),
            Err(RecvTimeoutError::Timeout) => {
                if limit.is_some_and(|limit| silent_since.elapsed() >= limit) {
                    return Err(InputError::Silent(limit.unwrap_or_default()));
                }
                if !std::mem::replace(&mut told, true) {
                    say("waiting for standard input (end it, or use --no-stdin)\n");
                }
            }
        }
    }
}
