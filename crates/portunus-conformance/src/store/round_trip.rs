//! Records as they are returned: every field, at the limits of validity.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::tools::{
    Store, apply, digest, environment, found, id, insert, made_at, put_a, record, stored, tenant,
    user,
};
use crate::report::{Checked, valid};
use portunus::key::{
    Access, Delegation, KeyFamily, KeyId, KeyKind, KeyRecord, Metadata, Owner, PlanName,
    Revocation, TenantId, UserId, WorkspaceId,
};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::scope::{MAX_SCOPE_LENGTH, Scope};
use portunus::store::{ListQuery, WriteBatch};

checks!(CHECKS: Store {
    "times are returned to the millisecond"
        => times depends on [revoked],
    "empty lists and strings are returned as empty, and absent ones as absent"
        => empty_or_absent depends on [revoked],
    "strings are returned unchanged, whatever characters they contain"
        => texts depends on [revoked],
    "an inserted record is returned unchanged, with every field at its extreme"
        => inserted depends on [times, empty_or_absent, texts],
    "an updated record is returned unchanged, with every field at its extreme"
        => replaced depends on [inserted, read_your_writes],
});

/// Visible ASCII of this length, starting with everything that is special in databases and query
/// languages.
fn visible(length: usize) -> String {
    let special = r#"'"\%_;--`$1?:x*(){}[]<>&|^~!@#=+,./"#;
    special
        .chars()
        .chain((b'!'..=b'~').map(char::from).cycle())
        .take(length)
        .collect()
}

fn extreme(name: &str, family: &KeyFamily, owner: Owner) -> KeyRecord {
    let mut record = KeyRecord::new(
        id(name),
        "\u{1f511}".repeat(1000),
        KeyKind::User,
        environment("a-1"),
        owner,
        far(3, 1),
    );
    record.family = family.clone();
    record.description = Some(format!(
        "line\nline \t\u{5d0}\u{301} é ß İ {}",
        visible(900)
    ));
    record.environment = environment(&"z9-".repeat(11)[..32]);
    record.masked = "acme_live_…日本".into();
    record.scopes = (0..256)
        .rev()
        .map(|n| {
            valid(Scope::new(&format!(
                "{n}:{}",
                "s".repeat(MAX_SCOPE_LENGTH - 4)
            )))
        })
        .collect();
    record.access = Access::ReadOnly;
    let workspaces = (0..100).rev().map(|n| format!("{n}{}", "W-_.".repeat(31)));
    record.workspaces = Some(
        workspaces
            .map(|name| valid(WorkspaceId::new(&name)))
            .collect(),
    );
    record.plan = Some(valid(PlanName::new(&"p-_9".repeat(32))));
    record.delegation = Delegation::Only(record.scopes.clone());
    record.allowed_ips = Some(networks());
    record.quotas = Some(quotas());
    record.metadata = metadata();
    record.not_before = Some(far(1, 999));
    record.expires_at = Some(far(7_900, 999));
    record.enabled = false;
    record.revoked = Some(Revocation::new(
        far(60, 7),
        Some("Größe 'lost' \u{1f4a5}".repeat(40)),
    ));
    record.successor = Some(valid(KeyId::new(&visible(128))));
    record.may_be_primary = false;
    record
}

/// A number of years, and milliseconds, after 1970.
fn far(years: u64, milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        + Duration::from_secs(years * 31_556_952)
        + Duration::from_millis(milliseconds)
}

fn networks() -> AllowList {
    let mut entries: Vec<String> = (0..255).map(|n| format!("198.51.{n}.0/24")).collect();
    let others = [
        "0.0.0.0/0",
        "203.0.113.42",
        "::/0",
        "2001:db8::1",
        "2001:db8:ffff::/48",
        "fe80::/10",
        "10.0.0.0/31",
    ];
    entries.extend(others.map(str::to_owned));
    valid(AllowList::parse(entries))
}

fn quotas() -> Quotas {
    let quota = |name: &str, limit: u64, window| valid(Quota::new(name, limit, window));
    let mut list = vec![
        quota(
            &"q-_0".repeat(8),
            u32::MAX.into(),
            Duration::from_secs(400 * 24 * 3600),
        ),
        quota("a", 1, Duration::from_secs(1)),
        quota("nanos", 7, Duration::new(1, 1)),
    ];

    list.extend((3..16).map(|n| quota(&format!("n{n}"), n, Duration::from_secs(n))));
    valid(Quotas::new(list))
}

/// The full 16 KiB. The names are in the same order by length and alphabetically: a store may keep
/// either order.
fn metadata() -> Metadata {
    let mut json = String::from(
        r#"{"a":[1,-1,9007199254740991,true,null,[],{}],"b":{"c":"\"\\ ü 日本 😀\n"},"d":""#,
    );
    json.extend(std::iter::repeat_n(
        'x',
        Metadata::MAX_LENGTH - json.len() - 2,
    ));
    json.push_str("\"}");
    valid(Metadata::from_json(&json))
}

/// By digest, by id and in the list.
async fn comes_back(store: &Store, number: u64, expected: &KeyRecord) -> Checked {
    let mut query = ListQuery::new(expected.created_at);
    query.tenant = Some(expected.owner.tenant_id.clone());
    query.limit = 500;
    let listed = store.list(&query).await?.items.into_iter();
    let seen = [
        (
            "find",
            found(store, digest(number))
                .await?
                .map(|key| Arc::clone(key.record())),
        ),
        ("get", store.get(&expected.id).await?),
        (
            "list",
            listed.into_iter().find(|record| record.id == expected.id),
        ),
    ];
    for (how, seen) in seen {
        let Some(seen) = seen else {
            return Err(crate::report::Failure::new(format!("not found by {how}")));
        };
        same(how, &seen, expected)?;
    }
    Ok(())
}

