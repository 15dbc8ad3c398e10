//! API keys that cannot be printed by accident, and the sources they come from.
//!
//! Does no I/O: `transport::keys` reads files and runs commands.

use std::{borrow::Cow, path::PathBuf};

use zeroize::Zeroizing;

use super::key_mask::{REDACTED, looks_like_key, mask_key, mask_key_shapes};

/// An API key or another secret value. `Debug` and `Display` never show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Zeroizing<String>);

/// Shorter values (`none`, `ollama`) are placeholders, not secrets: redacting them would garble ordinary text.
const MIN_SECRET_LEN: usize = 8;

impl ApiKey {
    /// Wraps a secret without surrounding whitespace, because files and command output end with a line break, and without
    /// the byte order mark with which some editors and shells start a text.
    #[must_use]
    pub fn new(value: &str) -> Self {
        Self(Zeroizing::new(value.trim_start_matches('\u{feff}').trim().to_owned()))
    }

    /// The secret itself. Must not be printed or logged.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part after the scheme of a header value (`Bearer …`, `Basic …`), because services may quote only that part.
    #[must_use]
    pub fn without_scheme(&self) -> Option<Self> {
        self.0.split_once(' ').map(|(_, credentials)| Self::new(credentials))
    }

    /// Whether it is long enough to be a secret rather than a placeholder.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.0.len() >= MIN_SECRET_LEN
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` with every occurrence of this secret replaced, also of one in another case or encoding, for messages that
    /// quote a server or a command.
    #[must_use]
    pub fn redact_in(&self, text: &str) -> String {
        if !self.is_secret() {
            return text.to_owned();
        }
        // A text that is not truncated cannot contain a longer key, in any encoding.
        if text.len() < self.0.len() && !text.ends_with('…') {
            return text.to_owned();
        }
        mask_key(text, &self.0)
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Source of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file that contains the secret; `~` is already expanded.
    File(PathBuf),
    /// A program and its arguments, run without a shell.
    Command(Vec<String>),
    /// A command line for the platform's shell.
    Shell(String),
    /// A literal value in the config.
    Literal(ApiKey),
    /// An entry in the platform's keyring.
    Keyring(String),
}

impl KeySource {
    /// The program of a command, if it can be shown: arguments and assignments may contain secrets.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        let program = match self {
            Self::Command(argv) => argv.first().map(String::as_str),
            Self::Shell(line) => {
                line.split_whitespace().next().filter(|word| !word.contains(['=', '$', '`', '\'', '"']))
            }
            Self::Env(_) | Self::File(_) | Self::Literal(_) | Self::Keyring(_) => None,
        };
        program.filter(|program| matches!(mask_key_shapes(program), Cow::Borrowed(_)))
    }

    /// The name of the variable, file or keyring entry, if it seems to be a key that was pasted there.
    #[must_use]
    pub fn pasted_key(&self) -> Option<&str> {
        let name = match self {
            Self::Env(name) | Self::Keyring(name) => name.as_str(),
            Self::File(path) => path.file_name()?.to_str()?,
            Self::Command(_) | Self::Shell(_) | Self::Literal(_) => return None,
        };
        Some(name).filter(|name| looks_like_key(name))
    }
}

impl std::fmt::Display for KeySource {
    /// The source without its secret, as messages and `config show` print it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {}", mask_key_shapes(name)),
            Self::File(path) => write!(f, "file {}", mask_key_shapes(&path.display().to_string())),
            Self::Command(_) | Self::Shell(_) => write!(f, "command \"{}\"", self.program().unwrap_or("…")),
            Self::Literal(_) => f.write_str("key in the config"),
            Self::Keyring(name) => write!(f, "keyring entry \"{}\"", mask_key_shapes(name)),
        }
    }
}

/// `url` with its userinfo, query and fragment redacted, because each may contain a key, and what looks like a key in its
/// path.
#[must_use]
pub fn redact_url(url: &url::Url) -> String {
    let mut redacted = url.clone();
    let has_userinfo = !url.username().is_empty() || url.password().is_some();
    if has_userinfo {
        // Cannot fail for a URL with userinfo; if it does, nothing of the URL is shown.
        if redacted.set_username("***").is_err() || redacted.set_password(None).is_err() {
            return "[redacted URL]".to_owned();
        }
    }
    let path = mask_key_shapes(url.path());
    if path != url.path() {
        redacted.set_path(&path);
    }
    if url.query().is_some() {
        redacted.set_query(Some("***"));
    }
    if url.fragment().is_some() {
        redacted.set_fragment(Some("***"));
    }
    redacted.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_never_printed() {
        let key = ApiKey::new(" sk-very-secret-key\n");
        assert_eq!(key.expose(), "sk-very-secret-key");
        let printed = format!("{key} {key:?} {:?}", KeySource::Literal(key.clone()));
        assert!(!printed.contains("secret-key"), "{printed}");
        assert_eq!(key.redact_in("refused: sk-very-secret-key"), "refused: [redacted]");
    }

    #[test]
    fn part_after_the_scheme_is_redacted_too() {
        let credentials = ApiKey::new("Bearer sk-very-secret-key").without_scheme().expect("value has a scheme");
        assert_eq!(credentials.redact_in("no: sk-very-secret-key"), "no: [redacted]");
        assert_eq!(ApiKey::new("sk-very-secret-key").without_scheme(), None);
    }

    #[test]
    fn prefix_of_a_key_at_the_end_of_a_truncated_text_is_redacted() {
        let key = ApiKey::new("sk-very-secret-key");
        assert_eq!(key.redact_in("refused: sk-very-sec…"), "refused: [redacted]…");
        assert_eq!(key.redact_in("refused…"), "refused…");
    }

    #[test]
    fn placeholders_are_not_redacted() {
        assert_eq!(ApiKey::new("ollama").redact_in("ollama is down"), "ollama is down");
    }

    #[test]
    fn url_user_and_query_are_redacted() {
        let url = url::Url::parse("https://me:pw@host/v1?key=abc").expect("valid URL");
        assert_eq!(redact_url(&url), "https://***@host/v1?***");
        let url = "https://host/sk-proj-abcdefghijkl0123456789/v1".parse().expect("valid URL");
        assert_eq!(redact_url(&url), "https://host/[redacted]/v1", "a key that was pasted into the path");
    }
}
