//! From what happens to what is shown: pure layout, events and text in, lines out.
//!
//! Owns the formats and the texts of messages. Refuses to write: everything goes into buffers that `term` puts out,
//! so every view is tested as text.

mod answer_warnings;
pub mod ask;
pub mod compare;
pub mod diff;
pub mod figures;
pub mod json;
pub mod markdown;
pub mod notice;
pub mod report;
pub mod stats;
pub mod table;
pub mod wrap;

/// A format of the data on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The answer's text.
    Text,
    /// Its Markdown source, under a heading.
    Markdown,
    /// One object per answer.
    Json,
    /// One object per event, as it happens.
    Jsonl,
}

/// Every format, by its name.
pub static FORMATS: &[(&str, Format)] =
    &[("text", Format::Text), ("markdown", Format::Markdown), ("json", Format::Json), ("jsonl", Format::Jsonl)];

/// The format called `name`.
#[must_use]
pub fn format(name: &str) -> Option<Format> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|&(_, format)| format)
}

/// What a view has to say, for whoever writes it. The order between the two streams is kept: they may be one screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pieces: Vec<(Stream, String)>,
}

/// Where a piece of output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output: the answer or the data.
    Out,
    /// Standard error: everything else.
    Err,
}

impl Output {
    /// Data and nothing else.
    #[must_use]
    pub fn data(text: String) -> Self {
        Self { pieces: vec![(Stream::Out, text)] }
    }

    /// The text that standard output goes on with.
    pub fn out(&mut self) -> &mut String {
        self.open(Stream::Out)
    }

    /// The text that standard error goes on with.
    pub fn err(&mut self) -> &mut String {
        self.open(Stream::Err)
    }

    /// The pieces in order; none is left.
    pub fn take(&mut self) -> Vec<(Stream, String)> {
        std::mem::take(&mut self.pieces)
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(|(_, text)| text.is_empty())
    }

    /// Whether something is said on `stream`.
    #[must_use]
    pub fn has(&self, stream: Stream) -> bool {
        self.pieces.iter().any(|(to, text)| *to == stream && !text.is_empty())
    }

    fn open(&mut self, stream: Stream) -> &mut String {
        if self.pieces.last().is_none_or(|(last, _)| *last != stream) {
            self.pieces.push((stream, String::new()));
        }
        &mut self.pieces.last_mut().expect("one was pushed").1
    }
}

/// How the two streams are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Standard output is a terminal of so many cells.
    pub out_width: Option<usize>,
    /// Standard error is a terminal.
    pub err_is_terminal: bool,
    /// Colours and other styles may be used.
    pub styled: bool,
}

/// Dim text on standard error, where styles are wanted.
#[must_use]
pub fn dim(text: &str, look: Look) -> String {
    if look.styled && look.err_is_terminal { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
}
