//! The statements about lists of keys: pages, and the primary keys of a page's owners.
//!
//! A page is read from one index, in its order: that of one [`Lane`]. To bound the cost of a page,
//! whatever share of the rows a filter matches, its rows are read in strips that the index itself
//! delimits: the rest of one instant, and everything older.

use portunus::key::KeyStatus;
use portunus::store::ListQuery;

/// The keys among which a list searches, in the order of one index.
///
/// In every statement `$1` is the environment, `$2` the state at `$3`, `$4` a lower-case string, `$5`
/// the tenant, `$7` the user, `$8` the plan, `$9` the family, `$10` the kind, `$11` when it expires at
/// the latest and `$12` since when it is unused, each NULL if it does not matter; `$6` is the number
/// of rows.
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

/// The filter of a list.
macro_rules! filtered {
    ($position:literal, $plan:literal) => {
        concat!(
            " AND ($1 IS NULL OR environment = $1) AND ($7 IS NULL OR user_id = $7) \
             AND ($8 IS NULL OR ",
            $plan,
            " = $8) AND ($9 IS NULL OR family = $9) AND ($10 IS NULL OR kind = $10) \
             AND ($11 IS NULL OR expires_at < $11) AND ($12 IS NULL OR (created_at < $12 \
             AND COALESCE((SELECT last_used_at FROM portunus_usage \
             WHERE key_id = portunus_keys.id), $12 - 1) < $12)) \
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
    ($position:literal, $plan:literal, $from:expr, $strip:literal, $lane:literal, $order:literal) => {
        concat!(
            "SELECT ",
            record_columns!(),
            " FROM portunus_keys",
            $from,
            " WHERE ",
            $strip,
            $lane,
            filtered!($position, $plan),
            " ORDER BY ",
            $order,
            " LIMIT $6"
        )
    };
}

macro_rules! lane {
    ($position:literal, $plan:literal, $from:expr, $lane:literal) => {
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
                $position,
                $plan,
                $from,
                "created_at = $13 AND id > $14 AND id <= $15",
                $lane,
                "id"
            ),
            before: page!(
                $position,
                $plan,
                $from,
                "created_at < $13 AND created_at > $14",
                $lane,
                "created_at DESC, id"
            ),
        }
    };
}

/// The lanes of one database.
pub(crate) struct Lanes {
    all: Lane,
    of_tenant: Lane,
    of_environment: Lane,
    revoked: Lane,
    disabled: Lane,
}

macro_rules! lanes {
    ($position:literal, $plan:literal, $index:ident) => {
        Lanes {
            all: lane!($position, $plan, $index!("portunus_keys_by_age"), ""),
            of_tenant: lane!(
                $position,
                $plan,
                $index!("portunus_keys_of_tenant"),
                " AND tenant_id = $5"
            ),
            of_environment: lane!(
                $position,
                $plan,
                $index!("portunus_keys_of_environment"),
                " AND tenant_id = $5 AND environment = $1"
            ),
            revoked: lane!(
                $position,
                $plan,
                $index!("portunus_keys_revoked"),
                " AND tenant_id = $5 AND revoked_at IS NOT NULL"
            ),
            disabled: lane!(
                $position,
                $plan,
                $index!("portunus_keys_disabled"),
                " AND tenant_id = $5 AND enabled = 0"
            ),
        }
    };
}

#[cfg(feature = "sqlite")]
pub(crate) static SQLITE: Lanes = lanes!(
    "instr",
    "CASE WHEN json_valid(record) THEN record ->> 'plan' END",
    indexed_by
);
#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Lanes = lanes!(
    "strpos",
    "substring(record from '\"plan\":\"([^\"]*)\"')",
    of_its_own
);

