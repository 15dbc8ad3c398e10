//! Several answers at once, as `compare` shows them.
//!
//! Owns the arrangements: side by side, one below the other, line by line with the name in front, or the figures alone;
//! and the data formats over several lanes. On a pipe answers come whole, in the order asked for, without an escape
//! byte. Refuses to write and to draw: text goes into an [`Output`], rows of the live region to whoever draws them.

mod columns;
mod lane;
mod live;
mod settings;
mod status;
mod summary;
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
pub use timeline::Timeline;

use super::{Format, Output, json, markdown::Markdown, notice, report::ReportLane, wrap::widest_fixed_line};
use crate::{
    chat::{
        Delta, DeltaKind, Held,
        sanitise::{Sanitiser, sanitised},
    },
    engine::{Event, EventKind, LaneOutcome},
    target::TargetId,
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
    /// How each answer grew, where that is needed.
    timelines: Vec<Timeline>,
}

/// One lane whose text is shown as it comes.
#[derive(Clone, Debug, Default)]
struct Tag {
    sanitiser: Sanitiser,
    /// Its open line.
    line: String,
    /// What may not be shown before the answer is whole.
    held: Held,
}

impl CompareView {
    /// A view of the lanes with these names, which begin at `now`.
    #[must_use]
    pub fn new(settings: Settings, names: impl Iterator<Item = impl Into<String>>, now: Instant) -> Self {
        let lanes: Vec<LaneView> = names.map(|name| LaneView::new(name.into(), settings.prompt_tokens)).collect();
        let arrangement = settings.arrangement();
        let (tags, live) = (vec![Tag::default(); lanes.len()], LiveView::new(lanes.len()));
        let timelines = vec![Timeline::default(); lanes.len()];
        Self { tags, settings, arrangement, lanes, turn: 0, begun: now, live, timelines }
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

    /// One answer below the others, with its head.
    fn stacked(&self, index: usize, to: &mut Output) {
        let lane = &self.lanes[index];
        let head = self.head(index);
        let gap = if index > 0 { "\n" } else { "" };
        let Some(width) = self.settings.look.out_width else {
            let text = lane.text();
            to.out().extend([gap, "--- ", &head, "\n"]);
            if !text.trim().is_empty() {
                to.out().extend([text.trim_end(), "\n"]);
            }
            return self.note_apart(index, to);
        };
        let head = format!("--- {head} ");
        let rule = "-".repeat(width.saturating_sub(1 + super::wrap::cells(&head)));
        let (on, off) = if self.settings.look.styled { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        to.out().extend([gap, on, &head, &rule, off, "\n"]);
        let text = lane.text();
        if self.settings.rendered {
            let mut markdown = Markdown::new(width).with_tables();
            markdown.push(text.trim_end(), to.out());
            markdown.finish(to.out());
        } else if !text.trim().is_empty() {
            to.out().extend([text.trim_end(), "\n"]);
        }
        if let Some(note) = lane.note() {
            to.out().extend([self.painted(&note, lane.stage()).as_str(), "\n"]);
        }
    }

    /// `1 fast  ok`, `3 local  ok (length)`
    fn head(&self, index: usize) -> String {
        let lane = &self.lanes[index];
        let state = if lane.stage() == Stage::Odd { format!("ok ({})", lane.state()) } else { lane.state() };
        format!("{} {}  {state}", index + 1, lane.name)
    }

    /// On a pipe stdout holds answers; what else there is to say of one goes to stderr.
    fn note_apart(&self, index: usize, to: &mut Output) {
        let lane = &self.lanes[index];
        if let Some(note) = lane.note() {
            self.say(index, &note, lane.named_in_note(), to);
        }
    }

    fn painted(&self, note: &str, stage: Stage) -> String {
        let code = match stage {
            _ if !self.settings.look.styled => return note.to_owned(),
            Stage::Bad => "31",
            _ => "33",
        };
        format!("\u{1b}[{code}m{note}\u{1b}[0m")
    }

    fn as_it_comes(&mut self, event: &Event, to: &mut Output) {
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
    fn show_held(&mut self, lane: usize, to: &mut Output) {
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

    fn end_tag(&mut self, lane: usize, to: &mut Output) {
        let tag = &mut self.tags[lane];
        tag.sanitiser = Sanitiser::default();
        let line = std::mem::take(&mut tag.line);
        if !line.is_empty() {
            to.out().extend([self.lanes[lane].name.as_str(), "| ", line.as_str(), "\n"]);
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

    /// Side by side where that reads well, or was asked for; else one below the other.
    fn final_view(&self, to: &mut Output) {
        let width = self.settings.look.out_width.unwrap_or(PAGE);
        let styled = self.settings.look.styled && self.settings.look.out_width.is_some();
        let blocks: Vec<Block> = (0..self.lanes.len()).map(|index| self.block(index, width)).collect();
        if self.settings.view == View::Columns || suit(&blocks, width) {
            to.out().push_str(&columns(&blocks, width, styled));
            if self.settings.look.out_width.is_none() {
                for index in 0..self.lanes.len() {
                    self.note_apart(index, to);
                }
            }
        } else {
            for index in 0..self.lanes.len() {
                self.stacked(index, to);
            }
        }
    }

    fn block(&self, index: usize, width: usize) -> Block {
        let lane = &self.lanes[index];
        let source = lane.text();
        let terminal = self.settings.look.out_width.is_some();
        let mut text = source.trim_end().to_owned();
        if terminal && self.settings.rendered {
            let mut markdown = Markdown::unwrapped(columns::column(width, fit(width).min(self.lanes.len())));
            let mut out = String::new();
            markdown.push(&text, &mut out);
            markdown.finish(&mut out);
            out.trim_end().clone_into(&mut text);
        }
        if let Some(note) = lane.note().filter(|_| terminal) {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&self.painted(&note, lane.stage()));
        }
        let counts = matches!(lane.stage(), Stage::Good | Stage::Odd) && !source.trim().is_empty();
        Block { head: self.head(index), fixed: widest_fixed_line(&sanitised(&text)), text, counts }
    }

    /// The table: beside the answers on a terminal, apart from them on a pipe, and on stdout when it is all there is.
    fn figures(&self, to: &mut Output) {
        let look = self.settings.look;
        let alone = self.arrangement == Arrangement::Figures;
        let width = look.out_width.filter(|_| alone || look.err_is_terminal);
        let table = summary::summary(&self.lanes, width, look.styled && width.is_some());
        let to = if alone { to.out() } else { to.err() };
        if !alone {
            to.push('\n');
        }
        to.push_str(&table);
    }

    /// Where the answers are kept, and what can be done with them: for people, below the table.
    #[must_use]
    pub fn kept(&self, conversation: i64) -> String {
        if self.settings.format != Format::Text || !self.settings.look.err_is_terminal {
            return String::new();
        }
        let whole = |lane: &LaneView| matches!(lane.stage(), Stage::Good | Stage::Odd);
        let Some(lane) = self.lanes.iter().position(whole).map(|lane| lane + 1) else {
            return format!("run {conversation}    ask those that failed once more: mmchat retry\n");
        };
        format!("run {conversation}    one answer: mmchat history show @{lane}    go on with it: mmchat pick @{lane}\n")
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
            Wish::Again(lane) => self.arrangement == Arrangement::AtEnd || *lane >= self.turn,
            Wish::Stop(_) | Wish::Hold | Wish::Leave => true,
        })
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
