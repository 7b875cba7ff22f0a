//! What the pages are given, and what they return.

use axum::http::Extensions;
use maud::Markup;
use portunus::audit::Action;
use portunus::key::{KeyId, PlaintextKey};
use portunus::manage::{Idempotency, KeyManager, ManagedKey};
use zeroize::Zeroizing;

use super::entry::Fields;
use super::problems::{Problem, Problems};
use super::token::FormToken;
use super::{Site, random, show};
use crate::{AuthenticatedOperator, Fault, name_of};

/// What every response needs, also without an operator.
pub(super) struct Frame {
    pub(super) site: Site,
    pub(super) nonce: String,
    /// What the host added to the request, for its page around this one.
    pub(super) request: Extensions,
}

impl Frame {
    pub(super) fn new(site: Site, nonce: String, request: &Extensions) -> Self {
        let request = match site.look.document {
            Some(_) => request.clone(),
            None => Extensions::new(),
        };
        Self {
            site,
            nonce,
            request,
        }
    }

    /// Returns a text of the table.
    pub(super) fn t(&self, name: &'static str) -> &str {
        self.site.look.texts.get(name)
    }
}

/// A request of an operator.
pub(super) struct Context {
    pub(super) frame: Frame,
    pub(super) operator: AuthenticatedOperator,
    pub(super) query: Fields,
    /// `None` if the proof says of no credential that the request presents it.
    pub(super) token: Option<FormToken>,
}

impl Context {
    pub(super) fn new(
        frame: Frame,
        operator: AuthenticatedOperator,
        query: Fields,
        token: Option<FormToken>,
    ) -> Self {
        Self {
            frame,
            operator,
            query,
            token,
        }
    }

    pub(super) fn t(&self, name: &'static str) -> &str {
        self.frame.t(name)
    }

    /// Returns a text with markup in place of its placeholders, such as `{name}`.
    pub(super) fn fill(&self, name: &str, values: &[(&str, Markup)]) -> Markup {
        self.frame.site.look.texts.fill(name, values)
    }

    /// Returns the title of a page about a key, which differs from page to page.
    pub(super) fn title(&self, text: &'static str, name: &str) -> String {
        self.t(text).replace("{name}", &show::plain(name))
    }

    pub(super) fn manager(&self) -> &KeyManager {
        &self.operator.manager
    }

    /// Returns the id in the query. A malformed id is treated as unknown.
    pub(super) fn id(&self) -> Result<KeyId, Fault> {
        let id = self.query.get("id").and_then(|id| KeyId::new(id).ok());
        id.ok_or_else(Fault::not_found)
    }

    /// Returns the key in the query. A refusal is recorded as one of this action.
    pub(super) async fn key(&self, action: Action) -> Result<ManagedKey, Fault> {
        Ok(self.manager().get_for(action, &self.id()?).await?)
    }

    /// Returns a manager that changes the key only while it is as the form showed it.
    pub(super) fn unchanged_since(&self, form: &Form) -> KeyManager {
        let shown = form
            .fields
            .get("version")
            .and_then(|text| text.parse().ok());
        // A form without a version matches none.
        self.manager()
            .only_if(move |version| shown.is_some() && version == shown)
    }

    /// Identifies the request of a form that creates a key, so that sending it again does not create
    /// another one, on any node.
    pub(super) fn idempotency(&self, form: &Form, act: &str) -> Result<Idempotency, Problem> {
        let who = name_of(self.operator.operator());
        let once = form.fields.get("once").unwrap_or_default();
        let call = format!("dashboard {act}");
        Ok(Idempotency::new(
            &who,
            &call,
            once,
            &form.fields.fingerprint(),
        )?)
    }
}

/// A form that was sent, and what is wrong with it.
pub(super) struct Form {
    pub(super) fields: Fields,
    pub(super) problems: Problems,
}

impl Form {
    pub(super) fn new(fields: Fields) -> Self {
        Self {
            fields,
            problems: Problems::default(),
        }
    }

    /// Returns the idempotency token for the form when it is shown again: the same, unless a key was
    /// already created under it.
    pub(super) fn once(sent: Option<&Self>) -> Result<String, Fault> {
        let kept = sent.filter(|form| !form.problems.is_used_up());
        match kept.and_then(|form| form.fields.get("once")) {
            Some(once) => Ok(once.to_owned()),
            None => random(),
        }
    }
}

/// The content of a page.
pub(super) struct View {
    pub(super) title: String,
    pub(super) body: Markup,
    /// Why nothing was done, which sets the status.
    pub(super) refused: Option<Fault>,
    /// Takes the place of [`secret::PLACE`](super::secret::PLACE) in the body.
    pub(super) secret: Option<Zeroizing<String>>,
}

impl View {
    pub(super) fn new(title: impl Into<String>, body: Markup) -> Self {
        Self {
            title: title.into(),
            body,
            refused: None,
            secret: None,
        }
    }

    /// A form, as it was sent if it was.
    pub(super) fn form(title: impl Into<String>, body: Markup, sent: Option<&Form>) -> Self {
        let refused = sent.and_then(|form| form.problems.fault());
        Self {
            refused,
            ..Self::new(title, body)
        }
    }

    pub(super) fn with_secret(mut self, key: PlaintextKey) -> Self {
        self.secret = Some(Zeroizing::new(key.reveal()));
        self
    }
}

/// The result of a request.
pub(super) enum Outcome {
    Page(View),
    /// A reference to the page that shows what was done (303), so that reloading it repeats nothing.
    SeeOther(String),
}

impl From<View> for Outcome {
    fn from(view: View) -> Self {
        Self::Page(view)
    }
}
