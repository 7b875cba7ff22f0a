//! What callers send. A member that is `null` is one that is not there; in a change, it takes away
//! what may be absent.

use portunus::network::AllowList;
use utoipa::openapi::{Array, KnownFormat, Object, RefOr, Schema, SchemaFormat};

use super::shape::{
    Members, about, any_object, any_of, at_least, boolean, id, line, list, list_or_null, matching,
    members, named, named_or_null, names, null, one_of, or_null, prose, text, time, within,
};
use crate::verify::{LONGEST_METHOD, MOST_REQUIRED};

/// By name, in the order of the names.
pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        ("ChangeRequest", change().into()),
        ("DigestRequest", digest()),
        ("ImportRequest", import().into()),
        ("IssueRequest", issue().into()),
        ("OwnerRequest", owner().into()),
        ("RateLimitRequest", rate_limit().into()),
        (
            "RevokeRequest",
            members().perhaps("reason", or_null(prose(1000))).into(),
        ),
        ("RotateRequest", rotate().into()),
        ("VerifyRequest", verify().into()),
    ]
}

fn owner() -> Members {
    members()
        .perhaps(
            "user_id",
            about(
                or_null(id()),
                "A user of the tenant; needed for a key of a user. Any other is refused (403).",
            ),
        )
        .perhaps("user_email", or_null(prose(1000)))
        .perhaps(
            "tenant_id",
            about(or_null(id()), "The operator's own tenant."),
        )
}

fn rate_limit() -> Members {
    let quota = || or_null(within(1, 4_294_967_295));
    members()
        .perhaps("requests_per_minute", quota())
        .perhaps("requests_per_hour", quota())
        .others(quota())
        .about(
            "A window that is not named stays as it is, in a new key as by default; `null` \
             restores the default's number. More than the default is refused (403), unless the \
             service allows it. Other windows are those that the key or the default \
             has, as `requests_per_` and the name.",
        )
}

fn workspaces() -> Array {
    let mut workspaces = list_or_null(list(named("WorkspaceId")));
    workspaces.min_items = Some(1);
    workspaces.description =
        Some("The whole organization if `null`. At most 1000 different ones.".into());
    workspaces
}

fn allowed_ips() -> Array {
    let mut networks = list_or_null(list(about(text(), "An address or a CIDR range.")));
    (networks.min_items, networks.max_items) = (Some(1), Some(AllowList::MOST));
    networks.description = Some("Anywhere if `null`.".into());
    networks
}

fn scopes() -> Array {
    let mut scopes = list(named("Scope"));
    scopes.description = Some("At most 256 different ones.".into());
    scopes
}

/// What can be said of a key that is made, and of one that is there.
fn facts() -> Members {
    members()
        .perhaps("description", or_null(prose(1000)))
        .perhaps("workspaces", workspaces())
        .perhaps(
            "plan",
            about(
                or_null(matching("^[a-z0-9_-]{1,128}$")),
                "The tenant's unless said. Any other is refused (403), unless the service allows \
                 it.",
            ),
        )
        .perhaps("allowed_ips", allowed_ips())
        .perhaps("rate_limit_config", named_or_null("RateLimitRequest"))
        .perhaps("not_before", or_null(time()))
        .perhaps("expires_at", or_null(time()))
        .perhaps("metadata", about(or_null(any_object()), "At most 16 KiB."))
}

fn name() -> Object {
    about(line(1000), "One line with a visible character.")
}

fn issue() -> Members {
    let kind = "`app` unless said. The service may have formats for some kinds only.";
    let kinds = about(or_null(names(["app", "user", "access_token"])), kind);
    members()
        .with("name", name())
        .perhaps("kind", kinds)
        .perhaps("environment", named_or_null("Environment"))
        .perhaps("owner", named_or_null("OwnerRequest"))
        .perhaps("scopes", list_or_null(scopes()))
        .perhaps("access", named_or_null("Access"))
        .and(facts())
}

fn change() -> Members {
    members()
        .perhaps("name", name())
        .perhaps("scopes", scopes())
        .perhaps("access", named("Access"))
        .perhaps("enabled", boolean())
        .and(facts())
        .about(
            "A merge (RFC 7396), in `rate_limit_config` and `metadata` too: what is not named \
             stays. `null` takes away what may be absent, and restores what has a default.",
        )
}

fn digest() -> RefOr<Schema> {
    let scheme = || matching("^(sha256|sha512|hmac-sha256:\\+?[0-9]+)$");
    let hex = || matching("^([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})$");
    let base64 = || matching("^[A-Za-z0-9+/_-]+=*$");
    let forms = [
        members()
            .with("scheme", scheme())
            .with("hex", hex())
            .perhaps("base64", null())
            .into(),
        members()
            .with("scheme", scheme())
            .with("base64", base64())
            .perhaps("hex", null())
            .into(),
    ];
    one_of(
        "What another system kept of the whole key, in hexadecimal or base64.",
        forms,
    )
}

fn import() -> Members {
    let last_four = about(or_null(prose(4)), "What people may see of the secret.");
    members()
        .with("digest", named("DigestRequest"))
        .perhaps("last_four", last_four)
        .and(issue())
}

fn rotate() -> Members {
    let grace = "How long the old key works on. Absent or 0: it is revoked at once. Refused where \
                 rotated keys stay.";
    members().perhaps("grace_seconds", about(or_null(at_least(0)), grace))
}

fn verify() -> Members {
    let mut scopes = list(named("Scope"));
    scopes.max_items = Some(MOST_REQUIRED);
    let require = any_of([named("Scope").into(), scopes.into(), null().into()]);
    let mut key = text();
    key.format = Some(SchemaFormat::KnownFormat(KnownFormat::Password));
    let mut method = text();
    method.max_length = Some(LONGEST_METHOD);
    method.pattern = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$".into());
    members()
        .with("key", about(key, "The secret."))
        .perhaps("require", require)
        .perhaps("ip", named_or_null("IpAddress"))
        .perhaps(
            "method",
            about(
                or_null(method),
                "The method of the request. Without it, whether the key may write is not evaluated.",
            ),
        )
        .perhaps("workspace", named_or_null("WorkspaceId"))
        .about(
            "The request that is asked about. What is not said is not evaluated, but a key with an \
             allow-list is not allowed without `ip`, and `explain` names the only workspaces that a \
             key reaches. `require` names scopes; a plan, a user or the organization, which a route \
             may require too, cannot be asked about.",
        )
}
