//! Limits the memory that a process holds for requests and answers.
//!
//! Bytes are reserved as they arrive. A part of the budget is kept for small requests, so that large ones cannot keep
//! other clients from being served. An answer that needs memory when none is left waits: it is not read, so that its sender
//! waits, too. If not enough is given back soon, the largest held answer ends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    pin,
    sync::Notify,
    time::{Instant, sleep_until},
};

#[cfg(test)]
mod tests;

/// How long an answer waits for memory.
const WAIT: Duration = Duration::from_secs(10);
/// If not enough is free by then, the largest answer has to end.
const PATIENCE: Duration = Duration::from_millis(100);
/// If an answer that has to end has not ended by then, because its client does not read, the next largest has to end.
const END_TIME: Duration = Duration::from_secs(1);

/// An answer that holds less does not end for others, because that would free little.
const LARGE_BYTES: usize = 64 * 1024;

/// The memory is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory for requests and answers is used up")]
pub struct MemoryFull;

/// The memory for requests and answers of one process.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Pools>);

#[derive(Debug)]
struct Pools {
    limit: AtomicUsize,
    /// Bytes reserved outside the part that is kept for small requests.
    used: AtomicUsize,
    /// Bytes reserved in that part.
    small_used: AtomicUsize,
    /// The answers that hold memory, by number.
    answers: Mutex<BTreeMap<u64, Weak<HeldAnswer>>>,
    /// When the last answer was told to end.
    last_end: Mutex<Option<Instant>>,
    next_number: AtomicU64,
    /// Wakes the answers that wait for memory.
    freed: Notify,
    /// Bytes given back in large pieces since [`MemoryBudget::take_freed`].
    freed_bytes: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Pools {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            small_used: AtomicUsize::new(0),
            answers: Mutex::default(),
            last_end: Mutex::default(),
            next_number: AtomicU64::new(0),
            freed: Notify::new(),
            freed_bytes: AtomicUsize::new(0),
        }))
    }

    /// Changes the limit; what is held stays.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Relaxed);
    }

    /// Bytes reserved.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed) + self.0.small_used.load(Relaxed)
    }

    /// A reservation for a request, of nothing yet.
    #[must_use]
    pub fn new_request(&self) -> RequestMemory {
        RequestMemory { budget: self.clone(), used: 0, small_used: 0 }
    }

    /// The memory of an answer, nothing yet.
    #[must_use]
    pub fn new_answer(&self) -> AnswerMemory {
        let number = self.0.next_number.fetch_add(1, Relaxed);
        AnswerMemory(Some(Arc::new(HeldAnswer {
            budget: self.clone(),
            number,
            bytes: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            is_registered: AtomicBool::new(false),
            has_to_end: AtomicBool::new(false),
            is_complete: AtomicBool::new(false),
            wake: Notify::new(),
        })))
    }

    /// The part of the budget that is kept for small requests.
    fn for_small_requests(&self) -> usize {
        self.0.limit.load(Relaxed) / 8
    }

    /// New work is refused when more than this is reserved.
    fn limit_for_requests(&self) -> usize {
        self.0.limit.load(Relaxed) / 4 * 3
    }

    fn limit_for_answers(&self) -> usize {
        self.0.limit.load(Relaxed) - self.for_small_requests()
    }

    fn try_take(&self, bytes: usize, limit: usize) -> bool {
        try_add(&self.0.used, bytes, limit)
    }

    /// The bytes given back in large pieces since the last call. `None`: fewer than `min`.
    #[must_use]
    pub fn take_freed(&self, min: usize) -> Option<usize> {
        (self.0.freed_bytes.load(Relaxed) >= min).then(|| self.0.freed_bytes.swap(0, Relaxed))
    }

    fn give_back(&self, bytes: usize) {
        if bytes >= LARGE_BYTES {
            self.0.freed_bytes.fetch_add(bytes, Relaxed);
        }
        self.0.used.fetch_sub(bytes, Relaxed);
        self.0.freed.notify_waiters();
    }

    /// Tells the largest held answer to end, unless one that was told a moment ago still holds memory. `false`: it is
    /// `requester` itself.
    fn end_largest(&self, requester: &HeldAnswer) -> bool {
        let answers = self.answers();
        let mut last_end = self.0.last_end.lock();
        let is_recent = last_end.is_some_and(|last_end| last_end.elapsed() < END_TIME);
        if is_recent && answers.iter().any(|answer| answer.has_to_end.load(Relaxed)) {
            return true;
        }
        let may_end = |answer: &&Arc<HeldAnswer>| {
            let has_ended = answer.is_complete.load(Relaxed) || answer.has_to_end.load(Relaxed);
            !has_ended && answer.bytes.load(Relaxed) >= LARGE_BYTES
        };
        let largest = answers.iter().filter(may_end).max_by_key(|answer| answer.bytes.load(Relaxed));
        // All other memory is held by requests, by small answers and by complete ones, which end by themselves.
        let Some(largest) = largest else { return true };
        *last_end = Some(Instant::now());
        largest.has_to_end.store(true, Relaxed);
        largest.wake.notify_waiters();
        largest.number != requester.number
    }

    /// The answers that hold memory. The lock is free again when they are dropped, which needs it.
    fn answers(&self) -> Vec<Arc<HeldAnswer>> {
        self.0.answers.lock().values().filter_map(Weak::upgrade).collect()
    }
}

