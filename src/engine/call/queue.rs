//! Whom the lane asks next.
//!
//! Owns the queue of candidates: who cannot serve the request is left out, and that is said; who is left alone comes last,
//! and what is done when everybody is. Refuses to ask.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::Run;
use crate::{
    engine::{
        EventKind, Notice,
        health::{Health, Probe, Turn},
    },
    model::{ErrorClass, target::Target},
    protocol::{ApiError, RetryAfter, RetryWhen},
    routing::{
        Policy,
        attempts::Budget,
        health::{PlaceId, Places, Standing},
    },
};

/// The longest a request waits for the verdict of another one's probe.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// When everybody is left alone, one is asked again so long after its last failure, although its time is not over: with
/// nobody else to ask, a service that is back must not stay unasked for minutes.
const EARLY: Duration = Duration::from_secs(5);
/// A wait that a person is told of.
const NOTICEABLE: Duration = Duration::from_secs(1);
/// What a probe may take before its request is sent, and after its silence is over.
const AROUND: Duration = Duration::from_secs(5);

/// Somebody who may be asked.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) target: Arc<Target>,
    pub(super) places: Places,
    /// This request is the one that finds out whether it is back.
    pub(super) probe: Option<Arc<Probe>>,
}

/// Candidates not asked yet.
#[derive(Default)]
pub(super) struct Queue {
    /// In the order they are asked.
    pub(super) usable: VecDeque<Candidate>,
    /// Left alone.
    aside: Vec<Candidate>,
}

impl Run {
    /// Leaves out who cannot serve the request and puts the others in order.
    pub(super) async fn line_up(&mut self) -> Result<(), ApiError> {
        let mut targets = self.able(self.lane.candidates.clone()).await;
        targets = self.affordable(targets).await?;
        let chosen = self.lane.route.is_some() && targets.len() > 1;
        self.chosen = chosen;
        if chosen || targets.iter().any(|target| target.endpoint.keys.len() > 1) {
            self.engine.health.read(&self.engine.keys);
        }
        let places = self.engine.health.places(&targets, &self.engine.keys);
        if let Some(policy) = self.lane.route.clone().filter(|_| chosen) {
            self.in_order(&policy, &targets, &places).await;
        } else {
            let candidates = targets.into_iter().zip(places);
            self.queue.usable = candidates.map(|(target, places)| Candidate { target, places, probe: None }).collect();
        }
        Ok(())
    }

    async fn in_order(&mut self, policy: &Policy, targets: &[Arc<Target>], places: &[Places]) {
        let engine = Arc::clone(&self.engine);
        let seats = engine.seats(&self.lane, policy, targets, places);
        let thread = policy.sticky.then(|| self.lane.session.clone().unwrap_or_else(|| self.lane.call.thread()));
        let order = engine.order(policy, &self.lane.name, thread.as_deref(), &seats);
        for seat in order {
            let candidate = Candidate { target: Arc::clone(&targets[seat]), places: places[seat].clone(), probe: None };
            match seats[seat].standing {
                Standing::Aside(until, place) => {
                    self.tell_aside(&candidate, until, place).await;
                    self.queue.aside.push(candidate);
                }
                Standing::Free | Standing::HalfOpen => self.queue.usable.push_back(candidate),
            }
        }
    }

    /// The next one to ask; `None`: there is nobody left.
    pub(super) async fn next(&mut self) -> Option<Candidate> {
        if !self.chosen {
            return self.queue.usable.pop_front();
        }
        while let Some(candidate) = self.queue.usable.pop_front() {
            match self.engine.health.standing(&candidate.places) {
                Standing::Free => return Some(candidate),
                Standing::HalfOpen => match self.probe(candidate, false) {
                    Ok(candidate) => return Some(candidate),
                    // Somebody else was sooner.
                    Err(candidate) => self.queue.aside.push(candidate),
                },
                // It was found dead meanwhile.
                Standing::Aside(..) => self.queue.aside.push(candidate),
            }
        }
        self.last_resort().await
    }

