//! The description of a service, for commands on a store: what must agree with the service.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use portunus::Scope;
use portunus::actor::UserIds;
use portunus::config::{Actors, Credentials};
use portunus::key::{
    Alphabet, Checksum, DigestScheme, Environment, KeyFormat, KeyHasher, KeyKind, Pepper,
};
use portunus::manage::{IssueRules, Management};
use portunus::scope::Vocabulary;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The members of the file, for `--help`.
pub(crate) const HELP: &str = r#"The description of the service (--service FILE, TOML, no secrets) states what must
agree with it:

  own_bus = false               # the nodes listen to the database, not to Redis or the like
  user_ids = "uuid"             # if the service declares them so
  environments = ["live"]       # the first is the default
  scopes = ["document:read"]    # the vocabulary, if the service has one

  [format]
  prefix = "acme_"
  separator = "_"               # the default
  environments = { live = "live", test = "test" }   # token = environment
  kinds = { sk = "app" }        # token = app, user or access_token
  alphabet = "base62"           # the default, or url-safe, hex
  length = 32                   # the default
  accept_lengths = [24, 40]
  checksum = "crc32-base62"

  [hash]                        # without it: sha256
  scheme = "hmac-sha256:2"
  accept = ["sha256"]
  peppers = { 2 = "/run/secrets/pepper-2" }         # files, byte for byte; or
                                # PORTUNUS_PEPPER_2 in the environment

  [rules]
  sign_events = true
  rotated_keys_stay = false
  never_expire = false
  active_keys = 100
  active_keys_per_owner = 10"#;

