//! Who watches one request, from its first line to the head of its answer.
//!
//! A request_audit that is dropped before there is an answer says so: a caller who goes away in time to
//! be forgotten is not.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use super::{Action, AuditEvent, AuditOutcome, AuditTrail, EventId, Party, RequestId};
use crate::actor::{ActorMode, as_owner, own_mode};
use crate::error::{AuthError, NamedUser};
use crate::key::KeyRecord;
use crate::policy::Principal;
use crate::principal::KeyPrincipal;
use crate::request::RequestHead;
use crate::text::floor_char_boundary;

/// The longest method and the longest route that an event shows, in bytes.
const LONGEST_METHOD: usize = 32;
const LONGEST_ROUTE: usize = 512;

/// What stands in an event in the place of a key that was written where none belongs.
const REDACTED: &str = "[redacted]";

/// Watches one request for the audit: made by
/// [`Authenticator::request_audit`](crate::Authenticator::request_audit), told what happens by the adapter.
#[must_use = "a request_audit that is dropped reports the request as abandoned"]
pub struct RequestAudit {
    trail: AuditTrail,
    noted: Option<Box<PendingEvent>>,
}

/// What is known of a request, as cheaply as it can be kept.
pub(super) struct PendingEvent {
    id: EventId,
    at: SystemTime,
    method: String,
    route: String,
    request_id: Option<RequestId>,
    client_ip: Option<IpAddr>,
    who: Who,
    outcome: AuditOutcome,
    status: Option<u16>,
}

enum Who {
    Nobody,
    Admitted(KeyPrincipal),
    /// A real key that was refused, and whom it named.
    Refused(crate::error::Presented),
}

impl RequestAudit {
    /// `is_key` tells what must not be shown, wherever a caller has written it.
    pub(crate) fn new(
        trail: &AuditTrail,
        head: &dyn RequestHead,
        client_ip: Option<IpAddr>,
        request_id: Option<RequestId>,
        is_key: &dyn Fn(&str) -> bool,
    ) -> Self {
        let is_key = |text: &str| is_key(text) || (text.contains('%') && is_key(&decoded(text)));
        let shown = |text| if is_key(text) { REDACTED } else { text };
        let route = match head.route() {
            Some(pattern) => Cow::Borrowed(pattern),
            None if is_key(head.path()) => {
                let segments: Vec<_> = head.path().split('/').map(shown).collect();
                let route = segments.join("/");
                Cow::Owned(if is_key(&route) {
                    REDACTED.to_owned()
                } else {
                    route
                })
            }
            None => Cow::Borrowed(head.path()),
        };
        let noted = PendingEvent {
            id: trail.next_id(),
            at: trail.now(),
            method: shortened(shown(head.method()), LONGEST_METHOD),
            route: shortened(&route, LONGEST_ROUTE),
            request_id,
            client_ip,
            who: Who::Nobody,
            outcome: AuditOutcome::Abandoned,
            status: None,
        };
        Self {
            trail: trail.clone(),
            noted: Some(Box::new(noted)),
        }
    }

    /// The id of the request: the caller's or a made one.
    #[must_use]
    pub fn request_id(&self) -> Option<&RequestId> {
        self.noted.as_ref()?.request_id.as_ref()
    }

    /// Somebody was let through.
    pub fn admitted(&mut self, principal: &KeyPrincipal) {
        if let Some(noted) = &mut self.noted {
            noted.who = Who::Admitted(principal.clone());
        }
    }

    /// There is an answer, with the error that it was made of, if it was.
    pub fn answered(mut self, status: u16, error: Option<&AuthError>) {
        if let Some(noted) = &mut self.noted {
            // A refused gRPC call is answered under 200; what is told is the refusal.
            let refused = error.filter(|_| status == 200);
            noted.status = Some(refused.map_or(status, AuthError::status));
            noted.outcome = error.map_or(AuditOutcome::Ok, |error| {
                AuditOutcome::Refused(error.code())
            });
            if let (Who::Nobody, Some(presented)) =
                (&noted.who, error.and_then(AuthError::presented))
            {
                noted.who = Who::Refused(presented.clone());
            }
        }
    }

    /// The service failed without an answer.
    pub fn failed(mut self) {
        if let Some(noted) = &mut self.noted {
            noted.outcome = AuditOutcome::Failed;
        }
    }
}

