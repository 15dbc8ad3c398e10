//! One request, from its key to its last delta, recorded.
//!
//! Owns what happens within an attempt: a place at the endpoint, the wait for the first delta, a second request beside it
//! when that takes too long (a hedge), and reading the rest. Refuses to try again: that is the lane's.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::Instant;

use super::{Run, Silence};
use crate::engine::call::queue::Candidate;
use crate::{
    engine::{
        AttemptRecord, Engine, EventKind, Next, Notice, Whole,
        attempt::{Attempt, Credentials, Finished, Patience, Start, Step},
        credentials::resolve,
        health::{self, Health},
        limiter,
        progress::Spoken,
    },
    model::{Call, ErrorClass, FinishReason, api_key::KeySource},
    protocol::{ApiError, reply_reader::Read},
    routing::OnCut,
};

/// One request about to be sent.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) candidate: Candidate,
    /// The key, with its place among the endpoint's.
    pub(super) key: Option<(usize, KeySource)>,
    pub(super) call: Arc<Call>,
    /// Over a connection of its own.
    pub(super) fresh: bool,
    /// The frames of its reply are wanted.
    pub(super) verbatim: bool,
}

impl Request {
    fn key_index(&self) -> Option<usize> {
        self.key.as_ref().map(|(index, _)| *index)
    }

    /// What it says about whom it asks.
    fn sent(&self, at: jiff::Timestamp) -> health::Sent {
        let probe = self.candidate.probe.as_ref().map(|probe| probe.owner());
        health::Sent { target: Arc::clone(&self.candidate.target), key: self.key_index(), at, probe }
    }
}

/// What the head of a successful reply told, for the record.
#[derive(Clone, Default)]
struct Head {
    answered: bool,
    request_id: Option<String>,
}

/// A reply whose first delta is here.
struct Opened {
    attempt: Attempt,
    first: Read,
    /// It was over with it.
    finished: Option<Finished>,
    head: Head,
    _place: limiter::Place,
    _busy: health::Busy,
}

/// A request that failed before its first delta.
struct Unopened {
    error: ApiError,
    head: Head,
}

/// What came of sending a request; boxed, since it is handed on several times.
type Opens = Result<Box<Opened>, Unopened>;
type Opening = Pin<Box<dyn Future<Output = Opens> + Send>>;

/// A request under way.
struct Sent {
    request: Request,
    begun: Instant,
    opening: Opening,
}

impl Run {
    /// One request, recorded. The request that answered may be another than the one that was sent first.
    pub(super) async fn attempt(&mut self, request: Request) -> Result<Whole, ApiError> {
        self.spoken = Spoken::default();
        let (sent, opened) = self.opened(request).await;
        let (result, head) = match opened {
            Ok(opened) => {
                let head = opened.head.clone();
                (self.rest(&sent, opened).await, head)
            }
            Err(Unopened { error, head }) => (Err(error), head),
        };
        self.record(&sent.0, sent.1, head, result.as_ref().err());
        if result.is_err() && self.spoken.answer {
            let record = self.records.last().expect("one was pushed").clone();
            self.broken_off = Some(Box::new((record, self.spoken)));
        }
        result
    }

    /// Waits for the first delta; of a second request, too, where the route hedges.
    async fn opened(&mut self, request: Request) -> ((Request, Instant), Opens) {
        let begun = Instant::now();
        let streams = request.call.streams();
        let mut first = match self.sent(request.clone()).await {
            Ok(sent) => sent,
            Err(error) => return ((request, begun), Err(Unopened { error, head: Head::default() })),
        };
        let hedge = self.lane.route.as_ref().and_then(|policy| policy.hedge_after);
        let hedge = hedge.filter(|_| streams && first.request.candidate.probe.is_none() && self.others() > 0);
        if let Some(after) = hedge {
            let patient = self.clock.count(pin!(tokio::time::timeout(after, &mut first.opening))).await;
            if let Ok(opened) = patient {
                return ((first.request, first.begun), opened);
            }
            // Rare, and much to carry along for those that are not.
            return Box::pin(self.hedged(first, after)).await;
        }
        let opened = self.awaited(&first.request.candidate.clone(), &mut first.opening).await;
        ((first.request, first.begun), opened)
    }

