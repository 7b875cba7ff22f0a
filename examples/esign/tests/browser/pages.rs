//! All pages of the demo's dashboard and portal. A new page is one more line of [`PAGES`].

use portunus_test_support::browser::Browser;
use serde_json::json;

use crate::common::{Call, Server};

/// A page: its name, its address, what is entered, and the button that is pressed. The names in braces
/// are those of [`Demo::new`].
pub(crate) type PageOf = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

pub(crate) const PAGES: &[PageOf] = &[
    ("login", "/me/login", &[], ""),
    (
        "login-wrong",
        "/dashboard/login",
        &[("Operator token", "wrong")],
        "Sign in",
    ),
    ("keys", "/dashboard", &[], ""),
    (
        "keys-none",
        "/dashboard?page=keys&view=expiring&query=nothing",
        &[],
        "",
    ),
    ("keys-wrong", "/dashboard?page=keys&plan=%01", &[], ""),
    ("issue", "/dashboard?page=issue", &[], ""),
    (
        "issue-wrong",
        "/dashboard?page=issue",
        &[("Name", " "), ("Addresses", "nowhere")],
        "Create key",
    ),
    (
        "secret",
        "/dashboard?page=issue",
        &[("Name", "Invoices")],
        "Create key",
    ),
    ("key", "/dashboard?page=key&id={used}", &[], ""),
    ("key-rotated", "/dashboard?page=key&id={rotated}", &[], ""),
    ("key-revoked", "/dashboard?page=key&id={revoked}", &[], ""),
    ("edit", "/dashboard?page=edit&id={used}", &[], ""),
    (
        "edit-wrong",
        "/dashboard?page=edit&id={used}",
        &[("Name", " "), ("Addresses", "nowhere")],
        "Save",
    ),
    ("rotate", "/dashboard?page=rotate&id={used}", &[], ""),
    (
        "rotate-secret",
        "/dashboard?page=rotate&id={spare}",
        &[],
        "Rotate key",
    ),
    ("primary", "/dashboard?page=primary&id={used}", &[], ""),
    ("disable", "/dashboard?page=disable&id={used}", &[], ""),
    ("enable", "/dashboard?page=enable&id={disabled}", &[], ""),
    ("revoke", "/dashboard?page=revoke&id={used}", &[], ""),
    (
        "revoke-wrong",
        "/dashboard?page=revoke&id={used}",
        &[("Confirm", "no")],
        "Revoke key",
    ),
    ("delete", "/dashboard?page=delete&id={used}", &[], ""),
    ("explain", "/dashboard?page=explain", &[], ""),
    (
        "explain-allowed",
        "/dashboard?page=explain",
        &[("Secret", "{secret}")],
        "Check",
    ),
    (
        "explain-refused",
        "/dashboard?page=explain",
        &[
            ("Secret", "{secret}"),
            ("Scopes that it needs", "document:delete"),
        ],
        "Check",
    ),
    (
        "explain-inactive",
        "/dashboard?page=explain",
        &[("Secret", "unknown")],
        "Check",
    ),
    ("events", "/dashboard?page=events", &[], ""),
    (
        "events-none",
        "/dashboard?page=events&key_id=key_unknown",
        &[],
        "",
    ),
    ("bulk", "/dashboard?page=bulk&query=Production", &[], ""),
    (
        "bulk-counted",
        "/dashboard?page=bulk&key={spare}&key={used}",
        &[],
        "Count the keys",
    ),
    ("bulk-nothing", "/dashboard?page=bulk", &[], ""),
    (
        "operation",
        "/dashboard?page=operation&id={operation}",
        &[],
        "",
    ),
    ("import", "/dashboard?page=import", &[], ""),
    (
        "import-report",
        "/dashboard?page=import",
        &[("Lines", "name,digest.scheme,digest.hex\nnightly job,md5,00")],
        "Import",
    ),
    ("not-found", "/dashboard?page=nothing", &[], ""),
    ("portal", "/me/keys", &[], ""),
    ("portal-issue", "/me/keys?page=issue", &[], ""),
    (
        "portal-secret",
        "/me/keys?page=issue",
        &[("Name", "My script")],
        "Create key",
    ),
];

