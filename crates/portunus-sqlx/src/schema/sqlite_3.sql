-- The oldest schema that a program must know to use this one; absent in the rows of 1 and 2.
ALTER TABLE portunus_schema ADD COLUMN oldest INTEGER;

-- Whose a deleted key was. Keys that were deleted before this table was made are not in it.
CREATE TABLE portunus_deleted (
    key_id    TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What the latest changes were, each in the slot of its number modulo 1024: the ids of keys and the fingerprints of
-- digests, as JSON. A change that an older program counted has none.
CREATE TABLE portunus_recent_changes (
    slot    INTEGER NOT NULL PRIMARY KEY,
    counter INTEGER NOT NULL,
    what    TEXT    NOT NULL
) STRICT;
