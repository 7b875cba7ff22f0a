//! The output on stdout when the server is ready: one line of JSON for programs, or a short banner
//! for people.

use std::io::{self, Write};
use std::net::SocketAddr;

use portunus::key::{KeyKind, Owner, TenantId};
use portunus::manage::{ManageError, NewKey};
use portunus::store::ListQuery;
use portunus_profiles::Profile;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::cli::Flags;

pub(crate) async fn announce(flags: &Flags, app: &App, address: SocketAddr) -> Result<(), String> {
    let scheme = if flags.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{address}");
    let text = if flags.ready_json {
        let operators: Map<_, _> = app
            .operators
            .tokens
            .iter()
            .map(|(name, token)| ((*name).to_owned(), Value::from(token.as_str())))
            .collect();
        let line = json!({
            "url": url,
            "admin_url": format!("{url}/admin"),
            "dashboard_url": format!("{url}/dashboard"),
            "operators": operators,
            "pid": std::process::id(),
        });
        format!("{line}\n")
    } else {
        human_banner(app, &url).await?
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to stdout: {error}"))
}

/// The name of the key that the banner shows.
const FIRST_KEY: &str = "first key";

/// Deletes the keys that earlier starts have shown, except the primary key.
async fn delete_earlier_keys(app: &App) -> Result<(), String> {
    let mut query = ListQuery::new(app.manager.now());
    query.text = Some(FIRST_KEY.into());
    query.limit = 500;
    let page = app
        .manager
        .list(query)
        .await
        .map_err(|error| format!("cannot list the keys: {error}"))?;
    for key in page
        .items
        .iter()
        .filter(|key| key.record.name == FIRST_KEY && !key.primary)
    {
        app.manager
            .delete(&key.record.id)
            .await
            .map_err(|error| format!("cannot delete the keys of earlier starts: {error}"))?;
    }
    Ok(())
}

async fn human_banner(app: &App, url: &str) -> Result<String, String> {
    let owner =
        Owner::tenant(TenantId::new(App::demo_tenant()).map_err(|error| error.to_string())?);
    let (path, scopes) = match app.profile {
        Profile::AllSign => (
            "/v2/documents",
            vec![
                portunus::scope!("document:*"),
                portunus::scope!("signature:read"),
            ],
        ),
        Profile::InSigner => (
            "/api/v1/documents",
            vec![
                portunus::scope!("documents.*"),
                portunus::scope!("org.read"),
            ],
        ),
        Profile::DropboxSign => ("/v3/signature_request/list", Vec::new()),
        _ => ("/whoami", Vec::new()),
    };
    let mut new = NewKey::new(FIRST_KEY, owner).with_scopes(scopes);
    new.kind = KeyKind::App;
    let issued = match app.manager.issue(new.clone()).await {
        Err(ManageError::QuotaExceeded { .. }) => {
            delete_earlier_keys(app).await?;
            app.manager.issue(new).await
        }
        issued => issued,
    };
    let issued = issued.map_err(|error| format!("cannot issue the first key: {error}"))?;
    let key = issued.key.reveal();
    let present = match app.profile {
        Profile::DropboxSign => format!("-u '{key}:'"),
        _ => format!("-H 'Authorization: Bearer {key}'"),
    };
    let token = app
        .operators
        .tokens
        .iter()
        .find(|(name, _)| *name == "owner")
        .map_or("", |(_, token)| token);
    let note = match app.profile {
        Profile::IuSign if !url.starts_with("https") => {
            "This API mandates TLS 1.3; without --tls-cert and --tls-key the demo does not enforce it.\n"
        }
        _ => "",
    };
    Ok(format!(
        "\
esign, profile {profile}: {url}
{note}A key, shown this once: {key}

  curl -i {url}{path} {present}
  curl -i {url}{path}
  curl -i {url}/whoami {present}

Manage keys in a browser at {url}/dashboard, as the owner with the token
{token}

or at {url}/admin:

  curl -i {url}/admin/keys -H 'Authorization: Bearer {token}'
  curl -i {url}/admin/keys -H 'Authorization: Bearer {token}' \\
       -H 'Content-Type: application/json' -d '{{\"name\":\"my key\"}}'

Press Ctrl-C to stop.
",
        profile = app.profile,
    ))
}