    /// Of those that are left alone, the one that is asked all the same, because there is nobody else: when its time is over,
    /// or, since waiting for that may take minutes, some seconds after its last failure. One request at a time: where others
    /// are finding out about everybody, their verdict is waited for.
    async fn last_resort(&mut self) -> Option<Candidate> {
        let engine = Arc::clone(&self.engine);
        let (begun, mut told) = (Instant::now(), false);
        while !self.queue.aside.is_empty() && self.budget.candidates() > 0 && self.clock.allows(Duration::ZERO) {
            let turns = self.queue.aside.iter().map(|candidate| engine.health.turn(&candidate.places, EARLY));
            let (place, turn) = turns.enumerate().min_by_key(|(_, turn)| *turn).expect("somebody is there");
            let wait = match turn {
                Turn::Free => return Some(self.queue.aside.remove(place)),
                Turn::Due(due) => self.until(due),
                Turn::Probed(until) => {
                    self.refused = Some(busy(&self.queue.aside[place].target, until, engine.health.now()));
                    let limit = LONGEST_WAIT.saturating_sub(begun.elapsed());
                    if limit.is_zero() {
                        return None;
                    }
                    limit.min(self.clock.left().unwrap_or(limit))
                }
            };
            if wait.is_zero() {
                let candidate = self.queue.aside.remove(place);
                match self.probe(candidate, true) {
                    Ok(candidate) => return Some(candidate),
                    // Somebody else was sooner.
                    Err(candidate) => self.queue.aside.insert(place, candidate),
                }
            } else if !told && wait >= NOTICEABLE && matches!(turn, Turn::Due(_)) {
                told = true;
                self.tell(Notice::AllAside(self.queue.aside[place].target.id.clone(), wait)).await;
            }
            let wait = if wait.is_zero() { LONGEST_WAIT } else { wait };
            self.clock.count(pin!(engine.health.news(wait, &engine.keys))).await;
        }
        None
    }

    /// How long it is until `due`. Where there is no time to wait, now is as good as never.
    fn until(&self, due: Timestamp) -> Duration {
        let wait = Duration::try_from(due.duration_since(self.engine.health.now())).unwrap_or_default();
        if self.clock.allows(wait) { wait } else { Duration::ZERO }
    }

    /// The candidate as the probe, or as it is when everybody may ask it; `Err`: somebody else has the probe.
    fn probe(&self, candidate: Candidate, early: bool) -> Result<Candidate, Candidate> {
        let usual = self.engine.usual_silence(candidate.places.model);
        let patience = self.clock.patience(&candidate.target, self.others(), self.lane.call.streams(), usual);
        let lease = patience.first_token.unwrap_or(patience.total).saturating_add(AROUND);
        match Health::probe(&self.engine, &candidate.target, &candidate.places, lease, early) {
            Ok(probe) => Ok(Candidate { probe: probe.map(Arc::new), ..candidate }),
            Err(()) => Err(candidate),
        }
    }

    /// Takes a candidate that anybody may ask, for a second request beside one that is slow.
    pub(super) fn take_free(&mut self) -> Option<Candidate> {
        let free = |candidate: &Candidate| self.engine.health.standing(&candidate.places) == Standing::Free;
        let place = self.queue.usable.iter().position(free)?;
        self.queue.usable.remove(place)
    }

    /// How many candidates may still get their turn. Those that are left alone do not count on it: nobody that answers is cut
    /// short for one of them.
    pub(super) fn others(&self) -> usize {
        self.queue.usable.len().min(self.budget.candidates())
    }

    /// Whether anybody else could be asked at all.
    pub(super) fn anybody_else(&self) -> bool {
        self.budget.candidates() > 0 && !(self.queue.usable.is_empty() && self.queue.aside.is_empty())
    }

    /// Leaves out candidates that surely cannot answer.
    async fn able(&mut self, targets: Vec<Arc<Target>>) -> Vec<Arc<Target>> {
        let tokens = self.lane.prompt_tokens;
        let small = || format!("the prompt of about {tokens} tokens does not fit its context");
        let mut targets = self.left_out(targets, |target| target.fits(tokens), small).await;
        if self.lane.call.has_images() {
            let looks = |target: &Target| target.images != Some(false);
            targets = self.left_out(targets, looks, || "it does not look at pictures".to_owned()).await;
        }
        if self.lane.call.has_tools() {
            let calls = |target: &Target| target.tools != Some(false);
            targets = self.left_out(targets, calls, || "it does not call tools".to_owned()).await;
        }
        targets
    }

