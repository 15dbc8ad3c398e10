//! Reads standard input, with a notice after 1 s without data, a timeout and a size limit.

use std::{
    io::{self, IsTerminal, Read},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::output::write_stderr;

use crate::model::describe_error;

/// Maximum size of a prompt in bytes, about eight million tokens; no model accepts more.
pub(crate) const MAX_INPUT: usize = 32 * 1024 * 1024;

/// Time without data after which the notice is shown.
const NOTICE_DELAY: Duration = Duration::from_secs(1);

/// Standard input cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// No data arrived for this long.
    #[error("timed out reading standard input: an open pipe sent no data for {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The input is larger than `MAX_INPUT`.
    #[error("standard input is larger than 32 MiB, more than any model accepts")]
    TooLong,
    /// A line is larger than `MAX_INPUT`.
    #[error("a line of standard input is larger than 32 MiB, more than any model accepts")]
    LineTooLong,
    /// Reading failed.
    #[error("cannot read standard input: {}", describe_error(.0))]
    Io(#[source] io::Error),
}

/// Whether standard input is a terminal; a terminal is only read on request.
#[must_use]
pub(crate) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Decodes UTF-8; invalid bytes become U+FFFD, with a warning that names `source`.
#[must_use]
pub(crate) fn decode_text(bytes: Vec<u8>, source: &str) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        write_stderr(&format!("warning: {source} is not valid UTF-8; invalid bytes were replaced with \u{fffd}\n"));
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

/// Reads standard input to its end. `timeout`: maximum time without data; `None`: unlimited.
pub(crate) fn read(timeout: Option<Duration>) -> Result<Vec<u8>, InputError> {
    let (sender, chunks) = sync_channel(4);
    // The thread ends with the input or the process: a blocking read of standard input cannot be interrupted.
    thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let read = io::stdin().lock().read(&mut chunk);
            let (at_end, message) = match read {
                Ok(count) => (count == 0, Ok(chunk[..count].to_vec())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (true, Err(error)),
            };
            if sender.send(message).is_err() || at_end {
                return;
            }
        }
    });
    let mut input = Vec::new();
    let mut last_data = Instant::now();
    let mut notice_shown = false;
    loop {
        match chunks.recv_timeout(NOTICE_DELAY) {
            Ok(Ok(chunk)) if chunk.is_empty() => return Ok(input),
            Ok(Ok(chunk)) => {
                if input.len() + chunk.len() > MAX_INPUT {
                    return Err(InputError::TooLong);
                }
                input.extend_from_slice(&chunk);
                last_data = Instant::now();
            }
            Ok(Err(error)) => return Err(InputError::Io(error)),
            Err(RecvTimeoutError::Disconnected) => return Ok(input),
            Err(RecvTimeoutError::Timeout) => {
                if timeout.is_some_and(|timeout| last_data.elapsed() >= timeout) {
                    return Err(InputError::Timeout(timeout.unwrap_or_default()));
                }
                if !std::mem::replace(&mut notice_shown, true) {
                    write_stderr("waiting for standard input (close it, or use --no-stdin)\n");
                }
            }
        }
    }
}
