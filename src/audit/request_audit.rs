//! Auditing of one request, from its head to the response head.
//!
//! A [`RequestAudit`] that is dropped before there is a response records that. A client that
//! disconnects early therefore still leaves an event.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use smallvec::SmallVec;

use super::event::to_the_millisecond;
use super::{Action, AuditEvent, AuditOutcome, AuditTrail, EventId, Party, RequestId};
use crate::actor::{ActorMode, as_owner, own_mode};
use crate::entry::Entry;
use crate::error::{AuthError, NamedUser, Presented};
use crate::key::KeyRecord;
use crate::policy::Principal;
use crate::principal::{Acting, KeyPrincipal};
use crate::request::RequestHead;
use crate::text::floor_char_boundary;

/// The standard methods (RFC 9110 §9.3, RFC 5789 §2), which need not be copied.
static METHODS: [&str; 9] = [
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE",
];

/// Maximum lengths of the method and the route in an event, in bytes.
const LONGEST_METHOD: usize = 32;
const LONGEST_ROUTE: usize = 512;

/// Replaces a key that was sent where no key belongs.
const REDACTED: &str = "[redacted]";

/// Records one request for the audit. Created by
/// [`Authenticator::request_audit`](crate::Authenticator::request_audit) and updated by the
/// adapter.
#[must_use = "a request_audit that is dropped reports the request as abandoned"]
pub struct RequestAudit {
    trail: AuditTrail,
    pending: Option<Box<PendingEvent>>,
}

/// The known facts of a request, in a form that is cheap to keep and small, because the queue has room
/// for many: without what can be read from the key's entry later.
pub(super) struct PendingEvent {
    id: EventId,
    at: SystemTime,
    method: Cow<'static, str>,
    /// In place, unless it is long.
    route: SmallVec<[u8; 64]>,
    request_id: RequestId,
    client_ip: Option<IpAddr>,
    who: Who,
    outcome: AuditOutcome,
    status: Option<u16>,
}

/// What [`AuditTrailBuilder::capacity`](super::AuditTrailBuilder::capacity) says about the queue.
const _: () = assert!(size_of::<PendingEvent>() <= 240);

enum Who {
    Unknown,
    /// What the principal is made of, without the state of its limits.
    Admitted(Entry, ActorMode, Option<Arc<Acting>>),
    /// A real key that was refused, and the user it named.
    Refused(Box<Presented>),
}

impl RequestAudit {
    /// A request without an id gets the number of its event. `is_key` recognizes strings that must
    /// not be shown, wherever the caller put them.
    pub(crate) fn new(
        trail: &AuditTrail,
        head: &dyn RequestHead,
        client_ip: Option<IpAddr>,
        given_id: Option<RequestId>,
        is_key: &dyn Fn(&str) -> bool,
    ) -> Self {
        let is_key = |text: &str| is_key(text) || (text.contains('%') && is_key(&decoded(text)));
        let pattern = head.route().map(Cow::Borrowed);
        let route = pattern.unwrap_or_else(|| redacted(head.path(), &is_key));
        let method = head.method();
        let standard = METHODS.iter().find(|known| **known == method);
        let own_method = || shortened(shown(method, &is_key), LONGEST_METHOD);
        let id = trail.next_id();
        let pending = PendingEvent {
            id: EventId::new(id),
            at: trail.recently(),
            method: standard.map_or_else(|| own_method().into(), |known| Cow::Borrowed(*known)),
            route: SmallVec::from_slice(start(&route, LONGEST_ROUTE).as_bytes()),
            request_id: given_id.unwrap_or_else(|| RequestId::of_number(id)),
            client_ip,
            who: Who::Unknown,
            outcome: AuditOutcome::Abandoned,
            status: None,
        };
        Self {
            trail: trail.clone(),
            pending: Some(Box::new(pending)),
        }
    }

    /// Returns the request id: the caller's or a generated one.
    #[must_use]
    pub fn request_id(&self) -> Option<&RequestId> {
        Some(&self.pending.as_ref()?.request_id)
    }

    /// Records that the request was admitted.
    pub fn admitted(&mut self, principal: &KeyPrincipal) {
        if let Some(pending) = &mut self.pending {
            let (entry, acting) = (principal.entry(), principal.acting());
            pending.who = Who::Admitted(entry.clone(), principal.mode(), acting.cloned());
        }
    }

