-- From the second version of the tables to the third: programs ask, each with a key of its own.
ALTER TABLE calls ADD COLUMN client TEXT;