/// Adds `bytes` unless the sum exceeds `limit`.
fn try_add(counter: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let sum = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
    counter.try_update(Relaxed, Relaxed, sum).is_ok()
}

/// The memory of a request; given back when dropped.
#[derive(Debug)]
pub struct RequestMemory {
    budget: MemoryBudget,
    used: usize,
    /// What it holds of the part for small requests.
    small_used: usize,
}

impl RequestMemory {
    /// Reserves `bytes` in total. `is_small`: the request may use the part that is kept for small ones.
    ///
    /// # Errors
    /// When the memory is used up; what was reserved before stays reserved.
    pub fn grow_to(&mut self, bytes: usize, is_small: bool) -> Result<(), MemoryFull> {
        let budget = &self.budget;
        let moved = if is_small { 0 } else { self.small_used };
        let additional = bytes.saturating_sub(self.used + self.small_used) + moved;
        if additional == 0 {
            return Ok(());
        }
        if budget.try_take(additional, budget.limit_for_requests()) {
            self.used += additional;
            self.small_used -= moved;
            budget.0.small_used.fetch_sub(moved, Relaxed);
            return Ok(());
        }
        if is_small && try_add(&budget.0.small_used, additional, budget.for_small_requests()) {
            self.small_used += additional;
            return Ok(());
        }
        Err(MemoryFull)
    }
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        self.budget.0.small_used.fetch_sub(self.small_used, Relaxed);
        self.budget.give_back(self.used);
    }
}

/// The memory of an answer; without a limit by default. Clones share it; it is given back with the last of them.
#[derive(Clone, Debug, Default)]
pub struct AnswerMemory(Option<Arc<HeldAnswer>>);

#[derive(Debug)]
struct HeldAnswer {
    budget: MemoryBudget,
    number: u64,
    bytes: AtomicUsize,
    /// The part of `bytes` that the complete answer holds.
    kept: AtomicUsize,
    is_registered: AtomicBool,
    has_to_end: AtomicBool,
    /// It has ended and is being sent, so that it cannot end with an error.
    is_complete: AtomicBool,
    wake: Notify,
}

impl AnswerMemory {
    /// A part of it, of nothing yet.
    #[must_use]
    pub fn new_part(&self) -> AnswerPart {
        AnswerPart { memory: self.clone(), bytes: 0 }
    }

    /// A part of `bytes`, if they are free now.
    ///
    /// # Errors
    /// When they are not.
    pub fn try_part(&self, bytes: usize) -> Result<AnswerPart, MemoryFull> {
        if let Some(held) = &self.0 {
            let budget = &held.budget;
            if !budget.try_take(bytes, budget.limit_for_answers()) {
                return Err(MemoryFull);
            }
            held.bytes.fetch_add(bytes, Relaxed);
        }
        Ok(AnswerPart { memory: self.clone(), bytes })
    }

    /// What the complete answer holds. Given back with the last clone of this memory if nothing takes it.
    #[must_use]
    pub fn take_kept(&self) -> AnswerPart {
        let bytes = self.0.as_ref().map_or(0, |held| held.kept.swap(0, Relaxed));
        AnswerPart { memory: self.clone(), bytes }
    }

