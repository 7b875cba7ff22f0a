//! Implement your own [`KeyLookup`](crate::KeyLookup) or [`KeyStore`](crate::KeyStore).
//!
//! A service that only authenticates needs a lookup: one method, over an existing table.
//! `crates/portunus-sqlx/examples/own_table.rs` is such a program in 40 lines.
//!
//! To manage keys too, a store keeps records and digests; it never sees a secret. It does not need
//! to know what issuing, rotating or revoking means: each of them is one batch of conditional
//! changes, which the store applies as a whole or not at all.
//!
//! # A first program
//! `examples/own_store.rs` is a complete store in one JSON file, including usage counts and signing
//! states, and a program that uses it. It is compiled and run here:
//!
//! <details><summary>The program, 200 lines</summary>
//!
//! ```
#![doc = include_str!("../../examples/own_store.rs")]
//! ```
//! </details>
//!
//! # What to implement
//! | trait | method | what it does | common mistakes |
//! |---|---|---|---|
//! | [`KeyLookup`] | [`find`] | finds the key with one of these digests, in one round trip | ignoring the digest's scheme; reading from a lagging replica |
//! | [`KeyStore`] | [`get`] | returns one record | returning deleted keys; waiting for lists |
//! | | [`list`] | returns a page, newest first, then by the bytes of ids | see below |
//! | | [`primaries`] | returns the owners' primary keys at an instant | returning a key that has ended |
//! | | [`apply`] | applies one batch, atomic and isolated | see below |
//! | [`UsageStore`] | [`record_usage`] | adds counts | keeping part of a failed batch, which is sent again |
//! | | [`usage_of`], [`usage_by_hour`] | return totals and hourly counts | returning hours of deleted keys |
//! | | [`forget_usage_before`] | deletes old hours | losing the totals |
//! | [`SigningStore`] | [`signing_state`] | returns a key's signing state, a secret | showing it in `Debug` |
//!
//! The last two traits are for stores that count usage and sign events;
//! [`KeyStore::usage`](crate::KeyStore::usage) and [`KeyStore::signing`](crate::KeyStore::signing)
//! return their implementations. Some methods have defaults: override [`find_now`] for a store in
//! memory, [`bus`] for a store that reports changes of other nodes, [`primary`] for a store whose
//! rows can be corrupt. Each trait's documentation lists what an implementation promises.
//!
//! [`KeyLookup`]: crate::KeyLookup#what-an-implementation-promises
//! [`KeyStore`]: crate::KeyStore#what-an-implementation-promises
//! [`UsageStore`]: crate::store::UsageStore#what-an-implementation-promises
//! [`SigningStore`]: crate::events::SigningStore#what-an-implementation-promises
//! [`find`]: crate::KeyLookup::find
//! [`find_now`]: crate::KeyLookup::find_now
//! [`bus`]: crate::KeyLookup::bus
//! [`get`]: crate::KeyStore::get
//! [`list`]: crate::KeyStore::list
//! [`primaries`]: crate::KeyStore::primaries
//! [`primary`]: crate::KeyStore::primary
//! [`apply`]: crate::KeyStore::apply
//! [`record_usage`]: crate::store::UsageStore::record_usage
//! [`usage_of`]: crate::store::UsageStore::usage_of
//! [`usage_by_hour`]: crate::store::UsageStore::usage_by_hour
//! [`forget_usage_before`]: crate::store::UsageStore::forget_usage_before
//! [`signing_state`]: crate::events::SigningStore::signing_state
//!
//! # Stores with row access
//! A store that can read and change its rows in one transaction implements the six small methods of
//! [`KeyRows`](crate::store::KeyRows), and gets `find`, `list`, `primaries`, `apply` and the usage
//! counts from them. [`KeyRow`](crate::store::KeyRow) holds everything about one key and can be
//! serialized with `serde`. The rest of this guide is for stores that leave this to their database.
//!
//! One secret may have several keys, under several digests. End `find` with
//! [`StoredKey::of_one_secret`](crate::store::StoredKey::of_one_secret), which decides which of
//! them counts and names the others ([`others`](crate::store::StoredKey::others)). A cache needs
//! these names, because revoking one of the others also ends the secret.
//!
//! These helpers implement the parts that are easy to get wrong:
//! [`KeyRecord::to_json`](crate::key::KeyRecord::to_json) and
//! [`from_json`](crate::key::KeyRecord::from_json),
//! [`ListQuery::selects`](crate::store::ListQuery::selects) and
//! [`page`](crate::store::ListQuery::page),
//! [`OwnerRef::includes`](crate::store::OwnerRef::includes),
//! [`KeyRecord::counts_as_active`](crate::key::KeyRecord::counts_as_active),
//! [`Condition::check_active`](crate::store::Condition::check_active),
//! [`KeyRecord::can_be_primary`](crate::key::KeyRecord::can_be_primary),
//! [`KeyRecord::is_of_the_same_owner`](crate::key::KeyRecord::is_of_the_same_owner),
//! [`Usage::add`](crate::store::Usage::add) and
//! [`UsageByHour::add`](crate::store::UsageByHour::add).
//!
//! # A page, step by step
//! 1. Treat a limit of 0 as 1, and one above 500 as 500.
//! 2. Start after [`ListQuery::after`](crate::store::ListQuery::after). It is a position in the
//!    order, not an offset: keys are added and deleted between pages.
//! 3. Scan at most [`ListQuery::most_scanned`](crate::store::ListQuery::most_scanned) records, so
//!    that no filter makes a page slow. Such a page may be short, even empty, but has a `next`.
//! 4. Omit a row that cannot be read, and name it in
//!    [`Page::corrupt`](crate::store::Page::corrupt). In the list of one tenant, name it only if it
//!    is known to belong to that tenant, whose operators see the name.
//! 5. Return where the next page starts, with the precision of the stored times, or nothing if no
//!    key follows.
//!
//! # A batch, step by step
//! In one transaction that is isolated from all others (in SQL: `SERIALIZABLE`, or locks on
//! everything that the conditions read):
//!
//! 1. Check [`Condition::Version`](crate::store::Condition::Version) and
//!    [`Condition::Primary`](crate::store::Condition::Primary) against the stored state.
//! 2. Apply the changes in order; each sees the effect of those before it.
//! 3. Check [`Condition::ActiveKeysAtMost`](crate::store::Condition::ActiveKeysAtMost) and
//!    [`Condition::ActiveFamiliesAtMost`](crate::store::Condition::ActiveFamiliesAtMost) against the
//!    new state.
//! 4. Commit, and return only once every later read sees the changes.
//!
//! On failure, return [`StoreError::rejected`](crate::store::StoreError::rejected) with the
//! condition or change that failed, and leave everything unchanged.
//!
//! # Running the conformance suite
//! Add the crate `portunus-conformance` to your `dev-dependencies`. The suite tests each promise on
//! a fresh store:
//!
//! ```
//! use portunus::store::MemoryStore;
//!
//! // In a test: #[tokio::test(flavor = "multi_thread")], so that races can happen.
//! #[tokio::main(flavor = "multi_thread")]
//! async fn main() -> Result<(), portunus_conformance::Violations> {
//!     // Instead of `MemoryStore::new()`: a fresh database, file or schema each time.
//!     portunus_conformance::key_store(|| async { MemoryStore::new() }).await
//! }
//! ```
//!
//! Each check is printed when it ends (`cargo test -- --nocapture` always shows it). A failure is
//! reported with the violated promise and what was observed, and each root cause is reported once:
//! a check that depends on a failed one is not evaluated. The suite ends within 5 minutes, even if
//! every call hangs. `key_lookup` tests a lookup alone; `usage_store` and `signing_store` test the
//! additional traits. The documentation of `portunus_conformance::key_store` lists what no suite
//! can test from outside, which is left to your own tests.
//!
//! # Pitfalls
//! - **Never report invalid data as "no such key".** For an expiry that cannot be parsed, an
//!   unknown scheme, or a record without its restrictions, return
//!   [`StoreError::corrupt`](crate::store::StoreError::corrupt), which refuses with 503. A column
//!   that defaults to "no restriction" is a security hole.
//! - **Never forget a digest.** A deleted or rehashed key must not come back by an import. Keep ids
//!   and digests in an append-only table.
//! - **`Debug` of the store** is part of the debug output of authenticators and managers. Show the
//!   location, not the content.
//! - **New conditions and changes may be added.** Both enums are `#[non_exhaustive]`: a store must
//!   reject what it does not know, and never skip it.
//! - **Time and order.** The manager uses whole milliseconds; a column of whole seconds loses the
//!   order of pages. Compare ids by their bytes (in SQL: `COLLATE "C"`, `BINARY`).
//! - **Each lookup is a round trip,** except for the cache that
//!   [`Portunus::builder`](crate::Portunus::builder) puts in front of a store that must be awaited.
//!   With it, keys in use need no lookup, but an answer is used for at most two seconds unless
//!   [`bus`](crate::KeyLookup::bus) reports changes. A store that keeps its records in memory
//!   should implement [`find_now`](crate::KeyLookup::find_now) instead, answer even if no digest is
//!   given (so that it gets no cache), and return the same `Arc<StoredKey>` until the key changes.
