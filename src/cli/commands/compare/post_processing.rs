//! What is told of several answers beside them: differences, a vote, a report in a file.
//!
//! Owns the flags, that they are checked before anything is sent, and where each result goes: what was asked for is data.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    analysis::{Difference, Kind, Vote, changes, vote::KINDS},
    cli::{
        CliError,
        support::{exit::Exit, request::unknown},
    },
    engine::plan::Plan,
    model::{Call, Message, Role},
    render::{
        Format, Output,
        compare::CompareView,
        diff,
        report::{REPORTS, Report, ReportFormat, report},
    },
    term::output::{Streams, WriteError, say},
};

/// The flags.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct ExtraArgs {
    /// Tell what is the same, how alike answers are, which numbers differ; and two of them word by word: 1,3
    #[arg(long, value_name = "A,B", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    diff: Option<String>,
    /// Count what short answers come to, as auto, number, choice or text; exit code 9 without a majority
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    vote: Option<String>,
    /// The answers are JSON, and this is what counts: verdict.ok
    #[arg(long, value_name = "PATH", requires = "vote")]
    field: Option<String>,
    /// Write a report: .html, .md, .json or .csv
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: Option<PathBuf>,
}

/// What is wanted, checked.
pub(super) struct Extras {
    diff: Option<Pair>,
    vote: Option<(Kind, Option<String>)>,
    file: Option<ReportFile>,
}

/// Which two answers are looked at word by word.
#[derive(Clone, Copy)]
enum Pair {
    /// The first two that are whole.
    First,
    These(usize, usize),
}

impl Pair {
    fn among(self, texts: &[Option<&str>]) -> Option<(usize, usize)> {
        match self {
            Self::First => {
                let mut whole = (0..texts.len()).filter(|lane| texts[*lane].is_some());
                Some((whole.next()?, whole.next()?))
            }
            Self::These(old, new) => texts[old].and(texts[new]).map(|_| (old, new)),
        }
    }
}

struct ReportFile {
    path: PathBuf,
    format: ReportFormat,
    streams: Streams,
}

impl ExtraArgs {
    /// Whether the answers are needed after they were shown, and whether more than they is told.
    pub(super) fn wants(&self) -> (bool, bool) {
        let told = self.diff.is_some() || self.vote.is_some();
        (told || self.out.is_some(), told)
    }

    /// Checks them against the lanes. A file that cannot be written is told now.
    pub(super) fn checked(&self, plan: &Plan, output: Option<&PathBuf>) -> Result<Extras, CliError> {
        if self.out.is_some() && self.out.as_ref() == output {
            return Err(CliError::usage("--out and --output name the same file", "choose two"));
        }
        let names: Vec<String> = plan.lanes.iter().map(crate::engine::plan::Lane::label).collect();
        let diff = self.diff.as_deref().map(|pair| pair_of(pair, &names)).transpose()?;
        let vote = self.vote.as_deref().map(kind).transpose()?.map(|kind| (kind, self.field.clone()));
        let file = self.out.clone().map(ReportFile::open).transpose()?;
        Ok(Extras { diff, vote, file })
    }
}

fn kind(word: &str) -> Result<Kind, CliError> {
    let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let found = KINDS.iter().find(|(name, _)| *name == word);
    found.map(|&(_, kind)| kind).ok_or_else(|| unknown("kind of answers", word, &known))
}

/// The lanes that a pair names, by number or by name.
fn pair_of(pair: &str, names: &[String]) -> Result<Pair, CliError> {
    if pair.is_empty() {
        return Ok(Pair::First);
    }
    let place = |word: &str| {
        let number =
            word.parse().ok().filter(|number| (1..=names.len()).contains(number)).map(|number: usize| number - 1);
        number.or_else(|| names.iter().position(|name| name == word)).ok_or_else(|| {
            let known: Vec<String> = names.iter().enumerate().map(|(at, name)| format!("{} {name}", at + 1)).collect();
            CliError::usage(
                format!("there is no answer `{word}` to look at"),
                format!("there are: {}", known.join(", ")),
            )
        })
    };
    match pair.split(',').map(str::trim).collect::<Vec<_>>().as_slice() {
        [a, b] => Ok(Pair::These(place(a)?, place(b)?)),
        _ => Err(CliError::usage(format!("`--diff={pair}` names no two answers"), "write --diff=1,2")),
    }
}

impl ReportFile {
    fn open(path: PathBuf) -> Result<Self, CliError> {
        let Some(format) = report(&path) else {
            let endings: Vec<String> = REPORTS.iter().map(|(ending, _)| format!(".{ending}")).collect();
            return Err(CliError::usage(
                format!("the ending of {} is that of no report", path.display()),
                format!("there are: {}", endings.join(", ")),
            ));
        };
        let streams = Streams::file(&path)?;
        Ok(Self { path, format, streams })
    }

