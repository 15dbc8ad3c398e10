//! Prints lists as a table or as JSON.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::{CliError, Context};
use crate::{
    config::Flags,
    render::{Output, json, table::Table},
    term::output::Streams,
};

/// The output format of a list. Variants have no doc comments: clap would use its long help format for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    #[default]
    Text,
    Json,
}

/// The `--format` option of a list.
#[derive(Debug, Default, Args)]
pub(crate) struct ListArgs {
    /// Print text or JSON
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    format: ListFormat,
}

impl ListArgs {
    /// Prints the tables or the document, depending on the format.
    pub(crate) fn print(&self, context: &Context, tables: &[Table], document: &Value) -> Result<(), CliError> {
        let text = match self.format {
            ListFormat::Json => json::document(document),
            ListFormat::Text => {
                let terminal = context.terminal_info(&context.settings(Flags::default())?);
                let (width, styled) = (terminal.stdout_width, terminal.styled && terminal.stdout_width.is_some());
                let rendered: Vec<String> =
                    tables.iter().filter(|table| !table.is_empty()).map(|table| table.render(width, styled)).collect();
                rendered.join("\n")
            }
        };
        Ok(Streams::stdout().write(&mut Output::data(text))?)
    }

    /// Whether the output is a table.
    pub(crate) fn is_text(&self) -> bool {
        self.format == ListFormat::Text
    }
}
