//! Tests of the reservations of requests and answers.

use futures_util::FutureExt;

use super::*;

const LIMIT: usize = 8 * 1024 * 1024;

#[test]
fn large_requests_leave_memory_for_small_ones() {
    let budget = MemoryBudget::new(LIMIT);
    let mut large = budget.new_request();
    large.grow_to(LIMIT / 4 * 3, false).expect("three quarters are for all requests");
    assert_eq!(budget.new_request().grow_to(1, false), Err(MemoryFull));
    let (mut small, mut other) = (budget.new_request(), budget.new_request());
    small.grow_to(LIMIT / 8, true).expect("an eighth is kept");
    assert_eq!(other.grow_to(1, true), Err(MemoryFull));
    assert_eq!(small.grow_to(LIMIT / 8 + 1, false), Err(MemoryFull), "it is not small any more");
    drop(large);
    small.grow_to(LIMIT / 4, false).expect("the large request has gone");
    other.grow_to(LIMIT / 8, true).expect("the kept part is free again");
    drop((small, other));
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn largest_answer_ends_and_the_one_that_needs_memory_goes_on() {
    let budget = MemoryBudget::new(LIMIT);
    let (large, small) = (budget.new_answer(), budget.new_answer());
    let (mut large_part, mut small_part) = (large.new_part(), small.new_part());
    large_part.grow(LIMIT / 2).await.expect("there is room");
    small_part.grow(LIMIT / 4).await.expect("there is room");
    assert!(large.has_to_end().now_or_never().is_none());
    let reader = async {
        large.has_to_end().await;
        drop(large_part);
    };
    let (grown, ()) = tokio::join!(small_part.grow(LIMIT / 4), reader);
    grown.expect("the largest answer has ended");
    assert!(small.has_to_end().now_or_never().is_none());
    assert_eq!(small_part.grow(LIMIT / 2).await, Err(MemoryFull), "now it is the largest");
    small_part.keep();
    assert_eq!(budget.used(), LIMIT / 2);
    let mut kept = small.take_kept();
    kept.shrink_to(LIMIT / 4);
    assert_eq!(budget.used(), LIMIT / 4);
    drop((large, small, kept));
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn answer_that_does_not_end_when_it_has_to_is_followed_by_the_next_largest() {
    let budget = MemoryBudget::new(LIMIT);
    let (stuck, next, requester) = (budget.new_answer(), budget.new_answer(), budget.new_answer());
    let (mut stuck_part, mut next_part) = (stuck.new_part(), next.new_part());
    stuck_part.grow(LIMIT / 2).await.expect("there is room");
    next_part.grow(LIMIT / 4).await.expect("there is room");
    let reader = async {
        next.has_to_end().await;
        drop(next_part);
    };
    let mut requester_part = requester.new_part();
    let (grown, ()) = tokio::join!(requester_part.grow(LIMIT / 4), reader);
    grown.expect("the second answer has ended");
    assert!(stuck.has_to_end().now_or_never().is_some(), "it still has to end");
    assert_eq!(stuck_part.grow(1).await, Err(MemoryFull));
    drop(stuck_part);
    stuck.new_part().grow(LIMIT / 2).await.expect("a new attempt begins anew");
    assert_eq!(requester.new_part().grow(LIMIT).await, Err(MemoryFull), "it could never fit");
    assert!(next.has_to_end().now_or_never().is_none(), "so that no other ends for it");
}

#[tokio::test(start_paused = true)]
async fn complete_answers_do_not_end_and_parts_are_given_back() {
    let budget = MemoryBudget::new(LIMIT);
    let (complete, other) = (budget.new_answer(), budget.new_answer());
    let mut part = complete.new_part();
    part.grow(LIMIT / 4 * 3).await.expect("there is room");
    complete.complete();
    let started = Instant::now();
    assert_eq!(other.new_part().grow(LIMIT / 4).await, Err(MemoryFull));
    assert_eq!(started.elapsed(), WAIT, "it may be given back meanwhile");
    assert!(complete.has_to_end().now_or_never().is_none());
    part.resize(LIMIT / 2).await.expect("smaller");
    let mut rest = other.new_part();
    rest.grow(LIMIT / 4).await.expect("a part was given back");
    part.absorb(complete.new_part());
    drop((part, rest));
    assert_eq!(budget.used(), 0);
    AnswerMemory::default().new_part().grow(usize::MAX).await.expect("no limit by default");
}

#[tokio::test(start_paused = true)]
async fn answers_that_hold_little_do_not_end_for_others() {
    let budget = MemoryBudget::new(LIMIT);
    let (emptied, complete, requester) = (budget.new_answer(), budget.new_answer(), budget.new_answer());
    let mut part = emptied.new_part();
    part.grow(LIMIT / 4).await.expect("there is room");
    part.shrink_to(0);
    let mut rest = complete.new_part();
    rest.grow(LIMIT / 8 * 7).await.expect("there is room");
    complete.complete();
    assert_eq!(requester.new_part().grow(LIMIT / 4).await, Err(MemoryFull));
    assert!(emptied.has_to_end().now_or_never().is_none());
}
