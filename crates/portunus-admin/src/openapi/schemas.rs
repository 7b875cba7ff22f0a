//! What is shown: keys, usage, events, and what a secret is.

use portunus::ErrorCode;
use portunus::audit::{Action, AuditOutcome};
use portunus::key::KeyStatus;
use utoipa::openapi::{Array, KnownFormat, Object, RefOr, Schema, SchemaFormat};

use super::shape::{
    Members, about, always, any_object, any_of, at_least, boolean, id, line, list, list_or_null,
    matching, members, named, named_or_null, names, null, one_of, open, or_null, prose, shown_time,
    text, within,
};
use crate::Shared;

/// A place in the list of keys.
pub(super) const CURSOR: &str = "^[0-9]+(_[0-9]{1,6})?\\.[!-~]{1,128}$";

/// By name, in the order of the names.
pub(super) fn all(shared: &Shared) -> Vec<(&'static str, RefOr<Schema>)> {
    let event = match shared.event_view {
        None => event().into(),
        Some(_) => about(open(event()), "The service adds members of its own."),
    };
    vec![
        ("Access", names(["full-access", "read-only"]).into()),
        ("Environment", matching("^[a-z0-9-]{1,32}$").into()),
        ("Event", event.into()),
        ("EventPage", page("Event", "^[0-9]+$").into()),
        (
            "ImportedKey",
            members().with("record", named("KeyRecord")).into(),
        ),
        ("IpAddress", ip_address()),
        ("IssuedKey", issued().into()),
        ("KeyId", id().into()),
        ("KeyKind", names(["app", "user", "access_token"]).into()),
        ("KeyPage", page("KeyRecord", CURSOR).into()),
        ("KeyRecord", key_record().into()),
        (
            "KeyStatus",
            names(STATUSES.iter().map(|status| status.as_str())).into(),
        ),
        ("Owner", owner().into()),
        ("Party", party().into()),
        ("RepeatedRequest", repeated().into()),
        ("RotatedKey", rotated().into()),
        ("Scope", scope().into()),
        ("Usage", usage().into()),
        ("Verified", verified()),
        ("VerifiedActive", active().into()),
        (
            "VerifiedInactive",
            members()
                .with("active", always(false))
                .about("Not a word about why.")
                .into(),
        ),
        ("WorkspaceId", matching("^[A-Za-z0-9._-]{1,128}$").into()),
    ]
}

/// Every state of a key.
pub(super) const STATUSES: [KeyStatus; 6] = [
    KeyStatus::Active,
    KeyStatus::NotYetValid,
    KeyStatus::Expired,
    KeyStatus::Disabled,
    KeyStatus::Revoked,
    KeyStatus::Unreadable,
];

/// Every outcome of an event.
pub(super) fn outcomes() -> impl Iterator<Item = &'static str> {
    let refused = ErrorCode::ALL.iter().map(|code| code.as_str());
    [
        AuditOutcome::Ok,
        AuditOutcome::Abandoned,
        AuditOutcome::Failed,
    ]
    .map(AuditOutcome::as_str)
    .into_iter()
    .chain(refused)
}

/// A grant or requirement: segments of RFC 6749 §3.3's characters between `:` or `.`, the last of
/// which may be `*`.
fn scope() -> Object {
    let segment = r"[!#-)+,\-/-9;-\[\]-~]+";
    let mut scope = matching(&format!(r"^({segment}[:.])*({segment}|\*)$"));
    scope.max_length = Some(portunus::scope::MAX_SCOPE_LENGTH);
    about(
        scope,
        "A wildcard such as `document:*` covers every deeper name.",
    )
}

fn ip_address() -> RefOr<Schema> {
    let of = |format: KnownFormat| {
        let mut address = text();
        address.format = Some(SchemaFormat::KnownFormat(format));
        address.into()
    };
    any_of([of(KnownFormat::Ipv4), of(KnownFormat::Ipv6)])
}

fn owner() -> Members {
    members()
        .with("tenant_id", id())
        .perhaps("user_id", id())
        .perhaps("user_email", prose(1000))
}

fn key_record() -> Members {
    let limits = members()
        .with("requests_per_minute", or_null(at_least(1)))
        .with("requests_per_hour", or_null(at_least(1)))
        .others(at_least(1))
        .about(
            "Every window of the key, as `requests_per_` and its name: its own, or the default's. \
             `null` where requests are not limited by this window.",
        );
    members()
        .with("id", named("KeyId"))
        .with(
            "key_family",
            about(id(), "What a key shares with its successors by rotation."),
        )
        .with(
            "version",
            about(at_least(1), "Raised by each change but usage; the `ETag`."),
        )
        .with("name", line(1000))
        .with("description", or_null(prose(1000)))
        .with("kind", named("KeyKind"))
        .with("environment", named("Environment"))
        .with("owner", named("Owner"))
        .with(
            "masked",
            about(text(), "What people may see of the secret."),
        )
        .with("scopes", list(named("Scope")))
        .with("access", named("Access"))
        .with("workspaces", {
            let mut workspaces = list_or_null(list(named("WorkspaceId")));
            workspaces.min_items = Some(1);
            workspaces.description = Some("`null` for the whole organization.".into());
            workspaces
        })
        .with("plan", or_null(matching("^[a-z0-9_-]{1,128}$")))
        .with("allowed_ips", {
            let mut networks = list_or_null(list(about(text(), "An address or a CIDR range.")));
            networks.min_items = Some(1);
            networks.description = Some("`null` for anywhere.".into());
            networks
        })
        .with("rate_limit_config", limits)
        .with("status", named("KeyStatus"))
        .with("primary", boolean())
        .with("enabled", boolean())
        .with("predecessor", or_null(id()))
        .with("successor", or_null(id()))
        .with("rotation_due_at", or_null(shown_time()))
        .with("created_at", shown_time())
        .with("not_before", or_null(shown_time()))
        .with("expires_at", or_null(shown_time()))
        .with("revoked_at", or_null(shown_time()))
        .with("revoke_reason", or_null(prose(1000)))
        .with("last_used_at", or_null(shown_time()))
        .with("request_count", at_least(0))
        .with("metadata", any_object())
        .about("Everything about a key but its secret.")
}

