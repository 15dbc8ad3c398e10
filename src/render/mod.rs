//! From what happens to what is shown: pure layout, events and text in, lines out.
//!
//! Owns the formats and the texts of messages. Refuses to write: everything goes into buffers that `term` puts out,
//! so every view is tested as text.

pub mod ask;
pub mod json;
pub mod markdown;
pub mod notice;
pub mod stats;

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

/// What a view has to say, for whoever writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// For standard output: the answer or the data.
    pub out: String,
    /// For standard error: everything else.
    pub err: String,
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
