//! Writes answers line by line as they arrive, prefixed with the name of their call; buffered text only at the end.

use super::{CompareView, OutputMode, Stage};
use crate::{
    engine::{Event, EventKind},
    model::{Delta, DeltaBuffer, DeltaKind, sanitize::Sanitizer},
    render::{Output, json},
};

/// The streaming state of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct TaggedLines {
    sanitizer: Sanitizer,
    /// The incomplete last line.
    open_line: String,
    /// Deltas that must not be shown before the answer is complete.
    buffered: DeltaBuffer,
}

impl CompareView {
    pub(super) fn stream_event(&mut self, event: &Event, output: &mut Output) {
        match &event.kind {
            EventKind::Deltas(batch) => self.write_tagged_deltas(event.call, &batch.deltas, output),
            EventKind::BufferedDeltas(batch) => {
                for delta in &batch.deltas {
                    self.tagged_lines[event.call].buffered.add(delta.clone());
                }
            }
            // The lines of a failed attempt stay; the next attempt begins on a new line.
            EventKind::Failed { .. } => {
                self.end_tagged_line(event.call, output);
                self.tagged_lines[event.call].buffered.restart();
            }
            EventKind::Restarted => self.tagged_lines[event.call].buffered = DeltaBuffer::default(),
            EventKind::Started(_)
            | EventKind::Headers(_)
            | EventKind::FirstToken(_)
            | EventKind::Notice(_)
            | EventKind::Finished(_) => {}
        }
    }

    /// Shows the buffered deltas.
    pub(super) fn show_buffered(&mut self, index: usize, output: &mut Output) {
        let failed = self.calls[index].stage() == Stage::Failed;
        let deltas = self.tagged_lines[index].buffered.take(failed);
        if self.mode == OutputMode::Events {
            json::write_lines(&json::deltas(index, &deltas), output);
        }
        self.write_tagged_deltas(index, &deltas, output);
    }

    fn write_tagged_deltas(&mut self, index: usize, deltas: &[Delta], output: &mut Output) {
        if self.mode == OutputMode::Tagged {
            for delta in deltas {
                self.write_tagged_delta(index, delta, output);
            }
        }
    }

    fn write_tagged_delta(&mut self, index: usize, delta: &Delta, output: &mut Output) {
        let (0, DeltaKind::Text(text) | DeltaKind::Refusal(text)) = (delta.choice, &delta.kind) else { return };
        let tagged = &mut self.tagged_lines[index];
        // Only the new text is searched, since the open line may be long.
        let searched_len = tagged.open_line.len();
        tagged.sanitizer.push(text, &mut tagged.open_line);
        let Some(end) = tagged.open_line[searched_len..].rfind('\n').map(|end| searched_len + end) else { return };
        let open_line = tagged.open_line.split_off(end + 1);
        let lines = std::mem::replace(&mut tagged.open_line, open_line);
        for line in lines.lines() {
            output.out().extend([self.calls[index].name.as_str(), "| ", line, "\n"]);
        }
    }

    pub(super) fn end_tagged_line(&mut self, index: usize, output: &mut Output) {
        let tagged = &mut self.tagged_lines[index];
        tagged.sanitizer = Sanitizer::default();
        let line = std::mem::take(&mut tagged.open_line);
        if !line.is_empty() {
            output.out().extend([self.calls[index].name.as_str(), "| ", line.as_str(), "\n"]);
        }
    }
}
