//! One lane: its candidates in turn, until one answers.
//!
//! Owns what `route::classify` only decides: waiting, repeating, changing keys, going on, giving up. The work is a
//! plain `async` function that reports through a bounded channel; [`run`] polls both as one stream, on the caller's
//! task, so nothing is spawned and dropping the stream stops everything.

use std::{collections::VecDeque, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{Stream, future::Either};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{AttemptRecord, Engine, Event, EventKind, LaneOutcome, Next, Notice, Whole, credentials::resolve};
use crate::{
    attempt::{Attempt, Credentials, Finished, Patience, Start, Step},
    chat::{Call, Delta, DeltaKind, ErrorClass},
    endpoint::is_private,
    plan::Lane,
    protocol::{ApiError, protocol},
    route::{
        OnCut,
        attempts::Budget,
        classify::{Decision, Situation, decide},
    },
    secret::KeySource,
    target::Target,
};

/// How long a silent candidate is waited for while there is another to ask.
const SILENT_REMOTE: Duration = Duration::from_secs(10);
const SILENT_SLOW: Duration = Duration::from_secs(60);
/// For the first delta, over all attempts: no candidate is begun after it.
const FIRST_DELTA: Duration = Duration::from_secs(120);
/// How often a person is told that nothing has come yet.
const WAITING: Duration = Duration::from_secs(30);

/// Runs one lane as a stream of events.
pub(super) fn run(engine: Arc<Engine>, index: usize, lane: Lane) -> impl Stream<Item = Event> + Send {
    async_stream::stream! {
        let (sink, mut events) = mpsc::channel(4);
        let mut work = pin!(Run::new(engine, index, lane, sink).work());
        let mut working = true;
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => yield event,
                    None => break,
                },
                () = &mut work, if working => working = false,
            }
        }
    }
}

/// The state of a lane under way.
struct Run {
    engine: Arc<Engine>,
    index: usize,
    lane: Lane,
    sink: mpsc::Sender<Event>,
    begun: Instant,
    /// Candidates not asked yet.
    left: VecDeque<Arc<Target>>,
    budget: Budget,
    records: Vec<AttemptRecord>,
    /// Network time spent, against the lane's deadline.
    spent: Duration,
    /// The first byte of an answer was handed out for showing.
    shown: bool,
    /// The answer so far, while nothing may be shown.
    held: Vec<Delta>,
    ttft: Option<Duration>,
    first_output: Option<Instant>,
    last_output: Option<Instant>,
}

/// What the head of a successful reply told, for the record.
#[derive(Default)]
struct Head {
    answered: bool,
    request_id: Option<String>,
}

/// How an attempt on a target ended, for the loop over candidates.
enum Asked {
    Whole(Whole),
    Failed(ApiError, Decision),
}

impl Run {
    fn new(engine: Arc<Engine>, index: usize, lane: Lane, sink: mpsc::Sender<Event>) -> Self {
        Self {
            left: lane.candidates.iter().cloned().collect(),
            engine,
            index,
            lane,
            sink,
            begun: Instant::now(),
            budget: Budget::default(),
            records: Vec::new(),
            spent: Duration::ZERO,
            shown: false,
            held: Vec::new(),
            ttft: None,
            first_output: None,
            last_output: None,
        }
    }

    async fn work(mut self) {
        let result = self.candidates().await;
        if result.is_err() && !self.held.is_empty() {
            // Nobody is left to start again: what was held back is better than nothing, and is marked as cut.
            let held = std::mem::take(&mut self.held);
            self.shown = held.iter().any(|delta| delta.kind.is_output());
            self.emit(EventKind::Deltas(held)).await;
        }
        let between = self.first_output.zip(self.last_output);
        let outcome = LaneOutcome {
            cut: self.shown && result.is_err(),
            deadline_passed: self.lane.deadline.is_some_and(|deadline| self.spent >= deadline),
            target: self.records.last().map(|record| Arc::clone(&record.target)),
            attempts: std::mem::take(&mut self.records),
            ttft: self.ttft,
            total: self.begun.elapsed(),
            generating: between.map_or(Duration::ZERO, |(first, last)| last.duration_since(first)),
            result,
        };
        self.emit(EventKind::Finished(Box::new(outcome))).await;
    }

