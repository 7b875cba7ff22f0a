-- The day since the Unix epoch on which the key was last used, as far as its row knows: it may be
-- earlier than the real one, never later. 0 if the row knows of no use, as in rows of earlier programs.
ALTER TABLE portunus_keys ADD COLUMN used_on INTEGER NOT NULL DEFAULT 0;

-- For lists of keys.
CREATE INDEX portunus_keys_of_kind ON portunus_keys (tenant_id, kind, created_at DESC, id);
CREATE INDEX portunus_keys_starting ON portunus_keys (tenant_id, not_before) WHERE not_before IS NOT NULL;
CREATE INDEX portunus_keys_used ON portunus_keys (tenant_id, used_on);
-- The same for all tenants together.
CREATE INDEX portunus_keys_revoked_by_age ON portunus_keys (created_at DESC, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX portunus_keys_disabled_by_age ON portunus_keys (created_at DESC, id) WHERE enabled = 0;
CREATE INDEX portunus_keys_expiring_of_all ON portunus_keys (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX portunus_keys_starting_of_all ON portunus_keys (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX portunus_keys_used_of_all ON portunus_keys (used_on);

-- Changes of keys, as JSON, that are not published on the host's own bus yet.
CREATE TABLE portunus_outbox (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    what  TEXT NOT NULL
) STRICT;
