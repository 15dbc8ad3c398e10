//! Takes control sequences out of model text before it reaches a terminal.
//!
//! Model text is untrusted: an escape sequence in it could set the window's title, write the clipboard or move the
//! cursor over what was said before. Owns the removal, over pieces cut anywhere. Refuses to touch text that goes to
//! a pipe or a file: there it is data.

/// Where the removal stands between two pieces of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// Inside `ESC [ …` until a final byte.
    Csi,
    /// Inside a string sequence (`ESC ] …`, `ESC P …`) until BEL or `ESC \`.
    Sequence,
    /// Inside a string sequence, after ESC.
    SequenceEscape,
}

/// Strips control sequences; one per stream, since a sequence may be cut between pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sanitiser {
    state: State,
    /// Characters of the open string sequence, so that an unclosed one cannot swallow the rest of the answer.
    length: usize,
}

/// A string sequence longer than this was none: a title or a clipboard write ends long before.
const LONGEST_SEQUENCE: usize = 4096;

impl Sanitiser {
    /// Appends `text` to `out` without control characters and escape sequences. Line feeds and tabs stay; a carriage
    /// return goes, since it would let text overwrite its own line.
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
            (State::Text, '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}') => self.enter_sequence(),
            (State::Text, c) => {
                if !is_control(c) {
                    out.push(c);
                }
                State::Text
            }
            (State::Escape, '[') => State::Csi,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => self.enter_sequence(),
            (State::Escape | State::Csi, '\u{1b}') => State::Escape,
            // Intermediate bytes, as in `ESC ( B`, stand before the final one.
            (State::Escape, '\u{20}'..='\u{2f}') => State::Escape,
            (State::Escape, '\u{30}'..='\u{7e}') => State::Text,
            (State::Csi, '\u{20}'..='\u{3f}') => State::Csi,
            (State::Csi, '\u{40}'..='\u{7e}') => State::Text,
            // Not a sequence after all (a line end, a letter of another script): the character is text.
            (State::Escape | State::Csi, c) => {
                if !is_control(c) {
                    out.push(c);
                }
                State::Text
            }
            (State::Sequence | State::SequenceEscape, '\u{7}' | '\u{9c}') | (State::SequenceEscape, '\\') => {
                State::Text
            }
            (State::Sequence | State::SequenceEscape, '\u{1b}') => State::SequenceEscape,
            (State::Sequence | State::SequenceEscape, _) if self.length >= LONGEST_SEQUENCE => State::Text,
            (State::Sequence | State::SequenceEscape, _) => {
                self.length += 1;
                State::Sequence
            }
        };
    }

    fn enter_sequence(&mut self) -> State {
        self.length = 0;
        State::Sequence
    }
}

/// The whole of `text` without control sequences.
#[must_use]
pub fn sanitised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Sanitiser::default().push(text, &mut out);
    out
}

/// `text` on one line and without control sequences: for messages that quote a server.
#[must_use]
pub fn one_line(text: &str) -> String {
    sanitised(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Control characters, and the invisible ones that reorder what is shown (bidirectional overrides and isolates).
fn is_control(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_clipboards_colours_and_cursor_moves_go() {
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
        for (raw, clean) in cases {
            assert_eq!(sanitised(raw), clean, "{raw:?}");
        }
    }

    #[test]
    fn a_sequence_cut_between_pieces_is_still_one() {
        let whole = "x\u{1b}]0;title\u{7}y\u{1b}[1;31mz";
        for cut in (1..whole.len()).filter(|&cut| whole.is_char_boundary(cut)) {
            let (mut sanitiser, mut out) = (Sanitiser::default(), String::new());
            sanitiser.push(&whole[..cut], &mut out);
            sanitiser.push(&whole[cut..], &mut out);
            assert_eq!(out, "xyz", "cut at {cut}");
        }
    }

    #[test]
    fn an_unclosed_sequence_does_not_swallow_the_answer() {
        let text = format!("\u{1b}]{}the end", "a".repeat(LONGEST_SEQUENCE));
        assert!(sanitised(&text).ends_with("he end"));
    }
}
