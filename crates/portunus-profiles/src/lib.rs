//! Five e-signature APIs as configurations of [`portunus`]: the proof that what they promise can be
//! kept.
//!
//! A profile is data: key formats, schemes, environments, vocabulary, rules for issuing, and the
//! dialect of refusals. It makes builders that a host may change further.
//!
//! | profile | presented as | format of issued keys | environments | refusals |
//! |---|---|---|---|---|
//! | AllSign | Bearer | `allsign_{env}_{sk\|user_sk}_` + 32 base62 | `live`, `test` | `{"detail": …}` |
//! | inSigner | Bearer | `isk_` + 44 URL-safe | `production` | problem with `code` |
//! | Yousign | Bearer | 32 base62 (chosen) | `production`, `sandbox` | RFC 9457 |
//! | IUSign | Bearer | 40 base62 (chosen) | `development`, `staging`, `production` | RFC 9457 |
//! | Dropbox Sign | Basic | 48 hexadecimal digits (chosen) | `production` | `{"error":{…}}` |
//! | … access tokens | Bearer | 43 URL-safe characters | | |
//!
//! A format that is *chosen* is opaque to customers, and chosen here in the API's spirit.
//!
//! Every issued key fits one SHA-256 block and has 190 bits of randomness or more.

mod allsign;
mod dropbox_sign;
mod insigner;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use allsign::RequestMetadata;

use portunus::actor::UserIds;
use portunus::config::{Actors, Credentials, Policy, Responses};
use portunus::key::{
    Alphabet, Delegation, Environment, FormatError, KeyFormat, KeyFormatBuilder, KeyKind,
};
use portunus::manage::{IssueRules, Management};
use portunus::network::Transport;
use portunus::quota::Quota;
use portunus::request::TlsVersion;
use portunus::respond::{ProblemDetails, RejectionRenderer};
use portunus::scope::{Scope, Vocabulary};
use portunus::{Limits, Portunus, PortunusBuilder};

/// One of the five APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// Bearer keys with scopes such as `document:read`, live and test.
    AllSign,
    /// Bearer keys with scopes such as `documents.read`.
    InSigner,
    /// Bearer keys of an organization or of workspaces, read-only or not.
    Yousign,
    /// Bearer keys of an administrator, by plan.
    IuSign,
    /// Basic keys without scopes, and Bearer access tokens with OAuth scopes.
    DropboxSign,
}

/// A name that is no profile's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no profile {0:?}: there are allsign, insigner, yousign, iusign, dropbox-sign")]
pub struct ParseProfileError(String);

