//! Errors of the configuration, with the position in the file and a suggestion.
//!
//! All problems of a file are reported at once. Secrets in the file are masked in every message and excerpt.

use std::{ops::Range, path::PathBuf, sync::Arc};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::redact::redact;
use crate::model::api_key::ApiKey;

/// One problem in a config file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Byte ranges in the file, with the text of each label.
    pub labels: Vec<(Range<usize>, String)>,
    /// How to fix it.
    pub help: Option<String>,
    text: Arc<NamedSource<String>>,
}

impl Problem {
    /// A problem at one position.
    pub(super) fn new(file: &SourceFile, message: impl Into<String>, span: Range<usize>) -> Self {
        let message = file.secrets.iter().fold(message.into(), |message, secret| secret.redact_in(&message));
        Self { message, labels: vec![(span, "here".into())], help: None, text: Arc::clone(&file.redacted) }
    }

    /// Sets the text of the first label.
    pub(super) fn with_primary_label(mut self, text: impl Into<String>) -> Self {
        self.labels[0].1 = text.into();
        self
    }

    /// Adds a second label.
    pub(super) fn with_secondary_label(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }

    /// Sets the help text.
    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// The line and column, counted from 1.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let text = self.text.inner();
        let offset = self.labels.first().map_or(0, |(span, _)| span.start).min(text.len());
        let before = &text.as_bytes()[..offset];
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        (memchr::memchr_iter(b'\n', before).count() + 1, column)
    }

    /// Suggests the most similar valid name, if there is one.
    pub(super) fn with_suggestion<'n>(self, wrong: &str, valid: impl Iterator<Item = &'n str>) -> Self {
        match closest_name(wrong, valid) {
            Some(name) => self.help(format!("did you mean \"{name}\"?")),
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
        Some(Box::new(
            self.labels.iter().map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), span.clone())),
        ))
    }
}

/// The redacted text of a file, with its name, for excerpts in problems.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    redacted: Arc<NamedSource<String>>,
    secrets: Vec<ApiKey>,
}

impl SourceFile {
    pub(super) fn text(&self) -> &str {
        self.redacted.inner()
    }

    pub(super) fn new(name: &str, text: &str) -> Self {
        let (redacted, secrets) = redact(text);
        Self {
            redacted: Arc::new(NamedSource::new(name, redacted).with_language("TOML")),
            secrets: secrets.iter().map(|secret| ApiKey::new(secret)).collect(),
        }
    }
}

/// A configuration that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The file has problems.
    #[error("invalid configuration in {path}: {} problem(s)", problems.len())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All problems.
        problems: Vec<Problem>,
    },
    /// An environment variable has an invalid value.
    #[error("{name}={value}: {reason}")]
    InvalidVariable {
        /// The name of the variable.
        name: String,
        /// The value of the variable.
        value: String,
        /// The reason.
        reason: String,
    },
}

/// The name among `valid` that is most similar to `wrong`, if any is similar enough.
pub fn closest_name<'n>(wrong: &str, valid: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const MIN_SIMILARITY: f64 = 0.75;
    valid
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
