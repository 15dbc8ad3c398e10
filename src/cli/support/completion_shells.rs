//! The shells that mmchat completes for. bash and PowerShell insert a candidate as it is, so that a model ID such as
//! `$(command)` would run: their candidates are quoted. zsh, fish and elvish quote candidates themselves.

use std::{ffi::OsString, io, path::Path};

use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};

/// All supported shells.
pub(crate) const SHELLS: Shells<'static> = Shells(&[
    &Quoting { shell: &Bash, separator_variable: Some("_CLAP_IFS"), quote: quote_for_bash },
    &Elvish,
    &Fish,
    &Quoting { shell: &Powershell, separator_variable: None, quote: quote_for_powershell },
    &Zsh,
]);

/// A shell whose candidates are quoted.
struct Quoting {
    shell: &'static dyn EnvCompleter,
    /// The variable with the text between two candidates; line feeds if there is none.
    separator_variable: Option<&'static str>,
    quote: fn(&str) -> String,
}

impl EnvCompleter for Quoting {
    fn name(&self) -> &'static str {
        self.shell.name()
    }

    fn is(&self, name: &str) -> bool {
        self.shell.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        binary: &str,
        completer: &str,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        self.shell.write_registration(variable, name, binary, completer, out)
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        arguments: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let mut candidates = Vec::new();
        self.shell.write_complete(command, arguments, folder, &mut candidates)?;
        let candidates = String::from_utf8_lossy(&candidates);
        let separator = self.separator_variable.and_then(|name| std::env::var(name).ok());
        let separator = separator.filter(|separator| !separator.is_empty()).unwrap_or_else(|| "\n".to_owned());
        let quoted: Vec<_> = candidates.split(&separator).map(|candidate| self.quoted(candidate)).collect();
        out.write_all(quoted.join(&separator).as_bytes())
    }
}

impl Quoting {
    /// The candidate, whose help follows a tab.
    fn quoted(&self, candidate: &str) -> String {
        let (word, help) = candidate.split_at(candidate.find('\t').unwrap_or(candidate.len()));
        if word.chars().all(is_plain) { candidate.to_owned() } else { (self.quote)(word) + help }
    }
}

/// Whether the character has no meaning for a shell.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '+' | ',' | '=')
}

fn quote_for_bash(word: &str) -> String {
    word.chars().flat_map(|c| (!is_plain(c)).then_some('\\').into_iter().chain([c])).collect()
}

/// PowerShell takes several kinds of quotation marks for a single quote.
fn quote_for_powershell(word: &str) -> String {
    let is_quote = |c| matches!(c, '\'' | '\u{2018}'..='\u{201b}');
    let doubled: String = word.chars().flat_map(|c| [c].into_iter().chain(is_quote(c).then_some(c))).collect();
    format!("'{doubled}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_shells_that_insert_them_as_they_are() {
        for (shell, word, quoted) in [
            ("bash", "ev/x$(touch f)y", r"ev/x\$\(touch\ f\)y"),
            ("bash", "a/b:free,c@1", "a/b:free,c@1"),
            ("bash", "`id`;~*'\"\\", r#"\`id\`\;\~\*\'\"\\"#),
            ("powershell", "ev/x$(Get-Date)\thelp for it", "'ev/x$(Get-Date)'\thelp for it"),
            ("powershell", "it's\u{2019}", "'it''s\u{2019}\u{2019}'"),
        ] {
            let quote = if shell == "bash" { quote_for_bash } else { quote_for_powershell };
            let shell = Quoting { shell: &Bash, separator_variable: None, quote };
            assert_eq!(shell.quoted(word), quoted);
        }
    }
}
