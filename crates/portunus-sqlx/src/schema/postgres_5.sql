-- Bulk operations.
CREATE TABLE portunus_bulk (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    step       BIGINT           NOT NULL,
    started_at BIGINT           NOT NULL,
    ended_at   BIGINT,
    operation  TEXT COLLATE "C" NOT NULL
);
CREATE INDEX portunus_bulk_open ON portunus_bulk (started_at, id) WHERE ended_at IS NULL;
CREATE INDEX portunus_bulk_ended ON portunus_bulk (ended_at) WHERE ended_at IS NOT NULL;
