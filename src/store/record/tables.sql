-- One row for each call: what was requested and how it ended. `class` is null if the call succeeded.
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,            -- milliseconds since 1970
    command TEXT NOT NULL,
    asked TEXT NOT NULL,
    route TEXT,                     -- the same name, if it is a route
    model TEXT,
    endpoint TEXT,
    upstream TEXT,
    class TEXT,
    status INTEGER,
    finish TEXT,
    ttft_us INTEGER,
    total_us INTEGER NOT NULL,
    generating_us INTEGER NOT NULL,
    input INTEGER,
    output INTEGER,
    cached INTEGER,
    reasoning INTEGER,
    estimated INTEGER NOT NULL,
    cost REAL,
    currency TEXT,
    key INTEGER,                    -- index of the endpoint's key, from 0
    client TEXT                     -- name of the client key, for calls through `serve`
);

-- One row for each upstream request.
CREATE TABLE attempts (
    call INTEGER NOT NULL REFERENCES calls ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    upstream TEXT NOT NULL,
    class TEXT,
    status INTEGER,
    took_us INTEGER NOT NULL,
    ttft_us INTEGER,
    key INTEGER,
    request_id TEXT,
    message TEXT,                   -- error message; may quote the prompt
    PRIMARY KEY (call, number)
) WITHOUT ROWID;
CREATE INDEX attempts_quoting ON attempts (at) WHERE message IS NOT NULL;

-- Hourly totals, updated with every call, so that a million calls can be read at once. `lane` is the dimension: 0 is
-- upstream requests by model; 1 is calls by route; 2 is calls by client key.
CREATE TABLE hours (
    hour INTEGER NOT NULL,          -- hours since 1970
    lane INTEGER NOT NULL,
    name TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    currency TEXT NOT NULL,
    calls INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    estimated INTEGER NOT NULL,     -- calls whose token counts are estimated by mmchat
    cost REAL NOT NULL,
    spoken INTEGER NOT NULL,        -- output tokens after the first, of answers whose duration is known
    speaking_us INTEGER NOT NULL,
    ttft BLOB NOT NULL,
    total BLOB NOT NULL,
    PRIMARY KEY (hour, lane, name, endpoint, currency)
) WITHOUT ROWID;

CREATE TABLE failures (
    hour INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    name TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    class TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (hour, lane, name, endpoint, class)
) WITHOUT ROWID;

CREATE TABLE conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    command TEXT NOT NULL,
    used INTEGER NOT NULL           -- increases with every turn or pick, whatever the clock; the highest is continued
);
CREATE INDEX conversations_used ON conversations (used);

-- Turns: a prompt and its answer. A round has one answer for each requested model, numbered in the requested order. Ids
-- are never reused: see `indexed`.
CREATE TABLE exchanges (
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
CREATE INDEX exchanges_at ON exchanges (at);

-- A trigram index, so that languages without spaces between words can be searched too.
CREATE VIRTUAL TABLE words USING fts5 (prompt, answer, content = 'exchanges', content_rowid = 'id', tokenize = 'trigram');
-- Deleted text must be removed from the index too.
INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
-- Turns up to this id are indexed. A search updates the index first, so that writing an answer never waits for it.
CREATE TABLE indexed (up_to INTEGER NOT NULL);
INSERT INTO indexed VALUES (0);
CREATE TRIGGER exchanges_delete AFTER DELETE ON exchanges WHEN old.id <= (SELECT up_to FROM indexed) BEGIN
    INSERT INTO words (words, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
END;
-- A retry replaced the first answer.
CREATE TRIGGER exchanges_update AFTER UPDATE OF prompt, answer ON exchanges WHEN old.id <= (SELECT up_to FROM indexed) BEGIN
    INSERT INTO words (words, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
    INSERT INTO words (rowid, prompt, answer) VALUES (new.id, new.prompt, new.answer);
END;
