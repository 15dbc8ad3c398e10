//! `mmchat completions`: prints the completion script of a shell and answers the shell's completion requests.
//!
//! The script contains no names: for each completion the shell runs `mmchat` with `COMPLETE` set, so new models are
//! offered at once. `completions/` holds the generated scripts; a test compares them with the output of this command.

use std::{ffi::OsString, path::Path};

use clap::Args;
use clap_complete::CompleteEnv;

use crate::cli::{
    CliError, command,
    support::{completion_shells::SHELLS, error::unknown_value, exit::Exit},
};
use crate::{model::environment::Environment, render::Output, term::output::Streams};

/// The script sets this environment variable to the name of the shell.
const COMPLETE_VARIABLE: &str = "COMPLETE";
const BINARY_NAME: &str = "mmchat";

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(
    after_help = "The script runs mmchat for every completion, so it offers the names of the current config. zsh \
    reads it as _mmchat from a directory of $fpath.\n\n\
    Examples:\n  \
      mmchat completions bash > ~/.local/share/bash-completion/completions/mmchat\n  \
      mmchat completions zsh > \"${fpath[1]}/_mmchat\"\n  \
      mmchat completions fish > ~/.config/fish/completions/mmchat.fish\n  \
      mmchat completions powershell >> $PROFILE\n  \
      mmchat completions elvish >> ~/.config/elvish/rc.elv"
)]
pub(crate) struct CompletionsArgs {
    /// Shell to print the script for: bash, zsh, fish, powershell or elvish
    #[arg(value_name = "SHELL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    shell: String,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let Some(shell) = SHELLS.completer(&args.shell) else {
        return Err(unknown_value("shell", &args.shell, &SHELLS.names().collect::<Vec<_>>()));
    };
    let mut script = Vec::new();
    shell.write_registration(COMPLETE_VARIABLE, BINARY_NAME, BINARY_NAME, BINARY_NAME, &mut script)?;
    let out = String::from_utf8_lossy(&script).into_owned();
    Streams::stdout().write(&mut Output::data(out))?;
    Ok(Exit::Ok)
}

/// Answers a completion request of a shell; `None` when this is an ordinary command line.
pub(crate) fn handle_completion_request(arguments: &[OsString], environment: &Environment) -> Option<Exit> {
    environment.get(COMPLETE_VARIABLE)?;
    let folder = std::env::current_dir().ok();
    let completed = CompleteEnv::with_factory(command)
        .shells(SHELLS)
        .try_complete(arguments.iter().cloned(), folder.as_deref().map(Path::new));
    match completed {
        Ok(true) => Some(Exit::Ok),
        Ok(false) => None,
        Err(error) => {
            // clap prints the error in the form that the shell expects.
            let _ = error.print();
            Some(Exit::Usage)
        }
    }
}
