//! Post-processes the answers of a comparison: differences, a vote, a report file.
//!
//! The options are validated before any request is sent. Results go to stdout, like the answers.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    analysis::{AnswerComparison, Vote, VoteKind, vote::VOTE_KINDS, word_diff},
    cli::{
        CliError,
        support::{error::unknown_value, exit::Exit},
    },
    engine::plan::Plan,
    model::{Message, ModelRequest, Role},
    render::{
        Format, Output,
        compare::CompareView,
        diff,
        report::{REPORT_FORMATS, Report, ReportFormat, format_for_path},
    },
    term::output::{Streams, WriteError, write_stderr},
};

/// The options for post-processing.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct PostProcessingArgs {
    /// Compare the answers: identical ones, similarity, numbers that some lack, and a word diff of two, such as 1,3
    #[arg(
        long,
        value_name = "A,B",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        help_heading = "Analysis"
    )]
    diff: Option<String>,
    /// Vote on short answers; KIND is auto (the default), number, choice or text; exit code 9 without a majority
    #[arg(
        long,
        value_name = "KIND",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto",
        help_heading = "Analysis"
    )]
    vote: Option<String>,
    /// Vote on this field of answers in JSON, such as verdict.ok
    #[arg(long, value_name = "PATH", requires = "vote", help_heading = "Analysis")]
    field: Option<String>,
    /// Write a report as .html, .md, .json or .csv
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Analysis")]
    out: Option<PathBuf>,
}

/// The validated options.
pub(super) struct PostProcessing {
    diff: Option<DiffPair>,
    vote: Option<(VoteKind, Option<String>)>,
    file: Option<ReportFile>,
}

/// The two answers of the word diff.
#[derive(Clone, Copy)]
enum DiffPair {
    /// The first two complete answers.
    FirstComplete,
    Indices(usize, usize),
}

impl DiffPair {
    fn resolve(self, texts: &[Option<&str>]) -> Option<(usize, usize)> {
        match self {
            Self::FirstComplete => {
                let mut complete = (0..texts.len()).filter(|index| texts[*index].is_some());
                Some((complete.next()?, complete.next()?))
            }
            Self::Indices(old, new) => texts[old].and(texts[new]).map(|_| (old, new)),
        }
    }
}

struct ReportFile {
    path: PathBuf,
    format: ReportFormat,
    streams: Streams,
}

impl PostProcessingArgs {
    /// Whether the answers are needed after they were shown, and whether results are printed besides them.
    pub(super) fn answer_needs(&self) -> (bool, bool) {
        let prints_results = self.diff.is_some() || self.vote.is_some();
        (prints_results || self.out.is_some(), prints_results)
    }

    /// Validates the options against the plan, and opens the report file.
    pub(super) fn validate(&self, plan: &Plan, output: Option<&PathBuf>) -> Result<PostProcessing, CliError> {
        if self.out.is_some() && self.out.as_ref() == output {
            let hint = "write the report to another file, or the answers to stdout: remove --output";
            return Err(CliError::usage("--out and --output are the same file", hint));
        }
        let names: Vec<String> = plan.calls.iter().map(crate::engine::plan::Call::label).collect();
        let diff = self.diff.as_deref().map(|pair| parse_diff_pair(pair, &names)).transpose()?;
        let vote = self.vote.as_deref().map(parse_vote_kind).transpose()?.map(|kind| (kind, self.field.clone()));
        let file = self.out.clone().map(ReportFile::open).transpose()?;
        Ok(PostProcessing { diff, vote, file })
    }
}

fn parse_vote_kind(value: &str) -> Result<VoteKind, CliError> {
    let known: Vec<&str> = VOTE_KINDS.iter().map(|(name, _)| *name).collect();
    let found = VOTE_KINDS.iter().find(|(name, _)| *name == value);
    found.map(|&(_, kind)| kind).ok_or_else(|| unknown_value("kind of vote", value, &known))
}

/// Parses two answers, given by number or by name.
fn parse_diff_pair(pair: &str, names: &[String]) -> Result<DiffPair, CliError> {
    if pair.is_empty() {
        return Ok(DiffPair::FirstComplete);
    }
    let index = |text: &str| {
        let number: Option<usize> = text.parse().ok().filter(|number| (1..=names.len()).contains(number));
        let index = number.map(|number| number - 1);
        index.or_else(|| names.iter().position(|name| name == text)).ok_or_else(|| {
            let known: Vec<String> = (1..).zip(names).map(|(number, name)| format!("{number} {name}")).collect();
            CliError::usage(format!("no answer \"{text}\""), format!("available: {}", known.join(", ")))
        })
    };
    match pair.split(',').map(str::trim).collect::<Vec<_>>().as_slice() {
        [a, b] => Ok(DiffPair::Indices(index(a)?, index(b)?)),
        _ => Err(CliError::usage(format!("invalid --diff \"{pair}\": expected two answers"), "write --diff=1,2")),
    }
}

impl ReportFile {
    fn open(path: PathBuf) -> Result<Self, CliError> {
        let Some(format) = format_for_path(&path) else {
            let extensions: Vec<String> = REPORT_FORMATS.iter().map(|(extension, _)| format!(".{extension}")).collect();
            return Err(CliError::usage(
                format!("unknown file extension of --out {}", path.display()),
                format!("available: {}", extensions.join(", ")),
            ));
        };
        let streams = Streams::file(&path)?;
        Ok(Self { path, format, streams })
    }