/// A demo with keys in every state, and a browser that is signed in to both areas.
pub(crate) struct Demo {
    pub(crate) browser: Browser,
    server: Server,
    named: Vec<(&'static str, String)>,
}

impl Demo {
    pub(crate) fn new(adapter: &str) -> Self {
        let server = Server::start("allsign", &["--adapter", adapter], &[]);
        let issue = |name: &str, description: &str| {
            let body = json!({ "name": name, "description": description,
                "scopes": ["document:read", "document:write"] });
            server.issue(body)
        };
        let primary = issue("Signing service", "Signs the events that go to customers");
        let revoked = issue("Laptop of a former colleague", "");
        let answer = server.admin(
            "owner",
            Call::post(&format!("/keys/{}/revoke", revoked.id()))
                .json(&json!({ "reason": "left the company" })),
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        let disabled = issue("Mobile app (beta)", "Until the next release");
        let path = format!("/keys/{}", disabled.id());
        let off = json!({ "enabled": false });
        assert_eq!(
            server
                .admin("owner", Call::new("PATCH", &path).json(&off))
                .status,
            200
        );
        let rotated = issue("Nightly export", "Copies new documents to the archive");
        let spare = issue("Staging", "");
        let path = format!("/keys/{}/rotate", rotated.id());
        let grace = json!({ "grace_seconds": 86_400 });
        let answer = server.admin("owner", Call::post(&path).json(&grace));
        assert_eq!(answer.status, 201, "{}", answer.text());
        let body = json!({ "name": "Partner access", "scopes": ["document:read"],
            "expires_at": (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72)).to_string(),
            "allowed_ips": ["203.0.113.0/24", "2001:db8::/32"] });
        server.issue(body);
        let used = issue(
            "Production server",
            "Sends contracts to customers.\nOn call: payments team",
        );
        for issued in [&primary, &rotated, &used] {
            for _ in 0..17 {
                assert_eq!(server.get("/v2/documents", &issued.key).status, 200);
            }
        }
        let end = json!({ "action": "disable", "filter": { "query": "former colleague" } });
        let started = server.admin("owner", Call::post("/keys/bulk").json(&end));
        assert_eq!(started.status, 202, "{}", started.text());
        let operation = started.json()["id"].as_str().unwrap().to_owned();
        let named = vec![
            ("{operation}", operation),
            ("{used}", used.id().to_owned()),
            ("{rotated}", rotated.id().to_owned()),
            ("{revoked}", revoked.id().to_owned()),
            ("{disabled}", disabled.id().to_owned()),
            ("{spare}", spare.id().to_owned()),
            ("{secret}", used.key.clone()),
        ];
        let demo = Self {
            browser: Browser::start(),
            server,
            named,
        };
        for (area, operator) in [("/dashboard", "owner"), ("/me", "member")] {
            demo.browser.open(&demo.at(&format!("{area}/login")));
            demo.browser
                .enter("Operator token", &demo.server.operator(operator));
            demo.browser.press("Sign in");
        }
        demo
    }

    fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    fn filled(&self, text: &str) -> String {
        let named = self.named.iter();
        named.fold(text.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }

    /// Opens a page.
    pub(crate) fn open(&self, page: &PageOf) {
        let (name, address, entered, button) = page;
        self.browser.open(&self.at(&self.filled(address)));
        for (label, text) in *entered {
            self.browser.enter(label, &self.filled(text));
        }
        if !button.is_empty() {
            self.browser.press(button);
        }
        // An address with a mistake has a page, too.
        let is_missing = self.browser.title().starts_with("Not found");
        assert_eq!(is_missing, *name == "not-found", "{name}");
    }

    /// Opens each page, and looks at it.
    pub(crate) fn walk(&self, look: impl Fn(&Browser, &str)) {
        for page in PAGES {
            self.open(page);
            look(&self.browser, page.0);
        }
    }
}
