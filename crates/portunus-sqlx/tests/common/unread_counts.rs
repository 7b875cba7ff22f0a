//! Counts that were changed behind the store's back, as seen by management.

use portunus::manage::{ManageError, NewKey};
use portunus::store::UsageDelta;
use portunus_test_support::Setup;

use super::*;

pub(crate) async fn unreadable_counts_prevent_neither_lists_nor_ending_a_key(home: &impl Home) {
    let store = home.open().await;
    let manager = portunus_test_support::Setup::on(store.clone())
        .bearer([portunus_test_support::format()])
        .manager();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let new = NewKey::new("a key", Owner::tenant(tenant("acme")));
        ids.push(manager.issue(new).await.unwrap().record.id.clone());
    }
    let used = ids
        .iter()
        .map(|id| UsageDelta::new(id.clone(), 3, at(7_200), None));
    store.record_usage(&used.collect::<Vec<_>>()).await.unwrap();
    home.execute(format!(
        "UPDATE portunus_usage SET last_ip = 'nonsense' WHERE key_id = '{}'",
        ids[1]
    ))
    .await;

    let page = manager.list(ListQuery::new(manager.now())).await.unwrap();
    let mut listed: Vec<_> = page
        .items
        .iter()
        .map(|key| (&key.record.id, key.usage.count))
        .collect();
    listed.sort();
    let mut whole = [(&ids[0], 3), (&ids[2], 3)];
    whole.sort();
    assert_eq!(listed, whole);
    let [row] = &page.corrupt[..] else {
        panic!("{:?}", page.corrupt);
    };
    assert!(
        row.contains(ids[1].as_str()) && row.ends_with("column last_ip"),
        "{row}"
    );
    let error = manager.get(&ids[1]).await.unwrap_err();
    assert!(matches!(error, ManageError::Store(error) if error.is_corrupt()));

    let revoked = manager.revoke(&ids[1], None).await.unwrap();
    assert!(revoked.record.revoked.is_some());
    manager.delete(&ids[1]).await.unwrap();
    assert!(matches!(
        manager.get(&ids[1]).await,
        Err(ManageError::NotFound(_))
    ));
}
