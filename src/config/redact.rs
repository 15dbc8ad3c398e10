//! Masks secrets in the text of a config file before any of it is shown.
//!
//! The file may have syntax errors anywhere, so this scans lines instead of parsing TOML. It masks the rest of a line
//! after a word such as key, token, header or password, unless it only names the source of the secret; everything in
//! brackets opened there; every value below a table with such a name; and the user and query of a URL. It masks
//! too much rather than too little, including comments. Lengths and lines are unchanged, so that spans stay valid.

use std::ops::Range;

/// Words that mark the rest of the line as a secret.
const SENSITIVE_WORDS: [&str; 6] = ["key", "token", "secret", "auth", "header", "pass"];
/// Keys that contain such a word but hold no secret: limits, and the sources of secrets.
const HARMLESS_KEYS: [&str; 7] =
    ["first_token", "max_tokens", "max_completion_tokens", "env", "file", "command", "keyring"];
/// Prefixes of well-known API keys, masked anywhere in the text.
const KEY_PREFIXES: [&str; 2] = ["sk-", "sk_"];

/// `text` with secrets replaced by asterisks, and the secrets.
pub(super) fn redact(text: &str) -> (String, Vec<String>) {
    let mut scanner = SecretScanner { text, in_sensitive_table: false, open_brackets: 0, ranges: Vec::new() };
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        scanner.scan_line(line_start..line_start + line.trim_end().len());
        line_start += line.len();
    }
    scanner.scan_words();
    let (mut redacted, mut secrets) = (text.as_bytes().to_vec(), Vec::new());
    for range in scanner.ranges {
        let secret = &text[range.clone()];
        let parts = secret.split(['"', '\'']).chain(secret.split(|c: char| c.is_whitespace() || "\"',".contains(c)));
        secrets.extend(parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
        redacted[range].iter_mut().filter(|byte| !byte.is_ascii_whitespace()).for_each(|byte| *byte = b'*');
    }
    let redacted = String::from_utf8(redacted).expect("only complete characters were replaced");
    // Longest first: masking a part of a secret must not prevent the complete secret from being found.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    (redacted, secrets)
}

struct SecretScanner<'a> {
    text: &'a str,
    /// Whether the current table has a sensitive name.
    in_sensitive_table: bool,
    /// The number of unclosed brackets after a sensitive word.
    open_brackets: usize,
    ranges: Vec<Range<usize>>,
}

impl SecretScanner<'_> {
    fn scan_line(&mut self, range: Range<usize>) {
        let line = &self.text[range.clone()];
        let body = line.trim_start_matches([' ', '\t', '#']);
        let start = range.end - body.len();
        if let Some(header_len) =
            table_header_len(body).filter(|_| self.open_brackets == 0 || !body[1..].starts_with(['"', '\'', '{', '[']))
        {
            self.open_brackets = 0;
            // The settings of a client are not secret; its `api_key` is found by its own name.
            self.in_sensitive_table =
                !body.starts_with("[serve.keys.") && sensitive_word_end(&body[..header_len]).is_some();
            if header_len < body.len() {
                self.scan_key_and_value(start + header_len..range.end);
            }
        } else {
            self.scan_key_and_value(start..range.end);
        }
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
            let key_len = rest.find(|c: char| !(c.is_alphanumeric() || "_-.\"'".contains(c))).unwrap_or(0);
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
        if !is_key_reference(value) {
            let value_start = value.find(|c: char| !c.is_whitespace() && !"=:".contains(c)).unwrap_or(value.len());
            self.ranges.push(range.start + value_start..range.end);
        }
    }

    /// Finds secrets in any word: the user and query of a URL, and API keys.
    fn scan_words(&mut self) {
        let (mut offset, mut after_bearer) = (0, false);
        for segment in self.text.split_inclusive(|c: char| c.is_whitespace() || "\"'".contains(c)) {
            let word = segment.trim_end_matches(|c: char| c.is_whitespace() || "\"'".contains(c));
            let end = offset + word.len();
            // A URL without a scheme can have a user, too.
            if let Some(at_sign) = word.rfind('@').filter(|&at_sign| word[..at_sign].contains(':')) {
                self.ranges
                    .push(offset + word.find("://").map_or(0, |scheme| scheme + 3).min(at_sign)..offset + at_sign);
            }
            if let Some(question_mark) = word.find('?').filter(|&question_mark| word[..question_mark].contains("://")) {
                self.ranges.push(offset + question_mark + 1..end);
            }
            if after_bearer
                || KEY_PREFIXES
                    .iter()
                    .any(|prefix| word.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with(prefix))
            {
                self.ranges.push(offset..end);
            }
            after_bearer = word == "Bearer";
            offset += segment.len();
        }
    }
}

