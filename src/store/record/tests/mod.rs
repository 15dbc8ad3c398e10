//! What is written is what is read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{Timestamp, ToSpan, tz::TimeZone};

mod conversations;

use super::*;
use crate::{
    engine::{AttemptRecord, Whole},
    model::{
        ErrorClass, FinishReason,
        target::{Price, Target, testing},
    },
    protocol::ApiError,
    routing::spend::{Period, SpendLedger, SpendLimit, SpendScope},
};

const MS: Duration = Duration::from_millis(1);

fn opened() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().expect("a folder");
    let database = Database::open(&Database::place(folder.path())).expect("made");
    (folder, database)
}

fn now() -> Timestamp {
    "2026-03-04T12:30:00Z".parse().expect("a date")
}

fn priced(name: &str) -> Arc<Target> {
    let price = Price { input: 1.0, output: 2.0, cached_input: None, currency: "USD".into() };
    Arc::new(Target { price: Some(price), ..testing::target(name) })
}

fn usage() -> Usage {
    Usage { input: Some(1_000_000), output: Some(11), ..Usage::default() }
}

/// An answer of `b` after `a` failed, asked for as the route `chat`.
fn call(at: Timestamp, ttft: u32) -> CallRecord {
    let (a, b) = (priced("a"), priced("b"));
    let error = ApiError { status: Some(500), ..ApiError::new(ErrorClass::Server, "no") };
    let failed =
        AttemptRecord { error: Some(error), status: Some(500), key: Some(1), ..AttemptRecord::new(a, at, MS * 5) };
    let answered = AttemptRecord {
        status: Some(200),
        ttft: Some(MS * ttft),
        ..AttemptRecord::new(Arc::clone(&b), at, MS * (ttft + 100))
    };
    CallRecord {
        at,
        command: "ask",
        client: None,
        lane: 0,
        asked: "chat".into(),
        is_route: true,
        outcome: LaneOutcome {
            result: Ok(Whole { reason: Some(FinishReason::Stop) }),
            cut: false,
            stopped: false,
            deadline_passed: false,
            target: Some(b),
            attempts: vec![failed, answered],
            ttft: Some(MS * ttft),
            first: Some(MS * (ttft + 5)),
            total: MS * (ttft + 110),
            generating: MS * 100,
        },
        usage: Some(usage()),
        used: vec![None, Some(usage())],
        said: None,
    }
}

fn said(prompt: &str, answer: &str) -> CallRecord {
    let said = Said { prompt: prompt.into(), answer: answer.into(), ..Said::default() };
    CallRecord { said: Some(said), ..call(now(), 10) }
}

/// Writes `call`, which begins a conversation: that.
fn keep(database: &mut Database, call: &CallRecord) -> i64 {
    written(database, GoesOn::Anew, [call]).conversation
}

/// Writes the calls of one run: where they are.
fn written<'c>(database: &mut Database, goes_on: GoesOn, calls: impl IntoIterator<Item = &'c CallRecord>) -> Kept {
    let mut place = RunPlace::new(goes_on);
    for call in calls {
        database.insert(call, &mut place).expect("written");
    }
    place.kept().expect("what was said")
}

