//! The checks of a credit store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use crate::report::{Checked, Failure, valid};
use portunus::credit::{
    CreditAccount, CreditAccounts, CreditError, CreditStore, CreditWrite, LedgerEntry, LedgerKind,
    NewGrant,
};
use portunus::key::{KeyFamily, TenantId, UserId};

/// A store without accounts.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) store: Arc<dyn CreditStore>,
}

checks!(CHECKS: Tried {
    "an account that was never saved has no row and no entries"
        => unknown,
    "a saved row is loaded with its version and its text, byte for byte"
        => round_trip depends on [unknown],
    "a row is replaced only from its own version, and a refused save changes nothing"
        => versions depends on [round_trip],
    "accounts are separate, however similar their ids are"
        => separate depends on [round_trip],
    "entries are kept as they are, and read in pages in ascending order"
        => pages depends on [round_trip],
    "of concurrent saves from one version, exactly one is done, with its entries"
        => one_wins depends on [versions, pages],
    "tasks that change an account at once never spend more than was granted, and lose nothing"
        => spending depends on [one_wins],
    "of concurrent settlements of a reservation, the first wins and the others change nothing"
        => settlements depends on [one_wins],
    "a store that lists its accounts lists each once, in pages of any size"
        => listed depends on [separate],
    "a store that deletes entries deletes the oldest ones up to a number, some at a time, and no others"
        => forgotten depends on [pages],
    "an account whose old entries are deleted shows the same balance, and goes on"
        => carried depends on [forgotten, one_wins],
});

fn tenant(name: &str) -> CreditAccount {
    CreditAccount::Tenant(valid(TenantId::new(name)))
}

/// Returns entries of a ledger, as the library would write them.
fn entries(numbers: std::ops::RangeInclusive<u64>) -> Vec<LedgerEntry> {
    let entry = |number: u64| {
        // The largest values that the library writes.
        let change = if number.is_multiple_of(2) {
            (1_i64 << 53) - 1
        } else {
            1 - (1 << 53)
        };
        let (at, grant) = (1_800_000_000_000 + number, valid("grant_1".parse()));
        let mut entry = LedgerEntry::new(number, at, grant, LedgerKind::Taken, change);
        entry.taken = number.is_multiple_of(3).then(|| valid("block_1".parse()));
        entry
    };
    numbers.map(entry).collect()
}

impl Tried {
    async fn save(
        &self,
        account: &CreditAccount,
        expected: u64,
        state: &str,
        entries: Vec<LedgerEntry>,
    ) -> Result<bool, Failure> {
        let write = CreditWrite::new(expected, state.to_owned(), entries);
        Ok(self.store.save(account, &write).await?)
    }

    /// Returns the version and the text of an account.
    async fn row(&self, account: &CreditAccount) -> Result<Option<(u64, String)>, Failure> {
        let stored = self.store.load(account).await?;
        Ok(stored.map(|stored| (stored.version, stored.state)))
    }

    async fn numbers(&self, account: &CreditAccount) -> Result<Vec<u64>, Failure> {
        let entries = self.store.ledger(account, 0, 1000).await?;
        Ok(entries.iter().map(|entry| entry.number).collect())
    }
}

async fn unknown(tried: Tried) -> Checked {
    let account = tenant("nobody");
    ensure_eq!(tried.row(&account).await?, None, "the row");
    ensure_eq!(
        tried.numbers(&account).await?,
        Vec::<u64>::new(),
        "the entries"
    );
    Ok(())
}

async fn round_trip(tried: Tried) -> Checked {
    let account = tenant("acme");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(200_000));
    let texts = [
        "{}",
        "{\"a\":\"\\u0000 'ä\u{1f511}\\\\ \\\" %_;--\"}",
        &long,
        " {} ",
    ];
    for (version, text) in (0..).zip(texts) {
        ensure!(
            tried.save(&account, version, text, vec![]).await?,
            "save {version} was refused"
        );
        let row = tried.row(&account).await?;
        ensure_eq!(
            row,
            Some((version + 1, text.to_owned())),
            "the row after save {version}"
        );
    }
    Ok(())
}

async fn versions(tried: Tried) -> Checked {
    let (account, other) = (tenant("acme"), tenant("other"));
    ensure!(
        tried.save(&account, 0, "{\"n\":1}", entries(1..=1)).await?,
        "the first save"
    );
    ensure!(
        tried.save(&account, 1, "{\"n\":2}", entries(2..=2)).await?,
        "the second save"
    );
    for (of, expected) in [(&account, 0), (&account, 1), (&account, 3), (&other, 1)] {
        let saved = tried
            .save(of, expected, "{\"n\":9}", entries(3..=3))
            .await?;
        ensure!(!saved, "a save of {of} from version {expected} was done");
    }
    ensure_eq!(
        tried.row(&account).await?,
        Some((2, "{\"n\":2}".to_owned())),
        "the row"
    );
    ensure_eq!(tried.numbers(&account).await?, vec![1, 2], "the entries");
    ensure_eq!(
        tried.row(&other).await?,
        None,
        "the row of an account without a save"
    );
    ensure_eq!(
        tried.numbers(&other).await?,
        Vec::<u64>::new(),
        "its entries"
    );
    Ok(())
}

