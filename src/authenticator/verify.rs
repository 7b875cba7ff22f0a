//! Verification of a key for operators: what a request with it would get.
//!
//! It takes the same steps as a request and checks the requirement like a route, so the results
//! cannot differ. Only the limit and the transport are skipped: nothing is consumed, and there is
//! no connection.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::facts::{Facts, Purpose};
use super::path::Progress;
use super::rules::{environment, network};
use super::{Authenticated, Authenticator, Inner};
use crate::actor;
use crate::entry::{Entry, KeyFacts};
use crate::error::{AuthError, ErrorCode};
use crate::key::{KeyDigest, KeyId, KeyRecord, WorkspaceId};
use crate::policy::{Principal, Requirement, WorkspaceOf};
use crate::principal::KeyPrincipal;
use crate::request::{FieldName, RequestHead};

/// The description of a hypothetical request for [`Authenticator::verify`].
///
/// What is not set is not evaluated, except that a key with an allow-list requires an address.
#[derive(Debug, Clone, Default)]
#[must_use = "it has no effect until it is passed to Authenticator::verify"]
pub struct Introspection {
    client_ip: Option<IpAddr>,
    method: Option<String>,
    workspace: Option<WorkspaceId>,
    requirement: Option<Requirement>,
}

impl Introspection {
    /// Creates a description with nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the client's address. Without one, a key with an allow-list is refused.
    pub fn with_client_ip(mut self, ip: IpAddr) -> Self {
        self.client_ip = Some(ip);
        self
    }

    /// Sets the method, as sent in a request (`GET`). Without one, the key's access level is not
    /// evaluated, unless the requirement states that the route writes.
    pub fn with_method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Sets the workspace that the request is about, regardless of how the route takes it from a
    /// request. Without one, the result is that of a route that accepts keys of any workspace.
    pub fn with_workspace(mut self, workspace: WorkspaceId) -> Self {
        self.workspace = Some(workspace);
        self
    }

    /// Sets the requirement of the route. If it takes a workspace from a route parameter, the value
    /// is the [workspace](Self::with_workspace); other parts of a request are absent.
    pub fn with_requirement(mut self, requirement: impl Into<Requirement>) -> Self {
        self.requirement = Some(requirement.into());
        self
    }

    /// Returns the whole requirement of a route for such requests.
    fn required(&self) -> Requirement {
        let required = self.requirement.clone().unwrap_or(Requirement::none());
        match self.workspace.clone() {
            Some(id) => {
                let of = WorkspaceOf::function(move |_| Some(id.as_str().to_owned()));
                required.and(Requirement::workspace(of))
            }
            None => required.any_workspace(),
        }
    }
}

/// The head of the hypothetical request.
#[derive(Debug)]
struct AskedHead<'a> {
    method: &'a str,
    asked: &'a Introspection,
}

impl RequestHead for AskedHead<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        ""
    }

    fn parameter(&self, _: &str) -> Option<Cow<'_, str>> {
        let workspace = self.asked.workspace.as_ref();
        workspace.map(|id| Cow::Borrowed(id.as_str()))
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        self.asked.client_ip
    }

    fn visit<'a>(&'a self, _: FieldName<'_>, _: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {}
}

/// The result of verifying a key: what a request with it would get.
#[derive(Debug, Clone)]
pub struct Verdict {
    record: Arc<KeyRecord>,
    refusal: Option<AuthError>,
    explanation: String,
}

impl Verdict {
    /// Returns the id of the key.
    #[must_use]
    pub fn key_id(&self) -> &KeyId {
        &self.record.id
    }

    /// Returns whether the request would pass.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.refusal.is_none()
    }

    /// Returns the error with which the request would be refused, if any.
    #[must_use]
    pub fn refusal(&self) -> Option<&AuthError> {
        self.refusal.as_ref()
    }

    /// Returns an explanation for people, with all parts that were evaluated, including those after
    /// the one that refuses.
    #[must_use]
    pub fn explanation(&self) -> &str {
        &self.explanation
    }
}

impl Authenticator {
    /// Reports what a request with this key would get, by the steps that every request takes. It
    /// does not count as a use of the key or as a failure, takes no quota, and ignores the
    /// transport. The key acts for its owner.
    ///
    /// Returns `None` for a string that is not a key of this service, and for a key that no request
    /// can use: one that is revoked, expired, disabled or not yet valid.
    ///
    /// # Errors
    /// Returns `STORE_UNAVAILABLE` or `DIRECTORY_UNAVAILABLE` if the store or the directory does
    /// not answer.
    pub async fn verify(
        &self,
        key: &str,
        asked: &Introspection,
    ) -> Result<Option<Verdict>, AuthError> {
        let mut formats = self.inner.accepted.iter().flat_map(|way| &way.formats);
        if !formats.any(|format| format.parse(key).is_ok()) {
            return Ok(None);
        }
        let mut facts = Facts {
            client_ip: asked.client_ip,
            ..Facts::new(Purpose::Verification)
        };
        self.inner.digest(key.as_bytes(), &mut facts);
        let mut so_far = Progress::default();
        let outcome = match self.inner.advance(&facts, &mut so_far, None) {
            Ok(None) => self.inner.outcome(&facts, &mut so_far),
            Ok(Some(wait)) => self.inner.finish(&facts, &mut so_far, wait).await,
            Err(error) => Err(error),
        };
        let verdict = |entry, admitted| Ok(Some(self.inner.judge(entry, admitted, asked)));
        match (
            outcome.and_then(Authenticated::into_principal),
            so_far.entry.take(),
        ) {
            (Err(error), _) if error.status() == 503 => Err(error),
            // The key exists but no request can use it, or it does not exist.
            (Err(error), _)
                if error.status() == 401 && error.code() != ErrorCode::WrongEnvironment =>
            {
                Ok(None)
            }
            (Err(error), Some(entry)) => verdict(entry, Err(error)),
            (Err(_), None) => Ok(None),
            (Ok(principal), _) => verdict(principal.entry().clone(), Ok(principal)),
        }
    }
}

