//! Makes text from elsewhere safe for a terminal, a log and an export: removes control sequences, and shows characters
//! that reorder text.
//!
//! Answers, names and error messages are untrusted: an escape sequence could set the window title, write to the clipboard
//! or overwrite earlier output. Sequences may be split between chunks. Output to a pipe is not sanitized: it is data.

use std::{borrow::Cow, fmt::Write};

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
    /// The tag characters since the emoji of a flag; `None` after any other character. They are invisible text unless they
    /// end as those of a flag do, so they are held until then.
    flag_tags: Option<FlagTags>,
}

/// The tag characters of a flag without their end, as ASCII.
#[derive(Clone, Copy, Debug, Default)]
struct FlagTags {
    code: [u8; MAX_FLAG_CODE],
    len: usize,
}

/// Maximum length of a string sequence in characters; titles and clipboard writes are much shorter.
const MAX_SEQUENCE_LEN: usize = 4096;

/// The emoji that tag characters may follow: a black flag, which becomes that of England, for example.
const FLAG: char = '\u{1f3f4}';
/// The lengths of the code of a flag: that of a country and one of its regions.
const MIN_FLAG_CODE: usize = 3;
const MAX_FLAG_CODE: usize = 6;
/// The end of the code.
const FLAG_END: char = '\u{e007f}';
/// The offset of tag characters to ASCII.
const TAG_OFFSET: u32 = 0xe0000;

impl Sanitizer {
    /// Appends `text` to `out` without control characters and escape sequences. Line feeds and tabs are kept; carriage
    /// returns are removed, because they would let text overwrite its own line. Characters that reorder text are shown as
    /// `U+202E`.
    pub fn push(&mut self, text: &str, out: &mut String) {
        if self.state == State::Text && self.flag_tags.is_none() && !text.chars().any(|c| is_unsafe(c) || c == FLAG) {
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
            (State::Text, c) => self.text(c, out),
            (State::Escape, '[') => State::Csi,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => self.enter_string_sequence(),
            (State::Escape | State::Csi, '\u{1b}') => State::Escape,
            // Intermediate bytes, as in `ESC ( B`, precede the final byte.
            (State::Escape, '\u{20}'..='\u{2f}') => State::Escape,
            (State::Escape, '\u{30}'..='\u{7e}') => State::Text,
            (State::Csi, '\u{20}'..='\u{3f}') => State::Csi,
            (State::Csi, '\u{40}'..='\u{7e}') => State::Text,
            // Not part of a valid sequence (for example a line feed or a non-ASCII letter): the character is text.
            (State::Escape | State::Csi, c) => self.text(c, out),
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

    fn text(&mut self, c: char, out: &mut String) -> State {
        if is_reordering(c) {
            let _ = write!(out, "U+{:04X}", u32::from(c));
        } else if !is_unsafe(c) {
            out.push(c);
        }
        self.flag_tags = match self.flag_tags.take() {
            _ if c == FLAG => Some(FlagTags::default()),
            Some(tags) if c == FLAG_END => {
                tags.write(out);
                None
            }
            Some(tags) => tags.with(c),
            None => None,
        };
        State::Text
    }

    fn enter_string_sequence(&mut self) -> State {
        self.sequence_len = 0;
        State::StringSequence
    }
}

impl FlagTags {
    /// With one more tag character; `None`: these are no tags of a flag.
    fn with(mut self, c: char) -> Option<Self> {
        let ascii = u32::from(c).checked_sub(TAG_OFFSET).and_then(|code| u8::try_from(code).ok());
        *self.code.get_mut(self.len)? = ascii.filter(|code| code.is_ascii_lowercase() || code.is_ascii_digit())?;
        self.len += 1;
        Some(self)
    }

    /// Appends the tags and their end.
    fn write(&self, out: &mut String) {
        if self.len >= MIN_FLAG_CODE {
            let tags = self.code[..self.len].iter().filter_map(|code| char::from_u32(TAG_OFFSET + u32::from(*code)));
            out.extend(tags.chain([FLAG_END]));
        }
    }
}

/// `text` without control sequences.
#[must_use]
pub fn sanitize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Sanitizer::default().push(text, &mut out);
    out
}

/// `text` for a terminal or a log: like [`sanitize`], but styles (colors, bold) are kept.
#[must_use]
pub fn sanitize_styled(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return text.into();
    }
    let (mut sanitizer, mut out) = (Sanitizer::default(), String::with_capacity(text.len()));
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let length = style_length(&rest[at..]);
        let (before, after) = rest.split_at(at + if length == 0 { 2 } else { 0 });
        sanitizer.push(before, &mut out);
        let (style, after) = after.split_at(length);
        if sanitizer.state == State::Text {
            out.push_str(style);
        } else {
            sanitizer.push(style, &mut out);
        }
        rest = after;
    }
    sanitizer.push(rest, &mut out);
    out.into()
}

