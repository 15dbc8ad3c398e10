//! Writing, reading, searching and deleting records.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{Timestamp, ToSpan, tz::TimeZone};

use super::*;

use crate::{
    engine::{AttemptRecord, Completion},
    model::{
        ErrorClass, FinishReason, Usage,
        clock::Clock,
        target::{Price, Target, testing},
    },
    protocol::CallError,
    routing::spend::{Period, SpendLedger, SpendLimit, SpendScope},
};

mod conversations;
mod migrations;

const MS: Duration = Duration::from_millis(1);

fn test_database() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().expect("temp dir");
    let database = Database::open(&Database::path_in(folder.path())).expect("new database");
    (folder, database)
}

fn now() -> Timestamp {
    "2026-03-04T12:30:00Z".parse().expect("valid time")
}

fn priced_target(name: &str) -> Arc<Target> {
    let price = Price { input: 1.0, output: 2.0, cached_input: None, currency: "USD".into() };
    Arc::new(Target { price: Some(price), ..testing::target(name) })
}

fn usage() -> Usage {
    Usage { input: Some(1_000_000), output: Some(11), ..Usage::default() }
}

/// A call to the route `chat`: `a` failed, then `b` answered.
fn failover_call(at: Timestamp, ttft: u32) -> StoredCall {
    let (a, b) = (priced_target("a"), priced_target("b"));
    let error = CallError { status: Some(500), ..CallError::new(ErrorClass::Server, "no") };
    let failed = AttemptRecord {
        error: Some(error),
        status: Some(500),
        key_index: Some(1),
        ..AttemptRecord::new(a, at, MS * 5)
    };
    let answered = AttemptRecord {
        status: Some(200),
        ttft: Some(MS * ttft),
        ..AttemptRecord::new(Arc::clone(&b), at, MS * (ttft + 100))
    };
    let answered = AttemptRecord { usage: Some(usage()), ..answered };
    let record = CallRecord {
        is_route: true,
        started_at: at,
        target: Some(b),
        attempts: vec![failed, answered],
        ttft: Some(MS * ttft),
        first_output: Some(MS * (ttft + 5)),
        total: MS * (ttft + 110),
        output_duration: MS * 100,
        usage: Some(usage()),
        ..CallRecord::new("chat", Ok(Completion { finish_reason: Some(FinishReason::Stop) }))
    };
    StoredCall { record: Arc::new(record), command: "ask", client: None, index: 0, transcript: None }
}

/// Changes the record of a call.
fn change(call: &mut StoredCall, act: impl FnOnce(&mut CallRecord)) {
    act(Arc::make_mut(&mut call.record));
}

fn call_with_content(prompt: &str, answer: &str) -> StoredCall {
    let transcript = Transcript { prompt: prompt.into(), answer: answer.into(), ..Transcript::default() };
    StoredCall { transcript: Some(transcript), ..failover_call(now(), 10) }
}

/// Writes `call` as a new conversation and returns the conversation.
fn store_conversation(database: &mut Database, call: &StoredCall) -> i64 {
    store_run(database, Continuation::New, [call]).conversation
}

/// Writes the calls of one run and returns where they are stored.
fn store_run<'c>(
    database: &mut Database,
    continuation: Continuation,
    calls: impl IntoIterator<Item = &'c StoredCall>,
) -> StoredRound {
    let mut run = RunPlacement::new(continuation);
    for call in calls {
        database.insert_call(call, &mut run).expect("writable");
    }
    run.into_stored_round().expect("stored content")
}