/// The largest file in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// A description, or the absence of one.
#[derive(Default)]
pub(crate) struct Service(Option<Description>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    own_bus: Option<bool>,
    user_ids: Option<Ids>,
    #[serde(default)]
    environments: Vec<String>,
    scopes: Option<Vec<String>>,
    format: Format,
    #[serde(default)]
    hash: Hash,
    #[serde(default)]
    rules: Rules,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Ids {
    Any,
    Uuid,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    prefix: String,
    separator: Option<String>,
    #[serde(default)]
    environments: BTreeMap<String, String>,
    #[serde(default)]
    kinds: BTreeMap<String, String>,
    #[serde(default)]
    alphabet: Characters,
    length: Option<usize>,
    accept_lengths: Option<[usize; 2]>,
    checksum: Option<Sum>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum Characters {
    #[default]
    Base62,
    UrlSafe,
    Hex,
}

#[derive(Deserialize)]
enum Sum {
    #[serde(rename = "crc32-base62")]
    Crc32Base62,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Hash {
    scheme: Option<String>,
    #[serde(default)]
    accept: Vec<String>,
    #[serde(default)]
    peppers: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Rules {
    sign_events: bool,
    rotated_keys_stay: bool,
    never_expire: bool,
    active_keys: Option<u64>,
    active_keys_per_owner: Option<u64>,
}

/// A failure that names the member.
fn invalid(what: &str, why: impl Display) -> Failure {
    Failure::usage(format!("the description of the service: {what}: {why}"))
}

impl Service {
    /// Reads a description, if a file is named.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let cannot = |why: &dyn Display| {
            Failure::usage(format!(
                "cannot read the description {}: {why}",
                path.display()
            ))
        };
        let text = read(path, MOST_BYTES).map_err(|error| cannot(&error))?;
        let text = std::str::from_utf8(&text).map_err(|error| cannot(&error))?;
        // Without the line, which could contain a pepper in the wrong place.
        let described = toml::from_str(text).map_err(|error| cannot(&error.message()))?;
        Ok(Self(Some(described)))
    }

    /// Fails if there is no description.
    pub(crate) fn need(&self, command: &str) -> Result<(), Failure> {
        match self.0 {
            Some(_) => Ok(()),
            None => Err(Failure::usage(format!(
                "`{command}` on a store needs --service FILE, which describes the key format of the \
                 service: see `portunus --help`. Over HTTP, the service's own rules apply"
            ))),
        }
    }

    /// Whether nodes may not learn of changes from the database itself.
    pub(crate) fn may_have_own_bus(&self) -> bool {
        self.0.as_ref().and_then(|it| it.own_bus).unwrap_or(true)
    }

    /// Returns what keys of the service begin with, and the scheme of new digests.
    pub(crate) fn expected(&self) -> Result<Option<(String, DigestScheme)>, Failure> {
        let Some(described) = &self.0 else {
            return Ok(None);
        };
        Ok(Some((
            described.format.prefix.clone(),
            described.hash.hasher()?.scheme(),
        )))
    }

    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        let Some(described) = &self.0 else {
            // Never used: commands that need the format ask for a description.
            let format = KeyFormat::builder("no-format-described_").random(Alphabet::BASE62, 32);
            let format = format.build();
            return Ok(format.map_err(|error| invalid("format", error))?.into());
        };
        let format = described.format.build()?;
        Ok(Credentials::from(format).hasher(described.hash.hasher()?))
    }

    pub(crate) fn actors(&self) -> Actors {
        match self.0.as_ref().and_then(|it| it.user_ids) {
            Some(Ids::Uuid) => Actors::new().user_ids(UserIds::Uuid),
            Some(Ids::Any) | None => Actors::new(),
        }
    }

    pub(crate) fn management(&self) -> Result<Management, Failure> {
        let mut management = Management::new();
        let Some(described) = &self.0 else {
            return Ok(management);
        };
        let environments = described.environments.iter().map(|name| environment(name));
        management = management.environments(environments.collect::<Result<Vec<_>, _>>()?);
        if let Some(names) = &described.scopes {
            let scopes = names.iter().map(|name| Scope::new(name));
            let scopes: Result<Vec<_>, _> = scopes.collect();
            let scopes = scopes.map_err(|error| invalid("scopes", error))?;
            management = management.vocabulary(Vocabulary::from_iter(scopes));
        }
        let (given, mut rules) = (&described.rules, IssueRules::default());
        rules.sign_events = given.sign_events;
        rules.rotated_keys_stay = given.rotated_keys_stay;
        rules.never_expire = given.never_expire;
        rules.active_keys = given.active_keys;
        rules.active_keys_per_owner = given.active_keys_per_owner;
        Ok(management.rules(rules))
    }
}

fn environment(name: &str) -> Result<Environment, Failure> {
    Environment::new(name).map_err(|error| invalid("environments", error))
}

impl Format {
    fn build(&self) -> Result<KeyFormat, Failure> {
        let alphabet = match self.alphabet {
            Characters::Base62 => Alphabet::BASE62,
            Characters::UrlSafe => Alphabet::URL_SAFE,
            Characters::Hex => Alphabet::HEX,
        };
        let mut format =
            KeyFormat::builder(&self.prefix).random(alphabet, self.length.unwrap_or(32));
        if let Some(separator) = &self.separator {
            format = format.separator(separator);
        }
        for (token, name) in &self.environments {
            format = format.environment(token, environment(name)?);
        }
        for (token, name) in &self.kinds {
            let kind: KeyKind = name
                .parse()
                .map_err(|error| invalid("format.kinds", error))?;
            format = format.kind(token, kind);
        }
        if let Some([least, most]) = self.accept_lengths {
            format = format.accept_lengths(least..=most);
        }
        if let Some(Sum::Crc32Base62) = self.checksum {
            format = format.checksum(Checksum::Crc32Base62);
        }
        format.build().map_err(|error| invalid("format", error))
    }
}

impl Hash {
    fn hasher(&self) -> Result<KeyHasher, Failure> {
        let scheme = |text: &str| text.parse().map_err(|error| invalid("hash", error));
        let mut hasher = match self.scheme.as_deref().map(scheme).transpose()? {
            None | Some(DigestScheme::Sha256) => KeyHasher::sha256(),
            Some(DigestScheme::HmacSha256 { pepper }) => {
                KeyHasher::hmac_sha256(self.pepper(pepper)?)
            }
            Some(other) => {
                return Err(invalid(
                    "hash.scheme",
                    format!("{other} is for imports only"),
                ));
            }
        };
        for text in &self.accept {
            hasher = match scheme(text)? {
                DigestScheme::Sha256 => hasher.accept_sha256(),
                DigestScheme::Sha512 => hasher.accept_sha512(),
                DigestScheme::HmacSha256 { pepper } => hasher.accept_pepper(self.pepper(pepper)?),
                other => return Err(invalid("hash.accept", format!("{other} is unknown"))),
            }
            .map_err(|error| invalid("hash.accept", error))?;
        }
        Ok(hasher)
    }

    /// Reads a pepper, byte for byte, as the service gives it to the library.
    fn pepper(&self, version: u32) -> Result<Pepper, Failure> {
        let variable = format!("PORTUNUS_PEPPER_{version}");
        let bytes = match self.peppers.get(&version.to_string()) {
            Some(path) => read(path, MOST_BYTES)
                .map_err(|error| invalid("hash.peppers", format!("{}: {error}", path.display())))?,
            None => {
                let given = std::env::var(&variable).ok();
                let given = given.ok_or_else(|| {
                    invalid(
                        "hash.peppers",
                        format!("version {version}: name a file, or set {variable}"),
                    )
                })?;
                Zeroizing::new(given.into_bytes())
            }
        };
        Pepper::new(version, &bytes).map_err(|error| invalid("hash.peppers", error))
    }
}

fn read(path: &Path, most: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?
        .take(most)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
