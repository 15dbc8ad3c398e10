//! Snapshots of the help of every command and of two manual pages, so that a review shows each change of a text.

use clap::Command;

use crate::common::{CommandResult, TestEnv};

/// The settings of all text snapshots: `tests/it/snapshots/NAME.snap`, without the Rust expression.
pub(crate) fn snapshot_settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// The path of `command` and of every subcommand below it: `[]`, `["ask"]`, `["config"]`, `["config", "check"]`.
fn command_paths(command: &Command) -> Vec<Vec<String>> {
    let mut paths = vec![Vec::new()];
    for subcommand in command.get_subcommands() {
        let name = vec![subcommand.get_name().to_owned()];
        paths.extend(command_paths(subcommand).into_iter().map(|rest| [name.clone(), rest].concat()));
    }
    paths
}

/// What the binary prints with these arguments in 100 columns.
fn printed(arguments: &[&str]) -> String {
    let env = TestEnv::new();
    let output = env.command().env("COLUMNS", "100").args(arguments).output().expect("binary starts");
    let result = CommandResult::from_output(output).expect_exit(0);
    assert_eq!(result.stderr, "", "{arguments:?}");
    result.stdout.replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
}

fn assert_printed(name: &str, arguments: &[&str]) {
    let text = printed(arguments);
    snapshot_settings().bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn help_of_every_command() {
    for path in command_paths(&mmchat::internals::cli::command()) {
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let name = format!("help_{}", path.join("_"));
        assert_printed(name.trim_end_matches('_'), &arguments);
    }
}

#[test]
fn help_summary() {
    assert_printed("help_summary", &["-h"]);
}

#[test]
fn manual_pages() {
    assert_printed("man", &["man"]);
    assert_printed("man_ask", &["man", "ask"]);
}
