//! Sell credits: units that requests cost (feature `axum`).
//!
//! An *account* (of a tenant, a user or a key) has *grants* side by side: a monthly allowance, a
//! top-up, a gift. Requests spend them in the order of their priority, then of their expiry.
//!
//! # A first program
//! A tenant has an allowance of 5 units a month and buys 3 more. A report costs 4 units; the cost of
//! an export is known only when it is done.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::body::Body;
//! use axum::http::Request;
//! use portunus::adapter::axum::get;
//! use portunus::credit::{CreditAccount, Credits, MemoryCreditStore, NewGrant, Period};
//! use portunus::key::{Alphabet, KeyFormat, Owner, TenantId};
//! use portunus::manage::NewKey;
//! use portunus::store::MemoryStore;
//! use portunus::Portunus;
//! use tower::ServiceExt; // for `oneshot`
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // In production: the store of the keys, if it is one of portunus-sqlx.
//!     let credits = Credits::per_tenant(MemoryCreditStore::new())
//!         .cost(|request| match request.path() {
//!             "/report" => 4,
//!             "/export" => 0, // reserved by the handler
//!             _ => 1,
//!         })
//!         .block(2.try_into()?); // a node takes two units at once; 100 by default
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let keys = Portunus::builder(format).store(MemoryStore::new()).credits(credits).build()?;
//!     let tenant: TenantId = "tenant-1".parse()?;
//!     let new = NewKey::new("first key", Owner::tenant(tenant.clone()));
//!     let key = keys.manager().issue(new).await?.key.reveal();
//!
//!     // When the tenant subscribes, and when it pays an invoice. With the invoice as the id, a
//!     // payment that is reported twice is granted once.
//!     let account = CreditAccount::Tenant(tenant);
//!     let allowance = NewGrant::new(5).refilled(Period::monthly().in_zone("Europe/Paris")?);
//!     keys.manager().grant_credits(&account, allowance).await?;
//!     let top_up = NewGrant::new(3).with_priority(1).with_id("invoice-7".parse()?);
//!     keys.manager().grant_credits(&account, top_up).await?;
//!
//!     let report = get(|| async { "a report" }).any_key();
//!     let app: Router = keys.router().route("/report", report).into_router();
//!     let ask = || {
//!         let request = Request::get("/report").header("authorization", format!("Bearer {key}"));
//!         app.clone().oneshot(request.body(Body::empty()).unwrap())
//!     };
//!     let paid = ask().await?;
//!     assert_eq!(paid.status(), 200);
//!     assert!(paid.headers()["ratelimit-policy"].to_str()?.ends_with("\"credits\";q=8"));
//!     assert!(ask().await?.headers()["ratelimit"].to_str()?.contains("\"credits\";r=0;t="));
//!     let refused = ask().await?;
//!     assert_eq!(refused.status(), 429); // CREDITS_EXHAUSTED
//!     assert!(refused.headers().contains_key("retry-after")); // the next month refills
//!
//!     // A gift; and an export that reserves at most 10 units and uses 6.
//!     keys.manager().grant_credits(&account, NewGrant::new(10)).await?;
//!     let accounts = keys.credits().ok_or("credits are set")?;
//!     let reserved = accounts.reserve(&account, 10, Duration::from_secs(60)).await?;
//!     reserved.settle(6).await?; // without it, a dropped reservation is released
//!     assert_eq!(keys.manager().credits(&account).await?.available, 4);
//!
//!     // The ledger explains the balance.
//!     let ledger = keys.manager().credit_ledger(&account, 0, 100).await?;
//!     assert_eq!(ledger.iter().map(|entry| entry.change).sum::<i64>(), 4);
//!     Ok(())
//! }
//! ```
//!
//! # Where accounts are kept
//! `SqliteStore` and `PostgresStore` of `portunus-sqlx` are also a
//! [`CreditStore`](crate::credit::CreditStore): `.credits(Credits::per_tenant(store.clone()))` keeps the
//! accounts in the database of the keys. For another database, implement the trait, of which three
//! methods are required, and run the suite of `portunus-conformance`.
//!
//! Ledgers are kept forever unless [`keep_entries`](crate::credit::Credits::keep_entries) sets an age. A
//! periodic job then deletes older entries and adds them to the sums of their grants
//! ([`carried_forward`](crate::credit::GrantBalance::carried_forward)), so that the later entries still
//! explain what is left. Export what your bookkeeping must keep before it is as old.
//!
//! # What is promised
//! - **Spending never exceeds what was granted,** under any interleaving of nodes and requests. A node
//!   takes units from the store before it spends them, in *blocks*, so a request waits for the store
//!   only when a block is used up.
//! - **A crash loses at most one block of each account.** What the node had taken and not reported
//!   counts as used until the period ends. Use is reported at least once a second. An operator may
//!   give the rest back ([`give_back_credits`](crate::manage::KeyManager::give_back_credits)), two
//!   minutes after the node's last report. Smaller blocks lose less and ask the store more often.
//! - **A clean stop loses nothing:** [`run`](crate::Portunus) gives back what is left when its
//!   `shutdown` completes.
//! - **While the store does not answer,** a node spends the block it has, for at most a minute, and
//!   then refuses with 503 `STORE_UNAVAILABLE`.
//!
//! # For operators
//! The management API of `portunus-admin` has an account's balance and ledger at `/credits/{id}`, and
//! grants, voids and gives back; the id is the text form of the account, such as `tenant:acme`. By
//! default an operator of a tenant reads its accounts, and only the service itself changes them; see
//! [`OperatorPolicy::allows_credits`](crate::manage::OperatorPolicy::allows_credits). When 80 % of an
//! account are used, the audit gets an event, of which a webhook can tell the customer
//! ([notices](crate::guide::notices)).
//!
//! # Pitfalls
//! - **Run the periodic jobs** ([`maintain`](crate::Portunus::maintain) or `run`). Without them, use is
//!   not reported, and a block ends after a minute.
//! - **Nodes need synchronized clocks.** A node whose clock is late spends a period's units that much
//!   after its end.
//! - **A block on one node is not available to others.** With small balances, choose small blocks: a
//!   node can refuse while another one still has units. A block that nobody uses is given back after
//!   30 seconds.
//! - **A request that a route refuses costs nothing,** although it has been counted by the rate limits.
//!   A request whose handler fails has been paid. Without an adapter, a host that checks requirements
//!   itself pays for those that it refuses.
//! - **A client that disconnects** ends its handler, and so releases its reservation, unless it was
//!   being settled. Do work that must be paid in a separate task.
//! - **Keys of a tenant's operators do not grant credits.** By default only the service itself does; see
//!   [`OperatorPolicy::allows_credits`](crate::manage::OperatorPolicy::allows_credits).
//!
//! # What an asynchronous failover can lose
//! Where the database replicates asynchronously, a standby server that is promoted lacks the last
//! writes of the old primary, although they were confirmed. The same holds for a database that was
//! restored from a backup. What follows depends on what is lost:
//!
//! - **A node took a block:** its units are spent twice, by that node until its next report, and by
//!   the next one to take them.
//! - **A node ended a block:** the block is shown as taken, and counts as used. An operator who gives
//!   it back gives back what was used.
//! - **A node reported use:** nothing, unless that node crashes. Then the same holds.
//! - **A reservation:** its settlement fails with [`NotFound`](crate::credit::CreditError::NotFound),
//!   and others can take its units.
//! - **A settlement:** the reservation is open again, and is released at its end.
//! - **A grant:** it must be made again, which is safe with an
//!   [id](crate::credit::NewGrant::with_id).
//! - **A void:** the grant can be spent until it is voided again.
//! - **A refill:** nothing. It is computed from the calendar.
//!
//! So the excess is at most one block of each account on each node, and what was reserved or settled in
//! the time that is lost. A change that began before the failover and ended after it can also replace
//! one that the new primary has confirmed meanwhile: the entries of the ledger then do not add up. If
//! this is not acceptable, replicate synchronously: then nothing is lost that was confirmed.
