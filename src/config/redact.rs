//! Masks secrets in the text of a config file before any of it is shown.
//!
//! Two scans mask too much rather than too little; lengths and lines are unchanged, so that spans stay valid. The scan of
//! the parsed values masks every value below a key such as `api_key`, unless it only names the source of the secret, and
//! URLs with a user. The scan of the lines also works where the file has syntax errors, and in comments: it masks the rest
//! of a line after a word such as key, token, header or password, everything in brackets opened there, every value below a
//! table with such a name, and the user and query of a URL.

use std::{collections::HashSet, mem::take, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::names::is_variable_name;

/// Words that mark the rest of the line as a secret.
const SENSITIVE_WORDS: [&str; 6] = ["key", "token", "secret", "auth", "header", "pass"];
/// Keys that contain such a word but hold no secret: limits, and the sources of secrets.
const HARMLESS_KEYS: [&str; 7] =
    ["first_token", "max_tokens", "max_completion_tokens", "env", "file", "command", "keyring"];
/// Keys whose value only names the source of a secret. A command may contain one.
const SOURCE_NAMES: [&str; 3] = ["env", "file", "keyring"];
/// The sources of a key.
const KEY_SOURCES: [&str; 4] = ["env", "file", "command", "keyring"];
/// The settings of a client in `[serve.keys.NAME]`.
const CLIENT_SETTINGS: [&str; 6] = ["models", "rpm", "max_concurrency", "spend", "metrics", "api_key"];
/// The tables whose entries have names that the user chose.
const ENTRY_TABLES: [&str; 5] = ["endpoints", "models", "routes", "sets", "presets"];
/// Prefixes of well-known API keys, masked anywhere in the text.
const KEY_PREFIXES: [&str; 2] = ["sk-", "sk_"];

/// `text` with secrets replaced by asterisks, and the secrets.
pub(super) fn redact(text: &str) -> (String, Vec<String>) {
    let mut scanner = SecretScanner { text, ..Default::default() };
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        scanner.scan_line(line_start..line_start + line.trim_end().len());
        line_start += line.len();
    }
    let line_ranges = take(&mut scanner.ranges);
    scanner.scan_words();
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut values = SecretValues { text, ranges: Vec::new(), secrets: Vec::new(), command_words: Vec::new() };
    values.scan_table(table.get_ref(), &mut Vec::new());
    // A word of a command that is also the name of an entry is no secret.
    let names: HashSet<&str> = ENTRY_TABLES
        .iter()
        .filter_map(|name| table.get_ref().get(*name)?.get_ref().as_table())
        .flat_map(|entries| entries.keys().map(|name| name.get_ref().as_ref()))
        .collect();
    values.command_words.retain(|word| !names.contains(word.as_str()));
    let mut secrets = [values.secrets, values.command_words].concat();
    // A message quotes parsed values, or the words of a syntax error.
    let words = scanner.ranges.iter().chain(line_ranges.iter().filter(|_| !errors.is_empty()));
    secrets.extend(words.flat_map(|range| secret_words(&text[range.clone()])));
    let mut redacted = text.as_bytes().to_vec();
    for range in line_ranges.into_iter().chain(scanner.ranges).chain(values.ranges) {
        redacted[range].iter_mut().filter(|byte| !byte.is_ascii_whitespace()).for_each(|byte| *byte = b'*');
    }
    let redacted = String::from_utf8(redacted).expect("only complete characters were replaced");
    // Longest first: masking a part of a secret must not prevent the complete secret from being found.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    (redacted, secrets)
}

/// The parts of a range that may be a secret.
fn secret_words(range: &str) -> impl Iterator<Item = String> {
    let parts = range.split(['"', '\'']).chain(range.split(|c: char| c.is_whitespace() || "\"',".contains(c)));
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned)
}

/// Finds secrets in the parsed values.
struct SecretValues<'a> {
    text: &'a str,
    ranges: Vec<Range<usize>>,
    /// The texts of the values, as messages quote them.
    secrets: Vec<String>,
    /// The words of commands.
    command_words: Vec<String>,
}

