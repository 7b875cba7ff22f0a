//! What an attacker finds in a stolen database: no key, in any encoding.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use portunus::audit::AuditTrail;
use portunus::key::{Alphabet, KeyFormat};
use portunus::manage::{KeyManager, NewKey};
use portunus_test_support::Setup;

use super::*;

pub(crate) async fn no_dump_contains_a_key<H: Home>(home: &H) {
    let store = home.open().await;
    let format = KeyFormat::builder("acme_")
        .environment("live", live())
        .kind("sk", KeyKind::App)
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    let trail = AuditTrail::new([H::audit(&store)]);
    let manager = Setup::on(store.clone())
        .bearer([format])
        .environments([live()])
        .audit(trail.clone())
        .manager();
    let (mut keys, mut last) = (Vec::new(), None);
    for _ in 0..10 {
        let issued = manager
            .issue(NewKey::new("findable", Owner::tenant(tenant("acme"))))
            .await
            .unwrap();
        last = Some(issued.record.id.clone());
        keys.push(issued.key.reveal());
    }
    manager.revoke(&last.unwrap(), Some("lost")).await.unwrap();
    trail.flush().await.unwrap();
    let dump = home.dump().await;
    let holds = |part: &[u8]| dump.windows(part.len()).any(|window| window == part);
    assert!(
        holds(b"findable") && holds(b"lost") && holds(b"key.revoke"),
        "the dump is one"
    );
    for key in keys {
        let random = key.strip_prefix("acme_live_sk_").unwrap();
        assert_eq!(random.len(), 32);
        assert!(!holds(random.as_bytes()) && !holds(&random.as_bytes()[..20]));
        for shift in 0..3 {
            // Wherever the key starts in a longer string that was encoded, its middle looks like
            // one of these.
            for encoded in [
                STANDARD_NO_PAD.encode(&random[shift..]),
                URL_SAFE_NO_PAD.encode(&random[shift..]),
            ] {
                assert!(!holds(&encoded.as_bytes()[..encoded.len() - 2]));
            }
        }
        for encoded in [
            hex(random.as_bytes()),
            hex(random.as_bytes()).to_uppercase(),
        ] {
            assert!(!holds(encoded.as_bytes()));
        }
    }
}
