//! Acts with a precondition: executed only for a matching version, and checked last.

use crate::life::{Desk, HOUR, change, issue, named};
use portunus::ErrorCode;
use portunus::audit::AuditOutcome;
use portunus::manage::{KeyChange, KeyManager, ManageError};
use portunus_test_support::APPLY;

fn rename(name: &str) -> KeyChange {
    change(|change| change.name = Some(name.to_owned()))
}

fn at(desk: &Desk, version: u64) -> KeyManager {
    desk.host().only_if(move |stored| stored == Some(version))
}

#[tokio::test]
async fn an_act_is_done_only_at_a_version_for_which_the_precondition_holds() {
    let desk = Desk::new();
    let (_, first) = issue(&desk.host(), named("first")).await;
    let (_, second) = issue(&desk.host(), named("second")).await;
    let (stale, id) = (at(&desk, 7), &second.id);
    let refused = [
        stale.update(id, rename("x"), None).await.unwrap_err(),
        stale.update(id, rename("second"), None).await.unwrap_err(),
        stale.disable(id).await.unwrap_err(),
        stale.revoke(id, None).await.unwrap_err(),
        stale.rotate(id, Some(HOUR)).await.unwrap_err(),
        stale.rotate(id, None).await.unwrap_err(),
        stale.make_primary(id).await.unwrap_err(),
        stale.delete(id).await.unwrap_err(),
        stale.issue(named("third")).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, ManageError::PreconditionFailed), "{error}");
        assert_eq!(error.code(), ErrorCode::PreconditionFailed);
    }
    let event = desk.last_event().await;
    assert_eq!(
        event.outcome,
        AuditOutcome::Refused(ErrorCode::PreconditionFailed)
    );
    assert_eq!(desk.all().await.len(), 2);
    assert_eq!(desk.stored(&first.id).await.unwrap(), first);
    assert_eq!(desk.stored(id).await.unwrap(), second);
    let current = at(&desk, 1);
    assert_eq!(current.get(id).await.unwrap().record, second);
    current.make_primary(id).await.unwrap();
    current.revoke(id, None).await.unwrap();
    // Revoking increments the version, so the old precondition does not match a second time.
    let again = current.revoke(id, None).await.unwrap_err();
    assert!(matches!(again, ManageError::PreconditionFailed), "{again}");
    current.delete(&first.id).await.unwrap();
}

#[tokio::test]
async fn a_precondition_is_judged_on_the_version_that_is_changed() {
    for act in ["update", "revoke", "delete", "rotate", "primary"] {
        let desk = Desk::new();
        issue(&desk.host(), named("primary")).await;
        let (_, record) = issue(&desk.host(), named("key")).await;
        let (manager, id) = (desk.host(), record.id.clone());
        desk.store.once(APPLY, async move {
            manager.update(&id, rename("quicker"), None).await.unwrap();
        });
        let (manager, id) = (at(&desk, 1), &record.id);
        let refused = match act {
            "update" => manager.update(id, rename("slower"), None).await.err(),
            "revoke" => manager.revoke(id, None).await.err(),
            "delete" => manager.delete(id).await.err(),
            "rotate" => manager.rotate(id, None).await.err(),
            _ => manager.make_primary(id).await.err(),
        };
        assert!(
            matches!(refused, Some(ManageError::PreconditionFailed)),
            "{act}: {refused:?}"
        );
        let stored = desk.stored(id).await.unwrap();
        assert_eq!(
            (stored.name.as_str(), stored.version),
            ("quicker", 2),
            "{act}"
        );
        assert!(
            stored.revoked.is_none() && stored.successor.is_none(),
            "{act}"
        );
        assert_eq!(desk.all().await.len(), 2, "{act}");
    }
}
