//! What is shown of several answers, and when.
//!
//! Owns the views by their names and what each means on a terminal and on a pipe.

use crate::render::{Format, Look};

/// How several answers are arranged as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// On a terminal a live region and then what reads best; on a pipe `Stack`.
    #[default]
    Auto,
    /// As `Auto`, but an error where there is no terminal.
    Live,
    /// Side by side.
    Columns,
    /// One below the other.
    Stack,
    /// Every line as it comes, with its name in front.
    Tagged,
    /// The figures alone.
    Quiet,
}

/// Every view, by its name.
pub static VIEWS: &[(&str, View)] = &[
    ("auto", View::Auto),
    ("live", View::Live),
    ("columns", View::Columns),
    ("stack", View::Stack),
    ("tagged", View::Tagged),
    ("quiet", View::Quiet),
];

/// What is to be shown, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The format of the data.
    pub format: Format,
    /// The arrangement of text.
    pub view: View,
    /// The two streams.
    pub look: Look,
    /// Rows can be drawn while answers come. Where not, an answer is shown when its turn comes, not at the end.
    pub drawn: bool,
    /// Markdown is rendered where it can be.
    pub rendered: bool,
    /// Every attempt is told.
    pub verbose: bool,
    /// The tokens of the prompt, estimated, in case nobody reports them.
    pub prompt_tokens: u64,
    /// The answers are needed after they were shown, and how they came.
    pub whole: bool,
    /// More than the answers is told: a JSON document has them in a field of its own.
    pub wrapped: bool,
}

impl Settings {
    /// Whether text is put out before its answer is whole, so that an answer that breaks off cannot be taken back.
    #[must_use]
    pub fn shows_as_it_comes(&self) -> bool {
        matches!(self.arrangement(), Arrangement::Tagged | Arrangement::Events)
    }

    pub(super) fn arrangement(&self) -> Arrangement {
        let watched = self.look.out_width.is_some() && self.drawn;
        match (self.format, self.view) {
            (Format::Jsonl, _) => Arrangement::Events,
            (Format::Json | Format::Markdown, _) => Arrangement::InTurn,
            (Format::Text, View::Columns) => Arrangement::AtEnd,
            (Format::Text, View::Auto | View::Live) if watched => Arrangement::AtEnd,
            (Format::Text, View::Auto | View::Live | View::Stack) => Arrangement::InTurn,
            (Format::Text, View::Tagged) => Arrangement::Tagged,
            (Format::Text, View::Quiet) => Arrangement::Figures,
        }
    }
}

/// When text is put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// All of it when all lanes are over.
    AtEnd,
    /// Each answer when it is whole and its turn has come.
    InTurn,
    /// Every line when it is there.
    Tagged,
    /// Every event when it happens.
    Events,
    /// No text.
    Figures,
}
