//! Reads chat messages: with history, multiline editing and completion on a terminal, otherwise line by line.
//!
//! A terminal that does not report its cursor position gets a plain prompt. The position is never queried while an
//! answer is printed.

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
    output::{write_stderr, write_terminal},
    signals::suspend_process,
};

const COMPLETION_MENU: &str = "names";
/// Name of the host command that Ctrl-Z is bound to.
const SUSPEND_COMMAND: &str = "suspend";
/// Whether bracketed paste is enabled. Static because it must be disabled when the process ends while it reads.
static BRACKETED_PASTE: AtomicBool = AtomicBool::new(false);
/// Messages larger than this, in bytes, are not added to the history.
const MAX_HISTORY_ENTRY_BYTES: usize = 64 * 1024;
/// Number of messages in the history.
const MAX_HISTORY_ENTRIES: usize = 1000;

/// Result of reading a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LineInput {
    /// A message.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// The input ended (Ctrl-D).
    Eof,
}

/// A completion for the end of the typed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompletionItem {
    /// Start of the completed word in the typed text, in bytes.
    pub start: usize,
    /// Text that replaces the word.
    pub value: String,
    /// Description in the menu.
    pub description: Option<String>,
}

/// Returns the completions for the text typed so far.
pub(crate) type CompletionFn = dyn Fn(&str) -> Vec<CompletionItem> + Send + Sync;

/// Reads messages from the user.
pub(crate) enum Editor {
    /// Line editor on a terminal.
    Terminal(Box<Reedline>),
    /// Lines of a pipe, or of a terminal that does not report its cursor position.
    Plain {
        /// Whether to print a prompt.
        show_prompt: bool,
    },
}

impl std::fmt::Debug for Editor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Terminal(_) => "Terminal",
            Self::Plain { .. } => "Plain",
        })
    }
}

impl Editor {
    /// Creates an editor for standard input. `history`: previous messages, the oldest first.
    #[must_use]
    pub(crate) fn new(styled: bool, plain: bool, history: Vec<String>, complete: Arc<CompletionFn>) -> Self {
        let terminal = io::stdin().is_terminal();
        // The editor draws on standard error and queries the cursor position on standard output.
        if !terminal || plain || !io::stdout().is_terminal() || !io::stderr().is_terminal() {
            return Self::Plain { show_prompt: terminal };
        }
        // Queried once and not for every line, because a missing reply costs a timeout.
        if crossterm::cursor::position().is_err() {
            write_stderr(
                "the terminal does not report its cursor position: each line of up to 4,095 bytes is one message\n",
            );
            return Self::Plain { show_prompt: true };
        }
        let mut keys = default_emacs_keybindings();
        let menu =
            ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(COMPLETION_MENU.into()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, menu);
        let newline = ReedlineEvent::Edit(vec![EditCommand::InsertNewline]);
        keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, newline);
        let suspend = ReedlineEvent::ExecuteHostCommand(SUSPEND_COMMAND.into());
        if cfg!(unix) {
            keys.add_binding(KeyModifiers::CONTROL, KeyCode::Char('z'), suspend);
        }
        let editor = Reedline::create()
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_completer(Box::new(PromptCompleter(complete)))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(COMPLETION_MENU))))
            .with_validator(Box::new(CodeFenceValidator))
            .with_history(Box::new(history_from(history)))
            .use_bracketed_paste(true)
            .with_ansi_colors(styled);
        Self::Terminal(Box::new(editor))
    }

    /// Reads the next message. `model`: the name shown in the prompt.
    pub(crate) fn read(&mut self, model: &str) -> Result<LineInput, InputError> {
        match self {
            Self::Plain { show_prompt } => {
                if *show_prompt {
                    write_stderr(&format!("{model}> "));
                }
                read_plain_line(&mut io::stdin().lock())
            }
            Self::Terminal(editor) => match read_edited_line(editor, model) {
                Ok(Signal::Success(text)) => Ok(LineInput::Line(text)),
                Ok(Signal::CtrlC) => Ok(LineInput::Interrupted),
                Ok(Signal::CtrlD) => Ok(LineInput::Eof),
                Ok(_) => Ok(LineInput::Line(String::new())),
                // The cursor position is unavailable, or the terminal was closed, which the next read reports.
                Err(error) => {
                    write_stderr(&format!("cannot edit lines on this terminal ({error}): each line is one message\n"));
                    *self = Self::Plain { show_prompt: true };
                    self.read(model)
                }
            },
        }
    }

    /// Whether messages are typed at a terminal.
    #[must_use]
    pub(crate) fn is_interactive(&self) -> bool {
        !matches!(self, Self::Plain { show_prompt: false })
    }
}

