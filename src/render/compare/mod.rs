//! Several answers at once, as `compare` shows them.
//!
//! Owns the arrangements: side by side, one below the other, line by line with the name in front, or the figures alone;
//! and the data formats over several lanes. On a pipe answers come whole, in the order asked for, without an escape
//! byte. Refuses to write and to draw: text goes into an [`Output`], rows of the live region to whoever draws them.

mod columns;
mod lane;
mod live;
mod page;
mod settings;
mod status;
mod summary;
mod tagged;
#[cfg(test)]
mod tests;
mod timeline;

use tokio::time::Instant;

pub use columns::{Block, columns, fit, suit};
use lane::{LaneView, Stage};
use live::LiveView;
pub use live::{Key, Wish};
use settings::Arrangement;
pub use settings::{Settings, VIEWS, View};
use tagged::Tag;
pub use timeline::Timeline;

use super::{Format, Output, json, notice, report::ReportLane, wrap::wrap};
use crate::{
    engine::{Event, EventKind, LaneOutcome},
    model::target::TargetId,
};

/// A page without a terminal is as wide as this.
const PAGE: usize = 80;

/// Shows the lanes of a run.
#[derive(Debug)]
pub struct CompareView {
    settings: Settings,
    arrangement: Arrangement,
    lanes: Vec<LaneView>,
    /// What the arrangements that show text as it comes know of each lane.
    tags: Vec<Tag>,
    /// The lane whose turn it is.
    turn: usize,
    begun: Instant,
    live: LiveView,
    /// What one more try costs was not counted.
    is_capped: bool,
    /// How each answer grew, where that is needed.
    timelines: Vec<Timeline>,
}

impl CompareView {
    /// A view of the lanes with these names, which begin at `now`.
    #[must_use]
    pub fn new(settings: Settings, names: impl Iterator<Item = impl Into<String>>, now: Instant) -> Self {
        let lanes: Vec<LaneView> = names.map(|name| LaneView::new(name.into(), settings.prompt_tokens)).collect();
        let arrangement = settings.arrangement();
        let (tags, live) = (vec![Tag::default(); lanes.len()], LiveView::new(lanes.len()));
        let timelines = vec![Timeline::default(); lanes.len()];
        Self { tags, settings, arrangement, lanes, turn: 0, begun: now, live, is_capped: false, timelines }
    }

    /// What stands in front of everything.
    pub fn begin(&mut self, to: &mut Output) {
        match self.settings.format {
            Format::Json => to.out().push_str(if self.settings.wrapped { "{\"answers\": [\n" } else { "[\n" }),
            Format::Jsonl => {
                let names: Vec<&str> = self.lanes.iter().map(|lane| lane.name.as_str()).collect();
                json::lines(&[json::run(&names)], to);
            }
            Format::Text | Format::Markdown => {}
        }
    }

    /// What `event` adds to the two streams.
    pub fn event(&mut self, event: &Event, to: &mut Output) {
        if self.arrangement == Arrangement::Events {
            json::lines(&json::event(event), to);
        }
        if let Some((line, of)) = self.told(event) {
            self.say(event.lane, &line, &of.0, to);
        }
        self.lanes[event.lane].event(event);
        if self.settings.whole {
            self.trace(event);
        }
        if matches!(self.arrangement, Arrangement::Tagged | Arrangement::Events) {
            self.as_it_comes(event, to);
        }
        if let EventKind::Finished(_) = &event.kind {
            self.lane_over(event.lane, to);
        }
    }

    /// What is told at once, in one line that names this target.
    fn told(&self, event: &Event) -> Option<(String, TargetId)> {
        match &event.kind {
            EventKind::Started(target) if self.settings.verbose => {
                let (endpoint, upstream) = (&target.endpoint.name, &target.upstream);
                Some((format!("asking {} ({endpoint}: {upstream})", target.id), target.id.clone()))
            }
            EventKind::Failed { record, next } => {
                Some((notice::failed(record, next, self.settings.verbose)?, record.target.id.clone()))
            }
            EventKind::Notice(what) if notice::is_detail(what) && !self.settings.verbose => None,
            EventKind::Notice(what) => Some((notice::notice(what), what.target().clone())),
            EventKind::Started(_)
            | EventKind::Deltas(_)
            | EventKind::Held(_)
            | EventKind::Ttft(_)
            | EventKind::Again
            | EventKind::Finished(_) => None,
        }
    }