#[test]
fn models_count_requests_and_routes_count_calls() {
    let (_folder, mut database) = test_database();
    for ttft in 1..=100 {
        database.insert_call(&failover_call(now(), ttft), &mut RunPlacement::default()).expect("writable");
    }
    let models = database.stats(GroupBy::Model, None, None).expect("readable");
    let metrics = |name: &str| models.iter().find(|row| row.name == name).expect("a row").metrics.clone();
    let (a, b) = (metrics("a"), metrics("b"));
    assert_eq!((a.calls, a.failed, a.success_rate(), a.input), (100, 100, Some(0.0), 0));
    assert_eq!(a.failures_by_class, [("server".to_owned(), 100)]);
    assert_eq!((b.calls, b.failed, b.input, b.output), (100, 0, 100_000_000, 1100));
    for (quantile, exact) in [(0.5, 50), (0.95, 95), (0.99, 99)] {
        let (estimate, exact) = (b.ttft.quantile(quantile).expect("not empty"), MS * exact);
        assert!(estimate.abs_diff(exact) <= exact / 100, "{estimate:?} for {exact:?}");
    }
    assert!(b.tokens_per_second().is_some_and(|speed| (speed - 100.0).abs() < 1e-6));
    assert!((b.cost["USD"] - 100.0 * (1.0 + 22e-6)).abs() < 1e-9);
    let routes = database.stats(GroupBy::Route, None, None).expect("readable");
    let [chat] = routes.as_slice() else { panic!("{routes:?}") };
    assert_eq!((chat.name.as_str(), chat.metrics.calls, chat.metrics.failed), ("chat", 100, 0));
    assert_eq!((chat.metrics.failovers, chat.metrics.failures_by_class.len()), (100, 0), "{chat:?}");
    assert_eq!(database.stats(GroupBy::Endpoint, None, Some("b-endpoint")).expect("readable").len(), 1);
    let counted: (i64, i64) = database
        .connection
        .query_row("SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM attempts)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("readable");
    assert_eq!(counted, (100, 200));
}

#[test]
fn canceled_attempts_are_not_failures() {
    let (_folder, mut database) = test_database();
    let mut record = failover_call(now(), 10);
    let error = CallError::new(ErrorClass::LocalLimit, "interrupted");
    change(&mut record, |record| {
        record.attempts[0].error = Some(error.clone());
        record.attempts[1].error = Some(error.clone());
        record.result = Err(error);
        (record.incomplete, record.stopped) = (true, true);
    });
    database.insert_call(&record, &mut RunPlacement::default()).expect("writable");
    let routes = database.stats(GroupBy::Route, None, None).expect("readable");
    assert_eq!(routes.iter().map(|row| row.metrics.stopped).sum::<u64>(), 1, "{routes:?}");
    for by in [GroupBy::Model, GroupBy::Route] {
        let rows = database.stats(by, None, None).expect("readable");
        let calls: u64 = rows.iter().map(|row| row.metrics.calls).sum();
        assert!(rows.iter().all(|row| row.metrics.failed == 0) && calls == 1, "one attempt had output: {rows:?}");
        assert!(rows.iter().any(|row| row.metrics.cost["USD"] > 1.0), "its cost counts: {rows:?}");
    }
}

#[test]
fn since_counts_whole_hours_and_days_are_summed() {
    let (_folder, mut database) = test_database();
    let hours_ago = |hours: i64| now().checked_sub(hours.hours()).expect("valid time");
    for hours in [0, 1, 30, 60] {
        database.insert_call(&failover_call(hours_ago(hours), 10), &mut RunPlacement::default()).expect("writable");
    }
    let calls = |by, since: &str| {
        let since = Since::parse(since, now()).expect("valid time");
        database
            .stats(by, Some(since), Some("b"))
            .expect("readable")
            .iter()
            .map(|row| row.metrics.calls)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (calls(GroupBy::Model, "2h"), calls(GroupBy::Model, "2d"), calls(GroupBy::Model, "1w")),
        (vec![2], vec![3], vec![4])
    );
    let days = database.stats(GroupBy::Day, None, Some("b")).expect("readable");
    assert!(days.len() >= 3 && days.is_sorted_by_key(|row| row.name.clone()), "{days:?}");
    assert!(Since::parse("2026-03-04", now()).is_ok());
    for invalid in ["", "d", "7", "7y", "yesterday", "99999999999999999999d"] {
        assert!(Since::parse(invalid, now()).is_err(), "{invalid}");
    }
}

#[test]
fn spend_is_checked_against_limits() {
    let (folder, mut database) = test_database();
    let limit = |scope, period, amount| SpendLimit { scope, period, amount, currency: "USD".into() };
    let long_ago = now().checked_sub((24 * 40).hours()).expect("valid time");
    for at in [now(), long_ago] {
        database.insert_call(&failover_call(at, 10), &mut RunPlacement::default()).expect("writable");
    }
    let local_now = now().to_zoned(TimeZone::UTC);
    let spent = |limit: &SpendLimit| database.spend_for_limit(limit, &local_now).expect("readable");
    for (scope, expected) in [
        (SpendScope::All, 1.000_022),
        (SpendScope::Model("b".into()), 1.000_022),
        (SpendScope::Endpoint("b-endpoint".into()), 1.000_022),
        (SpendScope::Model("a".into()), 0.0),
    ] {
        for period in [Period::Day, Period::Month] {
            let limit = limit(scope.clone(), period, 1.0);
            assert!((spent(&limit) - expected).abs() < 1e-9, "{limit:?}: {}", spent(&limit));
        }
    }
    let ledger = |limits| SqliteSpendLedger::new(limits, Database::path_in(folder.path()));
    assert_eq!(ledger(vec![]).reached_limit(&priced_target("b")), Ok(None));
    let zero = limit(SpendScope::All, Period::Day, 0.0);
    assert!(ledger(vec![zero.clone()]).reached_limit(&priced_target("b")).is_ok_and(|reached| reached.is_some()));
    assert_eq!(ledger(vec![zero]).reached_limit(&testing::target("b")), Ok(None), "the model has no price");
}

#[test]
fn day_of_a_spend_limit_is_that_of_the_clock_at_the_moment() {
    let (folder, mut database) = test_database();
    database.insert_call(&failover_call(now(), 10), &mut RunPlacement::default()).expect("writable");
    let (days, at) = (Arc::new(AtomicI64::new(0)), now());
    let shown = Arc::clone(&days);
    let clock = Clock::new(move || at + jiff::SignedDuration::from_hours(24 * shown.load(Ordering::Relaxed)));
    let limit = SpendLimit { scope: SpendScope::All, period: Period::Day, amount: 1e-9, currency: "USD".into() };
    let ledger = SqliteSpendLedger::new(vec![limit], Database::path_in(folder.path())).with_clock(clock);
    for (day, is_reached) in [(0, true), (1, false), (0, true), (-1, false)] {
        days.store(day, Ordering::Relaxed);
        let reached = ledger.reached_limit(&priced_target("b")).expect("readable");
        assert_eq!(reached.is_some(), is_reached, "day {day}");
    }
}

#[test]
fn spend_is_reread_after_the_maximum_age() {
    let (folder, mut database) = test_database();
    let limit = SpendLimit { scope: SpendScope::All, period: Period::Day, amount: 1e-9, currency: "USD".into() };
    let ledger =
        |max_age| SqliteSpendLedger::new(vec![limit.clone()], Database::path_in(folder.path())).with_max_age(max_age);
    let (uncached, cached) = (ledger(Duration::ZERO), ledger(Duration::from_secs(3600)));
    let reached = |ledger: &SqliteSpendLedger| ledger.reached_limit(&priced_target("b")).expect("readable").is_some();
    assert!(!reached(&uncached) && !reached(&cached), "nothing is spent");
    database.insert_call(&failover_call(Timestamp::now(), 10), &mut RunPlacement::default()).expect("writable");
    assert!(reached(&uncached) && !reached(&cached), "the cached value is valid for an hour");
    cached.set_limits(vec![limit.clone()]);
    assert!(reached(&cached), "new limits clear the cache");
}

#[test]
fn search_works_in_any_script_and_deleted_turns_are_not_found() {
    let (_folder, mut database) = test_database();
    let first = store_conversation(
        &mut database,
        &call_with_content("What is a borrow checker?", "It 借用检查器 says \"no\" 100% Öl. Да"),
    );
    let second = store_conversation(&mut database, &call_with_content("另一个问题", "答案"));
    let hits = |database: &mut Database, phrases: &str| {
        database
            .search(&phrases.split(", ").collect::<Vec<_>>(), 9)
            .expect("readable")
            .iter()
            .map(|hit| hit.turn.conversation)
            .collect::<Vec<_>>()
    };
    for (phrases, expected) in [
        ("BORROW check", vec![1]),
        ("检查", vec![1]),
        ("借用检查", vec![1]),
        ("says \"no\"", vec![1]),
        ("0%", vec![1]),
        ("问题", vec![2]),
        ("x%y", vec![]),
        ("OR AND", vec![]),
        ("checker, what, 借用检查, no", vec![1]),
        ("no, 0%", vec![1]),
        ("öl", vec![1]),
        ("да", vec![1]),
        ("ДА", vec![1]),
        ("Да, ÖL, 100%", vec![1]),
        ("_", vec![]),
        ("checker, 问题", vec![]),
        ("checker what", vec![]),
        ("\"", vec![1]),
    ] {
        assert_eq!(hits(&mut database, phrases), expected, "{phrases}");
    }
    assert!(database.search(&["检查"], 1).expect("readable")[0].excerpt.contains("借用检查器"));
    assert!(database.delete_conversation(first).expect("writable"));
    assert!(!database.delete_conversation(77).expect("writable"));
    assert_eq!(hits(&mut database, "borrow check"), Vec::<i64>::new());
    assert_eq!(database.prune(1, now()).expect("writable"), 0);
    assert_eq!(database.prune(1, now().checked_add(48.hours()).expect("valid time")).expect("writable"), 1);
    assert_eq!(
        (database.turns(second).expect("readable").len(), database.latest_conversation(None).expect("readable")),
        (0, None)
    );
    assert_eq!(hits(&mut database, "问题"), Vec::<i64>::new());
}

#[test]
fn deleted_content_leaves_the_log_or_an_error_is_returned() {
    let (folder, mut database) = test_database();
    let path = Database::path_in(folder.path());
    let id = store_conversation(&mut database, &call_with_content("xyzzy", ""));
    let reader = Database::open(&path).expect("valid database");
    reader.connection.execute_batch("BEGIN; SELECT count(*) FROM turns").expect("valid SQL");
    assert!(database.delete_conversation(id).expect("writable"));
    database.connection.busy_timeout(std::time::Duration::ZERO).expect("open connection");
    assert!(matches!(database.purge_deleted(), Err(RecordError::StillInLog { .. })));
    drop(reader);
    database.purge_deleted().expect("no reader");
    let log = std::fs::metadata(path.with_extension("db-wal")).expect("a file");
    assert_eq!(log.len(), 0);
}

#[test]
fn search_updates_the_index_and_deleting_keeps_it_consistent() {
    let (_folder, mut database) = test_database();
    let store = |database: &mut Database, prompt: &str| store_conversation(database, &call_with_content(prompt, ""));
    let hits = |database: &mut Database, phrase: &str| database.search(&[phrase], 9).expect("readable").len();
    let check_index = |database: &Database| {
        database
            .connection
            .execute("INSERT INTO turn_search (turn_search, rank) VALUES ('integrity-check', 1)", [])
            .expect("consistent index");
    };
    let apples = store(&mut database, "apples");
    database.delete_conversation(apples).expect("writable");
    let oranges = store(&mut database, "oranges");
    assert_eq!((hits(&mut database, "apples"), hits(&mut database, "oranges")), (0, 1));
    let lemons = store(&mut database, "lemons");
    database.delete_conversation(lemons).expect("writable");
    database.delete_conversation(oranges).expect("writable");
    check_index(&database);
    store(&mut database, "cherries");
    assert_eq!((hits(&mut database, "lemons"), hits(&mut database, "cherries")), (0, 1));
    check_index(&database);
}

#[test]
fn index_is_updated_in_several_batches() {
    let (_folder, mut database) = test_database();
    for number in 0..1100 {
        database
            .insert_call(&call_with_content(&format!("number-{number}!"), ""), &mut RunPlacement::default())
            .expect("writable");
    }
    for number in [0, 499, 500, 999, 1000, 1099] {
        assert_eq!(database.search(&[&format!("number-{number}!")], 9).expect("readable").len(), 1, "{number}");
    }
}

#[test]
fn writer_of_a_server_writes_all_queued_calls_before_it_closes() {
    let (folder, database) = test_database();
    let writer = RecordWriter::for_server(Database::path_in(folder.path()), |error| panic!("{error}"));
    for _ in 0..5 {
        writer.submit(Box::new(call_with_content("hello", "")));
    }
    assert_eq!(writer.close().expect("writable"), None);
    let count = database.connection.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, i64>(0));
    assert_eq!((count.expect("readable"), writer.dropped()), (5, 0));
    writer.submit(Box::new(call_with_content("too late", "")));
    assert_eq!(writer.dropped(), 1);
}

