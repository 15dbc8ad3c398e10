//! One lane: its candidates in turn, until one answers.
//!
//! Owns what `route::classify` only decides: waiting, repeating, changing keys, going on, giving up. The work is a
//! plain `async` function that reports through a bounded channel; [`run`] polls both as one stream, on the caller's
//! task, so nothing is spawned and dropping the stream stops everything.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

mod clock;
mod report;

use clock::Clock;
use report::{Reporter, Silence};

use super::{
    AttemptRecord, Engine, Event, EventKind, LaneOutcome, Next, Notice, Whole, credentials::resolve, progress::Spoken,
};
use crate::{
    attempt::{Attempt, Credentials, Finished, Start, Step},
    chat::{Call, Delta, ErrorClass, FinishReason},
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
    lane: Lane,
    report: Reporter,
    begun: Instant,
    clock: Clock,
    /// Candidates not asked yet.
    left: VecDeque<Arc<Target>>,
    budget: Budget,
    records: Vec<AttemptRecord>,
    /// What the attempt under way has put out.
    spoken: Spoken,
    silence: Silence,
    /// The last attempt that broke off in the middle of its answer: its record, and what it had put out.
    broken_off: Option<(AttemptRecord, Spoken)>,
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
            clock: Clock::new(&lane),
            engine,
            lane,
            report: Reporter { lane: index, sink },
            begun: Instant::now(),
            budget: Budget::default(),
            records: Vec::new(),
            spoken: Spoken::default(),
            silence: Silence { since: Instant::now(), told: 0, tell: false },
            broken_off: None,
        }
    }

    async fn work(mut self) {
        let result = self.candidates().await;
        let cut = self.broken_off.take().filter(|_| result.is_err());
        let spoken = cut.as_ref().map_or(self.spoken, |(_, spoken)| *spoken);
        let telling = cut.as_ref().map(|(record, _)| record).or(self.records.last());
        let outcome = LaneOutcome {
            cut: cut.is_some(),
            deadline_passed: self.clock.deadline_passed(),
            target: telling.map(|record| Arc::clone(&record.target)),
            result: cut.and_then(|(record, _)| record.error).map_or(result, Err),
            attempts: self.records,
            ttft: spoken.ttft,
            total: self.begun.elapsed(),
            generating: spoken.generating(),
        };
        self.report.emit(EventKind::Finished(Box::new(outcome))).await;
    }

    /// Asks one candidate after the other.
    async fn candidates(&mut self) -> Result<Whole, ApiError> {
        self.pass_over_unable().await;
        while let Some(target) = self.left.pop_front() {
            self.budget.candidate();
            let (error, decision) = match self.ask(&target).await {
                Asked::Whole(whole) => return Ok(whole),
                Asked::Failed(error, decision) => (error, decision),
            };
            if self.spoken.answer && self.lane.on_cut == OnCut::Error {
                return Err(error);
            }
            match decision {
                Decision::GiveUp => return Err(error),
                Decision::NextLarger => self.keep_larger(&target).await,
                _ => {}
            }
            self.pass_over_the_rest().await;
            self.go_on(error).await;
        }
        Err(self.most_telling())
    }

    /// How many candidates may still get their turn.
    fn others(&self) -> usize {
        self.left.len().min(self.budget.candidates())
    }

    /// Leaves out candidates that surely cannot answer: the prompt does not fit their context, or they do not look at
    /// pictures.
    async fn pass_over_unable(&mut self) {
        // The estimate may be off by a quarter either way.
        let surely = self.lane.call.estimated_tokens() * 4 / 5;
        let why = format!("the prompt of about {surely} tokens or more does not fit its context");
        self.pass_over(|target| target.context.is_some_and(|context| context < surely), &why).await;
        if self.lane.call.has_images() {
            self.pass_over(|target| target.images == Some(false), "it does not look at pictures").await;
        }
    }

    /// Leaves out the candidates that are `unable`, unless that is all of them.
    async fn pass_over(&mut self, unable: impl Fn(&Target) -> bool, why: &str) {
        if self.left.iter().all(|target| unable(target)) {
            return;
        }
        let (left_out, able) =
            std::mem::take(&mut self.left).into_iter().partition::<VecDeque<_>, _>(|target| unable(target));
        self.left = able;
        for target in left_out {
            self.report.emit(EventKind::Notice(Notice::PassedOver(target.id.clone(), why.to_owned()))).await;
        }
    }

    /// When the time or the attempt budget is used up, the others are told of and not asked.
    async fn pass_over_the_rest(&mut self) {
        let why = if !self.clock.allows(Duration::ZERO) {
            "the time is used up".to_owned()
        } else if self.others() == 0 {
            format!("one request asks at most {} models", Budget::CANDIDATES)
        } else {
            return;
        };
        for target in std::mem::take(&mut self.left) {
            self.report.emit(EventKind::Notice(Notice::PassedOver(target.id.clone(), why.clone()))).await;
        }
    }

    /// Tells that the next candidate is asked, if there is one.
    async fn go_on(&mut self, error: ApiError) {
        let Some(next) = self.left.front().map(|target| target.id.clone()) else { return };
        let shown = self.spoken.answer && self.lane.on_cut == OnCut::Restart;
        let next = if shown { Next::Restart(next) } else { Next::Candidate(next) };
        self.failed(error, next).await;
    }

    async fn failed(&mut self, error: ApiError, next: Next) {
        let record = self.records.last().expect("a failure was recorded").clone();
        self.report.emit(EventKind::Failed { record: AttemptRecord { error: Some(error), ..record }, next }).await;
    }

    /// After a prompt that was too long: only candidates that read more.
    async fn keep_larger(&mut self, than: &Target) {
        let (larger, others) = std::mem::take(&mut self.left).into_iter().partition::<VecDeque<_>, _>(|target| {
            target.context.zip(than.context).is_some_and(|(context, too_small)| context > too_small)
        });
        self.left = larger;
        for target in others {
            let why = "its context is not known to be larger".to_owned();
            self.report.emit(EventKind::Notice(Notice::PassedOver(target.id.clone(), why))).await;
        }
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
        self.report.emit(EventKind::Started(Arc::clone(target))).await;
        let mut keys = VecDeque::from(self.engine.rotation.keys(&target.endpoint));
        let mut key = keys.pop_front().flatten();
        // A connection to a server that just failed may be about to close: it is not reused.
        let same_server =
            |record: &AttemptRecord| record.target.endpoint.base_url.origin() == target.endpoint.base_url.origin();
        let mut fresh = self.records.iter().any(same_server);
        let (mut call, mut adjusted) = (Arc::clone(&self.lane.call), false);
        loop {
            let error = match self.attempt(target, key.as_ref(), &call, fresh).await {
                Ok(whole) => return Asked::Whole(whole),
                Err(error) => error,
            };
            if self.spoken.answer {
                return Asked::Failed(error, Decision::Next);
            }
            let in_time = self.clock.allows(Duration::ZERO);
            if in_time && !adjusted && self.adjust(target, &error, &mut call).await {
                adjusted = true;
                self.failed(error, Next::Repeat).await;
                continue;
            }
            match self.decide(target, &error, !keys.is_empty()) {
                Decision::NextKey if in_time => {
                    key = keys.pop_front().flatten();
                    self.failed(error, Next::Key).await;
                }
                Decision::Repeat { after, fresh: anew } if self.repeat_allowed(after) => {
                    fresh = anew;
                    self.failed(error, Next::Repeat).await;
                    self.back_off(target, after).await;
                }
                Decision::NextKey | Decision::Repeat { .. } => return Asked::Failed(error, Decision::Next),
                decision => return Asked::Failed(error, decision),
            }
        }
    }

    async fn adjust(&mut self, target: &Target, error: &ApiError, call: &mut Arc<Call>) -> bool {
        let Call::Chat(chat) = &**call;
        let protocol = protocol(target.endpoint.protocol).expect("resolved configs name known protocols");
        let Some(adjustment) = protocol.adjust(error, target, chat) else { return false };
        self.report.emit(EventKind::Notice(Notice::Adjusted(target.id.clone(), adjustment.clone()))).await;
        let Call::Chat(chat) = Arc::make_mut(call);
        chat.adjustments.push(adjustment);
        true
    }

    fn decide(&self, target: &Target, error: &ApiError, keys_left: bool) -> Decision {
        let situation = Situation {
            others_left: self.others() > 0,
            keys_left,
            repeat_left: self.budget.may_repeat(),
            gateway: target.endpoint.gateway,
            filter_goes_on: self.lane.filter_goes_on,
        };
        decide(error, situation, jiff::Timestamp::now(), self.engine.chance())
    }

    /// Takes a repeat after a pause of `wait`, if there is time for it and the budgets have one.
    fn repeat_allowed(&mut self, wait: Duration) -> bool {
        let mut repeats = self.engine.repeats.lock().expect("no code panics while it holds this lock");
        let allowed = self.clock.allows(wait) && repeats.repeat(Instant::now().into_std());
        if allowed {
            self.budget.repeat();
        }
        allowed
    }

    async fn back_off(&mut self, target: &Target, wait: Duration) {
        if wait >= Duration::from_secs(1) {
            self.report.emit(EventKind::Notice(Notice::Backoff(target.id.clone(), wait))).await;
        }
        self.clock.count(sleep(wait)).await;
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
        self.spoken = Spoken::default();
        let mut head = Head::default();
        let result = self.send(target, key, call, fresh, &mut head).await;
        let error = result.as_ref().err().cloned();
        let record = AttemptRecord {
            target: Arc::clone(target),
            status: error.as_ref().and_then(|error| error.status).or(head.answered.then_some(200)),
            request_id: head.request_id.or_else(|| error.as_ref().and_then(|error| error.request_id.clone())),
            error,
            took: begun.elapsed(),
        };
        if result.is_err() && self.spoken.answer {
            self.broken_off = Some((record.clone(), self.spoken));
        }
        self.records.push(record);
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
        let (engine, others) = (Arc::clone(&self.engine), self.others());
        let ready = async {
            let place = engine.gates.enter(&target.endpoint).await?;
            Ok((place, resolve(&engine.keys, &target.endpoint, key).await?))
        };
        let ready = self.clock.prepare(others, ready).await;
        let (_place, credentials): (_, Credentials) = ready.unwrap_or_else(|| Err(not_ready()))?;
        let patience = self.clock.patience(target, others, call.streams());
        let start = Start { target, credentials: &credentials, call, patience, fresh };
        let attempt = Attempt::start(&*engine.transport, start);
        self.silence = Silence { since: Instant::now(), told: 0, tell: others == 0 };
        let waiting = self.report.while_waiting(target, &mut self.silence, attempt);
        let mut attempt = self.clock.count(waiting).await?;
        *head = Head { answered: true, request_id: attempt.request_id().map(str::to_owned) };
        let finished = self.read(target, &mut attempt).await?;
        if self.refused(&finished) {
            return Err(ApiError::new(ErrorClass::Filter, "a content filter withheld the answer"));
        }
        if finished.reason.is_none() {
            self.report.emit(EventKind::Notice(Notice::NoReason(target.id.clone()))).await;
        }
        if let Some(warning) = finished.warning {
            self.report.emit(EventKind::Notice(Notice::AfterEnd(target.id.clone(), warning))).await;
        }
        Ok(Whole { reason: finished.reason })
    }

    /// An answer without a word, ended by a filter, is one for the next candidate where the route says so.
    fn refused(&self, finished: &Finished) -> bool {
        let filtered = finished.reason == Some(FinishReason::ContentFilter) && !self.spoken.answer;
        filtered && self.lane.filter_goes_on && self.others() > 0
    }

    /// Hands on what comes, until the answer is over.
    async fn read(&mut self, target: &Target, attempt: &mut Attempt) -> Result<Finished, ApiError> {
        loop {
            let step = if self.spoken.first.is_some() {
                self.clock.count_answering(attempt.next()).await
            } else {
                let waiting = self.report.while_waiting(target, &mut self.silence, attempt.next());
                self.clock.count(waiting).await
            };
            match step? {
                Step::Done(finished) => return Ok(finished),
                Step::Deltas(deltas) if deltas.is_empty() => {}
                Step::Deltas(deltas) => self.hand_out(deltas, attempt.sent()).await,
            }
        }
    }

    async fn hand_out(&mut self, deltas: Vec<Delta>, sent: Instant) {
        let silent_so_far = self.spoken.first.is_none();
        self.spoken.hear(&deltas, Instant::now());
        let ttft = self.spoken.first.filter(|_| silent_so_far).map(|first| first - sent);
        self.spoken.ttft = self.spoken.ttft.or(ttft);
        let held = self.lane.on_cut == OnCut::Buffer;
        self.report.emit(if held { EventKind::Held(deltas) } else { EventKind::Deltas(deltas) }).await;
        if let Some(ttft) = ttft {
            self.report.emit(EventKind::Ttft(ttft)).await;
        }
    }
}

fn not_ready() -> ApiError {
    let message = "the time was up before the request could be sent: a key or a place at the endpoint took too long";
    ApiError::new(ErrorClass::Local, message)
}
