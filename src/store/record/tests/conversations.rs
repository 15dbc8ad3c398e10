//! Placement of answers: rounds, parallel answers, forks, retries, and migration from older versions.

use super::*;

fn continue_from(stored: &StoredRound) -> Continuation {
    Continuation::Append { turns: stored.turns.clone(), fork: false }
}

fn answer(index: usize, prompt: &str, answer: &str) -> StoredCall {
    StoredCall { index, ..call_with_content(prompt, answer) }
}

fn failed_answer(index: usize, prompt: &str) -> StoredCall {
    let mut record = answer(index, prompt, "");
    change(&mut record, |record| {
        record.result = Err(CallError::new(ErrorClass::Server, "it quotes the prompt"));
    });
    record
}

/// Each turn of a conversation: its reference, its parent, its answer.
fn turn_rows(database: &Database, conversation: i64) -> Vec<(String, Option<String>, String)> {
    let turns = database.turns(conversation).expect("readable");
    let name = |id: i64| turns.iter().find(|turn| turn.id == id).map(StoredTurn::reference);
    turns.iter().map(|turn| (turn.reference(), turn.parent.and_then(name), turn.answer.clone())).collect()
}

fn expected(rows: &[(&str, Option<&str>, &str)]) -> Vec<(String, Option<String>, String)> {
    rows.iter()
        .map(|(reference, parent, answer)| ((*reference).into(), parent.map(Into::into), (*answer).into()))
        .collect()
}

#[test]
fn single_answers_are_numbered_by_round_and_parallel_ones_within_it() {
    let (_folder, mut database) = test_database();
    let one = store_run(&mut database, Continuation::New, [&call_with_content("one", "1")]);
    store_run(&mut database, continue_from(&one), [&call_with_content("two", "2")]);
    assert_eq!(turn_rows(&database, 1), expected(&[("1@1", None, "1"), ("1@2", Some("1@1"), "2")]));
    // Answers are written in the order in which they finish, but numbered by call.
    let both = store_run(&mut database, Continuation::New, [&answer(1, "both", "b"), &answer(0, "both", "a")]);
    store_run(&mut database, continue_from(&both), [&answer(0, "more", "a2"), &answer(1, "more", "b2")]);
    let rows = [("2.1@1", None, "a"), ("2.1@2", None, "b"), ("2@1", Some("2.1@1"), "a2"), ("2@2", Some("2.1@2"), "b2")];
    assert_eq!(turn_rows(&database, 2), expected(&rows));
    let listed = database.conversations(9).expect("readable");
    let rows: Vec<_> =
        listed.iter().map(|summary| (summary.id, summary.turn_count, summary.requested.as_str())).collect();
    assert_eq!(rows, [(2, 4, "chat, chat"), (1, 2, "chat")]);
}

#[test]
fn continuing_an_earlier_round_or_one_of_several_answers_forks_the_conversation() {
    let (_folder, mut database) = test_database();
    let one = store_run(&mut database, Continuation::New, [&call_with_content("one", "1")]);
    for answer in ["2", "other"] {
        store_run(&mut database, continue_from(&one), [&call_with_content("two", answer)]);
    }
    assert_eq!(turn_rows(&database, 1), expected(&[("1@1", None, "1"), ("1@2", Some("1@1"), "2")]));
    assert_eq!(turn_rows(&database, 2), expected(&[("2@1", None, "1"), ("2@2", Some("2@1"), "other")]));
    let both = store_run(&mut database, Continuation::New, [&answer(0, "both", "a"), &answer(1, "both", "b")]);
    let second = Continuation::Append { turns: vec![both.turns[1]], fork: true };
    let fork = store_run(&mut database, second, [&call_with_content("on", "c")]);
    assert_eq!(turn_rows(&database, fork.conversation), expected(&[("4@1", None, "b"), ("4@2", Some("4@1"), "c")]));
    // Two runs continue both answers at once: the later one copies the history.
    store_run(&mut database, continue_from(&both), [&answer(0, "x", "a2")]);
    let late = store_run(&mut database, continue_from(&both), [&answer(0, "x", "a3"), &answer(1, "x", "b3")]);
    let rows = [("5.1@1", None, "a"), ("5.1@2", None, "b"), ("5@1", Some("5.1@1"), "a3"), ("5@2", Some("5.1@2"), "b3")];
    assert_eq!(turn_rows(&database, late.conversation), expected(&rows));
    database.delete_conversation(1).expect("writable");
    assert_ne!(
        store_run(&mut database, continue_from(&one), [&call_with_content("two", "2")]).conversation,
        1,
        "the conversation was deleted"
    );
}

