-- Events. A place is never reused, even after the newest events were deleted.
CREATE TABLE portunus_events (
    place     BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        TEXT COLLATE "C" NOT NULL UNIQUE,
    at        BIGINT           NOT NULL,
    action    TEXT COLLATE "C" NOT NULL,
    outcome   TEXT COLLATE "C" NOT NULL,
    tenant_id TEXT COLLATE "C",
    key_id    TEXT COLLATE "C",
    event     TEXT COLLATE "C" NOT NULL
);
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
    who   TEXT COLLATE "C" NOT NULL,
    place BIGINT           NOT NULL,
    PRIMARY KEY (who, place)
);
CREATE INDEX portunus_event_parties_of_event ON portunus_event_parties (place);
