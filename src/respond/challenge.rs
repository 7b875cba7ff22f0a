//! `WWW-Authenticate` (RFC 9110 §11.6.1): one line per scheme that is accepted.

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
    /// Challenges for these ways; Bearer alone if there are none.
    pub(crate) fn new(realm: &str, accepted: &[Accepted]) -> Self {
        let mut schemes: Vec<_> = accepted.iter().map(|way| way.scheme.clone()).collect();
        if schemes.is_empty() {
            schemes.push(Scheme::Bearer);
        }
        // A quoted-string without what would end it or need escaping.
        let realm = realm
            .chars()
            .filter(|&c| (' '..='~').contains(&c) && c != '"' && c != '\\')
            .collect();
        Self { realm, schemes }
    }

    pub(crate) fn realm(&self) -> &str {
        &self.realm
    }

    /// The lines that go with an error: none, where its status asks for none.
    pub(crate) fn of(&self, error: &AuthError) -> impl Iterator<Item = String> {
        let kind = error.code().challenge();
        self.schemes
            .iter()
            .filter_map(move |scheme| self.line(scheme, kind?, error))
    }

    fn line(&self, scheme: &Scheme, kind: ChallengeError, error: &AuthError) -> Option<String> {
        let realm = &self.realm;
        // Only Bearer has a parameter for what went wrong; on a 403 the others have nothing to say.
        let refused = kind == ChallengeError::InsufficientScope;
        let mut line = match scheme {
            Scheme::Bearer => format!(r#"Bearer realm="{realm}""#),
            Scheme::Basic | Scheme::Header(_) if refused => return None,
            Scheme::Basic => return Some(format!(r#"Basic realm="{realm}", charset="UTF-8""#)),
            // No registered scheme describes a header of its own; 401 must carry some challenge all
            // the same.
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
            // Scope tokens have neither quotes nor backslashes (RFC 6749 §3.3).
            let scopes: Vec<_> = missing
                .required
                .first_alternative()
                .iter()
                .map(|s| s.as_str())
                .collect();
            // An empty one is not allowed (RFC 6750 §3).
            if !scopes.is_empty() {
                let _ = write!(line, r#", scope="{}""#, scopes.join(" "));
            }
        }
        Some(line)
    }
}
