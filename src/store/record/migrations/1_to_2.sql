-- Schema version 1 to 2: turns get a round and an answer number (`lane`) instead of one number. The answers of a
-- comparison were parallel, those of any other conversation sequential.
ALTER TABLE conversations ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
UPDATE conversations SET used = coalesce((SELECT max(id) FROM exchanges WHERE conversation = conversations.id), 0);
CREATE INDEX conversations_used ON conversations (used);

CREATE TABLE exchanges_2 (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    round INTEGER NOT NULL,         -- from 1
    lane INTEGER NOT NULL,          -- from 1
    after INTEGER,                  -- parent: the turn of an earlier round that this one continues
    picked INTEGER,                 -- when the user picked it among the answers of its round
    call INTEGER NOT NULL REFERENCES calls,
    at INTEGER NOT NULL,
    asked TEXT NOT NULL,
    model TEXT,
    class TEXT,
    system TEXT,
    prompt TEXT NOT NULL,
    images INTEGER NOT NULL,
    answer TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    UNIQUE (conversation, round, lane)
);
INSERT INTO exchanges_2
    SELECT e.id, conversation,
           CASE c.command WHEN 'compare' THEN 1 ELSE number END,
           CASE c.command WHEN 'compare' THEN number ELSE 1 END,
           CASE c.command WHEN 'compare' THEN NULL ELSE (
               SELECT before.id FROM exchanges before WHERE before.conversation = e.conversation AND before.number < e.number
               ORDER BY before.number DESC LIMIT 1
           ) END,
           NULL, call, e.at, asked, model, class, system, prompt, images, answer, reasoning
    FROM exchanges e JOIN conversations c ON c.id = e.conversation ORDER BY e.id;
-- Ids are never reused, not even those of deleted turns.
DELETE FROM sqlite_sequence WHERE name = 'exchanges_2';
INSERT INTO sqlite_sequence (name, seq) SELECT 'exchanges_2', seq FROM sqlite_sequence WHERE name = 'exchanges';
DROP TABLE exchanges;
ALTER TABLE exchanges_2 RENAME TO exchanges;
CREATE INDEX exchanges_at ON exchanges (at);
CREATE TRIGGER exchanges_delete AFTER DELETE ON exchanges WHEN old.id <= (SELECT up_to FROM indexed) BEGIN
    INSERT INTO words (words, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
END;
-- A retry replaced the first answer.
CREATE TRIGGER exchanges_update AFTER UPDATE OF prompt, answer ON exchanges WHEN old.id <= (SELECT up_to FROM indexed) BEGIN
    INSERT INTO words (words, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
    INSERT INTO words (rowid, prompt, answer) VALUES (new.id, new.prompt, new.answer);
END;