#[test]
fn all_calls_can_continue_the_picked_answer() {
    let (_folder, mut database) = test_database();
    let both = store_run(&mut database, Continuation::New, [&answer(0, "both", "a"), &answer(1, "both", "b")]);
    store_run(&mut database, Continuation::New, [&call_with_content("other", "")]);
    assert_eq!(database.latest_conversation(None).expect("readable"), Some(2));
    for index in [0, 1] {
        let picked = database.turns(1).expect("readable").swap_remove(index);
        database.pick(picked.id, now()).expect("writable");
    }
    let picked: Vec<bool> = database.turns(1).expect("readable").iter().map(|turn| turn.picked).collect();
    assert_eq!((picked, database.latest_conversation(None).expect("readable")), (vec![false, true], Some(1)));
    let shared = Continuation::Append { turns: vec![both.turns[1]; 2], fork: false };
    store_run(&mut database, shared, [&answer(0, "on", "a2"), &answer(1, "on", "b2")]);
    assert_eq!(turn_rows(&database, 1)[2..], expected(&[("1@1", Some("1.1@2"), "a2"), ("1@2", Some("1.1@2"), "b2")]));
}

#[test]
fn retry_replaces_the_answer_unless_it_is_worse() {
    let (_folder, mut database) = test_database();
    let orphaned_messages = |database: &Database| {
        let query = "SELECT count(*) FROM attempts WHERE error_message IS NOT NULL AND call_id NOT IN (SELECT call_id FROM turns)";
        database.connection.query_row(query, [], |row| row.get::<_, i64>(0)).expect("readable")
    };
    let answers = |database: &Database| {
        turn_rows(database, 1).into_iter().map(|(reference, _, answer)| reference + &answer).collect::<Vec<_>>()
    };
    // A retry in the same run, then in later ones.
    let run = store_run(
        &mut database,
        Continuation::New,
        [&failed_answer(0, "why"), &answer(1, "why", "b"), &answer(0, "why", "aardvark")],
    );
    assert_eq!(run.answer_numbers, [Some(1), Some(2)]);
    assert_eq!(answers(&database), ["1@1aardvark", "1@2b"]);
    assert_eq!(database.search(&["aardvark"], 9).expect("readable").len(), 1);
    let retry = || Continuation::Replace(vec![run.turns[0].expect("stored turn")]);
    store_run(&mut database, retry(), [&failed_answer(0, "why")]);
    assert_eq!(answers(&database), ["1@1aardvark", "1@2b"], "a complete answer is kept");
    let stored = store_run(&mut database, retry(), [&answer(0, "why", "buffalo")]);
    assert_eq!((stored.conversation, stored.round), (1, 1));
    assert_eq!(answers(&database), ["1@1buffalo", "1@2b"]);
    let hits = |database: &mut Database, word: &str| database.search(&[word], 9).expect("readable").len();
    assert_eq!((hits(&mut database, "aardvark"), hits(&mut database, "buffalo")), (0, 1));
    assert!(database.check_integrity().expect("readable"));
    assert_eq!(orphaned_messages(&database), 0, "messages without a turn could not be deleted");
}

