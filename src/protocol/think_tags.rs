//! Separates `<think>…</think>` from the answer.
//!
//! Only at the start of a message: the same words later on are text about the tag. Owns tags cut between deltas.
//! Refuses to guess a missing opening tag: that is the model's `think_prefilled` setting.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
/// White space beyond this is text: nobody opens a tag behind it.
const LONGEST_BLANK: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only white space and a part of the opening tag so far.
    Start,
    Thinking,
    /// The tag is closed; white space before the answer is dropped.
    AfterClose,
    Text,
}

/// Splits one choice's content.
#[derive(Debug)]
pub(super) struct ThinkSplitter {
    state: State,
    /// What may still turn out to be a tag.
    held: String,
}

/// A piece of content, told apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Reasoning(String),
}

impl ThinkSplitter {
    pub(super) fn new(prefilled: bool) -> Self {
        Self { state: if prefilled { State::Thinking } else { State::Start }, held: String::new() }
    }

    /// Whether all that follows is text of the answer.
    pub(super) fn is_past(&self) -> bool {
        self.state == State::Text
    }

    /// Takes the next piece of content.
    pub(super) fn push(&mut self, text: String, out: &mut Vec<Piece>) {
        if self.state == State::Text {
            emit(out, Piece::Text, text);
            return;
        }
        self.held.push_str(&text);
        loop {
            let before = self.state;
            match self.state {
                State::Start => self.start(out),
                State::Thinking => self.thinking(out),
                State::AfterClose => self.after_close(),
                State::Text => emit(out, Piece::Text, std::mem::take(&mut self.held)),
            }
            if self.state == before {
                return;
            }
        }
    }

    /// The message is over: what was held back is what it looks like.
    pub(super) fn finish(&mut self, out: &mut Vec<Piece>) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Thinking => emit(out, Piece::Reasoning, held),
            State::Start | State::Text => emit(out, Piece::Text, held),
            State::AfterClose => {}
        }
    }

    fn start(&mut self, out: &mut Vec<Piece>) {
        let body = self.held.trim_start();
        if let Some(rest) = body.strip_prefix(OPEN) {
            self.held = rest.to_owned();
            self.state = State::Thinking;
        } else if !OPEN.starts_with(body) || self.held.len() > LONGEST_BLANK {
            self.state = State::Text;
            emit(out, Piece::Text, std::mem::take(&mut self.held));
        }
    }

    fn thinking(&mut self, out: &mut Vec<Piece>) {
        if let Some(at) = self.held.find(CLOSE) {
            let rest = self.held.split_off(at + CLOSE.len());
            self.held.truncate(at);
            emit(out, Piece::Reasoning, std::mem::replace(&mut self.held, rest));
            self.state = State::AfterClose;
        } else {
            let keep = (1..CLOSE.len()).rev().find(|&n| self.held.ends_with(&CLOSE[..n])).unwrap_or(0);
            let rest = self.held.split_off(self.held.len() - keep);
            emit(out, Piece::Reasoning, std::mem::replace(&mut self.held, rest));
        }
    }

    fn after_close(&mut self) {
        let body = self.held.trim_start();
        if body.is_empty() {
            self.held.clear();
        } else {
            self.held = body.to_owned();
            self.state = State::Text;
        }
    }
}

fn emit(out: &mut Vec<Piece>, kind: fn(String) -> Piece, text: String) {
    if !text.is_empty() {
        out.push(kind(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&str], prefilled: bool) -> (String, String) {
        let (mut splitter, mut out) = (ThinkSplitter::new(prefilled), Vec::new());
        for piece in pieces {
            splitter.push((*piece).to_owned(), &mut out);
        }
        splitter.finish(&mut out);
        let (mut text, mut reasoning) = (String::new(), String::new());
        for piece in out {
            match piece {
                Piece::Text(piece) => text.push_str(&piece),
                Piece::Reasoning(piece) => reasoning.push_str(&piece),
            }
        }
        (text, reasoning)
    }

    #[test]
    fn endless_white_space_is_text() {
        let (mut splitter, mut out) = (ThinkSplitter::new(false), Vec::new());
        splitter.push(" ".repeat(LONGEST_BLANK + 1), &mut out);
        assert!(splitter.is_past() && !out.is_empty());
    }

    #[test]
    fn the_same_however_it_is_cut() {
        for (whole, prefilled, text, reasoning) in [
            ("<think>six</think>\n\n42", false, "42", "six"),
            ("\n<think>\n\n</think>\n\nhi", false, "hi", "\n\n"),
            ("plain <think>not</think>", false, "plain <think>not</think>", ""),
            ("<thin ice", false, "<thin ice", ""),
            ("<think>never closed </thin", false, "", "never closed </thin"),
            ("six</think>42", true, "42", "six"),
            ("six</think>42", false, "six</think>42", ""),
            ("  \n", false, "  \n", ""),
        ] {
            let want = (text.to_owned(), reasoning.to_owned());
            for cut in 0..=whole.len() {
                assert_eq!(split(&[&whole[..cut], &whole[cut..]], prefilled), want, "{whole:?} cut at {cut}");
            }
            let single: Vec<String> = whole.chars().map(String::from).collect();
            assert_eq!(split(&single.iter().map(String::as_str).collect::<Vec<_>>(), prefilled), want, "{whole:?}");
        }
    }
}