#[test]
fn writer_of_a_command_reports_that_the_record_was_removed() {
    let (folder, _database) = test_database();
    let path = Database::path_in(folder.path());
    let writer = RecordWriter::for_command(path.clone(), RunPlacement::default(), None);
    writer.submit(Box::new(call_with_content("first", "")));
    let count = || {
        let database = Database::open_existing(&path).expect("readable").expect("existing");
        database.connection.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, i64>(0)).expect("readable")
    };
    while count() == 0 {
        std::thread::yield_now();
    }
    std::fs::remove_file(&path).expect("the file exists");
    writer.submit(Box::new(call_with_content("second", "")));
    let error = writer.close().expect_err("the first call is lost");
    assert!(matches!(error, RecordError::Removed { .. }), "{error}");
    assert!(!path.exists(), "the run does not go on in a new file");
}

#[test]
fn writer_of_a_server_reports_errors_and_counts_lost_calls() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (sender, errors) = std::sync::mpsc::channel();
    // A folder cannot be opened as a database.
    let on_error = move |error: &RecordError| sender.send(error.to_string()).expect("the test receives");
    let writer = RecordWriter::for_server(folder.path().to_owned(), on_error);
    for _ in 0..3 {
        writer.submit(Box::new(call_with_content("hello", "")));
    }
    assert!(writer.close().is_ok(), "a server goes on without a record");
    assert_eq!(writer.dropped(), 3);
    let errors: Vec<String> = errors.try_iter().collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.contains("cannot open")), "{errors:?}");
}

