//! The work that is done for every request does not allocate: a cached lookup, and a requirement
//! that is met.
//!
//! A separate binary, because counting replaces the allocator of the whole program.

use std::hint::black_box;
use std::num::NonZeroU64;

use allocation_counter::measure;
use portunus::authenticator::{Attempt, Authenticated};
use portunus::credit::{CreditAccount, Credits, MemoryCreditStore, NewGrant};
use portunus::key::{Alphabet, KeyFormat, KeyHasher, Pepper};
use portunus::policy::Requirement;
use portunus::scope::{BitModel, Vocabulary};
use portunus::store::MemoryStore;
use portunus::{Authenticator, Principal, RequestHead};
use portunus_test_support::{Head, Setup, format, scope, stranger, with_last_character_wrong};

/// Returns the allocations of a hundred repetitions, after one for warming up.
pub(super) fn allocations(mut act: impl FnMut()) -> u64 {
    act();
    measure(|| (0..100).for_each(|_| act())).count_total
}

fn passes(authenticator: &Authenticator, head: &dyn RequestHead) {
    assert!(matches!(
        black_box(authenticator.attempt(head)),
        Attempt::Ready(Ok(Authenticated {
            principal: Some(_),
            ..
        }))
    ));
}

pub(super) fn issue(store: &MemoryStore, hasher: &KeyHasher, scopes: &[&str]) -> String {
    let manager = Setup::on(store.clone())
        .bearer([format()])
        .environments([portunus_test_support::live()])
        .hasher(hasher.clone())
        .manager();
    let owner = portunus::key::Owner::tenant(portunus_test_support::tenant("acme"));
    let new = portunus::manage::NewKey::new("key", owner)
        .with_scopes(scopes.iter().map(|text| scope(text)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(manager.issue(new)).unwrap().key.reveal()
}

#[test]
fn the_counter_counts() {
    let held = allocations(|| drop(black_box(vec![1_u8; 100])));
    assert_eq!(held, 100);
}

#[test]
fn a_hit_by_bearer_allocates_nothing() {
    let (store, hasher) = (MemoryStore::new(), KeyHasher::sha256());
    let key = issue(&store, &hasher, &["document:read"]);
    let authenticator = Setup::on(store)
        .bearer([format()])
        .environment(portunus_test_support::live())
        .build()
        .unwrap();
    let head = Head::bearer(&key).from("192.0.2.1");
    assert_eq!(allocations(|| passes(&authenticator, &head)), 0);
}

#[test]
fn a_hit_by_basic_or_by_a_header_of_the_hosts_own_allocates_nothing() {
    let (store, hasher) = (MemoryStore::new(), KeyHasher::sha256());
    let key = issue(&store, &hasher, &[]);
    let authenticator = Setup::on(store)
        .bearer([format()])
        .basic([format()])
        .header("x-api-key", [format()])
        .build()
        .unwrap();
    for head in [
        Head::basic(format!("{key}:").as_bytes()),
        Head::new().with("x-api-key", &key),
    ] {
        assert_eq!(allocations(|| passes(&authenticator, &head)), 0);
    }
}

#[test]
fn a_hit_under_a_pepper_among_several_allocates_nothing() {
    let pepper =
        |version: u32| Pepper::new(version, &[u8::try_from(version).unwrap(); 32]).unwrap();
    let hasher = (2..8).fold(KeyHasher::hmac_sha256(pepper(1)), |hasher, old| {
        hasher.accept_pepper(pepper(old)).unwrap()
    });
    let store = MemoryStore::new();
    let key = issue(&store, &hasher, &[]);
    let authenticator = Setup::on(store)
        .bearer([format()])
        .hasher(hasher)
        .build()
        .unwrap();
    let head = Head::bearer(&key);
    assert_eq!(allocations(|| passes(&authenticator, &head)), 0);
}

#[test]
fn a_requirement_that_is_met_allocates_nothing() {
    let grants: Vec<String> = (0..30)
        .map(|number| format!("scope{number}:read"))
        .collect();
    let mut grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    grants.push("document:*");
    let (store, hasher) = (MemoryStore::new(), KeyHasher::sha256());
    let key = issue(&store, &hasher, &grants);
    let vocabulary: Vocabulary = ["document:write", "scope29:read"]
        .map(scope)
        .into_iter()
        .collect();
    let requirement = Requirement::any_of([scope("nothing:here"), scope("document:write")])
        .and(scope("scope29:read"));
    let wildcards = Setup::on(store.clone()).bearer([format()]).build().unwrap();
    let bits = Setup::on(store)
        .bearer([format()])
        .scope_model(BitModel::new(&vocabulary).unwrap())
        .build()
        .unwrap();
    for authenticator in [wildcards, bits] {
        let Attempt::Ready(Ok(Authenticated {
            principal: Some(principal),
            ..
        })) = authenticator.attempt(&Head::bearer(&key))
        else {
            panic!("a hit")
        };
        assert_eq!(
            allocations(|| assert!(principal.require(black_box(&requirement)).is_ok())),
            0
        );
    }
}

#[test]
fn reading_a_key_allocates_nothing_whether_it_has_the_shape_or_not() {
    let format = format();
    let key = stranger();
    let typo = with_last_character_wrong(&key);
    for text in [key.as_str(), &typo, "garbage", ""] {
        assert_eq!(
            allocations(|| _ = black_box(format.parse(black_box(text)))),
            0,
            "{text}"
        );
    }
}

#[test]
fn garbage_and_unknown_keys_allocate_nothing() {
    let loose = KeyFormat::builder("")
        .random(Alphabet::BASE62, 40)
        .build()
        .unwrap();
    let authenticator = Setup::on(MemoryStore::new())
        .bearer([format(), loose.clone()])
        .basic([format()])
        .failure_quotas(None) // a refusal for failures is another response, with Retry-After
        .build()
        .unwrap();
    for head in [
        Head::new(),
        Head::authorization("Token x"),
        Head::bearer("garbage"),
        Head::bearer(""),
        Head::bearer(&"x".repeat(1 << 20)),
        Head::authorization(format!("Basic {}", "A".repeat(4000))),
        Head::bearer(&loose.generate(None, None).unwrap().reveal()),
        Head::bearer("a").with("authorization", "Bearer b"),
    ] {
        let refuse = || {
            assert!(matches!(
                black_box(authenticator.attempt(&head)),
                Attempt::Ready(Err(_))
            ));
        };
        assert_eq!(allocations(refuse), 0);
    }
}

#[test]
fn credits_from_a_block_are_spent_without_an_allocation() {
    let (store, hasher) = (MemoryStore::new(), KeyHasher::sha256());
    let key = issue(&store, &hasher, &["document:read"]);
    let credits = Credits::per_tenant(MemoryCreditStore::new()).cost(|_| 3);
    let setup = Setup::on(store).bearer([format()]);
    let keys = setup
        .builder()
        .credits(credits.block(NonZeroU64::MAX))
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let account = CreditAccount::Tenant(portunus_test_support::tenant("acme"));
    let grant = NewGrant::new(1000);
    runtime
        .block_on(keys.manager().grant_credits(&account, grant))
        .unwrap();
    let head = Head::bearer(&key).from("192.0.2.1");
    // Takes the block.
    runtime
        .block_on(keys.authenticator().authenticate(&head))
        .unwrap();
    assert_eq!(allocations(|| passes(keys.authenticator(), &head)), 0);
}
