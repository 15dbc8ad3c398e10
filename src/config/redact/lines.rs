//! Finds secrets in the lines of a text, which need not be valid TOML: the rest of a line after a word such as key, token,
//! header or password, everything in brackets opened there, every value below a table with such a name, and the user and
//! query of a URL.

use std::{mem::take, ops::Range};

use super::words::{ENTRY_TABLES, HARMLESS_KEYS, sensitive_word_end};

/// Prefixes of well-known API keys, masked anywhere in the text.
const KEY_PREFIXES: [&str; 2] = ["sk-", "sk_"];

/// The positions of secrets after sensitive words.
pub(super) fn scan_lines(text: &str) -> Vec<Range<usize>> {
    let mut scanner = LineScanner { text, ..Default::default() };
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        scanner.scan_line(line_start..line_start + line.trim_end().len());
        line_start += line.len();
    }
    scanner.ranges
}

#[derive(Default)]
struct LineScanner<'a> {
    text: &'a str,
    /// Whether the current table has a sensitive name.
    in_sensitive_table: bool,
    /// The number of unclosed brackets after a sensitive word.
    open_brackets: usize,
    /// The delimiter of a string of several lines that begins after a sensitive word.
    open_string: Option<&'static str>,
    /// The last line with a sensitive word, if no other line with content follows it.
    line_above: LineAbove,
    ranges: Vec<Range<usize>>,
}

/// A line with a sensitive word, whose value may be on the next line.
#[derive(Clone, Copy, Default)]
struct LineAbove {
    end: LineEnd,
    is_comment: bool,
}

/// How a line with a sensitive word ends.
#[derive(Clone, Copy, Default, PartialEq)]
enum LineEnd {
    #[default]
    Other,
    /// After the equals sign: the value is on the next line.
    EqualsSign,
    /// After the word, or a colon: the equals sign or the value may be on the next line.
    Word,
}

impl LineScanner<'_> {
    fn scan_line(&mut self, range: Range<usize>) {
        let line = &self.text[range.clone()];
        if let Some(quotes) = self.open_string {
            self.ranges.push(range);
            self.open_string = Some(quotes).filter(|quotes| !line.contains(quotes));
            return;
        }
        let body = line.trim_start_matches([' ', '\t', '#']);
        let start = range.end - body.len();
        let is_comment = line.trim_start().starts_with('#');
        let line_above = take(&mut self.line_above);
        // Blank lines, and comments unless the key is in one, may be between a key and its value.
        if line_above.end != LineEnd::Other && (body.is_empty() || is_comment && !line_above.is_comment) {
            self.scan_key_and_value(start..range.end);
            self.line_above = line_above;
            return;
        }
        if self.scan_value_on_its_own_line(line_above, body, is_comment, start..range.end) {
            return;
        }
        if let Some(header_len) =
            table_header_len(body).filter(|_| self.open_brackets == 0 || !body[1..].starts_with(['"', '\'', '{', '[']))
        {
            self.open_brackets = 0;
            // The settings of a client are not secret; its `api_key` is found by its own name.
            self.in_sensitive_table = !body.starts_with("[serve.keys.")
                && sensitive_word_end(without_entry_name(&body[..header_len])).is_some();
            if header_len < body.len() {
                self.scan_key_and_value(start + header_len..range.end);
            }
        } else {
            self.scan_key_and_value(start..range.end);
        }
    }

    /// Scans a line that may be the value of the key above it; returns whether it is nothing else.
    fn scan_value_on_its_own_line(
        &mut self,
        line_above: LineAbove,
        body: &str,
        is_comment: bool,
        range: Range<usize>,
    ) -> bool {
        // The key may be commented out, and its value not.
        if is_comment != line_above.is_comment && body.contains('=') && !body.starts_with(['"', '\'', '{']) {
            return false;
        }
        let is_header = table_header_len(body).is_some_and(|len| body[len..].trim().is_empty());
        match line_above.end {
            LineEnd::Other => return false,
            // A list looks like a header.
            LineEnd::EqualsSign if is_header => {
                self.ranges.push(range);
                return false;
            }
            LineEnd::EqualsSign => self.scan_value(range),
            LineEnd::Word if body.starts_with('=') => self.scan_value(range),
            LineEnd::Word if is_header || body.contains('=') => return false,
            // The end of a list or of a string of several lines.
            LineEnd::Word if body.starts_with([']', '}', ',']) || ["\"\"\"", "'''"].contains(&body) => return false,
            // Not the start of a list or of a string of several lines: the word may be part of a text.
            LineEnd::Word => self.ranges.push(range),
        }
        true
    }

    /// Scans a line, or the rest of a line after a table header.
    fn scan_key_and_value(&mut self, range: Range<usize>) {
        let (body, start) = (&self.text[range.clone()], range.start);
        if self.open_brackets > 0 {
            self.scan_value(start..range.end);
        } else if body.split_once('=').is_some_and(|(key, _)| HARMLESS_KEYS.contains(&key.trim())) {
            // The source of a secret, or not a secret.
        } else if let Some(end) = sensitive_word_end(body) {
            // The value starts after the end of the key that contains the word.
            let rest = &body[end..];
            let key_len = match rest {
                // The end of a quoted key, without a value.
                "\"" | "'" => 1,
                rest => rest.find(|c: char| !(c.is_alphanumeric() || "_-.\"'".contains(c))).unwrap_or(0),
            };
            self.scan_value(start + end + key_len..range.end);
        } else if self.in_sensitive_table {
            let key_len = body.find(['=', ':', ' ', '\t']).unwrap_or(0);
            self.scan_value(start + key_len..range.end);
        }
    }

    /// Scans the rest of a line after a sensitive word.
    fn scan_value(&mut self, range: Range<usize>) {
        let value = &self.text[range.clone()];
        let (opened, closed) = (value.matches(['[', '{']).count(), value.matches([']', '}']).count());
        self.open_brackets = (self.open_brackets + opened).saturating_sub(closed);
        self.open_string = ["\"\"\"", "'''"].into_iter().find(|quotes| value.matches(quotes).count() % 2 == 1);
        if !is_key_reference(value) {
            let value_start = value.find(|c: char| !c.is_whitespace() && !"=:".contains(c)).unwrap_or(value.len());
            self.ranges.push(range.start + value_start..range.end);
        }
        let end = match value.split('#').next().unwrap_or_default().trim().trim_end_matches('\\').trim_end() {
            "" | ":" => LineEnd::Word,
            "=" => LineEnd::EqualsSign,
            _ => LineEnd::Other,
        };
        let line_start = self.text[..range.start].rfind('\n').map_or(0, |line_break| line_break + 1);
        self.line_above = LineAbove { end, is_comment: self.text[line_start..].trim_start().starts_with('#') };
    }
}

