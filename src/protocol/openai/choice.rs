//! One of the answers in a reply, as far as it has come.
//!
//! Owns what later pieces depend on: whether thinking is over, the text that is repeated, and which call of a tool a
//! piece belongs to.

use crate::{
    model::{FinishReason, target::DecodeOptions},
    protocol::think_tags::ThinkSplitter,
};

/// More calls of tools than this, and a service is not answering our request.
pub(super) const MOST_TOOL_CALLS: u32 = 1024;

#[derive(Debug)]
pub(super) struct ChoiceState {
    pub(super) index: u16,
    pub(super) think: ThinkSplitter,
    /// The whole text so far, kept only when deltas repeat it.
    so_far: String,
    pub(super) finish: Option<FinishReason>,
    /// The calls of tools so far, in their order.
    calls: Vec<Call>,
}

/// What tells the pieces of one call of a tool from those of another.
#[derive(Debug)]
struct Call {
    /// The service's own number for it, or its place in the message.
    index: u64,
    id: String,
    name: String,
}

impl ChoiceState {
    /// A choice of which nothing has come yet.
    pub(super) fn new(index: u16, options: DecodeOptions) -> Self {
        let think = ThinkSplitter::new(options.think_prefilled);
        Self { index, think, so_far: String::new(), finish: None, calls: Vec::new() }
    }

    /// What `text` adds to the text so far, where deltas repeat it.
    pub(super) fn news(&mut self, text: String) -> String {
        let news = text.strip_prefix(self.so_far.as_str()).unwrap_or(&text).to_owned();
        self.so_far = text;
        news
    }

    /// The place of the call that a piece belongs to. Some services number every call 0, or none: another id or another
    /// name is another call.
    pub(super) fn call(&mut self, index: u64, id: &str, name: &str) -> usize {
        let differs = |known: &str, new: &str| !known.is_empty() && !new.is_empty() && known != new;
        let same = |call: &Call| call.index == index && !differs(&call.id, id) && !differs(&call.name, name);
        // The latest first: pieces of a call mostly follow each other.
        match self.calls.iter().rposition(same) {
            Some(place) => {
                let call = &mut self.calls[place];
                if call.id.is_empty() {
                    id.clone_into(&mut call.id);
                }
                if call.name.is_empty() {
                    name.clone_into(&mut call.name);
                }
                place
            }
            None if self.calls.len() > MOST_TOOL_CALLS as usize => self.calls.len(),
            None => {
                self.calls.push(Call { index, id: id.to_owned(), name: name.to_owned() });
                self.calls.len() - 1
            }
        }
    }
}
