//! What the demo's customers keep: lists in memory, apart by tenant and environment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portunus::key::{Environment, TenantId};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal};
use serde_json::{Map, Value};

/// No list grows longer.
const MOST: usize = 1000;

type Shelf = (TenantId, Environment, String);
type Thing = Map<String, Value>;

/// All lists.
#[derive(Debug, Default)]
pub(crate) struct DocumentStore {
    room: Mutex<Room>,
}

#[derive(Debug, Default)]
struct Room {
    /// How many things were ever made: the number of the newest.
    made: u64,
    shelves: HashMap<Shelf, Vec<Thing>>,
}

fn shelf(caller: &KeyPrincipal, kind: &str) -> Shelf {
    (
        caller.owner().tenant_id.clone(),
        caller.environment().clone(),
        kind.to_owned(),
    )
}

fn has_id(thing: &Thing, id: &str) -> bool {
    thing.get("id").and_then(Value::as_str) == Some(id)
}

impl DocumentStore {
    fn locked(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self, caller: &KeyPrincipal, kind: &str) -> Vec<Value> {
        let room = self.locked();
        room.shelves
            .get(&shelf(caller, kind))
            .into_iter()
            .flatten()
            .cloned()
            .map(Value::Object)
            .collect()
    }

    pub(crate) fn add(
        &self,
        caller: &KeyPrincipal,
        kind: &str,
        mut thing: Thing,
    ) -> Result<Value, AuthError> {
        let mut room = self.locked();
        room.made += 1;
        let name = kind
            .rsplit('/')
            .next()
            .unwrap_or(kind)
            .trim_end_matches('s');
        let id = format!("{name}_{}", room.made);
        let list = room.shelves.entry(shelf(caller, kind)).or_default();
        if list.len() == MOST {
            return Err(AuthError::with_detail(
                ErrorCode::Conflict,
                "This demo keeps no more of these",
            ));
        }
        thing.insert("id".into(), id.into());
        list.push(thing.clone());
        Ok(Value::Object(thing))
    }

    pub(crate) fn one(
        &self,
        caller: &KeyPrincipal,
        kind: &str,
        id: &str,
    ) -> Result<Value, AuthError> {
        let room = self.locked();
        let found = room
            .shelves
            .get(&shelf(caller, kind))
            .and_then(|list| list.iter().find(|thing| has_id(thing, id)));
        found
            .cloned()
            .map(Value::Object)
            .ok_or_else(|| AuthError::new(ErrorCode::NotFound))
    }

    pub(crate) fn change(
        &self,
        caller: &KeyPrincipal,
        kind: &str,
        id: &str,
        facts: Thing,
    ) -> Result<Value, AuthError> {
        let mut room = self.locked();
        let list = room.shelves.get_mut(&shelf(caller, kind));
        let found = list.and_then(|list| list.iter_mut().find(|thing| has_id(thing, id)));
        let thing = found.ok_or_else(|| AuthError::new(ErrorCode::NotFound))?;
        thing.extend(facts.into_iter().filter(|(name, _)| name != "id"));
        Ok(Value::Object(thing.clone()))
    }

    pub(crate) fn remove(
        &self,
        caller: &KeyPrincipal,
        kind: &str,
        id: &str,
    ) -> Result<(), AuthError> {
        let mut room = self.locked();
        let list = room.shelves.get_mut(&shelf(caller, kind));
        let removed = list.is_some_and(|list| {
            let before = list.len();
            list.retain(|thing| !has_id(thing, id));
            list.len() < before
        });
        if removed {
            Ok(())
        } else {
            Err(AuthError::new(ErrorCode::NotFound))
        }
    }
}
