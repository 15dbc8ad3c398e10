//! Entry point of the `mmchat` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    mmchat::cli::main(std::env::args_os(), mmchat::model::environment::Environment::from_process())
}