impl Lanes {
    /// The most selective lane, and whether every key in it is in the list.
    pub(crate) fn of(&self, query: &ListQuery) -> (&Lane, bool) {
        let (status, environment) = (query.status, query.environment.is_some());
        let (lane, is_exact) = match (query.tenant.is_some(), status) {
            (false, _) => (&self.all, status.is_none() && !environment),
            (true, Some(KeyStatus::Revoked)) => (&self.revoked, !environment),
            (true, Some(KeyStatus::Disabled)) => (&self.disabled, false),
            (true, _) if environment => (&self.of_environment, status.is_none()),
            (true, _) => (&self.of_tenant, status.is_none()),
        };
        let is_open = query.within_workspaces.is_none()
            && query.text.is_none()
            && query.owner.is_none()
            && query.plan.is_none()
            && query.family.is_none()
            && query.kind.is_none()
            && query.expires_before.is_none()
            && query.unused_since.is_none();
        (lane, is_exact && is_open)
    }

    /// Every statement.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn statements(&self) -> impl Iterator<Item = &'static str> {
        let lanes = [
            &self.all,
            &self.of_tenant,
            &self.of_environment,
            &self.revoked,
            &self.disabled,
        ];
        lanes.into_iter().flat_map(|lane| {
            let Lane {
                far_at,
                far_before,
                at,
                before,
            } = lane;
            [*far_at, *far_before, *at, *before]
        })
    }
}

/// The columns of a record in a join with other tables.
macro_rules! of_keys {
    () => {
        "portunus_keys.id, family, version, kind, environment, tenant_id, user_id, name, \
         description, masked, created_at, not_before, expires_at, enabled, revoked_at, \
         may_be_primary, record"
    };
}

/// The primary keys that were set (place 0), and the newest keys that can be primary (place 1), of
/// the owners of a JSON array `$1` of objects with number, tenant and user, which is absent if the
/// tenant itself is the owner; at `$2`, of any kind except `$3`.
macro_rules! primaries {
    ($from:literal, $number:literal, $tenant:literal, $user:literal) => {
        concat!(
            "SELECT ",
            $number,
            " AS number, CAST(0 AS BIGINT) AS place, ",
            of_keys!(),
            " FROM ",
            $from,
            " JOIN portunus_primaries ON owner_tenant = ",
            $tenant,
            " AND owner_user = COALESCE(",
            $user,
            ", '') AND owner_kind = CASE WHEN ",
            $user,
            " IS NULL THEN 'tenant_itself' ELSE 'user' END \
             JOIN portunus_keys ON portunus_keys.id = portunus_primaries.key_id",
            primaries!(@newest $from, $number, $tenant, $user, " IS NOT NULL",
                "newest.user_id = ", $user),
            primaries!(@newest $from, $number, $tenant, $user, " IS NULL",
                "newest.user_id IS NULL", "")
        )
    };
    (@newest $from:literal, $number:literal, $tenant:literal, $user:literal, $which:literal,
        $owner:literal, $is:literal) => {
        concat!(
            " UNION ALL SELECT ",
            $number,
            ", CAST(1 AS BIGINT), ",
            of_keys!(),
            " FROM ",
            $from,
            " JOIN portunus_keys ON portunus_keys.id = \
             (SELECT newest.id FROM portunus_keys AS newest WHERE newest.tenant_id = ",
            $tenant,
            " AND ",
            $owner,
            $is,
            " AND newest.kind <> $3 AND newest.revoked_at IS NULL \
             AND (newest.expires_at IS NULL OR newest.expires_at > $2) AND newest.may_be_primary = 1 \
             ORDER BY newest.created_at DESC, newest.id LIMIT 1) WHERE ",
            $user,
            $which
        )
    };
}

#[cfg(feature = "sqlite")]
pub(crate) const SQLITE_PRIMARIES: &str = primaries!(
    "json_each($1) AS owner",
    "(owner.value ->> 'number')",
    "(owner.value ->> 'tenant')",
    "(owner.value ->> 'user')"
);
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_PRIMARIES: &str = primaries!(
    "json_to_recordset($1::json) AS owner (number bigint, tenant text, \"user\" text)",
    "owner.number",
    "owner.tenant",
    "owner.\"user\""
);
