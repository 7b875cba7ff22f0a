CREATE TABLE portunus_keys (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    scheme         TEXT COLLATE "C" NOT NULL,
    digest         BYTEA            NOT NULL,
    family         TEXT COLLATE "C" NOT NULL,
    version        BIGINT           NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,
    environment    TEXT COLLATE "C" NOT NULL,
    tenant_id      TEXT COLLATE "C" NOT NULL,
    user_id        TEXT COLLATE "C",
    name           TEXT COLLATE "C" NOT NULL,
    description    TEXT COLLATE "C",
    masked         TEXT COLLATE "C" NOT NULL,
    created_at     BIGINT           NOT NULL,
    not_before     BIGINT,
    expires_at     BIGINT,
    enabled        BIGINT           NOT NULL,
    revoked_at     BIGINT,
    may_be_primary BIGINT           NOT NULL,
    record         TEXT COLLATE "C" NOT NULL,
    signing        BYTEA
);
CREATE UNIQUE INDEX portunus_keys_by_digest ON portunus_keys (digest, scheme);
CREATE INDEX portunus_keys_by_age ON portunus_keys (created_at DESC, id);
CREATE INDEX portunus_keys_of_tenant ON portunus_keys (tenant_id, created_at DESC, id);
CREATE INDEX portunus_keys_of_user ON portunus_keys (tenant_id, user_id, created_at DESC, id);

-- Every digest that any key ever had, with the key: digests and ids stay reserved after a key is deleted.
CREATE TABLE portunus_digests (
    digest         BYTEA            NOT NULL,
    scheme         TEXT COLLATE "C" NOT NULL,
    key_id         TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (digest, scheme)
);
CREATE INDEX portunus_digests_of_key ON portunus_digests (key_id);

-- owner_user is empty if the owner is not a user.
CREATE TABLE portunus_primaries (
    owner_kind     TEXT COLLATE "C" NOT NULL,
    owner_tenant   TEXT COLLATE "C" NOT NULL,
    owner_user     TEXT COLLATE "C" NOT NULL,
    key_id         TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (owner_kind, owner_tenant, owner_user)
);
CREATE INDEX portunus_primaries_by_key ON portunus_primaries (key_id);

CREATE TABLE portunus_usage (
    key_id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    uses           BIGINT           NOT NULL,
    last_used_at   BIGINT           NOT NULL,
    last_ip        TEXT COLLATE "C"
);

CREATE TABLE portunus_usage_by_hour (
    key_id         TEXT COLLATE "C" NOT NULL,
    start          BIGINT           NOT NULL,
    uses           BIGINT           NOT NULL,
    PRIMARY KEY (key_id, start)
);
CREATE INDEX portunus_usage_by_hour_by_age ON portunus_usage_by_hour (start);