impl Authenticator {
    /// Waits for a turn to look up a key for an operator, unless it is known on this node. Unlike
    /// for a request, no client's failures count.
    ///
    /// # Errors
    /// Returns `STORE_UNAVAILABLE` if no turn is granted in time.
    pub(crate) async fn turn(
        &self,
        digests: &[KeyDigest],
    ) -> Result<impl Send + Sized + use<>, AuthError> {
        if self.inner.store.knows(digests) {
            return Ok(None);
        }
        let busy = |_| {
            let why = "too many lookups are in flight";
            AuthError::unavailable(ErrorCode::StoreUnavailable, why)
        };
        self.inner.budget.enter(None).await.map(Some).map_err(busy)
    }
}

impl Inner {
    /// Returns the verdict for a principal that passed the path, or for the error that refused it.
    fn judge(
        &self,
        entry: Entry,
        admitted: Result<KeyPrincipal, AuthError>,
        asked: &Introspection,
    ) -> Verdict {
        // The default method is one that every key is allowed to use.
        let method = asked.method.as_deref().unwrap_or("GET");
        let head = AskedHead { method, asked };
        let record = Arc::clone(&entry.record);
        let (principal, refusal) = match admitted {
            Ok(principal) => {
                let refusal = asked.required().check(&principal, Some(&head)).err();
                (principal, refusal)
            }
            Err(error) => {
                // The remaining parts are explained nevertheless.
                let mode = actor::own_mode(record.kind);
                let principal =
                    KeyPrincipal::new(entry, mode, None, asked.client_ip, None, None, None);
                (principal, Some(error))
            }
        };
        let explanation = self.explain(&principal, refusal.as_ref(), asked);
        Verdict {
            record,
            refusal,
            explanation,
        }
    }

    fn explain(
        &self,
        principal: &KeyPrincipal,
        refusal: Option<&AuthError>,
        asked: &Introspection,
    ) -> String {
        let mut parts = Vec::new();
        parts.extend(
            environment(&principal.entry().facts)
                .err()
                .map(|error| error.detail().to_owned()),
        );
        parts.extend(by_network(&principal.entry().facts, asked.client_ip));
        if let Some(required) = asked.requirement.clone() {
            // Workspaces are explained below.
            let required = required.any_workspace();
            let head = AskedHead {
                method: "GET",
                asked,
            };
            parts.push(required.explain_for(principal, Some(&head)).to_string());
        }
        parts.extend(
            asked
                .method
                .as_deref()
                .map(|method| by_method(principal, method, asked)),
        );
        parts.extend(by_workspace(principal, asked.workspace.as_ref()));
        // Refusals that are not explained above, such as the owner's standing.
        let explained = [
            ErrorCode::WrongEnvironment,
            ErrorCode::IpNotAllowed,
            ErrorCode::InsufficientScope,
        ];
        if let Some(error) = refusal.filter(|error| !explained.contains(&error.code())) {
            parts.insert(0, error.detail().to_owned());
        }
        parts.join("; ")
    }
}

fn by_network(facts: &KeyFacts, ip: Option<IpAddr>) -> Option<String> {
    let allowed = network(facts, ip).is_ok();
    Some(match (&facts.networks, ip) {
        (None, None) => return None,
        (None, Some(ip)) => format!("{ip}: the key has no allow-list"),
        (Some(_), Some(ip)) if allowed => format!("{ip} is on the allow-list"),
        (Some(_), Some(ip)) => format!("{ip} is not on the allow-list"),
        (Some(_), None) => "no client address was given, and the key has an allow-list".into(),
    })
}

fn by_method(principal: &KeyPrincipal, method: &str, asked: &Introspection) -> String {
    let head = AskedHead { method, asked };
    match Requirement::none()
        .any_workspace()
        .check(principal, Some(&head))
    {
        Ok(()) => format!("{method}: the key has access"),
        Err(_) => format!("{method}: the key is read-only"),
    }
}

fn by_workspace(principal: &KeyPrincipal, asked: Option<&WorkspaceId>) -> Option<String> {
    Some(match (asked, principal.workspaces()) {
        (Some(id), _) if principal.reaches(id.as_str()) => format!("the key has access to {id}"),
        (Some(id), _) => format!("the key does not have access to {id}"),
        (None, Some(own)) => {
            let own: Vec<_> = own.iter().map(WorkspaceId::as_str).collect();
            format!(
                "the key has access to these workspaces only: {}",
                own.join(", ")
            )
        }
        (None, None) => return None,
    })
}
