//! Operators: who may grant, void, give back and read, and what the audit says of it.

use std::sync::Arc;

use portunus::audit::{Action, AuditOutcome};
use portunus::credit::{CreditAccount, CreditId, Credits, MemoryCreditStore, NewGrant};
use portunus::key::{Alphabet, KeyFormat, KeyRecord, Owner, TenantId, UserId};
use portunus::manage::{
    Denied, ManageError, Management, NewKey, Operator, OperatorPolicy, Role, own_keys,
};
use portunus::store::{ListQuery, MemoryStore};
use portunus::testing::RecordedAudit;
use portunus::{ErrorCode, Portunus};

use crate::accounts::account;

/// Lets owners grant, of all actions on credits.
#[derive(Debug)]
struct OwnersGrant;

impl OperatorPolicy for OwnersGrant {
    fn allows(&self, _: &Operator, _: Action, _: &KeyRecord) -> Result<(), Denied> {
        Ok(())
    }
    fn lists(&self, _: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
        Ok(query)
    }
    fn allows_credits(
        &self,
        operator: &Operator,
        action: Action,
        _: &CreditAccount,
    ) -> Result<(), Denied> {
        match (operator.role(), action) {
            (Role::Owner, Action::CreditGrant | Action::CreditRead) => Ok(()),
            _ => Err(Denied::because("Only owners grant")),
        }
    }
}