/// Reads a message with the line editor. After a suspend, editing continues with the typed text.
fn read_edited_line(editor: &mut Reedline, model: &str) -> io::Result<Signal> {
    loop {
        BRACKETED_PASTE.store(true, Ordering::Relaxed);
        let read = editor.read_line(&ModelPrompt(model.to_owned()));
        BRACKETED_PASTE.store(false, Ordering::Relaxed);
        match read? {
            Signal::HostCommand(command) if command == SUSPEND_COMMAND => suspend_process(),
            signal => return Ok(signal),
        }
    }
}

/// Disables bracketed paste and starts a new line, before a process ends while it reads a message.
pub(crate) fn disable_bracketed_paste() {
    if BRACKETED_PASTE.swap(false, Ordering::Relaxed) {
        write_terminal("\u{1b}[?2004l\r\n");
    }
}

/// Reads the next line, up to [`MAX_INPUT`] bytes.
fn read_plain_line(source: &mut impl BufRead) -> Result<LineInput, InputError> {
    let mut bytes = Vec::new();
    let read = io::Read::take(&mut *source, MAX_INPUT as u64 + 1).read_until(b'\n', &mut bytes);
    if read.map_err(InputError::Io)? == 0 {
        return Ok(LineInput::Eof);
    }
    if bytes.len() > MAX_INPUT {
        return Err(InputError::LineTooLong);
    }
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(LineInput::Line(input::decode_text(bytes, "the message")))
}

fn history_from(messages: Vec<String>) -> FileBackedHistory {
    let mut history = FileBackedHistory::new(MAX_HISTORY_ENTRIES).unwrap_or_default();
    for text in messages.into_iter().filter(|text| text.len() <= MAX_HISTORY_ENTRY_BYTES) {
        // Saving cannot fail, because the history has no file.
        let _ = history.save(HistoryItem::from_command_line(text));
    }
    history
}

struct ModelPrompt(String);

impl Prompt for ModelPrompt {
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

/// Continues a message with an open code fence until the fence is closed or a line is empty.
struct CodeFenceValidator;

impl Validator for CodeFenceValidator {
    fn validate(&self, text: &str) -> ValidationResult {
        let fences = text.lines().filter(|line| line.trim_start().starts_with("```")).count();
        if fences % 2 == 1 && !text.ends_with('\n') { ValidationResult::Incomplete } else { ValidationResult::Complete }
    }
}

struct PromptCompleter(Arc<CompletionFn>);

impl Completer for PromptCompleter {
    fn complete(&mut self, line: &str, cursor: usize) -> CompletionResult {
        let items = (self.0)(line.get(..cursor).unwrap_or_default()).into_iter();
        let suggestions: Vec<Suggestion> = items
            .map(|CompletionItem { start, value, description }| Suggestion {
                value,
                description,
                span: Span::new(start, cursor),
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
    fn each_line_is_one_message() {
        let mut input = io::Cursor::new(b"one\r\n\ntwo \xff\nlast".to_vec());
        let mut read = || read_plain_line(&mut input).expect("a cursor is readable");
        let message = |text: &str| LineInput::Line(text.to_owned());
        assert_eq!([read(), read(), read()], [message("one"), message(""), message("two \u{fffd}")]);
        assert_eq!([read(), read()], [message("last"), LineInput::Eof]);
    }

    #[test]
    fn open_code_fence_continues_until_it_is_closed_or_a_line_is_empty() {
        let is_open = |text: &str| matches!(CodeFenceValidator.validate(text), ValidationResult::Incomplete);
        assert!(is_open("look:\n```\nx") && !is_open("one \\") && !is_open("```\nx\n```") && !is_open("```\nx\n"));
    }
}
