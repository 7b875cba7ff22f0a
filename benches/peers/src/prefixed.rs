//! `prefixed-api-key`: keys in two parts, found by the first and checked by the hash of the second.

use std::collections::HashMap;

use http::{Request, StatusCode};
use prefixed_api_key::rand::rngs::OsRng;
use prefixed_api_key::sha2::Sha256;
use prefixed_api_key::{PrefixedApiKey, PrefixedApiKeyController};

use crate::contender::{Check, Contender, Credentials};
use crate::gate::{Gate, Gated};
use crate::shape::{Body, Settings, bearer};

type Controller = PrefixedApiKeyController<OsRng, Sha256>;

struct Prefixed {
    controller: Controller,
    /// Hashes by the first part of the key.
    hashes: HashMap<String, String>,
}

impl Gate for Prefixed {
    fn admit(&self, request: &mut Request<Body>) -> Result<(), StatusCode> {
        let text = bearer(request).ok_or(StatusCode::UNAUTHORIZED)?;
        let key = PrefixedApiKey::from_string(text).map_err(|_| StatusCode::UNAUTHORIZED)?;
        let hash = self.hashes.get(key.short_token());
        let hash = hash.ok_or(StatusCode::UNAUTHORIZED)?;
        if self.controller.check_hash(&key, hash) {
            Ok(())
        } else {
            Err(StatusCode::UNAUTHORIZED)
        }
    }
}

/// The crate has no layer and no store: the map is ours.
pub fn contender(settings: Settings) -> Contender {
    let controller = Controller::new("example".into(), OsRng, None, 8, 24);
    let text = |key: &PrefixedApiKey| {
        let (prefix, short, long) = (key.prefix(), key.short_token(), key.long_token());
        format!("Bearer {prefix}_{short}_{long}")
    };
    let issued: Vec<_> = (0..settings.keys)
        .map(|_| controller.generate_key_and_hash())
        .collect();
    let credentials = Credentials {
        good: issued.iter().map(|(key, _)| text(key)).collect(),
        unknown: text(&controller.generate_key()),
        ..Credentials::default()
    };
    let hashes = issued.into_iter();
    let hashes = hashes.map(|(key, hash)| (key.short_token().to_owned(), hash));
    let gate = Prefixed {
        hashes: hashes.collect(),
        controller,
    };
    let service = Gated::new(gate);
    Contender::tower("prefixed-api-key", &[Check::Key], credentials, service)
}
