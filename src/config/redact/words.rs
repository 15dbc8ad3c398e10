//! The words and names by which secrets are recognized.

/// Words that mark the rest of the line as a secret.
const SENSITIVE_WORDS: [&str; 6] = ["key", "token", "secret", "auth", "header", "pass"];
/// Keys that contain such a word but hold no secret: limits, and the sources of secrets.
pub(super) const HARMLESS_KEYS: [&str; 7] =
    ["first_token", "max_tokens", "max_completion_tokens", "env", "file", "command", "keyring"];
/// The tables whose entries have names that the user chose.
pub(super) const ENTRY_TABLES: [&str; 5] = ["endpoints", "models", "routes", "sets", "presets"];

/// The parts of a range that may be a secret.
pub(super) fn secret_words(range: &str) -> impl Iterator<Item = String> {
    let parts = range.split(['"', '\'']).chain(range.split(|c: char| c.is_whitespace() || "\"',".contains(c)));
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned)
}

/// The end of the first sensitive word of `line`.
pub(super) fn sensitive_word_end(line: &str) -> Option<usize> {
    let line =
        HARMLESS_KEYS.iter().fold(line.to_ascii_lowercase(), |line, word| line.replace(word, &" ".repeat(word.len())));
    SENSITIVE_WORDS.iter().filter_map(|word| Some(line.find(word)? + word.len())).min()
}
