//! `mmchat completions`: the script that lets a shell ask this binary what fits; and the answer to the shell.
//!
//! The script holds no names: with every press of the key the shell runs `mmchat` with `COMPLETE` set, so that new models
//! are there at once. The scripts in `completions/` are these; a test keeps them fresh.

use std::{ffi::OsString, path::Path};

use clap::Args;
use clap_complete::{CompleteEnv, env::Shells};

use crate::cli::{
    CliError, command,
    support::{exit::Exit, request::unknown},
};
use crate::{model::environment::Environment, render::Output, term::output::Streams};

/// Set by the script: the shell that asks.
const VARIABLE: &str = "COMPLETE";
const NAME: &str = "mmchat";

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = "bash:        mmchat completions bash > ~/.local/share/bash-completion/completions/mmchat\n\
    zsh:         mmchat completions zsh > a folder of $fpath, as _mmchat\n\
    fish:        mmchat completions fish > ~/.config/fish/completions/mmchat.fish\n\
    powershell:  mmchat completions powershell >> $PROFILE\n\
    elvish:      mmchat completions elvish >> ~/.config/elvish/rc.elv")]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, powershell or elvish
    #[arg(value_name = "SHELL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    shell: String,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&args.shell) else {
        return Err(unknown("shell", &args.shell, &shells.names().collect::<Vec<_>>()));
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, NAME, NAME, NAME, &mut script)?;
    let out = String::from_utf8_lossy(&script).into_owned();
    Streams::stdout().put(&mut Output::data(out))?;
    Ok(Exit::Ok)
}

/// Answers a shell that asks what fits; `None`: none does.
pub(crate) fn answered(arguments: &[OsString], environment: &Environment) -> Option<Exit> {
    environment.get(VARIABLE)?;
    let folder = std::env::current_dir().ok();
    let done =
        CompleteEnv::with_factory(command).try_complete(arguments.iter().cloned(), folder.as_deref().map(Path::new));
    match done {
        Ok(true) => Some(Exit::Ok),
        Ok(false) => None,
        Err(error) => {
            // Clap tells the shell, in its own form.
            let _ = error.print();
            Some(Exit::Usage)
        }
    }
}
