//! `mmchat man`: prints manual pages generated from the command definitions.
//!
//! `clap_mangen` renders the options. The text after the options in a command's help is divided among the sections
//! DESCRIPTION, EXIT STATUS and EXAMPLES; FILES and ENVIRONMENT are the same on all pages.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use crate::cli::{
    CliError, command,
    support::{error::unknown_value, exit::Exit},
};
use crate::{render::Output, store, term::output::Streams};

/// The name and version of the program, for the footer of the pages.
const SOURCE: &str = concat!("mmchat ", env!("CARGO_PKG_VERSION"));

/// The section FILES.
const FILES: [(&str, &str); 6] = [
    ("$XDG_CONFIG_HOME/mmchat/config.toml", "The config; \"mmchat config path\" prints its path on this system"),
    ("presets/NAME.toml", "The preset NAME, in the folder of the config"),
    ("keys/NAME", "The stored API key NAME, in the folder of the config; only its owner can read it"),
    ("$XDG_STATE_HOME/mmchat/record.db", "The record of all calls, and of prompts and answers if they are stored"),
    ("$XDG_STATE_HOME/mmchat/health.json", "The availability of models, endpoints and keys"),
    ("$XDG_CACHE_HOME/mmchat", "The model lists of endpoints, for shell completion"),
];

/// The section ENVIRONMENT.
const ENVIRONMENT: [(&str, &str); 14] = [
    ("MMCHAT_CONFIG", "The config file, as --config"),
    ("MMCHAT_MODEL", "The model or route of \"mmchat ask\" and \"mmchat chat\", as --model"),
    ("MMCHAT_FORMAT", "The output format, as --format"),
    ("MMCHAT_TIMEOUT", "The time limit for a complete answer, as --timeout"),
    ("MMCHAT_NO_STDIN", "1: do not read standard input, as --no-stdin"),
    ("MMCHAT_PLAIN", "1: no color, no Markdown rendering, no redrawing, as --plain"),
    ("MMCHAT_LOG", "1: print every attempt to stderr, as --verbose"),
    ("OPENAI_API_KEY, DEEPSEEK_API_KEY, ...", "API keys; \"mmchat vendors\" lists the variable of each vendor"),
    ("NO_COLOR", "Disables color and Markdown rendering, but not redrawing"),
    ("COLUMNS", "The width of the terminal"),
    ("VISUAL, EDITOR", "The editor of \"mmchat presets edit\""),
    ("https_proxy, http_proxy, all_proxy", "The proxy for requests to endpoints"),
    ("no_proxy", "The hosts that are not requested through a proxy"),
    ("XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_CACHE_HOME", "The base directories of FILES; they have platform defaults"),
];

/// Print a manual page
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat man | man -l -\n  \
      mmchat man compare | man -l -\n  \
      mmchat man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Command whose page to print [default: mmchat itself]
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "words", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> Result<Exit, CliError> {
    let root = documented_command();
    if let Some(folder) = &args.dir {
        for (name, page) in pages(&root, "mmchat")? {
            let path = folder.join(format!("{name}.1"));
            store::write_atomic(&path, &page)
                .map_err(|source| CliError::System { what: format!("cannot write {}", path.display()), source })?;
        }
        return Ok(Exit::Ok);
    }
    let (mut selected, mut name) = (&root, "mmchat".to_owned());
    for word in &args.words {
        let known: Vec<&str> = selected.get_subcommands().map(Command::get_name).collect();
        selected = selected.find_subcommand(word).ok_or_else(|| unknown_value("command", word, &known))?;
        name = format!("{name}-{word}");
    }
    Streams::stdout().write(&mut Output::data(page(selected, &name)?))?;
    Ok(Exit::Ok)
}

/// The definition of `mmchat` without the `help` subcommands, which have no pages.
fn documented_command() -> Command {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    root
}

