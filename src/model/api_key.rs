//! Secrets: the key itself and where it comes from. Types and redaction only.
//!
//! Owns the promise that a key cannot be printed by accident. Refuses I/O: reading a file or running a command is
//! `keys`' work.

use std::path::PathBuf;

use zeroize::Zeroizing;

/// An API key or another secret value. `Debug` and `Display` never show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Zeroizing<String>);

/// Values shorter than this (`none`, `ollama`) are placeholders, not secrets: masking them would mangle ordinary text.
const SHORTEST_SECRET: usize = 8;

impl ApiKey {
    /// Wraps a secret; surrounding white space, as files and commands leave it, is taken off.
    #[must_use]
    pub fn new(value: &str) -> Self {
        Self(Zeroizing::new(value.trim().to_owned()))
    }

    /// The secret itself, for the one place that puts it into a header.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What follows the scheme in a header's value (`Bearer …`, `Basic …`): services quote that alone.
    #[must_use]
    pub fn after_scheme(&self) -> Option<Self> {
        self.0.split_once(' ').map(|(_, rest)| Self::new(rest))
    }

    /// Whether it is long enough to be one; shorter values (`none`, `ollama`) are placeholders.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.0.len() >= SHORTEST_SECRET
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` with every occurrence of this secret replaced: for messages that quote a server or a command.
    #[must_use]
    pub fn masked_in(&self, text: &str) -> String {
        if !self.is_secret() {
            return text.to_owned();
        }
        let masked = text.replace(self.0.as_str(), "[redacted]");
        // A text that was shortened may end in the beginning of the secret.
        let Some(kept) = masked.strip_suffix('…') else { return masked };
        let begun = self
            .0
            .char_indices()
            .map(|(at, _)| &self.0[..at])
            .rev()
            .find(|begun| begun.len() >= 3 && kept.ends_with(begun));
        match begun {
            Some(begun) => format!("{}[redacted]…", &kept[..kept.len() - begun.len()]),
            None => masked,
        }
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file whose content is the secret; `~` is already resolved.
    File(PathBuf),
    /// A program with its arguments, run without a shell.
    Command(Vec<String>),
    /// A line for the platform's shell.
    Shell(String),
    /// The value itself, written into the config.
    Literal(ApiKey),
    /// An entry of the platform's keyring.
    Keyring(String),
}

impl std::fmt::Display for KeySource {
    /// Names the source without its secret, as messages and `config show` print it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            // Arguments may themselves be secret; the program's name is enough to find the entry.
            Self::Command(words) => write!(f, "command `{}`", words.first().map_or("", String::as_str)),
            Self::Shell(line) => write!(f, "command `{}`", line.split_whitespace().next().unwrap_or_default()),
            Self::Literal(_) => f.write_str("key in the config"),
            Self::Keyring(name) => write!(f, "keyring entry {name}"),
        }
    }
}

/// `url` with its userinfo and query masked, since both may carry a key.
#[must_use]
pub fn masked_url(url: &url::Url) -> String {
    let mut shown = url.clone();
    let had_user = !url.username().is_empty() || url.password().is_some();
    if had_user {
        // Cannot fail where there was a user before; if it did, showing nothing is the safe side.
        if shown.set_username("***").is_err() || shown.set_password(None).is_err() {
            return "[redacted url]".to_owned();
        }
    }
    if url.query().is_some() {
        shown.set_query(Some("***"));
    }
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_itself_nowhere() {
        let key = ApiKey::new(" sk-very-secret-key\n");
        assert_eq!(key.expose(), "sk-very-secret-key");
        let shown = format!("{key} {key:?} {:?}", KeySource::Literal(key.clone()));
        assert!(!shown.contains("secret-key"), "{shown}");
        assert_eq!(key.masked_in("refused: sk-very-secret-key"), "refused: [redacted]");
    }

    #[test]
    fn what_follows_a_scheme_is_a_secret_of_its_own() {
        let rest = ApiKey::new("Bearer sk-very-secret-key").after_scheme().expect("a scheme");
        assert_eq!(rest.masked_in("no: sk-very-secret-key"), "no: [redacted]");
        assert_eq!(ApiKey::new("sk-very-secret-key").after_scheme(), None);
    }

    #[test]
    fn a_key_cut_by_shortening_is_masked_too() {
        let key = ApiKey::new("sk-very-secret-key");
        assert_eq!(key.masked_in("refused: sk-very-sec…"), "refused: [redacted]…");
        assert_eq!(key.masked_in("refused…"), "refused…");
    }

    #[test]
    fn placeholders_are_not_hunted_for() {
        assert_eq!(ApiKey::new("ollama").masked_in("ollama is down"), "ollama is down");
    }

    #[test]
    fn urls_lose_user_and_query() {
        let url = url::Url::parse("https://me:pw@host/v1?key=abc").expect("a url");
        assert_eq!(masked_url(&url), "https://***@host/v1?***");
    }
}