async fn separate(tried: Tried) -> Checked {
    let user = |of: &str, user: &str| {
        CreditAccount::User(valid(TenantId::new(of)), valid(UserId::new(user)))
    };
    let accounts = [
        tenant("a:b"),
        tenant("A:b"),
        tenant("a%"),
        tenant("a_"),
        tenant("a:b:c"),
        tenant("1:a"),
        user("a", "b:c"),
        user("a:b", "c"),
        CreditAccount::Key(valid(KeyFamily::new("a:b"))),
    ];
    for (at, account) in accounts.iter().enumerate() {
        let last = at as u64 + 1;
        let saved = tried
            .save(account, 0, &at.to_string(), entries(1..=last))
            .await?;
        ensure!(saved, "{account} had been saved already");
    }
    for (at, account) in accounts.iter().enumerate() {
        ensure_eq!(
            tried.row(account).await?,
            Some((1, at.to_string())),
            "the row of {account}"
        );
        let count = tried.numbers(account).await?.len();
        ensure_eq!(count, at + 1, "the number of entries of {account}");
    }
    Ok(())
}

async fn pages(tried: Tried) -> Checked {
    let account = tenant("acme");
    let all = entries(1..=25);
    for version in 0..5_u64 {
        let at = usize::try_from(version).unwrap_or_default() * 5;
        let saved = tried
            .save(&account, version, "{}", all[at..at + 5].to_vec())
            .await?;
        ensure!(saved, "save {version} was refused");
    }
    for (after, most) in [
        (0, 1000),
        (0, 10),
        (10, 10),
        (20, 10),
        (25, 10),
        (24, 1),
        (3, 0),
    ] {
        let page = tried.store.ledger(&account, after, most).await?;
        let from = usize::try_from(after).unwrap_or_default();
        let expected = &all[from..all.len().min(from + most)];
        ensure_eq!(page, expected, "the {most} entries after {after}");
    }
    Ok(())
}

async fn one_wins(tried: Tried) -> Checked {
    let account = tenant("acme");
    for version in 0..10_u64 {
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (tried, account) = (tried.clone(), account.clone());
            let number = version + 1;
            tasks.spawn(async move {
                let state = format!("{{\"task\":{task}}}");
                let saved = tried.save(&account, version, &state, entries(number..=number));
                Ok::<_, Failure>(saved.await?.then_some(state))
            });
        }
        let mut winners = Vec::new();
        while let Some(done) = tasks.join_next().await {
            winners.extend(done??);
        }
        ensure_eq!(
            winners.len(),
            1,
            "the saves from version {version} that were done"
        );
        let row = tried.row(&account).await?;
        ensure_eq!(
            row,
            Some((version + 1, winners.remove(0))),
            "the row after version {version}"
        );
    }
    ensure_eq!(
        tried.numbers(&account).await?,
        (1..=10).collect::<Vec<_>>(),
        "the entries"
    );
    Ok(())
}

async fn spending(tried: Tried) -> Checked {
    const GRANTED: u64 = 30;
    let account = tenant("acme");
    let accounts = CreditAccounts::new(Arc::clone(&tried.store));
    accounts.grant(&account, NewGrant::new(GRANTED)).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let (accounts, account) = (accounts.clone(), account.clone());
        tasks.spawn(async move {
            let (mut used, length) = (0, Duration::from_secs(600));
            loop {
                match accounts.reserve(&account, 2, length).await {
                    Ok(reserved) => {
                        reserved.settle(1).await?;
                        used += 1;
                    }
                    Err(CreditError::Exhausted) => return Ok::<u64, Failure>(used),
                    Err(error) => return Err(error.into()),
                }
            }
        });
    }
    let mut used = 0;
    while let Some(done) = tasks.join_next().await {
        used += done??;
    }
    let left = accounts.balance(&account).await?.available;
    ensure_eq!(
        used + left,
        GRANTED,
        "{used} units used and {left} left, of those granted"
    );
    let entries = accounts.ledger(&account, 0, 1000).await?;
    let sum: i64 = entries.iter().map(|entry| entry.change).sum();
    ensure_eq!(
        sum,
        i64::try_from(left).unwrap_or(-1),
        "the sum of the ledger"
    );
    Ok(())
}

async fn settlements(tried: Tried) -> Checked {
    let account = tenant("acme");
    let accounts = CreditAccounts::new(Arc::clone(&tried.store));
    accounts.grant(&account, NewGrant::new(100)).await?;
    let length = Duration::from_secs(600);
    let reserved = accounts.reserve(&account, 10, length).await?.into_id();
    let mut tasks = JoinSet::new();
    for used in 0..8_u64 {
        let (accounts, account, reserved) = (accounts.clone(), account.clone(), reserved.clone());
        tasks.spawn(async move {
            match accounts.settle(&account, &reserved, used).await {
                Ok(_) => Ok(Some(used)),
                Err(CreditError::NotFound(_)) => Ok(None),
                Err(error) => Err(Failure::from(error)),
            }
        });
    }
    let mut settled = Vec::new();
    while let Some(done) = tasks.join_next().await {
        settled.extend(done??);
    }
    ensure_eq!(settled.len(), 1, "the settlements that were done");
    let left = accounts.balance(&account).await?.available;
    ensure_eq!(
        left,
        100 - settled[0],
        "the units left after {} were used",
        settled[0]
    );
    Ok(())
}

