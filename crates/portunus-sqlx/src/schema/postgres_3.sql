-- The oldest schema that a program must know to use this one; absent in the rows of 1 and 2.
ALTER TABLE portunus_schema ADD COLUMN oldest BIGINT;

-- Whose a deleted key was. Keys that were deleted before this table was made are not in it.
CREATE TABLE portunus_deleted (
    key_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL
);
