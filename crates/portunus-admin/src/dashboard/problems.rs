//! What is wrong with a form: errors beside its fields, and refusals of the manager.
//!
//! The fields of forms have the names of the JSON API's members, so that an error of the manager finds
//! its field.

use portunus::ErrorCode;
use portunus::manage::ManageError;

use crate::Fault;

/// Why a form was not accepted.
pub(super) enum Problem {
    /// Wrong values, each with the name of its field.
    Fields(Vec<(String, String)>),
    Refused(ManageError),
    Fault(Fault),
}

impl From<ManageError> for Problem {
    fn from(error: ManageError) -> Self {
        Self::Refused(error)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The problems of a form.
#[derive(Default)]
pub(super) struct Problems {
    fields: Vec<(String, String)>,
    refused: Option<Fault>,
    is_stale: bool,
    is_used_up: bool,
}

impl Problems {
    /// Adds a problem.
    ///
    /// # Errors
    /// Returns the problem if it is not about the form: the key does not exist.
    pub(super) fn add(&mut self, problem: Problem) -> Result<(), Fault> {
        match problem {
            Problem::Fields(fields) => self.fields.extend(fields),
            Problem::Refused(error) => self.add_refusal(error)?,
            Problem::Fault(fault) if fault.error().code() == ErrorCode::NotFound => {
                return Err(fault);
            }
            Problem::Fault(fault) => self.refused = Some(fault),
        }
        Ok(())
    }

    fn add_refusal(&mut self, error: ManageError) -> Result<(), Fault> {
        match &error {
            ManageError::NotFound(_) => return Err(error.into()),
            ManageError::Invalid { field, .. } if *field == "Idempotency-Key" => {
                self.is_used_up = true;
            }
            ManageError::Invalid { field, reason } => {
                self.fields.push(((*field).to_owned(), reason.clone()));
            }
            ManageError::Forbidden(denied) => {
                if let Some((field, reason)) = about_field(&denied.0) {
                    self.fields.push((field.to_owned(), reason.to_owned()));
                }
            }
            ManageError::PreconditionFailed | ManageError::Changed { .. } => self.is_stale = true,
            _ => {}
        }
        self.refused = Some(error.into());
        Ok(())
    }

    pub(super) fn refuse(&mut self, fault: Fault) {
        self.refused = Some(fault);
    }

    /// Returns the error of a field.
    pub(super) fn of(&self, field: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(name, _)| name == field);
        found.map(|(_, why)| why.as_str())
    }

    pub(super) fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// Returns whether the key was changed since the form was shown.
    pub(super) const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Returns whether the form was already sent with other values.
    pub(super) const fn is_used_up(&self) -> bool {
        self.is_used_up
    }

    /// Returns the refusal that is not about a field.
    pub(super) fn refusal(&self) -> Option<&Fault> {
        self.refused.as_ref().filter(|_| self.fields.is_empty())
    }

    /// Returns the error response of the form.
    pub(super) fn fault(&self) -> Option<Fault> {
        let wrong = self.fields.first();
        let wrong = || wrong.map(|(field, why)| Fault::invalid(field, why));
        self.refused.clone().or_else(wrong)
    }
}

/// Returns the field that a refusal of the policy is about, and the reason: the first words tell,
/// since a refusal names no field.
fn about_field(why: &str) -> Option<(&'static str, &str)> {
    let starts = [
        ("You cannot grant full access", "access"),
        ("You cannot grant access to", "workspaces"),
        ("The key has access to workspaces", "workspaces"),
        ("You cannot grant a wider delegation", "delegation"),
        ("You cannot grant ", "scopes"),
        ("You cannot set plan ", "plan"),
        ("You cannot set more than ", "rate_limit_config"),
        ("Keys can only be issued for users", "owner.user_id"),
        ("You can only manage your own keys", "owner.user_id"),
        ("You cannot issue keys of kind", "kind"),
        ("You cannot issue keys of environment", "environment"),
    ];
    let found = starts.iter().find(|(start, _)| why.starts_with(start));
    match found {
        Some((_, field)) => Some((field, why)),
        None => Some(("expires_at", why.strip_prefix("expires_at: ")?)),
    }
}
