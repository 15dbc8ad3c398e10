//! The binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    mmchat::cli::main(std::env::args_os(), mmchat::model::environment::Environment::of_process())
}
