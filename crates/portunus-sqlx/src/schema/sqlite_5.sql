-- Bulk operations.
CREATE TABLE portunus_bulk (
    id         TEXT    NOT NULL PRIMARY KEY,
    step       INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    operation  TEXT    NOT NULL
) STRICT;
CREATE INDEX portunus_bulk_open ON portunus_bulk (started_at, id) WHERE ended_at IS NULL;
CREATE INDEX portunus_bulk_ended ON portunus_bulk (ended_at) WHERE ended_at IS NOT NULL;

-- For lists of keys of all tenants together.
CREATE INDEX portunus_keys_of_environment_of_all ON portunus_keys (environment, created_at DESC, id);
CREATE INDEX portunus_keys_of_user_of_all ON portunus_keys (user_id, created_at DESC, id) WHERE user_id IS NOT NULL;
CREATE INDEX portunus_keys_of_family_of_all ON portunus_keys (family, created_at DESC, id);
CREATE INDEX portunus_keys_of_kind_of_all ON portunus_keys (kind, created_at DESC, id);
CREATE INDEX portunus_keys_of_plan_of_all ON portunus_keys
    (CASE WHEN json_valid(record) THEN record ->> 'plan' END, created_at DESC, id)
    WHERE CASE WHEN json_valid(record) THEN record ->> 'plan' END IS NOT NULL;
