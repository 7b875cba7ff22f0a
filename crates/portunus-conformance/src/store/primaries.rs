//! Primary keys: which key is primary if none was set, when one expires, and when one is pinned.

use super::tools::{
    Store, acme, apply, at, batch, change, delete, id, insert, made_at, owned_by, primary, record,
    rejected, set_primary, tenant, update, user,
};
use crate::report::{Checked, Failure};
use portunus::key::{KeyId, KeyKind, KeyRecord, Revocation};
use portunus::store::{Change, OwnerRef, Rejected};

checks!(FIRST: Store {
    "without an explicit primary key the newest eligible one is primary, the first by id among \
     equally new ones"
        => newest depends on [known_id_or_digest],
});

checks!(CHECKS: Store {
    "an explicit primary key stays primary when newer keys are added"
        => set depends on [newest, versions],
    "the newest key becomes primary at the instant when the primary key expires"
        => expired depends on [set],
    "the newest eligible key replaces a primary key that is revoked, deleted or no longer eligible"
        => given_way depends on [expired, deleted],
    "a disabled or not yet valid key stays primary"
        => disabled depends on [set],
    "a pinned successor stays primary, and an unpinned one is replaced by a newer key"
        => pinned depends on [expired],
    "pinning applies to the state after the preceding changes"
        => pinned_in_order depends on [pinned],
    "a key of another owner cannot be set as primary"
        => foreign_primary depends on [set],
    "each kind of owner has its own primary key"
        => owners depends on [set],
    "access tokens and ineligible keys are never primary"
        => never depends on [expired],
    "primary keys are the same whether read for one owner or for many"
        => many depends on [owners],
});

/// Inserts the keys `a`, `b` and `c`, each a second newer than the one before.
async fn three(store: &Store) -> Checked {
    apply(
        store,
        (1..)
            .zip(["a", "b", "c"])
            .map(|(number, name)| insert(number, made_at(name, 1_000 + number))),
    )
    .await
}

fn pin(seconds: u64) -> Change {
    Change::PinPrimary {
        owner: acme(),
        at: at(seconds),
    }
}

fn revoke(record: &mut KeyRecord) {
    record.revoked = Some(Revocation::new(at(1_500), None));
}

async fn newest(store: Store) -> Checked {
    ensure_eq!(
        primary(&store, 2_000).await?,
        None,
        "the primary key of an empty store"
    );
    three(&store).await?;
    ensure_eq!(primary(&store, 2_000).await?, Some(id("c")), "of three");
    apply(
        &store,
        [
            insert(4, made_at("z", 1_500)),
            insert(5, made_at("m", 1_500)),
            insert(6, made_at("p", 1_500)),
        ],
    )
    .await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("m")),
        "of three that are equally new"
    );
    apply(&store, [insert(7, made_at("Q", 1_500))]).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("Q")),
        "of four that are equally new, by the bytes of their ids"
    );
    Ok(())
}

async fn set(store: Store) -> Checked {
    three(&store).await?;
    apply(&store, [set_primary("a")]).await?;
    apply(&store, [insert(4, made_at("d", 1_500))]).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("a")),
        "the key that was set, among newer ones"
    );
    update(&store, "a", |record| record.name = "renamed".into()).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("a")),
        "after an update"
    );
    apply(&store, [set_primary("b")]).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("b")),
        "after another was set"
    );
    Ok(())
}

async fn expired(store: Store) -> Checked {
    three(&store).await?;
    apply(&store, [set_primary("a")]).await?;
    update(&store, "a", |record| record.expires_at = Some(at(2_000))).await?;
    update(&store, "c", |record| record.expires_at = Some(at(3_000))).await?;
    let cases = [
        (1_999, "a"),
        (2_000, "c"),
        (2_999, "c"),
        (3_000, "b"),
        (1_999, "a"),
    ];
    for (seconds, expected) in cases {
        ensure_eq!(
            primary(&store, seconds).await?,
            Some(id(expected)),
            "at second {seconds}"
        );
    }
    update(&store, "b", |record| record.expires_at = Some(at(4_000))).await?;
    ensure_eq!(primary(&store, 4_000).await?, None, "when all have expired");
    Ok(())
}

