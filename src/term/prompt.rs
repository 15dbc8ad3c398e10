//! Questions to a person at a terminal.
//!
//! Owns asking and reading, on stderr. A secret is never shown while it is typed. Refuses to know what is asked for.

use std::io::{self, IsTerminal};

use dialoguer::{Confirm, FuzzySelect, Input, MultiSelect, Password, theme::SimpleTheme};

use crate::model::api_key::ApiKey;

/// A question that got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The person had enough.
    #[error("interrupted; nothing was changed")]
    Interrupted,
    /// The terminal is gone, or is none.
    #[error("the question cannot be asked: {0}")]
    Failed(#[source] io::Error),
}

impl From<dialoguer::Error> for PromptError {
    fn from(error: dialoguer::Error) -> Self {
        let dialoguer::Error::IO(error) = error;
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Failed(error),
        }
    }
}

/// Whether there is somebody to ask.
#[must_use]
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A line of text; asked again until `check` accepts it.
pub fn text(
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

/// A secret, which is not shown.
pub fn secret(question: &str) -> Result<ApiKey, PromptError> {
    Ok(ApiKey::new(&Password::with_theme(&SimpleTheme).with_prompt(question).interact()?))
}

/// Yes or no.
pub fn confirm(question: &str, default: bool) -> Result<bool, PromptError> {
    Ok(Confirm::with_theme(&SimpleTheme).with_prompt(question).default(default).interact()?)
}

/// One of `choices`, found by typing some of it.
pub fn choose(question: &str, choices: &[String], default: usize) -> Result<usize, PromptError> {
    let select =
        FuzzySelect::with_theme(&SimpleTheme).with_prompt(question).items(choices).default(default).max_length(12);
    Ok(select.interact()?)
}

/// Some of `choices`.
pub fn choose_several(question: &str, choices: &[String], chosen: &[bool]) -> Result<Vec<usize>, PromptError> {
    let select =
        MultiSelect::with_theme(&SimpleTheme).with_prompt(question).items(choices).defaults(chosen).max_length(12);
    Ok(select.interact()?)
}
