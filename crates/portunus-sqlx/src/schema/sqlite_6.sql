-- Credits: of each account a text that only the library reads, and the number of times it was written.
CREATE TABLE portunus_credits (
    account TEXT    NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL CHECK (version > 0),
    state   TEXT    NOT NULL
) STRICT;

-- The ledgers of the accounts. Entries are never changed, and may be deleted from the oldest on.
CREATE TABLE portunus_credit_entries (
    account  TEXT    NOT NULL,
    number   INTEGER NOT NULL CHECK (number > 0),
    at       INTEGER NOT NULL,
    grant_id TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    change   INTEGER NOT NULL,
    taken_id TEXT,
    PRIMARY KEY (account, number)
) STRICT, WITHOUT ROWID;
