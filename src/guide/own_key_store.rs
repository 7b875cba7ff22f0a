//! Write a [`KeyLookup`](crate::KeyLookup) or a [`KeyStore`](crate::KeyStore) of your own.
//!
//! A service that only authenticates needs a look-up: one call, over a table that it has already.
//! `crates/portunus-sqlx/examples/own_table.rs` is such a program in 40 lines.
//!
//! To manage keys here, too, a store keeps records and digests; it never sees a secret. It need not
//! know what issuing, rotating or revoking means: each of them is one batch of changes under
//! conditions, which it applies whole or not at all.
//!
//! # A first program
//! `examples/own_store.rs` is a whole store in one JSON file, with counts and signing states, and a
//! program that uses it. Here it is compiled and run:
//!
//! <details><summary>the program, 200 lines</summary>
//!
//! ```
#![doc = include_str!("../../examples/own_store.rs")]
//! ```
//! </details>
//!
//! # What is to be written
//! | trait | method | what it does | where it goes wrong |
//! |---|---|---|---|
//! | [`KeyLookup`] | [`find`] | the key of one of these digests, in one trip | a digest without scheme; a replica that lags |
//! | [`KeyStore`] | [`get`] | one record | showing deleted keys; waiting behind lists |
//! | | [`list`] | a page, newest first, then by the bytes of ids | see below |
//! | | [`primaries`] | the owners' primary keys at an instant | the key that was set, though it has ended |
//! | | [`apply`] | one batch, atomic and isolated | see below |
//! | [`UsageStore`] | [`record_usage`] | adds counts | keeping a part of a batch that failed: it is sent again |
//! | | [`usage_of`], [`usage_by_hour`] | totals, and counts by the hour | hours of deleted keys |
//! | | [`forget_usage_before`] | drops old hours | lost totals |
//! | [`SigningStore`] | [`signing_state`] | what a key signs events with, a secret | a `Debug` that shows it |
//!
//! The last two traits are for stores that count uses and sign events:
//! [`KeyStore::usage`](crate::KeyStore::usage) and [`KeyStore::signing`](crate::KeyStore::signing)
//! tell where they are. More have defaults: [`find_now`] for stores in memory, [`bus`] for stores
//! that can tell what other nodes change, [`primary`] for stores whose rows can be corrupt. Each
//! trait says all that an implementation promises.
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
//! # Rows at hand
//! A store that can look at its rows and change them in one transaction implements six small calls,
//! [`KeyRows`](crate::store::KeyRows), and gets `find`, `list`, `primaries` and `apply` from them, and
//! the counts. [`KeyRow`](crate::store::KeyRow) is all of one key, and `serde` writes and reads it.
//! What follows is for stores that let their database do this.
//!
//! One secret may have several keys, under several digests: end `find` with
//! [`StoredKey::of_one_secret`](crate::store::StoredKey::of_one_secret), which says which of them
//! counts, and names the others ([`others`](crate::store::StoredKey::others)). A cache needs the
//! names: revoking one of the others ends the secret, too.
//!
//! The helpers do what is easily got wrong:
//! [`KeyRecord::to_json`](crate::key::KeyRecord::to_json) and
//! [`from_json`](crate::key::KeyRecord::from_json),
//! [`ListQuery::selects`](crate::store::ListQuery::selects) and
//! [`page`](crate::store::ListQuery::page),
//! [`OwnerRef::includes`](crate::store::OwnerRef::includes),
//! [`KeyRecord::counts_as_active`](crate::key::KeyRecord::counts_as_active),
//! [`KeyRecord::can_be_primary`](crate::key::KeyRecord::can_be_primary),
//! [`KeyRecord::is_of_the_same_owner`](crate::key::KeyRecord::is_of_the_same_owner),
//! [`Usage::add`](crate::store::Usage::add) and
//! [`UsageByHour::add`](crate::store::UsageByHour::add).
//!
//! # A page, step by step
//! 1. take a limit of 0 for 1, and one above 500 for 500;
//! 2. start after [`ListQuery::after`](crate::store::ListQuery::after), a place in the order and no
//!    offset: keys come and go between pages;
//! 3. look at [`ListQuery::MOST_SCANNED`](crate::store::ListQuery::MOST_SCANNED) records at most, so
//!    that no filter makes a page slow: such a page is short, even empty, and has a `next`;
//! 4. leave a row that cannot be read out, and name it in
//!    [`Page::corrupt`](crate::store::Page::corrupt); in the list of a tenant only where it is known
//!    to be this tenant's, as its operators see the name;
//! 5. say where the next page starts, in times as fine as those that are kept, and nothing where no
//!    key follows.
//!
//! # A batch, step by step
//! In one transaction that no other may interleave with (in SQL: `SERIALIZABLE`, or locks that
//! cover what the conditions read):
//!
//! 1. check [`Condition::Version`](crate::store::Condition::Version) and
//!    [`Condition::Primary`](crate::store::Condition::Primary) against what is stored;
//! 2. apply the changes in their order, each seeing those before it;
//! 3. check [`Condition::ActiveKeysAtMost`](crate::store::Condition::ActiveKeysAtMost) against what
//!    is there now;
//! 4. commit, and answer only when every later read will see it.
//!
//! What fails is [`StoreError::rejected`](crate::store::StoreError::rejected) with the condition or
//! the change that failed, and nothing has changed.
//!
//! # The suite in your tests
//! With the crate `portunus-conformance` in your `dev-dependencies`, the suite tries each promise on
//! a fresh store:
//!
//! ```
//! use portunus::store::MemoryStore;
//!
//! // In a test: #[tokio::test(flavor = "multi_thread")], so that races can happen.
//! #[tokio::main(flavor = "multi_thread")]
//! async fn main() -> Result<(), portunus_conformance::Violations> {
//!     // In place of `MemoryStore::new()`: a fresh database, file or schema each time.
//!     portunus_conformance::key_store(|| async { MemoryStore::new() }).await
//! }
//! ```
//!
//! Each check is printed when it ends (`cargo test -- --nocapture` shows it always). What failed is
//! told by its sentence and by what was seen instead, each root cause once: a check that builds upon
//! a failed one is not judged. The suite ends within 5 minutes, also where every call hangs.
//! `key_lookup` tries a look-up alone, `usage_store` and `signing_store` what stands beside the keys.
//! What no suite can try from outside is left to your own tests:
//! the documentation of `portunus_conformance::key_store` lists it.
//!
//! # Traps
//! - **Nothing that is odd may look like "no such key".** An expiry that cannot be read, a scheme
//!   that is unknown, a record without its restrictions:
//!   [`StoreError::corrupt`](crate::store::StoreError::corrupt), which refuses with 503. A column
//!   that defaults to "no restriction" opens doors.
//! - **No digest is ever forgotten.** A key that was deleted or rehashed must not come back by an
//!   import. Keep ids and digests in a table that only grows.
//! - **`Debug` of the store** is printed by the debug output of authenticators and managers. Show
//!   where, not what.
//! - **New conditions and changes may come.** Both enums are `#[non_exhaustive]`: what your store
//!   does not know it must refuse, and never skip.
//! - **Time and order.** The manager gives whole milliseconds; a column of whole seconds loses the
//!   order of pages. Compare ids by their bytes (in SQL: `COLLATE "C"`, `BINARY`).
//! - **Each look-up is a trip,** but for the cache that [`Portunus::builder`](crate::Portunus::builder)
//!   puts in front of a store that must be awaited: keys in use cost none, and an answer is used for
//!   two seconds at most unless [`bus`](crate::KeyLookup::bus) tells of changes. A store that keeps
//!   records in memory answers by [`find_now`](crate::KeyLookup::find_now) instead, also where it is
//!   given no digest, and hands out the same `Arc<StoredKey>` until the key changes.
