//! Write a [`KeyStore`](crate::KeyStore) of your own.
//!
//! A store keeps records and digests; it never sees a secret. It need not know what issuing,
//! rotating or revoking means: each of them is one batch of changes under conditions, which it
//! applies whole or not at all.
//!
//! # A first program
//! `examples/own_store.rs` is a whole store in one JSON file, with a program that uses it. Here it
//! is compiled and run:
//!
//! <details><summary>the program, 400 lines</summary>
//!
//! ```
#![doc = include_str!("../../examples/own_store.rs")]
//! ```
//! </details>
//!
//! # What is to be written
//! | method | what it does | where it goes wrong |
//! |---|---|---|
//! | [`find`] | the key of one of these digests, in one trip | a digest without scheme; a replica that lags |
//! | [`get`] | one record with its usage | showing deleted keys |
//! | [`list`] | a page, newest first, then by the bytes of ids | see below |
//! | [`primary`] | the owner's primary key at an instant | the key that was set, though it has ended |
//! | [`signing_state`] | what a key signs events with, a secret | a `Debug` that shows it |
//! | [`apply`] | one batch, atomic and isolated | see below |
//! | [`record_usage`] | adds counts | keeping a part of a batch that failed: it is sent again |
//! | [`usage_by_hour`], [`forget_usage_before`] | counts by the hour | lost totals; hours of deleted keys |
//!
//! Three more have defaults: [`find_now`] for stores in memory, [`primaries`] for stores that can
//! answer for a whole page in one trip, [`hours_of_use`] for stores whose rows can be corrupt.
//! [`KeyStore`](crate::KeyStore#what-an-implementation-promises) says all that each must keep.
//!
//! [`find`]: crate::KeyStore::find
//! [`get`]: crate::KeyStore::get
//! [`list`]: crate::KeyStore::list
//! [`primary`]: crate::KeyStore::primary
//! [`signing_state`]: crate::KeyStore::signing_state
//! [`apply`]: crate::KeyStore::apply
//! [`record_usage`]: crate::KeyStore::record_usage
//! [`usage_by_hour`]: crate::KeyStore::usage_by_hour
//! [`forget_usage_before`]: crate::KeyStore::forget_usage_before
//! [`find_now`]: crate::KeyStore::find_now
//! [`primaries`]: crate::KeyStore::primaries
//! [`hours_of_use`]: crate::KeyStore::hours_of_use
//!
//! One secret may have several keys, under several digests: end `find` with
//! [`StoredKey::of_one_secret`](crate::store::StoredKey::of_one_secret), which says which of them
//! counts, and names the others ([`others`](crate::store::StoredKey::others)). A cache needs the
//! names: revoking one of the others ends the secret, too.
//!
//! The helpers do what is easily got wrong:
//! [`StoredKey::of_one_secret`](crate::store::StoredKey::of_one_secret), with which every `find` ends,
//! [`KeyRecord::to_json`](crate::key::KeyRecord::to_json) and
//! [`from_json`](crate::key::KeyRecord::from_json),
//! [`ListQuery::selects`](crate::store::ListQuery::selects),
//! [`OwnerRef::includes`](crate::store::OwnerRef::includes),
//! [`KeyRecord::counts_as_active`](crate::key::KeyRecord::counts_as_active),
//! [`KeyRecord::can_be_primary`](crate::key::KeyRecord::can_be_primary),
//! [`KeyRecord::is_of_the_same_owner`](crate::key::KeyRecord::is_of_the_same_owner),
//! [`Usage::add`](crate::store::Usage::add),
//! [`HourOfUse::start_of`](crate::store::HourOfUse::start_of).
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
//! What failed is told by its sentence and by what was seen instead, and random walks by their
//! seed. What no suite can try from outside is left to your own tests:
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
//! - **Each look-up is a trip.** Put a [`CachedStore`](crate::store::CachedStore) in front, for the
//!   authenticator and the manager both, and keys in use cost none. A store that keeps records in
//!   memory answers by [`find_now`](crate::KeyStore::find_now) instead, and hands out the same
//!   `Arc<StoredKey>` until the key changes.
