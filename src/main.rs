//! Entry point of the `mmchat` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    mmchat::internals::cli::main(
        std::env::args_os(),
        mmchat::internals::model::environment::Environment::from_process(),
    )
}
