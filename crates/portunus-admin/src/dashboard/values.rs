//! Reads the values of fields that describe a key. Every wrong value is a problem of its field; all
//! are reported together.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use portunus::Scope;
use portunus::key::{KeyRecord, Metadata, PlanName, TenantId, WorkspaceId};
use portunus::manage::{Accepted, ManageError, NewKey};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};

use super::context::Context;
use super::entry::Fields;
use super::problems::{Problem, wrong_field};
use crate::limits::Windows;
use crate::time::{parse_time, time_text};

/// The lifetimes that forms offer, in days.
pub(super) const DAYS: [u64; 5] = [7, 30, 60, 90, 365];

/// The wrong values of a form.
pub(super) struct Wrong(pub(super) Vec<(String, String)>);

impl Wrong {
    pub(super) fn note(&mut self, field: &str, why: impl Display) {
        self.0.push((field.to_owned(), why.to_string()));
    }

    /// Returns a value; notes the error if there is none.
    pub(super) fn read<T, E: Display>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.note(field, error)).ok()
    }

    /// Notes what is wrong with the texts of a key.
    pub(super) fn texts(&mut self, new: &NewKey) {
        for error in new.invalid_texts() {
            if let ManageError::Invalid { field, reason } = error {
                self.note(field, reason);
            }
        }
    }

    pub(super) fn into_result<T>(self, read: T) -> Result<T, Problem> {
        match self.0.is_empty() {
            true => Ok(read),
            false => Err(Problem::Fields(self.0)),
        }
    }
}

/// Returns entries as a field with one entry in each line shows them.
pub(super) fn lines<'e>(entries: impl Iterator<Item = &'e str>) -> String {
    entries.collect::<Vec<_>>().join("\n")
}

/// Returns the addresses of a key as their field shows them.
pub(super) fn addresses_text(record: &KeyRecord) -> String {
    let entries = record.allowed_ips.iter().flat_map(AllowList::entries);
    let entries: Vec<_> = entries.map(ToString::to_string).collect();
    entries.join("\n")
}

/// Returns metadata as its field shows it: with line breaks, unless the indentation is too long for the
/// form to be sent.
pub(super) fn metadata_text(metadata: &Metadata) -> String {
    let members = serde_json::Map::from(metadata.clone());
    let pretty = serde_json::to_string_pretty(&members).ok();
    let pretty = pretty.filter(|text| text.len() <= Metadata::MAX_LENGTH);
    pretty.unwrap_or_else(|| metadata.as_json().to_owned())
}

/// Returns the scopes; `None` if one of them is wrong.
pub(super) fn scopes(cx: &Context, fields: &Fields, wrong: &mut Wrong) -> Option<Vec<Scope>> {
    let names = fields.entries("scopes");
    let scopes: Result<Vec<_>, _> = names.iter().map(|name| Scope::new(name)).collect();
    let scopes = wrong.read("scopes", scopes)?;
    if let Some(vocabulary) = cx.manager().accepted().vocabulary {
        wrong.read("scopes", vocabulary.check(&scopes))?;
    }
    Some(scopes)
}

/// Returns the workspaces; no entry means the whole organization.
pub(super) fn workspaces(fields: &Fields, wrong: &mut Wrong) -> Option<Option<Vec<WorkspaceId>>> {
    let names = fields.entries("workspaces");
    if names.is_empty() {
        return Some(None);
    }
    let ids: Result<Vec<_>, _> = names.iter().map(|name| WorkspaceId::new(name)).collect();
    wrong.read("workspaces", ids).map(Some)
}

/// Returns the metadata; an empty field is an empty object.
pub(super) fn metadata(fields: &Fields, wrong: &mut Wrong) -> Option<Metadata> {
    let Some(text) = fields.get("metadata") else {
        return Some(Metadata::default());
    };
    // Not by the length of the text: it has line breaks that are not stored.
    let read = portunus::json::parse(text.as_bytes()).map_err(|error| error.to_string());
    let read = read.and_then(|value| Metadata::try_from(value).map_err(|error| error.to_string()));
    wrong.read("metadata", read)
}

/// Returns a time to the minute, as its field shows it.
pub(super) fn minute_text(at: SystemTime) -> String {
    time_text(at)[..16].to_owned()
}

