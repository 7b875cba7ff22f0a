-- The oldest schema that a program must know to use this one; NULL in the rows of 1 and 2.
ALTER TABLE portunus_schema ADD COLUMN oldest INTEGER;

-- The tenant of each deleted key, except keys that were deleted before this table was created.
CREATE TABLE portunus_deleted (
    key_id    TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- For lists of one tenant's keys. An unreadable record must not prevent its row from being written.
CREATE INDEX portunus_keys_of_environment ON portunus_keys (tenant_id, environment, created_at DESC, id);
CREATE INDEX portunus_keys_of_family ON portunus_keys (tenant_id, family, created_at DESC, id);
CREATE INDEX portunus_keys_of_plan ON portunus_keys
    (tenant_id, CASE WHEN json_valid(record) THEN record ->> 'plan' END, created_at DESC, id)
    WHERE CASE WHEN json_valid(record) THEN record ->> 'plan' END IS NOT NULL;
CREATE INDEX portunus_keys_revoked ON portunus_keys (tenant_id, created_at DESC, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX portunus_keys_disabled ON portunus_keys (tenant_id, created_at DESC, id) WHERE enabled = 0;
CREATE INDEX portunus_keys_expiring ON portunus_keys (tenant_id, expires_at) WHERE expires_at IS NOT NULL;
-- For the newest key that can be primary.
CREATE INDEX portunus_keys_primary_of_tenant ON portunus_keys (tenant_id, created_at DESC, id)
    WHERE user_id IS NULL AND revoked_at IS NULL AND may_be_primary = 1;
-- For the events of one key.
CREATE INDEX portunus_events_refused_of_key ON portunus_events (key_id, outcome, place) WHERE outcome <> 'OK';
CREATE INDEX portunus_events_acts_of_key ON portunus_events (key_id, action, place) WHERE action <> 'request';

-- The content of the latest changes, each in the slot of its number modulo 1024: the ids of keys and the fingerprints
-- of digests, as JSON. A change that an older program counted has no row.
CREATE TABLE portunus_recent_changes (
    slot    INTEGER NOT NULL PRIMARY KEY,
    counter INTEGER NOT NULL,
    what    TEXT    NOT NULL
) STRICT;
