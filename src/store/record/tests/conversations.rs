//! Where answers belong: rounds, lanes, branches, second tries, and what an older build wrote.

use super::*;

fn after(kept: &Kept) -> GoesOn {
    GoesOn::After { exchanges: kept.exchanges.clone(), apart: false }
}

fn of(lane: usize, prompt: &str, answer: &str) -> CallRecord {
    CallRecord { lane, ..said(prompt, answer) }
}

fn failed(lane: usize, prompt: &str) -> CallRecord {
    let mut record = of(lane, prompt, "");
    record.outcome.result = Err(ApiError::new(ErrorClass::Server, "it quotes what was asked"));
    record
}

/// Every exchange of a conversation: its place, what it goes on with, its answer.
fn shape(database: &Database, conversation: i64) -> Vec<(String, Option<String>, String)> {
    let exchanges = database.exchanges(conversation).expect("read");
    let name = |id: i64| exchanges.iter().find(|one| one.id == id).map(Exchange::place);
    exchanges.iter().map(|one| (one.place(), one.after.and_then(name), one.answer.clone())).collect()
}

fn told(rows: &[(&str, Option<&str>, &str)]) -> Vec<(String, Option<String>, String)> {
    rows.iter().map(|(place, after, answer)| ((*place).into(), after.map(Into::into), (*answer).into())).collect()
}

#[test]
fn one_model_after_the_other_is_numbered_by_round_and_several_by_lane() {
    let (_folder, mut database) = opened();
    let one = written(&mut database, GoesOn::Anew, [&said("one", "1")]);
    written(&mut database, after(&one), [&said("two", "2")]);
    assert_eq!(shape(&database, 1), told(&[("1@1", None, "1"), ("1@2", Some("1@1"), "2")]));
    // Whoever is done first is written first; the place is the lane's.
    let both = written(&mut database, GoesOn::Anew, [&of(1, "both", "b"), &of(0, "both", "a")]);
    written(&mut database, after(&both), [&of(0, "more", "a2"), &of(1, "more", "b2")]);
    let rows = [("2.1@1", None, "a"), ("2.1@2", None, "b"), ("2@1", Some("2.1@1"), "a2"), ("2@2", Some("2.1@2"), "b2")];
    assert_eq!(shape(&database, 2), told(&rows));
    let listed = database.conversations(9).expect("read");
    let seen: Vec<_> = listed.iter().map(|known| (known.id, known.exchanges, known.asked.as_str())).collect();
    assert_eq!(seen, [(2, 4, "chat, chat"), (1, 2, "chat")]);
}

#[test]
fn what_goes_on_from_the_middle_or_from_one_of_several_has_a_conversation_of_its_own() {
    let (_folder, mut database) = opened();
    let one = written(&mut database, GoesOn::Anew, [&said("one", "1")]);
    for answer in ["2", "other"] {
        written(&mut database, after(&one), [&said("two", answer)]);
    }
    assert_eq!(shape(&database, 1), told(&[("1@1", None, "1"), ("1@2", Some("1@1"), "2")]));
    assert_eq!(shape(&database, 2), told(&[("2@1", None, "1"), ("2@2", Some("2@1"), "other")]));
    let both = written(&mut database, GoesOn::Anew, [&of(0, "both", "a"), &of(1, "both", "b")]);
    let second = GoesOn::After { exchanges: vec![both.exchanges[1]], apart: true };
    let alone = written(&mut database, second, [&said("on", "c")]);
    assert_eq!(shape(&database, alone.conversation), told(&[("4@1", None, "b"), ("4@2", Some("4@1"), "c")]));
    // Two runs went on with both at once: the later one takes everything with it.
    written(&mut database, after(&both), [&of(0, "x", "a2")]);
    let late = written(&mut database, after(&both), [&of(0, "x", "a3"), &of(1, "x", "b3")]);
    let rows = [("5.1@1", None, "a"), ("5.1@2", None, "b"), ("5@1", Some("5.1@1"), "a3"), ("5@2", Some("5.1@2"), "b3")];
    assert_eq!(shape(&database, late.conversation), told(&rows));
    database.delete(1).expect("written");
    assert_ne!(written(&mut database, after(&one), [&said("two", "2")]).conversation, 1, "it is gone");
}

#[test]
fn all_can_go_on_with_the_one_that_was_picked() {
    let (_folder, mut database) = opened();
    let both = written(&mut database, GoesOn::Anew, [&of(0, "both", "a"), &of(1, "both", "b")]);
    written(&mut database, GoesOn::Anew, [&said("other", "")]);
    assert_eq!(database.latest(None).expect("read"), Some(2));
    for lane in [0, 1] {
        let picked = database.exchanges(1).expect("read").swap_remove(lane);
        database.pick(picked.id, now()).expect("written");
    }
    let picked: Vec<bool> = database.exchanges(1).expect("read").iter().map(|one| one.picked).collect();
    assert_eq!((picked, database.latest(None).expect("read")), (vec![false, true], Some(1)));
    let shared = GoesOn::After { exchanges: vec![both.exchanges[1]; 2], apart: false };
    written(&mut database, shared, [&of(0, "on", "a2"), &of(1, "on", "b2")]);
    assert_eq!(shape(&database, 1)[2..], told(&[("1@1", Some("1.1@2"), "a2"), ("1@2", Some("1.1@2"), "b2")]));
}