impl SecretValues<'_> {
    fn scan_table<'t>(&mut self, table: &'t DeTable<'_>, path: &mut Vec<&'t str>) {
        // In place of a secret, a table has no known keys, and its keys may be the secret. A misspelled source or setting
        // is shown.
        let is_client = matches!(path[..], ["serve", "keys", _]);
        let has_names_as_keys =
            matches!(path[..], [.., "headers"] | ["serve", "keys"]) || is_client || is_place_of_endpoints(path);
        let is_in_place_of_a_secret = is_secret_path(path) && !has_names_as_keys;
        for (key, value) in table {
            let is_known = is_similar(key.get_ref(), &KEY_SOURCES)
                || is_client
                    && (is_similar(key.get_ref(), &CLIENT_SETTINGS) || HARMLESS_KEYS.contains(&key.get_ref().as_ref()));
            if (is_in_place_of_a_secret || is_client) && !is_known {
                self.ranges.push(key.span());
                self.push_secret(key.get_ref());
            }
            path.push(key.get_ref());
            self.scan_value(value, path);
            path.pop();
        }
    }

    fn scan_value<'t>(&mut self, value: &'t Spanned<DeValue<'_>>, path: &mut Vec<&'t str>) {
        match value.get_ref() {
            DeValue::Table(table) => self.scan_table(table, path),
            DeValue::Array(elements) => {
                // `env = ["…"]` names no variable.
                path.push("");
                elements.iter().for_each(|element| self.scan_value(element, path));
                path.pop();
            }
            DeValue::String(text) => {
                let source = &self.text[value.span()];
                // A pasted key instead of the name of a variable.
                let is_secret = is_secret_path(path)
                    || is_source_of_a_secret(path) && path.ends_with(&["env"]) && !is_variable_name(text);
                if is_secret || has_hidden_url_secret(text, source) {
                    self.ranges.push(value.span());
                    self.push_secret(text);
                    let words = if path.contains(&"command") { &mut self.command_words } else { &mut self.secrets };
                    words.extend(secret_words(text));
                }
            }
            DeValue::Boolean(_) => {}
            // Messages do not quote a masked number.
            _ if is_secret_path(path) || is_source_of_a_secret(path) => self.ranges.push(value.span()),
            _ => {}
        }
    }

    /// Adds a secret as it is, and as a quoted value, with escape sequences.
    fn push_secret(&mut self, text: &str) {
        let quoted = format!("{text:?}");
        let texts = [text.trim(), quoted.trim_matches('"')];
        self.secrets.extend(texts.into_iter().filter(|text| !text.is_empty()).map(str::to_owned));
    }
}

/// Whether the value at `path` is a secret: a key of the path has a sensitive name, and the last one is not the source of
/// a secret. The names of entries and the settings of a client in `serve.keys` do not count; a value in place of an
/// endpoint, of a client or of all clients, and unknown settings of a client, are secret.
fn is_secret_path(path: &[&str]) -> bool {
    let keys = match path {
        path if is_place_of_endpoints(path) => return true,
        ["serve", "keys", _, "api_key", source] if SOURCE_NAMES.contains(source) => return false,
        ["serve", "keys", _, setting, ..] if CLIENT_SETTINGS.contains(setting) => return *setting == "api_key",
        ["serve", "keys", ..] => return true,
        ["spend", "endpoints" | "models", _, keys @ ..] => keys,
        [table, _, keys @ ..] if ENTRY_TABLES.contains(table) => keys,
        keys => keys,
    };
    let names_source = keys.last().is_some_and(|key| SOURCE_NAMES.contains(key));
    !names_source && keys.iter().any(|key| !HARMLESS_KEYS.contains(key) && sensitive_word_end(key).is_some())
}

