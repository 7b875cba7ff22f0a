//! Lists in a key: duplicate elements.

use portunus::key::{Delegation, WorkspaceId};
use portunus::manage::{ImportedDigest, NewImport, NewKey};
use portunus::network::AllowList;
use portunus::{Scope, scope};

use crate::life::{Desk, change, field, issue, named};

fn workspaces(names: &[&str]) -> Vec<WorkspaceId> {
    let ids = names.iter().map(|name| WorkspaceId::new(name).unwrap());
    ids.collect()
}

fn scopes() -> Vec<Scope> {
    vec![scope!("b:read"), scope!("a:read"), scope!("b:read")]
}

fn each_twice() -> NewKey {
    let mut new = named("key").with_scopes(scopes());
    new.workspaces = Some(workspaces(&["ws2", "ws1", "ws2", "ws1", "WS2"]));
    new.allowed_ips = AllowList::parse([
        "192.0.2.9",
        "10.0.0.0/8",
        "192.0.2.9/32",
        "::ffff:192.0.2.9",
        "10.1.2.3/8",
        "::1",
    ])
    .ok();
    new.delegation = Some(Delegation::Only(scopes()));
    new
}

#[tokio::test]
async fn duplicates_are_stored_once_at_the_first_position() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, issued) = issue(&manager, each_twice()).await;
    let digest = ImportedDigest::new("sha256", &[7; 32]).unwrap();
    let import = NewImport::new(digest, each_twice());
    let imported = manager.import(import).await.unwrap().record;
    let (_, plain) = issue(&manager, named("plain")).await;
    let given = each_twice();
    let changed = change(|change| {
        change.scopes = Some(given.scopes);
        change.workspaces = Some(given.workspaces);
        change.allowed_ips = Some(given.allowed_ips);
        change.delegation = given.delegation;
    });
    let changed = manager.update(&plain.id, changed, None).await.unwrap();
    let once = vec![scope!("b:read"), scope!("a:read")];
    for record in [issued, imported, changed.record] {
        assert_eq!(record.scopes, once);
        let reached = Some(workspaces(&["ws2", "ws1", "WS2"]));
        assert_eq!(record.workspaces, reached);
        let networks = record.allowed_ips.as_ref().unwrap().entries().iter();
        let networks: Vec<_> = networks.map(ToString::to_string).collect();
        assert_eq!(networks, ["192.0.2.9", "10.0.0.0/8", "::1"]);
        assert_eq!(record.delegation, Delegation::Only(once.clone()));
    }
}

#[tokio::test]
async fn duplicates_count_once_towards_the_maximum() {
    let desk = Desk::new();
    let manager = desk.host();
    let ids: Vec<_> = (0..1001).map(|number| format!("ws{number}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    for (names, fits) in [
        ([&ids[..1000], &ids[..1000]].concat(), true),
        (ids.clone(), false),
    ] {
        let mut new = named("key");
        new.workspaces = Some(workspaces(&names));
        let issued = manager.issue(new).await;
        match fits {
            true => drop(issued.unwrap()),
            false => assert_eq!(field(issued), "workspaces"),
        }
    }
}

#[tokio::test]
async fn a_list_that_differs_only_in_duplicates_is_not_a_change() {
    let desk = Desk::new();
    let mut new = named("key");
    new.workspaces = Some(workspaces(&["ws1", "ws2"]));
    let (_, key) = issue(&desk.host(), new).await;
    let same = change(|change| {
        change.workspaces = Some(Some(workspaces(&["ws1", "ws2", "ws1"])));
    });
    let kept = desk.host().update(&key.id, same, None).await.unwrap();
    assert_eq!(kept.record.version, 1);
}
