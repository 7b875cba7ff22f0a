//! The dashboard: pages on which operators list, issue, change and end keys.
//!
//! All pages have one path, the mount; what is shown is in the query (`?page=key&id=…`). So every link is
//! a reference that consists of a query only, which a browser resolves to the right place wherever
//! the dashboard is mounted, with or without a trailing slash, and behind a proxy that strips a
//! prefix, where no server can know the path that the browser sees. (With links to paths below the
//! mount, `/keys` and `/keys/` would need different links, and such a proxy sends `/` for both.)
//!
//! A request passes [`answer`]: files need no operator; everything else is proven, limited and audited
//! as a call of the JSON API is, by the same code. A page is a file of this folder with `show`, which
//! returns a [`View`], and `submit` if it has a form. `submit` is called only for a form that this
//! session was given ([`token`]).
//!
//! A new page needs a variant of [`Page`] and its row in `page.rs`, a file with `show` (and `submit`),
//! its arms in `show_page` or `show_form` and `submit` here, a link, its texts in `wording.rs`, and a line
//! in `examples/esign/tests/browser/pages.rs`, where it is tested in a browser.

mod assets;
mod audit;
mod bulk;
mod chain;
mod change;
mod context;
mod controls;
mod detail;
mod edit;
mod end;
mod entry;
mod explain;
mod fields;
mod fragment;
mod gauges;
mod import;
mod issue;
mod layout;
mod list;
mod new_key;
mod operation;
mod page;
mod primary;
mod problems;
mod rotate;
mod secret;
mod show;
mod switch;
mod texts;
mod token;
mod usage;
mod values;
mod wording;
mod wording_many;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::ALLOW;
use axum::http::{Extensions, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use portunus::ErrorCode;
use portunus::audit::ChainKey;
use portunus::key::KeyId;

use crate::call::{Call, observed};
use crate::content::read_form;
use crate::{Admin, AuthenticatedOperator, Fault, Origin, Shared};

use context::{Context, Form, Frame, Outcome, View};
use entry::Fields;
use fragment::DocumentOf;
use page::Page;
use token::FormToken;

pub use fragment::Fragment;
pub use texts::{Texts, UnknownText};

type NonceOf = dyn Fn(&Extensions) -> Option<String> + Send + Sync;

/// Pages for operators, in addition to the JSON API or instead of it. Created by
/// [`Admin::dashboard`].
#[must_use = "a dashboard does nothing until into_router()"]
pub struct Dashboard {
    shared: Shared,
    look: Look,
}

/// What the host sets for the dashboard only.
#[derive(Default)]
struct Look {
    texts: Texts,
    login: Option<String>,
    logout: Option<String>,
    frames: Vec<Origin>,
    nonce: Option<Box<NonceOf>>,
    /// The host's page around each page.
    document: Option<Box<DocumentOf>>,
    chain: Option<chain::Chain>,
}

impl Admin {
    /// Returns the dashboard with the settings of this API: proof, policy, events, limits, trusted
    /// origins. With the policy [`own_keys`](portunus::manage::own_keys) it is a portal on which each
    /// user manages its own keys.
    ///
    /// ```
    /// # use portunus::Portunus;
    /// # use portunus_admin::{Admin, OperatorProof};
    /// # fn with(keys: &Portunus, sessions: impl OperatorProof, log: impl portunus::audit::AuditReader) {
    /// let dashboard = Admin::new(keys, sessions).events(log).cookie("session").dashboard();
    /// let app: axum::Router = axum::Router::new()
    ///     .nest_service("/keys", dashboard.login_at("/login").into_router());
    /// # }
    /// ```
    pub fn dashboard(self) -> Dashboard {
        Dashboard {
            shared: self.shared,
            look: Look::default(),
        }
    }
}

impl Dashboard {
    /// Replaces texts of the pages.
    pub fn texts(mut self, texts: Texts) -> Self {
        self.look.texts = texts;
        self
    }

    /// Sets where operators sign in, as browsers see it: a path such as `/login`, or a URL. A `GET`
    /// without an operator is then answered with 303 to it instead of a page with status 401.
    pub fn login_at(mut self, address: impl Into<String>) -> Self {
        self.look.login = Some(address.into());
        self
    }

    /// Sets where operators sign out: each page gets a button that sends a `POST` without content
    /// there. It must be on the same origin, as browsers see it.
    pub fn logout_at(mut self, address: impl Into<String>) -> Self {
        self.look.logout = Some(address.into());
        self
    }

    /// Sets the sites whose pages may show the dashboard in a frame; none by default. A page that
    /// frames it can trick operators into clicks.
    pub fn frame_ancestors(mut self, sites: impl IntoIterator<Item = Origin>) -> Self {
        self.look.frames = sites.into_iter().collect();
        self
    }

    /// Sets the nonce of the Content Security Policy of a request, for a host that sends a policy of
    /// its own with each response. By default, and for `None`, it is random. It must be new for
    /// each response and consist of letters, digits, `+`, `/`, `-`, `_` and `=`; anything else is
    /// replaced by a random one. For actix-web, see `Dashboard::into_actix`.
    ///
    /// ```
    /// use axum::Router;
    /// use axum::extract::Request;
    /// use axum::http::header::CONTENT_SECURITY_POLICY;
    /// use axum::middleware::{Next, from_fn};
    /// use axum::response::Response;
    /// use portunus_admin::Admin;
    /// # use portunus::{AuthError, ErrorCode, Portunus};
    /// # #[derive(Debug)]
    /// # struct Sessions;
    /// # #[async_trait::async_trait]
    /// # impl portunus_admin::OperatorProof for Sessions {
    /// #     async fn prove(
    /// #         &self,
    /// #         _: &axum::http::request::Parts,
    /// #     ) -> Result<portunus::manage::Operator, AuthError> {
    /// #         Err(AuthError::new(ErrorCode::MissingKey))
    /// #     }
    /// # }
    /// # fn random() -> String {
    /// #     portunus::key::KeyId::generate().unwrap().to_string()
    /// # }
    ///
    /// #[derive(Clone)]
    /// struct Nonce(String);
    ///
    /// // A layer around the whole site.
    /// async fn policy(mut request: Request, next: Next) -> Response {
    ///     let nonce = random();
    ///     request.extensions_mut().insert(Nonce(nonce.clone()));
    ///     let mut response = next.run(request).await;
    ///     let policy = format!("script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'");
    ///     let fields = response.headers_mut();
    ///     fields.insert(CONTENT_SECURITY_POLICY, policy.parse().unwrap());
    ///     response
    /// }
    ///
    /// # let format = portunus::key::KeyFormat::builder("acme_").random(portunus::key::Alphabet::BASE62, 32);
    /// # let keys = Portunus::builder(format.build()?).store(portunus::store::MemoryStore::new()).build()?;
    /// let dashboard = Admin::new(&keys, Sessions)
    ///     .dashboard()
    ///     .nonce(|request| request.get::<Nonce>().map(|nonce| nonce.0.clone()));
    /// let app: Router = Router::new()
    ///     .nest_service("/keys", dashboard.into_router())
    ///     .layer(from_fn(policy));
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// #     use http_body_util::BodyExt;
    /// #     let request = Request::get("/keys").body(axum::body::Body::empty()).unwrap();
    /// #     let response = tower::ServiceExt::oneshot(app, request).await.unwrap();
    /// #     let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    /// #     let page = response.into_body().collect().await.unwrap().to_bytes();
    /// #     let page = std::str::from_utf8(&page).unwrap();
    /// #     let nonce = policy.split(['\'', '-']).skip_while(|part| *part != "nonce").nth(1).unwrap();
    /// #     assert!(nonce.starts_with("key_"));
    /// #     assert_eq!(page.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nonce(
        mut self,
        of: impl Fn(&Extensions) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.look.nonce = Some(Box::new(of));
        self
    }

    /// Adds a page that verifies the chain of events that
    /// [`JsonLines`](portunus::audit::JsonLines) writes to this file, with its key if it has one. Each
    /// request verifies at most 10 000 lines. The page exists for operators without a tenant only
    /// ([`Operator::host`](portunus::manage::Operator::host)), because the file has the events of all
    /// tenants.
    pub fn audit_chain(mut self, file: impl Into<PathBuf>, key: Option<ChainKey>) -> Self {
        self.look.chain = Some(chain::Chain::new(file.into(), key));
        self
    }

    /// Builds the router. Mount it with `nest_service`, which also serves the path with a trailing
    /// slash, or with `merge` or `fallback_service` at `/`.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let site = Site {
            shared: self.shared,
            look: Arc::new(self.look),
        };
        Router::new()
            .route("/", any(answer))
            .route("/{*path}", any(answer))
            .with_state(site)
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard")
            .field("manager", &self.shared.manager)
            .finish_non_exhaustive()
    }
}

