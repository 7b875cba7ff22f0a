//! The words of the five APIs on the pages of the dashboard.

use portunus_admin::Texts;
use portunus_profiles::Profile;

/// Returns the texts of a profile's pages.
pub(crate) fn texts(profile: Profile) -> Texts {
    let words: &[(&str, &str)] = match profile {
        Profile::AllSign => &[
            ("app.name", "AllSign API keys"),
            (
                "secret.once",
                "Copy the key now: the full key is only shown once. Later, only its last 4 characters \
                 are displayed.",
            ),
            (
                "revoke.lead",
                "The key is invalid at once, for ever. If it has been compromised, generate a new one.",
            ),
        ],
        Profile::InSigner => &[
            ("app.name", "inSigner API keys"),
            ("nav.issue", "Create API key"),
            ("list.issue", "Create API key"),
            ("issue.title", "Create API key"),
            ("issue.submit", "Create"),
            (
                "secret.once",
                "Your key is displayed once: copy it immediately.",
            ),
        ],
        Profile::Yousign => &[
            ("app.name", "Yousign API keys"),
            ("field.workspaces", "Authorized workspaces"),
            ("field.access", "Permissions"),
            (
                "access.full",
                "Full access: read, create, update and delete",
            ),
            ("access.read", "Read only"),
        ],
        Profile::IuSign => &[
            ("app.name", "IUSign API keys"),
            ("nav.issue", "Generate new key"),
            ("list.issue", "Generate new key"),
            ("issue.title", "Generate new key"),
            ("issue.submit", "Generate new key"),
            ("secret.of", "Secret key of {name}"),
            (
                "secret.once",
                "Copy the secret key now, into an encrypted credential manager. IUSign does not store it \
                 in clear text.",
            ),
            (
                "revoke.lead",
                "The credential is invalid at once, and all API traffic with it is blocked. This cannot \
                 be undone.",
            ),
        ],
        Profile::DropboxSign => &[
            ("app.name", "Dropbox Sign API keys"),
            ("nav.issue", "Generate key"),
            ("list.issue", "Generate key"),
            ("issue.title", "Generate key"),
            ("issue.submit", "Generate key"),
            ("status.primary", "Primary key"),
            (
                "primary.warning",
                "The primary key is used to generate event_hash. Check that your app is ready to verify \
                 the event_hash using the new key.",
            ),
        ],
        _ => &[],
    };
    // A test walks the pages of every profile: a name that does not exist would leave the usual text.
    words.iter().fold(Texts::new(), |texts, (name, text)| {
        let usual = texts.clone();
        texts.with(name, *text).unwrap_or(usual)
    })
}
