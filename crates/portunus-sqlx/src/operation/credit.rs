//! Credits: the text of an account, which is replaced from one version to the next, and its ledger.

use async_trait::async_trait;
use portunus::credit::{
    CreditAccount, CreditId, CreditWrite, LedgerEntry, LedgerKind, StoredCredits,
};

use super::Operation;
use crate::fault::{Fault, Refusal};
use crate::share::Purpose;
use crate::sql;
use crate::value::{Row, Session, Value};
use crate::write_queue::Lane;

const ACCOUNTS: &str = "portunus_credits";
const ENTRIES: &str = "portunus_credit_entries";

/// Reads the text of an account. Does not wait for lists.
pub(crate) struct LoadCredits<'a>(pub(crate) &'a CreditAccount);

#[async_trait]
impl Operation for LoadCredits<'_> {
    type Answer = Option<StoredCredits>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let account = self.0.to_string();
        let row = session.first(sql::credit::LOAD, vec![account.as_str().into()]);
        let Some(row) = row.await? else {
            return Ok(None);
        };
        stored(&mut row.of(ACCOUNTS, &account)).map(Some)
    }
}

/// The next two columns of a row of an account.
fn stored(row: &mut Row) -> Result<StoredCredits, Fault> {
    Ok(StoredCredits {
        version: natural(row, "version")?,
        state: row.text("state")?,
    })
}

/// Replaces the text of an account if it has the expected version, and appends to its ledger. The
/// version is compared by the statement that writes the row, so that of concurrent writers one
/// succeeds.
pub(crate) struct SaveCredits<'a> {
    pub(crate) account: &'a CreditAccount,
    pub(crate) write: &'a CreditWrite,
}

#[async_trait]
impl Operation for SaveCredits<'_> {
    type Answer = bool;

    fn lane(&self) -> Lane {
        let tenant = match self.account {
            CreditAccount::Tenant(tenant) | CreditAccount::User(tenant, _) => Some(tenant),
            // The account of a key does not state the tenant.
            _ => None,
        };
        Lane {
            narrows: false,
            tenant: tenant.map(ToString::to_string),
        }
    }

    async fn run(&self, session: &mut dyn Session) -> Result<bool, Fault> {
        let CreditWrite {
            expected,
            state,
            entries,
            ..
        } = self.write;
        let account = Value::from(self.account.to_string());
        let (sql, mut values) = (
            sql::credit::ADD,
            vec![account.clone(), state.clone().into()],
        );
        let saved = if *expected == 0 {
            session.change(sql, values).await?
        } else {
            let expected = i64::try_from(*expected).map_err(|_| Refusal::OutOfRange("version"))?;
            values.push(expected.into());
            session.change(sql::credit::REPLACE, values).await?
        };
        if saved == 0 {
            return Ok(false);
        }
        if !entries.is_empty() {
            let entries = serde_json::to_string(entries).map_err(Refusal::EntriesJson)?;
            let append = session.dialect().append_entries;
            session
                .change(append, vec![account, entries.into()])
                .await?;
        }
        Ok(true)
    }
}

/// Reads a page of a ledger.
pub(crate) struct Ledger<'a> {
    pub(crate) account: &'a CreditAccount,
    pub(crate) after: u64,
    pub(crate) most: usize,
}

#[async_trait]
impl Operation for Ledger<'_> {
    type Answer = Vec<LedgerEntry>;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let account = self.account.to_string();
        let values = vec![
            account.as_str().into(),
            i64::try_from(self.after).unwrap_or(i64::MAX).into(),
            i64::try_from(self.most).unwrap_or(i64::MAX).into(),
        ];
        let rows = session.rows(sql::credit::ENTRIES, values).await?;
        rows.into_iter()
            .map(|row| entry(&mut row.of(ENTRIES, &account)))
            .collect()
    }
}

/// Reads accounts, in the order of their text forms.
pub(crate) struct Accounts<'a> {
    pub(crate) after: Option<&'a CreditAccount>,
    pub(crate) most: usize,
}

#[async_trait]
impl Operation for Accounts<'_> {
    type Answer = Vec<(CreditAccount, StoredCredits)>;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let after = self.after.map(ToString::to_string).unwrap_or_default();
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        let rows = session
            .rows(sql::credit::ACCOUNTS, vec![after.into(), most.into()])
            .await?;
        let account = |row: Row| {
            let mut row = row.of(ACCOUNTS, "?");
            let name = row.text("account")?;
            row.rename(ACCOUNTS, &name);
            let account = name.parse().map_err(|_| row.corrupt("account"))?;
            Ok((account, stored(&mut row)?))
        };
        rows.into_iter().map(account).collect()
    }
}

/// The maximum number of entries that one transaction deletes.
const MOST_FORGOTTEN: i64 = 500;

/// Deletes the oldest entries of a ledger, up to a number.
pub(crate) struct ForgetEntries<'a> {
    pub(crate) account: &'a CreditAccount,
    pub(crate) last: u64,
}

#[async_trait]
impl Operation for ForgetEntries<'_> {
    type Answer = u64;

    async fn run(&self, session: &mut dyn Session) -> Result<u64, Fault> {
        let values = vec![
            self.account.to_string().into(),
            i64::try_from(self.last).unwrap_or(i64::MAX).into(),
            MOST_FORGOTTEN.into(),
        ];
        session.change(sql::credit::FORGET, values).await
    }
}

fn entry(row: &mut Row) -> Result<LedgerEntry, Fault> {
    let number = natural(row, "number")?;
    let at_ms = natural(row, "at")?;
    let grant = row.text("grant_id")?;
    let grant = id(row, "grant_id", &grant)?;
    let kind = row.text("kind")?;
    let kind: LedgerKind = serde_json::from_value(kind.into()).map_err(|_| row.corrupt("kind"))?;
    let change = row.int("change")?;
    let taken = row.maybe_text("taken_id")?;
    let mut entry = LedgerEntry::new(number, at_ms, grant, kind, change);
    entry.taken = taken.map(|taken| id(row, "taken_id", &taken)).transpose()?;
    Ok(entry)
}

fn natural(row: &mut Row, column: &str) -> Result<u64, Fault> {
    let value = row.int(column)?;
    u64::try_from(value).map_err(|_| row.corrupt(column))
}

fn id(row: &Row, column: &str, text: &str) -> Result<CreditId, Fault> {
    CreditId::new(text).map_err(|_| row.corrupt(column))
}
