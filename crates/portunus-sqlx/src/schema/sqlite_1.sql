CREATE TABLE portunus_keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    scheme         TEXT    NOT NULL,
    digest         BLOB    NOT NULL,
    family         TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    environment    TEXT    NOT NULL,
    tenant_id      TEXT    NOT NULL,
    user_id        TEXT,
    name           TEXT    NOT NULL,
    description    TEXT,
    masked         TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    not_before     INTEGER,
    expires_at     INTEGER,
    enabled        INTEGER NOT NULL,
    revoked_at     INTEGER,
    may_be_primary INTEGER NOT NULL,
    record         TEXT    NOT NULL,
    signing        BLOB
) STRICT;
CREATE UNIQUE INDEX portunus_keys_by_digest ON portunus_keys (digest, scheme);
CREATE INDEX portunus_keys_by_age ON portunus_keys (created_at DESC, id);
CREATE INDEX portunus_keys_of_tenant ON portunus_keys (tenant_id, created_at DESC, id);
CREATE INDEX portunus_keys_of_user ON portunus_keys (tenant_id, user_id, created_at DESC, id);

-- Every digest that any key ever had, with the key: digests and ids stay reserved after a key is deleted.
CREATE TABLE portunus_digests (
    digest BLOB NOT NULL,
    scheme TEXT NOT NULL,
    key_id TEXT NOT NULL,
    PRIMARY KEY (digest, scheme)
) STRICT, WITHOUT ROWID;
CREATE INDEX portunus_digests_of_key ON portunus_digests (key_id);

-- owner_user is empty if the owner is not a user.
CREATE TABLE portunus_primaries (
    owner_kind   TEXT NOT NULL,
    owner_tenant TEXT NOT NULL,
    owner_user   TEXT NOT NULL,
    key_id       TEXT NOT NULL,
    PRIMARY KEY (owner_kind, owner_tenant, owner_user)
) STRICT;
CREATE INDEX portunus_primaries_by_key ON portunus_primaries (key_id);

CREATE TABLE portunus_usage (
    key_id       TEXT    NOT NULL PRIMARY KEY,
    uses         INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    last_ip      TEXT
) STRICT;

CREATE TABLE portunus_usage_by_hour (
    key_id TEXT    NOT NULL,
    start   INTEGER NOT NULL,
    uses    INTEGER NOT NULL,
    PRIMARY KEY (key_id, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX portunus_usage_by_hour_by_age ON portunus_usage_by_hour (start);
