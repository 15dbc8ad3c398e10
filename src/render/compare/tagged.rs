//! Answers line by line as they come, each line with its lane's name in front; and what is held back until it is whole.

use super::{Arrangement, CompareView, Stage};
use crate::{
    engine::{Event, EventKind},
    model::{Delta, DeltaKind, Held, sanitize::Sanitiser},
    render::{Output, json},
};

/// One lane whose text is shown as it comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Tag {
    sanitiser: Sanitiser,
    /// Its open line.
    line: String,
    /// What may not be shown before the answer is whole.
    held: Held,
}

impl CompareView {
    pub(super) fn as_it_comes(&mut self, event: &Event, to: &mut Output) {
        match &event.kind {
            EventKind::Deltas(deltas) => self.tag_deltas(event.lane, deltas, to),
            EventKind::Held(deltas) => {
                for delta in deltas {
                    self.tags[event.lane].held.add(delta.clone());
                }
            }
            // What broke off stays on its lines; the next attempt begins one of its own.
            EventKind::Failed { .. } => {
                self.end_tag(event.lane, to);
                self.tags[event.lane].held.start_again();
            }
            EventKind::Again => self.tags[event.lane].held = Held::default(),
            EventKind::Started(_) | EventKind::Ttft(_) | EventKind::Notice(_) | EventKind::Finished(_) => {}
        }
    }

    /// Shows what could not be shown before.
    pub(super) fn show_held(&mut self, lane: usize, to: &mut Output) {
        let failed = self.lanes[lane].stage() == Stage::Bad;
        let deltas = self.tags[lane].held.take(failed);
        if self.arrangement == Arrangement::Events {
            json::lines(&json::deltas(lane, &deltas), to);
        }
        self.tag_deltas(lane, &deltas, to);
    }

    fn tag_deltas(&mut self, lane: usize, deltas: &[Delta], to: &mut Output) {
        if self.arrangement == Arrangement::Tagged {
            for delta in deltas {
                self.tag_delta(lane, delta, to);
            }
        }
    }

    fn tag_delta(&mut self, lane: usize, delta: &Delta, to: &mut Output) {
        let (0, DeltaKind::Text(text) | DeltaKind::Refusal(text)) = (delta.choice, &delta.kind) else { return };
        let tag = &mut self.tags[lane];
        // Only what is new is looked through: an open line may be long.
        let known = tag.line.len();
        tag.sanitiser.push(text, &mut tag.line);
        let Some(end) = tag.line[known..].rfind('\n').map(|end| known + end) else { return };
        let rest = tag.line.split_off(end + 1);
        let lines = std::mem::replace(&mut tag.line, rest);
        for line in lines.lines() {
            to.out().extend([self.lanes[lane].name.as_str(), "| ", line, "\n"]);
        }
    }

    pub(super) fn end_tag(&mut self, lane: usize, to: &mut Output) {
        let tag = &mut self.tags[lane];
        tag.sanitiser = Sanitiser::default();
        let line = std::mem::take(&mut tag.line);
        if !line.is_empty() {
            to.out().extend([self.lanes[lane].name.as_str(), "| ", line.as_str(), "\n"]);
        }
    }
}
