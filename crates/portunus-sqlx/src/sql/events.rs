//! The statements about events.
//!
//! A page is read from the single most selective index: by key, by participant, by tenant, or by
//! outcomes and actions where these are rare. All other filters are evaluated row by row.

use portunus::audit::{Action, AuditOutcome, EventQuery};

/// The events among which a page searches, in the order of one index.
///
/// In both statements `$1` is the exclusive upper bound of the place, `$2` the outcome, `$3` the
/// action, `$4` the tenant and `$5` the key, or the name of a participant; `$6` is the number of
/// rows.
pub(crate) struct Lane {
    /// The place of the event that is `$6` events after the next one.
    pub(crate) far: &'static str,
    /// The next events, down to the place `$7`.
    pub(crate) page: &'static str,
}

macro_rules! lane {
    ($index:expr, $and:literal) => {
        lane!(
            concat!("portunus_events", $index),
            "portunus_events.place",
            $and
        )
    };
    ($from:expr, $place:literal, $and:literal) => {
        Lane {
            far: concat!(
                "SELECT ",
                $place,
                " FROM ",
                $from,
                " WHERE ",
                $place,
                " < $1",
                $and,
                " ORDER BY ",
                $place,
                " DESC LIMIT 1 OFFSET $6"
            ),
            page: concat!(
                "SELECT portunus_events.place, id, at, action, outcome, tenant_id, key_id, event FROM ",
                $from,
                " WHERE ",
                $place,
                " < $1 AND ",
                $place,
                " >= $7 AND ($2 IS NULL OR outcome = $2) AND ($3 IS NULL OR action = $3) \
                 AND ($4 IS NULL OR tenant_id = $4)",
                $and,
                " ORDER BY ",
                $place,
                " DESC LIMIT $6"
            ),
        }
    };
}

/// The filter of a lane.
#[derive(Clone, Copy)]
enum Of {
    All,
    Key,
    RefusedOfKey,
    ActsOfKey,
    Party,
    Tenant,
    Refused,
    RefusedOfTenant,
    Acts,
    ActsOfTenant,
}

/// The lanes of one database, in the order of [`Of`].
pub(crate) struct Lanes([Lane; 10]);

macro_rules! lanes {
    ($index:ident) => {
        Lanes([
            lane!("", ""),
            lane!($index!("portunus_events_of_key"), " AND key_id = $5"),
            lane!(
                $index!("portunus_events_refused_of_key"),
                " AND key_id = $5 AND outcome = $2 AND outcome <> 'OK'"
            ),
            lane!(
                $index!("portunus_events_acts_of_key"),
                " AND key_id = $5 AND action = $3 AND action <> 'request'"
            ),
            lane!(
                "portunus_event_parties JOIN portunus_events \
                 ON portunus_events.place = portunus_event_parties.place",
                "portunus_event_parties.place",
                " AND who = $5"
            ),
            lane!($index!("portunus_events_of_tenant"), " AND tenant_id = $4"),
            lane!(
                $index!("portunus_events_refused"),
                " AND outcome = $2 AND outcome <> 'OK'"
            ),
            lane!(
                $index!("portunus_events_refused_of_tenant"),
                " AND tenant_id = $4 AND outcome = $2 AND outcome <> 'OK'"
            ),
            lane!(
                $index!("portunus_events_acts"),
                " AND action = $3 AND action <> 'request'"
            ),
            lane!(
                $index!("portunus_events_acts_of_tenant"),
                " AND tenant_id = $4 AND action = $3 AND action <> 'request'"
            ),
        ])
    };
}