impl Drop for RequestAudit {
    fn drop(&mut self) {
        let Some(noted) = self.noted.take() else {
            return;
        };
        let kept = match (noted.outcome, noted.record()) {
            // Nobody was let through as nobody: there is nothing to tell.
            (AuditOutcome::Ok, None) => false,
            (AuditOutcome::Ok, Some(_)) => self.trail.keeps_successes(),
            // Somebody was let through, and may have changed something: whoever closes connections
            // early leaves an event each time.
            (AuditOutcome::Abandoned | AuditOutcome::Failed, Some(_)) if noted.is_admitted() => {
                true
            }
            (_, record) => self
                .trail
                .keeps_refusal(record.map(|record| record.id.as_str()), noted.client_ip),
        };
        if kept {
            self.trail.note(noted);
        }
    }
}

impl PendingEvent {
    fn record(&self) -> Option<&KeyRecord> {
        match &self.who {
            Who::Nobody => None,
            Who::Admitted(principal) => Some(principal.record()),
            Who::Refused(presented) => Some(&presented.record),
        }
    }

    /// Whether somebody was let through, however the request ended.
    fn is_admitted(&self) -> bool {
        matches!(self.who, Who::Admitted(_))
    }

    /// About how much memory its event will take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        const NAME: usize = 48;
        let names = |count: usize| count.min(AuditEvent::MOST_NAMES) * NAME;
        let named = self.record().map_or(0, |record| {
            names(record.scopes.len()) + names(record.workspaces.as_ref().map_or(0, Vec::len))
        });
        size_of::<AuditEvent>() + size_of::<Self>() + self.method.len() + self.route.len() + named
    }

    pub(super) fn into_event(self) -> AuditEvent {
        let mut event = AuditEvent::new(self.id, self.at, Action::Request, self.outcome);
        if let Some(record) = self.record() {
            event.tenant_id = Some(record.owner.tenant_id.clone());
            event.key_id = Some(record.id.clone());
            event.environment = Some(record.environment.clone());
            event.name_workspaces(record.workspaces.as_deref());
            event.actor = Party::user(
                record.owner.user_id.as_ref(),
                record.owner.user_email.as_deref(),
            );
            event.detail = record
                .successor
                .as_ref()
                .map(|successor| format!("rotated; its successor is {successor}"));
        }
        match &self.who {
            Who::Nobody => {}
            Who::Admitted(principal) => {
                let actor = principal.actor();
                event.mode = Some(principal.mode());
                event.subject = Party::user(actor.user_id, actor.user_email);
                event.name_scopes(principal.scopes().names());
            }
            Who::Refused(presented) => {
                let (mode, subject) = asked(&presented.record, presented.named.as_ref());
                event.mode = Some(mode);
                event.subject = subject;
                event.name_scopes(&presented.record.scopes);
            }
        }
        event.client_ip = self.client_ip;
        event.method = Some(self.method);
        event.route = Some(self.route);
        event.request_id = self.request_id;
        event.status = self.status;
        event
    }
}

/// As whom a refused key was to act.
fn asked(record: &KeyRecord, named: Option<&NamedUser>) -> (ActorMode, Option<Party>) {
    match named {
        Some(user) => {
            let mode = match user.on_behalf {
                true => ActorMode::Delegated,
                false => ActorMode::AppUser,
            };
            (mode, Party::user(user.id.as_ref(), user.email.as_deref()))
        }
        None => {
            let owner = as_owner(own_mode(record.kind), &record.owner);
            (owner.mode, Party::user(owner.user_id, owner.user_email))
        }
    }
}

/// The text with its percent-encoded bytes decoded, as far as they are characters.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        let (byte, skipped) = if *first == b'%' {
            hex.map_or((*first, 0), |byte| (byte, 2))
        } else {
            (*first, 0)
        };
        bytes.push(byte);
        rest = &after[skipped..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text, cut at a character's end: at most this many bytes of it.
pub(crate) fn shortened(text: &str, longest: usize) -> String {
    text[..floor_char_boundary(text, longest)].to_owned()
}

impl fmt::Debug for RequestAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestAudit")
            .field("request_id", &self.request_id())
            .finish_non_exhaustive()
    }
}