    /// Asks one candidate after the other.
    async fn candidates(&mut self) -> Result<Whole, ApiError> {
        self.pass_over_too_small().await;
        while let Some(target) = self.left.pop_front() {
            if !self.budget.candidate() {
                break;
            }
            let (error, decision) = match self.ask(&target).await {
                Asked::Whole(whole) => return Ok(whole),
                Asked::Failed(error, decision) => (error, decision),
            };
            if self.shown && self.lane.on_cut != OnCut::Restart {
                return Err(error);
            }
            match decision {
                Decision::GiveUp => return Err(error),
                Decision::NextLarger => self.keep_larger(&target).await,
                _ => {}
            }
            if self.out_of_time() {
                self.left.clear();
            }
            self.go_on(error).await;
        }
        Err(self.most_telling())
    }

    /// Leaves out candidates whose context the prompt surely does not fit, unless that is all of them.
    async fn pass_over_too_small(&mut self) {
        // The estimate may be off by a quarter either way.
        let surely = self.lane.call.estimated_tokens() * 4 / 5;
        let too_small = |target: &Arc<Target>| target.context.is_some_and(|context| context < surely);
        if self.left.iter().all(too_small) {
            return;
        }
        let (small, fitting) = std::mem::take(&mut self.left).into_iter().partition::<VecDeque<_>, _>(too_small);
        self.left = fitting;
        for target in small {
            let why = format!("the prompt of about {surely} tokens or more does not fit its context");
            self.emit(EventKind::Notice(Notice::PassedOver(target.id.clone(), why))).await;
        }
    }

    /// Tells that the next candidate is asked, if there is one.
    async fn go_on(&mut self, error: ApiError) {
        let Some(next) = self.left.front().map(|target| target.id.clone()) else { return };
        let next = if self.shown { Next::Restart(next) } else { Next::Candidate(next) };
        self.failed(error, next).await;
    }

    async fn failed(&mut self, error: ApiError, next: Next) {
        let record = self.records.last().expect("a failure was recorded").clone();
        self.held.clear();
        self.emit(EventKind::Failed { record: AttemptRecord { error: Some(error), ..record }, next }).await;
    }

    /// After a prompt that was too long: only candidates that read more.
    async fn keep_larger(&mut self, than: &Target) {
        let (larger, others) = std::mem::take(&mut self.left).into_iter().partition::<VecDeque<_>, _>(|target| {
            target.context.zip(than.context).is_some_and(|(context, too_small)| context > too_small)
        });
        self.left = larger;
        for target in others {
            let why = "its context is not known to be larger".to_owned();
            self.emit(EventKind::Notice(Notice::PassedOver(target.id.clone(), why))).await;
        }
    }

    fn out_of_time(&self) -> bool {
        let explicit = self.lane.candidates.iter().filter_map(|target| target.timeouts.first_token).max();
        let first_delta = explicit.map_or(FIRST_DELTA, |longer| longer.max(FIRST_DELTA));
        self.spent >= first_delta || self.lane.deadline.is_some_and(|deadline| self.spent >= deadline)
    }

    fn most_telling(&self) -> ApiError {
        let errors = self.records.iter().filter_map(|record| record.error.as_ref());
        errors
            .rev()
            .max_by_key(|error| error.class.weight())
            .cloned()
            .unwrap_or_else(|| ApiError::new(ErrorClass::Local, "there was nobody to ask"))
    }