/// The settings of a dashboard.
#[derive(Clone)]
struct Site {
    shared: Shared,
    look: Arc<Look>,
}

impl Site {
    /// Returns the nonce of a response.
    fn nonce(&self, request: &Extensions) -> Result<String, Fault> {
        let is_valid = |nonce: &String| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
            (1..=200).contains(&nonce.len()) && nonce.bytes().all(known)
        };
        let hosts = self.look.nonce.as_ref().and_then(|of| of(request));
        match hosts.filter(is_valid) {
            Some(nonce) => Ok(nonce),
            None => random(),
        }
    }
}

/// Returns a random text of letters and digits with 131 bits.
fn random() -> Result<String, Fault> {
    let id = KeyId::generate().map_err(Fault::store)?;
    Ok(id.as_str().trim_start_matches("key_").to_owned())
}

/// Answers a request to the dashboard.
async fn answer(State(site): State<Site>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let query = Fields::parse(parts.uri.query().unwrap_or_default().as_bytes());
    if is_read && let Some(name) = query.as_ref().ok().and_then(|query| query.get("file")) {
        return assets::file(name, &parts.headers);
    }
    let frame = match site.nonce(&parts.extensions) {
        Ok(nonce) => Frame::new(site.clone(), nonce, &parts.extensions),
        Err(fault) => return fault.into_response(),
    };
    let page = query.as_ref().ok().and_then(Page::of);
    let page = page.filter(|_| matches!(parts.uri.path(), "" | "/"));
    let (action, route) = Page::in_audit(page, is_read);
    let call = Arc::new(Call::of_act(&parts, &site.shared, action, route));
    parts.extensions.insert(Arc::clone(&call));
    let response = async {
        let operator = AuthenticatedOperator::from_request_parts(&mut parts, &site.shared).await;
        let operator = match operator {
            Ok(operator) => operator,
            Err(fault) => return layout::signed_out(&frame, fault, is_read),
        };
        let token = FormToken::of(&parts, &site.shared);
        let cx = match query {
            Ok(query) => Context::new(frame, operator, query, token),
            Err(fault) => return layout::refusal(&frame, None, fault),
        };
        let Some(page) = page else {
            return layout::refusal(&cx.frame, Some(&cx), Fault::new(ErrorCode::NotFound, ""));
        };
        let outcome = match parts.method {
            _ if is_read => show_page(&cx, page).await,
            Method::POST => submit(&cx, page, Request::from_parts(parts, body)).await,
            _ => return method_not_allowed(&cx),
        };
        match outcome {
            Ok(outcome) => layout::response(&cx, outcome),
            Err(fault) => layout::refusal(&cx.frame, Some(&cx), fault),
        }
    };
    observed(site.shared.clone(), call, response).await
}

