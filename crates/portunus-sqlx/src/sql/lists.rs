//! The statements about lists of keys.
//!
//! A page is read from one index. If a filter matches few keys, they are read from the index of that
//! filter, whatever the other filters are. Otherwise, to bound the cost of a page whatever share of
//! the rows a filter matches, its rows are read in strips that the index itself delimits: the rest
//! of one instant, and everything older.

use portunus::key::KeyStatus;
use portunus::store::ListQuery;

/// Keys that have one index in the order of the list.
///
/// In every statement `$1` is the environment, `$2` the state at `$3`, `$4` a lower-case string, `$5`
/// the tenant, `$7` the user, `$8` the plan, `$9` the family, `$10` the kind, `$11` the end of the
/// time in which it expires and `$12` the time since which it is unused, each NULL if it does not
/// matter; `$6` is the number of rows.
pub(crate) struct Lane {
    /// The id of the key that is `$6` keys after the next one, among those created at `$13` with an
    /// id after `$14`.
    pub(crate) far_at: &'static str,
    /// The position of the key that is `$6` keys after the next one, among those created before
    /// `$13`.
    pub(crate) far_before: &'static str,
    /// The next keys that were created at `$13`, with an id after `$14` and up to `$15`.
    pub(crate) at: &'static str,
    /// The next keys that were created before `$13` and after `$14`.
    pub(crate) before: &'static str,
}

/// Keys with one value in a range, after `$13` and before `$14`, in the order of that value. They are
/// sorted for each page, and so are read only if they are few.
pub(crate) struct Span {
    /// Whether there is a key that is `$6` keys after the next one.
    pub(crate) far: &'static str,
    /// The next keys of the list that were created before `$15`, or then with an id after `$16`.
    pub(crate) rows: &'static str,
}

/// What a span is a range of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The expiry.
    End,
    /// The start of validity.
    Start,
    /// The day of the last use that is known to the key's row, which may be earlier than the real one.
    Use,
}

/// The filter of a list.
macro_rules! filtered {
    ($position:literal, $plan:expr) => {
        concat!(
            " AND ($1 IS NULL OR environment = $1) AND ($7 IS NULL OR user_id = $7) AND ($8 IS NULL OR ",
            $plan,
            " = $8) AND ($9 IS NULL OR family = $9) AND ($10 IS NULL OR kind = $10) \
             AND (CAST($11 AS BIGINT) IS NULL OR expires_at < $11) \
             AND (CAST($12 AS BIGINT) IS NULL OR (created_at < $12 \
             AND NOT COALESCE((SELECT last_used_at >= $12 FROM portunus_usage \
             WHERE key_id = portunus_keys.id), FALSE))) \
             AND ($2 IS NULL OR $2 = CASE WHEN revoked_at IS NOT NULL THEN 'revoked' \
             WHEN expires_at <= $3 THEN 'expired' WHEN enabled = 0 THEN 'disabled' \
             WHEN not_before > $3 THEN 'not_yet_valid' ELSE 'active' END) \
             AND ($4 IS NULL OR ",
            $position,
            "(lower(name), $4) > 0 OR ",
            $position,
            "(lower(masked), $4) > 0 OR ",
            $position,
            "(lower(COALESCE(description, '')), $4) > 0)"
        )
    };
}

macro_rules! page {
    ($filter:expr, $from:expr, $strip:literal, $lane:expr, $order:literal) => {
        concat!(
            "SELECT ",
            record_columns!(),
            " FROM portunus_keys",
            $from,
            " WHERE ",
            $strip,
            $lane,
            $filter,
            " ORDER BY ",
            $order,
            " LIMIT $6"
        )
    };
}

macro_rules! lane {
    ($filter:expr, $from:expr, $lane:expr) => {
        Lane {
            far_at: concat!(
                "SELECT id FROM portunus_keys",
                $from,
                " WHERE created_at = $13 AND id > $14",
                $lane,
                " ORDER BY id LIMIT 1 OFFSET $6"
            ),
            far_before: concat!(
                "SELECT created_at, id FROM portunus_keys",
                $from,
                " WHERE created_at < $13",
                $lane,
                " ORDER BY created_at DESC, id LIMIT 1 OFFSET $6"
            ),
            at: page!(
                $filter,
                $from,
                "created_at = $13 AND id > $14 AND id <= $15",
                $lane,
                "id"
            ),
            before: page!(
                $filter,
                $from,
                "created_at < $13 AND created_at > $14",
                $lane,
                "created_at DESC, id"
            ),
        }
    };
}

