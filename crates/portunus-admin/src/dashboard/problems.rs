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
            Problem::Fault(fault) => self.refuse(fault),
        }
        Ok(())
    }

    fn add_refusal(&mut self, error: ManageError) -> Result<(), Fault> {
        match &error {
            ManageError::NotFound(_) => return Err(error.into()),
            ManageError::Invalid { field, .. } if *field == "Idempotency-Key" => {
                self.is_used_up = true;
                self.refused = Some(error.into());
                return Ok(());
            }
            ManageError::PreconditionFailed | ManageError::Changed { .. } => self.is_stale = true,
            _ => {}
        }
        self.refuse(error.into());
        Ok(())
    }

    /// Adds a refusal: beside the field that it names, or above the form.
    pub(super) fn refuse(&mut self, fault: Fault) {
        if let Some(wrong) = wrong_field(&fault) {
            self.fields.push(wrong);
        }
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
        let wrong = || {
            let (field, why) = self.fields.first()?;
            let why = format!("{field}: {why}");
            Some(Fault::new(ErrorCode::InvalidBody, why))
        };
        self.refused.clone().or_else(wrong)
    }
}

/// Returns the field that a refusal is about, and the reason without its name.
pub(super) fn wrong_field(fault: &Fault) -> Option<(String, String)> {
    let (field, detail) = (fault.error().field()?, fault.error().detail());
    let named = detail.strip_prefix(field);
    let reason = named.and_then(|rest| rest.strip_prefix(": "));
    Some((field.to_owned(), reason.unwrap_or(detail).to_owned()))
}
