//! Decoder state of one choice: the `<think>` splitter, the text so far, and the keys of its tool calls.

use crate::{
    model::{FinishReason, target::DecodeOptions},
    protocol::think_tags::ThinkSplitter,
};

/// Maximum tool calls per choice; a response with more is rejected as invalid.
pub(super) const MAX_TOOL_CALLS: u32 = 1024;

#[derive(Debug)]
pub(super) struct ChoiceState {
    pub(super) index: u16,
    pub(super) think_splitter: ThinkSplitter,
    /// The text so far, kept only for cumulative deltas.
    text: String,
    pub(super) finish_reason: Option<FinishReason>,
    /// The tool calls so far, in order.
    tool_calls: Vec<ToolCallKey>,
}

/// Identifies the tool call that a chunk belongs to.
#[derive(Debug)]
struct ToolCallKey {
    /// The `index` that the service sent, or the position in the message.
    index: u64,
    id: String,
    name: String,
}

impl ChoiceState {
    /// The state before the first chunk.
    pub(super) fn new(index: u16, options: DecodeOptions) -> Self {
        let think_splitter = ThinkSplitter::new(options.think_prefilled);
        Self { index, think_splitter, text: String::new(), finish_reason: None, tool_calls: Vec::new() }
    }

    /// The part of a cumulative delta that extends the text so far.
    pub(super) fn new_suffix(&mut self, text: String) -> String {
        let suffix = text.strip_prefix(self.text.as_str()).unwrap_or(&text).to_owned();
        self.text = text;
        suffix
    }

    /// The position of the tool call that a chunk belongs to. Some services send index 0 for every call, or no index,
    /// so a different id or name starts a new call.
    pub(super) fn tool_call_position(&mut self, index: u64, id: &str, name: &str) -> usize {
        let differs = |current: &str, new: &str| !current.is_empty() && !new.is_empty() && current != new;
        let is_same = |call: &ToolCallKey| call.index == index && !differs(&call.id, id) && !differs(&call.name, name);
        // Search from the end: chunks of a call are usually consecutive.
        match self.tool_calls.iter().rposition(is_same) {
            Some(position) => {
                let call = &mut self.tool_calls[position];
                if call.id.is_empty() {
                    id.clone_into(&mut call.id);
                }
                if call.name.is_empty() {
                    name.clone_into(&mut call.name);
                }
                position
            }
            None if self.tool_calls.len() > MAX_TOOL_CALLS as usize => self.tool_calls.len(),
            None => {
                self.tool_calls.push(ToolCallKey { index, id: id.to_owned(), name: name.to_owned() });
                self.tool_calls.len() - 1
            }
        }
    }
}
