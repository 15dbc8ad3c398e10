//! Interactive prompts on the terminal, written to stderr. Secrets are not echoed.

use std::io::{self, IsTerminal};

use dialoguer::{Confirm, FuzzySelect, Input, MultiSelect, Password, theme::SimpleTheme};

use crate::model::{api_key::ApiKey, describe_error};

/// A prompt without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The user pressed Ctrl-C.
    #[error("interrupted; nothing was changed")]
    Interrupted,
    /// The terminal cannot be read or written.
    #[error("cannot prompt on the terminal: {}", describe_error(.0))]
    Io(#[source] io::Error),
}

impl From<dialoguer::Error> for PromptError {
    fn from(error: dialoguer::Error) -> Self {
        let dialoguer::Error::IO(error) = error;
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Io(error),
        }
    }
}

/// Whether the user can be prompted: stdin and stderr are terminals.
#[must_use]
pub(crate) fn can_prompt() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Prompts for a line of text until `check` accepts it.
pub(crate) fn text(
    question: &str,
    default: Option<String>,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<String, PromptError> {
    let input = Input::<String>::with_theme(&SimpleTheme)
        .with_prompt(question)
        .validate_with(|text: &String| check(text.trim()));
    let input = match default {
        Some(default) => input.default(default),
        None => input,
    };
    Ok(input.interact_text()?.trim().to_owned())
}

/// Prompts for a secret, without echo.
pub(crate) fn secret(question: &str) -> Result<ApiKey, PromptError> {
    Ok(ApiKey::new(&Password::with_theme(&SimpleTheme).with_prompt(question).interact()?))
}

/// Prompts for yes or no.
pub(crate) fn confirm(question: &str, default: bool) -> Result<bool, PromptError> {
    Ok(Confirm::with_theme(&SimpleTheme).with_prompt(question).default(default).interact()?)
}

/// Prompts for one of `choices`, with fuzzy search.
pub(crate) fn choose(question: &str, choices: &[String], default: usize) -> Result<usize, PromptError> {
    let select =
        FuzzySelect::with_theme(&SimpleTheme).with_prompt(question).items(choices).default(default).max_length(12);
    Ok(select.interact()?)
}

/// Prompts for any number of `choices`; `selected`: the initial selection.
pub(crate) fn choose_several(question: &str, choices: &[String], selected: &[bool]) -> Result<Vec<usize>, PromptError> {
    let select =
        MultiSelect::with_theme(&SimpleTheme).with_prompt(question).items(choices).defaults(selected).max_length(12);
    Ok(select.interact()?)
}
