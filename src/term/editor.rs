//! Lines that a person writes: with history, several lines and completion on a terminal, else one line after the other.
//!
//! Owns reading what is said in a conversation. A terminal that does not answer where its cursor is gets a plain prompt: there
//! is no other use for the answer, and it is never asked while a model speaks. Refuses to know what a line means.

use std::{
    io::{self, BufRead, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reedline::{
    ColumnarMenu, Completer, CompletionResult, EditCommand, Emacs, FileBackedHistory, History, HistoryItem, KeyCode,
    KeyModifiers, MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu,
    Signal, Span, Suggestion, ValidationResult, Validator, default_emacs_keybindings,
};

use super::{
    input::{self, InputError, MAX_INPUT},
    output::say,
    signals::stop_for_a_while,
};

const MENU: &str = "names";
/// What Ctrl-Z is called between the editor and this file.
const SUSPEND: &str = "suspend";
/// Whether the terminal is told to mark what is pasted: for a process that ends while it waits, of which there is one.
static MARKS_PASTES: AtomicBool = AtomicBool::new(false);
/// What is longer is not kept to be said again.
const LONGEST_KEPT: usize = 64 * 1024;
const REMEMBERED: usize = 1000;

/// What came of a look at the keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// This was said.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Nothing more comes.
    Ended,
}

/// What could stand at the end of what was typed so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where in it what is completed begins, in bytes.
    pub from: usize,
    /// What it becomes.
    pub value: String,
    /// What that is.
    pub what: Option<String>,
}

/// The choices for what was typed so far.
pub type Choices = dyn Fn(&str) -> Vec<Choice> + Send + Sync;

/// Reads what a person says.
pub enum Editor {
    /// On a terminal.
    Terminal(Box<Reedline>),
    /// From a pipe, or a terminal that answers nothing.
    Lines {
        /// Whether to say that something is waited for.
        prompts: bool,
    },
}

impl std::fmt::Debug for Editor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Terminal(_) => "Terminal",
            Self::Lines { .. } => "Lines",
        })
    }
}

impl Editor {
    /// For this process's input. `said`: what can be had again, the oldest first.
    #[must_use]
    pub fn new(styled: bool, plain: bool, said: Vec<String>, choices: Arc<Choices>) -> Self {
        let terminal = io::stdin().is_terminal();
        // The editor draws on standard error, and asks on standard output where its cursor is.
        if !terminal || plain || !io::stdout().is_terminal() || !io::stderr().is_terminal() {
            return Self::Lines { prompts: terminal };
        }
        // Asked once, and not with every line: an answer that does not come is waited for.
        if crossterm::cursor::position().is_err() {
            say("this terminal does not say where its cursor is: one line, of up to 4,095 bytes, is one question\n");
            return Self::Lines { prompts: true };
        }
        let mut keys = default_emacs_keybindings();
        let menu = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.into()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, menu);
        let newline = ReedlineEvent::Edit(vec![EditCommand::InsertNewline]);
        keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, newline);
        let suspend = ReedlineEvent::ExecuteHostCommand(SUSPEND.into());
        if cfg!(unix) {
            keys.add_binding(KeyModifiers::CONTROL, KeyCode::Char('z'), suspend);
        }
        let editor = Reedline::create()
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_completer(Box::new(Completions(choices)))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU))))
            .with_validator(Box::new(Unfinished))
            .with_history(Box::new(remembered(said)))
            .use_bracketed_paste(true)
            .with_ansi_colors(styled);
        Self::Terminal(Box::new(editor))
    }

    /// Waits for what is said next; `name`: who is spoken to.
    pub fn read(&mut self, name: &str) -> Result<Read, InputError> {
        match self {
            Self::Lines { prompts } => {
                if *prompts {
                    say(&format!("{name}> "));
                }
                line(&mut io::stdin().lock())
            }
            Self::Terminal(editor) => match edited(editor, name) {
                Ok(Signal::Success(text)) => Ok(Read::Line(text)),
                Ok(Signal::CtrlC) => Ok(Read::Interrupted),
                Ok(Signal::CtrlD) => Ok(Read::Ended),
                Ok(_) => Ok(Read::Line(String::new())),
                // It could not tell where its cursor is, or is gone: then the next read says so.
                Err(error) => {
                    say(&format!("this terminal cannot be edited on ({error}): one line is one question\n"));
                    *self = Self::Lines { prompts: true };
                    self.read(name)
                }
            },
        }
    }

    /// Whether what is said comes from a person at a terminal.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        !matches!(self, Self::Lines { prompts: false })
    }
}

