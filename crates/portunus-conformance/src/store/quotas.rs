//! Quotas: which keys count as active, and for which owner.

use super::tools::{Store, apply, at, insert, owned_by, record, rejected, tenant, user};
use crate::report::Checked;
use portunus::key::{KeyKind, Revocation};
use portunus::store::{Condition, OwnerRef, Rejected, WriteBatch};

checks!(CHECKS: Store {
    "revoked keys, expired keys and access tokens do not count as active, disabled keys do"
        => active depends on [after_changes],
    "a quota counts only its owner's keys"
        => whose_quota depends on [active],
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