#[test]
fn requests_are_counted_by_model_and_what_was_asked_by_route() {
    let (_folder, mut database) = opened();
    for ttft in 1..=100 {
        database.insert(&call(now(), ttft), &mut RunPlace::default()).expect("written");
    }
    let models = database.stats(By::Model, None, None).expect("read");
    let of = |name: &str| models.iter().find(|row| row.name == name).expect("there").figures.clone();
    let (a, b) = (of("a"), of("b"));
    assert_eq!((a.calls, a.failed, a.success(), a.input), (100, 100, Some(0.0), 0));
    assert_eq!(a.classes, [("server".to_owned(), 100)]);
    assert_eq!((b.calls, b.failed, b.input, b.output), (100, 0, 100_000_000, 1100));
    for (share, exact) in [(0.5, 50), (0.95, 95), (0.99, 99)] {
        let (told, exact) = (b.ttft.quantile(share).expect("some"), MS * exact);
        assert!(told.abs_diff(exact) <= exact / 100, "{told:?} for {exact:?}");
    }
    assert!(b.tokens_per_second().is_some_and(|speed| (speed - 100.0).abs() < 1e-6));
    assert!((b.cost["USD"] - 100.0 * (1.0 + 22e-6)).abs() < 1e-9);
    let routes = database.stats(By::Route, None, None).expect("read");
    let [chat] = routes.as_slice() else { panic!("{routes:?}") };
    assert_eq!((chat.name.as_str(), chat.figures.calls, chat.figures.failed), ("chat", 100, 0));
    assert_eq!((chat.figures.failovers, chat.figures.classes.len()), (100, 0), "{chat:?}");
    assert_eq!(database.stats(By::Endpoint, None, Some("b-endpoint")).expect("read").len(), 1);
    let counted: (i64, i64) = database
        .connection
        .query_row("SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM attempts)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("read");
    assert_eq!(counted, (100, 200));
}

#[test]
fn what_we_stopped_ourselves_is_no_failure_of_the_service() {
    let (_folder, mut database) = opened();
    let mut record = call(now(), 10);
    let error = ApiError::new(ErrorClass::Local, "interrupted");
    record.outcome.attempts[0].error = Some(error.clone());
    record.outcome.attempts[1].error = Some(error.clone());
    record.outcome.result = Err(error);
    (record.outcome.cut, record.outcome.stopped) = (true, true);
    database.insert(&record, &mut RunPlace::default()).expect("written");
    let routes = database.stats(By::Route, None, None).expect("read");
    assert_eq!(routes.iter().map(|row| row.figures.stopped).sum::<u64>(), 1, "{routes:?}");
    for by in [By::Model, By::Route] {
        let rows = database.stats(by, None, None).expect("read");
        let calls: u64 = rows.iter().map(|row| row.figures.calls).sum();
        assert!(rows.iter().all(|row| row.figures.failed == 0) && calls == 1, "one had begun: {rows:?}");
        assert!(rows.iter().any(|row| row.figures.cost["USD"] > 1.0), "it is paid for all the same: {rows:?}");
    }
}

#[test]
fn figures_are_cut_off_by_hour_and_summed_by_day() {
    let (_folder, mut database) = opened();
    let hours_ago = |hours: i64| now().checked_sub(hours.hours()).expect("a date");
    for hours in [0, 1, 30, 60] {
        database.insert(&call(hours_ago(hours), 10), &mut RunPlace::default()).expect("written");
    }
    let calls = |by, since: &str| {
        let since = Since::parse(since, now()).expect("a time");
        database
            .stats(by, Some(since), Some("b"))
            .expect("read")
            .iter()
            .map(|row| row.figures.calls)
            .collect::<Vec<_>>()
    };
    assert_eq!((calls(By::Model, "2h"), calls(By::Model, "2d"), calls(By::Model, "1w")), (vec![2], vec![3], vec![4]));
    let days = database.stats(By::Day, None, Some("b")).expect("read");
    assert!(days.len() >= 3 && days.is_sorted_by_key(|row| row.name.clone()), "{days:?}");
    assert!(Since::parse("2026-03-04", now()).is_ok());
    for wrong in ["", "d", "7", "7y", "yesterday", "99999999999999999999d"] {
        assert!(Since::parse(wrong, now()).is_err(), "{wrong}");
    }
}

#[test]
fn what_was_spent_is_held_against_the_limits() {
    let (folder, mut database) = opened();
    let limit = |scope, period, amount| SpendLimit { scope, period, amount, currency: "USD".into() };
    let long_ago = now().checked_sub((24 * 40).hours()).expect("a date");
    for at in [now(), long_ago] {
        database.insert(&call(at, 10), &mut RunPlace::default()).expect("written");
    }
    let here = now().to_zoned(TimeZone::UTC);
    let spent = |limit: &SpendLimit| database.spent(limit, &here).expect("read");
    for (scope, want) in [
        (SpendScope::All, 1.000_022),
        (SpendScope::Model("b".into()), 1.000_022),
        (SpendScope::Endpoint("b-endpoint".into()), 1.000_022),
        (SpendScope::Model("a".into()), 0.0),
    ] {
        for period in [Period::Day, Period::Month] {
            let limit = limit(scope.clone(), period, 1.0);
            assert!((spent(&limit) - want).abs() < 1e-9, "{limit:?}: {}", spent(&limit));
        }
    }
    let ledger = |limits| Ledger::new(limits, Database::place(folder.path()));
    assert_eq!(ledger(vec![]).reached(&priced("b")), Ok(None));
    let nothing = limit(SpendScope::All, Period::Day, 0.0);
    assert!(ledger(vec![nothing.clone()]).reached(&priced("b")).is_ok_and(|reached| reached.is_some()));
    assert_eq!(ledger(vec![nothing]).reached(&testing::target("b")), Ok(None), "it has no price");
}

#[test]
fn what_was_spent_is_read_again_when_it_is_due() {
    let (folder, mut database) = opened();
    let limit = SpendLimit { scope: SpendScope::All, period: Period::Day, amount: 1e-9, currency: "USD".into() };
    let ledger = |time| Ledger::new(vec![limit.clone()], Database::place(folder.path())).good_for(time);
    let (forgetful, knowing) = (ledger(Duration::ZERO), ledger(Duration::from_secs(3600)));
    let reached = |ledger: &Ledger| ledger.reached(&priced("b")).expect("readable").is_some();
    assert!(!reached(&forgetful) && !reached(&knowing), "nothing was spent yet");
    database.insert(&call(Timestamp::now(), 10), &mut RunPlace::default()).expect("written");
    assert!(reached(&forgetful) && !reached(&knowing), "an hour is not over");
    knowing.replace(vec![limit.clone()]);
    assert!(reached(&knowing), "other limits, other sums");
}

#[test]
fn words_are_found_in_every_script_and_gone_when_forgotten() {
    let (_folder, mut database) = opened();
    let first = keep(&mut database, &said("What is a borrow checker?", "It 借用检查器 says \"no\" 100% Öl. Да"));
    let second = keep(&mut database, &said("另一个问题", "答案"));
    let found = |database: &mut Database, words: &str| {
        database
            .search(&words.split(", ").collect::<Vec<_>>(), 9)
            .expect("read")
            .iter()
            .map(|found| found.exchange.conversation)
            .collect::<Vec<_>>()
    };
    for (words, want) in [
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
        assert_eq!(found(&mut database, words), want, "{words}");
    }
    assert!(database.search(&["检查"], 1).expect("read")[0].excerpt.contains("借用检查器"));
    assert!(database.delete(first).expect("written"));
    assert!(!database.delete(77).expect("written"));
    assert_eq!(found(&mut database, "borrow check"), Vec::<i64>::new());
    assert_eq!(database.prune(1, now()).expect("written"), 0);
    assert_eq!(database.prune(1, now().checked_add(48.hours()).expect("a date")).expect("written"), 1);
    assert_eq!((database.exchanges(second).expect("read").len(), database.latest(None).expect("read")), (0, None));
    assert_eq!(found(&mut database, "问题"), Vec::<i64>::new());
}

#[test]
fn what_is_forgotten_leaves_the_log_or_that_is_told() {
    let (folder, mut database) = opened();
    let path = Database::place(folder.path());
    let id = keep(&mut database, &said("xyzzy", ""));
    let reader = Database::open(&path).expect("there");
    reader.connection.execute_batch("BEGIN; SELECT count(*) FROM exchanges").expect("reads");
    assert!(database.delete(id).expect("written"));
    database.connection.busy_timeout(std::time::Duration::ZERO).expect("set");
    assert!(matches!(database.clear_log(), Err(RecordError::InLog { .. })));
    drop(reader);
    database.clear_log().expect("nobody reads");
    let log = std::fs::metadata(path.with_extension("db-wal")).expect("there");
    assert_eq!(log.len(), 0);
}

#[test]
fn the_index_knows_what_was_said_once_somebody_searches_and_no_more() {
    let (_folder, mut database) = opened();
    let say = |database: &mut Database, words: &str| keep(database, &said(words, ""));
    let found = |database: &mut Database, words: &str| database.search(&[words], 9).expect("read").len();
    let whole = |database: &Database| {
        database
            .connection
            .execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)", [])
            .expect("whole");
    };
    let early = say(&mut database, "apples");
    database.delete(early).expect("written");
    let kept = say(&mut database, "oranges");
    assert_eq!((found(&mut database, "apples"), found(&mut database, "oranges")), (0, 1));
    let late = say(&mut database, "lemons");
    database.delete(late).expect("written");
    database.delete(kept).expect("written");
    whole(&database);
    say(&mut database, "cherries");
    assert_eq!((found(&mut database, "lemons"), found(&mut database, "cherries")), (0, 1));
    whole(&database);
}

