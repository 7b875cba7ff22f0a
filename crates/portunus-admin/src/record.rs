//! A key's record as the management API shows it: never a secret, never a digest.

use std::time::SystemTime;

use portunus::key::Metadata;
use portunus::manage::ManagedKey;
use portunus::quota::Quotas;
use serde_json::{Map, Value, json};

use crate::limits;
use crate::time::time_text;

/// A key with its usage.
pub(crate) fn managed(key: &ManagedKey, defaults: &Quotas, now: SystemTime) -> Value {
    let (record, usage) = (&key.record, &key.usage);
    json!({
        "id": record.id,
        "key_family": record.family,
        "version": record.version,
        "name": record.name,
        "description": record.description,
        "kind": record.kind,
        "environment": record.environment,
        "owner": record.owner,
        "masked": record.masked,
        "scopes": record.scopes,
        "access": record.access,
        "workspaces": record.workspaces,
        "plan": record.plan,
        "allowed_ips": record.allowed_ips,
        "rate_limit_config": limits::shown(record.quotas.as_ref().unwrap_or(defaults)),
        "status": record.status(now).as_str(),
        "primary": key.primary,
        "enabled": record.enabled,
        "predecessor": record.predecessor,
        "successor": record.successor,
        "rotation_due_at": key.rotation_due.map(time_text),
        "created_at": time_text(record.created_at),
        "not_before": record.not_before.map(time_text),
        "expires_at": record.expires_at.map(time_text),
        "revoked_at": record.revoked.as_ref().map(|revoked| time_text(revoked.at)),
        "revoke_reason": record.revoked.as_ref().and_then(|revoked| revoked.reason.as_deref()),
        "last_used_at": usage.last_used_at.map(time_text),
        "request_count": usage.count,
        "metadata": metadata(&record.metadata),
    })
}

fn metadata(metadata: &Metadata) -> Map<String, Value> {
    metadata.clone().into()
}