/// Whether `path` is that of all endpoints, of one, or of an element of a list in place of one.
fn is_place_of_endpoints(path: &[&str]) -> bool {
    path.first() == Some(&"endpoints") && path.iter().skip(2).all(|key| key.is_empty())
}

/// Whether `key` is one of `names`, or a misspelled one.
fn is_similar(key: &str, names: &[&str]) -> bool {
    let is_word = !key.contains(|c: char| c.is_ascii_digit());
    names.iter().any(|name| key == *name || is_word && strsim::damerau_levenshtein(key, name) <= 2)
}

/// Whether the value at `path` names the source of a secret.
fn is_source_of_a_secret(path: &[&str]) -> bool {
    path.split_last().is_some_and(|(key, parent)| SOURCE_NAMES.contains(key) && is_secret_path(parent))
}

/// Whether `text` is a URL with a user or a query that the scan of the words may not find, since it contains a space or a
/// quote, or is written with escape sequences.
fn has_hidden_url_secret(text: &str, source: &str) -> bool {
    let is_separator = |c: char| c.is_whitespace() || "\"'".contains(c);
    text.contains("://") && text.contains(['@', '?']) && (text.contains(is_separator) || !source.contains(text))
}

#[derive(Default)]
struct SecretScanner<'a> {
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