    /// Asks somebody else as well, if the allowance has a second request and there is somebody anybody may ask.
    async fn hedged(&mut self, mut first: Sent, after: Duration) -> ((Request, Instant), Opens) {
        let second = self.second();
        let Some(candidate) = second else {
            let opened = self.awaited(&first.request.candidate.clone(), &mut first.opening).await;
            return ((first.request, first.begun), opened);
        };
        let key = self.keys(&candidate).into_iter().next().flatten();
        let (slow, other) = (first.request.candidate.target.id.clone(), candidate.target.id.clone());
        let call = Arc::clone(&self.lane.call);
        let verbatim = self.lane.verbatim;
        let request = Request { candidate: candidate.clone(), key, call, fresh: false, verbatim };
        // Getting a key or a place for it must not keep back what the first one says meanwhile.
        let since = Instant::now();
        let ready = match select(&mut first.opening, Box::pin(self.sent(request.clone()))).await {
            Either::Left((opened, _)) => Either::Left(opened),
            Either::Right((second, _)) => Either::Right(second),
        };
        let second = match ready {
            Either::Left(opened) => {
                self.clock.add(since.elapsed());
                self.engine.hedges().give_back();
                self.queue.usable.push_front(candidate);
                return ((first.request, first.begun), opened);
            }
            Either::Right(second) => second,
        };
        match second {
            Ok(second) => {
                self.budget.candidate();
                self.tell(Notice::Hedged(slow, other, after)).await;
                self.race(first, second).await
            }
            Err(error) => {
                self.engine.hedges().give_back();
                self.record(&request, Instant::now(), Head::default(), Some(&error));
                let opened = self.awaited(&first.request.candidate.clone(), &mut first.opening).await;
                ((first.request, first.begun), opened)
            }
        }
    }

    /// Whom to ask as well: somebody anybody may ask, if a second request is allowed.
    fn second(&mut self) -> Option<Candidate> {
        if !self.engine.hedges().take() {
            return None;
        }
        let second = self.take_free();
        if second.is_none() {
            self.engine.hedges().give_back();
        }
        second
    }

    /// The first of two to say something; when one fails, the other.
    async fn race(&mut self, first: Sent, second: Sent) -> ((Request, Instant), Opens) {
        let ((request, begun), (other, other_begun)) = ((first.request, first.begun), (second.request, second.begun));
        let won = self.clock.count(pin!(select(first.opening, second.opening))).await;
        let (opened, mut rest, second_won) = match won {
            Either::Left((opened, rest)) => (opened, rest, false),
            Either::Right((opened, rest)) => (opened, rest, true),
        };
        let (winner, loser) = if second_won {
            ((other, other_begun), (request, begun))
        } else {
            ((request, begun), (other, other_begun))
        };
        match opened {
            Ok(opened) => {
                // Dropped, and so cancelled.
                drop(rest);
                let message = format!("{} answered first", winner.0.candidate.target.id);
                self.record(&loser.0, loser.1, Head::default(), Some(&ApiError::new(ErrorClass::Local, message)));
                // Should the winner break off, the other one was never heard.
                self.queue.usable.push_front(Candidate { probe: None, ..loser.0.candidate });
                if second_won {
                    self.report.emit(EventKind::Started(Arc::clone(&winner.0.candidate.target))).await;
                }
                (winner, Ok(opened))
            }
            Err(Unopened { error, head }) => {
                self.record(&winner.0, winner.1, head, Some(&error));
                self.failed(error, Next::Awaited(loser.0.candidate.target.id.clone())).await;
                self.report.emit(EventKind::Started(Arc::clone(&loser.0.candidate.target))).await;
                let opened = self.awaited(&loser.0.candidate, &mut rest).await;
                (loser, opened)
            }
        }
    }

    /// Awaits the first delta, and says every half minute that it is awaited when there is nobody else to ask.
    async fn awaited(&mut self, candidate: &Candidate, opening: &mut Opening) -> Opens {
        self.silence = Silence { since: Instant::now(), told: 0, tell: self.others() == 0 };
        let waiting = self.report.while_waiting(&candidate.target, &mut self.silence, opening);
        self.clock.count(pin!(waiting)).await
    }

    /// Makes the request ready and sends it.
    async fn sent(&mut self, request: Request) -> Result<Sent, ApiError> {
        let (engine, others) = (Arc::clone(&self.engine), self.others());
        let target = Arc::clone(&request.candidate.target);
        let begun = Instant::now();
        engine.note_request(begun);
        let ready = async {
            let place = engine.gates.enter(&target.endpoint).await?;
            let key = request.key.as_ref().map(|(_, source)| source);
            Ok((place, resolve(&engine.keys, &target.endpoint, key).await?))
        };
        let ready = self.clock.prepare(others, pin!(ready)).await;
        let (place, credentials) = ready.unwrap_or_else(|| Err(not_ready()))?;
        let model = request.candidate.places.model;
        let (usual, busy) = (engine.usual_silence(model), Health::busy(&engine, model));
        let patience = self.clock.patience(&target, others, request.call.streams(), usual);
        let opening = Box::pin(open(engine, request.clone(), credentials, patience, (place, busy)));
        Ok(Sent { request, begun, opening })
    }

