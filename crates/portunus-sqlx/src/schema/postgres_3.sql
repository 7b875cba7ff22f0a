-- The oldest schema that a program must know to use this one; NULL in the rows of 1 and 2.
ALTER TABLE portunus_schema ADD COLUMN oldest BIGINT;

-- The tenant of each deleted key, except keys that were deleted before this table was created.
CREATE TABLE portunus_deleted (
    key_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL
);
