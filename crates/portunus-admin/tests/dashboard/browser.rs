//! A browser without script: it resolves references, reads forms out of pages, sends them, follows
//! redirections.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use form_urlencoded::Serializer;
use http_body_util::BodyExt;
use tower::ServiceExt;

#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) router: Router,
    /// The value of the cookie `session`.
    pub(crate) session: Option<String>,
    /// What a proxy in front removes from each path.
    pub(crate) stripped: &'static str,
}

/// A response, with the address that it was requested at.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) address: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A form of a page, with the values that it would be sent with.
#[derive(Debug, Clone)]
pub(crate) struct PageForm {
    pub(crate) action: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl PageForm {
    /// Enters a value.
    pub(crate) fn enter(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn value(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known == name);
        &found
            .unwrap_or_else(|| panic!("no field {name}: {self:?}"))
            .1
    }

    pub(crate) fn encoded(&self) -> String {
        Serializer::new(String::new())
            .extend_pairs(&self.fields)
            .finish()
    }
}

impl Browser {
    pub(crate) async fn get(&self, address: &str) -> Page {
        self.request(self.head("GET", address), address, String::new())
            .await
    }

    /// Opens a reference on a page.
    pub(crate) async fn open(&self, page: &Page, reference: &str) -> Page {
        self.get(&resolve(&page.address, reference)).await
    }

    /// Sends a form as it is.
    pub(crate) async fn post(&self, page: &Page, form: &PageForm) -> Page {
        let address = resolve(&page.address, &form.action);
        let head = self
            .head("POST", &address)
            .header("origin", "https://keys.example");
        let head = head.header("content-type", "application/x-www-form-urlencoded");
        self.request(head, &address, form.encoded()).await
    }

    /// Sends a form, and follows the redirection to the page that shows what was done.
    pub(crate) async fn submit(&self, page: &Page, form: &PageForm) -> Page {
        let answer = self.post(page, form).await;
        if answer.status != 303 {
            return answer;
        }
        let location = answer.headers["location"].to_str().unwrap().to_owned();
        self.open(&answer, &location).await
    }

    pub(crate) fn head(&self, method: &str, address: &str) -> axum::http::request::Builder {
        let path = address.strip_prefix(self.stripped).expect("the prefix");
        let target = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        let mut head = Request::builder().method(method).uri(target);
        head = head
            .header("host", "keys.example")
            .header("sec-fetch-site", "same-origin");
        if let Some(session) = &self.session {
            head = head.header("cookie", format!("other=1; session={session}"));
        }
        head
    }

    pub(crate) async fn request(
        &self,
        head: axum::http::request::Builder,
        address: &str,
        body: String,
    ) -> Page {
        let request = head.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Page {
            address: address.to_owned(),
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }
}

/// Resolves a reference (RFC 3986 §5.2.2) that is a path, or a query only.
pub(crate) fn resolve(base: &str, reference: &str) -> String {
    let path = base.split('?').next().unwrap();
    if reference.starts_with('?') {
        return format!("{path}{reference}");
    }
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let (folder, _) = path.rsplit_once('/').unwrap();
    format!("{folder}/{reference}")
}

impl Page {
    /// Asserts the status; returns the page.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.address, self.body);
        self
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.body.contains(text)
    }

    /// Returns the text without tags.
    pub(crate) fn text(&self) -> String {
        let main = self.body.split("<main").nth(1).unwrap_or(&self.body);
        let parts = main.split('<').skip(1);
        let text: String = parts
            .filter_map(|part| Some(part.split_once('>')?.1))
            .collect();
        unescaped(&text)
    }

    /// Returns the reference of the link with this text.
    pub(crate) fn link(&self, text: &str) -> String {
        let ends = [format!(">{text}</a>"), format!(">{text}</bdi></a>")];
        let end = ends.iter().find_map(|end| self.body.find(end));
        let end = end.unwrap_or_else(|| panic!("no link {text}: {}", self.body));
        let start = self.body[..end].rfind("<a ").unwrap();
        attribute(&self.body[start..end], "href").unwrap()
    }

    /// Returns the form that is sent with POST and is not that of the sign-out.
    pub(crate) fn form(&self) -> PageForm {
        let main = self.body.split("<main").nth(1).expect("a main part");
        let form = main.split("<form method=\"post\"").nth(1);
        let form = form.unwrap_or_else(|| panic!("no form: {}", self.body));
        let form = form.split("</form>").next().unwrap();
        let action = attribute(form, "action").unwrap_or_default();
        PageForm {
            action,
            fields: fields(form),
        }
    }

    /// Returns the error beside a field, which the field refers to.
    pub(crate) fn error(&self, field: &str) -> Option<String> {
        let id = format!("f-{}-error", field.replace('.', "-"));
        let (_, after) = self.body.split_once(&format!("id=\"{id}\">"))?;
        let described = self.body.split("aria-describedby=\"").skip(1);
        let mut described = described.filter_map(|rest| rest.split('"').next());
        assert!(
            described.any(|ids| ids.split(' ').any(|one| one == id)),
            "no control refers to {id}"
        );
        Some(unescaped(after.split('<').next().unwrap()))
    }

    /// Returns the secret that the page shows.
    pub(crate) fn secret(&self) -> Option<String> {
        let (_, after) = self.body.split_once("<code id=\"secret\"")?;
        let (_, after) = after.split_once('>')?;
        Some(unescaped(after.split('<').next()?))
    }
}

/// Returns the values that a browser sends for the controls of a form.
fn fields(form: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut select: Option<(String, Option<String>)> = None;
    for tag in form.split('<').skip(1) {
        let (head, text) = tag.split_once('>').unwrap_or((tag, ""));
        let name = attribute(head, "name");
        let value = || attribute(head, "value").unwrap_or_default();
        if head.starts_with("input") {
            let boxed = head.contains("type=\"checkbox\"") && !head.ends_with(" checked");
            if let (Some(name), false) = (name, boxed) {
                fields.push((name, value()));
            }
        } else if head.starts_with("textarea") {
            let text = text.strip_prefix('\n').unwrap_or(text);
            fields.push((name.unwrap(), unescaped(text)));
        } else if head.starts_with("select") {
            select = Some((name.unwrap(), None));
        } else if head.starts_with("option") {
            let (_, chosen) = select.as_mut().expect("an option of a select");
            if chosen.is_none() || head.contains(" selected") {
                *chosen = Some(value());
            }
        } else if head.starts_with("/select") {
            let (name, value) = select.take().unwrap();
            fields.push((name, value.unwrap_or_default()));
        }
    }
    fields
}

fn attribute(head: &str, name: &str) -> Option<String> {
    let (_, after) = head.split_once(&format!(" {name}=\""))?;
    Some(unescaped(after.split('"').next()?))
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">");
    text.replace("&quot;", "\"").replace("&amp;", "&")
}