#[test]
fn conversation_deleted_during_its_run_stays_deleted() {
    let (_folder, mut database) = test_database();
    let mut run = RunPlacement::default();
    database.insert_call(&answer(0, "secret", "a"), &mut run).expect("writable");
    database.delete_all().expect("writable");
    database.insert_call(&failed_answer(1, "secret"), &mut run).expect("writable");
    assert_eq!(database.conversations(9).expect("readable").len(), 0);
    assert_eq!(run.into_stored_round(), None, "nothing is stored");
    // A retry of a deleted turn.
    let stored = store_run(&mut database, Continuation::New, [&answer(0, "secret", "a")]);
    database.delete_conversation(stored.conversation).expect("writable");
    let mut retry = RunPlacement::new(Continuation::Replace(vec![stored.turns[0].expect("stored turn")]));
    database.insert_call(&failed_answer(0, "secret"), &mut retry).expect("writable");
    assert_eq!((database.conversations(9).expect("readable").len(), retry.into_stored_round()), (0, None));
    let query = "SELECT (SELECT count(*) FROM attempts WHERE error_message IS NOT NULL), (SELECT count(*) FROM calls)";
    let counts: (i64, i64) =
        database.connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("readable");
    assert_eq!(counts, (0, 4), "error messages are deleted; calls stay");
}

#[test]
fn answer_stopped_by_the_user_has_class_stopped() {
    let (_folder, mut database) = test_database();
    let mut record = answer(0, "why", "partial");
    change(&mut record, |record| {
        record.result = Err(CallError::new(ErrorClass::LocalLimit, "interrupted"));
        (record.incomplete, record.stopped) = (true, true);
    });
    let stored = store_run(&mut database, Continuation::New, [&record]);
    assert_eq!(database.turns(stored.conversation).expect("readable")[0].class.as_deref(), Some("stopped"));
}

/// A migration from schema version 1 keeps everything.
#[test]
fn older_record_is_migrated() {
    const SCHEMA_1: &str = include_str!("../../../../tests/fixtures/record/v1.sql");
    let folder = tempfile::tempdir().expect("temp dir");
    let path = Database::path_in(folder.path());
    let older = rusqlite::Connection::open(&path).expect("new database");
    older.execute_batch(SCHEMA_1).expect("valid SQL");
    let rows = "PRAGMA application_id = 0x6d6d6368; PRAGMA user_version = 1;
        INSERT INTO calls (id, at, command, asked, total_us, generating_us, estimated) VALUES (1, 0, 'ask', 'm', 0, 0, 0);
        INSERT INTO conversations (id, at, command) VALUES (1, 1, 'ask'), (2, 2, 'compare'), (3, 3, 'ask');
        INSERT INTO exchanges (conversation, number, call, at, asked, prompt, images, answer, reasoning) VALUES
            (1, 1, 1, 1, 'm', 'one', 0, '1', ''), (2, 2, 1, 1, 'm', 'both', 0, 'b', ''), (2, 1, 1, 1, 'm', 'both', 0, 'a', ''),
            (1, 2, 1, 2, 'm', 'two', 0, '2', ''), (3, 1, 1, 1, 'm', 'gone', 0, '', '');
        INSERT INTO words (rowid, prompt, answer) SELECT id, prompt, answer FROM exchanges; UPDATE indexed SET up_to = 5;
        DELETE FROM conversations WHERE id = 3; DELETE FROM exchanges WHERE conversation = 3;";
    older.execute_batch(rows).expect("valid SQL");
    drop(older);
    let mut database = Database::open(&path).expect("migrated database");
    assert_eq!(turn_rows(&database, 1), expected(&[("1@1", None, "1"), ("1@2", Some("1@1"), "2")]));
    assert_eq!(turn_rows(&database, 2), expected(&[("2@1", None, "a"), ("2@2", None, "b")]));
    assert_eq!(database.latest_conversation(None).expect("readable"), Some(1), "it has the last turn");
    assert_eq!(database.search(&["both"], 9).expect("readable").len(), 2);
    let new = store_run(&mut database, Continuation::New, [&call_with_content("gone again", "")]);
    assert_eq!(new.turns, [Some(6)], "ids are not reused");
    assert_eq!(database.search(&["gone again"], 9).expect("readable").len(), 1);
    assert!(database.delete_conversation(1).expect("writable"));
    assert_eq!(
        (database.search(&["two"], 9).expect("readable").len(), database.check_integrity().expect("readable")),
        (0, true)
    );
    drop(database);
    Database::open(&path).expect("current schema");
}