/// A page of a list.
fn page(of: &str, cursor: &str) -> Members {
    let next = about(
        or_null(matching(cursor)),
        "Where the next page starts; `null` at the end. A page may be shorter than `limit`, even empty, \
         and have a next one: 10 000 items are looked at for one page at most.",
    );
    members()
        .with("items", list(named(of)))
        .with("next_cursor", next)
        .perhaps("corrupt", corrupt())
}

/// Rows that were left out.
fn corrupt() -> Array {
    let mut rows = list(prose(400));
    rows.description = Some(
        "The stored rows of this part that cannot be read and were left out: table, row and column. \
         Absent where there are none, and for operators who see less than all of their tenant. A row \
         that may be another tenant's is not named."
            .to_owned(),
    );
    rows
}

fn secret() -> Object {
    about(
        line(portunus::key::MAX_KEY_LENGTH),
        "The secret: this once.",
    )
}

fn issued() -> Members {
    members()
        .with("key", secret())
        .with("record", named("KeyRecord"))
}

fn rotated() -> Members {
    let old = members()
        .with("id", named("KeyId"))
        .with(
            "works_until",
            about(
                or_null(shown_time()),
                "`null` where it works until it is deleted.",
            ),
        )
        .about("The key that was rotated.");
    issued()
        .with("rotated", old)
        .about("The successor, with its secret.")
}

fn repeated() -> Members {
    members()
        .with("key", null())
        .with("record", named("KeyRecord"))
        .about("What the same request has come to before. The secret was shown then, and never is again.")
}

fn usage() -> Members {
    let hour = members()
        .with("start", shown_time())
        .with("count", at_least(0));
    members()
        .with("id", named("KeyId"))
        .with("request_count", at_least(0))
        .with("last_used_at", or_null(shown_time()))
        .with("last_ip", named_or_null("IpAddress"))
        .with("hours", list(hour))
        .perhaps("corrupt", corrupt())
}

fn verified() -> RefOr<Schema> {
    one_of(
        "What is not active is told nothing of.",
        [
            named("VerifiedActive").into(),
            named("VerifiedInactive").into(),
        ],
    )
}

fn active() -> Members {
    let seconds = || at_least(0);
    members()
        .with("active", always(true))
        .with(
            "scope",
            about(text(), "The scopes, with spaces between them."),
        )
        .with("client_id", named("KeyId"))
        .with("sub", or_null(id()))
        .with("username", or_null(prose(1000)))
        .with("token_type", names(["api_key"]))
        .with("exp", or_null(seconds()))
        .with("iat", seconds())
        .with("nbf", or_null(seconds()))
        .with(
            "allowed",
            about(
                boolean(),
                "Whether a request like the one asked about would be let through.",
            ),
        )
        .with("explain", about(text(), "Why, part by part."))
        .with("record", named("KeyRecord"))
        .about("In the manner of RFC 7662 §2.2.")
}

fn party() -> Members {
    members()
        .perhaps("user_id", id())
        .perhaps("user_email", text())
        .perhaps("name", text())
}

fn event() -> Members {
    members()
        .with("id", matching("^[0-9a-f]{32}$"))
        .with("at", shown_time())
        .with(
            "action",
            names(Action::ALL.iter().map(|action| action.as_str())),
        )
        .with("outcome", names(outcomes()))
        .perhaps("status", within(100, 599))
        .perhaps("tenant_id", id())
        .perhaps("key_id", named("KeyId"))
        .perhaps("environment", named("Environment"))
        .perhaps("workspaces", list(named("WorkspaceId")))
        .perhaps("more_workspaces", at_least(1))
        .perhaps("mode", names(["user", "app", "app_user", "delegated"]))
        .perhaps("subject", named("Party"))
        .perhaps("actor", named("Party"))
        .perhaps("scopes", list(named("Scope")))
        .perhaps("more_scopes", at_least(1))
        .perhaps("client_ip", named("IpAddress"))
        .perhaps("method", text())
        .perhaps("route", text())
        .perhaps("request_id", id())
        .perhaps("detail", text())
        .perhaps("count", at_least(0))
}
