//! The `WWW-Authenticate` header (RFC 9110 §11.6.1): one line per accepted scheme.

use std::fmt::Write;

use crate::credential::{Accepted, Scheme};
use crate::error::{AuthError, ChallengeError};

/// The challenges of one authenticator, by scheme.
#[derive(Debug, Clone)]
pub(crate) struct Challenges {
    realm: String,
    schemes: Vec<Scheme>,
}

impl Challenges {
    /// Creates the challenges for the accepted schemes, or for Bearer if there are none.
    pub(crate) fn new(realm: &str, accepted: &[Accepted]) -> Self {
        let mut schemes: Vec<_> = accepted.iter().map(|way| way.scheme.clone()).collect();
        if schemes.is_empty() {
            schemes.push(Scheme::Bearer);
        }
        // Keep only the characters that need no escaping in a quoted-string.
        let realm = realm
            .chars()
            .filter(|&c| (' '..='~').contains(&c) && c != '"' && c != '\\')
            .collect();
        Self { realm, schemes }
    }

    pub(crate) fn realm(&self) -> &str {
        &self.realm
    }

    /// Returns the header lines for an error; none if its status requires no challenge.
    pub(crate) fn of(&self, error: &AuthError) -> impl Iterator<Item = String> {
        let kind = error.code().challenge();
        self.schemes
            .iter()
            .filter_map(move |scheme| self.line(scheme, kind?, error))
    }

    fn line(&self, scheme: &Scheme, kind: ChallengeError, error: &AuthError) -> Option<String> {
        let realm = &self.realm;
        // Only Bearer has an `error` parameter; on a 403 the other schemes have no challenge.
        let refused = kind == ChallengeError::InsufficientScope;
        let mut line = match scheme {
            Scheme::Bearer => format!(r#"Bearer realm="{realm}""#),
            Scheme::Basic | Scheme::Header(_) if refused => return None,
            Scheme::Basic => return Some(format!(r#"Basic realm="{realm}", charset="UTF-8""#)),
            // No registered scheme describes a custom header, but a 401 must carry a challenge.
            Scheme::Header(name) => {
                return Some(format!(r#"ApiKey realm="{realm}", header="{name}""#));
            }
        };
        line.push_str(match kind {
            ChallengeError::None => "",
            ChallengeError::InvalidRequest => r#", error="invalid_request""#,
            ChallengeError::InvalidToken => r#", error="invalid_token""#,
            ChallengeError::InsufficientScope => r#", error="insufficient_scope""#,
        });
        if let Some(missing) = error.missing_scope() {
            // Scope tokens contain no quotes or backslashes (RFC 6749 §3.3).
            let scopes: Vec<_> = missing
                .required
                .first_alternative()
                .iter()
                .map(|s| s.as_str())
                .collect();
            // An empty `scope` parameter is not allowed (RFC 6750 §3).
            if !scopes.is_empty() {
                let _ = write!(line, r#", scope="{}""#, scopes.join(" "));
            }
        }
        Some(line)
    }
}
