-- Events. A place is never reused, even after the newest events were deleted.
CREATE TABLE portunus_events (
    place     INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT    NOT NULL UNIQUE,
    at        INTEGER NOT NULL,
    action    TEXT    NOT NULL,
    outcome   TEXT    NOT NULL,
    tenant_id TEXT,
    key_id    TEXT,
    event     TEXT    NOT NULL
) STRICT;
CREATE INDEX portunus_events_by_age ON portunus_events (at);
CREATE INDEX portunus_events_of_key ON portunus_events (key_id, place) WHERE key_id IS NOT NULL;
CREATE INDEX portunus_events_of_tenant ON portunus_events (tenant_id, place) WHERE tenant_id IS NOT NULL;
-- Rare events only: nearly all events are admitted requests, and need no entry here.
CREATE INDEX portunus_events_refused ON portunus_events (outcome, place) WHERE outcome <> 'OK';
CREATE INDEX portunus_events_refused_of_tenant ON portunus_events (tenant_id, outcome, place) WHERE outcome <> 'OK';
CREATE INDEX portunus_events_acts ON portunus_events (action, place) WHERE action <> 'request';
CREATE INDEX portunus_events_acts_of_tenant ON portunus_events (tenant_id, action, place) WHERE action <> 'request';

-- The names of the participants of an event, in lower case.
CREATE TABLE portunus_event_parties (
    who   TEXT    NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (who, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX portunus_event_parties_of_event ON portunus_event_parties (place);

-- Counts changes of keys or digests, so that a process notices the changes of others.
CREATE TABLE portunus_changes (
    only    INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    counter INTEGER NOT NULL
) STRICT;