/// Compares field by field, so that the message is short.
fn same(how: &str, seen: &KeyRecord, expected: &KeyRecord) -> Checked {
    macro_rules! fields {
        ($($field:ident)+) => {$(
            ensure_eq!(
                seen.$field,
                expected.$field,
                "{} of {}, by {how}",
                stringify!($field),
                expected.id
            );
        )+};
    }
    fields!(id family version kind environment owner access plan);
    fields!(created_at not_before expires_at enabled revoked);
    fields!(successor may_be_primary masked name description);
    fields!(workspaces allowed_ips quotas delegation scopes metadata);
    ensure!(
        seen == expected,
        "the record of {} is not the stored one, by {how}",
        expected.id
    );
    Ok(())
}

fn great_owner() -> Owner {
    let (tenant, user) = (
        valid(TenantId::new(&visible(128))),
        valid(UserId::new(&visible(128))),
    );
    Owner::user(tenant, user).with_email("Zoë+tag@EXAMPLE.com")
}

async fn inserted(store: Store) -> Checked {
    let family = valid(KeyFamily::new(&visible(128)));
    let greatest = extreme(&visible(127), &family, great_owner());
    apply(
        &store,
        [insert(1, greatest.clone()), insert(2, record("plain"))],
    )
    .await?;
    comes_back(&store, 1, &greatest).await?;
    comes_back(&store, 2, &record("plain")).await
}

async fn replaced(store: Store) -> Checked {
    let owner = Owner::user(tenant("acme"), user("u1"));
    let mut before = record("a");
    before.owner = owner.clone();
    let mut family = before.family.clone();
    apply(&store, [insert(1, before.clone())]).await?;
    for round in 0..2 {
        let mut after = extreme("a", &family, owner.clone());
        after.version = before.version;
        store
            .apply(&WriteBatch::new().update(after.clone()))
            .await?;
        after.version += 1;
        comes_back(&store, 1, &after).await?;
        // And back: nothing of the extreme values may remain.
        let mut plain = record("a");
        plain.owner = owner.clone();
        plain.version = after.version;
        store
            .apply(&WriteBatch::new().update(plain.clone()))
            .await?;
        plain.version += 1;
        comes_back(&store, 1, &plain).await?;
        ensure_eq!(
            plain.version,
            3 + 2 * round,
            "the version after {} updates",
            2 + 2 * round
        );
        family = plain.family.clone();
        before = plain;
    }
    Ok(())
}

async fn empty_or_absent(store: Store) -> Checked {
    let mut empty = record("empty");
    empty.description = Some(String::new());
    empty.workspaces = Some(Vec::new());
    empty.delegation = Delegation::Only(Vec::new());
    empty.revoked = Some(Revocation::new(far(60, 0), Some(String::new())));
    empty.owner = Owner::tenant(tenant("acme")).with_email("");
    let mut absent = record("absent");
    absent.revoked = Some(Revocation::new(far(60, 0), None));
    let mut delegating = record("delegating");
    (delegating.delegation, delegating.access, delegating.kind) =
        (Delegation::On, Access::ReadOnly, KeyKind::AccessToken);
    for (number, record) in (1..).zip([empty, absent, delegating]) {
        apply(&store, [insert(number, record.clone())]).await?;
        comes_back(&store, number, &record).await?;
    }
    Ok(())
}

async fn texts(store: Store) -> Checked {
    let texts = [
        " leading and trailing ".to_owned(),
        "'; DROP TABLE keys; --".to_owned(),
        "100% _under_ back\\slash \"quotes\" `ticks` $1 ?1 :name {braces}".to_owned(),
        "e\u{301} is not \u{e9}".to_owned(),
        "\u{202e}right to left\u{202c} \u{200b} zero width".to_owned(),
        "\u{10ffff}\u{fffd}\u{e000}".to_owned(),
        "null".to_owned(),
        "NULL\n".to_owned(),
        "0123".to_owned(),
        visible(1000),
    ];
    for (number, text) in (1..).zip(texts) {
        let mut record = record(&format!("key{number}"));
        (record.name, record.description, record.masked) = (
            text.as_str().into(),
            Some(text.clone()),
            text.as_str().into(),
        );
        record.revoked = Some(Revocation::new(far(60, 0), Some(text)));
        apply(&store, [insert(number, record.clone())]).await?;
        comes_back(&store, number, &record).await?;
    }
    Ok(())
}

async fn times(store: Store) -> Checked {
    put_a(&store).await?;
    for (number, milliseconds) in (2..).zip([
        0,
        1,
        10,
        999,
        1_000,
        1_001,
        1_799_999_999_999,
        4_102_444_800_001,
    ]) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        let mut record = made_at(&format!("key{number}"), 0);
        record.created_at = time;
        (record.not_before, record.expires_at) =
            (Some(time), Some(time + Duration::from_millis(1)));
        record.revoked = Some(Revocation::new(time, None));
        apply(&store, [insert(number, record.clone())]).await?;
        comes_back(&store, number, &record).await?;
    }
    ensure!(
        stored(&store, "a").await?.expires_at.is_none(),
        "a key without an expiry has one"
    );
    Ok(())
}