fn service(management: Management) -> (Portunus, RecordedAudit) {
    let events = RecordedAudit::new();
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let builder = Portunus::builder(format.build().unwrap())
        .store(MemoryStore::new())
        .management(management)
        .audit(events.trail());
    let credits = Credits::per_tenant(Arc::new(MemoryCreditStore::new()));
    (builder.credits(credits).build().unwrap(), events)
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn owner_of(name: &str) -> Operator {
    Operator::new(user("ann"), tenant(name), Role::Owner)
}

fn id(text: &str) -> CreditId {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_service_grants_and_voids_and_each_act_is_an_event() {
    let (keys, events) = service(Management::new());
    let manager = keys.manager();
    let grant = NewGrant::new(50).with_id(id("invoice-7"));
    manager.grant_credits(&account(), grant).await.unwrap();
    assert_eq!(manager.credits(&account()).await.unwrap().available, 50);
    assert_eq!(
        manager
            .credit_ledger(&account(), 0, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        manager
            .void_credits(&account(), &id("invoice-7"))
            .await
            .unwrap(),
        50
    );
    let again = manager
        .void_credits(&account(), &id("invoice-7"))
        .await
        .unwrap_err();
    assert_eq!(again.code(), ErrorCode::NotFound);
    let block = manager
        .give_back_credits(&account(), &id("block_1"))
        .await
        .unwrap_err();
    assert_eq!(block.code(), ErrorCode::NotFound);
    let invalid = manager
        .grant_credits(&account(), NewGrant::new(0))
        .await
        .unwrap_err();
    assert_eq!(invalid.code(), ErrorCode::InvalidBody);
    let events = events.events().await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.action, event.outcome))
        .collect();
    let expected = [
        (Action::CreditGrant, AuditOutcome::Ok),
        (Action::CreditVoid, AuditOutcome::Ok),
        (
            Action::CreditVoid,
            AuditOutcome::Refused(ErrorCode::NotFound),
        ),
        (
            Action::CreditGiveBack,
            AuditOutcome::Refused(ErrorCode::NotFound),
        ),
        (
            Action::CreditGrant,
            AuditOutcome::Refused(ErrorCode::InvalidBody),
        ),
    ];
    assert_eq!(seen, expected);
    let detail = events[0].detail.as_deref().unwrap();
    assert_eq!(detail, "50 units to tenant:acme (invoice-7)");
    assert!(
        events
            .iter()
            .all(|event| event.tenant_id == Some(tenant("acme")))
    );
}

#[tokio::test]
async fn a_grant_by_an_operator_is_spent_at_once_on_this_node() {
    let (keys, _) = service(Management::new());
    let new = NewKey::new("first", Owner::tenant(tenant("acme")));
    let secret = keys.manager().issue(new).await.unwrap().key.reveal();
    let request = || {
        let head = portunus_test_support::Head::bearer(&secret);
        keys.authenticator().authenticate(&head)
    };
    assert_eq!(
        request().await.unwrap_err().code(),
        ErrorCode::CreditsExhausted
    );
    keys.manager()
        .grant_credits(&account(), NewGrant::new(1))
        .await
        .unwrap();
    assert!(request().await.is_ok());
}

#[tokio::test]
async fn by_default_an_operator_of_a_tenant_reads_its_own_credits_and_changes_none() {
    let (keys, events) = service(Management::new());
    let host = keys.manager();
    let grant = host
        .grant_credits(&account(), NewGrant::new(5))
        .await
        .unwrap();
    let ann = host.by(owner_of("acme"));
    assert_eq!(ann.credits(&account()).await.unwrap().available, 5);
    for refused in [
        ann.grant_credits(&account(), NewGrant::new(1_000_000))
            .await
            .err(),
        ann.void_credits(&account(), &grant).await.err(),
        ann.give_back_credits(&account(), &grant).await.err(),
        host.by(Operator::new(user("max"), tenant("acme"), Role::Member))
            .credits(&account())
            .await
            .err(),
    ] {
        assert!(
            matches!(refused, Some(ManageError::Forbidden(_))),
            "{refused:?}"
        );
    }
    assert_eq!(host.credits(&account()).await.unwrap().available, 5);
    let refused = events
        .events()
        .await
        .into_iter()
        .filter(|event| event.outcome != AuditOutcome::Ok);
    let refused: Vec<_> = refused.map(|event| event.action).collect();
    let expected = [
        Action::CreditGrant,
        Action::CreditVoid,
        Action::CreditGiveBack,
        Action::CreditRead,
    ];
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn an_operator_confined_to_its_own_keys_reads_its_own_account_only() {
    let (keys, _) = service(Management::new());
    let ann = keys.manager().under(own_keys()).by(owner_of("acme"));
    let own = CreditAccount::User(tenant("acme"), user("ann"));
    assert_eq!(ann.credits(&own).await.unwrap().available, 0);
    let grant = ann.grant_credits(&own, NewGrant::new(1)).await;
    assert!(matches!(grant, Err(ManageError::Forbidden(_))));
    let issue = async |owner: Owner| {
        let issued = keys.manager().issue(NewKey::new("a key", owner)).await;
        CreditAccount::Key(issued.unwrap().record.family.clone())
    };
    let key = issue(Owner::user(tenant("acme"), user("ann"))).await;
    assert_eq!(ann.credits(&key).await.unwrap().available, 0);
    for other in [
        CreditAccount::User(tenant("acme"), user("bob")),
        CreditAccount::Tenant(tenant("acme")),
    ] {
        let refused = ann.credits(&other).await;
        assert!(matches!(refused, Err(ManageError::Forbidden(_))), "{other}");
    }
    // Another's key does not exist for it.
    let of_tenant = issue(Owner::tenant(tenant("acme"))).await;
    let of_bob = issue(Owner::user(tenant("acme"), user("bob"))).await;
    let unknown = CreditAccount::Key("key_0123456789012345678901".parse().unwrap());
    for other in [of_tenant, of_bob, unknown] {
        let refused = ann.credits(&other).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::NotFound, "{other}");
    }
}

#[tokio::test]
async fn an_account_of_a_rotated_key_stays_visible_when_its_first_key_is_deleted() {
    let (keys, _) = service(Management::new());
    let host = keys.manager();
    let new = NewKey::new("first", Owner::tenant(tenant("acme")));
    let first = host.issue(new).await.unwrap().record;
    host.rotate(&first.id, None).await.unwrap();
    host.delete(&first.id).await.unwrap();
    let account = CreditAccount::Key(first.family.clone());
    let read = async |tenant: &str| host.by(owner_of(tenant)).credits(&account).await;
    assert!(read("acme").await.is_ok());
    assert_eq!(read("other").await.unwrap_err().code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_user_has_one_account_however_its_id_is_written() {
    use portunus::actor::UserIds;
    use portunus::config::Actors;
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let keys = Portunus::builder(format.build().unwrap())
        .store(MemoryStore::new())
        .actors(Actors::new().user_ids(UserIds::Uuid))
        .credits(Credits::per_user(Arc::new(MemoryCreditStore::new())));
    let keys = keys.build().unwrap();
    let written = |id: &str| CreditAccount::User(tenant("acme"), user(id));
    let upper = written("7D444840-9DC0-11D1-B245-5FFDCE74FAD2");
    let lower = written("7d444840-9dc0-11d1-b245-5ffdce74fad2");
    let manager = keys.manager();
    manager
        .grant_credits(&upper, NewGrant::new(3))
        .await
        .unwrap();
    assert_eq!(manager.credits(&lower).await.unwrap().available, 3);
    assert_eq!(manager.credit_ledger(&upper, 0, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn accounts_of_other_tenants_look_like_unknown_ones_whatever_the_policy_says() {
    let (keys, _) = service(Management::new().operators(OwnersGrant));
    let host = keys.manager();
    let new = NewKey::new("first", Owner::tenant(tenant("acme")));
    let family = host.issue(new).await.unwrap().record.family.clone();
    let stranger = host.by(owner_of("other"));
    let unknown = CreditAccount::Key("key_0123456789012345678901".parse().unwrap());
    let user = CreditAccount::User(tenant("acme"), "ann".parse().unwrap());
    let expected = stranger.credits(&unknown).await.unwrap_err().to_string();
    for account in [account(), user, CreditAccount::Key(family.clone())] {
        let error = stranger.credits(&account).await.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string()),
            (ErrorCode::NotFound, expected.clone())
        );
        let granted = stranger
            .grant_credits(&account, NewGrant::new(1))
            .await
            .unwrap_err();
        assert_eq!(granted.to_string(), expected);
        assert_eq!(host.credits(&account).await.unwrap().available, 0);
    }
    let own = CreditAccount::Key(family);
    let ann = host.by(owner_of("acme"));
    ann.grant_credits(&own, NewGrant::new(3)).await.unwrap();
    assert_eq!(ann.credits(&own).await.unwrap().available, 3);
}

#[tokio::test]
async fn a_service_without_credits_says_so() {
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let keys = Portunus::builder(format.build().unwrap()).store(MemoryStore::new());
    let keys = keys.build().unwrap();
    let error = keys.manager().credits(&account()).await.unwrap_err();
    assert_eq!(error.to_string(), "this service has no credits");
    assert!(keys.credits().is_none());
}
