//! One spelling for each user whose id is a UUID, in records written before ids were lower-cased.

use portunus::actor::UserIds;
use portunus::key::{Alphabet, KeyFormat};
use portunus::manage::{KeyChange, KeyManager, ManageError, NewKey};
use portunus_test_support::Setup;

use super::*;

const LOWER: &str = "550e8400-e29b-41d4-a716-446655440000";
const UPPER: &str = "550E8400-E29B-41D4-A716-446655440000";
const MIXED: &str = "550e8400-E29B-41d4-a716-446655440000";

fn of(tenant_name: &str, user_name: &str) -> Owner {
    Owner::user(tenant(tenant_name), user(user_name))
}

fn owned(name: &str, user_name: &str, created: u64) -> KeyRecord {
    let mut record = record(name);
    record.owner = of("acme", user_name).with_email("Ann@Example.com");
    record.created_at = at(created);
    record
}

async fn kept(store: &impl KeyStore, number: u32, record: KeyRecord) {
    let owner = OwnerRef::of(&record.owner);
    let pin = Change::PinPrimary {
        owner,
        at: at(1_000),
    };
    let changes = [insert(digest(number), record), pin];
    store.apply(&batch(changes)).await.unwrap();
}

async fn primary(store: &impl KeyStore, user_name: &str) -> Option<KeyId> {
    let owner = OwnerRef::of(&of("acme", user_name));
    store.primary(&owner, at(1_000)).await.unwrap()
}

pub(crate) async fn each_user_gets_one_spelling_and_nothing_else_changes(home: &impl Home) {
    let store = home.open().await;
    let mut whole = owned("whole", UPPER, 1_000);
    whole.description = Some("Größe".into());
    whole.expires_at = Some(at(9_000_000_000));
    whole.revoked = Some(Revocation::new(at(2_000), Some("lost".into())));
    let mut elsewhere = owned("elsewhere", UPPER, 1_000);
    elsewhere.owner.tenant_id = tenant("other");
    let unchanged = [
        owned("lower", LOWER, 1_001),
        owned("text", "Ann", 1_002),
        owned("no-hyphens", &UPPER.replace('-', ""), 1_003),
        owned("no-hex", &UPPER.replace('E', "G"), 1_004),
        record("of-the-tenant"),
    ];
    let folded = [whole, elsewhere, owned("mixed", MIXED, 1_005)];
    for (number, record) in (1..).zip(unchanged.iter().chain(&folded)) {
        kept(&store, number, record.clone()).await;
    }
    let state = signing(7);
    let signs = Change::SetSigning {
        id: id("mixed"),
        state: Some(state.clone()),
    };
    store.apply(&batch([signs])).await.unwrap();

    assert_eq!(fold(home, &store).await, 3);
    for record in &unchanged {
        assert_eq!(get(&store, record.name.as_str()).await, *record);
    }
    for mut record in folded {
        record.owner.user_id = Some(user(LOWER));
        record.version += 1;
        assert_eq!(get(&store, record.name.as_str()).await, record);
    }
    assert_eq!(found(&store, digest(8)).await, Some(id("mixed")));
    assert_eq!(
        store.signing_state(&id("mixed")).await.unwrap(),
        Some(state)
    );
    let of_tenant = store.primary(&acme_itself(), at(1_000)).await.unwrap();
    assert_eq!(of_tenant, Some(id("of-the-tenant")));
    assert_eq!(primary(&store, "Ann").await, Some(id("text")));
    assert_eq!(primary(&store, LOWER).await, Some(id("mixed")));
    for old in [UPPER, MIXED] {
        assert_eq!(primary(&store, old).await, None, "{old}");
    }
    let rows = "SELECT CAST(count(*) AS TEXT) FROM portunus_primaries WHERE owner_kind = 'user' \
                AND owner_user <> lower(owner_user) AND length(owner_user) = 36 \
                AND owner_user LIKE '%E%'";
    assert_eq!(home.text(rows).await, "0");
}

/// Folds; returns how many records changed.
async fn fold<H: Home>(_: &H, store: &H::Store) -> u64 {
    H::fold(store).await.unwrap()
}

pub(crate) async fn the_newer_of_two_primary_keys_is_kept(home: &impl Home) {
    for (round, (upper, lower, newer)) in [
        (1_000, 1_001, "b"),
        (1_001, 1_000, "a"),
        (1_000, 1_000, "a"),
    ]
    .into_iter()
    .enumerate()
    {
        let store = home.open().await;
        let name = |key: &str| format!("{key}{round}");
        let number = |key: u32| 10 * u32::try_from(round).unwrap() + key;
        let user_of = |text: &str| format!("{round}{}", &text[1..]);
        for (at, key, text, made) in [(1, "a", UPPER, upper), (2, "b", LOWER, lower)] {
            kept(&store, number(at), owned(&name(key), &user_of(text), made)).await;
        }
        // Newer than either, but never primary, since it was not set.
        kept(&store, number(3), owned(&name("c"), &user_of(UPPER), 1_002)).await;
        assert_eq!(fold(home, &store).await, 2);
        assert_eq!(
            primary(&store, &user_of(LOWER)).await,
            Some(id(&name(newer))),
            "{upper} {lower}"
        );
        home.close(store).await;
    }
}