    /// Records the response, with the error that it was rendered from, if any.
    pub fn answered(mut self, status: u16, error: Option<&AuthError>) {
        if let Some(pending) = &mut self.pending {
            // A refused gRPC call has HTTP status 200; the event shows the refusal instead.
            let refused = error.filter(|_| status == 200);
            pending.status = Some(refused.map_or(status, AuthError::status));
            pending.outcome = error.map_or(AuditOutcome::Ok, |error| {
                AuditOutcome::Refused(error.code())
            });
            if let (Who::Unknown, Some(presented)) =
                (&pending.who, error.and_then(AuthError::presented))
            {
                pending.who = Who::Refused(Box::new(presented.clone()));
            }
        }
    }

    /// Records that the service failed without a response.
    pub fn failed(mut self) {
        if let Some(pending) = &mut self.pending {
            pending.outcome = AuditOutcome::Failed;
        }
    }
}

impl Drop for RequestAudit {
    fn drop(&mut self) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let kept = match (pending.outcome, pending.record()) {
            // An admitted request without a key is not recorded.
            (AuditOutcome::Ok, None) => false,
            (AuditOutcome::Ok, Some(_)) => self.trail.keeps_successes(),
            // The request was admitted and may have changed something, so it is always recorded,
            // even for clients that often disconnect early.
            (AuditOutcome::Abandoned | AuditOutcome::Failed, Some(_)) if pending.is_admitted() => {
                true
            }
            (_, record) => self
                .trail
                .keeps_refusal(record.map(|record| record.id.as_str()), pending.client_ip),
        };
        if kept {
            self.trail.note(*pending);
        }
    }
}

impl PendingEvent {
    fn record(&self) -> Option<&KeyRecord> {
        match &self.who {
            Who::Unknown => None,
            Who::Admitted(entry, ..) => Some(&entry.record),
            Who::Refused(presented) => Some(&presented.record),
        }
    }

    /// Returns whether the request was admitted, however it ended.
    fn is_admitted(&self) -> bool {
        matches!(self.who, Who::Admitted(..))
    }

    /// Returns the approximate memory size of the event, in bytes. The record is not read, which is
    /// elsewhere in memory.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.route.len() + self.request_id.bytes();
        size_of::<AuditEvent>() + size_of::<Self>() + texts
    }

    pub(super) fn into_event(self) -> AuditEvent {
        let at = to_the_millisecond(self.at);
        let mut event = AuditEvent::new(self.id, at, Action::Request, self.outcome);
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
            Who::Unknown => {}
            Who::Admitted(entry, mode, acting) => {
                let (entry, acting) = (entry.clone(), acting.clone());
                let principal = KeyPrincipal::new(entry, *mode, acting, None, None, None, None);
                let actor = principal.actor();
                event.mode = Some(principal.mode());
                event.subject = Party::user(actor.user_id, actor.user_email);
                event.name_scopes(principal.scopes().names());
            }
            Who::Refused(presented) => {
                let (mode, subject) = requested_actor(&presented.record, presented.named.as_ref());
                event.mode = Some(mode);
                event.subject = subject;
                event.name_scopes(&presented.record.scopes);
            }
        }
        event.client_ip = self.client_ip;
        event.method = Some(self.method.into_owned());
        event.route = Some(String::from_utf8_lossy(&self.route).into_owned());
        event.request_id = Some(self.request_id);
        event.status = self.status;
        event
    }
}

/// Returns the mode and the user as which a refused key was to act.
fn requested_actor(record: &KeyRecord, named: Option<&NamedUser>) -> (ActorMode, Option<Party>) {
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

/// Returns a text, unless it is or contains a key.
fn shown<'t>(text: &'t str, is_key: &dyn Fn(&str) -> bool) -> &'t str {
    if is_key(text) { REDACTED } else { text }
}

/// Returns a path without the keys in it.
fn redacted<'p>(path: &'p str, is_key: &dyn Fn(&str) -> bool) -> Cow<'p, str> {
    if !is_key(path) {
        return Cow::Borrowed(path);
    }
    let segments: Vec<_> = path.split('/').map(|text| shown(text, is_key)).collect();
    let path = segments.join("/");
    Cow::Owned(if is_key(&path) {
        REDACTED.to_owned()
    } else {
        path
    })
}

/// Decodes percent-encoded bytes, replacing invalid UTF-8.
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

/// Returns at most this many bytes of a string, up to a character boundary.
fn start(text: &str, longest: usize) -> &str {
    &text[..floor_char_boundary(text, longest)]
}

/// Truncates a string to at most this many bytes, at a character boundary.
pub(crate) fn shortened(text: &str, longest: usize) -> String {
    start(text, longest).to_owned()
}

impl fmt::Debug for RequestAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestAudit")
            .field("request_id", &self.request_id())
            .finish_non_exhaustive()
    }
}
