//! Records of newer versions: read as far as they can be, never used, and never written back with
//! less in them than there was.
//!
//! A version that adds a restriction to the record raises [`KeyRecord::UNDERSTANDS`] and writes it
//! into every record that has such a restriction. Members keep their names for good, and those that
//! say whose a key is and whether it ended keep their shapes: what gets another meaning gets another
//! name. Others may have values that are not known here, such as a further kind of access.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::record::KeyRecord;

/// The member that says which version understands a record.
const MEMBER: &str = "understands";

/// What makes a record one of a newer version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Newer(Option<Arc<Read>>);

#[derive(Debug, PartialEq, Eq)]
struct Read {
    understands: u64,
    /// The whole record, as it was read.
    json: String,
}

impl<'de> Deserialize<'de> for Newer {
    /// Refuses the number of a newer version: only [`KeyRecord::from_json`] keeps what that wrote.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Err(serde::de::Error::custom("a record that nobody understands")),
            1..=KeyRecord::UNDERSTANDS => Ok(Self(None)),
            newer => Err(serde::de::Error::custom(format_args!(
                "the record is for programs that understand {newer}, this one understands {}",
                KeyRecord::UNDERSTANDS
            ))),
        }
    }
}

/// The members of an object in their order, each as it stands there.
#[derive(Default)]
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some(member) = map.next_entry()? {
                    members.0.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl KeyRecord {
    /// The number up to which this version understands records. A record says which number is
    /// needed to understand it, in the member `understands`; 1 if absent.
    pub const UNDERSTANDS: u64 = 1;

    /// The number that a program must understand to use this record, where that is more than
    /// [`UNDERSTANDS`](Self::UNDERSTANDS): a newer version wrote it, and it may restrict the key in
    /// ways that are unknown here. It is never used (503), nor changed, but it can be revoked and
    /// disabled.
    #[must_use]
    pub fn needs(&self) -> Option<u64> {
        self.newer.0.as_ref().map(|read| read.understands)
    }

    /// The record as stores should keep it: a JSON object. What a newer version wrote and this one
    /// does not know is written back byte for byte.
    ///
    /// # Errors
    /// A time before 1970.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let Some(read) = &self.newer.0 else {
            return serde_json::to_string(self);
        };
        let before = serde_json::to_value(as_far_as_known(&read.json)?)?;
        merged(&read.json, &before, &serde_json::to_value(self)?)
    }

    /// Reads what [`to_json`](Self::to_json) wrote, in this version, an older or a newer one. Plain
    /// deserialization refuses the records of newer versions.
    ///
    /// # Errors
    /// Text that is no record. It must not be treated as if there were none.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Needs {
            understands: Option<u64>,
        }
        let error = match serde_json::from_str::<Self>(json) {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        let needs = serde_json::from_str::<Needs>(json).ok();
        let newer = needs.and_then(|needs| needs.understands);
        let Some(understands) = newer.filter(|number| *number > Self::UNDERSTANDS) else {
            return Err(error);
        };
        let mut record = as_far_as_known(json)?;
        record.newer = Newer(Some(Arc::new(Read {
            understands,
            json: json.to_owned(),
        })));
        Ok(record)
    }
}

/// What stands for a value that is not known here, of each member that may have one.
const STAND_INS: [(&str, &str); 10] = [
    ("kind", r#""app""#),
    ("scopes", "[]"),
    ("access", r#""read-only""#),
    ("workspaces", "null"),
    ("plan", "null"),
    ("delegation", r#""off""#),
    ("allowed_ips", "null"),
    ("quotas", "null"),
    ("metadata", "{}"),
    ("not_before", "null"),
];

/// A record without the number, and with stand-ins for what is not known here: it is shown, ended
/// and written back, and never used.
fn as_far_as_known(json: &str) -> Result<KeyRecord, serde_json::Error> {
    let Members(mut members) = serde_json::from_str(json)?;
    members.retain(|(name, _)| name != MEMBER);
    let read = |stand_ins: &[(&str, &str)]| {
        let text = written(members.iter().map(|(name, raw)| {
            let instead = stand_ins.iter().find(|(of, _)| of == name);
            let value = instead.map_or(raw.get(), |(_, instead)| *instead);
            (name.clone(), value.to_owned())
        }))?;
        serde_json::from_str(&text)
    };
    if let Ok(record) = read(&[]) {
        return Ok(record);
    }
    let mut needed = STAND_INS.to_vec();
    let mut record = read(&needed)?;
    for of in &STAND_INS {
        let fewer: Vec<_> = needed.iter().copied().filter(|one| one != of).collect();
        if let Ok(better) = read(&fewer) {
            (needed, record) = (fewer, better);
        }
    }
    Ok(record)
}

fn written(
    members: impl IntoIterator<Item = (String, String)>,
) -> Result<String, serde_json::Error> {
    let mut json = String::from("{");
    for (name, value) in members {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&serde_json::to_string(&name)?);
        json.push(':');
        json.push_str(&value);
    }
    json.push('}');
    Ok(json)
}

/// What was read with the changes from `before` to `now` in it, and all else as it stood there.
fn merged(raw: &str, before: &Value, now: &Value) -> Result<String, serde_json::Error> {
    if before == now {
        return Ok(raw.to_owned());
    }
    let (Value::Object(before), Value::Object(now)) = (before, now) else {
        return serde_json::to_string(now);
    };
    let Ok(Members(members)) = serde_json::from_str(raw) else {
        return serde_json::to_string(now);
    };
    let null = Value::Null;
    let of = |map: &Map<String, Value>, name: &str| map.get(name).cloned();
    let mut all = Vec::new();
    for (name, value) in &members {
        let (was, is) = (of(before, name), of(now, name));
        let text = match (&was, &is) {
            // Not known here.
            (None, None) => value.get().to_owned(),
            // Known, and left out now.
            (Some(_), None) => continue,
            _ => merged(
                value.get(),
                was.as_ref().unwrap_or(&null),
                is.as_ref().unwrap_or(&null),
            )?,
        };
        all.push((name.clone(), text));
    }
    for (name, value) in now {
        if members.iter().all(|(known, _)| known != name) && before.get(name) != Some(value) {
            all.push((name.clone(), serde_json::to_string(value)?));
        }
    }
    written(all)
}