    fn write(mut self, report: &Report) -> Result<(), WriteError> {
        self.streams.put(&mut Output::data((self.format)(report)))?;
        self.streams.close(true)?;
        say(&format!("report: {}\n", self.path.display()));
        Ok(())
    }
}

/// What a report says of a run beside its lanes.
pub(super) struct Asked {
    pub(super) system: Option<String>,
    pub(super) prompt: String,
    pub(super) run: Option<i64>,
}

impl Asked {
    /// What the lanes of a plan are asked: the same.
    pub(super) fn of(plan: &Plan) -> Self {
        let Some(Call::Chat(chat)) = plan.lanes.first().map(|lane| &*lane.call) else {
            return Self { system: None, prompt: String::new(), run: None };
        };
        let last = |role| chat.messages.iter().rfind(|message| message.role == role).map(Message::words);
        Self { system: last(Role::System), prompt: last(Role::User).unwrap_or_default(), run: None }
    }
}

impl Extras {
    /// Tells all of it, and what it makes of the exit code.
    pub(super) fn tell(
        self,
        view: &CompareView,
        (format, styled): (Format, bool),
        streams: &mut Streams,
        (asked, exit): (Asked, Exit),
    ) -> Result<Exit, CliError> {
        let texts = view.texts();
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let wants_difference = self.diff.is_some() || self.file.is_some();
        let found = Found {
            names: view.names(),
            vote: self.vote.map(|(kind, field)| Vote::of(&texts, kind, field.as_deref())),
            difference: (texts.len() > 1 && wants_difference).then(|| Difference::of(&texts)),
            differs: self.diff.is_some(),
            pair: self.diff.and_then(|pair| pair.among(&texts)),
        };
        let mut output = Output::default();
        match format {
            Format::Text | Format::Markdown => found.text(&texts, styled, output.out()),
            Format::Json => found.fields(&texts, output.out()),
            Format::Jsonl => found.lines(&texts, output.out()),
        }
        let written = streams.put(&mut output);
        // Where all failed, that is what there is to know.
        let voted = found.vote.as_ref().filter(|vote| vote.count() > 0);
        let majority = voted.map(|vote| vote.majority().is_some());
        if let Some(file) = self.file {
            let Asked { system, prompt, run } = asked;
            let (difference, vote) = (found.difference, found.vote);
            let report = Report { at: Timestamp::now(), run, system, prompt, lanes: view.report(), difference, vote };
            file.write(&report)?;
        }
        written?;
        Ok(if majority == Some(false) && exit != Exit::Interrupted { Exit::Condition } else { exit })
    }
}

/// What there is to tell.
struct Found {
    names: Vec<String>,
    vote: Option<Vote>,
    difference: Option<Difference>,
    /// What they have in common is wanted.
    differs: bool,
    /// Two whole answers that are looked at word by word.
    pair: Option<(usize, usize)>,
}

impl Found {
    fn text(&self, texts: &[Option<&str>], styled: bool, out: &mut String) {
        if let Some(vote) = &self.vote {
            out.extend(["\n", &diff::vote(&self.names, vote)]);
        }
        if !self.differs {
            return;
        }
        if let Some(known) = &self.difference {
            out.extend(["\n", &diff::difference(&self.names, known)]);
        }
        let Some((old, new)) = self.pair else {
            out.push_str("\nthere are no two whole answers to look at word by word\n");
            return;
        };
        let named = [old, new].map(|lane| format!("{} {}", lane + 1, self.names[lane]));
        let changed = changes(texts[old].unwrap_or_default().trim_end(), texts[new].unwrap_or_default().trim_end());
        out.extend(["\n", &diff::words((&named[0], &named[1]), &changed, styled)]);
    }

    /// Each result under its name.
    fn results(&self, texts: &[Option<&str>]) -> Vec<(&'static str, Value)> {
        let vote = self.vote.as_ref().map(|vote| ("vote", diff::vote_object(vote)));
        let known = self.difference.as_ref().filter(|_| self.differs);
        let known = known.map(|known| ("difference", diff::difference_object(known)));
        let words = self.pair.map(|(old, new)| {
            let changed = changes(texts[old].unwrap_or_default(), texts[new].unwrap_or_default());
            ("words", diff::words_object((old, new), &changed))
        });
        [vote, known, words].into_iter().flatten().collect()
    }

    /// The rest of the document that the answers are the first field of.
    fn fields(&self, texts: &[Option<&str>], out: &mut String) {
        let results = self.results(texts);
        for (name, value) in &results {
            out.extend([",\n\"", name, "\": ", value.to_string().as_str()]);
        }
        if self.differs || self.vote.is_some() {
            out.push_str("}\n");
        }
    }

    fn lines(&self, texts: &[Option<&str>], out: &mut String) {
        for (name, mut value) in self.results(texts) {
            value["event"] = name.into();
            out.extend([value.to_string().as_str(), "\n"]);
        }
    }
}
