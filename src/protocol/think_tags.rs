//! Separates `<think>…</think>` reasoning from the answer text, also when a tag is split between deltas.
//!
//! A tag is recognized only at the start of a message: a later one is part of the text. A missing opening tag is not
//! guessed; the model's `think_prefilled` setting declares it.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
/// Maximum whitespace before an opening tag, in bytes; after more, the content is treated as text.
const MAX_LEADING_WHITESPACE: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only whitespace and a prefix of the opening tag so far.
    Start,
    Thinking,
    /// The tag is closed; whitespace before the answer is dropped.
    AfterClose,
    Text,
}

/// Splits the content of one choice.
#[derive(Debug)]
pub(super) struct ThinkSplitter {
    state: State,
    /// Text that may still become part of a tag.
    buffer: String,
}

/// A segment of the content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Text(String),
    Reasoning(String),
}

impl ThinkSplitter {
    pub(super) fn new(prefilled: bool) -> Self {
        Self { state: if prefilled { State::Thinking } else { State::Start }, buffer: String::new() }
    }

    /// Whether all further content is answer text.
    pub(super) fn is_text(&self) -> bool {
        self.state == State::Text
    }

    /// Splits the next chunk of content and appends the segments to `out`.
    pub(super) fn push(&mut self, text: String, out: &mut Vec<Segment>) {
        if self.state == State::Text {
            push_nonempty(out, Segment::Text, text);
            return;
        }
        self.buffer.push_str(&text);
        loop {
            let previous_state = self.state;
            match self.state {
                State::Start => self.process_start(out),
                State::Thinking => self.process_thinking(out),
                State::AfterClose => self.process_after_close(),
                State::Text => push_nonempty(out, Segment::Text, std::mem::take(&mut self.buffer)),
            }
            if self.state == previous_state {
                return;
            }
        }
    }

    /// Ends the message: appends the buffered text to `out`, as reasoning if the tag is still open.
    pub(super) fn finish(&mut self, out: &mut Vec<Segment>) {
        let text = std::mem::take(&mut self.buffer);
        match self.state {
            State::Thinking => push_nonempty(out, Segment::Reasoning, text),
            State::Start | State::Text => push_nonempty(out, Segment::Text, text),
            State::AfterClose => {}
        }
    }

    fn process_start(&mut self, out: &mut Vec<Segment>) {
        let trimmed = self.buffer.trim_start();
        if let Some(after_tag) = trimmed.strip_prefix(OPEN) {
            self.buffer = after_tag.to_owned();
            self.state = State::Thinking;
        } else if !OPEN.starts_with(trimmed) || self.buffer.len() > MAX_LEADING_WHITESPACE {
            self.state = State::Text;
            push_nonempty(out, Segment::Text, std::mem::take(&mut self.buffer));
        }
    }

    fn process_thinking(&mut self, out: &mut Vec<Segment>) {
        if let Some(tag_start) = self.buffer.find(CLOSE) {
            let after_tag = self.buffer.split_off(tag_start + CLOSE.len());
            self.buffer.truncate(tag_start);
            push_nonempty(out, Segment::Reasoning, std::mem::replace(&mut self.buffer, after_tag));
            self.state = State::AfterClose;
        } else {
            let partial_len = (1..CLOSE.len()).rev().find(|&len| self.buffer.ends_with(&CLOSE[..len])).unwrap_or(0);
            let partial_tag = self.buffer.split_off(self.buffer.len() - partial_len);
            push_nonempty(out, Segment::Reasoning, std::mem::replace(&mut self.buffer, partial_tag));
        }
    }

    fn process_after_close(&mut self) {
        let trimmed = self.buffer.trim_start();
        if trimmed.is_empty() {
            self.buffer.clear();
        } else {
            self.buffer = trimmed.to_owned();
            self.state = State::Text;
        }
    }
}

fn push_nonempty(out: &mut Vec<Segment>, kind: fn(String) -> Segment, text: String) {
    if !text.is_empty() {
        out.push(kind(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&str], prefilled: bool) -> (String, String) {
        let (mut splitter, mut out) = (ThinkSplitter::new(prefilled), Vec::new());
        for chunk in chunks {
            splitter.push((*chunk).to_owned(), &mut out);
        }
        splitter.finish(&mut out);
        let (mut text, mut reasoning) = (String::new(), String::new());
        for segment in out {
            match segment {
                Segment::Text(part) => text.push_str(&part),
                Segment::Reasoning(part) => reasoning.push_str(&part),
            }
        }
        (text, reasoning)
    }

    #[test]
    fn long_leading_whitespace_is_text() {
        let (mut splitter, mut out) = (ThinkSplitter::new(false), Vec::new());
        splitter.push(" ".repeat(MAX_LEADING_WHITESPACE + 1), &mut out);
        assert!(splitter.is_text() && !out.is_empty());
    }

    #[test]
    fn result_does_not_depend_on_chunk_boundaries() {
        for (content, prefilled, text, reasoning) in [
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
            for at in 0..=content.len() {
                assert_eq!(split(&[&content[..at], &content[at..]], prefilled), want, "{content:?} split at {at}");
            }
            let chars: Vec<String> = content.chars().map(String::from).collect();
            assert_eq!(split(&chars.iter().map(String::as_str).collect::<Vec<_>>(), prefilled), want, "{content:?}");
        }
    }
}