macro_rules! span {
    ($database:ident, $filter:expr, $from:expr, $lane:expr, $column:literal) => {
        Span {
            far: concat!(
                "SELECT id FROM portunus_keys",
                $from,
                " WHERE ",
                $lane,
                $column,
                " > $13 AND ",
                $column,
                " < $14 ORDER BY ",
                $column,
                " LIMIT 1 OFFSET $6"
            ),
            rows: concat!(
                $database!(@span $from, $lane, $column),
                "(created_at < $15 OR (created_at = $15 AND id > $16))",
                $filter,
                " ORDER BY created_at DESC, id LIMIT $6"
            ),
        }
    };
}

/// What differs between the databases.
#[cfg(feature = "sqlite")]
macro_rules! sqlite {
    (@plan) => {
        "(CASE WHEN json_valid(record) THEN record ->> 'plan' END)"
    };
    (@filter) => {
        filtered!("instr", sqlite!(@plan))
    };
    (@from $index:expr) => {
        indexed_by!($index)
    };
    (@span $from:expr, $lane:expr, $column:literal) => {
        concat!(
            "SELECT ",
            record_columns!(),
            " FROM portunus_keys",
            $from,
            " WHERE ",
            $lane,
            $column,
            " > $13 AND ",
            $column,
            " < $14 AND "
        )
    };
}

#[cfg(feature = "postgres")]
macro_rules! postgres {
    (@plan) => {
        "(substring(record from '\"plan\":\"([^\"]*)\"'))"
    };
    (@filter) => {
        filtered!("strpos", postgres!(@plan))
    };
    (@from $index:expr) => {
        of_its_own!($index)
    };
    // By its statistics, the server might prefer an index in the order of the list, and read it to
    // its end.
    (@span $from:expr, $lane:expr, $column:literal) => {
        concat!(
            "WITH few AS MATERIALIZED (SELECT id AS few_id FROM portunus_keys WHERE ",
            $lane,
            $column,
            " > $13 AND ",
            $column,
            " < $14 ORDER BY ",
            $column,
            ") SELECT ",
            record_columns!(),
            " FROM few JOIN portunus_keys ON id = few_id WHERE "
        )
    };
}

/// The lanes and spans of one database. Where there are two, the first is of a tenant and the second
/// of all of them.
pub(crate) struct Lanes {
    all: Lane,
    of_tenant: Lane,
    of_user: [Lane; 2],
    of_plan: [Lane; 2],
    of_family: [Lane; 2],
    of_environment: [Lane; 2],
    of_kind: [Lane; 2],
    revoked: [Lane; 2],
    disabled: [Lane; 2],
    ends: [Span; 2],
    starts: [Span; 2],
    uses: [Span; 2],
}

