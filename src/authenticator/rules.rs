//! The rules of the path that depend on a key's facts only, one function each.

use std::net::IpAddr;

use super::facts::Facts;
use crate::actor::{ActorMode, DirectoryError, Standing, User, UserIds, UserRef};
use crate::clock::{Clock, RECENTLY};
use crate::entry::{KeyEntry, KeyFacts};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Delegation, KeyKind, KeyRecord, KeyStatus};

/// Step 6: refuses a key of another environment than the one that is served.
pub(super) fn environment(facts: &KeyFacts) -> Result<(), AuthError> {
    if facts.is_of_environment {
        Ok(())
    } else {
        Err(AuthError::new(ErrorCode::WrongEnvironment))
    }
}

/// Step 6: refuses a connection that does not meet the transport requirements.
pub(super) fn transport(facts: &Facts) -> Result<(), AuthError> {
    if facts.secure {
        Ok(())
    } else {
        Err(AuthError::new(ErrorCode::InsecureTransport))
    }
}

/// Step 6: refuses an address that is not on the key's allow-list, if it has one. An unknown
/// address is not on any list.
pub(super) fn network(facts: &KeyFacts, client_ip: Option<IpAddr>) -> Result<(), AuthError> {
    match &facts.networks {
        Some(list) if !client_ip.is_some_and(|ip| list.contains(ip)) => {
            Err(AuthError::new(ErrorCode::IpNotAllowed))
        }
        _ => Ok(()),
    }
}

/// Returns whether a user key's `X-User-Id` names its own user, which changes nothing.
pub(super) fn owner_is_requested(
    record: &KeyRecord,
    ids: UserIds,
    mode: ActorMode,
    named: &UserRef,
) -> bool {
    let own = record.owner.user_id.as_ref();
    record.kind != KeyKind::App
        && mode == ActorMode::AppUser
        && matches!(named, UserRef::Id(id) if own.is_some_and(|own| ids.are_one(own, id)))
}

/// Returns whether a key may act for users: an application's key with the permission to delegate.
pub(super) fn may_delegate(record: &KeyRecord) -> bool {
    record.kind == KeyKind::App && record.delegation != Delegation::Off
}

/// Returns whether a key may act for a user: one of its tenant, or one for whom the directory
/// grants it, and never one who is suspended.
pub(super) fn may_act_for(record: &KeyRecord, user: &User) -> bool {
    !user.suspended && (user.tenant_id == record.owner.tenant_id || user.collaborates)
}

/// Refuses a key because of the standing of its owner.
pub(super) fn check_owner(answer: Result<Standing, DirectoryError>) -> Result<(), AuthError> {
    match answer {
        Ok(Standing::Good) => Ok(()),
        Ok(Standing::Suspended) => Err(AuthError::new(ErrorCode::OwnerSuspended)),
        Ok(Standing::RoleLost) => Err(AuthError::with_detail(
            ErrorCode::OwnerSuspended,
            "The owner of the API key no longer has the role that the key requires",
        )),
        Err(error) => Err(AuthError::unavailable(
            ErrorCode::DirectoryUnavailable,
            error,
        )),
    }
}

/// Step 5: refuses a key that is not active. Only a caller who presented the real key gets here.
/// `recently` is a time of at most a moment ago, in milliseconds; the exact one decides about a key
/// that it may not admit.
#[inline]
pub(super) fn standing(
    entry: &KeyEntry,
    recently: u64,
    clock: &dyn Clock,
) -> Result<(), AuthError> {
    const MOMENT: u64 = RECENTLY.as_millis() as u64;
    let valid = &entry.valid;
    if valid.contains(&recently) && recently.saturating_add(MOMENT) < valid.end {
        return Ok(());
    }
    refuse_unless_active(entry.record.status(clock.now()))
}

#[cold]
fn refuse_unless_active(status: KeyStatus) -> Result<(), AuthError> {
    Err(match status {
        KeyStatus::Active => return Ok(()),
        KeyStatus::Revoked => AuthError::new(ErrorCode::KeyRevoked),
        KeyStatus::Expired => AuthError::new(ErrorCode::KeyExpired),
        KeyStatus::Disabled => AuthError::new(ErrorCode::KeyDisabled),
        KeyStatus::NotYetValid => {
            AuthError::with_detail(ErrorCode::KeyDisabled, "The API key is not valid yet")
        }
        KeyStatus::Unreadable => AuthError::unavailable(
            ErrorCode::StoreUnavailable,
            "the record of the key was written by a newer version",
        ),
    })
}
