//! `mmchat man`: prints manual pages generated from the command definitions.

use std::path::PathBuf;

use clap::{Args, Command};

use crate::cli::{
    CliError, command,
    support::{error::unknown_value, exit::Exit},
};
use crate::{render::Output, store, term::output::Streams};

/// Print a manual page
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat man | man -l -\n  \
      mmchat man compare | man -l -\n  \
      mmchat man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Command to print the page of [default: mmchat itself]
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "words", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> Result<Exit, CliError> {
    let mut all = command();
    all.build();
    if let Some(folder) = &args.dir {
        for (name, page) in pages(&all, "mmchat")? {
            let path = folder.join(format!("{name}.1"));
            store::write_atomic(&path, &page)
                .map_err(|source| CliError::System { what: format!("cannot write {}", path.display()), source })?;
        }
        return Ok(Exit::Ok);
    }
    let (mut selected, mut name) = (&all, "mmchat".to_owned());
    for word in &args.words {
        let known: Vec<&str> = selected.get_subcommands().map(Command::get_name).collect();
        selected = selected.find_subcommand(word).ok_or_else(|| unknown_value("command", word, &known))?;
        name = format!("{name}-{word}");
    }
    Streams::stdout().write(&mut Output::data(page(selected, &name)?))?;
    Ok(Exit::Ok)
}

/// The pages of a command and of all its subcommands, with their names.
fn pages(command: &Command, name: &str) -> Result<Vec<(String, String)>, CliError> {
    let mut pages_by_name = vec![(name.to_owned(), page(command, name)?)];
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        pages_by_name.extend(pages(subcommand, &format!("{name}-{}", subcommand.get_name()))?);
    }
    Ok(pages_by_name)
}

fn page(command: &Command, name: &str) -> Result<String, CliError> {
    let command = command.clone().display_name(name).disable_help_subcommand(true);
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
