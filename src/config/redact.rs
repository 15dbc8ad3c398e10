//! Secrets out of a configuration's text before any of it is shown.
//!
//! Owns the guess at what is a secret in a file that may be broken anywhere, so it reads no TOML: a value whose keys
//! speak of keys, tokens, headers or passwords is one, unless the innermost only says where the secret is. Hides too
//! much rather than too little. Lengths stay, so that places in the text stay where they are.

/// Words in a key that make its value a secret.
const SENSITIVE: [&str; 6] = ["key", "token", "secret", "auth", "header", "pass"];
/// Keys whose values are places or numbers, not secrets.
const HARMLESS: [&str; 7] = ["env", "file", "command", "keyring", "first_token", "max_tokens", "max_completion_tokens"];
/// What well-known secrets begin with, wherever they stand.
const PREFIXES: [&str; 3] = ["sk-", "sk_", "Bearer "];

/// `text` with stars in the place of secrets, and the secrets.
pub(super) fn redacted(text: &str) -> (String, Vec<String>) {
    let mut scan = Scan { text, at: 0, table: false, key: String::new(), open: Vec::new(), found: Vec::new() };
    while scan.at < text.len() {
        scan.step();
    }
    let (mut shown, mut secrets) = (text.to_owned(), Vec::new());
    for (from, to) in scan.found {
        let stars: String = text[from..to].bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' }).collect();
        shown.replace_range(from..to, &stars);
        secrets.push(text[from..to].to_owned());
    }
    (shown, secrets)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// The table's name is sensitive.
    table: bool,
    /// What stands before the value on this level.
    key: String,
    /// Whether each open bracket's key, or one around it, is sensitive; and that key.
    open: Vec<(bool, String)>,
    found: Vec<(usize, usize)>,
}

impl Scan<'_> {
    fn step(&mut self) {
        let rest = &self.text[self.at..];
        let c = rest.chars().next().unwrap_or('\n');
        match c {
            '#' => self.at += rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => self.string(c),
            '[' if self.open.is_empty() && self.key.trim().is_empty() => {
                let line = rest.lines().next().unwrap_or_default();
                self.table = is_sensitive(line);
                self.at += line.len().max(1);
            }
            '[' | '{' => {
                let sensitive = self.is_sensitive();
                self.open.push((sensitive, std::mem::take(&mut self.key)));
                self.at += 1;
            }
            ']' | '}' => {
                self.key = self.open.pop().map(|(_, key)| key).unwrap_or_default();
                self.at += 1;
            }
            ',' => {
                self.key.clear();
                self.at += 1;
            }
            '\n' => {
                if self.open.is_empty() {
                    self.key.clear();
                }
                self.at += 1;
            }
            _ if self.key.contains('=') && !c.is_whitespace() && c != '=' => self.bare(),
            _ => {
                self.key.push(c);
                self.at += c.len_utf8();
            }
        }
    }

    /// A quoted text: a key when `=` or `.` follows, else a value.
    fn string(&mut self, quote: char) {
        let rest = &self.text[self.at..];
        let triple = quote.to_string().repeat(3);
        let mark = if rest.starts_with(&triple) { triple.as_str() } else { &triple[..1] };
        let inside = &rest[mark.len()..];
        let end = end_of_string(inside, mark);
        let (from, to) = (self.at + mark.len(), self.at + mark.len() + end);
        self.at = (to + mark.len()).min(self.text.len());
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
        let after = self.text[self.at..].trim_start_matches([' ', '\t']);
        if !self.key.contains('=') && after.starts_with(['=', '.']) {
            self.key.push_str(&self.text[from..to]);
        } else {
            self.value(from, to);
        }
    }

    /// A value whose quotes were forgotten, a number or a word.
    fn bare(&mut self) {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| c.is_whitespace() || ",]}#".contains(c)).unwrap_or(rest.len()).max(1);
        let (from, to) = (self.at, self.at + end);
        self.at = to;
        self.value(from, to);
    }

    fn value(&mut self, from: usize, to: usize) {
        let text = &self.text[from..to];
        if self.is_sensitive() || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            self.found.push((from, to));
        } else if let Some((scheme, address)) = text.split_once("://")
            && let Some((userinfo, _)) = address.split_once('@')
        {
            let from = from + scheme.len() + 3;
            self.found.push((from, from + userinfo.len()));
        }
    }

    fn is_sensitive(&self) -> bool {
        let innermost = match self.key.trim_matches([' ', '\t', '=']) {
            "" => self.open.last().map_or("", |(_, key)| key.trim_matches([' ', '\t', '='])),
            key => key,
        };
        let around = self.table || self.open.last().is_some_and(|(sensitive, _)| *sensitive);
        !HARMLESS.contains(&innermost) && (around || is_sensitive(innermost))
    }
}

fn is_sensitive(key: &str) -> bool {
    let key = key.to_lowercase();
    SENSITIVE.iter().any(|word| key.contains(word))
}

/// Where a quoted text ends: at its mark, or with its line when that was forgotten.
fn end_of_string(inside: &str, mark: &str) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && mark.starts_with('"') {
            escaped = true;
        } else if inside[at..].starts_with(mark) || (c == '\n' && mark.len() == 1) {
            return at;
        }
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_the_file_is_broken() {
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
            "a.api_key = \"hunter22\"",
        ] {
            let (shown, secrets) = redacted(text);
            assert!(!shown.contains("hunter22"), "{text} -> {shown}");
            assert!(secrets[0].contains("hunter22") && shown.len() == text.len(), "{text} -> {secrets:?}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "[models.fast]\nendpoint = \"openai\"\nmodel = \"gpt-4o-mini\" # a \"key\" word\n",
            "api_key = { env = \"OPENAI_API_KEY\" }\nbase_url = \"https://api.example.com/v1\"",
            "api_key = { command = [\"pass\", \"show\", \"openai\"] }",
            "[routes.chat]\nmodels = [\"fast\", { name = \"strong\", weight = 2 }]",
            "notes = \"你好\" \n'",
        ] {
            assert_eq!(redacted(text).0, text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_keeps_its_length_and_its_lines(text in "([a-z你 =.,#\"'\\\\\\[\\]{}\r\n]|key|\"\"\"|://|@){0,60}") {
            let (shown, secrets) = redacted(&text);
            let size = |text: &str| (text.len(), text.matches('\n').count());
            proptest::prop_assert_eq!(size(&shown), size(&text));
            proptest::prop_assert!(secrets.iter().all(|secret| text.contains(secret.as_str())));
        }
    }
}
