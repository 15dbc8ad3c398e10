//! The prompt: arguments, files and standard input put together.
//!
//! Owns the rules of `docs/input.md`: nothing is dropped silently, and nothing hangs in silence.

use std::{io::Read, path::Path, time::Duration};

use super::CliError;
use crate::term::{
    input::{self, MAX_INPUT},
    output::say,
};

/// Where a prompt comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct PromptArgs<'a> {
    /// The words of the command line; `-` stands for standard input.
    pub(super) words: &'a [String],
    /// Files to attach.
    pub(super) files: &'a [std::path::PathBuf],
    /// Standard input is not read.
    pub(super) no_stdin: bool,
    /// The longest silence of standard input.
    pub(super) stdin_timeout: Option<Duration>,
}

/// The prompt's text. Parts are separated by a blank line: words, files, standard input.
pub(super) fn read(args: &PromptArgs<'_>) -> Result<String, CliError> {
    let wanted = args.words.iter().any(|word| word == "-");
    if wanted && args.no_stdin {
        return Err(CliError::usage("`-` asks for standard input and --no-stdin forbids it", "leave one of them out"));
    }
    let words: Vec<&str> = args.words.iter().map(String::as_str).filter(|word| *word != "-").collect();
    let mut parts = vec![words.join(" ")];
    for path in args.files {
        parts.push(attached(path)?);
    }
    if wanted || !(args.no_stdin || input::is_terminal()) {
        let limit = if wanted { None } else { args.stdin_timeout };
        let piped = utf8(input::read(limit)?, "standard input");
        parts.push(piped.trim_end_matches(['\n', '\r']).to_owned());
    }
    let prompt = parts.iter().filter(|part| !part.trim().is_empty()).cloned().collect::<Vec<_>>().join("\n\n");
    if prompt.is_empty() {
        return Err(CliError::usage("the prompt is empty", "give it as arguments, with -f, or on standard input"));
    }
    if prompt.len() > MAX_INPUT {
        return Err(CliError::Input(input::InputError::TooLong));
    }
    Ok(prompt)
}

/// A file's text under its name.
fn attached(path: &Path) -> Result<String, CliError> {
    let shown = path.display();
    let failed =
        |error: std::io::Error| CliError::usage(format!("{shown} cannot be read: {error}"), "check the path after -f");
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(CliError::usage(format!("{shown} is a folder"), "attach its files one by one"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_INPUT {
        return Err(CliError::usage(format!("{shown} is longer than 32 MiB"), "no model reads that much"));
    }
    if memchr::memchr(0, &bytes).is_some() {
        return Err(CliError::usage(format!("{shown} is no text file"), "only text can be attached so far"));
    }
    let text = utf8(bytes, &shown.to_string());
    Ok(format!("<file name=\"{shown}\">\n{}\n</file>", text.trim_end_matches('\n')))
}

/// Text from bytes; what is no UTF-8 becomes U+FFFD, and that is said.
fn utf8(bytes: Vec<u8>, from: &str) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        say(&format!("warning: {from} is not UTF-8; what could not be read became \u{fffd}\n"));
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str], files: &[std::path::PathBuf]) -> Result<String, CliError> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        read(&PromptArgs { words: &words, files, no_stdin: true, stdin_timeout: None })
    }

    #[test]
    fn words_and_files_are_joined_with_a_blank_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "text\n").expect("a file");
        let prompt = words(&["read", "this"], std::slice::from_ref(&path)).expect("a prompt");
        assert_eq!(prompt, format!("read this\n\n<file name=\"{}\">\ntext\n</file>", path.display()));
    }

    #[test]
    fn what_makes_no_prompt_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let binary = folder.path().join("b.bin");
        std::fs::write(&binary, [1, 0, 2]).expect("a file");
        for (files, word) in [
            (vec![], "empty"),
            (vec![folder.path().to_owned()], "folder"),
            (vec![folder.path().join("none")], "cannot be read"),
            (vec![binary], "no text file"),
        ] {
            let error = words(&[" "], &files).expect_err("no prompt").to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(words(&["-"], &[]).expect_err("forbidden").to_string().contains("--no-stdin"));
    }
}
