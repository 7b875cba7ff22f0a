//! What a bulk operation needs to be continued by another node, as it is stored.

use std::net::IpAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::BulkAction;
use crate::audit::RequestId;
use crate::key::{Access, Environment, KeyId, KeyKind, TenantId, UserId, WorkspaceId};
use crate::manage::{Idempotency, Operator, Role};
use crate::scope::Scope;
use crate::store::{BulkOperation, Cursor, ListQuery, StoreError};

/// The stored part of an operation that only the manager reads. A member that is not known is an
/// error: an older node leaves the operation to a newer one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    by: StoredOperator,
    /// The policy under which the operator started it. Absent for that of the service, which every
    /// version knows.
    #[serde(default, skip_serializing_if = "Under::is_of_service")]
    under: Under,
    /// The fingerprint of the request, if it can be repeated.
    #[serde(default)]
    request: Option<String>,
    pub(super) action: BulkAction,
    pub(super) picked: Picked,
    /// How many keys have been counted so far.
    pub(super) counted: u64,
    /// Where to continue counting. The keys are processed when all are counted.
    pub(super) counting: Counting,
    /// How often the next key could not be processed because of a failure that may pass.
    #[serde(default)]
    pub(super) tries: u32,
    /// Differs in every step, so that a node recognizes its own.
    #[serde(default)]
    pub(super) mark: Option<KeyId>,
}

/// A policy that every node knows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Under {
    /// That of the service.
    #[default]
    Service,
    /// [`own_keys`](crate::manage::own_keys), beside that of the service.
    OwnKeys,
}

impl Under {
    fn is_of_service(&self) -> bool {
        *self == Self::Service
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Counting {
    After(Option<Cursor>),
    Done,
}

/// The keys that are left.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Picked {
    Keys(Box<ListQuery>),
    Ids(Vec<KeyId>),
}

impl Picked {
    pub(super) fn described(&self) -> String {
        match self {
            Self::Keys(query) if query.is_unfiltered() => "all keys".to_owned(),
            Self::Keys(_) => "the keys of a filter".to_owned(),
            Self::Ids(ids) if ids.is_empty() => "no keys".to_owned(),
            Self::Ids(ids) => format!("chosen keys: {}", ids.len()),
        }
    }
}

/// An operator, with the rights that it had at the start.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredOperator {
    /// The user, its tenant and its role; `None` for the service itself.
    user: Option<(UserId, TenantId, StoredRole)>,
    email: Option<String>,
    workspaces: Option<Vec<WorkspaceId>>,
    authority: Option<Vec<Scope>>,
    access: Access,
    kinds: Option<Vec<KeyKind>>,
    environments: Option<Vec<Environment>>,
    client_ip: Option<IpAddr>,
    request_id: Option<RequestId>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredRole {
    Owner,
    Admin,
    Member,
}

impl Plan {
    pub(super) fn new(
        (by, under): (&Operator, Under),
        action: BulkAction,
        picked: Picked,
        request: Option<&Idempotency>,
    ) -> Self {
        let role = match by.role() {
            Role::Owner => StoredRole::Owner,
            Role::Admin => StoredRole::Admin,
            Role::Member => StoredRole::Member,
        };
        let user = by.user().cloned().zip(by.tenant().cloned());
        let by = StoredOperator {
            user: user.map(|(user, tenant)| (user, tenant, role)),
            email: by.email.clone(),
            workspaces: by.workspaces.clone(),
            authority: by.authority.clone(),
            access: by.access,
            kinds: by.kinds.clone(),
            environments: by.environments.clone(),
            client_ip: by.client_ip,
            request_id: by.request_id.clone(),
        };
        let (counted, counting) = match &picked {
            Picked::Ids(ids) => (ids.len() as u64, Counting::Done),
            Picked::Keys(_) => (0, Counting::After(None)),
        };
        Self {
            by,
            under,
            request: request.map(|request| request.fingerprint().to_owned()),
            action,
            picked,
            counted,
            counting,
            tries: 0,
            mark: None,
        }
    }

    pub(super) fn read(operation: &BulkOperation) -> Result<Self, StoreError> {
        let unreadable = |error| {
            let id = &operation.id;
            StoreError::corrupt(format!("the plan of bulk operation {id}: {error}"))
        };
        serde_json::from_str(&operation.plan).map_err(unreadable)
    }

    pub(super) fn to_json(&self) -> Result<String, StoreError> {
        serde_json::to_string(self).map_err(StoreError::unavailable)
    }

    /// How many keys the operation concerns, once they are counted.
    pub(super) fn left(&self) -> Option<u64> {
        matches!(self.counting, Counting::Done).then_some(self.counted)
    }

    pub(super) fn under(&self) -> Under {
        self.under
    }

    /// The operator, as it was at the start.
    pub(super) fn operator(&self) -> Operator {
        let by = self.by.clone();
        let mut operator = match by.user {
            None => Operator::host(),
            Some((user, tenant, role)) => {
                let role = match role {
                    StoredRole::Owner => Role::Owner,
                    StoredRole::Admin => Role::Admin,
                    StoredRole::Member => Role::Member,
                };
                Operator::new(user, tenant, role)
            }
        };
        operator.email = by.email;
        operator.workspaces = by.workspaces;
        operator.authority = by.authority;
        operator.access = by.access;
        operator.kinds = by.kinds;
        operator.environments = by.environments;
        operator.client_ip = by.client_ip;
        operator.request_id = by.request_id;
        operator
    }

    pub(super) fn is_of(&self, request: &Idempotency) -> bool {
        self.request.as_deref() == Some(request.fingerprint())
    }

    /// Whether this operator started it.
    pub(super) fn is_by(&self, operator: &Operator) -> bool {
        let by = self
            .by
            .user
            .as_ref()
            .map(|(user, tenant, _)| (user, tenant));
        by == operator.user().zip(operator.tenant())
    }

    /// Whether it was started in the operator's tenant, or the operator is confined to none.
    pub(super) fn is_within(&self, operator: &Operator) -> bool {
        let tenant = self.by.user.as_ref().map(|(_, tenant, _)| tenant);
        operator
            .tenant()
            .is_none_or(|own| tenant.is_some_and(|tenant| tenant == own))
    }
}

/// What tells whose operation it is. Other members are ignored, because an operation that only a
/// newer node can read has a tenant, too.
#[derive(Deserialize)]
struct Origin {
    by: OriginOperator,
}

#[derive(Deserialize)]
struct OriginOperator {
    user: Option<(IgnoredAny, TenantId, IgnoredAny)>,
}

/// What an operation does.
#[derive(Deserialize)]
struct Effect {
    action: BulkAction,
}

impl BulkOperation {
    /// Returns the tenant of the operator that started the operation. `None` for an operator that
    /// belongs to no tenant, such as the service itself, and for an operation that cannot be read. A
    /// store needs it for [`open_bulk_operations`](crate::store::KeyStore::open_bulk_operations).
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        let origin: Origin = serde_json::from_str(&self.plan).ok()?;
        origin.by.user.map(|(_, tenant, _)| tenant)
    }
}

/// Whether an operation takes access away from its keys: a tenant's other operations can wait.
pub(super) fn takes_access(operation: &BulkOperation) -> bool {
    let effect = serde_json::from_str::<Effect>(&operation.plan);
    effect.is_ok_and(|effect| matches!(effect.action, BulkAction::Revoke(_) | BulkAction::Disable))
}