#[test]
fn a_second_try_takes_the_first_ones_place_unless_it_is_worse() {
    let (_folder, mut database) = opened();
    let quotes = |database: &Database| {
        let query =
            "SELECT count(*) FROM attempts WHERE message IS NOT NULL AND call NOT IN (SELECT call FROM exchanges)";
        database.connection.query_row(query, [], |row| row.get::<_, i64>(0)).expect("read")
    };
    let answers = |database: &Database| {
        shape(database, 1).into_iter().map(|(place, _, answer)| place + &answer).collect::<Vec<_>>()
    };
    // In the same run, and by a later one.
    let run = written(&mut database, GoesOn::Anew, [&failed(0, "why"), &of(1, "why", "b"), &of(0, "why", "aardvark")]);
    assert_eq!(run.lanes, [Some(1), Some(2)]);
    assert_eq!(answers(&database), ["1@1aardvark", "1@2b"]);
    assert_eq!(database.search(&["aardvark"], 9).expect("read").len(), 1);
    let instead = || GoesOn::Instead(vec![run.exchanges[0].expect("kept")]);
    written(&mut database, instead(), [&failed(0, "why")]);
    assert_eq!(answers(&database), ["1@1aardvark", "1@2b"], "what is whole is not lost");
    let kept = written(&mut database, instead(), [&of(0, "why", "buffalo")]);
    assert_eq!((kept.conversation, kept.round), (1, 1));
    assert_eq!(answers(&database), ["1@1buffalo", "1@2b"]);
    let found = |database: &mut Database, word: &str| database.search(&[word], 9).expect("read").len();
    assert_eq!((found(&mut database, "aardvark"), found(&mut database, "buffalo")), (0, 1));
    assert!(database.is_whole().expect("read"));
    assert_eq!(quotes(&database), 0, "what nothing refers to any more could not be forgotten");
}

#[test]
fn what_is_deleted_while_its_run_goes_on_stays_deleted() {
    let (_folder, mut database) = opened();
    let mut run = RunPlace::default();
    database.insert(&of(0, "secret", "a"), &mut run).expect("written");
    database.delete_all().expect("written");
    database.insert(&failed(1, "secret"), &mut run).expect("written");
    assert_eq!(database.conversations(9).expect("read").len(), 0);
    assert_eq!(run.kept(), None, "nobody is sent there");
    // A second try at what is gone.
    let known = written(&mut database, GoesOn::Anew, [&of(0, "secret", "a")]);
    database.delete(known.conversation).expect("written");
    let mut again = RunPlace::new(GoesOn::Instead(vec![known.exchanges[0].expect("kept")]));
    database.insert(&failed(0, "secret"), &mut again).expect("written");
    assert_eq!((database.conversations(9).expect("read").len(), again.kept()), (0, None));
    let query = "SELECT (SELECT count(*) FROM attempts WHERE message IS NOT NULL), (SELECT count(*) FROM calls)";
    let counts: (i64, i64) =
        database.connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
    assert_eq!(counts, (0, 4), "what services said goes, too; the figures stay");
}

#[test]
fn what_the_person_stopped_is_called_so() {
    let (_folder, mut database) = opened();
    let mut record = of(0, "why", "half");
    record.outcome.result = Err(ApiError::new(ErrorClass::Local, "interrupted"));
    (record.outcome.cut, record.outcome.stopped) = (true, true);
    let kept = written(&mut database, GoesOn::Anew, [&record]);
    assert_eq!(database.exchanges(kept.conversation).expect("read")[0].class.as_deref(), Some("stopped"));
}

/// What the first version of the tables held is all there.
#[test]
fn an_older_record_is_brought_up_to_date() {
    const OLDER: &str = include_str!("../../../../tests/fixtures/record/v1.sql");
    let folder = tempfile::tempdir().expect("a folder");
    let path = Database::place(folder.path());
    let older = rusqlite::Connection::open(&path).expect("made");
    older.execute_batch(OLDER).expect("good");
    let rows = "PRAGMA application_id = 0x6d6d6368; PRAGMA user_version = 1;
        INSERT INTO calls (id, at, command, asked, total_us, generating_us, estimated) VALUES (1, 0, 'ask', 'm', 0, 0, 0);
        INSERT INTO conversations (id, at, command) VALUES (1, 1, 'ask'), (2, 2, 'compare'), (3, 3, 'ask');
        INSERT INTO exchanges (conversation, number, call, at, asked, prompt, images, answer, reasoning) VALUES
            (1, 1, 1, 1, 'm', 'one', 0, '1', ''), (2, 2, 1, 1, 'm', 'both', 0, 'b', ''), (2, 1, 1, 1, 'm', 'both', 0, 'a', ''),
            (1, 2, 1, 2, 'm', 'two', 0, '2', ''), (3, 1, 1, 1, 'm', 'gone', 0, '', '');
        INSERT INTO words (rowid, prompt, answer) SELECT id, prompt, answer FROM exchanges; UPDATE indexed SET up_to = 5;
        DELETE FROM conversations WHERE id = 3; DELETE FROM exchanges WHERE conversation = 3;";
    older.execute_batch(rows).expect("good");
    drop(older);
    let mut database = Database::open(&path).expect("brought up to date");
    assert_eq!(shape(&database, 1), told(&[("1@1", None, "1"), ("1@2", Some("1@1"), "2")]));
    assert_eq!(shape(&database, 2), told(&[("2@1", None, "a"), ("2@2", None, "b")]));
    assert_eq!(database.latest(None).expect("read"), Some(1), "something was said in it last");
    assert_eq!(database.search(&["both"], 9).expect("read").len(), 2);
    let new = written(&mut database, GoesOn::Anew, [&said("gone again", "")]);
    assert_eq!(new.exchanges, [Some(6)], "no number is given twice");
    assert_eq!(database.search(&["gone again"], 9).expect("read").len(), 1);
    assert!(database.delete(1).expect("written"));
    assert_eq!((database.search(&["two"], 9).expect("read").len(), database.is_whole().expect("read")), (0, true));
    drop(database);
    Database::open(&path).expect("it is up to date");
}
