//! The checks of a directory.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::DirectoryFacts;
use crate::report::{Checked, Failure, valid};
use portunus::actor::{Directory, User, UserRef};
use portunus::key::{TenantId, UserId};

/// A directory and its facts.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) facts: DirectoryFacts,
}

checks!(CHECKS: Tried {
    "a user is found by id from their own tenant"
        => by_id,
    "unknown users and users of another tenant are both not found"
        => foreign depends on [by_id],
    "a user is found by email address, ignoring case"
        => by_email depends on [by_id],
    "hostile identifiers are not found, without an error"
        => hostile depends on [foreign],
    "an email address is not normalized further"
        => not_normalized depends on [by_email, hostile],
    "a collaborator is found from the tenant with the grant, and marked as one"
        => collaborator depends on [by_id],
    "a suspended user is marked as suspended"
        => suspended depends on [by_id],
    "repeated queries return the same result"
        => again depends on [foreign, by_email],
    "concurrent queries return the right results"
        => concurrent depends on [foreign],
    "a tenant has its plan, also after it changed, and an unknown tenant has none"
        => plans,
});

impl Tried {
    /// Queries by both methods.
    async fn ask(&self, tenant: &TenantId, user: &UserRef) -> Result<Option<Arc<User>>, Failure> {
        let before = self.directory.resolve_now(tenant, user).transpose()?;
        let answer = self.directory.resolve(tenant, user).await?;
        // Before, as a cache may be able to answer only then; and after, when it may have cached
        // the result.
        for now in [
            before,
            self.directory.resolve_now(tenant, user).transpose()?,
        ]
        .into_iter()
        .flatten()
        {
            ensure_eq!(now, answer, "resolve_now compared to resolve for {user:?}");
        }
        Ok(answer)
    }

    async fn by_email(&self, tenant: &TenantId, email: &str) -> Result<Option<Arc<User>>, Failure> {
        self.ask(tenant, &UserRef::Email(email.to_owned())).await
    }
}

fn by(id: &UserId) -> UserRef {
    UserRef::Id(id.clone())
}

/// Checks that the user is the one of the facts, active and of this tenant itself.
fn is_own(user: Option<Arc<User>>, id: &UserId, tenant: &TenantId, how: &str) -> Checked {
    let Some(user) = user else {
        return Err(Failure::new(format!(
            "{id} was not found from {tenant} by {how}"
        )));
    };
    ensure!(
        user.id.as_str().eq_ignore_ascii_case(id.as_str()),
        "{} was found for {id} by {how}",
        user.id
    );
    ensure_eq!(
        user.tenant_id,
        *tenant,
        "the tenant of {id}, found by {how}"
    );
    ensure_eq!(
        (user.collaborates, user.suspended),
        (false, false),
        "whether {id} collaborates and is suspended"
    );
    Ok(())
}

async fn by_id(tried: Tried) -> Checked {
    let facts = &tried.facts;
    is_own(
        tried.ask(&facts.tenant, &by(&facts.user)).await?,
        &facts.user,
        &facts.tenant,
        "id",
    )?;
    let other = tried
        .ask(&facts.other_tenant, &by(&facts.other_user))
        .await?;
    is_own(other, &facts.other_user, &facts.other_tenant, "id")
}