/// What came of a line on a terminal. A process that was stopped goes on with what was typed.
fn edited(editor: &mut Reedline, name: &str) -> io::Result<Signal> {
    loop {
        MARKS_PASTES.store(true, Ordering::Relaxed);
        let read = editor.read_line(&Name(name.to_owned()));
        MARKS_PASTES.store(false, Ordering::Relaxed);
        match read? {
            Signal::HostCommand(command) if command == SUSPEND => stop_for_a_while(),
            signal => return Ok(signal),
        }
    }
}

/// Before a process ends while it waits for a line: the terminal marks nothing any more, and what follows has a line of its
/// own.
pub fn leave() {
    if MARKS_PASTES.swap(false, Ordering::Relaxed) {
        say("\u{1b}[?2004l\r\n");
    }
}

/// The next line; one that is longer than any model reads is an error.
fn line(from: &mut impl BufRead) -> Result<Read, InputError> {
    let mut bytes = Vec::new();
    let read = io::Read::take(&mut *from, MAX_INPUT as u64 + 1).read_until(b'\n', &mut bytes);
    if read.map_err(InputError::Failed)? == 0 {
        return Ok(Read::Ended);
    }
    if bytes.len() > MAX_INPUT {
        return Err(InputError::LongLine);
    }
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(Read::Line(input::text(bytes, "what was said")))
}

fn remembered(said: Vec<String>) -> FileBackedHistory {
    let mut history = FileBackedHistory::new(REMEMBERED).unwrap_or_default();
    for text in said.into_iter().filter(|text| text.len() <= LONGEST_KEPT) {
        // It is in memory: there is nothing that could fail.
        let _ = history.save(HistoryItem::from_command_line(text));
    }
    history
}

struct Name(String);

impl Prompt for Name {
    fn render_prompt_left(&self) -> std::borrow::Cow<'_, str> {
        self.0.as_str().into()
    }

    fn render_prompt_right(&self) -> std::borrow::Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> std::borrow::Cow<'_, str> {
        "> ".into()
    }

    fn render_prompt_multiline_indicator(&self) -> std::borrow::Cow<'_, str> {
        ". ".into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> std::borrow::Cow<'_, str> {
        format!("(search: {}) ", search.term).into()
    }
}

/// A fence of code goes on until it is closed, or a line is left empty: there may be no more to close it.
struct Unfinished;

impl Validator for Unfinished {
    fn validate(&self, text: &str) -> ValidationResult {
        let fences = text.lines().filter(|line| line.trim_start().starts_with("```")).count();
        if fences % 2 == 1 && !text.ends_with('\n') { ValidationResult::Incomplete } else { ValidationResult::Complete }
    }
}

struct Completions(Arc<Choices>);

impl Completer for Completions {
    fn complete(&mut self, line: &str, at: usize) -> CompletionResult {
        let choices = (self.0)(line.get(..at).unwrap_or_default()).into_iter();
        let suggestions: Vec<Suggestion> = choices
            .map(|Choice { from, value, what }| Suggestion {
                value,
                description: what,
                span: Span::new(from, at),
                append_whitespace: true,
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_one_turn() {
        let mut input = io::Cursor::new(b"one\r\n\ntwo \xff\nlast".to_vec());
        let mut read = || line(&mut input).expect("readable");
        let said = |text: &str| Read::Line(text.to_owned());
        assert_eq!([read(), read(), read()], [said("one"), said(""), said("two \u{fffd}")]);
        assert_eq!([read(), read()], [said("last"), Read::Ended]);
    }

    #[test]
    fn a_fence_goes_on_until_it_is_closed_or_a_line_is_empty() {
        let goes_on = |text: &str| matches!(Unfinished.validate(text), ValidationResult::Incomplete);
        assert!(goes_on("look:\n```\nx") && !goes_on("one \\") && !goes_on("```\nx\n```") && !goes_on("```\nx\n"));
    }
}
