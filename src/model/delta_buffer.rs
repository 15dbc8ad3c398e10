//! Buffers the deltas of an answer that is shown only when it is complete.
//!
//! Deltas of the same kind are joined, so memory use depends on the text, not on the number of chunks. After a failed
//! attempt, the partial answer is kept until the next attempt produces answer content.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem::Discriminant,
};

use super::{Delta, DeltaKind};

/// Buffered deltas, joined by choice and kind.
#[derive(Clone, Debug, Default)]
pub struct DeltaBuffer {
    deltas: Vec<Delta>,
    /// Index in `deltas` by merge key.
    positions: HashMap<MergeKey, usize>,
    /// Deltas of the last failed attempt with answer content, used if no later attempt produces any.
    previous_attempt: Vec<Delta>,
}

impl DeltaBuffer {
    /// Adds a delta, joining it with the one it continues.
    pub fn add(&mut self, delta: Delta) {
        match self.positions.entry(merge_key(&delta)) {
            Entry::Occupied(entry) => merge(&mut self.deltas[*entry.get()].kind, delta.kind),
            Entry::Vacant(entry) => {
                entry.insert(self.deltas.len());
                self.deltas.push(delta);
            }
        }
    }

    /// Starts a new attempt after the current one failed.
    pub fn restart(&mut self) {
        self.positions.clear();
        let partial = std::mem::take(&mut self.deltas);
        if has_answer_content(&partial) {
            self.previous_attempt = partial;
        }
    }

    /// Takes the buffered deltas of the current attempt, or the partial answer of an earlier one if the current attempt
    /// `failed` without answer content.
    pub fn take(&mut self, failed: bool) -> Vec<Delta> {
        self.positions.clear();
        let (current, previous) = (std::mem::take(&mut self.deltas), std::mem::take(&mut self.previous_attempt));
        if !failed || has_answer_content(&current) || previous.is_empty() { current } else { previous }
    }
}

fn has_answer_content(deltas: &[Delta]) -> bool {
    deltas.iter().any(|delta| delta.kind.is_answer())
}

/// Deltas with the same key are joined: choice, kind, and index of the tool call.
type MergeKey = (u16, Discriminant<DeltaKind>, u32);

fn merge_key(delta: &Delta) -> MergeKey {
    let call_index = if let DeltaKind::ToolCall(call) = &delta.kind { call.index } else { 0 };
    (delta.choice, std::mem::discriminant(&delta.kind), call_index)
}

fn merge(buffered: &mut DeltaKind, delta: DeltaKind) {
    use DeltaKind as K;
    match (buffered, delta) {
        (K::Text(buffered), K::Text(text))
        | (K::Reasoning(buffered), K::Reasoning(text))
        | (K::Refusal(buffered), K::Refusal(text)) => buffered.push_str(&text),
        (K::ToolCall(buffered), K::ToolCall(fragment)) => buffered.append(&fragment),
        (K::Opaque(buffered), K::Opaque(bytes)) | (K::OpaqueReasoning(buffered), K::OpaqueReasoning(bytes)) => {
            *buffered += bytes;
        }
        (buffered, delta) => *buffered = delta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ToolCall, Usage};

    fn delta(kind: DeltaKind) -> Delta {
        Delta { choice: 0, kind }
    }

    fn text(text: &str) -> Delta {
        delta(DeltaKind::Text(text.into()))
    }

    #[test]
    fn deltas_of_the_same_kind_are_joined() {
        let mut buffer = DeltaBuffer::default();
        for _ in 0..1000 {
            buffer.add(delta(DeltaKind::Reasoning("hm".into())));
            buffer.add(text("word"));
            buffer.add(delta(DeltaKind::Usage(Usage::default())));
            buffer.add(delta(DeltaKind::Opaque(2)));
            buffer.add(delta(DeltaKind::ToolCall(ToolCall { arguments: "x".into(), ..ToolCall::default() })));
        }
        let deltas = buffer.take(false);
        assert_eq!((deltas.len(), &deltas[3].kind), (5, &DeltaKind::Opaque(2000)));
        assert_eq!(deltas[1], text(&"word".repeat(1000)));
    }

    #[test]
    fn partial_answer_is_replaced_only_by_answer_content() {
        let mut buffer = DeltaBuffer::default();
        buffer.add(text("partial"));
        buffer.restart();
        buffer.add(delta(DeltaKind::Reasoning("hm".into())));
        assert_eq!(buffer.clone().take(true), [text("partial")]);
        assert_eq!(buffer.take(false).len(), 1, "a complete answer without content replaces the partial one");
        buffer.add(text("partial"));
        buffer.restart();
        buffer.add(text("complete"));
        assert_eq!(buffer.take(true), [text("complete")]);
        assert_eq!(buffer.take(true), []);
    }
}
