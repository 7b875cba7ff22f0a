//! Mutation tests of the directory suite: a correct small directory passes, directly and cached,
//! and each incorrect variant fails the check that names its fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use portunus::actor::{CachedDirectory, Directory, DirectoryError, User, UserRef};
use portunus::key::{PlanName, TenantId, UserId};
use portunus_conformance::{self as conformance, DirectoryFacts, Violation};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Right,
    AnswersNow,
    AnyTenant,
    FoundButForeign,
    CaseMatters,
    NoDots,
    NoTags,
    UnicodeCase,
    Wildcards,
    UnknownIsAnError,
    LongIsAnError,
    CollaboratorUnmarked,
    CollaboratorMoved,
    SuspendedUnmarked,
    NowFindsNone,
    EverySecondAnswer,
    AnyoneById,
    NoPlans,
    OnePlanForAll,
    UnknownTenantIsAnError,
}

use How::*;

#[derive(Debug)]
struct People {
    how: How,
    asked: AtomicU64,
}

const PEOPLE: [(&str, &str, &str); 4] = [
    (
        "acme",
        "0b6c5c5e-7a3d-4c1a-9a3f-3a0d5d2c1b11",
        "Ann.Klein@Example.com",
    ),
    ("acme", "sue", "sue@example.com"),
    ("other", "olaf", "olaf@example.org"),
    ("other", "cora", "cora@example.org"),
];

fn people(how: How) -> People {
    People {
        how,
        asked: AtomicU64::new(0),
    }
}

fn facts() -> DirectoryFacts {
    let id = |text: &str| UserId::new(text).unwrap();
    let tenant = |text: &str| TenantId::new(text).unwrap();
    DirectoryFacts::new(tenant("acme"), id(PEOPLE[0].1), tenant("other"), id("olaf"))
        .with_email(PEOPLE[0].2)
        .with_other_email(PEOPLE[2].2)
        .with_collaborator(id("cora"), tenant("other"))
        .with_suspended(id("sue"))
        .with_plan(PlanName::new("team").unwrap())
}

impl People {
    fn same_email(&self, stored: &str, asked: &str) -> bool {
        let plain = |text: &str| {
            let text = text.to_ascii_lowercase();
            let Some((local, domain)) = text.split_once('@') else {
                return text;
            };
            match self.how {
                NoDots => format!("{}@{domain}", local.replace('.', "")),
                NoTags => format!("{}@{domain}", local.split('+').next().unwrap()),
                _ => text,
            }
        };
        match self.how {
            CaseMatters => stored == asked,
            UnicodeCase => stored.to_lowercase() == asked.to_lowercase(),
            Wildcards if asked.contains('%') => true,
            _ => plain(stored) == plain(asked),
        }
    }

    fn find(&self, tenant: &TenantId, user: &UserRef) -> Result<Option<Arc<User>>, DirectoryError> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        if self.how == EverySecondAnswer && asked % 2 == 1 {
            return Ok(None);
        }
        if self.how == LongIsAnError && matches!(user, UserRef::Email(text) if text.len() > 254) {
            return Err(DirectoryError::unavailable(
                "value too long for type character varying(254)",
            ));
        }
        let named = |(_, id, email): &&(&str, &str, &str)| match user {
            UserRef::Id(asked) => asked.as_str() == *id,
            UserRef::Email(asked) => self.same_email(email, asked),
            _ => false,
        };
        let found = PEOPLE.iter().find(named);
        let Some((home, id, email)) = found else {
            return match self.how {
                UnknownIsAnError => Err(DirectoryError::unavailable("no rows returned")),
                AnyoneById if matches!(user, UserRef::Id(_)) => {
                    let UserRef::Id(id) = user else {
                        return Ok(None);
                    };
                    Ok(Some(Arc::new(User::new(id.clone(), tenant.clone()))))
                }
                _ => Ok(None),
            };
        };
        let mut person =
            User::new(UserId::new(id).unwrap(), TenantId::new(home).unwrap()).with_email(*email);
        person.suspended = *id == "sue" && self.how != SuspendedUnmarked;
        if *home == tenant.as_str() {
            return Ok(Some(Arc::new(person)));
        }
        if *id == "cora" && tenant.as_str() == "acme" {
            person.collaborates = self.how != CollaboratorUnmarked;
            if self.how == CollaboratorMoved {
                person.tenant_id = tenant.clone();
            }
            return Ok(Some(Arc::new(person)));
        }
        match self.how {
            AnyTenant => Ok(Some(Arc::new(person))),
            FoundButForeign => Err(DirectoryError::unavailable(
                "the user belongs to another tenant",
            )),
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        tokio::task::yield_now().await;
        self.find(tenant, user)
    }