/// Returns the time at which a key starts to work; an empty field means at once.
pub(super) fn start(
    cx: &Context,
    fields: &Fields,
    wrong: &mut Wrong,
) -> Option<Option<SystemTime>> {
    let Some(text) = fields.get("not_before") else {
        return Some(None);
    };
    // Browsers leave out the seconds if they are 0 (HTML §2.3.5.5).
    let rest = if text.len() == 16 { ":00Z" } else { "Z" };
    let at = parse_time(&format!("{text}{rest}"));
    let at = at.map_err(|_| cx.t("time.not_a_time"));
    wrong.read("not_before", at).map(Some)
}

/// Returns the end of a key's life: after a number of days, or at the end of a day in UTC.
pub(super) fn expiry(
    cx: &Context,
    fields: &Fields,
    wrong: &mut Wrong,
) -> Option<Option<SystemTime>> {
    let day = fields.get("expires_on");
    match (fields.get("expires_at").unwrap_or("never"), day) {
        // A day that was entered counts, even if its option was not chosen.
        (_, Some(day)) => {
            let end = parse_time(&format!("{day}T23:59:59.999Z"));
            let end = end.map_err(|_| cx.t("expiry.not_a_day"));
            let end = wrong.read("expires_on", end)?;
            if end < cx.manager().now() {
                wrong.note("expires_on", cx.t("expiry.past"));
            }
            Some(Some(end))
        }
        ("never", None) => Some(None),
        ("date", None) => {
            wrong.note("expires_on", cx.t("expiry.no_day"));
            None
        }
        (days, None) => {
            let known = days.parse().ok().filter(|days| DAYS.contains(days));
            let Some(days) = known else {
                wrong.note("expires_at", cx.t("expiry.unknown"));
                return None;
            };
            Some(Some(
                cx.manager().now() + Duration::from_secs(days * 86_400),
            ))
        }
    }
}

/// The field of a key's own limits, one for all windows.
const LIMITS: &str = "rate_limit_config";

/// Returns the windows that a key can have: those of every key, of the plans, and its own.
pub(super) fn windows(offered: &Accepted, own: Option<&Quotas>) -> Vec<String> {
    let mut windows = vec!["minute".to_owned(), "hour".to_owned()];
    let own = own.map_or(&[][..], Quotas::as_slice).iter();
    let own = own.map(|quota| quota.name().to_owned());
    for name in offered.windows.iter().cloned().chain(own) {
        if !windows.contains(&name) {
            windows.push(name);
        }
    }
    windows
}

/// Returns the name of the field of a window's limit.
pub(super) fn limit_field(window: &str) -> String {
    format!("requests_per_{window}")
}

/// Returns the limit that quotas set for a window.
pub(super) fn limit_of(quotas: Option<&Quotas>, window: &str) -> Option<u64> {
    let quotas = quotas?.as_slice().iter();
    let mut named = quotas.filter(|quota| quota.name() == window);
    named.next().map(Quota::limit)
}

/// Returns the limits that differ from a key's own; `None` for one that was emptied. A field that
/// was not sent changes nothing.
pub(super) fn limits(
    cx: &Context,
    fields: &Fields,
    own: Option<&Quotas>,
    wrong: &mut Wrong,
) -> Vec<(String, Option<u64>)> {
    let mut limits = Vec::new();
    for window in windows(&cx.manager().accepted(), own) {
        let name = limit_field(&window);
        if fields.entered(&name).is_none() {
            continue;
        }
        let limit = match fields.get(&name).map(str::parse::<u64>) {
            None => None,
            Some(Ok(limit)) => Some(limit),
            Some(Err(_)) => {
                wrong.note(LIMITS, cx.t("limits.not_a_number"));
                return Vec::new();
            }
        };
        if limit != limit_of(own, &window) {
            limits.push((window, limit));
        }
    }
    limits
}

/// Returns the quotas of a key with changed limits.
pub(super) fn quotas(
    limits: Vec<(String, Option<u64>)>,
    own: Option<&Quotas>,
    default: Option<&Quotas>,
    wrong: &mut Wrong,
) -> Option<Option<Quotas>> {
    match Windows::of(limits).merged_into(own, default) {
        Ok(quotas) => Some(quotas),
        Err(fault) => {
            let why = wrong_field(&fault).map(|(_, why)| why);
            wrong.note(LIMITS, why.as_deref().unwrap_or(fault.error().detail()));
            None
        }
    }
}

/// Returns the default of a key's quotas: those of its plan, or else of its tenant's.
pub(super) async fn default_quotas(
    cx: &Context,
    plan: Option<&PlanName>,
    tenant: &TenantId,
) -> Result<Option<Quotas>, ManageError> {
    match plan {
        Some(plan) => Ok(cx.manager().quotas_of_plan(plan)),
        None => cx.manager().quotas_of_tenant(tenant).await,
    }
}
