//! Quotas: which keys count as active, and for which owner.

use super::tools::{Store, apply, at, id, insert, owned_by, record, rejected, tenant, user};
use crate::report::Checked;
use portunus::key::{KeyKind, Revocation};
use portunus::store::{Condition, OwnerRef, Rejected, WriteBatch};

checks!(CHECKS: Store {
    "revoked keys, expired keys and access tokens do not count as active, disabled keys do"
        => active depends on [after_changes],
    "a quota counts only its owner's keys"
        => whose_quota depends on [active],
    "two active keys of a family count as one where families are counted, and a third one counts"
        => families depends on [whose_quota],
});

async fn active(store: Store) -> Checked {
    let mut keys = [
        record("active"),
        record("disabled"),
        record("later"),
        record("revoked"),
        record("ended"),
        record("token"),
    ];
    keys[1].enabled = false;
    keys[2].not_before = Some(at(9_000));
    keys[3].revoked = Some(Revocation::new(at(900), None));
    keys[4].expires_at = Some(at(2_000));
    keys[5].kind = KeyKind::AccessToken;
    apply(
        &store,
        (1..).zip(keys).map(|(number, key)| insert(number, key)),
    )
    .await?;
    for (seconds, active) in [(1_999, 4), (2_000, 3)] {
        let at_most = |limit| {
            let owner = OwnerRef::Tenant(tenant("acme"));
            WriteBatch::new().require(Condition::ActiveKeysAtMost {
                owner,
                at: at(seconds),
                limit,
            })
        };
        store.apply(&at_most(active)).await?;
        let why = rejected(&store, &at_most(active - 1)).await?;
        ensure_eq!(
            why,
            Rejected::TooManyActive {
                active,
                limit: active - 1
            },
            "at second {seconds}"
        );
    }
    Ok(())
}

async fn whose_quota(store: Store) -> Checked {
    let of_other = owned_by("c", "other", "u1");
    let keys = [
        owned_by("a", "acme", "u1"),
        owned_by("b", "acme", "u2"),
        of_other,
        record("d"),
        record("e"),
    ];
    apply(
        &store,
        (1..).zip(keys).map(|(number, key)| insert(number, key)),
    )
    .await?;
    let cases = [
        (OwnerRef::User(tenant("acme"), user("u1")), 1),
        (OwnerRef::User(tenant("other"), user("u1")), 1),
        (OwnerRef::User(tenant("other"), user("u2")), 0),
        (OwnerRef::TenantItself(tenant("acme")), 2),
        (OwnerRef::TenantItself(tenant("other")), 0),
        (OwnerRef::Tenant(tenant("acme")), 4),
        (OwnerRef::Tenant(tenant("other")), 1),
        (OwnerRef::Tenant(tenant("unknown")), 0),
    ];
    for (owner, active) in cases {
        let at_most = |limit| {
            WriteBatch::new().require(Condition::ActiveKeysAtMost {
                owner: owner.clone(),
                at: at(1_000),
                limit,
            })
        };
        store.apply(&at_most(active)).await?;
        if active > 0 {
            let why = rejected(&store, &at_most(active - 1)).await?;
            ensure_eq!(
                why,
                Rejected::TooManyActive {
                    active,
                    limit: active - 1
                },
                "the keys of {owner:?}"
            );
        }
    }
    Ok(())
}

async fn families(store: Store) -> Checked {
    // Of family "a" one key, of "b" two, of "c" three.
    let mut keys = Vec::new();
    for (family, count) in [("a", 1), ("b", 2), ("c", 3)] {
        for number in 0..count {
            let mut key = record(&format!("{family}{number}"));
            key.family = (&id(family)).into();
            keys.push(key);
        }
    }
    // The older key of "b" is in its grace period, and the newer one is disabled.
    keys[1].expires_at = Some(at(2_000));
    keys[2].enabled = false;
    // None of these counts, with or without a family.
    for (name, family) in [("ended", "a"), ("revoked", "a"), ("token", "d")] {
        let mut key = record(name);
        key.family = (&id(family)).into();
        keys.push(key);
    }
    keys[6].expires_at = Some(at(1_000));
    keys[7].revoked = Some(Revocation::new(at(900), None));
    keys[8].kind = KeyKind::AccessToken;
    let mut of_user = owned_by("user", "acme", "u1");
    of_user.family = (&id("a")).into();
    keys.push(of_user);
    apply(
        &store,
        (1..).zip(keys).map(|(number, key)| insert(number, key)),
    )
    .await?;
    let (all, itself) = (OwnerRef::Tenant, OwnerRef::TenantItself);
    let cases = [
        (all(tenant("acme")), 1_999, 4),
        (itself(tenant("acme")), 1_999, 4),
        // The end of the grace period changes nothing.
        (itself(tenant("acme")), 2_000, 4),
        (OwnerRef::User(tenant("acme"), user("u1")), 1_999, 1),
        (all(tenant("other")), 1_999, 0),
    ];
    for (owner, seconds, active) in cases {
        let at_most = |limit| {
            WriteBatch::new().require(Condition::ActiveFamiliesAtMost {
                owner: owner.clone(),
                at: at(seconds),
                limit,
            })
        };
        store.apply(&at_most(active)).await?;
        if let Some(limit) = active.checked_sub(1) {
            let why = rejected(&store, &at_most(limit)).await?;
            ensure_eq!(
                why,
                Rejected::TooManyActive { active, limit },
                "the families of {owner:?} at second {seconds}"
            );
        }
    }
    // The count is that after the changes: a third key of "b" needs a place, a second one of "a" none.
    let itself = itself(tenant("acme"));
    for (name, family, fits) in [("a1", "a", true), ("b2", "b", false)] {
        let mut key = record(name);
        key.family = (&id(family)).into();
        let condition = Condition::ActiveFamiliesAtMost {
            owner: itself.clone(),
            at: at(1_999),
            limit: 4,
        };
        let change = insert(if fits { 20 } else { 21 }, key);
        let batch = WriteBatch::new().change(change).require(condition);
        match fits {
            true => store.apply(&batch).await?,
            false => {
                let why = rejected(&store, &batch).await?;
                let (active, limit) = (5, 4);
                ensure_eq!(
                    why,
                    Rejected::TooManyActive { active, limit },
                    "with {name}"
                );
            }
        }
    }
    Ok(())
}
