//! `jsonwebtoken` with HS256: the facts of the key are in the token, so nothing is looked up.
//!
//! The cryptography is given to the crate from outside: HMAC and SHA-256 of the same crates that
//! its own `rust_crypto` uses.

use hmac::{Hmac, KeyInit, Mac};
use http::{Request, StatusCode};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use signature::{Signer, Verifier};

use crate::contender::{Check, Contender, Credentials};
use crate::gate::{Gate, Gated};
use crate::shape::{Body, ENVIRONMENT, NEEDED, NETWORKS, SCOPES, Settings, bearer, next_year};

const CHECKS: &[Check] = &[Check::Key, Check::Scope, Check::Environment, Check::Expiry];

struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(secret: &[u8]) -> Result<Self, Error> {
        let keyed = Hmac::new_from_slice(secret);
        keyed
            .map(Self)
            .map_err(|_| ErrorKind::InvalidKeyFormat.into())
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let mac = self.0.clone().chain_update(message);
        Ok(mac.finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], given: &Vec<u8>) -> Result<(), signature::Error> {
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(given)
            .map_err(signature::Error::from_source)
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, key| Ok(Box::new(Hs256::new(key.as_bytes())?)),
    verifier_factory: |_, key| Ok(Box::new(Hs256::new(key.try_get_as_bytes()?)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// The principal that handlers find in the extensions.
#[derive(Clone, Serialize, Deserialize)]
pub struct Claims {
    sub: String,
    exp: u64,
    environment: String,
    scopes: Vec<String>,
    networks: Vec<String>,
}

struct Tokens {
    key: DecodingKey,
    validation: Validation,
}

impl Gate for Tokens {
    fn admit(&self, request: &mut Request<Body>) -> Result<(), StatusCode> {
        let token = bearer(request).ok_or(StatusCode::UNAUTHORIZED)?;
        let token = decode::<Claims>(token, &self.key, &self.validation);
        let claims = token.map_err(|_| StatusCode::UNAUTHORIZED)?.claims;
        let may = claims.scopes.iter().any(|scope| scope == NEEDED);
        if claims.environment != ENVIRONMENT || !may {
            return Err(StatusCode::FORBIDDEN);
        }
        request.extensions_mut().insert(claims);
        Ok(())
    }
}

fn token(secret: &[u8], number: usize, scopes: &[&str]) -> String {
    let until = next_year().duration_since(std::time::UNIX_EPOCH);
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let claims = Claims {
        sub: format!("key_{number:022}"),
        exp: until.expect("after 1970").as_secs(),
        environment: ENVIRONMENT.to_owned(),
        scopes: owned(scopes),
        networks: owned(&NETWORKS),
    };
    let key = EncodingKey::from_secret(secret).expect("a long secret");
    let token = encode(&Header::default(), &claims, &key);
    format!("Bearer {}", token.expect("a token"))
}

pub fn contender(settings: Settings) -> Contender {
    // The second contender finds it installed.
    let _ = PROVIDER.install_default();
    let (secret, other) = ([7; 32], [8; 32]);
    let numbers = 0..settings.keys;
    let credentials = Credentials {
        good: numbers
            .map(|number| token(&secret, number, &SCOPES))
            .collect(),
        unknown: token(&other, 0, &SCOPES),
        without_scope: token(&secret, 0, &SCOPES[..2]),
    };
    let gate = Tokens {
        key: DecodingKey::from_secret(&secret).expect("a long secret"),
        validation: Validation::new(Algorithm::HS256),
    };
    let service = Gated::new(gate);
    Contender::tower("jsonwebtoken HS256", CHECKS, credentials, service)
}
