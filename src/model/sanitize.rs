//! Removes control sequences from model output before it reaches a terminal.
//!
//! Model output is untrusted: an escape sequence could set the window title, write to the clipboard or overwrite
//! earlier output. Sequences may be split between chunks. Output to a pipe or a file is not sanitized: it is data.

/// Parser state between two chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// Inside `ESC [ …`, until the final byte.
    Csi,
    /// Inside a string sequence (`ESC ] …`, `ESC P …`), until BEL or `ESC \`.
    StringSequence,
    /// Inside a string sequence, after ESC.
    StringSequenceEscape,
}

/// Removes control sequences from a stream of chunks. Use one per stream, because a sequence may span chunks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sanitizer {
    state: State,
    /// Length of the current string sequence in characters. It is limited, because an unterminated sequence would
    /// remove all later text.
    sequence_len: usize,
}

/// Maximum length of a string sequence in characters; titles and clipboard writes are much shorter.
const MAX_SEQUENCE_LEN: usize = 4096;

impl Sanitizer {
    /// Appends `text` to `out` without control characters and escape sequences. Line feeds and tabs are kept; carriage
    /// returns are removed, because they would let text overwrite its own line.
    pub fn push(&mut self, text: &str, out: &mut String) {
        if self.state == State::Text && !text.chars().any(is_control) {
            out.push_str(text);
            return;
        }
        for c in text.chars() {
            self.step(c, out);
        }
    }

    fn step(&mut self, c: char, out: &mut String) {
        self.state = match (self.state, c) {
            (State::Text, '\u{1b}') => State::Escape,
            (State::Text, '\u{9b}') => State::Csi,
            (State::Text, '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}') => self.enter_string_sequence(),
            (State::Text, c) => {
                if !is_control(c) {
                    out.push(c);
                }
                State::Text
            }
            (State::Escape, '[') => State::Csi,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => self.enter_string_sequence(),
            (State::Escape | State::Csi, '\u{1b}') => State::Escape,
            // Intermediate bytes, as in `ESC ( B`, precede the final byte.
            (State::Escape, '\u{20}'..='\u{2f}') => State::Escape,
            (State::Escape, '\u{30}'..='\u{7e}') => State::Text,
            (State::Csi, '\u{20}'..='\u{3f}') => State::Csi,
            (State::Csi, '\u{40}'..='\u{7e}') => State::Text,
            // Not part of a valid sequence (for example a line feed or a non-ASCII letter): the character is text.
            (State::Escape | State::Csi, c) => {
                if !is_control(c) {
                    out.push(c);
                }
                State::Text
            }
            (State::StringSequence | State::StringSequenceEscape, '\u{7}' | '\u{9c}')
            | (State::StringSequenceEscape, '\\') => State::Text,
            (State::StringSequence | State::StringSequenceEscape, '\u{1b}') => State::StringSequenceEscape,
            (State::StringSequence | State::StringSequenceEscape, _) if self.sequence_len >= MAX_SEQUENCE_LEN => {
                State::Text
            }
            (State::StringSequence | State::StringSequenceEscape, _) => {
                self.sequence_len += 1;
                State::StringSequence
            }
        };
    }

    fn enter_string_sequence(&mut self) -> State {
        self.sequence_len = 0;
        State::StringSequence
    }
}

/// `text` without control sequences.
#[must_use]
pub fn sanitize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Sanitizer::default().push(text, &mut out);
    out
}

/// `text` on one line and without control sequences, for messages that quote a server.
#[must_use]
pub fn one_line(text: &str) -> String {
    sanitize(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first `max_chars` characters of `text`, with `…` if there are more.
#[must_use]
pub fn truncate_chars(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Characters that a name cannot have because nobody sees them: control characters, line and paragraph separators,
/// characters that reorder text and those without a width.
pub(crate) fn is_invisible(c: char) -> bool {
    let has_no_width = matches!(
        c,
        '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    has_no_width || c == '\n' || c == '\t' || is_control(c)
}

/// Control characters and invisible characters that reorder text (bidirectional overrides and isolates).
fn is_control(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_clipboard_color_and_cursor_sequences_are_removed() {
        let cases = [
            ("a\u{1b}]0;pwned\u{7}b", "ab"),
            ("a\u{1b}]52;c;aGk=\u{1b}\\b", "ab"),
            ("a\u{1b}[31mred\u{1b}[0m", "ared"),
            ("a\u{1b}[2Jb\rc", "abc"),
            ("a\u{9b}31mb\u{9d}0;x\u{9c}c", "abc"),
            ("a\u{1b}(Bb", "ab"),
            ("tab\tand\nline", "tab\tand\nline"),
            ("over\u{202e}ride", "override"),
            ("借\u{0}用", "借用"),
        ];
        for (raw, want) in cases {
            assert_eq!(sanitize(raw), want, "{raw:?}");
        }
    }

    #[test]
    fn sequence_split_between_chunks_is_removed() {
        let text = "x\u{1b}]0;title\u{7}y\u{1b}[1;31mz";
        for split in (1..text.len()).filter(|&split| text.is_char_boundary(split)) {
            let (mut sanitizer, mut out) = (Sanitizer::default(), String::new());
            sanitizer.push(&text[..split], &mut out);
            sanitizer.push(&text[split..], &mut out);
            assert_eq!(out, "xyz", "split at {split}");
        }
    }

    #[test]
    fn unterminated_sequence_does_not_swallow_the_answer() {
        let text = format!("\u{1b}]{}the end", "a".repeat(MAX_SEQUENCE_LEN));
        assert!(sanitize(&text).ends_with("he end"));
    }
}
