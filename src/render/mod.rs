//! Renders events and data as text: answers, tables, reports and messages.
//!
//! Pure: output goes into buffers that `term` writes, so every view is tested as text.

mod answer_warnings;
pub(crate) mod ask;
pub(crate) mod compare;
pub(crate) mod diff;
pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod metrics;
pub mod notice;
pub(crate) mod record_stats;
pub(crate) mod report;
pub(crate) mod table;
pub(crate) mod timeline;
pub mod wrap;

use strum::{EnumString, VariantNames};

/// The control sequence that ends colors and other styles.
const RESET: &str = "\u{1b}[0m";

/// Format of the data on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Format {
    /// The text of the answer.
    Text,
    /// The Markdown source of the answer, under a heading.
    Markdown,
    /// One JSON object per answer.
    Json,
    /// One JSON object per event, as it happens.
    Jsonl,
}

/// Text to write to the two streams. The order between them is kept: both may be the same terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    chunks: Vec<(Stream, String)>,
}

/// Destination of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output: the answer or the data.
    Out,
    /// Standard error: everything else.
    Err,
}

impl Output {
    /// Output with this text on stdout only.
    #[must_use]
    pub(crate) fn data(text: String) -> Self {
        Self { chunks: vec![(Stream::Out, text)] }
    }

    /// The buffer to append to for standard output.
    pub(crate) fn out(&mut self) -> &mut String {
        self.buffer(Stream::Out)
    }

    /// The buffer to append to for standard error.
    pub(crate) fn err(&mut self) -> &mut String {
        self.buffer(Stream::Err)
    }

    /// Takes all chunks, in order.
    pub(crate) fn take(&mut self) -> Vec<(Stream, String)> {
        std::mem::take(&mut self.chunks)
    }

    /// Whether there is no text.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.iter().all(|(_, text)| text.is_empty())
    }

    /// Whether there is text for `stream`.
    #[must_use]
    pub(crate) fn has_text(&self, stream: Stream) -> bool {
        self.chunks.iter().any(|(to, text)| *to == stream && !text.is_empty())
    }

    fn buffer(&mut self, stream: Stream) -> &mut String {
        if self.chunks.last().is_none_or(|(last, _)| *last != stream) {
            self.chunks.push((stream, String::new()));
        }
        &mut self.chunks.last_mut().expect("the last chunk is for this stream").1
    }
}

/// Terminal properties of the two streams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TerminalInfo {
    /// Width in cells if standard output is a terminal.
    pub stdout_width: Option<usize>,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Whether colors and other styles may be used.
    pub styled: bool,
}

/// Dims text for standard error if styles are enabled.
#[must_use]
pub(crate) fn dim(text: &str, terminal: TerminalInfo) -> String {
    if terminal.styled && terminal.stderr_is_terminal { format!("\u{1b}[2m{text}{RESET}") } else { text.to_owned() }
}