#[test]
fn more_than_is_indexed_at_once_is_found() {
    let (_folder, mut database) = opened();
    for number in 0..1100 {
        database.insert(&said(&format!("number-{number}!"), ""), &mut RunPlace::default()).expect("written");
    }
    for number in [0, 499, 500, 999, 1000, 1099] {
        assert_eq!(database.search(&[&format!("number-{number}!")], 9).expect("read").len(), 1, "{number}");
    }
}

#[test]
fn a_call_that_cannot_be_written_takes_no_other_with_it() {
    let (folder, database) = opened();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON calls WHEN new.asked = 'bad'
                  BEGIN SELECT raise(ABORT, 'no'); END";
    database.connection.execute_batch(refuse).expect("made");
    let (sender, records) = std::sync::mpsc::sync_channel(9);
    for asked in ["good", "bad", "good"] {
        sender.send(CallRecord { asked: asked.into(), ..said("hello", "") }).expect("room");
    }
    drop(sender);
    assert!(super::run_writer::write(&Database::place(folder.path()), None, RunPlace::default(), &records).is_err());
    let calls = database.connection.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, i64>(0));
    assert_eq!(calls.expect("read"), 2);
}

#[test]
fn the_log_stays_short_between_processes_of_one_call() {
    let (folder, database) = opened();
    drop(database);
    let log = folder.path().join("record.db-wal");
    let mut longest = 0;
    for _ in 0..60 {
        let mut database = Database::open(&Database::place(folder.path())).expect("opened");
        database.insert(&said(&"long ".repeat(4000), ""), &mut RunPlace::default()).expect("written");
        database.settle().expect("settled");
        longest = longest.max(std::fs::metadata(&log).map_or(0, |metadata| metadata.len()));
    }
    assert!(longest < 1024 * 1024, "{longest}");
}

