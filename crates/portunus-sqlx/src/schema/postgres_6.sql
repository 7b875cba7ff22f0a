-- Credits: of each account a text that only the library reads, and the number of times it was written.
CREATE TABLE portunus_credits (
    account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT           NOT NULL CHECK (version > 0),
    state   TEXT COLLATE "C" NOT NULL
);

-- The ledgers of the accounts. Entries are never changed, and may be deleted from the oldest on.
CREATE TABLE portunus_credit_entries (
    account  TEXT COLLATE "C" NOT NULL,
    number   BIGINT           NOT NULL CHECK (number > 0),
    at       BIGINT           NOT NULL,
    grant_id TEXT COLLATE "C" NOT NULL,
    kind     TEXT COLLATE "C" NOT NULL,
    change   BIGINT           NOT NULL,
    taken_id TEXT COLLATE "C",
    PRIMARY KEY (account, number)
);