    fn write(mut self, report: &Report) -> Result<(), WriteError> {
        self.streams.write(&mut Output::data((self.format)(report)))?;
        self.streams.finish(true)?;
        write_stderr(&format!("report: {}\n", self.path.display()));
        Ok(())
    }
}

/// The prompt of a run and its conversation, for a report.
pub(super) struct PromptInfo {
    pub(super) system: Option<String>,
    pub(super) prompt: String,
    pub(super) run: Option<i64>,
}

impl PromptInfo {
    /// The prompt of a plan, which is the same for all calls.
    pub(super) fn from_plan(plan: &Plan) -> Self {
        let Some(ModelRequest::Chat(chat)) = plan.calls.first().map(|call| &*call.request) else {
            return Self { system: None, prompt: String::new(), run: None };
        };
        let last = |role| chat.messages.iter().rfind(|message| message.role == role).map(Message::joined_text);
        Self { system: last(Role::System), prompt: last(Role::User).unwrap_or_default(), run: None }
    }
}

impl PostProcessing {
    /// Writes the results and the report; returns the exit code that follows from them.
    pub(super) fn write_results(
        self,
        view: &CompareView,
        (format, styled): (Format, bool),
        streams: &mut Streams,
        (prompt, exit): (PromptInfo, Exit),
    ) -> Result<Exit, CliError> {
        let texts = view.complete_texts();
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let needs_difference = self.diff.is_some() || self.file.is_some();
        let results = Results {
            names: view.names(),
            vote: self.vote.map(|(kind, field)| Vote::new(&texts, kind, field.as_deref())),
            difference: (texts.len() > 1 && needs_difference).then(|| AnswerComparison::new(&texts)),
            show_difference: self.diff.is_some(),
            diff_pair: self.diff.and_then(|pair| pair.resolve(&texts)),
        };
        let mut output = Output::default();
        match format {
            Format::Text | Format::Markdown => results.write_text(&texts, styled, output.out()),
            Format::Json => results.write_json(&texts, output.out()),
            Format::Jsonl => results.write_jsonl(&texts, output.out()),
        }
        let written = streams.write(&mut output);
        // If all calls failed, their exit code takes precedence.
        let vote = results.vote.as_ref().filter(|vote| vote.total() > 0);
        let has_majority = vote.map(|vote| vote.majority().is_some());
        if let Some(file) = self.file {
            let PromptInfo { system, prompt, run } = prompt;
            let (difference, vote) = (results.difference, results.vote);
            let report = Report {
                created_at: Timestamp::now(),
                run,
                system_prompt: system,
                prompt,
                calls: view.report_calls(),
                difference,
                vote,
            };
            file.write(&report)?;
        }
        written?;
        Ok(if has_majority == Some(false) && exit != Exit::Interrupted { Exit::Condition } else { exit })
    }
}

/// The results.
struct Results {
    names: Vec<String>,
    vote: Option<Vote>,
    difference: Option<AnswerComparison>,
    /// `--diff` was given.
    show_difference: bool,
    /// The two complete answers of the word diff.
    diff_pair: Option<(usize, usize)>,
}

impl Results {
    fn write_text(&self, texts: &[Option<&str>], styled: bool, out: &mut String) {
        if let Some(vote) = &self.vote {
            out.extend(["\n", &diff::render_vote(&self.names, vote)]);
        }
        if !self.show_difference {
            return;
        }
        if let Some(difference) = &self.difference {
            out.extend(["\n", &diff::render_difference(&self.names, difference)]);
        }
        let Some((old, new)) = self.diff_pair else {
            out.push_str("\nno word diff: fewer than two complete answers\n");
            return;
        };
        let labels = [old, new].map(|index| format!("{} {}", index + 1, self.names[index]));
        let changes = word_diff(texts[old].unwrap_or_default().trim_end(), texts[new].unwrap_or_default().trim_end());
        out.extend(["\n", &diff::render_word_diff((&labels[0], &labels[1]), &changes, styled)]);
    }

    /// The results as JSON, each with its name.
    fn json_results(&self, texts: &[Option<&str>]) -> Vec<(&'static str, Value)> {
        let vote = self.vote.as_ref().map(|vote| ("vote", diff::vote_json(vote)));
        let difference = self.difference.as_ref().filter(|_| self.show_difference);
        let difference = difference.map(|difference| ("difference", diff::difference_json(difference)));
        let words = self.diff_pair.map(|(old, new)| {
            let changes = word_diff(texts[old].unwrap_or_default(), texts[new].unwrap_or_default());
            ("words", diff::word_diff_json((old, new), &changes))
        });
        [vote, difference, words].into_iter().flatten().collect()
    }

    /// Writes the rest of the JSON document, whose first field holds the answers.
    fn write_json(&self, texts: &[Option<&str>], out: &mut String) {
        let results = self.json_results(texts);
        for (name, value) in &results {
            out.extend([",\n\"", name, "\": ", value.to_string().as_str()]);
        }
        if self.show_difference || self.vote.is_some() {
            out.push_str("}\n");
        }
    }

    fn write_jsonl(&self, texts: &[Option<&str>], out: &mut String) {
        for (name, mut value) in self.json_results(texts) {
            value["event"] = name.into();
            out.extend([value.to_string().as_str(), "\n"]);
        }
    }
}
