//! Databases of every earlier schema version are migrated without loss, and a copy is kept.

use super::*;

/// The schemas, each with the statements that fill it with one call of every kind.
const EARLIER: [(i32, &str, &str); 3] = [
    (
        1,
        include_str!("../../../../tests/fixtures/record/v1.sql"),
        "INSERT INTO conversations (id, at, command) VALUES (1, 5, 'compare');
         INSERT INTO exchanges (conversation, number, call, at, asked, model, class, prompt, images, answer, reasoning) VALUES
         (1, 1, 1, 5, 'fast', 'fast', NULL, 'what is a lifetime', 0, 'a region', ''),
         (1, 2, 2, 5, 'big', 'big', 'cut', 'what is a lifetime', 0, 'a reg', 'hm');",
    ),
    (2, include_str!("../../../../tests/fixtures/record/v2.sql"), TURNS),
    (3, include_str!("../../../../tests/fixtures/record/v3.sql"), TURNS),
];

const CALLS: &str = "INSERT INTO calls (id, at, command, asked, route, model, class, status, finish, ttft_us, total_us,
        generating_us, input, output, estimated, cost, currency, key) VALUES
        (1, 5, 'compare', 'fast', NULL, 'fast', NULL, 200, 'stop', 7, 9, 2, 10, 20, 0, 0.5, 'USD', 1),
        (2, 5, 'compare', 'big', NULL, 'big', 'cut', 200, NULL, 7, 9, 2, 10, 3, 1, NULL, NULL, NULL);
    INSERT INTO attempts (call, number, at, model, endpoint, upstream, class, status, took_us, message) VALUES
        (1, 1, 5, 'fast', 'e', 'm', 'silent', NULL, 4, 'no answer'), (1, 2, 5, 'fast', 'e', 'm', NULL, 200, 5, NULL),
        (2, 1, 5, 'big', 'e', 'n', 'cut', 200, 9, 'stream ended');
    INSERT INTO hours VALUES (480000, 0, 'fast', 'e', 'USD', 2, 1, 10, 20, 0, 0.5, 19, 2, x'', x'');
    INSERT INTO failures VALUES (480000, 0, 'fast', 'e', 'silent', 1), (480000, 0, 'fast', 'e', 'rate', 2);";

const TURNS: &str = "INSERT INTO conversations (id, at, command, used) VALUES (1, 5, 'compare', 1);
    INSERT INTO exchanges (conversation, round, lane, call, at, asked, model, class, prompt, images, answer, reasoning) VALUES
    (1, 1, 1, 1, 5, 'fast', 'fast', NULL, 'what is a lifetime', 0, 'a region', ''),
    (1, 1, 2, 2, 5, 'big', 'big', 'cut', 'what is a lifetime', 0, 'a reg', 'hm');
    INSERT INTO words (rowid, prompt, answer) SELECT id, prompt, answer FROM exchanges;
    UPDATE indexed SET up_to = 2;";

fn text(database: &Database, query: &str) -> String {
    database.connection.query_row(query, [], |row| row.get(0)).expect("valid query")
}

#[test]
fn every_earlier_schema_is_migrated_and_a_copy_is_kept() {
    for (version, schema, turns) in EARLIER {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = Database::path_in(folder.path());
        let old = rusqlite::Connection::open(&path).expect("new file");
        let identity = format!("PRAGMA application_id = 0x6d6d6368; PRAGMA user_version = {version};");
        old.execute_batch(&format!("{schema} {CALLS} {turns} {identity}")).expect("the schema of that version");
        drop(old);

        let mut database = Database::open(&path).expect("migrated");
        let calls = "SELECT group_concat(requested || coalesce(error_class, '-') || coalesce(output_tokens, '-'), ' ') FROM calls";
        assert_eq!(text(&database, calls), "fast-20 bigincomplete3", "{version}");
        let attempts = "SELECT group_concat(coalesce(error_class, '-') || coalesce(error_message, ''), ' ')
                        FROM (SELECT * FROM attempts ORDER BY call_id, attempt_no)";
        assert_eq!(text(&database, attempts), "timeoutno answer - incompletestream ended", "{version}");
        let events = "SELECT group_concat(event || count, ' ') FROM (SELECT * FROM hourly_events ORDER BY event)";
        assert_eq!(text(&database, events), "rate2 timeout1", "{version}");
        let totals =
            "SELECT name || dimension || calls || failed || input_tokens || output_tokens_timed FROM hourly_totals";
        assert_eq!(text(&database, totals), "fast0211019", "{version}");
        let turns = database.turns(1).expect("readable");
        let turns: Vec<_> =
            turns.iter().map(|turn| (turn.reference(), turn.answer.as_str(), turn.class.as_deref())).collect();
        assert_eq!(turns, [("1@1".into(), "a region", None), ("1@2".into(), "a reg", Some("incomplete"))], "{version}");
        assert_eq!(database.search(&["lifetime"], 9).expect("searchable").len(), 2, "{version}");
        assert!(database.check_integrity().expect("readable"), "{version}");

        let copy = folder.path().join(format!("record.v{version}.db"));
        let old = rusqlite::Connection::open(&copy).expect("a copy");
        let class: String =
            old.query_row("SELECT class FROM calls WHERE id = 2", [], |row| row.get(0)).expect("old name");
        assert_eq!(class, "cut", "the copy is not changed");
        let metadata = std::fs::metadata(&copy).expect("a copy");
        assert!(!crate::transport::keys::is_readable_by_others(&metadata), "the copy is private");
        drop(old);
        database.delete_all().expect("writable");
        database.purge_deleted().expect("no reader");
        assert!(!copy.exists(), "deleted text is not left in the copy");
    }
}
