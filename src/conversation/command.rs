//! Parses a chat input line: text for the models or a command.
//!
//! Defines the list of commands, shared by help, completion and parsing.

/// The name, argument and description of each command.
pub(crate) static COMMANDS: &[(&str, &str, &str)] = &[
    ("model", "[NAME]", "switch to a model or route; without a name, list them"),
    ("models", "[A,B]", "switch to several models, or to a set"),
    ("system", "[TEXT]", "set the system prompt; without text, show it; - removes it"),
    ("file", "PATH", "attach a text file or an image to the next question"),
    ("again", "", "repeat the last question and replace its answers"),
    ("pick", "N", "continue all models with the answer of model N"),
    ("undo", "", "remove the last question and its answers"),
    ("save", "PATH", "save the conversation to a file (.md or .json)"),
    ("stats", "", "show times, tokens and cost so far"),
    ("copy", "[N]", "copy the last answer, or that of model N, to the clipboard"),
    ("help", "", "list the commands; //text sends text that begins with a slash"),
    ("quit", "", "quit; continue later with mmchat chat --continue"),
];

/// A parsed input line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputLine<'a> {
    Empty,
    Text(&'a str),
    /// A known command and its argument.
    Command(&'static str, &'a str),
    /// The name of an unknown command.
    UnknownCommand(&'a str),
}

/// Parses the input, which may have several lines.
pub(super) fn parse(text: &str) -> InputLine<'_> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return InputLine::Empty;
    }
    let Some(rest) = trimmed.strip_prefix('/') else { return InputLine::Text(text.trim_end()) };
    if rest.starts_with('/') {
        return InputLine::Text(rest);
    }
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match COMMANDS.iter().find(|(name, ..)| *name == word) {
        Some((name, ..)) => InputLine::Command(name, argument.trim()),
        None if word == "exit" || word == "q" => InputLine::Command("quit", ""),
        None => InputLine::UnknownCommand(word),
    }
}