    /// Those of `targets` that are `able`, or all if none is.
    async fn left_out(
        &mut self,
        targets: Vec<Arc<Target>>,
        able: impl Fn(&Target) -> bool,
        why: impl Fn() -> String,
    ) -> Vec<Arc<Target>> {
        let how_many = targets.iter().filter(|target| able(target)).count();
        if how_many == 0 || how_many == targets.len() {
            return targets;
        }
        let (able, unable): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| able(target));
        for target in unable {
            self.tell(Notice::PassedOver(target.id.clone(), why())).await;
        }
        able
    }

    /// Those of `targets` whose spend limits leave room.
    async fn affordable(&mut self, targets: Vec<Arc<Target>>) -> Result<Vec<Arc<Target>>, ApiError> {
        let Some(ledger) = self.engine.ledger.clone() else { return Ok(targets) };
        let (mut affordable, mut refusals) = (Vec::new(), Vec::new());
        for target in targets {
            match ledger.reached(&target) {
                Ok(None) => affordable.push(target),
                Ok(Some(reached)) => refusals.push((target, reached.to_string())),
                Err(trouble) => {
                    self.tell(Notice::Unchecked(target.id.clone(), trouble)).await;
                    affordable.push(target);
                }
            }
        }
        if affordable.is_empty()
            && let Some((_, why)) = refusals.first()
        {
            let hint = Some("raise the limit under [spend] in the config, or wait for it to begin anew".to_owned());
            return Err(ApiError { hint, ..ApiError::new(ErrorClass::Spend, why) });
        }
        for (target, why) in refusals {
            self.tell(Notice::PassedOver(target.id.clone(), why)).await;
        }
        Ok(affordable)
    }

    /// When the time or the attempt budget is used up, the others are told of and not asked.
    pub(super) async fn pass_over_the_rest(&mut self) {
        let why = if !self.clock.allows(Duration::ZERO) {
            "the time is used up".to_owned()
        } else if self.budget.candidates() == 0 {
            format!("one request asks at most {} models", Budget::CANDIDATES)
        } else {
            return;
        };
        for candidate in std::mem::take(&mut self.queue.usable) {
            self.tell(Notice::PassedOver(candidate.target.id.clone(), why.clone())).await;
        }
        self.queue.aside.clear();
    }

    /// After a prompt that was too long: only candidates that read more than whoever said so.
    pub(super) async fn keep_larger(&mut self) {
        let Some(than) = self.records.last().map(|record| Arc::clone(&record.target)) else { return };
        let larger = |candidate: &Candidate| {
            candidate.target.context.zip(than.context).is_some_and(|(context, too_small)| context > too_small)
        };
        let (kept, others) = std::mem::take(&mut self.queue.usable).into_iter().partition::<VecDeque<_>, _>(larger);
        self.queue.usable = kept;
        self.queue.aside.retain(larger);
        for candidate in others {
            let why = "its context is not known to be larger".to_owned();
            self.tell(Notice::PassedOver(candidate.target.id.clone(), why)).await;
        }
    }

    async fn tell_aside(&mut self, candidate: &Candidate, until: Timestamp, place: PlaceId) {
        let why = self.engine.health.look(|snapshot| Some(snapshot.place(place)?.error.as_ref()?.to_string()));
        let wait = Duration::try_from(until.duration_since(self.engine.health.now())).unwrap_or_default();
        self.tell(Notice::SetAside(candidate.target.id.clone(), wait, why.unwrap_or_default())).await;
    }

    pub(super) fn tell(&self, notice: Notice) -> impl Future<Output = ()> + Send + use<'_> {
        self.report.emit(EventKind::Notice(notice))
    }
}

fn busy(target: &Target, until: Timestamp, now: Timestamp) -> ApiError {
    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    let message = format!("everybody failed lately and is left alone; {} is being tried by another request", target.id);
    let retry_after =
        Some(RetryAfter { raw: format!("{:.0}", wait.as_secs_f64().ceil()), when: RetryWhen::After(wait) });
    ApiError { retry_after, ..ApiError::new(ErrorClass::Overloaded, message) }
}
