//! The pages, and references to them.

use form_urlencoded::Serializer;
use portunus::audit::Action;

use super::entry::Fields;

/// A page, as `page` in the query names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// The list of keys; also without a name.
    Keys,
    Issue,
    Key,
    Edit,
    Rotate,
    Primary,
    Disable,
    Enable,
    Revoke,
    Delete,
    /// Why a request would be refused.
    Explain,
    /// The audit events.
    Events,
    /// An operation on many keys: what to do with which, and how far it is.
    Bulk,
    Operation,
    Import,
    /// Verification of the chain of events.
    Chain,
}

/// Each page with its name, its route in audit events, and the action of its form.
const PAGES: [(Page, &str, &str, Action); 16] = [
    (Page::Keys, "keys", "/?page=keys", Action::Manage),
    (Page::Issue, "issue", "/?page=issue", Action::KeyIssue),
    (Page::Key, "key", "/?page=key", Action::Manage),
    (Page::Edit, "edit", "/?page=edit", Action::KeyUpdate),
    (Page::Rotate, "rotate", "/?page=rotate", Action::KeyRotate),
    (
        Page::Primary,
        "primary",
        "/?page=primary",
        Action::KeyMakePrimary,
    ),
    (
        Page::Disable,
        "disable",
        "/?page=disable",
        Action::KeyDisable,
    ),
    (Page::Enable, "enable", "/?page=enable", Action::KeyEnable),
    (Page::Revoke, "revoke", "/?page=revoke", Action::KeyRevoke),
    (Page::Delete, "delete", "/?page=delete", Action::KeyDelete),
    (
        Page::Explain,
        "explain",
        "/?page=explain",
        Action::KeyVerify,
    ),
    (Page::Events, "events", "/?page=events", Action::Manage),
    (Page::Bulk, "bulk", "/?page=bulk", Action::KeyBulk),
    (
        Page::Operation,
        "operation",
        "/?page=operation",
        Action::Manage,
    ),
    (Page::Import, "import", "/?page=import", Action::KeyImport),
    (Page::Chain, "chain", "/?page=chain", Action::Manage),
];

impl Page {
    /// Returns the page that a query asks for.
    pub(super) fn of(query: &Fields) -> Option<Self> {
        let Some(name) = query.get("page") else {
            return Some(Self::Keys);
        };
        let found = PAGES.iter().find(|(_, known, ..)| *known == name);
        found.map(|(page, ..)| *page)
    }

    pub(super) fn name(self) -> &'static str {
        let found = PAGES.iter().find(|(page, ..)| *page == self);
        found.map_or("keys", |(_, name, ..)| name)
    }

    /// Returns the action and the route by which a request is recorded if it is refused.
    pub(super) fn in_audit(page: Option<Self>, is_read: bool) -> (Action, Option<&'static str>) {
        let found = PAGES.iter().find(|(known, ..)| Some(*known) == page);
        match found {
            None => (Action::Manage, None),
            Some((.., route, _)) if is_read => (Action::KeyRead, Some(route)),
            Some((.., route, action)) => (*action, Some(route)),
        }
    }

    /// Returns a reference to the page: a query only, which browsers resolve against the mount.
    pub(super) fn link(self) -> String {
        self.link_with([])
    }

    /// Returns a reference to the page of a key.
    pub(super) fn of_key(self, id: &portunus::key::KeyId) -> String {
        self.link_with([("id", id.as_str())])
    }

    /// Returns a reference with more fields.
    pub(super) fn link_with<'v>(
        self,
        fields: impl IntoIterator<Item = (&'static str, &'v str)>,
    ) -> String {
        let mut query = Serializer::for_suffix("?".to_owned(), 1);
        query.append_pair("page", self.name());
        query.extend_pairs(fields);
        query.finish()
    }
}
