//! `mmchat completions`: the script a shell completes our commands with.

use clap::Args;
use clap_complete::Shell;

use super::{CliError, exit::Exit};
use crate::{render::Output, term::output::Streams};

/// Print the completions of a shell
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "mmchat", &mut script);
    let out = String::from_utf8_lossy(&script).into_owned();
    Streams::stdout().put(&mut Output::data(out))?;
    Ok(Exit::Ok)
}
