-- One row for each call: what was requested and how it ended. `error_class` is null if the call succeeded.
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,  -- milliseconds since 1970
    command TEXT NOT NULL,
    requested TEXT NOT NULL,
    route TEXT,  -- the same name, if it is a route
    model TEXT,
    endpoint TEXT,
    upstream TEXT,
    error_class TEXT,
    http_status INTEGER,
    finish_reason TEXT,
    ttft_us INTEGER,
    total_us INTEGER NOT NULL,
    output_us INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    is_estimated INTEGER NOT NULL,
    cost REAL,
    currency TEXT,
    key_index INTEGER,  -- index of the endpoint's key, from 0
    client_key TEXT  -- name of the client key, for calls through `serve`
);

-- One row for each upstream request.
CREATE TABLE attempts (
    call_id INTEGER NOT NULL REFERENCES calls ON DELETE CASCADE,
    attempt_no INTEGER NOT NULL,
    at INTEGER NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    upstream TEXT NOT NULL,
    error_class TEXT,
    http_status INTEGER,
    total_us INTEGER NOT NULL,
    ttft_us INTEGER,
    key_index INTEGER,
    request_id TEXT,
    error_message TEXT,  -- may quote the prompt
    PRIMARY KEY (call_id, attempt_no)
) WITHOUT ROWID;
CREATE INDEX attempts_with_message ON attempts (at) WHERE error_message IS NOT NULL;

-- Hourly totals, updated with every call, so that a million calls can be read quickly. `dimension`: 0 is
-- upstream requests by model; 1 is calls by route; 2 is calls by client key.
CREATE TABLE hourly_totals (
    hour INTEGER NOT NULL,  -- hours since 1970
    dimension INTEGER NOT NULL,
    name TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    currency TEXT NOT NULL,
    calls INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    estimated_calls INTEGER NOT NULL,  -- calls whose token counts are estimated by mmchat
    cost REAL NOT NULL,
    output_tokens_timed INTEGER NOT NULL,  -- output tokens after the first, of answers whose duration is known
    output_us INTEGER NOT NULL,
    ttft_histogram BLOB NOT NULL,
    total_histogram BLOB NOT NULL,
    PRIMARY KEY (hour, dimension, name, endpoint, currency)
) WITHOUT ROWID;

CREATE TABLE hourly_events (
    hour INTEGER NOT NULL,
    dimension INTEGER NOT NULL,
    name TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    event TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (hour, dimension, name, endpoint, event)
) WITHOUT ROWID;

CREATE TABLE conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    command TEXT NOT NULL,
    last_used INTEGER NOT NULL  -- increases with every turn or pick, whatever the clock; the highest is continued
);
CREATE INDEX conversations_last_used ON conversations (last_used);

-- Turns: a prompt and its answer. A round has one answer for each requested model, numbered in the requested order. Ids
-- are never reused: see `turn_search_state`.
CREATE TABLE turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    round INTEGER NOT NULL,  -- from 1
    answer_no INTEGER NOT NULL,  -- from 1
    parent_id INTEGER,  -- the turn of an earlier round that this one continues
    picked_at INTEGER,  -- when the user picked it among the answers of its round
    call_id INTEGER NOT NULL REFERENCES calls,
    at INTEGER NOT NULL,
    requested TEXT NOT NULL,
    model TEXT,
    end_class TEXT,
    system_prompt TEXT,
    prompt TEXT NOT NULL,
    image_count INTEGER NOT NULL,
    answer TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    UNIQUE (conversation_id, round, answer_no)
);
CREATE INDEX turns_at ON turns (at);

-- A trigram index, so that languages without spaces between words can be searched too.
CREATE VIRTUAL TABLE turn_search USING fts5 (prompt, answer, content = 'turns', content_rowid = 'id', tokenize = 'trigram');
-- Deleted text must be removed from the index too.
INSERT INTO turn_search (turn_search, rank) VALUES ('secure-delete', 1);
-- Turns up to this id are indexed. A search updates the index first, so that writing an answer never waits for it.
CREATE TABLE turn_search_state (last_turn_id INTEGER NOT NULL);
INSERT INTO turn_search_state VALUES (0);
CREATE TRIGGER turns_delete AFTER DELETE ON turns WHEN old.id <= (SELECT last_turn_id FROM turn_search_state) BEGIN
    INSERT INTO turn_search (turn_search, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
END;
-- A retry replaced the first answer.
CREATE TRIGGER turns_update AFTER UPDATE OF prompt, answer ON turns WHEN old.id <= (SELECT last_turn_id FROM turn_search_state) BEGIN
    INSERT INTO turn_search (turn_search, rowid, prompt, answer) VALUES ('delete', old.id, old.prompt, old.answer);
    INSERT INTO turn_search (rowid, prompt, answer) VALUES (new.id, new.prompt, new.answer);
END;