impl Lanes {
    /// Every statement about pages.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().flat_map(|lane| [lane.far, lane.page])
    }

    /// The most selective lane, and whether every event in it matches the query.
    pub(crate) fn of(&self, query: &EventQuery) -> (&Lane, bool) {
        let outcome = query.outcome.filter(|outcome| *outcome != AuditOutcome::Ok);
        let action = query.action.filter(|action| *action != Action::Request);
        let (is_refused, is_act) = (outcome.is_some(), action.is_some());
        let of_tenant = query.tenant.is_some();
        let (of, filters) = if query.key_id.is_some() {
            match (is_refused, is_act) {
                (true, _) => (Of::RefusedOfKey, 2),
                (_, true) => (Of::ActsOfKey, 2),
                _ => (Of::Key, 1),
            }
        } else if query.actor.is_some() || query.owner.is_some() {
            (Of::Party, 1)
        } else {
            match (is_refused, is_act, of_tenant) {
                (true, _, true) => (Of::RefusedOfTenant, 2),
                (true, _, false) => (Of::Refused, 1),
                (_, true, true) => (Of::ActsOfTenant, 2),
                (_, true, false) => (Of::Acts, 1),
                (_, _, true) => (Of::Tenant, 1),
                _ => (Of::All, 0),
            }
        };
        let asked = [
            of_tenant,
            query.key_id.is_some(),
            query.actor.is_some(),
            query.outcome.is_some(),
            query.action.is_some(),
            query.within_workspaces.is_some(),
        ];
        let asked = asked.into_iter().filter(|is_asked| *is_asked).count();
        // Actors, subjects and owners of keys are parties alike.
        let is_exact = asked == filters && !matches!(of, Of::Party);
        (&self.0[of as usize], is_exact)
    }
}

/// The places of at most `$2` events, the oldest ones before `$1`.
pub(crate) const OLDEST: &str =
    "SELECT place FROM portunus_events WHERE at < $1 ORDER BY at LIMIT $2";

/// The statements about events that differ between the two databases.
pub(crate) struct Events {
    pub(crate) lanes: Lanes,
    /// Inserts the events of a JSON array `$1` of objects, in its order, except those that are
    /// already stored.
    pub(crate) insert: &'static str,
    /// Inserts the participants of those events.
    pub(crate) insert_parties: &'static str,
    /// Deletes the events at the places of the JSON array `$1`.
    pub(crate) delete: &'static str,
    /// Deletes the participants of those events.
    pub(crate) delete_parties: &'static str,
}

macro_rules! insert {
    ($with:literal, $columns:literal, $from:literal, $order:literal) => {
        concat!(
            $with,
            "INSERT INTO portunus_events (id, at, action, outcome, tenant_id, key_id, event) SELECT ",
            $columns,
            " FROM ",
            $from,
            " WHERE 1 = 1 ORDER BY ",
            $order,
            " ON CONFLICT (id) DO NOTHING"
        )
    };
}

macro_rules! insert_parties {
    ($who:literal, $from:literal, $id:literal) => {
        concat!(
            "INSERT INTO portunus_event_parties (who, place) SELECT DISTINCT ",
            $who,
            ", place FROM ",
            $from,
            " JOIN portunus_events ON portunus_events.id = ",
            $id,
            " WHERE 1 = 1 ON CONFLICT (who, place) DO NOTHING"
        )
    };
}

macro_rules! delete {
    ($table:literal, $places:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE place IN (SELECT ",
            $places,
            ")"
        )
    };
}

#[cfg(feature = "sqlite")]
pub(crate) static SQLITE: Events = Events {
    lanes: lanes!(indexed_by),
    // Each object is made into a text once, and not for each of its members.
    insert: insert!(
        "WITH given (number, one) AS MATERIALIZED (SELECT key, value FROM json_each($1)) ",
        "one ->> 'id', one ->> 'at', one ->> 'action', one ->> 'outcome', one ->> 'tenant', \
         one ->> 'key', one ->> 'event'",
        "given",
        "number"
    ),
    insert_parties: insert_parties!(
        "party.value",
        "json_each($1) AS given JOIN json_each(given.value, '$.parties') AS party",
        "(given.value ->> 'id')"
    ),
    delete: delete!("portunus_events", "value FROM json_each($1)"),
    delete_parties: delete!("portunus_event_parties", "value FROM json_each($1)"),
};

#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Events = Events {
    lanes: lanes!(of_its_own),
    insert: insert!(
        "",
        "given.id, given.at, given.action, given.outcome, given.tenant, given.key, given.event",
        "json_to_recordset($1::json) AS given \
         (number bigint, id text, at bigint, action text, outcome text, tenant text, key text, event text)",
        "given.number"
    ),
    insert_parties: insert_parties!(
        "party.name",
        "json_to_recordset($1::json) AS given (id text, parties json) \
         CROSS JOIN json_array_elements_text(given.parties) AS party (name)",
        "given.id"
    ),
    delete: delete!(
        "portunus_events",
        "place::bigint FROM json_array_elements_text($1::json) AS places (place)"
    ),
    delete_parties: delete!(
        "portunus_event_parties",
        "place::bigint FROM json_array_elements_text($1::json) AS places (place)"
    ),
};
