//! Keys in responses, without secrets and digests.

use std::net::IpAddr;
use std::time::SystemTime;

use portunus::key;
use portunus::manage::ManagedKey;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::limits::{Policy, RateLimits};
use crate::terms;
use crate::time::time_text;

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRecord<'k> {
    #[schema(value_type = terms::KeyId)]
    id: &'k key::KeyId,
    /// Identifier shared by a key and its successors by rotation.
    #[schema(value_type = terms::Id)]
    key_family: &'k key::KeyFamily,
    /// Incremented by every change except usage; the value of `ETag`.
    #[schema(minimum = 1)]
    version: u64,
    #[schema(min_length = 1, max_length = 1000)]
    name: &'k str,
    #[schema(required, max_length = 1000)]
    description: Option<&'k str>,
    #[schema(value_type = terms::KeyKind)]
    kind: &'k key::KeyKind,
    #[schema(value_type = terms::Environment)]
    environment: &'k key::Environment,
    #[schema(value_type = Owner)]
    owner: &'k key::Owner,
    /// The parts of the secret that can be displayed.
    masked: &'k str,
    #[schema(value_type = Vec<terms::Scope>)]
    scopes: &'k [portunus::Scope],
    #[schema(value_type = terms::Access)]
    access: key::Access,
    /// `null` for the whole organization.
    #[schema(required, value_type = Option<Vec<terms::WorkspaceId>>, min_items = 1)]
    workspaces: Option<&'k [key::WorkspaceId]>,
    /// The plan that applies: the key's own, or else the tenant's.
    #[schema(required, value_type = Option<terms::PlanName>)]
    plan: Option<&'k key::PlanName>,
    /// `null` for any address.
    #[schema(required, value_type = Option<Vec<terms::Network>>, min_items = 1)]
    allowed_ips: Option<&'k portunus::network::AllowList>,
    rate_limit_config: RateLimits,
    /// Every limit that applies to requests with the key, by the name that responses show. Limits of
    /// a class of requests apply to its requests only.
    policies: Vec<Policy<'k>>,
    #[schema(value_type = terms::KeyStatus)]
    status: &'static str,
    primary: bool,
    enabled: bool,
    #[schema(required, value_type = Option<terms::KeyId>)]
    predecessor: Option<&'k key::KeyId>,
    #[schema(required, value_type = Option<terms::KeyId>)]
    successor: Option<&'k key::KeyId>,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    rotation_due_at: Option<String>,
    #[schema(value_type = terms::Timestamp)]
    created_at: String,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    not_before: Option<String>,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    expires_at: Option<String>,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    revoked_at: Option<String>,
    #[schema(required, max_length = 1000)]
    revoke_reason: Option<&'k str>,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    last_used_at: Option<String>,
    request_count: u64,
    metadata: Map<String, Value>,
}

/// The owner of a key.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes what the library serializes")]
pub(crate) struct Owner {
    #[schema(value_type = terms::Id)]
    tenant_id: String,
    #[schema(value_type = terms::Id, required = false)]
    user_id: String,
    #[schema(max_length = 1000, required = false)]
    user_email: String,
}

impl<'k> KeyRecord<'k> {
    /// Builds the view of a key with its usage.
    pub(crate) fn of(key: &'k ManagedKey, now: SystemTime) -> Self {
        let (record, usage) = (&*key.record, &key.usage);
        let revoked = record.revoked.as_ref();
        Self {
            id: &record.id,
            key_family: &record.family,
            version: record.version,
            name: &record.name,
            description: record.description.as_deref(),
            kind: &record.kind,
            environment: &record.environment,
            owner: &record.owner,
            masked: &record.masked,
            scopes: &record.scopes,
            access: record.access,
            workspaces: record.workspaces.as_deref(),
            plan: key.plan.as_ref(),
            allowed_ips: record.allowed_ips.as_ref(),
            rate_limit_config: RateLimits::of(key.quotas.as_ref()),
            policies: key.policies.iter().map(Policy::of).collect(),
            status: record.status(now).as_str(),
            primary: key.primary,
            enabled: record.enabled,
            predecessor: record.predecessor.as_ref(),
            successor: record.successor.as_ref(),
            rotation_due_at: key.rotation_due.map(time_text),
            created_at: time_text(record.created_at),
            not_before: record.not_before.map(time_text),
            expires_at: record.expires_at.map(time_text),
            revoked_at: revoked.map(|revoked| time_text(revoked.at)),
            revoke_reason: revoked.and_then(|revoked| revoked.reason.as_deref()),
            last_used_at: usage.last_used_at.map(time_text),
            request_count: usage.count,
            metadata: record.metadata.clone().into(),
        }
    }
}

/// A page of keys. A page may be shorter than `limit`, even empty, without being the last: at most
/// 10 000 rows are read for a page.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPage<'k> {
    pub(crate) items: Vec<KeyRecord<'k>>,
    /// Cursor of the next page; `null` on the last page.
    #[schema(required, pattern = "^[0-9]+(_[0-9]{1,6})?\\.[!-~]{1,128}$")]
    pub(crate) next_cursor: Option<String>,
    /// Stored rows that cannot be read and are omitted: table, row and column. Absent if there are
    /// none, and for operators who see less than their whole tenant. Rows that may belong to
    /// another tenant are not listed.
    #[schema(value_type = Vec<String>, max_length = 400)]
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) corrupt: &'k [String],
}

/// The hourly usage of a key.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Usage<'k> {
    #[schema(value_type = terms::KeyId)]
    pub(crate) id: &'k key::KeyId,
    pub(crate) request_count: u64,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    pub(crate) last_used_at: Option<String>,
    #[schema(required, value_type = Option<terms::IpAddress>)]
    pub(crate) last_ip: Option<IpAddr>,
    /// Hours without requests are omitted.
    pub(crate) hours: Vec<HourOfUse>,
    /// Stored rows that cannot be read, as in a page of keys.
    #[schema(value_type = Vec<String>, max_length = 400)]
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) corrupt: &'k [String],
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HourOfUse {
    #[schema(value_type = terms::Timestamp)]
    pub(crate) start: String,
    pub(crate) count: u64,
}
