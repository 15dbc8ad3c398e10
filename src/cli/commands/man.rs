//! `mmchat man`: the manual pages, made from the commands themselves.

use std::path::PathBuf;

use clap::{Args, Command};

use crate::cli::{
    CliError, command,
    support::{exit::Exit, request::unknown},
};
use crate::{render::Output, store, term::output::Streams};

/// Print a manual page
#[derive(Debug, Args)]
#[command(after_help = "mmchat man | man -l -\n\
    mmchat man compare | man -l -\n\
    mmchat man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Of this command; of mmchat itself unless named
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "words", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> Result<Exit, CliError> {
    let mut all = command();
    all.build();
    if let Some(folder) = &args.dir {
        for (name, page) in pages(&all, "mmchat")? {
            let path = folder.join(format!("{name}.1"));
            store::replace(&path, &page)
                .map_err(|source| CliError::System { what: format!("{} cannot be written", path.display()), source })?;
        }
        return Ok(Exit::Ok);
    }
    let (mut found, mut name) = (&all, "mmchat".to_owned());
    for word in &args.words {
        let known: Vec<&str> = found.get_subcommands().map(Command::get_name).collect();
        found = found.find_subcommand(word).ok_or_else(|| unknown("command", word, &known))?;
        name = format!("{name}-{word}");
    }
    Streams::stdout().put(&mut Output::data(page(found, &name)?))?;
    Ok(Exit::Ok)
}

/// The pages of a command and of all below it, by their names.
fn pages(of: &Command, name: &str) -> Result<Vec<(String, String)>, CliError> {
    let mut found = vec![(name.to_owned(), page(of, name)?)];
    for below in of.get_subcommands().filter(|below| below.get_name() != "help") {
        found.extend(pages(below, &format!("{name}-{}", below.get_name()))?);
    }
    Ok(found)
}

fn page(of: &Command, name: &str) -> Result<String, CliError> {
    let of = of.clone().display_name(name).disable_help_subcommand(true);
    let mut page = Vec::new();
    clap_mangen::Man::new(of).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
