//! One lane: its candidates in turn, until one answers.
//!
//! Owns what `route::classify` only decides: waiting, repeating, changing keys, going on, giving up. The work is a
//! plain `async` function that reports through a slot for one event; [`run`] makes both one stream, polled on the caller's
//! task, so dropping the stream stops everything; only what renews a probe's lease is spawned, and ends with the probe.

use std::{collections::VecDeque, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{Stream, stream::poll_fn};
use tokio::time::{Instant, sleep};

mod clock;
mod queue;
mod report;
mod send;

use clock::Clock;
use queue::{Candidate, Queue};
use report::{Reporter, Silence, Slot};
use send::Request;

use super::{AttemptRecord, Engine, Event, EventKind, LaneOutcome, Next, Notice, Whole, progress::Spoken};
use crate::{
    engine::plan::Lane,
    model::{Call, ErrorClass, api_key::KeySource, target::Target},
    protocol::{ApiError, protocol},
    routing::{
        OnCut,
        attempts::Budget,
        classify::{Decision, Situation, decide},
        health::Standing,
    },
};

/// Runs one lane as a stream of events. What is told lies in a slot, and is taken from it before the lane works on.
pub(super) fn run(engine: Arc<Engine>, index: usize, lane: Lane) -> impl Stream<Item = Event> + Send {
    let slot = Arc::new(Slot::default());
    let mut lane = Run::new(engine, index, lane, Arc::clone(&slot));
    let mut work = Some(Box::pin(async move { lane.work().await }));
    poll_fn(move |context| {
        if let Some(working) = &mut work
            && working.as_mut().poll(context).is_ready()
        {
            work = None;
        }
        match slot.take() {
            Some(event) => Poll::Ready(Some(event)),
            None if work.is_some() => Poll::Pending,
            None => Poll::Ready(None),
        }
    })
}

/// The state of a lane under way.
struct Run {
    engine: Arc<Engine>,
    lane: Lane,
    report: Reporter,
    begun: Instant,
    clock: Clock,
    /// Candidates not asked yet.
    queue: Queue,
    budget: Budget,
    records: Vec<AttemptRecord>,
    /// What the attempt under way has put out.
    spoken: Spoken,
    silence: Silence,
    /// The last attempt that broke off in the middle of its answer: its record, and what it had put out.
    broken_off: Option<Box<(AttemptRecord, Spoken)>>,
    /// Why nobody was asked.
    refused: Option<ApiError>,
    /// There was somebody to choose among.
    chosen: bool,
}

/// How an attempt on a target ended, for the loop over candidates.
enum Asked {
    Whole(Whole),
    Failed(ApiError, Decision),
}

/// One of an endpoint's keys, with its place among them; `None`: it wants none.
type Key = Option<(usize, KeySource)>;

impl Run {
    fn new(engine: Arc<Engine>, index: usize, lane: Lane, slot: Arc<Slot>) -> Self {
        Self {
            queue: Queue::default(),
            clock: Clock::new(&lane),
            engine,
            lane,
            report: Reporter { lane: index, slot },
            begun: Instant::now(),
            budget: Budget::default(),
            records: Vec::new(),
            spoken: Spoken::default(),
            silence: Silence { since: Instant::now(), told: 0, tell: false },
            broken_off: None,
            refused: None,
            chosen: false,
        }
    }

    async fn work(&mut self) {
        let result = self.candidates().await;
        let cut = self.broken_off.take().filter(|_| result.is_err());
        let spoken = cut.as_ref().map_or(self.spoken, |cut| cut.1);
        let telling = cut.as_ref().map(|cut| &cut.0).or(self.records.last());
        let outcome = LaneOutcome {
            cut: cut.is_some(),
            stopped: false,
            deadline_passed: self.clock.deadline_passed(),
            target: telling.map(|record| Arc::clone(&record.target)),
            result: cut.and_then(|cut| cut.0.error).map_or(result, Err),
            attempts: std::mem::take(&mut self.records),
            ttft: spoken.ttft,
            first: spoken.first.map(|first| first - self.begun),
            total: self.begun.elapsed(),
            generating: spoken.generating(),
        };
        self.report.emit(EventKind::Finished(Box::new(outcome))).await;
    }

    /// Asks one candidate after the other.
    async fn candidates(&mut self) -> Result<Whole, ApiError> {
        self.engine.note_lane();
        self.line_up().await?;
        let mut next = self.next().await;
        while let Some(candidate) = next {
            self.budget.candidate();
            let asked = self.ask(&candidate).await;
            // It had its verdict; whoever waits for that need not wait longer.
            drop(candidate);
            let (error, decision) = match asked {
                Asked::Whole(whole) => return Ok(whole),
                Asked::Failed(error, decision) => (error, decision),
            };
            if self.spoken.answer && self.lane.on_cut == OnCut::Error {
                return Err(error);
            }
            match decision {
                Decision::GiveUp => return Err(error),
                Decision::NextLarger => self.keep_larger().await,
                _ => {}
            }
            self.pass_over_the_rest().await;
            next = self.next().await;
            if let Some(next) = &next {
                self.go_on(error, next).await;
            }
        }
        Err(self.most_telling())
    }

    /// Tells that the next candidate is asked.
    fn go_on(&self, error: ApiError, next: &Candidate) -> impl Future<Output = ()> + Send + use<'_> {
        let (shown, next) = (self.spoken.answer && self.lane.on_cut == OnCut::Restart, next.target.id.clone());
        self.failed(error, if shown { Next::Restart(next) } else { Next::Candidate(next) })
    }

    fn failed(&self, error: ApiError, next: Next) -> impl Future<Output = ()> + Send + use<'_> {
        let record = self.records.last().expect("a failure was recorded").clone();
        self.report.emit(EventKind::Failed { record: AttemptRecord { error: Some(error), ..record }, next })
    }

    fn most_telling(&mut self) -> ApiError {
        let errors = self.records.iter().filter_map(|record| record.error.as_ref());
        let telling = errors.rev().max_by_key(|error| error.class.weight()).cloned();
        telling
            .or_else(|| self.refused.take())
            .unwrap_or_else(|| ApiError::new(ErrorClass::Local, "there was nobody to ask"))
    }

    /// Asks one target: through its keys, with at most one repeat and one change of parameters.
    async fn ask(&mut self, candidate: &Candidate) -> Asked {
        let target = &candidate.target;
        self.report.emit(EventKind::Started(Arc::clone(target))).await;
        let mut keys = self.keys(candidate);
        let key = keys.pop_front().flatten();
        // A connection to a server that just failed may be about to close: it is not reused.
        let same_server =
            |record: &AttemptRecord| record.target.endpoint.base_url.origin() == target.endpoint.base_url.origin();
        let fresh = self.records.iter().any(same_server);
        let (candidate_asked, call) = (candidate.clone(), Arc::clone(&self.lane.call));
        let mut request = Request { candidate: candidate_asked, key, call, fresh, verbatim: self.lane.verbatim };
        let mut adjusted = false;
        loop {
            let error = match Box::pin(self.attempt(request.clone())).await {
                Ok(whole) => return Asked::Whole(whole),
                Err(error) => error,
            };
            if self.spoken.answer {
                return Asked::Failed(error, Decision::Next);
            }
            // Another one was asked as well, and it is the one that failed last: what follows is not this one's.
            if self.records.last().is_some_and(|record| record.target.id != target.id) {
                let decision = self.decide(candidate, &error, false);
                let over = !matches!(decision, Decision::GiveUp | Decision::NextLarger);
                return Asked::Failed(error, if over { Decision::Next } else { decision });
            }
            let in_time = self.clock.allows(Duration::ZERO);
            if in_time && !adjusted && self.adjust(target, &error, &mut request.call).await {
                adjusted = true;
                self.failed(error, Next::Repeat).await;
                continue;
            }
            match self.decide(candidate, &error, !keys.is_empty()) {
                Decision::NextKey if in_time => {
                    request.key = keys.pop_front().flatten();
                    self.failed(error, Next::Key).await;
                }
                Decision::Repeat { after, fresh } if self.repeat_allowed(after) => {
                    request.fresh = fresh;
                    self.failed(error, Next::Repeat).await;
                    self.back_off(target, after).await;
                }
                Decision::NextKey | Decision::Repeat { .. } => return Asked::Failed(error, Decision::Next),
                decision => return Asked::Failed(error, decision),
            }
        }
    }

    /// The keys of the candidate's endpoint in the order they are tried; those that are left alone only when all are.
    fn keys(&self, candidate: &Candidate) -> VecDeque<Key> {
        let endpoint = &candidate.target.endpoint;
        let order = self.engine.rotation.order(endpoint, self.engine.resident, || self.engine.chance());
        let standings = self.engine.health.standing_of_keys(&candidate.places);
        let (mut free, mut aside): (Vec<usize>, Vec<usize>) =
            order.into_iter().partition(|&key| !matches!(standings.get(key), Some(Standing::Aside(..))));
        if free.is_empty() {
            free.append(&mut aside);
        }
        let keys: VecDeque<Key> = free.into_iter().map(|key| Some((key, endpoint.keys[key].clone()))).collect();
        if keys.is_empty() { VecDeque::from([None]) } else { keys }
    }

    async fn adjust(&mut self, target: &Target, error: &ApiError, call: &mut Arc<Call>) -> bool {
        let Some(chat) = call.chat() else { return false };
        let protocol = protocol(target.endpoint.protocol).expect("resolved configs name known protocols");
        let Some(adjustment) = protocol.adjust(error, target, chat) else { return false };
        self.tell(Notice::Adjusted(target.id.clone(), adjustment.clone())).await;
        if let Some(chat) = Arc::make_mut(call).chat_mut() {
            chat.adjustments.push(adjustment);
        }
        true
    }

    fn decide(&self, candidate: &Candidate, error: &ApiError, keys_left: bool) -> Decision {
        let situation = Situation {
            others_left: self.others() > 0,
            keys_left,
            // A probe is one request.
            repeat_left: self.budget.may_repeat() && candidate.probe.is_none() && !self.was_opened(candidate),
            gateway: candidate.target.endpoint.gateway,
            filter_goes_on: self.lane.filter_goes_on,
        };
        decide(error, situation, self.engine.health.now(), self.engine.chance())
    }

    /// Whether the failure was one too many, so that there are others to ask and this one is left alone.
    fn was_opened(&self, candidate: &Candidate) -> bool {
        self.others() > 0 && matches!(self.engine.health.standing(&candidate.places), Standing::Aside(..))
    }

    /// Takes a repeat after a pause of `wait`, if there is time for it and the budgets have one.
    fn repeat_allowed(&mut self, wait: Duration) -> bool {
        let allowed = self.clock.allows(wait) && self.engine.take_repeat();
        if allowed {
            self.budget.repeat();
        }
        allowed
    }

    async fn back_off(&mut self, target: &Target, wait: Duration) {
        if wait >= Duration::from_secs(1) {
            self.tell(Notice::Backoff(target.id.clone(), wait)).await;
        }
        self.clock.count(pin!(sleep(wait))).await;
    }
}
