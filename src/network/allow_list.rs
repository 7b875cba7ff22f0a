//! The networks that a key may be used from.
//!
//! A list is validated when it is created: an invalid entry or an empty list is an error, so that a
//! list can never mean "everywhere". Checking a request takes one masked comparison per range.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use crate::text::ParseError;

/// The maximum number of shared lists, and of the entries in one.
const MOST_SHARED: usize = 1000;
const LONGEST_SHARED: usize = 16;

/// A non-empty list of addresses and ranges without duplicates. Clones share it.
///
/// ```
/// use portunus::network::AllowList;
///
/// let list = AllowList::parse(["203.0.113.42", "198.51.100.0/24"])?;
/// assert!(list.contains("198.51.100.7".parse()?));
/// assert!(!list.contains("192.0.2.1".parse()?));
/// assert!(AllowList::parse::<&str>([]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct AllowList(Arc<Compiled>);

#[derive(PartialEq, Eq)]
struct Compiled {
    entries: Vec<Cidr>,
    /// Network and mask, for the hot path.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AllowList {
    /// The maximum number of entries.
    pub const MOST: usize = 1000;

    /// Parses addresses and CIDR ranges. Duplicates are removed.
    ///
    /// # Errors
    /// Returns an error for the first invalid entry, for an empty list, and for more than
    /// [`MOST`](Self::MOST) entries.
    pub fn parse<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, ParseError> {
        let entries: Vec<Cidr> = entries
            .into_iter()
            .take(Self::MOST + 1)
            .map(|entry| entry.as_ref().parse())
            .collect::<Result<_, _>>()?;
        Self::new(entries)
    }

    /// Creates a list of networks. Duplicates are removed.
    ///
    /// # Errors
    /// Returns an error for an empty list and for more than [`MOST`](Self::MOST) entries.
    pub fn new(mut entries: Vec<Cidr>) -> Result<Self, ParseError> {
        match entries.len() {
            0 => {
                let why = "an allow-list needs at least one entry";
                return Err(ParseError::new("allow-list", why));
            }
            n if n > Self::MOST => {
                let why = format!("an allow-list can have at most {} entries", Self::MOST);
                return Err(ParseError::new("allow-list", why));
            }
            _ => {}
        }
        let mut seen = HashSet::new();
        entries.retain(|entry| seen.insert(*entry));
        if entries.len() > LONGEST_SHARED {
            return Ok(Self::compiled(entries));
        }
        // Keys of one host often have the same list.
        static SHARED: LazyLock<Cache<Vec<Cidr>, AllowList>> =
            LazyLock::new(|| Cache::new(MOST_SHARED));
        let compiled = || Ok::<_, Infallible>(Self::compiled(entries.clone()));
        match SHARED.get_or_insert_with(&*entries, compiled) {
            Ok(shared) => Ok(shared),
        }
    }

    fn compiled(entries: Vec<Cidr>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for entry in &entries {
            match entry.net() {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.netmask().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.netmask().to_bits())),
            }
        }
        Self(Arc::new(Compiled { entries, v4, v6 }))
    }

    /// Whether an address is in one of the listed networks. IPv4-mapped IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.0
                    .v4
                    .iter()
                    .any(|(network, mask)| bits & mask == *network)
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.0
                    .v6
                    .iter()
                    .any(|(network, mask)| bits & mask == *network)
            }
        }
    }

    /// Returns the entries in their original order, with the bits beyond each prefix cleared.
    #[must_use]
    pub fn entries(&self) -> &[Cidr] {
        &self.0.entries
    }
}

impl Hash for AllowList {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.entries.hash(state);
    }
}

impl TryFrom<Vec<String>> for AllowList {
    type Error = ParseError;
    fn try_from(entries: Vec<String>) -> Result<Self, ParseError> {
        Self::parse(entries)
    }
}

impl From<AllowList> for Vec<String> {
    fn from(list: AllowList) -> Self {
        list.entries().iter().map(ToString::to_string).collect()
    }
}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllowList").field(&self.0.entries).finish()
    }
}
