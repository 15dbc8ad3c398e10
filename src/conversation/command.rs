//! What a person types into a conversation: words for the models, or a command.
//!
//! Owns the list of commands, which help, completion and reading share. Refuses to do any.

/// A command's name, what stands behind it, and what it does.
pub static COMMANDS: &[(&str, &str, &str)] = &[
    ("model", "[NAME]", "go on with this model or route; alone: which there are"),
    ("models", "[A,B]", "go on with several at once, or with a set"),
    ("system", "[TEXT]", "set the system text; alone: show it; -: take it away"),
    ("file", "PATH", "attach a text or a picture to the next question"),
    ("again", "", "ask the last question once more; the answers take the place of the last ones"),
    ("pick", "N", "all go on with the answer of the N-th model"),
    ("undo", "", "take back the last question and its answers"),
    ("save", "PATH", "write the conversation to a file (.md or .json)"),
    ("stats", "", "what the answers took so far"),
    ("copy", "[N]", "the last answer, or that of the N-th model, to the clipboard"),
    ("help", "", "this list; //text sends what begins with a slash"),
    ("quit", "", "leave; mmchat chat --continue goes on"),
];

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed<'a> {
    Nothing,
    Words(&'a str),
    /// A known command with what stands behind it.
    Command(&'static str, &'a str),
    /// A word that is no command.
    Unknown(&'a str),
}

/// Reads a line, or several.
pub(super) fn read(text: &str) -> Typed<'_> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Typed::Nothing;
    }
    let Some(rest) = trimmed.strip_prefix('/') else { return Typed::Words(text.trim_end()) };
    if rest.starts_with('/') {
        return Typed::Words(rest);
    }
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match COMMANDS.iter().find(|(name, ..)| *name == word) {
        Some((name, ..)) => Typed::Command(name, argument.trim()),
        None if word == "exit" || word == "q" => Typed::Command("quit", ""),
        None => Typed::Unknown(word),
    }
}
