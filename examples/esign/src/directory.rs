//! The demo's users, the same at every start, and their standing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, OwnerStanding, Standing, User, UserRef};
use portunus::error::ParseError;
use portunus::key::{Owner, PlanName, TenantId, UserId};
use portunus_profiles::Profile;
use serde::{Deserialize, Serialize};

use crate::operators::{OTHER_TENANT, TENANT, TENANTS_PLAN};

/// Who a user of the demo is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Person {
    pub(crate) id: &'static str,
    pub(crate) email: &'static str,
    pub(crate) tenant: &'static str,
}

pub(crate) const USER: Person = Person {
    id: "550e8400-e29b-41d4-a716-446655440000",
    email: "user@example.com",
    tenant: TENANT,
};
pub(crate) const PLATFORM: Person = Person {
    id: "9b2f0c1e-3d4a-4f5b-8c6d-7e8f90a1b2c3",
    email: "platform@app.com",
    tenant: TENANT,
};
pub(crate) const MEMBER: Person = Person {
    id: "7d444840-9dc0-11d1-b245-5ffdce74fad2",
    email: "member@example.com",
    tenant: TENANT,
};
pub(crate) const OUTSIDER: Person = Person {
    id: "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    email: "outsider@example.com",
    tenant: OTHER_TENANT,
};

/// A user's role in the demo's organizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub(crate) enum UserRole {
    Owner,
    Admin,
    Member,
}

impl TryFrom<String> for UserRole {
    type Error = &'static str;
    fn try_from(name: String) -> Result<Self, &'static str> {
        match &*name {
            "owner" => Ok(Self::Owner),
            "admin" => Ok(Self::Admin),
            "member" => Ok(Self::Member),
            _ => Err("role must be owner, admin or member"),
        }
    }
}

/// A user of the demo.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DemoUser {
    pub(crate) id: UserId,
    pub(crate) email: &'static str,
    pub(crate) tenant_id: TenantId,
    pub(crate) role: UserRole,
    pub(crate) suspended: bool,
}

/// All users, in memory. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct DemoDirectory {
    users: Arc<Mutex<Vec<DemoUser>>>,
    /// Whether keys stop working when their owner is no longer an administrator.
    needs_role: bool,
}

impl DemoDirectory {
    pub(crate) fn new(profile: Profile) -> Result<Self, ParseError> {
        let users = [
            (USER, UserRole::Admin),
            (PLATFORM, UserRole::Owner),
            (MEMBER, UserRole::Member),
            (OUTSIDER, UserRole::Owner),
        ];
        let users = users.into_iter().map(|(person, role)| {
            let (id, tenant_id) = (UserId::new(person.id)?, TenantId::new(person.tenant)?);
            Ok(DemoUser {
                id,
                email: person.email,
                tenant_id,
                role,
                suspended: false,
            })
        });
        let users = users.collect::<Result<Vec<_>, ParseError>>()?;
        Ok(Self {
            users: Arc::new(Mutex::new(users)),
            needs_role: profile == Profile::IuSign,
        })
    }

    fn users(&self) -> MutexGuard<'_, Vec<DemoUser>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the users of a tenant.
    pub(crate) fn of_tenant(&self, tenant: &TenantId) -> Vec<DemoUser> {
        self.users()
            .iter()
            .filter(|user| user.tenant_id == *tenant)
            .cloned()
            .collect()
    }

    /// Changes a user of a tenant. Returns `None` if the tenant has no user with this id.
    pub(crate) fn change(
        &self,
        tenant: &TenantId,
        id: &str,
        role: Option<UserRole>,
        suspended: Option<bool>,
    ) -> Option<DemoUser> {
        let mut users = self.users();
        let user = users
            .iter_mut()
            .find(|user| user.tenant_id == *tenant && user.id.as_str().eq_ignore_ascii_case(id))?;
        user.role = role.unwrap_or(user.role);
        user.suspended = suspended.unwrap_or(user.suspended);
        Some(user.clone())
    }

    fn find(&self, tenant: &TenantId, named: &UserRef) -> Option<Arc<User>> {
        let users = self.users();
        let found = users.iter().find(|user| match named {
            UserRef::Id(id) => user.id == *id,
            UserRef::Email(email) => user.email.eq_ignore_ascii_case(email),
            _ => false,
        })?;
        let mut user = User::new(found.id.clone(), found.tenant_id.clone()).with_email(found.email);
        user.suspended = found.suspended;
        // The demo has no collaboration across tenants.
        (found.tenant_id == *tenant).then(|| Arc::new(user))
    }

    /// Returns the standing of a user who signs in.
    pub(crate) fn standing_of(&self, user: Option<&UserId>) -> Standing {
        let users = self.users();
        let suspended = |found: &DemoUser| Some(&found.id) == user && found.suspended;
        match users.iter().any(suspended) {
            true => Standing::Suspended,
            false => Standing::Good,
        }
    }

    fn owner_standing(&self, owner: &Owner) -> Standing {
        let users = self.users();
        let found = owner.user_id.as_ref().and_then(|id| {
            users.iter().find(|user| {
                user.tenant_id == owner.tenant_id
                    && user.id.as_str().eq_ignore_ascii_case(id.as_str())
            })
        });
        match found {
            Some(user) if user.suspended => Standing::Suspended,
            Some(user) if self.needs_role && user.role == UserRole::Member => Standing::RoleLost,
            _ => Standing::Good,
        }
    }
}

#[async_trait]
impl Directory for DemoDirectory {
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        Ok(self.find(tenant, user))
    }

    fn resolve_now(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Option<Result<Option<Arc<User>>, DirectoryError>> {
        Some(Ok(self.find(tenant, user)))
    }

    /// Every tenant of the demo has the same plan.
    async fn plan(&self, _: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        let plan = PlanName::new(TENANTS_PLAN).map_err(DirectoryError::unavailable)?;
        Ok(Some(plan))
    }
}

#[async_trait]
impl OwnerStanding for DemoDirectory {
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        Ok(self.owner_standing(owner))
    }

    fn standing_now(&self, owner: &Owner) -> Option<Result<Standing, DirectoryError>> {
        Some(Ok(self.owner_standing(owner)))
    }
}
