//! The texts of config files, and the excerpts of them in problems, without secrets.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use miette::NamedSource;

use super::redact::redact;
use crate::model::{api_key::ApiKey, sanitize::is_unsafe};

/// The text of a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    /// The path of the file.
    pub path: PathBuf,
    /// The text.
    pub text: String,
}

/// A file, for excerpts in problems.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    text: String,
    /// The position of its first byte in the [`SourceMap`].
    start: usize,
    /// The text without secrets, and the secrets; computed for the first problem.
    redacted: OnceLock<(NamedSource<String>, Vec<ApiKey>)>,
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may contain secrets.
        f.debug_struct("SourceFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A character as messages quote it.
fn shown(c: char) -> String {
    if is_unsafe(c) && c != '\r' { "?".repeat(c.len_utf8()) } else { c.into() }
}

impl SourceFile {
    pub(super) fn local_span(&self, span: Range<usize>) -> Range<usize> {
        span.start.saturating_sub(self.start)..span.end.saturating_sub(self.start)
    }

    /// The text without secrets, and the secrets in it.
    pub(super) fn redacted(&self) -> &(NamedSource<String>, Vec<ApiKey>) {
        self.redacted.get_or_init(|| {
            let (redacted, secrets) = redact(&self.text);
            // A message quotes lines. The length stays, so that positions in the file are right.
            let redacted: String = redacted.chars().map(shown).collect();
            let redacted = NamedSource::new(self.path.display().to_string(), redacted).with_language("TOML");
            (redacted, secrets.iter().map(|secret| ApiKey::new(secret)).collect())
        })
    }
}

/// The files of a configuration, one after the other, so that one offset denotes a file and a position in it.
#[derive(Clone, Debug)]
pub(super) struct SourceMap(Vec<Arc<SourceFile>>);

impl SourceMap {
    /// The map of `files`, the first one at offset 0.
    pub(super) fn new(files: &[ConfigText]) -> Self {
        let mut start = 0;
        let files = files.iter().map(|ConfigText { path, text }| {
            let file = SourceFile { path: path.clone(), text: text.clone(), start, redacted: OnceLock::new() };
            start += text.len() + 1;
            Arc::new(file)
        });
        Self(files.collect())
    }

    /// The text of the file at `offset`, without secrets, and the position of its first byte.
    pub(super) fn text_at(&self, offset: usize) -> (&str, usize) {
        let file = self.file_at(offset);
        (file.redacted().0.inner(), file.start)
    }

    /// Whether a part of the text at `span` is masked.
    pub(super) fn is_masked(&self, span: &Range<usize>) -> bool {
        let file = self.file_at(span.start);
        let span = file.local_span(span.clone());
        file.text.get(span.clone()) != file.redacted().0.inner().get(span)
    }

    /// The path of the file at `offset`.
    pub(super) fn path_at(&self, offset: usize) -> &Path {
        &self.file_at(offset).path
    }

    pub(super) fn file_at(&self, offset: usize) -> &Arc<SourceFile> {
        self.0.iter().rev().find(|file| file.start <= offset).expect("the first file is at offset 0")
    }
}
