-- Schema version 2 to 3: the client key of calls through `serve`.
ALTER TABLE calls ADD COLUMN client TEXT;
