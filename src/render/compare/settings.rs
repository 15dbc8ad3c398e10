//! Settings of a comparison: the views by name, and the output mode of each on a terminal and on a pipe.

use strum::{EnumString, VariantNames};

use crate::render::{Format, TerminalInfo};

/// How several answers are laid out as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum View {
    /// On a terminal a live region, then columns or a stack; on a pipe `Stack`.
    #[default]
    Auto,
    /// Like `Auto`, but an error without a terminal.
    Live,
    /// Side by side.
    Columns,
    /// One below another.
    Stack,
    /// Each line as it arrives, with the name of its model in front.
    Tagged,
    /// Only the table of metrics.
    Quiet,
}

/// Settings of the view of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct CompareSettings {
    /// The format of the data on stdout.
    pub format: Format,
    /// The layout of text.
    pub view: View,
    /// The terminal properties of the two streams.
    pub terminal: TerminalInfo,
    /// Whether a live region can be drawn. If not, each answer is shown in order as it completes, not at the end.
    pub has_live_region: bool,
    /// Whether Markdown is rendered on a terminal.
    pub render_markdown: bool,
    /// Whether every attempt is reported.
    pub verbose: bool,
    /// Whether texts and timelines are kept after the answers are shown.
    pub keep_answers: bool,
    /// Whether the JSON document is an object with the answers in a field, because more fields follow.
    pub answers_in_object: bool,
}

impl CompareSettings {
    /// Whether text is written before its answer is complete, so that an incomplete answer cannot be replaced.
    #[must_use]
    pub(crate) fn streams_output(&self) -> bool {
        matches!(self.output_mode(), OutputMode::Tagged | OutputMode::Events)
    }

    pub(super) fn output_mode(&self) -> OutputMode {
        let is_live = self.terminal.stdout_width.is_some() && self.has_live_region;
        match (self.format, self.view) {
            (Format::Jsonl, _) => OutputMode::Events,
            (Format::Json | Format::Markdown, _) => OutputMode::InOrder,
            (Format::Text, View::Columns) => OutputMode::AtEnd,
            (Format::Text, View::Auto | View::Live) if is_live => OutputMode::AtEnd,
            (Format::Text, View::Auto | View::Live | View::Stack) => OutputMode::InOrder,
            (Format::Text, View::Tagged) => OutputMode::Tagged,
            (Format::Text, View::Quiet) => OutputMode::TableOnly,
        }
    }
}

/// When text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputMode {
    /// All answers, after all calls have ended.
    AtEnd,
    /// Each answer when it and all answers before it have ended.
    InOrder,
    /// Each line as it arrives.
    Tagged,
    /// Each event as it happens.
    Events,
    /// No text.
    TableOnly,
}
