-- The day since the Unix epoch on which the key was last used, as far as its row knows: it may be
-- earlier than the real one, never later. 0 if the row knows of no use, as in rows of earlier programs.
ALTER TABLE portunus_keys ADD COLUMN used_on BIGINT NOT NULL DEFAULT 0;

-- Changes of keys, as JSON, that are not published on the host's own bus yet.
CREATE TABLE portunus_outbox (
    place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    what  TEXT COLLATE "C" NOT NULL
);
