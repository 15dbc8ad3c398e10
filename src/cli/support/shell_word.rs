//! Quotes words of commands that a user copies into a shell.

/// `text` as one word of a POSIX shell or PowerShell; quoted only if it must be.
#[must_use]
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '+');
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { shell_quote(text) }
}

/// Quotes `text` with single quotes for a POSIX shell.
#[must_use]
pub(crate) fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_characters_of_the_shell_are_quoted() {
        for (text, word) in
            [("qwen2.5:7b", "qwen2.5:7b"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("*", "'*'")]
        {
            assert_eq!(shell_word(text), word);
        }
    }
}