/// The length of the table header at the start of `line`, including brackets.
fn table_header_len(line: &str) -> Option<usize> {
    let end = line.strip_prefix('[')?.find(']')? + 2;
    Some(end + usize::from(line[end..].starts_with(']')))
}

/// The end of the first sensitive word of `line`.
fn sensitive_word_end(line: &str) -> Option<usize> {
    let line =
        HARMLESS_KEYS.iter().fold(line.to_ascii_lowercase(), |line, word| line.replace(word, &" ".repeat(word.len())));
    SENSITIVE_WORDS.iter().filter_map(|word| Some(line.find(word)? + word.len())).min()
}

/// Whether `value` only names the source of a secret: `= { env = "NAME" }`.
fn is_key_reference(value: &str) -> bool {
    let table = value.trim_matches([' ', '\t', '=', ',']);
    let table = table.strip_prefix('{').and_then(|table| table.strip_suffix('}')).unwrap_or_default();
    let key = table.split('=').next().unwrap_or_default().trim();
    table.matches('=').count() == 1 && HARMLESS_KEYS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_invalid_files() {
        for text in [
            "api_key = \"hunter22\"",
            "api_key = 'hunter22'",
            "api_key = hunter22",
            "api_key \"hunter22\"",
            "api_key = \"hunter22",
            "api_key = \"\"\"hunter22\"\"\"",
            "api_keys = \"hunter22\"",
            "api_keys = [\n  \"hunter22\",\n  \"hunter22\"\n]",
            "api_keys = [\n  { env = \"A\" },\n  \"hunter22\"]",
            "api_key = { enw = \"hunter22\" }",
            "headers = { \"X-Team\" = \"hunter22\" }",
            "[endpoints.m.headers]\nX-Team = \"hunter22\"",
            "headers = { A = { value = \"hunter22\" } }",
            "base_url = \"http://me:hunter22@host/v1\"",
            "proxy = \"http://me:hunter22@host\"",
            "model = \"sk-hunter22\"",
            "model = \"Bearer hunter22\"",
            "a.api_key = \"hunter22\"",
            "timeouts = { connect = \"10s\"\napi_key = \"hunter22\"",
            "panel = [\"fast\",\n[endpoints.m]\napi_key = \"hunter22\"",
            "api_key: hunter22",
            "api_key hunter22",
            "[endpoints.m] api_key = \"hunter22\"",
            "[models.a] headers = { X = \"hunter22\" }",
            "# api_key = \"hunter22\"",
            "base_url = \"http://h/v1?api=hunter22\"",
            "base_url = \"http://me:x@hunter22@host/v1\"",
            "base_url = \"me:hunter22@host/v1\"",
            "api_key = a,hunter22",
            "api_key = a#hunter22",
            "[endpoints.m.api_key]\nenw = \"hunter22\"",
            "api_key = { env = \"A\", x = \"hunter22\" }",
        ] {
            let (redacted, secrets) = redact(text);
            assert!(!redacted.contains("hunter22"), "{text} -> {redacted}");
            assert!(
                secrets.iter().any(|secret| secret.contains("hunter22")) && redacted.len() == text.len(),
                "{text} -> {secrets:?}"
            );
        }
    }

    #[test]
    fn other_text_is_unchanged() {
        for text in [
            "[models.fast]\nendpoint = \"openai\"\nmodel = \"gpt-4o-mini\" # words\ntimeouts = { first_token = \"30s\" }\nparams = { max_tokens = 5 }\n",
            "[endpoints.m.api_key]\nenv = \"OPENAI_API_KEY\"",
            "api_key = { env = \"OPENAI_API_KEY\" }\nbase_url = \"https://api.example.com/v1\"",
            "api_key = { command = [\"pass\", \"show\", \"openai\"] }",
            "[routes.chat]\nmodels = [\"fast\", { name = \"strong\", weight = 2 }]",
            "notes = \"你好\" \n'",
        ] {
            assert_eq!(redact(text).0, text);
        }
    }

    #[test]
    fn scan_of_a_large_file_is_linear() {
        for fragment in ["@", "sk-", "://", "[a]", "[", ":@", "key", "?"] {
            let text = fragment.repeat(1 << 18);
            assert_eq!(redact(&text).0.len(), text.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn length_and_line_count_are_unchanged(text in "([a-z你 =.,#\"'\\\\\\[\\]{}\r\n]|key|\"\"\"|://|@){0,60}") {
            let (redacted, secrets) = redact(&text);
            let size = |text: &str| (text.len(), text.matches('\n').count());
            proptest::prop_assert_eq!(size(&redacted), size(&text));
            proptest::prop_assert!(secrets.iter().all(|secret| text.contains(secret.as_str())));
        }
    }
}
