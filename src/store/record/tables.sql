-- One row for each lane: what was asked for and what came of it. `class` is null when it went well.
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,            -- milliseconds since 1970
    command TEXT NOT NULL,
    asked TEXT NOT NULL,
    route TEXT,                     -- the same, where it is a route
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
    key INTEGER,                    -- which of the endpoint's keys, from 0
    client TEXT                     -- the name of the key that was brought, where a program asked
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
    message TEXT,                   -- may quote what was asked
    PRIMARY KEY (call, number)
) WITHOUT ROWID;
CREATE INDEX attempts_quoting ON attempts (at) WHERE message IS NOT NULL;

-- Sums for each hour, kept up with every call, so that a million of them are read at once. `lane` 0: upstream requests, by
-- model; 1: what was asked for, by route; 2: what was asked for, by the name of the key that was brought.
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
    estimated INTEGER NOT NULL,     -- calls whose tokens are our own estimate
    cost REAL NOT NULL,
    spoken INTEGER NOT NULL,        -- tokens after the first, of answers whose speed is known
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
    used INTEGER NOT NULL           -- grows whenever something is said in it or picked from it: the last one is gone on with
);
CREATE INDEX conversations_used ON conversations (used);

-- What was asked and answered. A round has an answer of each model that was asked, numbered by its place among them. No id is
-- given twice: see `indexed`.
CREATE TABLE exchanges (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    round INTEGER NOT NULL,         -- from 1
    lane INTEGER NOT NULL,          -- from 1
    after INTEGER,                  -- the exchange of an earlier round that this one goes on with
    picked INTEGER,                 -- when the person chose it among those of its round
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

-- Three letters at a time, so that languages without spaces between words are found, too.
CREATE VIRTUAL TABLE words USING fts5 (prompt, answer, content = 'exchanges', content_rowid = 'id', tokenize = 'trigram');
-- What is deleted is to be gone from the index, too.
INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
-- Exchanges up to this id are in it. Whoever searches brings it up to date, so that nobody who asks waits for it.
CREATE TABLE indexed (up_to INTEGER NOT NULL);
INSERT INTO indexed VALUES (0);
CREATE TRIGGER exchanges_delete AFTER DELETE ON exchanges WHEN old.id <= (SELECT up_to FROM indexed) BEGIN
    INSERT INTO words (words, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
END;
-- Another try took the place of the first.
CREATE TRIGGER exchanges_update AFTER UPDATE OF prompt, answer ON exchanges WHEN old.id <= (SELECT up_to FROM indexed) BEGIN
    INSERT INTO words (words, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
    INSERT INTO words (rowid, prompt, answer) VALUES (new.id, new.prompt, new.answer);
END;
