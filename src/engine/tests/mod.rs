//! The engine on a scripted transport and a paused clock: what is asked, in which order, and what comes out.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

mod cut;
mod failover;
mod health;
mod lanes;
mod time;

use super::*;
use crate::{
    engine::plan::Lane,
    model::{
        Answer, Call, ChatRequest, ErrorClass, FinishReason, Held, Message, Role,
        api_key::{ApiKey, KeySource},
        endpoint::{ConnectOptions, Endpoint, Limits, Timeouts},
        target::{Target, testing},
    },
    routing::{OnCut, Policy},
    transport::{
        TransportErrorKind,
        keys::KeyRing,
        mock::{Asked, Reply, Script},
    },
};

const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const THOUGHT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
/// Chance that is the same in every run.
const SEED: u64 = 3;
const SECOND: Duration = Duration::from_secs(1);

fn answer() -> Reply {
    Reply::Pieces(vec![(Duration::ZERO, HELLO), (Duration::ZERO, STOP)])
}

fn status(code: u16) -> Reply {
    Reply::Status(code, vec![], "{\"error\":{\"message\":\"no\"}}")
}

fn lane(targets: Vec<Target>) -> Lane {
    let messages = vec![Message::text(Role::User, "hi")];
    let route = (targets.len() > 1).then(Policy::default);
    let call = Arc::new(Call::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    let candidates: Vec<Arc<Target>> = targets.into_iter().map(Arc::new).collect();
    let first = Arc::clone(&candidates[0]);
    Lane { candidates, route, ..Lane::alone("route", call, first) }
}

fn two() -> Vec<Target> {
    vec![testing::target("a"), testing::target("b")]
}

fn with_endpoint(mut target: Target, change: impl FnOnce(&mut Endpoint)) -> Target {
    change(Arc::make_mut(&mut target.endpoint));
    target
}

/// Everything a run told, and what was asked for it.
struct Ran {
    events: Vec<Event>,
    outcome: LaneOutcome,
    answer: Answer,
    asked: Vec<Asked>,
    took: Duration,
    /// Scripted replies that nobody asked for.
    left: usize,
}

impl Ran {
    /// Checks that every scripted reply was asked for.
    fn all_asked(self) -> Self {
        assert_eq!(self.left, 0, "a scripted reply was never asked for");
        self
    }

    fn models(&self) -> Vec<&str> {
        self.asked.iter().map(|asked| asked.model.as_str()).collect()
    }

    fn classes(&self) -> Vec<&str> {
        self.outcome.attempts.iter().map(|attempt| attempt.class().map_or("ok", ErrorClass::as_str)).collect()
    }

    fn failovers(&self) -> Vec<Next> {
        let failed = |event: &Event| match &event.kind {
            EventKind::Failed { next, .. } => Some(next.clone()),
            _ => None,
        };
        self.events.iter().filter_map(failed).collect()
    }

    fn notices(&self) -> Vec<Notice> {
        let notice = |event: &Event| match &event.kind {
            EventKind::Notice(notice) => Some(notice.clone()),
            _ => None,
        };
        self.events.iter().filter_map(notice).collect()
    }

    fn class(&self) -> ErrorClass {
        self.outcome.result.as_ref().expect_err("a failure").class
    }
}

async fn run(lane: Lane, replies: impl IntoIterator<Item = Reply>) -> Ran {
    Process::new(replies).ask(lane).await.all_asked()
}

/// An engine that lives on after one request, and what it is answered.
struct Process {
    script: Arc<Script>,
    engine: Arc<Engine>,
}

impl Process {
    fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Arc::new(Script::of(replies));
        let transport = Arc::clone(&script) as Arc<dyn Transport>;
        Self { engine: Arc::new(Engine::new(transport, KeyRing::default()).resident().seeded(SEED)), script }
    }

    /// Further replies.
    fn answers(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.replies.lock().expect("one thread").extend(replies);
    }

    async fn ask(&self, lane: Lane) -> Ran {
        ran(&self.engine, &self.script, lane).await
    }
}

async fn ran(engine: &Arc<Engine>, script: &Arc<Script>, lane: Lane) -> Ran {
    let before = script.asked.lock().expect("one thread").len();
    let begun = Instant::now();
    let events: Vec<Event> = engine.run(Plan::of(lane)).collect().await;
    let took = begun.elapsed();
    let (mut answer, mut held) = (Answer::default(), Held::default());
    for event in &events {
        match &event.kind {
            EventKind::Deltas(deltas) => deltas.iter().for_each(|delta| answer.add(delta)),
            EventKind::Held(deltas) => deltas.iter().for_each(|delta| held.add(delta.clone())),
            EventKind::Failed { .. } => {
                answer = Answer::default();
                held.start_again();
            }
            _ => {}
        }
    }
    let failed =
        matches!(events.last(), Some(Event { kind: EventKind::Finished(outcome), .. }) if outcome.result.is_err());
    held.take(failed).iter().for_each(|delta| answer.add(delta));
    let Some(EventKind::Finished(outcome)) = events.last().map(|event| event.kind.clone()) else {
        panic!("the last event is the end: {events:?}")
    };
    let left = script.replies.lock().expect("one thread").len();
    let asked = script.asked.lock().expect("one thread")[before..].to_vec();
    Ran { events, outcome: *outcome, answer, asked, took, left }
}
