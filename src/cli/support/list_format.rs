//! Lists, for people and for programs: a table, or JSON.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::{CliError, Context};
use crate::{
    config::Flags,
    render::{Output, table::Table},
    term::output::Streams,
};

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// A table
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// The flag for it.
#[derive(Debug, Default, Args)]
pub(crate) struct ListArgs {
    /// What stdout holds
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: ListFormat,
}

impl ListArgs {
    /// Prints what the format asks for: the tables, or the document.
    pub(crate) fn print(&self, context: &Context, tables: &[Table], document: &Value) -> Result<(), CliError> {
        let text = match self.format {
            ListFormat::Json => format!("{document:#}\n"),
            ListFormat::Text => {
                let look = context.look(&context.layers(Flags::default())?);
                let (width, styled) = (look.out_width, look.styled && look.out_width.is_some());
                let shown: Vec<String> =
                    tables.iter().filter(|table| !table.is_empty()).map(|table| table.text(width, styled)).collect();
                shown.join("\n")
            }
        };
        Ok(Streams::stdout().put(&mut Output::data(text))?)
    }

    /// Whether people read it.
    pub(crate) fn is_text(&self) -> bool {
        self.format == ListFormat::Text
    }
}