#[test]
fn many_at_once_are_all_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Database::place(folder.path());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut database = Database::open(&path).expect("opened");
                for _ in 0..5 {
                    database.insert(&said("at once", "yes"), &mut RunPlace::default()).expect("written");
                }
            });
        }
    });
    let database = Database::open(&path).expect("opened");
    let rows = database.stats(By::Route, None, None).expect("read");
    assert_eq!((rows[0].figures.calls, database.conversations(999).expect("read").len()), (80, 80));
    assert_eq!(rows[0].figures.ttft.len(), 80);
    let costs: &BTreeMap<String, f64> = &rows[0].figures.cost;
    assert!((costs["USD"] - 80.0 * 1.000_022).abs() < 1e-6, "{costs:?}");
}

#[test]
fn what_services_quoted_of_a_prompt_is_forgotten_with_it() {
    let (_folder, mut database) = opened();
    let quoted = |database: &Database| {
        let query = "SELECT count(*) FROM attempts WHERE message IS NOT NULL";
        database.connection.query_row(query, [], |row| row.get::<_, i64>(0)).expect("read")
    };
    let ids = [1, 2, 3].map(|_| keep(&mut database, &said("secret", "no")));
    assert_eq!(quoted(&database), 3);
    database.delete(ids[0]).expect("written");
    assert_eq!(quoted(&database), 2);
    database.prune(1, now().checked_add(48.hours()).expect("a date")).expect("written");
    assert_eq!(quoted(&database), 0);
    let plan: Vec<String> = {
        let mut statement = database
            .connection
            .prepare("EXPLAIN QUERY PLAN UPDATE attempts SET message = NULL WHERE at < 1 AND message IS NOT NULL")
            .expect("good");
        let rows = statement.query_map([], |row| row.get(3)).expect("read");
        rows.collect::<Result<_, _>>().expect("text")
    };
    assert!(plan.iter().all(|step| step.contains("attempts_quoting")), "not all of a million are looked at: {plan:?}");
}
