//! Keys in a host's existing table: a lookup over it is all that authentication needs.
//! `own_table KEY` prints the account in `accounts.db` to which a key belongs.
use portunus::store::{KeyLookup, StoreError, StoredKey};
use portunus::{Portunus, key::*, testing::TestRequest};
use sqlx::SqlitePool;
use std::{error::Error, sync::Arc, time::UNIX_EPOCH};

#[derive(Debug)]
pub(crate) struct Accounts(pub(crate) SqlitePool);

#[async_trait::async_trait]
impl KeyLookup for Accounts {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        let is_sha256 = |of: &&KeyDigest| of.scheme() == DigestScheme::Sha256;
        let digest = digests.iter().find(is_sha256);
        let sql = sqlx::query_as("SELECT name FROM accounts WHERE active AND sha256 = $1");
        let sql = sql.bind(digest.map(|of| of.to_bytes().to_vec()));
        let row: Result<Option<(String,)>, _> = sql.fetch_optional(&self.0).await;
        let read = |(name,): (String,)| -> Result<_, Box<dyn Error>> {
            let (id, live) = (name.parse()?, Environment::new("live")?);
            let owner = Owner::tenant(name.parse()?);
            let record = KeyRecord::new(id, name, KeyKind::App, live, owner, UNIX_EPOCH);
            Ok(StoredKey::new(*digest.ok_or("no digest")?, record).into())
        };
        let found = row.map_err(StoreError::unavailable)?.map(read).transpose();
        found.map_err(|error| StoreError::corrupt(error.to_string()))
    }
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the program's output")]
async fn main() -> Result<(), Box<dyn Error>> {
    let accounts = Accounts(SqlitePool::connect("sqlite:accounts.db").await?);
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let keys = Portunus::builder(format.build()?).lookup(accounts);
    let request = TestRequest::get("/").bearer(&std::env::args().nth(1).ok_or("own_table KEY")?);
    let outcome = keys.build()?.authenticator().authenticate(&request).await;
    println!("{outcome:?}");
    Ok(())
}
