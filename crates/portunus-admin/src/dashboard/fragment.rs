//! Pages as parts of the host's pages.

use std::fmt;

use axum::http::{Extensions, StatusCode};

use super::Dashboard;

pub(super) type DocumentOf = dyn Fn(&Fragment<'_>) -> String + Send + Sync;

/// A page as a part of a page of the host ([`Dashboard::within`]).
#[non_exhaustive]
pub struct Fragment<'p> {
    /// The title of the page, escaped: it belongs into `<title>` as it is.
    pub title: &'p str,
    /// The content: one `<div class="portunus">`, which refers to its own stylesheet and script.
    pub html: &'p str,
    /// The nonce of the response, for the host's own styles and scripts ([`Dashboard::nonce`]).
    pub nonce: &'p str,
    /// The status of the response.
    pub status: StatusCode,
    /// What layers of the host added to the request, such as the user whom its page shows.
    pub request: &'p Extensions,
}

impl fmt::Debug for Fragment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragment")
            .field("title", &self.title)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Dashboard {
    /// Puts the pages into pages of the host, for example a portal into the settings of a user.
    /// `document` returns the whole document; it is called for every page, also where the request is
    /// refused. With [`Fragment::html`] alone as the document, the response is a fragment that a proxy
    /// can include.
    ///
    /// - The document contains the fragment unchanged and unescaped. A secret is added to it later:
    ///   the function never sees one.
    /// - Links and forms consist of a query only, so the document must not have a `<base>`. Its own
    ///   ids begin neither with `f-` nor equal one of the fragment's.
    /// - The stylesheet concerns only what is inside of `.portunus`. Its colors, radius and fonts are
    ///   the variables at its top (`--portunus-accent` and so on), which a rule of the host for
    ///   `.portunus` sets, wherever it is. A page with a single theme sets all colors, since they
    ///   depend on `prefers-color-scheme`.
    /// - The response has the dashboard's own Content Security Policy, which allows styles and scripts
    ///   with the nonce, and images of this origin. A host whose page needs more replaces the field
    ///   in a layer; the policy must allow `form-action 'self'` and the nonce.
    ///
    /// ```
    /// use axum::Router;
    /// # use axum::extract::Request;
    /// use portunus::manage::own_keys;
    /// use portunus_admin::Admin;
    /// # use portunus::manage::{Operator, Role};
    /// # use portunus::{AuthError, ErrorCode, Portunus};
    /// # #[derive(Debug)]
    /// # struct Sessions;
    /// # #[async_trait::async_trait]
    /// # impl portunus_admin::OperatorProof for Sessions {
    /// #     async fn prove(&self, _: &axum::http::request::Parts) -> Result<Operator, AuthError> {
    /// #         let (Ok(user), Ok(tenant)) = ("ann".parse(), "acme".parse()) else {
    /// #             return Err(AuthError::new(ErrorCode::InvalidKey));
    /// #         };
    /// #         Ok(Operator::new(user, tenant, Role::Member).in_organization())
    /// #     }
    /// # }
    ///
    /// # let format = portunus::key::KeyFormat::builder("acme_").random(portunus::key::Alphabet::BASE62, 32);
    /// # let keys = Portunus::builder(format.build()?).store(portunus::store::MemoryStore::new()).build()?;
    /// let portal = Admin::new(&keys, Sessions)
    ///     .operators(own_keys())
    ///     .cookie("session")
    ///     .dashboard()
    ///     .within(|page| {
    ///         let (title, html, nonce) = (page.title, page.html, page.nonce);
    ///         format!(
    ///             "<!DOCTYPE html><html lang=\"en\"><head><title>{title} – Acme</title>\
    ///              <style nonce=\"{nonce}\">.portunus {{ --portunus-accent: #00695c }}</style></head>\
    ///              <body><nav><a href=\"/account\">Account</a></nav><main>{html}</main></body></html>"
    ///         )
    ///     });
    /// let app: Router = Router::new().nest_service("/account/keys", portal.into_router());
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// #     use http_body_util::BodyExt;
    /// #     let request = Request::get("/account/keys").header("cookie", "session=1");
    /// #     let request = request.body(axum::body::Body::empty()).unwrap();
    /// #     let response = tower::ServiceExt::oneshot(app, request).await.unwrap();
    /// #     assert_eq!(response.status(), 200);
    /// #     let page = response.into_body().collect().await.unwrap().to_bytes();
    /// #     let page = std::str::from_utf8(&page).unwrap();
    /// #     assert!(page.contains("<main><div class=\"portunus fragment\"") && page.contains("New key"));
    /// #     assert_eq!((page.matches("<html").count(), page.matches("<main").count()), (1, 1));
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn within(
        mut self,
        document: impl Fn(&Fragment<'_>) -> String + Send + Sync + 'static,
    ) -> Self {
        self.look.document = Some(Box::new(document));
        self
    }
}
