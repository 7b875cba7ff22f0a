//! The example of a lookup over a host's own table.

use portunus::key::{Alphabet, DigestScheme, KeyDigest, KeyFormat, KeyHasher, KeyId};
use portunus::testing::TestRequest;
use portunus::{ErrorCode, KeyLookup, Portunus};
use sqlx::SqlitePool;

#[allow(dead_code, reason = "its program is the example's")]
#[path = "../../examples/own_table.rs"]
mod example;

#[tokio::test]
async fn a_lookup_over_the_hosts_own_table_authenticates() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("sqlite:{}/accounts.db?mode=rwc", folder.path().display());
    let pool = SqlitePool::connect(&address).await.unwrap();
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let format = format.build().unwrap();
    let key = format.generate(None, None).unwrap().reveal();
    let digest = KeyHasher::sha256().digest(&key);
    sqlx::query("CREATE TABLE accounts AS SELECT 'globex' AS name, TRUE AS active, $1 AS sha256")
        .bind(digest.to_bytes().to_vec())
        .execute(&pool)
        .await
        .unwrap();
    let accounts = example::Accounts(pool.clone());

    // Complete digests, under the table's scheme.
    let peppered = KeyDigest::new(DigestScheme::HmacSha256 { pepper: 1 }, digest.to_bytes());
    assert!(accounts.find(&[peppered]).await.unwrap().is_none());
    assert!(accounts.find(&[]).await.unwrap().is_none());
    let found = accounts.find(&[peppered, digest]).await.unwrap().unwrap();
    assert_eq!(*found.digest(), digest);

    let request = TestRequest::get("/").bearer(&key);
    let stranger = format.generate(None, None).unwrap().reveal();
    let another = format.generate(None, None).unwrap().reveal();
    let keys = Portunus::builder(format).lookup(accounts).build().unwrap();
    let id = |name: &str| KeyId::new(name).unwrap();
    let refused = async |request: &TestRequest| {
        let admitted = keys.authenticator().authenticate(request).await;
        admitted.err().map(|error| error.code())
    };
    assert_eq!(refused(&request).await, None);
    let unknown = TestRequest::get("/").bearer(&stranger);
    assert_eq!(refused(&unknown).await, Some(ErrorCode::InvalidKey));

    let change = async |sql| sqlx::query(sql).execute(&pool).await.unwrap();
    change("UPDATE accounts SET name = 'no tenant'").await;
    assert_eq!(refused(&request).await, None, "cached for a moment");
    keys.forget(&id("globex"));
    let unavailable = Some(ErrorCode::StoreUnavailable);
    assert_eq!(refused(&request).await, unavailable, "unreadable");
    change("UPDATE accounts SET name = 'globex', active = FALSE").await;
    assert_eq!(refused(&request).await, Some(ErrorCode::InvalidKey));
    // Keys cannot be managed there, and the error says why.
    let error = keys.manager().get(&id("globex")).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("only looks up keys"),
        "{error:?}"
    );
    change("DROP TABLE accounts").await;
    let unknown = TestRequest::get("/").bearer(&another);
    assert_eq!(refused(&unknown).await, unavailable);
}