async fn by_email(tried: Tried) -> Checked {
    let facts = &tried.facts;
    let pairs = [
        (&facts.tenant, &facts.user, &facts.email),
        (&facts.other_tenant, &facts.other_user, &facts.other_email),
    ];
    for (tenant, user, email) in pairs {
        let Some(email) = email else { continue };
        let mixed: String = email
            .char_indices()
            .map(|(at, c)| {
                if at % 2 == 0 {
                    c.to_ascii_uppercase()
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect();
        for spelt in [
            email.to_ascii_lowercase(),
            email.clone(),
            email.to_ascii_uppercase(),
            mixed,
        ] {
            is_own(tried.by_email(tenant, &spelt).await?, user, tenant, &spelt)?;
        }
    }
    Ok(())
}

async fn not_normalized(tried: Tried) -> Checked {
    let facts = &tried.facts;
    let Some(email) = facts.email.as_ref().map(|email| email.to_ascii_lowercase()) else {
        return Ok(());
    };
    let Some((local, domain)) = email.rsplit_once('@') else {
        return Err(Failure::new("the email address in the facts has no @"));
    };
    let (plain, first) = (
        local.split('+').next().unwrap_or(local),
        local.chars().next().unwrap_or('x'),
    );
    let others = [
        format!("{local}+tag@{domain}"),
        format!("{plain}@{domain}"),
        format!("{}@{domain}", local.replace('.', "")),
        format!("{first}.{}@{domain}", &local[first.len_utf8()..]),
        format!("{local}.@{domain}"),
        format!(" {email}"),
        format!("{email} "),
        format!("{email}."),
        format!("\"{local}\"@{domain}"),
        format!("<{email}>"),
        format!("{local}%40{domain}"),
        format!("{local}@sub.{domain}"),
        // Not ASCII, although its lower case is.
        email.replace('k', "\u{212a}"),
        email.replace('s', "\u{17f}"),
        email.replacen('a', "\u{e1}", 1),
        email.replacen('e', "e\u{301}", 1),
        email.replacen('.', "\u{ff0e}", 1),
    ];
    for other in others
        .into_iter()
        .filter(|other| *other != email && !facts.aliases.contains(other))
    {
        let found = tried.by_email(&facts.tenant, &other).await?;
        ensure!(
            found.is_none(),
            "{:?} was found by {other:?}, which is a different address from {email:?}",
            found.map(|u| u.id.clone())
        );
    }
    Ok(())
}

async fn foreign(tried: Tried) -> Checked {
    let facts = &tried.facts;
    let none = async |tenant: &TenantId, user: UserRef, what: &str| -> Checked {
        let found = tried.ask(tenant, &user).await?;
        ensure!(found.is_none(), "{what} was found from {tenant}: {found:?}");
        Ok(())
    };
    for tenant in [&facts.tenant, &facts.other_tenant] {
        none(tenant, by(&facts.unknown), "an unknown user").await?;
        none(
            tenant,
            UserRef::Email(facts.unknown_email.clone()),
            "an unknown address",
        )
        .await?;
    }
    none(
        &facts.tenant,
        by(&facts.other_user),
        "a user of another tenant",
    )
    .await?;
    none(
        &facts.other_tenant,
        by(&facts.user),
        "a user of another tenant",
    )
    .await?;
    if let Some(email) = &facts.other_email {
        none(
            &facts.tenant,
            UserRef::Email(email.to_ascii_lowercase()),
            "an address of another tenant",
        )
        .await?;
    }
    if let Some(email) = &facts.email {
        none(
            &facts.other_tenant,
            UserRef::Email(email.to_ascii_lowercase()),
            "an address of another tenant",
        )
        .await?;
    }
    // An unknown tenant, and an id that is not an address.
    let nowhere = valid(TenantId::new("conformance-no-such-tenant"));
    none(&nowhere, by(&facts.user), "a user").await?;
    none(
        &facts.tenant,
        UserRef::Email(facts.user.to_string()),
        "an id used as an address",
    )
    .await
}

async fn collaborator(tried: Tried) -> Checked {
    let facts = &tried.facts;
    let Some((id, home)) = &facts.collaborator else {
        return Ok(());
    };
    let Some(user) = tried.ask(&facts.tenant, &by(id)).await? else {
        return Err(Failure::new(format!(
            "the collaborator {id} was not found from {}",
            facts.tenant
        )));
    };
    ensure!(
        user.collaborates,
        "the collaborator {id} is not marked as one"
    );
    ensure_eq!(
        user.tenant_id,
        *home,
        "the tenant of the collaborator: its own, not the requesting one"
    );
    is_own(
        tried.ask(home, &by(id)).await?,
        id,
        home,
        "id, from its own tenant",
    )
}

async fn suspended(tried: Tried) -> Checked {
    let facts = &tried.facts;
    let Some(id) = &facts.suspended else {
        return Ok(());
    };
    let user = tried.ask(&facts.tenant, &by(id)).await?;
    ensure!(
        user.as_ref().is_some_and(|user| user.suspended),
        "the suspended user {id} is returned as {user:?}"
    );
    Ok(())
}

async fn hostile(tried: Tried) -> Checked {
    let facts = &tried.facts;
    let long = "x".repeat(320);
    let texts = [
        "'",
        "''",
        "\"",
        "' OR '1'='1",
        "' OR 1=1 --",
        "%",
        "%@%",
        "_",
        "_%",
        "*",
        "?",
        ".*",
        "\\",
        "\\'",
        ";",
        "$1",
        "{}",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "null",
        "NULL",
        "0",
        "-1",
        "../../etc/passwd",
        "<script>",
        &long,
    ];
    for text in texts {
        let mut asked = vec![
            UserRef::Email(text.to_owned()),
            UserRef::Email(format!("{text}@example.com")),
        ];
        asked.extend(
            UserId::new(&text[..text.len().min(128)])
                .ok()
                .map(UserRef::Id),
        );
        for user in asked {
            must_not_find(&tried, &facts.tenant, &user).await?;
        }
        if let Ok(tenant) = TenantId::new(&text[..text.len().min(128)]) {
            must_not_find(&tried, &tenant, &by(&facts.user)).await?;
        }
    }
    for text in [
        "",
        " ",
        "\n",
        "\u{e4}\u{1f511}@example.com",
        "\u{202e}@example.com",
        "a\u{ffff}b@example.com",
    ] {
        must_not_find(&tried, &facts.tenant, &UserRef::Email(text.to_owned())).await?;
    }
    Ok(())
}

async fn must_not_find(tried: &Tried, tenant: &TenantId, user: &UserRef) -> Checked {
    match tried.ask(tenant, user).await {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(Failure::new(format!(
            "{user:?} from {tenant:?} is {}",
            found.id
        ))),
        Err(Failure { seen, error }) => Err(Failure {
            seen: format!("{user:?} from {tenant:?}: {seen}"),
            error,
        }),
    }
}

async fn plans(tried: Tried) -> Checked {
    let Tried { directory, facts } = &tried;
    for _ in 0..3 {
        let plan = directory.plan(&facts.tenant).await?;
        if let Some(expected) = &facts.plan {
            ensure_eq!(
                plan.as_ref(),
                Some(expected),
                "the plan of {}",
                facts.tenant
            );
        }
        directory.tenant_changed(&facts.tenant);
    }
    for unknown in ["no-such-tenant", "';--", "%", &"t".repeat(128)] {
        let unknown = valid(TenantId::new(unknown));
        directory.tenant_changed(&unknown);
        let plan = directory.plan(&unknown).await?;
        ensure_eq!(plan, None, "the plan of the unknown tenant {unknown}");
    }
    Ok(())
}

async fn concurrent(tried: Tried) -> Checked {
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let tried = tried.clone();
        tasks.spawn(async move {
            let facts = &tried.facts;
            for turn in 0..10 {
                if (task + turn) % 2 == 0 {
                    is_own(
                        tried.ask(&facts.tenant, &by(&facts.user)).await?,
                        &facts.user,
                        &facts.tenant,
                        "id",
                    )?;
                } else {
                    must_not_find(&tried, &facts.tenant, &by(&facts.other_user)).await?;
                }
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn again(tried: Tried) -> Checked {
    let facts = &tried.facts;
    let mut asked = vec![by(&facts.user), by(&facts.other_user), by(&facts.unknown)];
    asked.extend(
        facts
            .email
            .iter()
            .map(|email| UserRef::Email(email.to_ascii_lowercase())),
    );
    for tenant in [&facts.tenant, &facts.other_tenant] {
        for user in &asked {
            let first = tried.ask(tenant, user).await?;
            for _ in 0..3 {
                ensure_eq!(
                    tried.ask(tenant, user).await?,
                    first,
                    "{user:?} from {tenant}, asked again"
                );
            }
        }
    }
    Ok(())
}
