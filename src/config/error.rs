//! Errors of the configuration, with the position in the file and a suggestion.
//!
//! All problems of a file are reported at once. Secrets in the file are masked in every message and excerpt.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use miette::{Diagnostic, LabeledSpan, SourceCode};

use super::{
    parse::MAX_ERRORS,
    source::{SourceFile, SourceMap},
};
use crate::model::plural;

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
    file: Arc<SourceFile>,
}

impl Problem {
    /// A problem at one position.
    pub(super) fn new(source: &SourceMap, message: impl Into<String>, span: Range<usize>) -> Self {
        let file = Arc::clone(source.file_at(span.start));
        let message = file.redacted().1.iter().fold(message.into(), |message, secret| secret.redact_in(&message));
        let labels = vec![(file.local_span(span), "here".into())];
        Self { message, labels, help: None, file }
    }

    /// Sets the text of the first label.
    pub(super) fn with_primary_label(mut self, text: impl Into<String>) -> Self {
        self.labels[0].1 = text.into();
        self
    }

    /// Adds a second label, at a position in the same file.
    pub(super) fn with_secondary_label(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push((self.file.local_span(span), text.into()));
        self
    }

    /// Sets the help text.
    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The line and column, counted from 1.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let text = self.file.redacted().0.inner();
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
        Some(&self.file.redacted().0)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(
            self.labels.iter().map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), span.clone())),
        ))
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
    #[error("invalid configuration in {}: {}", paths_of(problems), count_of(problems))]
    Invalid {
        /// The file of the first problem.
        path: PathBuf,
        /// All problems.
        problems: Vec<Problem>,
    },
    /// An environment variable has an invalid value.
    #[error("invalid {name} \"{value}\": {reason}")]
    InvalidVariable {
        /// The name of the variable.
        name: String,
        /// The value of the variable.
        value: String,
        /// The reason.
        reason: String,
    },
}

/// The number of `problems`; at the limit, there may be more.
fn count_of(problems: &[Problem]) -> String {
    let more = if problems.len() == MAX_ERRORS { ", and maybe more" } else { "" };
    format!("{}{more}", plural(problems.len(), "problem"))
}

/// The paths of the files with `problems`.
fn paths_of(problems: &[Problem]) -> String {
    let mut paths: Vec<String> = problems.iter().map(|problem| problem.path().display().to_string()).collect();
    paths.dedup();
    paths.join(" and ")
}

impl ConfigError {
    /// The error of a config with `problems`, of which there is at least one. Its path is that of the first.
    pub(super) fn invalid(problems: Vec<Problem>) -> Self {
        let path = problems.first().map(|problem| problem.path().to_owned()).unwrap_or_default();
        Self::Invalid { path, problems }
    }
}

/// The name among `valid` that is most similar to `wrong`, if any is similar enough.
pub(crate) fn closest_name<'n>(wrong: &str, valid: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const MIN_SIMILARITY: f64 = 0.75;
    valid
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