#[test]
fn failed_insert_does_not_affect_other_calls() {
    let (folder, database) = test_database();
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON calls WHEN new.requested = 'bad'
                  BEGIN SELECT raise(ABORT, 'no'); END";
    database.connection.execute_batch(trigger).expect("valid SQL");
    let writer = RecordWriter::for_command(Database::path_in(folder.path()), RunPlacement::default(), None);
    for name in ["good", "bad", "good"] {
        let mut call = call_with_content("hello", "");
        change(&mut call, |record| record.requested = name.into());
        writer.submit(Box::new(call));
    }
    assert!(writer.close().is_err());
    assert_eq!(writer.dropped(), 1);
    let count = database.connection.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, i64>(0));
    assert_eq!(count.expect("readable"), 2);
}

#[test]
fn log_stays_small_across_processes_of_one_call() {
    let (folder, database) = test_database();
    drop(database);
    let log = folder.path().join("record.db-wal");
    let mut max_len = 0;
    for _ in 0..60 {
        let mut database = Database::open(&Database::path_in(folder.path())).expect("valid database");
        database
            .insert_call(&call_with_content(&"long ".repeat(4000), ""), &mut RunPlacement::default())
            .expect("writable");
        database.checkpoint_if_large().expect("idle database");
        max_len = max_len.max(std::fs::metadata(&log).map_or(0, |metadata| metadata.len()));
    }
    assert!(max_len < 1024 * 1024, "{max_len}");
}