/// The pages of a command and of all its subcommands, with their names.
fn pages(command: &Command, name: &str) -> Result<Vec<(String, String)>, CliError> {
    let mut pages_by_name = vec![(name.to_owned(), page(command, name)?)];
    for subcommand in command.get_subcommands() {
        pages_by_name.extend(pages(subcommand, &format!("{name}-{}", subcommand.get_name()))?);
    }
    Ok(pages_by_name)
}

fn page(command: &Command, name: &str) -> Result<String, CliError> {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let after_help = AfterHelp::new(&text);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let description = std::iter::once(about.as_str()).chain(after_help.description).collect::<Vec<_>>().join("\n\n");

    let mut command = command.clone().display_name(name);
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim_start().to_owned();
    let has_subcommands = command.has_subcommands();
    // Quotes stand for an empty date: without them the next argument would take its place.
    let man = Man::new(command.long_about(description).override_usage(usage))
        .date("\"\"")
        .source(SOURCE)
        .manual("mmchat manual");

    let mut page: Vec<u8> = Vec::new();
    man.render_title(&mut page)?;
    // Do not hyphenate, so that names such as MMCHAT_CONFIG can be searched and copied.
    page.extend_from_slice(b".nh\n");
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    let exit_codes = Exit::ALL.map(|(exit, meaning)| ((exit as u8).to_string(), meaning.replace('`', "\"")));
    let mut sections = Roff::new();
    add_examples(&mut sections, after_help.examples);
    sections.control("SH", ["EXIT STATUS"]);
    for paragraph in after_help.exit_status {
        sections.text([roman(paragraph)]);
    }
    add_definitions(&mut sections, exit_codes);
    sections.control("SH", ["FILES"]);
    add_definitions(&mut sections, FILES);
    sections.control("SH", ["ENVIRONMENT"]);
    add_definitions(&mut sections, ENVIRONMENT);
    sections.to_writer(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The text after the options in the help of a command, divided among the sections of its page.
#[derive(Debug, Default)]
struct AfterHelp<'a> {
    description: Vec<&'a str>,
    exit_status: Vec<&'a str>,
    /// The lines below `Examples:`.
    examples: &'a str,
}

impl<'a> AfterHelp<'a> {
    fn new(text: &'a str) -> Self {
        let mut after_help = Self::default();
        for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            if let Some(lines) = paragraph.strip_prefix("Examples:\n") {
                after_help.examples = lines;
            } else if paragraph.starts_with("Exit code ") {
                after_help.exit_status.push(paragraph);
            } else if !paragraph.starts_with("Exit codes:") {
                // The summary of all codes is left out: EXIT STATUS describes each of them.
                after_help.description.push(paragraph);
            }
        }
        after_help
    }
}

fn add_examples(page: &mut Roff, lines: &str) {
    page.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in lines.lines() {
        page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    page.control("fi", []);
}

/// Adds a list of terms with their descriptions.
fn add_definitions<T: Into<String>>(page: &mut Roff, definitions: impl IntoIterator<Item = (T, T)>) {
    for (term, description) in definitions {
        page.control("TP", []).text([bold(term)]).text([roman(description)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_each_section_once() {
        let sections = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "\"EXIT STATUS\"", "FILES", "ENVIRONMENT"];
        for (name, page) in pages(&documented_command(), "mmchat").expect("pages are rendered") {
            for section in sections {
                assert_eq!(page.matches(&format!("\n.SH {section}\n")).count(), 1, "{section} of {name}");
            }
            assert!(page.contains("\n.nf\n") && !page.contains("\n.nf\n.fi\n"), "{name} has no examples");
            assert!(!page.contains("Examples:") && !page.contains("Exit codes:"), "{name} repeats a section");
        }
    }

    #[test]
    fn text_after_the_options_is_divided_among_sections() {
        let after_help = AfterHelp::new("One.\n\nExit code 3: two.\n\nExit codes:\n  0 ok\n\nExamples:\n  a\n  b");
        assert_eq!(after_help.description, ["One."]);
        assert_eq!(after_help.exit_status, ["Exit code 3: two."]);
        assert_eq!(after_help.examples, "  a\n  b");
    }
}