async fn given_way(store: Store) -> Checked {
    three(&store).await?;
    apply(&store, [insert(4, made_at("d", 1_500)), set_primary("a")]).await?;
    update(&store, "a", |record| record.may_be_primary = false).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("d")),
        "after the one that was set is no longer eligible"
    );
    apply(&store, [set_primary("b")]).await?;
    update(&store, "b", revoke).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("d")),
        "after the one that was set was revoked"
    );
    apply(&store, [set_primary("c")]).await?;
    apply(&store, [delete("c")]).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("d")),
        "after the one that was set was deleted"
    );
    apply(&store, [delete("d")]).await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        None,
        "when there is no other"
    );
    Ok(())
}

async fn disabled(store: Store) -> Checked {
    three(&store).await?;
    apply(&store, [set_primary("a")]).await?;
    update(&store, "a", |record| {
        (record.enabled, record.not_before) = (false, Some(at(5_000)));
    })
    .await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("a")),
        "a disabled key that was set"
    );
    Ok(())
}

async fn pinned(store: Store) -> Checked {
    three(&store).await?;
    apply(&store, [set_primary("a")]).await?;
    store
        .apply(&change(&store, "a", revoke).await?.change(pin(1_500)))
        .await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("c")),
        "the successor"
    );
    apply(&store, [insert(4, made_at("d", 3_000))]).await?;
    ensure_eq!(
        primary(&store, 4_000).await?,
        Some(id("c")),
        "the pinned successor, with a newer key"
    );
    // Without a pin the newest key becomes primary.
    update(&store, "c", revoke).await?;
    apply(&store, [insert(5, made_at("e", 3_500))]).await?;
    ensure_eq!(
        primary(&store, 4_000).await?,
        Some(id("e")),
        "the newest, without a pin"
    );
    // A change by expiry is pinned too.
    update(&store, "e", |record| record.expires_at = Some(at(5_000))).await?;
    apply(&store, [set_primary("e")]).await?;
    apply(&store, [pin(5_000), insert(6, made_at("f", 6_000))]).await?;
    ensure_eq!(
        primary(&store, 6_000).await?,
        Some(id("d")),
        "pinned after the previous one had expired"
    );
    Ok(())
}

async fn pinned_in_order(store: Store) -> Checked {
    // As when keys are issued: the first pin keeps the current primary key, the second pin makes
    // the first key primary.
    for (number, name) in (1..).zip(["a", "b", "c"]) {
        apply(
            &store,
            [
                pin(1_000),
                insert(number, made_at(name, 1_000 + number)),
                pin(2_000),
            ],
        )
        .await?;
        ensure_eq!(
            primary(&store, 2_000).await?,
            Some(id("a")),
            "after {name} was issued"
        );
    }
    apply(
        &store,
        [delete("a"), pin(2_000), insert(4, made_at("d", 1_800))],
    )
    .await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("c")),
        "pinned after a deletion, before an insertion"
    );
    Ok(())
}

async fn foreign_primary(store: Store) -> Checked {
    apply(
        &store,
        [
            insert(1, record("a")),
            insert(2, owned_by("b", "acme", "u1")),
        ],
    )
    .await?;
    for (owner, key) in [
        (OwnerRef::User(tenant("acme"), user("u1")), "a"),
        (OwnerRef::User(tenant("acme"), user("u2")), "b"),
        (OwnerRef::User(tenant("other"), user("u1")), "b"),
        (OwnerRef::TenantItself(tenant("acme")), "b"),
        (OwnerRef::TenantItself(tenant("other")), "a"),
        (OwnerRef::Tenant(tenant("other")), "a"),
    ] {
        let set = batch([Change::SetPrimary {
            owner: owner.clone(),
            key: id(key),
        }]);
        ensure_eq!(
            rejected(&store, &set).await?,
            Rejected::Owner(id(key)),
            "{key} as the primary key of {owner:?}"
        );
    }
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("a")),
        "the tenant's own primary key afterwards"
    );
    Ok(())
}

