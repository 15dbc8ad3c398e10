//! Secrets out of a configuration's text before any of it is shown.
//!
//! Owns the guess at what is a secret in a file that may be broken anywhere, so it reads lines, not TOML: whatever
//! follows a word like key, token, header or password on its line is one, unless it only says where the secret is; so
//! is what stands in brackets opened there, below a table named so, and in some places of an address. Hides too much
//! rather than too little, comments included. Lengths and lines stay, so that places in the text stay where they are.

use std::ops::Range;

/// Words that make what follows them a secret.
const SENSITIVE: [&str; 6] = ["key", "token", "secret", "auth", "header", "pass"];
/// Keys that only sound so: limits, and the places where a secret is.
const HARMLESS: [&str; 7] = ["first_token", "max_tokens", "max_completion_tokens", "env", "file", "command", "keyring"];
/// What well-known secrets begin with, wherever they stand.
const PREFIXES: [&str; 2] = ["sk-", "sk_"];

/// `text` with stars in the place of secrets, and the secrets.
pub(super) fn redacted(text: &str) -> (String, Vec<String>) {
    let mut scan = Scan { text, table: false, open: 0, found: Vec::new() };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        scan.line(at..at + line.trim_end().len());
        at += line.len();
    }
    scan.everywhere();
    let (mut shown, mut secrets) = (text.as_bytes().to_vec(), Vec::new());
    for range in scan.found {
        let secret = &text[range.clone()];
        let parts = secret.split(['"', '\'']).chain(secret.split(|c: char| c.is_whitespace() || "\"',".contains(c)));
        secrets.extend(parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
        shown[range].iter_mut().filter(|byte| !byte.is_ascii_whitespace()).for_each(|byte| *byte = b'*');
    }
    let shown = String::from_utf8(shown).expect("only whole characters were hidden");
    // The longest first: a part of a secret must not keep the whole from being found.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    (shown, secrets)
}

struct Scan<'a> {
    text: &'a str,
    /// The lines stand below a table whose name is sensitive.
    table: bool,
    /// Brackets that were opened after a sensitive word and are not closed yet.
    open: usize,
    found: Vec<Range<usize>>,
}

impl Scan<'_> {
    fn line(&mut self, range: Range<usize>) {
        let line = &self.text[range.clone()];
        let body = line.trim_start_matches([' ', '\t', '#']);
        let at = range.end - body.len();
        if let Some(header) = header(body).filter(|_| self.open == 0 || !body[1..].starts_with(['"', '\'', '{', '['])) {
            self.open = 0;
            // What clients may do is no secret; their keys are named so.
            self.table = !body.starts_with("[serve.keys.") && sensitive_end(&body[..header]).is_some();
            if header < body.len() {
                self.key_and_value(at + header..range.end);
            }
        } else {
            self.key_and_value(at..range.end);
        }
    }

    /// A line, or what follows a table's name on its line.
    fn key_and_value(&mut self, range: Range<usize>) {
        let (body, at) = (&self.text[range.clone()], range.start);
        if self.open > 0 {
            self.value(at..range.end);
        } else if body.split_once('=').is_some_and(|(key, _)| HARMLESS.contains(&key.trim())) {
            // It says where the secret is, or is none.
        } else if let Some(end) = sensitive_end(body) {
            // To the end of the key that the word is in.
            let rest = &body[end..];
            let key = rest.find(|c: char| !(c.is_alphanumeric() || "_-.\"'".contains(c))).unwrap_or(0);
            self.value(at + end + key..range.end);
        } else if self.table {
            let key = body.find(['=', ':', ' ', '\t']).unwrap_or(0);
            self.value(at + key..range.end);
        }
    }

    /// What follows a sensitive word on its line.
    fn value(&mut self, range: Range<usize>) {
        let value = &self.text[range.clone()];
        let (opened, closed) = (value.matches(['[', '{']).count(), value.matches([']', '}']).count());
        self.open = (self.open + opened).saturating_sub(closed);
        if !is_place(value) {
            let from = value.find(|c: char| !c.is_whitespace() && !"=:".contains(c)).unwrap_or(value.len());
            self.found.push(range.start + from..range.end);
        }
    }

    /// What is a secret in any word: the user and the query of an address, and what looks like a key.
    fn everywhere(&mut self) {
        let (mut at, mut bearer) = (0, false);
        for piece in self.text.split_inclusive(|c: char| c.is_whitespace() || "\"'".contains(c)) {
            let word = piece.trim_end_matches(|c: char| c.is_whitespace() || "\"'".contains(c));
            let end = at + word.len();
            // An address whose scheme was forgotten has a user, too.
            if let Some(user) = word.rfind('@').filter(|&user| word[..user].contains(':')) {
                self.found.push(at + word.find("://").map_or(0, |scheme| scheme + 3).min(user)..at + user);
            }
            if let Some(query) = word.find('?').filter(|&query| word[..query].contains("://")) {
                self.found.push(at + query + 1..end);
            }
            if bearer
                || PREFIXES
                    .iter()
                    .any(|prefix| word.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with(prefix))
            {
                self.found.push(at..end);
            }
            bearer = word == "Bearer";
            at += piece.len();
        }
    }
}

/// The length of the table's name that `line` begins with, brackets included.
fn header(line: &str) -> Option<usize> {
    let end = line.strip_prefix('[')?.find(']')? + 2;
    Some(end + usize::from(line[end..].starts_with(']')))
}

/// Where the first sensitive word of `line` ends.
fn sensitive_end(line: &str) -> Option<usize> {
    let line =
        HARMLESS.iter().fold(line.to_ascii_lowercase(), |line, word| line.replace(word, &" ".repeat(word.len())));
    SENSITIVE.iter().filter_map(|word| Some(line.find(word)? + word.len())).min()
}

/// Whether `value` is nothing but the place of a secret: `= { env = "NAME" }`.
fn is_place(value: &str) -> bool {
    let inside = value.trim_matches([' ', '\t', '=', ',']);
    let inside = inside.strip_prefix('{').and_then(|inside| inside.strip_suffix('}')).unwrap_or_default();
    let key = inside.split('=').next().unwrap_or_default().trim();
    inside.matches('=').count() == 1 && HARMLESS.contains(&key)
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
            let (shown, secrets) = redacted(text);
            assert!(!shown.contains("hunter22"), "{text} -> {shown}");
            assert!(
                secrets.iter().any(|secret| secret.contains("hunter22")) && shown.len() == text.len(),
                "{text} -> {secrets:?}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "[models.fast]\nendpoint = \"openai\"\nmodel = \"gpt-4o-mini\" # words\ntimeouts = { first_token = \"30s\" }\nparams = { max_tokens = 5 }\n",
            "[endpoints.m.api_key]\nenv = \"OPENAI_API_KEY\"",
            "api_key = { env = \"OPENAI_API_KEY\" }\nbase_url = \"https://api.example.com/v1\"",
            "api_key = { command = [\"pass\", \"show\", \"openai\"] }",
            "[routes.chat]\nmodels = [\"fast\", { name = \"strong\", weight = 2 }]",
            "notes = \"你好\" \n'",
        ] {
            assert_eq!(redacted(text).0, text);
        }
    }

    #[test]
    fn a_large_file_of_odd_text_takes_no_more_than_its_length() {
        for odd in ["@", "sk-", "://", "[a]", "[", ":@", "key", "?"] {
            let text = odd.repeat(1 << 18);
            assert_eq!(redacted(&text).0.len(), text.len());
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
