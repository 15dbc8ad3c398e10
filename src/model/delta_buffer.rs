//! An answer that is not shown before it is whole.
//!
//! Owns what such an answer takes in memory (its text, however many pieces it came in) and what becomes of it when it
//! broke off: the next attempt's takes its place once that has said something. Refuses to decide when it is shown.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem::Discriminant,
};

use super::{Delta, DeltaKind};

/// Deltas held back, joined.
#[derive(Clone, Debug, Default)]
pub struct Held {
    deltas: Vec<Delta>,
    /// Where in `deltas` each thing is that can go on.
    places: HashMap<Thing, usize>,
    /// What a broken-off attempt left, in case no later one says more.
    earlier: Vec<Delta>,
}

impl Held {
    /// Adds a piece to what it continues.
    pub fn add(&mut self, delta: Delta) {
        match self.places.entry(thing(&delta)) {
            Entry::Occupied(place) => join(&mut self.deltas[*place.get()].kind, delta.kind),
            Entry::Vacant(place) => {
                place.insert(self.deltas.len());
                self.deltas.push(delta);
            }
        }
    }

    /// The attempt failed: the next one begins anew.
    pub fn start_again(&mut self) {
        self.places.clear();
        let broken_off = std::mem::take(&mut self.deltas);
        if says_something(&broken_off) {
            self.earlier = broken_off;
        }
    }

    /// All there is to show. When the last attempt `failed`, too, and said nothing, that is what an earlier one left.
    pub fn take(&mut self, failed: bool) -> Vec<Delta> {
        self.places.clear();
        let (own, earlier) = (std::mem::take(&mut self.deltas), std::mem::take(&mut self.earlier));
        if !failed || says_something(&own) || earlier.is_empty() { own } else { earlier }
    }
}

fn says_something(deltas: &[Delta]) -> bool {
    deltas.iter().any(|delta| delta.kind.is_answer())
}

/// What one held delta is all of: its choice, its kind, and which call of a tool.
type Thing = (u16, Discriminant<DeltaKind>, u32);

fn thing(delta: &Delta) -> Thing {
    let call = if let DeltaKind::ToolCall(call) = &delta.kind { call.index } else { 0 };
    (delta.choice, std::mem::discriminant(&delta.kind), call)
}

fn join(held: &mut DeltaKind, piece: DeltaKind) {
    use DeltaKind as K;
    match (held, piece) {
        (K::Text(held), K::Text(text))
        | (K::Reasoning(held), K::Reasoning(text))
        | (K::Refusal(held), K::Refusal(text)) => held.push_str(&text),
        (K::ToolCall(held), K::ToolCall(piece)) => held.join(&piece),
        (held, later) => *held = later,
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
    fn pieces_take_no_more_room_than_their_text() {
        let mut held = Held::default();
        for _ in 0..1000 {
            held.add(delta(DeltaKind::Reasoning("hm".into())));
            held.add(text("word"));
            held.add(delta(DeltaKind::Usage(Usage::default())));
            held.add(delta(DeltaKind::ToolCall(ToolCall { arguments: "x".into(), ..ToolCall::default() })));
        }
        let deltas = held.take(false);
        assert_eq!(deltas.len(), 4);
        assert_eq!(deltas[1], text(&"word".repeat(1000)));
    }

    #[test]
    fn an_answer_that_broke_off_gives_way_only_to_words() {
        let mut held = Held::default();
        held.add(text("half"));
        held.start_again();
        held.add(delta(DeltaKind::Reasoning("hm".into())));
        assert_eq!(held.clone().take(true), [text("half")]);
        assert_eq!(held.take(false).len(), 1, "an answer without a word is one, too");
        held.add(text("half"));
        held.start_again();
        held.add(text("whole"));
        assert_eq!(held.take(true), [text("whole")]);
        assert_eq!(held.take(true), []);
    }
}