/// The length of the sequence at the start of `text` that selects styles (`ESC [ 1 ; 31 m`); 0 if there is none. Text must
/// not be hidden, and need not blink.
fn style_length(text: &str) -> usize {
    let end = text[2..].find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or_default();
    let (numbers, rest) = text[2..].split_at(end);
    if !rest.starts_with('m') {
        return 0;
    }
    let mut numbers_left = numbers.split(';').map(|number| number.parse::<u32>().unwrap_or_default());
    while let Some(number) = numbers_left.next() {
        match number {
            // A color follows: `5;N` of a palette, or `2;R;G;B`.
            38 | 48 => match numbers_left.next() {
                Some(5) => _ = numbers_left.next(),
                Some(2) => _ = numbers_left.nth(2),
                _ => return 0,
            },
            5 | 6 | 8 => return 0,
            _ => {}
        }
    }
    numbers.len() + "\u{1b}[m".len()
}

/// JSON without control characters and characters that reorder text: those that JSON allows in strings are escaped, which
/// does not change the value.
#[must_use]
pub fn escape_in_json(json: String) -> String {
    // In JSON, control characters below U+0020 are escaped already, and line feeds are only between its tokens. This test
    // is fast, since each line of a log needs it.
    let is_plain = json.is_ascii() && memchr::memchr(0x7f, json.as_bytes()).is_none();
    if is_plain || !json.chars().any(is_unsafe) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
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

/// Characters that a name cannot have because they are invisible: control characters, line and paragraph separators,
/// characters that reorder text and those without a width.
pub(crate) fn is_invisible(c: char) -> bool {
    let has_no_width = matches!(
        c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{2060}'
            ..='\u{206f}' | '\u{feff}'
    );
    has_no_width || c == '\n' || c == '\t' || is_unsafe(c)
}

/// Characters that text from elsewhere must not bring to a terminal.
pub(crate) fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || is_reordering(c) || is_tag(c)
}

/// Invisible characters that reorder text: bidirectional embeddings, overrides and isolates. Marks such as U+200E stay,
/// which mixed text needs.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLAND: &str = "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";

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
            ("over\u{202e}ride\u{2069}", "overU+202ErideU+2069"),
            ("marks \u{200e}\u{200f}\u{61c}", "marks \u{200e}\u{200f}\u{61c}"),
            ("x\u{e0061}\u{e0062}y", "xy"),
            (ENGLAND, ENGLAND),
            ("\u{1f3f4} \u{e0067}", "\u{1f3f4} "),
            ("c\u{85}d\u{7f}e\u{8}", "cde"),
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
        let (mut sanitizer, mut out) = (Sanitizer::default(), String::new());
        ENGLAND.chars().for_each(|c| sanitizer.push(&c.to_string(), &mut out));
        assert_eq!(out, ENGLAND);
        let tags =
            |code: &str| code.chars().filter_map(|c| char::from_u32(TAG_OFFSET + u32::from(c))).collect::<String>();
        for hidden in ["ab", "abcdefg", "ABC", "gbeng", &"a".repeat(100)] {
            let end = if hidden == "gbeng" { "x" } else { "\u{e007f}" };
            let text = format!("\u{1f3f4}{}{end}", tags(hidden));
            assert_eq!(sanitize(&text), format!("\u{1f3f4}{}", end.replace(FLAG_END, "")), "{hidden}");
        }
    }

    #[test]
    fn styles_are_kept_and_other_sequences_are_removed() {
        for (raw, want) in [
            ("\u{1b}[1;31mred\u{1b}[0m\u{1b}[m", "\u{1b}[1;31mred\u{1b}[0m\u{1b}[m"),
            ("\u{1b}[38;5;8mgray\u{1b}[48;2;8;8;8;4m", "\u{1b}[38;5;8mgray\u{1b}[48;2;8;8;8;4m"),
            ("\u{1b}[8mhidden\u{1b}[1;5mblinks", "hiddenblinks"),
            ("\u{1b}[08mhidden\u{1b}[38;8mtoo\u{1b}[1;05m", "hiddentoo"),
            ("\u{1b}[2Jm\u{1b}[?25lm", "mm"),
            ("\u{1b}]0;\u{1b}[1mtitle\u{7}text", "text"),
            ("a\u{1b}[", "a"),
            ("\u{202e}\u{9b}1mb", "U+202Eb"),
        ] {
            assert_eq!(sanitize_styled(raw), want, "{raw:?}");
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"a": format!("\u{9d}52;c\u{7f}\u{1b}\u{202e}{ENGLAND} 通")});
        let text = escape_in_json(serde_json::to_string_pretty(&value).expect("serializable"));
        assert!(!text.chars().any(is_unsafe), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("valid JSON"), value);
    }

    #[test]
    fn unterminated_sequence_does_not_swallow_the_answer() {
        let text = format!("\u{1b}]{}the end", "a".repeat(MAX_SEQUENCE_LEN));
        assert!(sanitize(&text).ends_with("he end"));
    }
}
