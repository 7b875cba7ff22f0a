//! Every operation of a store on PostgreSQL, once.

use std::time::Duration;

use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditReader, AuditSink, EventQuery};
use portunus::credit::{CreditAccount, CreditAccounts, NewGrant};
use portunus::events::SigningStore;
use portunus::key::KeyFamily;
use portunus::store::KeyLookup;
use portunus::store::UsageStore;
use portunus::store::{Change, KeyStore, UsageDelta, WriteBatch};
use portunus_sqlx::PostgresStore;

use super::{
    acme, all, at, batch, digest, found, get, id, insert, peppered, record, rehash, signing,
};

/// Runs every operation of a store.
pub(crate) async fn everything(store: &PostgresStore, round: u32) {
    let (name, first) = (format!("key{round}"), round * 1_000);
    store
        .apply(&batch([insert(digest(first), record(&name))]))
        .await
        .unwrap();
    let many: Vec<_> = (first..first + 30).map(digest).collect();
    assert!(store.find(&many).await.unwrap().is_some());
    assert_eq!(found(store, digest(first)).await, Some(id(&name)));
    assert_eq!(found(store, digest(u32::MAX)).await, None);
    let current = get(store, &name).await;
    store
        .apply(&WriteBatch::new().update(current))
        .await
        .unwrap();
    let usage = UsageDelta::new(id(&name), 3, at(7_200), None);
    store.record_usage(&[usage]).await.unwrap();
    let set = Change::SetPrimary {
        owner: acme(),
        key: id(&name),
    };
    store.apply(&batch([set])).await.unwrap();
    assert_eq!(
        store.primary(&acme(), at(1_000)).await.unwrap(),
        Some(id(&name))
    );
    assert!(!all(store).await.is_empty());
    let mut stale = record(&name);
    stale.version = 77;
    assert!(store.apply(&WriteBatch::new().update(stale)).await.is_err());
    let query = EventQuery::new();
    let audit = store.audit();
    let event_id = format!("{:032x}", 1 + u128::from(round)).parse().unwrap();
    let event = AuditEvent::new(event_id, at(1), Action::Request, AuditOutcome::Ok);
    audit.record(&[event]).await.unwrap();
    assert!(!audit.events(&query).await.unwrap().items.is_empty());
    assert!(audit.forget_before(at(2)).await.unwrap() > 0);
    let hours = store
        .usage_by_hour(&id(&name), at(0), at(20_000))
        .await
        .unwrap();
    assert_eq!(hours.hours.len(), 1);
    let used = store.usage_of(&[id(&name), id("nobody")]).await.unwrap();
    assert_eq!(used.len(), 2);
    assert!(store.forget_usage_before(at(20_000)).await.unwrap() > 0);
    store
        .apply(&batch([rehash(&name, digest(first), peppered(first))]))
        .await
        .unwrap();
    let sign = Change::SetSigning {
        id: id(&name),
        state: Some(signing(1)),
    };
    store.apply(&batch([sign])).await.unwrap();
    assert!(store.signing_state(&id(&name)).await.unwrap().is_some());
    assert_eq!(store.fold_user_ids().await.unwrap(), 0);
    let credits = CreditAccounts::new(store.clone());
    let account = CreditAccount::Key(KeyFamily::new(&name).unwrap());
    credits.grant(&account, NewGrant::new(7)).await.unwrap();
    let length = Duration::from_secs(60);
    let reserved = credits.reserve(&account, 5, length).await.unwrap();
    assert_eq!(reserved.settle(2).await.unwrap(), 3);
    assert_eq!(credits.balance(&account).await.unwrap().available, 5);
    assert_eq!(credits.ledger(&account, 1, 9).await.unwrap().len(), 2);
    store.migrate().await.unwrap();
    store
        .apply(&batch([Change::Delete(id(&name))]))
        .await
        .unwrap();
}