    /// One line on stderr that names `named`; whose it is, unless that says it.
    fn say(&self, lane: usize, line: &str, named: &str, to: &mut Output) {
        let name = &self.lanes[lane].name;
        let err = to.err();
        if named != name {
            err.extend([name.as_str(), ": "]);
        }
        err.extend([line, "\n"]);
    }

    fn lane_over(&mut self, lane: usize, to: &mut Output) {
        match self.arrangement {
            Arrangement::InTurn => {
                while self.lanes.get(self.turn).is_some_and(|lane| lane.outcome().is_some()) {
                    self.whole(self.turn, to);
                    self.turn += 1;
                }
            }
            Arrangement::Tagged => {
                self.show_held(lane, to);
                self.end_tag(lane, to);
                self.note_apart(lane, to);
                self.shown(lane);
            }
            Arrangement::Events => {
                self.show_held(lane, to);
                let mut object = self.object(lane);
                object["event"] = "finished".into();
                object["lane"] = lane.into();
                json::lines(&[object], to);
            }
            Arrangement::Figures => {
                self.note_apart(lane, to);
                self.shown(lane);
            }
            Arrangement::AtEnd => {}
        }
    }

    /// A whole answer whose turn has come.
    fn whole(&mut self, index: usize, to: &mut Output) {
        match self.settings.format {
            Format::Json | Format::Jsonl => {
                let object = self.object(index);
                let more = if index + 1 < self.lanes.len() { "," } else { "" };
                to.out().extend([object.to_string().as_str(), more, "\n"]);
            }
            Format::Markdown => {
                let lane = &self.lanes[index];
                let gap = if index > 0 { "\n" } else { "" };
                // The source is data on a pipe; a terminal would obey what is in it.
                let source = if self.settings.look.out_width.is_some() { lane.text().into() } else { lane.source() };
                let text = format!("{gap}# {}\n\n{}", lane.name, source.trim_end());
                to.out().extend([text.trim_end(), "\n"]);
                self.note_apart(index, to);
            }
            Format::Text => self.stacked(index, to),
        }
        self.shown(index);
    }

    /// The text of a lane was put out.
    fn shown(&mut self, lane: usize) {
        if !self.settings.whole {
            self.lanes[lane].forget_text();
        }
    }

    /// Notes how an answer grows.
    fn trace(&mut self, event: &Event) {
        let timeline = &mut self.timelines[event.lane];
        match &event.kind {
            EventKind::Deltas(_) | EventKind::Held(_) => {
                let at = event.at.saturating_duration_since(self.begun);
                timeline.note(at, self.lanes[event.lane].kept.tokens.tokens());
            }
            EventKind::Failed { .. } | EventKind::Again => *timeline = Timeline::default(),
            EventKind::Started(_) | EventKind::Ttft(_) | EventKind::Notice(_) | EventKind::Finished(_) => {}
        }
    }

    fn object(&mut self, index: usize) -> serde_json::Value {
        let lane = &mut self.lanes[index];
        let (usage, cost) = (lane.usage(), lane.cost().map(|(cost, _)| cost));
        let answer = if self.settings.whole { lane.kept.answer.clone() } else { std::mem::take(&mut lane.kept.answer) };
        // The figures of the summary need what the answer's text does not.
        lane.kept.answer.usage = answer.usage;
        let outcome = lane.outcome().expect("only lanes that are over are told of");
        json::answer(&lane.name, answer, (usage.as_ref(), cost), outcome)
    }

    /// On a pipe stdout holds answers; what else there is to say of one goes to stderr.
    fn note_apart(&self, index: usize, to: &mut Output) {
        let lane = &self.lanes[index];
        if let Some(note) = lane.note() {
            self.say(index, &note, lane.named_in_note(), to);
        }
    }

    /// The terminal is so wide now.
    pub fn widen(&mut self, width: usize) {
        if let Some(known) = &mut self.settings.look.out_width {
            *known = width;
        }
    }

    /// Ctrl-C at `now`: what arrived is shown, marked.
    pub fn interrupted(&mut self, now: Instant, to: &mut Output) {
        for index in 0..self.lanes.len() {
            if self.lanes[index].outcome().is_none() {
                self.lanes[index].interrupt(now);
                self.lane_over(index, to);
            }
        }
    }

