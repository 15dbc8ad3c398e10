//! Writing: stdout or a file for the data, stderr for everything else.
//!
//! Owns the order between the two, and what a closed pipe and a full disk mean. Each batch
//! is one write and one flush.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use crate::{
    render::{Output, Stream},
    store::private,
};

/// Data that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The reader has gone: nothing is wrong, nobody wants more.
    #[error("standard output was closed")]
    Closed,
    /// The terminal is gone: nobody is there any more.
    #[error("the terminal was closed")]
    HungUp,
    /// It could not be written.
    #[error("{to} could not be written: {source}")]
    Failed {
        /// Where to.
        to: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

enum Data {
    Stdout { is_terminal: bool },
    File { file: File, path: PathBuf, begun: bool },
}

/// The two streams of a command.
pub struct Streams {
    data: Data,
}

impl Streams {
    /// Data goes to stdout.
    #[must_use]
    pub fn stdout() -> Self {
        Self { data: Data::Stdout { is_terminal: io::stdout().is_terminal() } }
    }

    /// Data goes to a file, which is made now (so that a wrong path is known before anything is asked) and emptied
    /// only when there is something to write.
    pub fn file(path: &Path) -> Result<Self, WriteError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        // Answers are private: nobody else reads what a model was told.
        private(&mut options);
        let failed = |source| WriteError::Failed { to: path.display().to_string(), source };
        let file = options.open(path).map_err(failed)?;
        Ok(Self { data: Data::File { file, path: path.to_owned(), begun: false } })
    }

    /// Whether data goes where people may see it.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self.data, Data::Stdout { .. })
    }

    /// Writes and flushes both, in the order of the pieces. Data that cannot be written does not keep messages back.
    pub fn put(&mut self, output: &mut Output) -> Result<(), WriteError> {
        let mut written = Ok(());
        for (stream, text) in output.take() {
            match stream {
                _ if text.is_empty() => {}
                Stream::Err => say(&text),
                Stream::Out if written.is_ok() => written = self.data(text.as_bytes()),
                Stream::Out => {}
            }
        }
        written
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        match &mut self.data {
            &mut Data::Stdout { is_terminal } => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
                written.map_err(|source| match source.kind() {
                    io::ErrorKind::BrokenPipe => WriteError::Closed,
                    _ if is_terminal && is_hang_up(&source) => WriteError::HungUp,
                    _ => WriteError::Failed { to: "standard output".into(), source },
                })
            }
            Data::File { file, path, begun } => {
                let empty =
                    if *begun || !file.metadata().is_ok_and(|meta| meta.is_file()) { Ok(()) } else { file.set_len(0) };
                *begun = true;
                let written = empty.and_then(|()| file.write_all(bytes)).and_then(|()| file.flush());
                written.map_err(|source| WriteError::Failed { to: path.display().to_string(), source })
            }
        }
    }

    /// The answer is over. `whole`: an answer without a word empties the file, too; a failure without a word leaves
    /// what was in it.
    pub fn close(&mut self, whole: bool) -> Result<(), WriteError> {
        match &self.data {
            Data::Stdout { .. } => Ok(()),
            Data::File { begun: false, .. } if whole => self.data(b""),
            Data::File { begun: false, .. } => Ok(()),
            Data::File { file, path, .. } => match file.sync_data() {
                // A device or a pipe has nothing to sync.
                Err(source) if !matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                    Err(WriteError::Failed { to: path.display().to_string(), source })
                }
                _ => Ok(()),
            },
        }
    }
}

/// What a terminal answers that was closed: its signal may come later.
#[cfg(unix)]
fn is_hang_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Elsewhere than on Unix the process ends with its terminal.
#[cfg(not(unix))]
fn is_hang_up(_: &io::Error) -> bool {
    false
}

/// Writes to stderr. When that fails there is nobody left to tell.
pub fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_when_something_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("answer");
        std::fs::write(&path, "what was there before, and longer").expect("a file");
        let mut streams = Streams::file(&path).expect("writable");
        assert!(std::fs::read_to_string(&path).expect("a file").contains("before"));
        for piece in ["new ", "text"] {
            streams.put(&mut Output::data(piece.into())).expect("writable");
        }
        streams.close(true).expect("writable");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "new text");
        Streams::file(&path).expect("writable").close(false).expect("nothing to do");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "new text");
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let Err(error) = Streams::file(&folder.path().join("no/such/folder")) else { panic!("opened") };
        assert!(error.to_string().contains("no/such/folder") || error.to_string().contains("no\\such"), "{error}");
    }
}