/// The positions of secrets in any word: the user and query of a URL, and API keys.
pub(super) fn scan_words(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut offset, mut after_bearer) = (0, false);
    for segment in text.split_inclusive(|c: char| c.is_whitespace() || "\"'".contains(c)) {
        let word = segment.trim_end_matches(|c: char| c.is_whitespace() || "\"'".contains(c));
        let end = offset + word.len();
        // A URL without a scheme can have a user, too.
        if let Some(at_sign) = word.rfind('@').filter(|&at_sign| word[..at_sign].contains(':')) {
            ranges.push(offset + word.find("://").map_or(0, |scheme| scheme + 3).min(at_sign)..offset + at_sign);
        }
        if let Some(question_mark) = word.find('?').filter(|&question_mark| word[..question_mark].contains("://")) {
            ranges.push(offset + question_mark + 1..end);
        }
        if after_bearer
            || KEY_PREFIXES
                .iter()
                .any(|prefix| word.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with(prefix))
        {
            ranges.push(offset..end);
        }
        after_bearer = word == "Bearer";
        offset += segment.len();
    }
    ranges
}

/// The length of the table header at the start of `line`, including brackets.
fn table_header_len(line: &str) -> Option<usize> {
    let end = line.strip_prefix('[')?.find(']')? + 2;
    Some(end + usize::from(line[end..].starts_with(']')))
}

/// A table header without the name of an entry, which the user chose: `[models.NAME` is removed.
fn without_entry_name(header: &str) -> &str {
    let path = header.strip_prefix('[').unwrap_or(header);
    let path = path.strip_prefix("spend.").unwrap_or(path);
    let Some(name) = ENTRY_TABLES.iter().find_map(|table| path.strip_prefix(table)?.strip_prefix('.')) else {
        return header;
    };
    match name.chars().next() {
        Some(quote @ ('"' | '\'')) => name[1..].split_once(quote).map_or(name, |(_, rest)| rest),
        _ => name.find(['.', ']']).map_or(name, |end| &name[end..]),
    }
}

/// Whether `value` only names the source of a secret: `= { env = "NAME" }`.
fn is_key_reference(value: &str) -> bool {
    let table = value.trim_matches([' ', '\t', '=', ',']);
    let table = table.strip_prefix('{').and_then(|table| table.strip_suffix('}')).unwrap_or_default();
    let key = table.split('=').next().unwrap_or_default().trim();
    table.matches('=').count() == 1 && HARMLESS_KEYS.contains(&key)
}
