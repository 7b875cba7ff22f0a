//! The demo's documents: lists in memory, separated by tenant and environment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portunus::key::{Environment, TenantId};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal};
use serde_json::{Map, Value};

/// The maximum length of a list.
const MAX_DOCUMENTS: usize = 1000;

type ListKey = (TenantId, Environment, String);
type Document = Map<String, Value>;

/// All lists.
#[derive(Debug, Default)]
pub(crate) struct DocumentStore {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    /// How many documents have been created; the number of the newest one.
    created: u64,
    by_key: HashMap<ListKey, Vec<Document>>,
}

fn list_key(caller: &KeyPrincipal, kind: &str) -> ListKey {
    (
        caller.owner().tenant_id.clone(),
        caller.environment().clone(),
        kind.to_owned(),
    )
}

fn has_id(document: &Document, id: &str) -> bool {
    document.get("id").and_then(Value::as_str) == Some(id)
}

impl DocumentStore {
    fn locked(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self, caller: &KeyPrincipal, kind: &str) -> Vec<Value> {
        let lists = self.locked();
        lists
            .by_key
            .get(&list_key(caller, kind))
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
        mut document: Document,
    ) -> Result<Value, AuthError> {
        let mut lists = self.locked();
        lists.created += 1;
        let name = kind
            .rsplit('/')
            .next()
            .unwrap_or(kind)
            .trim_end_matches('s');
        let id = format!("{name}_{}", lists.created);
        let list = lists.by_key.entry(list_key(caller, kind)).or_default();
        if list.len() == MAX_DOCUMENTS {
            return Err(AuthError::with_detail(
                ErrorCode::Conflict,
                "The demo stores at most 1000 of these",
            ));
        }
        document.insert("id".into(), id.into());
        list.push(document.clone());
        Ok(Value::Object(document))
    }

    pub(crate) fn one(
        &self,
        caller: &KeyPrincipal,
        kind: &str,
        id: &str,
    ) -> Result<Value, AuthError> {
        let lists = self.locked();
        let found = lists
            .by_key
            .get(&list_key(caller, kind))
            .and_then(|list| list.iter().find(|document| has_id(document, id)));
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
        changes: Document,
    ) -> Result<Value, AuthError> {
        let mut lists = self.locked();
        let list = lists.by_key.get_mut(&list_key(caller, kind));
        let found = list.and_then(|list| list.iter_mut().find(|document| has_id(document, id)));
        let document = found.ok_or_else(|| AuthError::new(ErrorCode::NotFound))?;
        document.extend(changes.into_iter().filter(|(name, _)| name != "id"));
        Ok(Value::Object(document.clone()))
    }

    pub(crate) fn remove(
        &self,
        caller: &KeyPrincipal,
        kind: &str,
        id: &str,
    ) -> Result<(), AuthError> {
        let mut lists = self.locked();
        let list = lists.by_key.get_mut(&list_key(caller, kind));
        let removed = list.is_some_and(|list| {
            let before = list.len();
            list.retain(|document| !has_id(document, id));
            list.len() < before
        });
        if removed {
            Ok(())
        } else {
            Err(AuthError::new(ErrorCode::NotFound))
        }
    }
}
