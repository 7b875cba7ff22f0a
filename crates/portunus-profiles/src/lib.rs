//! Configurations of [`portunus`] for five e-signature APIs, which prove that it can keep the
//! promises of their documentation.
//!
//! A profile is data: key formats, authentication schemes, environments, scope vocabulary, issuing
//! rules, and the format of error responses. It returns builders that a host can customize further.
//!
//! | profile | presented as | format of issued keys | environments | error format |
//! |---|---|---|---|---|
//! | AllSign | Bearer | `allsign_{env}_{sk\|user_sk}_` + 32 base62 | `live`, `test` | `{"detail": …}` |
//! | inSigner | Bearer | `isk_` + 44 URL-safe | `production` | problem with `code` |
//! | Yousign | Bearer | 32 base62 (chosen) | `production`, `sandbox` | RFC 9457 |
//! | IUSign | Bearer | 40 base62 (chosen) | `development`, `staging`, `production` | RFC 9457 |
//! | Dropbox Sign | Basic | 48 hexadecimal digits (chosen) | `production` | `{"error":{…}}` |
//! | … access tokens | Bearer | 43 URL-safe characters | | |
//!
//! A format marked *chosen* is not documented by the API, where keys are opaque; it was chosen for
//! this crate.
//!
//! Every issued key fits in one SHA-256 block and has at least 190 bits of randomness.

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
use portunus::limit::Plan;
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
    /// Bearer keys with scopes such as `document:read`, for live and test environments.
    AllSign,
    /// Bearer keys with scopes such as `documents.read`.
    InSigner,
    /// Bearer keys of an organization or of workspaces, with full or read-only access.
    Yousign,
    /// Bearer keys of an administrator, with features that depend on the plan.
    IuSign,
    /// Basic keys without scopes, and Bearer access tokens with OAuth scopes.
    DropboxSign,
}

/// Error returned when parsing the name of an unknown [`Profile`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown profile {0:?}: expected allsign, insigner, yousign, iusign or dropbox-sign")]
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
    /// All profiles.
    pub const ALL: &'static [Self] = &[
        Self::AllSign,
        Self::InSigner,
        Self::Yousign,
        Self::IuSign,
        Self::DropboxSign,
    ];

    /// Returns the name: `allsign`, `insigner`, `yousign`, `iusign` or `dropbox-sign`. It is also
    /// the realm in authentication challenges.
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

    /// Returns the environments, the production one first.
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

    /// Returns the format of API keys.
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

    /// Returns the format of access tokens, if the API has them.
    #[must_use]
    pub fn access_token_format(self) -> Option<KeyFormat> {
        let format = || constant(KeyFormat::builder("").random(Alphabet::URL_SAFE, 43));
        (self == Self::DropboxSign).then(format)
    }

    /// Returns the scopes that can be granted; empty for an API without scopes.
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

    /// Returns the rules for issuing keys.
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

    /// Returns the format of the API's user ids.
    #[must_use]
    pub const fn user_ids(self) -> UserIds {
        match self {
            Self::AllSign => UserIds::Uuid,
            Self::InSigner | Self::Yousign | Self::IuSign | Self::DropboxSign => UserIds::Any,
        }
    }

    /// Returns a builder for a service that behaves like this API. The store is not set. To
    /// customize one of its groups, start from the profile's own, as with the policy here:
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

    /// Returns the key formats and how keys are presented.
    pub fn credentials(self) -> Credentials {
        match self.access_token_format() {
            Some(token) => Credentials::new()
                .basic([self.key_format()])
                .bearer([token.clone()])
                .issue([KeyKind::AccessToken], token),
            None => self.key_format().into(),
        }
    }

    /// Returns the rate limits that the API documents (AllSign: 60 per minute and 1000 per hour),
    /// otherwise the library's defaults; and IUSign's plans, which change no limit.
    pub fn limits(self) -> Limits {
        match self {
            Self::AllSign => Limits::per_key([Quota::per_minute(60), Quota::per_hour(1000)]),
            Self::IuSign => Limits::default()
                .plan(Plan::new("free", []).own_quotas_stay())
                .plan(Plan::new("standard", []).own_quotas_stay())
                .plan(Plan::new("enterprise", []).own_quotas_stay()),
            _ => Limits::default(),
        }
    }

    /// Returns the actor configuration, which sets the format of the API's user ids.
    pub fn actors(self) -> Actors {
        Actors::new().user_ids(self.user_ids())
    }

    /// Returns the policy: IUSign requires TLS 1.3, and Dropbox Sign's API keys are unscoped.
    pub fn policy(self) -> Policy {
        match self {
            Self::IuSign => Policy::new().transport(Some(Transport::tls(TlsVersion::V1_3))),
            Self::DropboxSign => Policy::new().unscoped([KeyKind::App, KeyKind::User]),
            _ => Policy::new(),
        }
    }

    /// Returns the management configuration: environments, scope vocabulary and issuing rules.
    pub fn management(self) -> Management {
        Management::new()
            .environments(self.environments())
            .vocabulary(self.vocabulary())
            .rules(self.rules())
    }

    /// Returns the response configuration: the realm and the format of error responses.
    pub fn responses(self) -> Responses {
        Responses::new()
            .realm(self.name())
            .renderer(self.renderer())
    }

    /// Returns the renderer of error responses.
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
    reason = "the inputs are constants in this file, and a test builds every profile"
)]
fn known<T>(built: Result<T, FormatError>) -> T {
    built.expect("the constants of the profiles are valid")
}

/// Encodes a string as JSON, including the quotes.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