impl FromStr for Profile {
    type Err = ParseProfileError;
    fn from_str(name: &str) -> Result<Self, ParseProfileError> {
        let found = Self::ALL.iter().find(|profile| profile.name() == name);
        found
            .copied()
            .ok_or_else(|| ParseProfileError(name.chars().take(40).collect()))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Profile {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::AllSign,
        Self::InSigner,
        Self::Yousign,
        Self::IuSign,
        Self::DropboxSign,
    ];

    /// The name: `allsign`, `insigner`, `yousign`, `iusign`, `dropbox-sign`. It is the realm of
    /// challenges too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllSign => "allsign",
            Self::InSigner => "insigner",
            Self::Yousign => "yousign",
            Self::IuSign => "iusign",
            Self::DropboxSign => "dropbox-sign",
        }
    }

    /// The environments, the productive one first.
    #[must_use]
    pub fn environments(self) -> Vec<Environment> {
        let names: &[&str] = match self {
            Self::AllSign => &["live", "test"],
            Self::Yousign => &["production", "sandbox"],
            Self::IuSign => &["production", "staging", "development"],
            Self::InSigner | Self::DropboxSign => &["production"],
        };
        names.iter().map(|name| environment(name)).collect()
    }

    /// The format of API keys.
    #[must_use]
    pub fn key_format(self) -> KeyFormat {
        constant(match self {
            Self::AllSign => KeyFormat::builder("allsign_")
                .environment("live", environment("live"))
                .environment("test", environment("test"))
                .kind("sk", KeyKind::App)
                .kind("user_sk", KeyKind::User)
                .random(Alphabet::BASE62, 32)
                .accept_lengths(16..=64),
            Self::InSigner => KeyFormat::builder("isk_").random(Alphabet::URL_SAFE, 44),
            Self::Yousign => KeyFormat::builder("").random(Alphabet::BASE62, 32),
            Self::IuSign => KeyFormat::builder("").random(Alphabet::BASE62, 40),
            Self::DropboxSign => KeyFormat::builder("").random(Alphabet::HEX, 48),
        })
    }

    /// The format of access tokens, where the API has some.
    #[must_use]
    pub fn access_token_format(self) -> Option<KeyFormat> {
        let format = || constant(KeyFormat::builder("").random(Alphabet::URL_SAFE, 43));
        (self == Self::DropboxSign).then(format)
    }

    /// The scopes that can be granted. An API without scopes has none.
    #[must_use]
    pub fn vocabulary(self) -> Vocabulary {
        let names: &[Scope] = match self {
            Self::AllSign => allsign::SCOPES,
            Self::InSigner => insigner::SCOPES,
            Self::DropboxSign => dropbox_sign::SCOPES,
            Self::Yousign | Self::IuSign => &[],
        };
        names.iter().cloned().collect()
    }

    /// What keys may be like.
    #[must_use]
    pub fn rules(self) -> IssueRules {
        let mut rules = IssueRules::default();
        match self {
            Self::Yousign => rules.active_keys = Some(200),
            Self::DropboxSign => {
                rules.active_keys = Some(4);
                rules.never_expire = true;
                rules.rotated_keys_stay = true;
                rules.sign_events = true;
                rules.rotate_every = Some(DAY * 365);
                rules.access_token_lifetime = Some(Duration::from_secs(3600));
            }
            Self::AllSign => {
                rules.delegation = Delegation::On;
                rules.rotate_every = Some(DAY * 90);
            }
            Self::IuSign => rules.rotate_every = Some(DAY * 90),
            Self::InSigner => {}
        }
        rules
    }

    /// Which identifiers name the API's users.
    #[must_use]
    pub const fn user_ids(self) -> UserIds {
        match self {
            Self::AllSign => UserIds::Uuid,
            Self::InSigner | Self::Yousign | Self::IuSign | Self::DropboxSign => UserIds::Any,
        }
    }

    /// The description of a service that is called as this API is. It lacks a store; a host that
    /// needs more in one of the groups starts from the profile's own.
    ///
    /// ```
    /// use portunus::store::MemoryStore;
    /// use portunus_profiles::Profile;
    ///
    /// let profile = Profile::AllSign;
    /// let live = profile.environments().remove(0);
    /// let keys = profile
    ///     .builder()
    ///     .store(MemoryStore::new())
    ///     .policy(profile.policy().serve_only(live))
    ///     .build()?;
    /// # Ok::<(), portunus::BuildError>(())
    /// ```
    pub fn builder(self) -> PortunusBuilder {
        Portunus::builder(self.credentials())
            .limits(self.limits())
            .actors(self.actors())
            .policy(self.policy())
            .management(self.management())
            .responses(self.responses())
    }

    /// The formats of keys, and how they are presented.
    pub fn credentials(self) -> Credentials {
        match self.access_token_format() {
            Some(token) => Credentials::new()
                .basic([self.key_format()])
                .bearer([token.clone()])
                .issue([KeyKind::AccessToken], token),
            None => self.key_format().into(),
        }
    }

    /// The limits that the API documents (AllSign: 60 a minute and 1000 an hour), else the library's.
    pub fn limits(self) -> Limits {
        match self {
            Self::AllSign => Limits::per_key([Quota::per_minute(60), Quota::per_hour(1000)]),
            _ => Limits::default(),
        }
    }

    /// What the API's user ids look like.
    pub fn actors(self) -> Actors {
        Actors::new().user_ids(self.user_ids())
    }

    /// Where keys work: IUSign demands TLS 1.3, and Dropbox Sign's API keys have no scopes.
    pub fn policy(self) -> Policy {
        match self {
            Self::IuSign => Policy::new().transport(Some(Transport::tls(TlsVersion::V1_3))),
            Self::DropboxSign => Policy::new().unscoped([KeyKind::App, KeyKind::User]),
            _ => Policy::new(),
        }
    }

    /// What keys may be like: environments, vocabulary and rules.
    pub fn management(self) -> Management {
        Management::new()
            .environments(self.environments())
            .vocabulary(self.vocabulary())
            .rules(self.rules())
    }

    /// The dialect of refusals, and the realm.
    pub fn responses(self) -> Responses {
        Responses::new()
            .realm(self.name())
            .renderer(self.renderer())
    }

    /// The dialect of refusals.
    #[must_use]
    pub fn renderer(self) -> Arc<dyn RejectionRenderer> {
        match self {
            Self::AllSign => Arc::new(allsign::Dialect),
            Self::InSigner => Arc::new(insigner::Dialect),
            Self::DropboxSign => Arc::new(dropbox_sign::Dialect),
            Self::Yousign | Self::IuSign => Arc::new(ProblemDetails::new()),
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn environment(name: &str) -> Environment {
    known(Environment::new(name))
}

fn constant(format: KeyFormatBuilder) -> KeyFormat {
    known(format.build())
}

#[expect(
    clippy::expect_used,
    reason = "the inputs are this file's constants, and a test builds every profile"
)]
fn known<T>(built: Result<T, FormatError>) -> T {
    built.expect("the profiles' own constants are valid")
}

/// A text as a JSON string, quotes included.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