macro_rules! lanes {
    ($database:ident) => {
        Lanes {
            all: lanes!(@lane $database, "portunus_keys_by_age", ""),
            of_tenant: lanes!(@lane $database, "portunus_keys_of_tenant", " AND tenant_id = $5"),
            of_user: lanes!(@both $database, "portunus_keys_of_user", "user_id = $7 AND user_id IS NOT NULL"),
            of_plan: lanes!(@both $database, "portunus_keys_of_plan",
                concat!($database!(@plan), " = $8 AND ", $database!(@plan), " IS NOT NULL")),
            of_family: lanes!(@both $database, "portunus_keys_of_family", "family = $9"),
            of_environment: lanes!(@both $database, "portunus_keys_of_environment",
                "environment = $1"),
            of_kind: lanes!(@both $database, "portunus_keys_of_kind", "kind = $10"),
            revoked: [
                lanes!(@lane $database, "portunus_keys_revoked",
                    " AND tenant_id = $5 AND revoked_at IS NOT NULL"),
                lanes!(@lane $database, "portunus_keys_revoked_by_age",
                    " AND revoked_at IS NOT NULL"),
            ],
            disabled: [
                lanes!(@lane $database, "portunus_keys_disabled",
                    " AND tenant_id = $5 AND enabled = 0"),
                lanes!(@lane $database, "portunus_keys_disabled_by_age", " AND enabled = 0"),
            ],
            ends: [
                lanes!(@span $database, "portunus_keys_expiring",
                    "tenant_id = $5 AND expires_at IS NOT NULL AND ", "expires_at"),
                lanes!(@span $database, "portunus_keys_expiring_of_all",
                    "expires_at IS NOT NULL AND ", "expires_at"),
            ],
            starts: [
                lanes!(@span $database, "portunus_keys_starting",
                    "tenant_id = $5 AND not_before IS NOT NULL AND ", "not_before"),
                lanes!(@span $database, "portunus_keys_starting_of_all",
                    "not_before IS NOT NULL AND ", "not_before"),
            ],
            uses: [
                lanes!(@span $database, "portunus_keys_used", "tenant_id = $5 AND ", "used_on"),
                lanes!(@span $database, "portunus_keys_used_of_all", "", "used_on"),
            ],
        }
    };
    (@both $database:ident, $index:literal, $of:expr) => {
        [
            lanes!(@lane $database, $index, concat!(" AND tenant_id = $5 AND ", $of)),
            lanes!(@lane $database, concat!($index, "_of_all"), concat!(" AND ", $of)),
        ]
    };
    (@lane $database:ident, $index:expr, $lane:expr) => {
        lane!($database!(@filter), $database!(@from $index), $lane)
    };
    (@span $database:ident, $index:literal, $lane:literal, $column:literal) => {
        span!($database, $database!(@filter), $database!(@from $index), $lane, $column)
    };
}

#[cfg(feature = "sqlite")]
pub(crate) static SQLITE: Lanes = lanes!(sqlite);
#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Lanes = lanes!(postgres);

impl Lanes {
    /// The keys of the tenant, or all keys.
    pub(crate) fn whole(&self, query: &ListQuery) -> &Lane {
        match query.tenant {
            Some(_) => &self.of_tenant,
            None => &self.all,
        }
    }

    /// The lanes of the filters, the one that usually has the fewest keys first.
    pub(crate) fn of(&self, query: &ListQuery) -> Vec<&Lane> {
        let of_all = usize::from(query.tenant.is_none());
        let status = |status| query.status == Some(status);
        [
            (query.family.is_some(), &self.of_family),
            (query.owner.is_some(), &self.of_user),
            (status(KeyStatus::Revoked), &self.revoked),
            (status(KeyStatus::Disabled), &self.disabled),
            (query.plan.is_some(), &self.of_plan),
            (query.environment.is_some(), &self.of_environment),
            (query.kind.is_some(), &self.of_kind),
        ]
        .into_iter()
        .filter_map(|(is_asked, lane)| is_asked.then_some(&lane[of_all]))
        .collect()
    }

    /// The keys with a value in a range.
    pub(crate) fn span(&self, query: &ListQuery, of: Of) -> &Span {
        let spans = match of {
            Of::End => &self.ends,
            Of::Start => &self.starts,
            Of::Use => &self.uses,
        };
        &spans[usize::from(query.tenant.is_none())]
    }

    /// Every statement.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn statements(&self) -> impl Iterator<Item = &'static str> {
        let both = [
            &self.of_user,
            &self.of_plan,
            &self.of_family,
            &self.of_environment,
            &self.of_kind,
            &self.revoked,
            &self.disabled,
        ];
        let lanes = [&self.all, &self.of_tenant].into_iter();
        let lanes = lanes.chain(both.into_iter().flatten());
        let lanes = lanes.flat_map(|lane| {
            let Lane {
                far_at,
                far_before,
                at,
                before,
            } = lane;
            [*far_at, *far_before, *at, *before]
        });
        let spans = self.ends.iter().chain(&self.starts).chain(&self.uses);
        lanes.chain(spans.flat_map(|span| [span.far, span.rows]))
    }
}