    /// Asks one target: through its keys, with at most one repeat and one change of parameters.
    async fn ask(&mut self, target: &Arc<Target>) -> Asked {
        self.emit(EventKind::Started(Arc::clone(target))).await;
        let mut keys = VecDeque::from(self.engine.rotation.keys(&target.endpoint));
        let mut key = keys.pop_front().flatten();
        // A connection to a server that just failed may be about to close: it is not reused.
        let same_server =
            |record: &AttemptRecord| record.target.endpoint.base_url.origin() == target.endpoint.base_url.origin();
        let mut fresh = self.records.iter().any(same_server);
        let (mut call, mut adjusted) = (self.lane.call.clone(), false);
        loop {
            let error = match self.attempt(target, key.as_ref(), &call, fresh).await {
                Ok(whole) => return Asked::Whole(whole),
                Err(error) => error,
            };
            if self.shown {
                return Asked::Failed(error, Decision::Next);
            }
            if !adjusted && self.adjust(target, &error, &mut call).await {
                adjusted = true;
                self.failed(error, Next::Repeat).await;
                continue;
            }
            match self.decide(target, &error, !keys.is_empty()) {
                Decision::NextKey => {
                    key = keys.pop_front().flatten();
                    self.failed(error, Next::Key).await;
                }
                Decision::Repeat { after, fresh: anew } if self.repeat_allowed() => {
                    fresh = anew;
                    self.failed(error, Next::Repeat).await;
                    self.back_off(target, after).await;
                }
                Decision::Repeat { .. } => return Asked::Failed(error, Decision::Next),
                decision => return Asked::Failed(error, decision),
            }
        }
    }

    async fn adjust(&mut self, target: &Target, error: &ApiError, call: &mut Call) -> bool {
        let Call::Chat(chat) = call;
        let protocol = protocol(target.endpoint.protocol).expect("resolved configs name known protocols");
        let Some(adjustment) = protocol.adjust(error, target, chat) else { return false };
        self.emit(EventKind::Notice(Notice::Adjusted(target.id.clone(), adjustment.clone()))).await;
        chat.adjustments.push(adjustment);
        true
    }

    fn decide(&self, target: &Target, error: &ApiError, keys_left: bool) -> Decision {
        let situation = Situation {
            others_left: !self.left.is_empty(),
            keys_left,
            repeat_left: self.budget.may_repeat(),
            gateway: target.endpoint.gateway,
            filter_goes_on: self.lane.filter_goes_on,
        };
        decide(error, situation, jiff::Timestamp::now(), self.engine.chance())
    }

    fn repeat_allowed(&mut self) -> bool {
        let mut repeats = self.engine.repeats.lock().expect("no code panics while it holds this lock");
        let allowed = !self.out_of_time() && repeats.repeat(Instant::now().into_std());
        if allowed {
            self.budget.repeat();
        }
        allowed
    }

    async fn back_off(&mut self, target: &Target, wait: Duration) {
        let wait = self.lane.deadline.map_or(wait, |deadline| wait.min(deadline.saturating_sub(self.spent)));
        if wait >= Duration::from_secs(1) {
            self.emit(EventKind::Notice(Notice::Backoff(target.id.clone(), wait))).await;
        }
        sleep(wait).await;
        self.spent += wait;
    }

    /// One request, recorded.
    async fn attempt(
        &mut self,
        target: &Arc<Target>,
        key: Option<&KeySource>,
        call: &Call,
        fresh: bool,
    ) -> Result<Whole, ApiError> {
        let begun = Instant::now();
        self.engine.repeats.lock().expect("no code panics while it holds this lock").request(begun.into_std());
        let mut head = Head::default();
        let result = self.send(target, key, call, fresh, &mut head).await;
        let error = result.as_ref().err().cloned();
        self.records.push(AttemptRecord {
            target: Arc::clone(target),
            status: error.as_ref().and_then(|error| error.status).or(head.answered.then_some(200)),
            request_id: head.request_id.or_else(|| error.as_ref().and_then(|error| error.request_id.clone())),
            error,
            took: begun.elapsed(),
        });
        result
    }