async fn listed(tried: Tried) -> Checked {
    let user = |of: &str| CreditAccount::User(valid(TenantId::new(of)), valid(UserId::new("u")));
    let mut accounts = vec![
        tenant("b"),
        tenant("B"),
        tenant("a_"),
        tenant("a-"),
        user("a"),
        user("B"),
        CreditAccount::Key(valid(KeyFamily::new("a"))),
    ];
    accounts.extend((0..20).map(|number| tenant(&format!("t{}", number * 7 % 20))));
    for account in &accounts {
        let saved = tried.save(account, 0, &account.to_string(), vec![]).await?;
        ensure!(saved, "{account} had been saved already");
    }
    accounts.sort_by_key(ToString::to_string);
    for most in [1, 4, accounts.len(), 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = match tried.store.accounts(after.as_ref(), most).await {
                // It need not.
                Err(CreditError::Conflict(_)) => return Ok(()),
                page => page?,
            };
            let length = page.len();
            ensure!(length <= most, "{length} accounts in a page of {most}");
            for (account, stored) in page {
                let expected = (1, account.to_string());
                ensure_eq!(
                    (stored.version, stored.state),
                    expected,
                    "the row of {account}"
                );
                ensure!(seen.len() < accounts.len(), "more accounts than were saved");
                seen.push(account);
            }
            if length < most {
                break;
            }
            after = seen.last().cloned();
        }
        seen.sort_by_key(ToString::to_string);
        ensure_eq!(seen, accounts, "the accounts in pages of {most}");
    }
    Ok(())
}

async fn forgotten(tried: Tried) -> Checked {
    let (account, other) = (tenant("acme"), tenant("acme2"));
    ensure!(
        tried.save(&account, 0, "{}", entries(1..=700)).await?,
        "the first save"
    );
    ensure!(
        tried.save(&account, 1, "{}", entries(701..=1300)).await?,
        "the second save"
    );
    ensure!(
        tried.save(&other, 0, "{}", entries(1..=3)).await?,
        "a save of another account"
    );
    let mut deleted = 0;
    loop {
        let some = match tried.store.forget_entries(&account, 1250).await {
            Err(CreditError::Conflict(_)) => return Ok(()),
            some => some?,
        };
        ensure!(some <= 500, "{some} entries were deleted by one call");
        let left = tried.store.ledger(&account, 0, 1).await?;
        deleted += some;
        ensure_eq!(
            left.first().map(|entry| entry.number),
            Some(deleted + 1),
            "the oldest entry"
        );
        if some == 0 {
            break;
        }
    }
    ensure_eq!(deleted, 1250, "the number of deleted entries");
    ensure_eq!(
        tried.store.ledger(&account, 0, 100).await?,
        entries(1251..=1300),
        "the entries that are left"
    );
    ensure_eq!(
        tried.numbers(&other).await?,
        vec![1, 2, 3],
        "another account's entries"
    );
    ensure_eq!(
        tried.row(&account).await?,
        Some((2, "{}".to_owned())),
        "the row"
    );
    let nobody = tried.store.forget_entries(&tenant("nobody"), 9).await?;
    ensure_eq!(nobody, 0, "the deleted entries of an account without any");
    ensure!(
        tried.save(&account, 2, "{}", entries(1301..=1301)).await?,
        "a later save"
    );
    Ok(())
}

async fn carried(tried: Tried) -> Checked {
    let account = tenant("acme");
    let accounts = CreditAccounts::new(Arc::clone(&tried.store));
    accounts.grant(&account, NewGrant::new(10_000)).await?;
    let spend = async |times: u32| {
        for _ in 0..times {
            let reserved = accounts
                .reserve(&account, 5, Duration::from_secs(60))
                .await?;
            reserved.settle(2).await?;
        }
        Ok::<_, CreditError>(())
    };
    spend(260).await?;
    let later = SystemTime::now() + Duration::from_secs(3600);
    match accounts.forget_entries_before(&account, later).await {
        Err(CreditError::Conflict(_)) => return Ok(()),
        deleted => ensure_eq!(deleted?, 521, "the deleted entries"),
    }
    ensure_eq!(
        tried.numbers(&account).await?,
        Vec::<u64>::new(),
        "the entries"
    );
    spend(5).await?;
    let balance = accounts.balance(&account).await?;
    ensure_eq!(
        (balance.available, balance.forgotten),
        (9470, 521),
        "the balance"
    );
    let sum: i64 = accounts
        .ledger(&account, 0, 100)
        .await?
        .iter()
        .map(|one| one.change)
        .sum();
    let carried = balance.grants.first().map(|grant| grant.carried_forward);
    ensure_eq!(
        (carried, sum),
        (Some(9480), -10),
        "what explains the balance"
    );
    Ok(())
}