fn method_not_allowed(cx: &Context) -> Response {
    let fault = Fault::new(ErrorCode::NotFound, "");
    let mut response = layout::refusal(&cx.frame, Some(cx), fault);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let allowed = HeaderValue::from_static("GET, HEAD, POST");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

async fn show_page(cx: &Context, page: Page) -> Result<Outcome, Fault> {
    match page {
        Page::Keys => list::show(cx).await.map(Outcome::from),
        Page::Key => detail::show(cx).await.map(Outcome::from),
        Page::Events => audit::show(cx).await.map(Outcome::from),
        Page::Operation => operation::show(cx).await.map(Outcome::from),
        _ => show_form(cx, page, None).await.map(Outcome::from),
    }
}

/// Shows the page of a form, as it is or as it was sent.
async fn show_form(cx: &Context, page: Page, sent: Option<&Form>) -> Result<View, Fault> {
    match page {
        Page::Issue => issue::show(cx, sent).await,
        Page::Explain => Ok(explain::show(cx, sent)),
        Page::Edit => edit::show(cx, sent).await,
        Page::Rotate => rotate::show(cx, sent).await,
        Page::Primary => primary::show(cx, sent).await,
        Page::Disable | Page::Enable => switch::show(cx, page, sent).await,
        Page::Revoke | Page::Delete => end::show(cx, page, sent).await,
        Page::Bulk => bulk::show(cx, sent).await,
        Page::Import => Ok(import::show(cx, sent)),
        Page::Chain => chain::show(cx, sent).await,
        Page::Keys | Page::Key | Page::Events | Page::Operation => Err(Fault::not_found()),
    }
}

/// Handles a form that was sent.
async fn submit(cx: &Context, page: Page, request: Request) -> Result<Outcome, Fault> {
    let bytes = read_form(request).await?;
    let mut form = Form::new(Fields::parse(&bytes)?);
    drop(bytes);
    let Some(token) = &cx.token else {
        return Err(Fault::new(ErrorCode::CrossSite, token::NO_CREDENTIALS));
    };
    if !form.fields.get("token").is_some_and(|sent| token.is(sent)) {
        // Usually the operator signed in again since the page was opened: one more click is enough.
        let fault = Fault::new(ErrorCode::CrossSite, cx.t("form.session"));
        form.problems.refuse(fault);
        return show_form(cx, page, Some(&form)).await.map(Outcome::from);
    }
    let done = match page {
        Page::Issue => issue::submit(cx, &mut form).await,
        Page::Explain => explain::submit(cx, &form).await,
        Page::Edit => edit::submit(cx, &mut form).await,
        Page::Rotate => rotate::submit(cx, &form).await,
        Page::Primary => primary::submit(cx, &form).await,
        Page::Disable | Page::Enable => switch::submit(cx, page, &form).await,
        Page::Revoke | Page::Delete => end::submit(cx, page, &mut form).await,
        Page::Bulk => bulk::submit(cx, &form).await,
        Page::Import => import::submit(cx, &form).await,
        Page::Chain => chain::submit(cx, &form).await,
        Page::Keys | Page::Key | Page::Events | Page::Operation => {
            return Err(Fault::not_found());
        }
    };
    match done {
        Ok(outcome) => Ok(outcome),
        // Beside the field, or above the form, with everything that was entered.
        Err(problem) => {
            form.problems.add(problem)?;
            show_form(cx, page, Some(&form)).await.map(Outcome::from)
        }
    }
}