#[test]
fn concurrent_writers_lose_nothing() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = Database::path_in(folder.path());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut database = Database::open(&path).expect("valid database");
                for _ in 0..5 {
                    database
                        .insert_call(&call_with_content("at once", "yes"), &mut RunPlacement::default())
                        .expect("writable");
                }
            });
        }
    });
    let database = Database::open(&path).expect("valid database");
    let rows = database.stats(GroupBy::Route, None, None).expect("readable");
    assert_eq!((rows[0].metrics.calls, database.conversations(999).expect("readable").len()), (80, 80));
    assert_eq!(rows[0].metrics.ttft.len(), 80);
    let costs: &BTreeMap<String, f64> = &rows[0].metrics.cost;
    assert!((costs["USD"] - 80.0 * 1.000_022).abs() < 1e-6, "{costs:?}");
}

#[test]
fn error_messages_are_deleted_with_the_prompt() {
    let (_folder, mut database) = test_database();
    let messages = |database: &Database| {
        let query = "SELECT count(*) FROM attempts WHERE error_message IS NOT NULL";
        database.connection.query_row(query, [], |row| row.get::<_, i64>(0)).expect("readable")
    };
    let ids = [1, 2, 3].map(|_| store_conversation(&mut database, &call_with_content("secret", "no")));
    assert_eq!(messages(&database), 3);
    database.delete_conversation(ids[0]).expect("writable");
    assert_eq!(messages(&database), 2);
    database.prune(1, now().checked_add(48.hours()).expect("valid time")).expect("writable");
    assert_eq!(messages(&database), 0);
    let plan: Vec<String> = {
        let mut statement = database
            .connection
            .prepare("EXPLAIN QUERY PLAN UPDATE attempts SET error_message = NULL WHERE at < 1 AND error_message IS NOT NULL")
            .expect("valid SQL");
        let rows = statement.query_map([], |row| row.get(3)).expect("readable");
        rows.collect::<Result<_, _>>().expect("text")
    };
    assert!(
        plan.iter().all(|step| step.contains("attempts_with_message")),
        "uses the index, not a full scan: {plan:?}"
    );
}