    /// Hands out what is here and reads the rest.
    async fn rest(
        &mut self,
        (request, begun): &(Request, Instant),
        mut opened: Box<Opened>,
    ) -> Result<Whole, ApiError> {
        let (first, finished) = (std::mem::take(&mut opened.first), opened.finished.take());
        let attempt = &mut opened.attempt;
        let target = Arc::clone(&request.candidate.target);
        let sent = attempt.sent();
        // What is for the next candidate to answer is not told at all.
        let spoke = first.iter().any(|delta| delta.kind.is_answer());
        if !spoke && finished.as_ref().is_some_and(|finished| self.is_refused(finished)) {
            return Err(withheld());
        }
        if !first.is_empty() {
            self.hand_out(first, sent).await;
        }
        let finished = if let Some(finished) = finished {
            finished
        } else {
            // Of a reply in one piece the time to its first delta is the time of all of it.
            let ttft = self.spoken.ttft.filter(|_| request.call.streams());
            let health = &self.engine.health;
            health.began(request.sent(health.at(*begun)), ttft, &self.engine.keys);
            self.read(attempt).await?
        };
        if self.is_refused(&finished) {
            return Err(withheld());
        }
        if finished.reason.is_none() {
            self.tell(Notice::NoReason(target.id.clone())).await;
        }
        if let Some(warning) = finished.warning {
            self.tell(Notice::AfterEnd(target.id.clone(), warning)).await;
        }
        Ok(Whole { reason: finished.reason })
    }

    /// An answer without a word, ended by a filter, is one for the next candidate where the route says so.
    fn is_refused(&self, finished: &Finished) -> bool {
        let filtered = finished.reason == Some(FinishReason::ContentFilter) && !self.spoken.answer;
        filtered && self.lane.filter_goes_on && self.anybody_else()
    }

    /// Hands on what comes, until the answer is over.
    async fn read(&mut self, attempt: &mut Attempt) -> Result<Finished, ApiError> {
        loop {
            let step = self.clock.count_answering(pin!(attempt.next())).await?;
            match step {
                Step::Done(finished) => return Ok(finished),
                Step::Read(read) if read.is_empty() => {}
                Step::Read(read) => self.hand_out(read, attempt.sent()).await,
            }
        }
    }

    async fn hand_out(&mut self, read: Read, sent: Instant) {
        let silent_so_far = self.spoken.first.is_none();
        self.spoken.hear(&read, Instant::now());
        // What was passed on as it came cannot be taken back, not even thinking.
        self.spoken.answer |= self.lane.verbatim && self.spoken.first.is_some();
        let ttft = self.spoken.first.filter(|_| silent_so_far).map(|first| first - sent);
        self.spoken.ttft = self.spoken.ttft.or(ttft);
        let held = self.lane.on_cut == OnCut::Buffer;
        self.report.emit(if held { EventKind::Held(read) } else { EventKind::Deltas(read) }).await;
        if let Some(ttft) = ttft {
            self.report.emit(EventKind::Ttft(ttft)).await;
        }
    }

    /// Remembers how a request ended, and what that says of whom it asked.
    fn record(&mut self, request: &Request, begun: Instant, head: Head, error: Option<&ApiError>) {
        let (engine, target, key) = (&self.engine, &request.candidate.target, request.key_index());
        let sent = request.sent(engine.health.at(begun));
        match error {
            Some(error) if request.call.chat().is_none() && is_lacking(error) => {}
            Some(error) => engine.health.failed(&sent, &engine.keys, error, engine.chance()),
            None => engine.health.ended_well(sent, &engine.keys),
        }
        self.records.push(AttemptRecord {
            target: Arc::clone(target),
            status: error.and_then(|error| error.status).or(head.answered.then_some(200)),
            request_id: head.request_id.or_else(|| error.and_then(|error| error.request_id.clone())),
            error: error.cloned(),
            took: begun.elapsed(),
            at: engine.health.at(begun),
            key,
            ttft: self.spoken.ttft,
        });
    }
}

/// Sends the request and reads up to its first delta.
async fn open(
    engine: Arc<Engine>,
    request: Request,
    credentials: Credentials,
    patience: Patience,
    (place, busy): (limiter::Place, health::Busy),
) -> Opens {
    let Request { candidate, call, fresh, verbatim, .. } = &request;
    let (fresh, verbatim) = (*fresh, *verbatim);
    let start = Start { target: &candidate.target, credentials: &credentials, call, patience, fresh, verbatim };
    let started = Attempt::start(&*engine.transport, start).await;
    let mut attempt = started.map_err(|error| Unopened { error, head: Head::default() })?;
    let head = Head { answered: true, request_id: attempt.request_id().map(str::to_owned) };
    let mut first = Read::default();
    let finished = loop {
        match attempt.next().await {
            Err(error) => return Err(Unopened { error, head }),
            Ok(Step::Done(finished)) => break Some(finished),
            Ok(Step::Read(read)) => {
                let spoke = read.iter().any(|delta| delta.kind.is_output());
                first.extend(read);
                if spoke {
                    break None;
                }
            }
        }
    };
    Ok(Box::new(Opened { attempt, first, finished, head, _place: place, _busy: busy }))
}

/// Whether a service, or a model of it, lacks what was asked of it: that is no chat, and says nothing of its chats.
fn is_lacking(error: &ApiError) -> bool {
    use ErrorClass as C;
    matches!(error.class, C::Path | C::Forbidden | C::Model | C::NoChannel) || matches!(error.status, Some(405 | 501))
}

fn withheld() -> ApiError {
    ApiError::new(ErrorClass::Filter, "a content filter withheld the answer")
}

fn not_ready() -> ApiError {
    let message = "the time was up before the request could be sent: a key or a place at the endpoint took too long";
    ApiError::new(ErrorClass::Local, message)
}