async fn owners(store: Store) -> Checked {
    let (tenant_itself, any) = (
        OwnerRef::TenantItself(tenant("acme")),
        OwnerRef::Tenant(tenant("acme")),
    );
    let (of_user, of_other) = (
        OwnerRef::User(tenant("acme"), user("u1")),
        OwnerRef::User(tenant("other"), user("u1")),
    );
    let keys = [
        record("a"),
        made_at("b", 1_100),
        owned_by("c", "acme", "u1"),
        owned_by("d", "acme", "u1"),
        owned_by("e", "other", "u1"),
    ];
    apply(
        &store,
        (1..).zip(keys).map(|(number, key)| insert(number, key)),
    )
    .await?;
    let set = |owner: &OwnerRef, key: &str| Change::SetPrimary {
        owner: owner.clone(),
        key: id(key),
    };
    apply(
        &store,
        [set(&tenant_itself, "a"), set(&of_user, "d"), set(&any, "c")],
    )
    .await?;
    let primary_of = async |owner: &OwnerRef| -> Result<Option<KeyId>, Failure> {
        Ok(store.primary(owner, at(2_000)).await?)
    };
    ensure_eq!(
        primary_of(&tenant_itself).await?,
        Some(id("a")),
        "of the tenant itself"
    );
    ensure_eq!(primary_of(&of_user).await?, Some(id("d")), "of its user");
    ensure_eq!(
        primary_of(&any).await?,
        Some(id("c")),
        "of all of the tenant's keys"
    );
    ensure_eq!(
        primary_of(&of_other).await?,
        Some(id("e")),
        "of the user of the same name of another tenant"
    );
    ensure_eq!(
        primary_of(&OwnerRef::TenantItself(tenant("other"))).await?,
        None,
        "of another tenant itself"
    );
    Ok(())
}

async fn never(store: Store) -> Checked {
    let mut keys = [
        record("a"),
        made_at("token", 1_500),
        made_at("unsigned", 1_600),
    ];
    keys[1].kind = KeyKind::AccessToken;
    keys[2].may_be_primary = false;
    apply(
        &store,
        (1..).zip(keys).map(|(number, key)| insert(number, key)),
    )
    .await?;
    ensure_eq!(
        primary(&store, 2_000).await?,
        Some(id("a")),
        "among newer ones that are not eligible"
    );
    for name in ["token", "unsigned"] {
        apply(&store, [set_primary(name)]).await?;
        ensure_eq!(
            primary(&store, 2_000).await?,
            Some(id("a")),
            "after {name} was set, which is not eligible"
        );
    }
    Ok(())
}

async fn many(store: Store) -> Checked {
    let user_of = |of: &str, by: &str| OwnerRef::User(tenant(of), user(by));
    let mut keys = [
        record("a"),
        made_at("b", 1_100),
        owned_by("c", "acme", "u1"),
        owned_by("d", "acme", "u1"),
        owned_by("e", "other", "u1"),
        owned_by("f", "acme", "u2"),
    ];
    keys[1].expires_at = Some(at(2_000));
    keys[4].expires_at = Some(at(2_000));
    keys[5].may_be_primary = false;
    apply(
        &store,
        (1..).zip(keys).map(|(number, key)| insert(number, key)),
    )
    .await?;
    let set = Change::SetPrimary {
        owner: user_of("acme", "u1"),
        key: id("d"),
    };
    apply(&store, [set]).await?;
    // In no particular order, some without a primary key, one of them twice.
    let owners = [
        user_of("other", "u1"),
        OwnerRef::TenantItself(tenant("other")),
        user_of("acme", "u1"),
        OwnerRef::TenantItself(tenant("acme")),
        user_of("acme", "u2"),
        user_of("acme", "unknown"),
        OwnerRef::Tenant(tenant("acme")),
        user_of("acme", "u1"),
    ];
    for seconds in [1_999, 2_000] {
        let mut expected = Vec::new();
        for owner in &owners {
            expected.push(store.primary(owner, at(seconds)).await?);
        }
        ensure_eq!(
            store.primaries(&owners, at(seconds)).await?,
            expected,
            "the primary keys of {owners:?} at second {seconds}"
        );
    }
    ensure_eq!(
        store.primaries(&[], at(2_000)).await?,
        [],
        "the primary keys of no owners"
    );
    Ok(())
}