    /// The answer is complete: it does not end for others that need memory.
    pub fn complete(&self) {
        if let Some(held) = &self.0 {
            held.is_complete.store(true, Relaxed);
        }
    }

    /// Whether the answer holds memory, so that it may have to end.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.is_registered.load(Relaxed))
    }

    /// Completes when the answer has to end, because others need its memory.
    pub async fn has_to_end(&self) {
        let Some(held) = &self.0 else { return std::future::pending().await };
        let woken = held.wake.notified();
        pin!(woken);
        woken.as_mut().enable();
        if !held.has_to_end.load(Relaxed) {
            woken.await;
        }
    }

    async fn reserve(&self, bytes: usize) -> Result<(), MemoryFull> {
        let Some(held) = &self.0 else { return Ok(()) };
        let budget = &held.budget;
        if held.bytes.load(Relaxed) + bytes > budget.limit_for_answers() {
            return Err(MemoryFull);
        }
        let (give_up, mut end) = (Instant::now() + WAIT, Instant::now() + PATIENCE);
        loop {
            let freed = budget.0.freed.notified();
            pin!(freed);
            freed.as_mut().enable();
            if held.has_to_end.load(Relaxed) {
                return Err(MemoryFull);
            }
            if budget.try_take(bytes, budget.limit_for_answers()) {
                break;
            }
            tokio::select! {
                () = freed => {}
                () = self.has_to_end() => return Err(MemoryFull),
                () = sleep_until(end) => {
                    if end >= give_up || !budget.end_largest(held) {
                        return Err(MemoryFull);
                    }
                    end = (end + END_TIME).min(give_up);
                }
            }
        }
        let total = held.bytes.fetch_add(bytes, Relaxed) + bytes;
        if total >= LARGE_BYTES && !held.is_registered.swap(true, Relaxed) {
            budget.0.answers.lock().insert(held.number, Arc::downgrade(held));
        }
        Ok(())
    }
}

impl Drop for HeldAnswer {
    fn drop(&mut self) {
        if *self.is_registered.get_mut() {
            self.budget.0.answers.lock().remove(&self.number);
        }
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.budget.give_back(bytes);
        }
    }
}

/// A part of the memory of an answer; given back when dropped.
#[derive(Debug)]
pub struct AnswerPart {
    memory: AnswerMemory,
    bytes: usize,
}

impl AnswerPart {
    /// What is reserved.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves `bytes` more. If none is left, waits until another answer has ended.
    ///
    /// # Errors
    /// When this answer holds most of the memory and has to end, or none was given back in time.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), MemoryFull> {
        if bytes > 0 {
            self.memory.reserve(bytes).await?;
            self.bytes += bytes;
        }
        Ok(())
    }

    /// Reserves or gives back, so that it has `bytes`.
    ///
    /// # Errors
    /// Like [`AnswerPart::grow`].
    pub async fn resize(&mut self, bytes: usize) -> Result<(), MemoryFull> {
        self.shrink_to(bytes);
        self.grow(bytes.saturating_sub(self.bytes)).await
    }

    /// Leaves its bytes reserved for [`AnswerMemory::take_kept`].
    pub fn keep(mut self) {
        if let Some(held) = &self.memory.0 {
            held.kept.fetch_add(self.bytes, Relaxed);
        }
        self.bytes = 0;
    }

    /// Gives back what is over `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.shrink(self.bytes.saturating_sub(bytes));
    }

    /// Takes over what `other` has reserved of the same answer.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Hands over `bytes` of it to another part of the same answer.
    pub fn hand_over(&mut self, bytes: usize, other: &mut Self) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        other.bytes += bytes;
    }

    fn shrink(&mut self, bytes: usize) {
        if bytes > 0
            && let Some(held) = &self.memory.0
        {
            let left = held.bytes.fetch_sub(bytes, Relaxed) - bytes;
            if left == 0 {
                // A later attempt of the call begins anew.
                held.has_to_end.store(false, Relaxed);
            }
            held.budget.give_back(bytes);
        }
        self.bytes -= bytes;
    }
}

impl Drop for AnswerPart {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