    fn resolve_now(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Option<Result<Option<Arc<User>>, DirectoryError>> {
        match self.how {
            AnswersNow => Some(self.find(tenant, user)),
            NowFindsNone => Some(Ok(None)),
            _ => None,
        }
    }

    async fn plan(&self, tenant: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        let team = || Some(PlanName::new("team").unwrap());
        match (self.how, tenant.as_str()) {
            (NoPlans, _) => Ok(None),
            (OnePlanForAll, _) | (_, "acme") => Ok(team()),
            (UnknownTenantIsAnError, name) if name != "other" => {
                Err(DirectoryError::unavailable("no rows returned"))
            }
            _ => Ok(None),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_correct_small_directory_passes() {
    for how in [Right, AnswersNow] {
        conformance::directory(people(how), facts()).await.unwrap();
        let shared: Arc<dyn Directory> = Arc::new(people(how));
        conformance::directory(Arc::clone(&shared), facts())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cached_directory_passes_with_a_large_and_a_small_cache() {
    for how in [Right, AnswersNow] {
        for (capacity, seconds) in [(1_000, 60), (2, 60), (1_000, 0)] {
            let cached = CachedDirectory::new(people(how), capacity, Duration::from_secs(seconds));
            conformance::directory(cached, facts()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn minimal_facts_are_enough() {
    let (tenant, other) = (
        TenantId::new("acme").unwrap(),
        TenantId::new("other").unwrap(),
    );
    let few = DirectoryFacts::new(
        tenant,
        UserId::new(PEOPLE[0].1).unwrap(),
        other,
        UserId::new("olaf").unwrap(),
    );
    conformance::directory(people(Right), few).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_incorrect_directory_fails_exactly_one_check() {
    const PLAN: &str =
        "a tenant has its plan, also after it changed, and an unknown tenant has none";
    let cases = [
        (
            AnyTenant,
            "unknown users and users of another tenant are both not found",
        ),
        (
            FoundButForeign,
            "unknown users and users of another tenant are both not found",
        ),
        (
            CaseMatters,
            "a user is found by email address, ignoring case",
        ),
        (NoDots, "an email address is not normalized further"),
        (NoTags, "an email address is not normalized further"),
        (UnicodeCase, "an email address is not normalized further"),
        (
            Wildcards,
            "hostile identifiers are not found, without an error",
        ),
        (
            UnknownIsAnError,
            "unknown users and users of another tenant are both not found",
        ),
        (
            LongIsAnError,
            "hostile identifiers are not found, without an error",
        ),
        (
            CollaboratorUnmarked,
            "a collaborator is found from the tenant with the grant, and marked as one",
        ),
        (
            CollaboratorMoved,
            "a collaborator is found from the tenant with the grant, and marked as one",
        ),
        (SuspendedUnmarked, "a suspended user is marked as suspended"),
        (NowFindsNone, "a user is found by id from their own tenant"),
        (
            EverySecondAnswer,
            "a user is found by id from their own tenant",
        ),
        (
            AnyoneById,
            "unknown users and users of another tenant are both not found",
        ),
        (NoPlans, PLAN),
        (OnePlanForAll, PLAN),
        (UnknownTenantIsAnError, PLAN),
    ];
    let mut wrong = Vec::new();
    for (how, expected) in cases {
        let violations = conformance::directory(people(how), facts())
            .await
            .expect_err(&format!("{how:?} passes"));
        let failed: Vec<_> = violations.iter().map(Violation::check).collect();
        if failed != [expected] {
            wrong.push(format!(
                "{how:?} had to fail by {expected:?} alone: {violations}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