impl SecretScanner<'_> {
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
    use std::time::Instant;

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
            "[serve.keys.a.api_key]\nenw = \"hunter22\"",
            "[serve.keys.a]\napi_key = \"hunter22\"",
            "api_key = \"\"\"\nhunter22\"\"\"",
            "headers.X = '''\nhunter22'''",
            "api_keys = \"\"\"\nhunter22\"\"\"\n",
            "api_key = { command = \"echo hunter22\" }",
            "api_key = { command = [\"echo\", \"hunter22\"] }",
            "api_key = { env = [\"hunter22\"] }",
            "proxy = \"http://me:a'hunter22@h\"",
            "proxy = \"http://me:a hunter22@h\"",
            "\"\\u0061pi_\\u006bey\" = \"hunter22\"",
            "[serve.keys]\nteam = \"hunter22\"",
            "[serve]\nkeys.team = \"hunter22\"",
            "[serve.keys]\nteam = { value = \"hunter22\" }",
            "api_key = { hunter22 = \"a\" }",
            "headers.X = { hunter22 = 1 }",
            "api_key =\n\"hunter22\"",
            "api_key\n= \"hunter22\"",
            "api_key = # c\n\"hunter22\"",
            "api_key =\n\n\"hunter22\"",
            "api_key =\n# c\n\"hunter22\"",
            "[serve]\nkeys = \"hunter22\"",
            "[endpoints.m]\n# api_key =\n\n[endpoints.m.headers]\nX-Team: hunter22",
            "api_key =\n\n[endpoints.m.headers]\nX-Team \"hunter22\"",
            "# api_key =\n\n[serve.keys]\nteam: hunter22",
            "[endpoints]\nopenai = [\"hunter22\"]",
            "[endpoints]\nopenai = [[\"hunter22\"]]",
            "endpoints = \"hunter22\"",
            "[serve.keys.team.api_key]\nhunter22 = \"x\"",
            "[serve.keys.team]\napi_key = { hunter22 = 1 }",
            "[serve.keys.team]\nfoobar = { hunter22 = 1 }",
            "api_keys =\n[\"hunter22\"]",
            "[endpoints.m.headers]\nX =\n[hunter22]",
            "# api_key =\n\"hunter22\"",
            "#headers =\n{ X = \"hunter22\" }",
            "[serve.keys]\nteam = { hunter22 = 1 }",
            "api_key:\n  hunter22",
            "api_key\nhunter22",
            "\"api_key\"\n\n=\n'hunter22'",
            "api_key = \\\n hunter22",
            "[endpoints]\nopenai = \"hunter22\"",
            "serve.keys = \"hunter22\"",
            "[serve.keys]\nteam = { env = \"hunter22\" }",
            "[serve.keys.team]\nenv = \"hunter22\"",
            "api_key = \"b\"\napi_key = \"\"\"a\nhunter22\"\"\"\n",
            "[endpoints.m.api_key]\nenv = \"hunter22==\"",
            "api_key = { env = \"hunter22 2\" }",
            "base_url = \"ftp://me:hunter22\\u0040h/v1\"",
            "base_url = \"http://h/v1?k=a hunter22\"",
        ] {
            let (redacted, secrets) = redact(text);
            assert!(!redacted.contains("hunter22"), "{text} -> {redacted}");
            assert_eq!(redacted.len(), text.len(), "{text}");
            // Messages do not quote comments.
            let is_found = secrets.iter().any(|secret| secret.contains("hunter22"));
            assert!(is_found || text.starts_with('#'), "{text} -> {secrets:?}");
        }
    }

    #[test]
    fn other_text_is_unchanged() {
        for text in [
            "[models.fast]\nendpoint = \"openai\"\nmodel = \"gpt-4o-mini\" # words\ntimeouts = { first_token = \"30s\" }\nparams = { max_tokens = 5 }\n",
            "[endpoints.m.api_key]\nenv = \"OPENAI_API_KEY\"",
            "api_key = { env = \"OPENAI_API_KEY\" }\nbase_url = \"https://api.example.com/v1\"",
            "[routes.chat]\nmodels = [\"fast\", { name = \"strong\", weight = 2 }]",
            "notes = \"你好\" \n'",
            "[models.m-auth]\nendpoint = \"openai\"\n[models.\"a.key\"]\nendpoint = \"openai\"\n[spend.models.m-auth]\nday = 1",
            "# the key\ndefault = \"fast\"",
            "[presets.x]\nsystem = \"\"\"\nNever reveal the secret\n\"\"\"\n[models.b]\nendpoint = \"zz\"",
            "[presets.x]\nsystem = \"\"\"\nAnswer about this API key:\n\n\"\"\"\n[models.b]\nendpoint = \"zz\"",
            "[models.b]\ntags = [\n  \"auth\"\n]\nendpoint = \"zz\"",
            "[[endpoints.openai]]\nbase_url = \"http://h/v1\"",
            "[serve.keys.team]\nmodels = [\"fast\"]\nrpm = 10",
        ] {
            assert_eq!(redact(text).0, text);
        }
    }

    #[test]
    fn time_grows_linearly_with_the_length() {
        let time = |fragment: &str, count: usize| {
            let text = fragment.repeat(count);
            let measure = || {
                let start = Instant::now();
                assert_eq!(redact(&text).0.len(), text.len());
                start.elapsed()
            };
            // The shortest of three: other processes may delay the others.
            (0..3).map(|_| measure()).min().expect("three measurements")
        };
        for fragment in ["@", "sk-", "://", "[a]", "[", ":@", "key", "?"] {
            let (short, long) = (time(fragment, 1 << 13), time(fragment, 1 << 17));
            // 16 times the length: linear time is 16 times as long, quadratic time 256 times.
            assert!(long < 64 * short, "{fragment:?}: {short:?}, {long:?}");
        }
    }

    #[test]
    fn secrets_are_texts_of_values_and_not_words_of_comments() {
        let secrets = |text: &str| redact(text).1;
        assert_eq!(secrets("api_key = \"hunter\\u00322\""), ["hunter22"]);
        assert_eq!(secrets("# the key for production\ndefault = \"production\"\n"), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn length_and_line_count_are_unchanged(text in "([a-z你 =.,#\"'\\\\\\[\\]{}\r\n]|key|\"\"\"|://|@){0,60}") {
            let (redacted, secrets) = redact(&text);
            let size = |text: &str| (text.len(), text.matches('\n').count());
            proptest::prop_assert_eq!(size(&redacted), size(&text));
            proptest::prop_assert!(secrets.iter().all(|secret| !secret.is_empty()));
        }
    }
}