    async fn send(
        &mut self,
        target: &Arc<Target>,
        key: Option<&KeySource>,
        call: &Call,
        fresh: bool,
        head: &mut Head,
    ) -> Result<Whole, ApiError> {
        let engine = Arc::clone(&self.engine);
        let _place = engine.gates.enter(&target.endpoint).await?;
        let credentials: Credentials = resolve(&engine.keys, &target.endpoint, key).await?;
        let patience = self.patience(target);
        let start = Start { target, credentials: &credentials, call, patience, fresh };
        let begun = Instant::now();
        let attempt = self.tell_when_slow(target, Attempt::start(&*engine.transport, start)).await;
        self.spent += begun.elapsed();
        let mut attempt = attempt?;
        *head = Head { answered: true, request_id: attempt.request_id().map(str::to_owned) };
        let finished = self.read(target, &mut attempt).await?;
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.emit(EventKind::Deltas(held)).await;
        }
        if finished.reason.is_none() {
            self.emit(EventKind::Notice(Notice::NoReason(target.id.clone()))).await;
        }
        if let Some(warning) = finished.warning {
            self.emit(EventKind::Notice(Notice::AfterEnd(target.id.clone(), warning))).await;
        }
        Ok(Whole { reason: finished.reason })
    }

    /// Hands on what comes, until the answer is over.
    async fn read(&mut self, target: &Target, attempt: &mut Attempt) -> Result<Finished, ApiError> {
        let mut any_output = false;
        loop {
            let begun = Instant::now();
            let step =
                if any_output { attempt.next().await } else { self.tell_when_slow(target, attempt.next()).await };
            self.spent += begun.elapsed();
            match step? {
                Step::Done(finished) => return Ok(finished),
                Step::Deltas(deltas) if deltas.is_empty() => {}
                Step::Deltas(deltas) => {
                    if deltas.iter().any(|delta| delta.kind.is_output()) {
                        let now = Instant::now();
                        if !any_output {
                            any_output = true;
                            self.ttft = Some(now.duration_since(attempt.sent()));
                            self.first_output = Some(now);
                        }
                        self.last_output = Some(now);
                    }
                    self.hand_out(deltas).await;
                }
            }
        }
    }

    async fn hand_out(&mut self, deltas: Vec<Delta>) {
        if self.lane.on_cut == OnCut::Buffer {
            self.held.extend(deltas);
            return;
        }
        // Thinking goes beside the answer: only what is part of it cannot be taken back.
        self.shown |=
            deltas.iter().any(|delta| delta.kind.is_output() && !matches!(delta.kind, DeltaKind::Reasoning(_)));
        self.emit(EventKind::Deltas(deltas)).await;
    }

    /// How long this candidate may be silent: an explicit limit wins, else it depends on whether anybody else is left.
    fn patience(&self, target: &Target) -> Patience {
        let mut patience = Patience::of(target.timeouts);
        if patience.first_token.is_none() && !self.left.is_empty() {
            let slow = target.reasons || is_private(&target.endpoint.base_url);
            patience.first_token = Some(if slow { SILENT_SLOW } else { SILENT_REMOTE });
        }
        if let Some(deadline) = self.lane.deadline {
            let left = deadline.saturating_sub(self.spent);
            patience.total = patience.total.min(left);
            if !self.left.is_empty() && target.timeouts.first_token.is_none() {
                // The others need their share of what is left.
                let share = left / u32::try_from(self.left.len() + 1).unwrap_or(u32::MAX);
                patience.first_token = patience.first_token.map(|first| first.min(share));
            }
        }
        patience
    }

    /// Awaits `work`; says so every half minute when there is nobody else to ask.
    async fn tell_when_slow<T>(&self, target: &Target, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut waited = Duration::ZERO;
        loop {
            match futures_util::future::select(work, pin!(sleep(WAITING))).await {
                Either::Left((done, _)) => return done,
                Either::Right(((), unfinished)) => {
                    work = unfinished;
                    waited += WAITING;
                    if self.left.is_empty() {
                        self.emit(EventKind::Notice(Notice::Waiting(target.id.clone(), waited))).await;
                    }
                }
            }
        }
    }

    async fn emit(&self, kind: EventKind) {
        let event = Event { lane: self.index, at: Instant::now(), kind };
        // The receiver lives in the same stream as this future: it is gone only when this is dropped too.
        let _ = self.sink.send(event).await;
        // Work goes on only when the event was taken and the next one is wanted, so that no timer of the network runs
        // while the reader is busy with what it has.
        let mut handed_over = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut handed_over, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
