-- Schema version 3 to 4: standard names for tables, columns and error classes.
DROP TRIGGER exchanges_delete;
DROP TRIGGER exchanges_update;
DROP TABLE words;
DROP TABLE indexed;
DROP INDEX attempts_quoting;
DROP INDEX conversations_used;
DROP INDEX exchanges_at;

ALTER TABLE calls RENAME COLUMN asked TO requested;
ALTER TABLE calls RENAME COLUMN class TO error_class;
ALTER TABLE calls RENAME COLUMN status TO http_status;
ALTER TABLE calls RENAME COLUMN finish TO finish_reason;
ALTER TABLE calls RENAME COLUMN generating_us TO output_us;
ALTER TABLE calls RENAME COLUMN input TO input_tokens;
ALTER TABLE calls RENAME COLUMN output TO output_tokens;
ALTER TABLE calls RENAME COLUMN cached TO cached_tokens;
ALTER TABLE calls RENAME COLUMN reasoning TO reasoning_tokens;
ALTER TABLE calls RENAME COLUMN estimated TO is_estimated;
ALTER TABLE calls RENAME COLUMN key TO key_index;
ALTER TABLE calls RENAME COLUMN client TO client_key;

ALTER TABLE attempts RENAME COLUMN call TO call_id;
ALTER TABLE attempts RENAME COLUMN number TO attempt_no;
ALTER TABLE attempts RENAME COLUMN class TO error_class;
ALTER TABLE attempts RENAME COLUMN status TO http_status;
ALTER TABLE attempts RENAME COLUMN took_us TO total_us;
ALTER TABLE attempts RENAME COLUMN key TO key_index;
ALTER TABLE attempts RENAME COLUMN message TO error_message;
CREATE INDEX attempts_with_message ON attempts (at) WHERE error_message IS NOT NULL;

ALTER TABLE hours RENAME TO hourly_totals;
ALTER TABLE hourly_totals RENAME COLUMN lane TO dimension;
ALTER TABLE hourly_totals RENAME COLUMN input TO input_tokens;
ALTER TABLE hourly_totals RENAME COLUMN output TO output_tokens;
ALTER TABLE hourly_totals RENAME COLUMN estimated TO estimated_calls;
ALTER TABLE hourly_totals RENAME COLUMN spoken TO output_tokens_timed;
ALTER TABLE hourly_totals RENAME COLUMN speaking_us TO output_us;
ALTER TABLE hourly_totals RENAME COLUMN ttft TO ttft_histogram;
ALTER TABLE hourly_totals RENAME COLUMN total TO total_histogram;

ALTER TABLE failures RENAME TO hourly_events;
ALTER TABLE hourly_events RENAME COLUMN lane TO dimension;
ALTER TABLE hourly_events RENAME COLUMN class TO event;

ALTER TABLE conversations RENAME COLUMN used TO last_used;
CREATE INDEX conversations_last_used ON conversations (last_used);

ALTER TABLE exchanges RENAME TO turns;
ALTER TABLE turns RENAME COLUMN conversation TO conversation_id;
ALTER TABLE turns RENAME COLUMN lane TO answer_no;
ALTER TABLE turns RENAME COLUMN after TO parent_id;
ALTER TABLE turns RENAME COLUMN picked TO picked_at;
ALTER TABLE turns RENAME COLUMN call TO call_id;
ALTER TABLE turns RENAME COLUMN asked TO requested;
ALTER TABLE turns RENAME COLUMN class TO end_class;
ALTER TABLE turns RENAME COLUMN system TO system_prompt;
ALTER TABLE turns RENAME COLUMN images TO image_count;
CREATE INDEX turns_at ON turns (at);

-- A trigram index, so that languages without spaces between words can be searched too. The next search fills it.
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

CREATE TEMP TABLE class_names (old TEXT PRIMARY KEY, new TEXT NOT NULL);
INSERT INTO class_names VALUES ('silent', 'timeout'), ('garbage', 'invalid-response'), ('garbled', 'invalid-chunk'),
    ('cut', 'incomplete'), ('local', 'local-limit');
UPDATE calls SET error_class = (SELECT new FROM class_names WHERE old = error_class) WHERE error_class IN (SELECT old FROM class_names);
UPDATE attempts SET error_class = (SELECT new FROM class_names WHERE old = error_class) WHERE error_class IN (SELECT old FROM class_names);
UPDATE turns SET end_class = (SELECT new FROM class_names WHERE old = end_class) WHERE end_class IN (SELECT old FROM class_names);
UPDATE hourly_events SET event = (SELECT new FROM class_names WHERE old = event) WHERE event IN (SELECT old FROM class_names);
DROP TABLE class_names;