    /// All lanes are over: what was kept for the end, and the figures.
    pub fn end(&mut self, to: &mut Output) {
        if self.settings.format == Format::Json {
            to.out().push_str(if self.settings.wrapped { "]" } else { "]\n" });
        }
        if self.arrangement == Arrangement::AtEnd {
            self.final_view(to);
        }
        if self.settings.format == Format::Text {
            self.figures(to);
        }
    }

    /// Where the answers are kept, and what can be done with them: for people, below the table.
    /// `numbers`: how each lane is numbered there.
    #[must_use]
    pub fn kept(&self, conversation: i64, numbers: &[Option<i64>]) -> String {
        if self.settings.format != Format::Text || !self.settings.look.err_is_terminal {
            return String::new();
        }
        let whole = |lane: &LaneView| matches!(lane.stage(), Stage::Good | Stage::Odd);
        let mut numbered = self.lanes.iter().zip(numbers).filter(|(lane, _)| whole(lane));
        let text = match numbered.find_map(|(_, number)| *number) {
            Some(lane) => format!(
                "run {conversation}    one answer: mmchat history show @{lane}    go on with it: mmchat pick @{lane}"
            ),
            None => format!("run {conversation}    ask those that failed once more: mmchat retry"),
        };
        // Without a width a pipe takes the answers, and the terminal wraps as it likes.
        let rows = wrap(&text, self.settings.look.out_width.map_or(text.len(), |width| width.saturating_sub(1)));
        rows.into_iter().fold(String::new(), |text, row| text + row.text.trim_end() + "\n")
    }

    /// The rows of the live region.
    #[must_use]
    pub fn rows(&mut self, width: usize, height: usize, now: Instant) -> Vec<String> {
        let screen = status::Screen { width, height, styled: self.settings.look.styled, now, begun: self.begun };
        self.live.rows(&self.lanes, !self.settings.rendered, screen)
    }

    /// Keys are listened to: the live region says which.
    #[must_use]
    pub fn with_keys(mut self) -> Self {
        self.live.with_keys();
        self
    }

    /// A key was pressed: what is to be done. What was put out already cannot be had again.
    pub fn key(&mut self, key: Key) -> Option<Wish> {
        let wish = self.live.key(key, &self.lanes);
        wish.filter(|wish| match wish {
            Wish::Again(lane) => self.may_begin_again(*lane),
            Wish::Stop(_) | Wish::Leave => true,
        })
    }

    fn may_begin_again(&self, lane: usize) -> bool {
        let is_put_out = match self.arrangement {
            Arrangement::AtEnd | Arrangement::Figures => false,
            Arrangement::InTurn => lane < self.turn,
            Arrangement::Tagged | Arrangement::Events => true,
        };
        !is_put_out && !self.is_capped
    }

    /// What the lanes may cost is limited, for one try each.
    #[must_use]
    pub fn capped(mut self) -> Self {
        self.is_capped = true;
        self
    }

    /// Whether the person holds the live region as it is.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.live.is_held()
    }

    /// Nobody holds it any more.
    pub fn release(&mut self) {
        self.live.release();
    }

    /// The lane that the person picked to go on with, if there is an answer in it.
    #[must_use]
    pub fn picked(&self) -> Option<usize> {
        self.live.picked().filter(|lane| !self.lanes[*lane].kept.is_empty())
    }

    /// What the lanes are called.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lanes.iter().map(|lane| lane.name.clone()).collect()
    }

    /// The answers; `None`: there is no whole one.
    #[must_use]
    pub fn texts(&self) -> Vec<Option<String>> {
        self.lanes.iter().map(LaneView::whole_text).collect()
    }

    /// Everything there is to tell of each lane.
    #[must_use]
    pub fn report(&self) -> Vec<ReportLane> {
        self.lanes.iter().zip(&self.timelines).map(|(lane, timeline)| lane.report(timeline.clone())).collect()
    }

    /// How the lanes ended, those that have.
    pub fn outcomes(&self) -> impl Iterator<Item = &LaneOutcome> {
        self.lanes.iter().filter_map(LaneView::outcome)
    }
}
