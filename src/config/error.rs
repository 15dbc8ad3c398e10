//! What is wrong with a configuration, and where.
//!
//! Owns [`Problem`]: a message, the place in the file, and what to do. All problems of a file are told at once. Secrets
//! of the file are in none of them.

use std::{ops::Range, path::PathBuf, sync::Arc};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::redact::redacted;
use crate::model::api_key::ApiKey;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes, and what to say there.
    pub labels: Vec<(Range<usize>, String)>,
    /// What to do.
    pub help: Option<String>,
    text: Arc<NamedSource<String>>,
}

impl Problem {
    /// A problem at one place.
    pub(super) fn new(file: &SourceFile, message: impl Into<String>, at: Range<usize>) -> Self {
        let message = file.secrets.iter().fold(message.into(), |message, secret| secret.masked_in(&message));
        Self { message, labels: vec![(at, "here".into())], help: None, text: Arc::clone(&file.shown) }
    }

    /// With words at the place.
    pub(super) fn label(mut self, text: impl Into<String>) -> Self {
        self.labels[0].1 = text.into();
        self
    }

    /// With a second place.
    pub(super) fn also(mut self, at: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push((at, text.into()));
        self
    }

    /// With what to do.
    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Its line and column, from 1.
    #[must_use]
    pub fn place(&self) -> (usize, usize) {
        let text = self.text.inner();
        let at = self.labels.first().map_or(0, |(at, _)| at.start).min(text.len());
        let before = &text.as_bytes()[..at];
        let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        (memchr::memchr_iter(b'\n', before).count() + 1, column)
    }

    /// The nearest valid name, if one is near.
    pub(super) fn nearest<'n>(self, wrong: &str, valid: impl Iterator<Item = &'n str>) -> Self {
        match nearest(wrong, valid) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.text)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().map(|(at, text)| LabeledSpan::new_with_span(Some(text.clone()), at.clone()))))
    }
}

/// A file's text with its name, as its problems may show it.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    shown: Arc<NamedSource<String>>,
    secrets: Vec<ApiKey>,
}

impl SourceFile {
    pub(super) fn text(&self) -> &str {
        self.shown.inner()
    }

    pub(super) fn new(name: &str, text: &str) -> Self {
        let (shown, secrets) = redacted(text);
        Self {
            shown: Arc::new(NamedSource::new(name, shown).with_language("TOML")),
            secrets: secrets.iter().map(|secret| ApiKey::new(secret)).collect(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file that was named is not there, or cannot be read.
    #[error("the config {path} cannot be read: {reason}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Things in it are wrong.
    #[error("the config {path} has {} problem(s)", problems.len())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// All of them.
        problems: Vec<Problem>,
    },
    /// A variable of the environment holds what it cannot.
    #[error("{name}={value}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

/// The name among `valid` that `wrong` was most likely meant to be.
pub fn nearest<'n>(wrong: &str, valid: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LIKELY: f64 = 0.75;
    valid
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(likeness, _)| *likeness >= LIKELY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