pub(crate) async fn an_ended_primary_key_is_replaced_by_a_valid_one(home: &impl Home) {
    let store = home.open().await;
    kept(&store, 1, owned("works", LOWER, 1_000)).await;
    kept(&store, 2, owned("ended", UPPER, 1_001)).await;
    let mut ended = get(&store, "ended").await;
    ended.expires_at = Some(at(2_000));
    let update = WriteBatch::new().update(ended);
    store.apply(&update).await.unwrap();
    assert_eq!(
        primary(&store, UPPER).await,
        Some(id("ended")),
        "until then"
    );
    assert_eq!(fold(home, &store).await, 1);
    assert_eq!(primary(&store, LOWER).await, Some(id("works")));
}

pub(crate) async fn more_owners_than_a_page_are_all_folded(home: &impl Home) {
    let store = home.open().await;
    let mut all = WriteBatch::new();
    for number in 0..2_100_u32 {
        let name = format!("{number:08X}{}", &UPPER[8..]);
        let record = owned(&format!("k{number}"), &name, 1_000);
        all = all.change(insert(digest(number), record));
    }
    store.apply(&all).await.unwrap();
    assert_eq!(fold(home, &store).await, 2_100);
    let upper = "SELECT CAST(count(*) AS TEXT) FROM portunus_keys WHERE user_id <> lower(user_id)";
    assert_eq!(home.text(upper).await, "0");
}

pub(crate) async fn folding_again_or_twice_at_once_changes_nothing_more(home: &impl Home) {
    let (one, other) = (home.open().await, home.open().await);
    for number in 0..40_u32 {
        let name = format!("{:08X}{}", 0xABCD_0000 + number / 2, &UPPER[8..]);
        kept(&one, number, owned(&format!("k{number}"), &name, 1_000)).await;
    }
    let (first, second) = tokio::join!(fold(home, &one), fold(home, &other));
    assert_eq!(first + second, 40);
    assert_eq!(fold(home, &one).await, 0);
    for listed in all(&one).await {
        assert_eq!(listed.version, 2, "{}", listed.id);
    }
}

pub(crate) async fn keys_that_are_managed_meanwhile_end_up_with_one_owner(home: &impl Home) {
    let store = home.open().await;
    let manager = |ids| {
        let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
        Setup::on(store.clone())
            .bearer([format.build().unwrap()])
            .user_ids(ids)
            .manager()
    };
    // Nodes of the previous and of the current version.
    let (before, now) = (manager(UserIds::Any), manager(UserIds::Uuid));
    let mut keys = Vec::new();
    for _ in 0..6 {
        let new = NewKey::new("key", of("acme", UPPER));
        keys.push(before.issue(new).await.unwrap().record.id.clone());
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (turn, id) in keys.into_iter().enumerate() {
        let manager = if turn % 2 == 0 {
            before.clone()
        } else {
            now.clone()
        };
        tasks.spawn(async move {
            for round in 0..10 {
                let mut change = KeyChange::new();
                change.description = Some(Some(format!("{round}")));
                manager.update(&id, change, None).await?;
                manager.make_primary(&id).await?;
            }
            match turn {
                0 | 1 => manager.revoke(&id, None).await.map(drop),
                2 | 3 => manager.rotate(&id, None).await.map(drop),
                _ => Ok::<_, ManageError>(()),
            }
        });
    }
    let mut folded = 0;
    while folded == 0 || !tasks.is_empty() {
        folded += fold(home, &store).await;
        if let Some(ended) = tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
    let records = all(&store).await;
    assert_eq!(records.len(), 8);
    for listed in &records {
        let owner = listed.owner.user_id.as_ref();
        assert_eq!(owner, Some(&user(LOWER)), "{}", listed.id);
    }
    let sql = "SELECT CAST(count(*) AS TEXT) FROM portunus_primaries WHERE owner_user <> ''";
    assert_eq!(home.text(sql).await, "1");
    assert!(primary(&store, LOWER).await.is_some());
}

pub(crate) async fn an_unreadable_record_is_reported_and_the_next_run_continues(home: &impl Home) {
    let store = home.open().await;
    for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let text = format!("{number:08X}{}", &UPPER[8..]);
        kept(&store, number, owned(name, &text, 1_000)).await;
    }
    let spoil = |name: &str| format!("UPDATE portunus_keys SET name = '{name}' WHERE id = 'b'");
    assert_eq!(home.execute(spoil("x")).await, 1);
    let error = home_error(home, &store).await;
    assert!(error.contains("\"b\""), "{error}");
    assert_eq!(home.execute(spoil("b")).await, 1);
    assert_eq!(
        fold(home, &store).await,
        2,
        "the first one was already folded"
    );
}

/// The error of folding, with its cause.
async fn home_error<H: Home>(_: &H, store: &H::Store) -> String {
    let error = H::fold(store).await.unwrap_err();
    format!(
        "{error} {:?}",
        std::error::Error::source(&error).map(ToString::to_string)
    )
}
