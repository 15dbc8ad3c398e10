//! Writes data to stdout or a file, and messages to stderr, in order.
//!
//! Each batch is one write and one flush.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use crate::{
    model::{
        describe_error,
        sanitize::{sanitize, sanitize_styled},
    },
    render::{Output, Stream},
    store::set_private_mode,
};

/// Data cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The reader of standard output closed its pipe; this is not a failure.
    #[error("standard output was closed")]
    StdoutClosed,
    /// The terminal of standard output was closed.
    #[error("the terminal was closed")]
    TerminalClosed,
    /// The write failed.
    #[error("cannot write to {to}: {}", describe_error(source))]
    Io {
        /// Standard output or the path of the file.
        to: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

enum DataSink {
    Stdout { is_terminal: bool },
    File { file: File, path: PathBuf, truncated: bool },
}

/// Output streams of a command.
pub(crate) struct Streams {
    data: DataSink,
}

impl Streams {
    /// Writes data to stdout.
    #[must_use]
    pub(crate) fn stdout() -> Self {
        Self { data: DataSink::Stdout { is_terminal: io::stdout().is_terminal() } }
    }

    /// Writes data to a file. The file is created now, so that an invalid path is reported before a request is sent,
    /// and truncated at the first write.
    pub(crate) fn file(path: &Path) -> Result<Self, WriteError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        // Answers are private: other users must not read them.
        set_private_mode(&mut options);
        let failed = |source| WriteError::Io { to: path.display().to_string(), source };
        let file = options.open(path).map_err(failed)?;
        Ok(Self { data: DataSink::File { file, path: path.to_owned(), truncated: false } })
    }

    /// Whether data is written to stdout.
    #[must_use]
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.data, DataSink::Stdout { .. })
    }

    /// Writes and flushes both streams in order. Messages are written even if writing data fails. A terminal gets no
    /// control sequences except styles; a pipe or a file gets the data unchanged.
    pub(crate) fn write(&mut self, output: &mut Output) -> Result<(), WriteError> {
        let mut result = Ok(());
        for (stream, text) in output.take() {
            match stream {
                _ if text.is_empty() => {}
                Stream::Err => write_styled_stderr(&text),
                Stream::Out if result.is_ok() => result = self.write_data(&text),
                Stream::Out => {}
            }
        }
        result
    }

    fn write_data(&mut self, text: &str) -> Result<(), WriteError> {
        match &mut self.data {
            &mut DataSink::Stdout { is_terminal } => {
                let text = if is_terminal { sanitize_styled(text) } else { text.into() };
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
                written.map_err(|source| match source.kind() {
                    io::ErrorKind::BrokenPipe => WriteError::StdoutClosed,
                    _ if is_terminal && is_hang_up(&source) => WriteError::TerminalClosed,
                    _ => WriteError::Io { to: "standard output".into(), source },
                })
            }
            DataSink::File { file, path, truncated } => {
                let truncation = if *truncated || !file.metadata().is_ok_and(|meta| meta.is_file()) {
                    Ok(())
                } else {
                    file.set_len(0)
                };
                *truncated = true;
                let written = truncation.and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.flush());
                written.map_err(|source| WriteError::Io { to: path.display().to_string(), source })
            }
        }
    }

    /// Ends the output and syncs the file. An empty answer truncates the file if it is `complete`; a failure without
    /// output keeps the previous content.
    pub(crate) fn finish(&mut self, complete: bool) -> Result<(), WriteError> {
        match &self.data {
            DataSink::Stdout { .. } => Ok(()),
            DataSink::File { truncated: false, .. } if complete => self.write_data(""),
            DataSink::File { truncated: false, .. } => Ok(()),
            DataSink::File { file, path, .. } => match file.sync_data() {
                // Devices and pipes cannot be synced.
                Err(source) if !matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                    Err(WriteError::Io { to: path.display().to_string(), source })
                }
                _ => Ok(()),
            },
        }
    }
}

/// Whether a write failed because the terminal was closed (`EIO`); SIGHUP may arrive later.
#[cfg(unix)]
fn is_hang_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// On other platforms the process ends with its terminal.
#[cfg(not(unix))]
fn is_hang_up(_: &io::Error) -> bool {
    false
}

/// Writes a message to stderr, without control sequences: it may quote a server, a file or an argument.
pub(crate) fn write_stderr(text: &str) {
    write_terminal(&sanitize(text));
}

/// Writes a message to stderr, without control sequences except styles.
pub(crate) fn write_styled_stderr(text: &str) {
    write_terminal(&sanitize_styled(text));
}

/// Writes text with control sequences of mmchat itself to stderr. Errors are ignored, because there is no other stream to
/// report them on.
pub(crate) fn write_terminal(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_truncated_only_at_the_first_write() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("answer");
        std::fs::write(&path, "what was there before, and longer").expect("readable file");
        let mut streams = Streams::file(&path).expect("writable");
        assert!(std::fs::read_to_string(&path).expect("readable file").contains("before"));
        for text in ["new ", "text"] {
            streams.write(&mut Output::data(text.into())).expect("writable");
        }
        streams.finish(true).expect("writable");
        assert_eq!(std::fs::read_to_string(&path).expect("readable file"), "new text");
        Streams::file(&path).expect("writable").finish(false).expect("nothing to write");
        assert_eq!(std::fs::read_to_string(&path).expect("readable file"), "new text");
    }

    #[test]
    fn error_names_the_path_that_cannot_be_written() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let Err(error) = Streams::file(&folder.path().join("no/such/folder")) else { panic!("opened") };
        assert!(error.to_string().contains("no/such/folder") || error.to_string().contains("no\\such"), "{error}");
    }
}
