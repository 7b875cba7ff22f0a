//! The content of writes: a JSON media type, UTF-8, no content codings, bounded length.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::everywhere::good;
use crate::fixture::{Ask, Fixture, NEST, send};

/// The maximum time for a response that does not wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Media types of content, and whether `POST` and whether `PATCH` accept them.
const TYPES: &[(&[&str], bool, bool)] = &[
    (&["application/json"], true, true),
    (&["APPLICATION/Json"], true, true),
    (&["application/json;charset=utf-8"], true, true),
    (&["application/json ; Charset=\"UTF-8\""], true, true),
    (
        &["application/json;\tcharset=UTF-8 ;x=\"a;\\\"b\""],
        true,
        true,
    ),
    (&["application/json;"], true, true),
    (&["application/json; ;version=1"], true, true),
    (&["application/merge-patch+json"], false, true),
    (
        &["Application/Merge-Patch+JSON; charset=utf-8"],
        false,
        true,
    ),
    (&["application/json; charset=iso-8859-1"], false, false),
    (&["application/json; charset=utf-16"], false, false),
    (
        &["application/json; charset=utf-8; charset=latin1"],
        false,
        false,
    ),
    (&["application/json; charset=\"utf-7\""], false, false),
    (&["application/json; charset="], false, false),
    (&["application/json; charset"], false, false),
    (&["application/json; charset=\"utf-8"], false, false),
    (&["application/json, text/plain"], false, false),
    (&["application/json; x=1, text/plain"], false, false),
    (&["application/json text/plain"], false, false),
    (&["application/json", "application/json"], false, false),
    (&["text/plain", "application/json"], false, false),
    (&["application/json", "text/plain"], false, false),
    (&["text/plain"], false, false),
    (&["text/plain; application/json"], false, false),
    (&["text/plain;charset=application/json"], false, false),
    (&["application/x-www-form-urlencoded"], false, false),
    (
        &["multipart/form-data; boundary=application/json"],
        false,
        false,
    ),
    (&["text/json"], false, false),
    (&["application/jsonp"], false, false),
    (&["application/vnd.api+json"], false, false),
    (&["application/json-patch+json"], false, false),
    (&["application/*"], false, false),
    (&["*/*"], false, false),
    (&["json"], false, false),
    (&[""], false, false),
];

const WITH_A_BODY: [(&str, &str); 8] = [
    ("POST", "/keys"),
    ("POST", "/import"),
    ("POST", "/verify"),
    ("PATCH", "/keys/{id}"),
    ("DELETE", "/keys/{id}"),
    ("POST", "/keys/{id}/revoke"),
    ("POST", "/keys/{id}/rotate"),
    ("POST", "/keys/{id}/primary"),
];

async fn with_content(fixture: &Fixture, method: &str, template: &str) -> Ask {
    let ask = good(fixture, method, template).await;
    match ask.body {
        Some(_) => ask,
        None => ask.raw("{}"),
    }
}

#[tokio::test]
async fn content_is_json_by_its_media_type_or_415_with_the_types_that_are_taken() {
    for (method, template) in WITH_A_BODY {
        let fixture = Fixture::new().await;
        for (types, post, patch) in TYPES {
            let taken = if method == "PATCH" { *patch } else { *post };
            let ask = with_content(&fixture, method, template).await;
            let ask = types
                .iter()
                .fold(ask, |ask, media| ask.header("content-type", media));
            let before = fixture.keys().await;
            let answer = send(&fixture.router, &ask).await;
            fixture
                .document
                .check_as(&answer.status.to_string(), &ask, &answer);
            let context = format!("{method} {template} {types:?}");
            if taken {
                assert!(answer.status < 300, "{context}: {}", answer.status);
                continue;
            }
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (415, &json!("UNSUPPORTED_MEDIA_TYPE")),
                "{context}"
            );
            let (accept, patch) = (
                answer.headers.get("accept"),
                answer.headers.get("accept-patch"),
            );
            if method == "PATCH" {
                assert_eq!(accept, None);
                assert_eq!(
                    patch.unwrap(),
                    "application/json, application/merge-patch+json"
                );
            } else {
                let types = match template {
                    "/import" => "application/json, application/x-ndjson, text/csv",
                    _ => "application/json",
                };
                assert_eq!((accept.unwrap().to_str().unwrap(), patch), (types, None));
            }
            assert_eq!(fixture.keys().await, before, "{context}");
        }
        let ask = with_content(&fixture, method, template).await;
        let answer = send_without_type(&fixture, &ask).await;
        assert_eq!(answer, 415, "{method} {template}");
    }
}

#[tokio::test]
async fn content_codings_are_refused_and_identity_is_none() {
    let fixture = Fixture::new().await;
    for (method, template) in WITH_A_BODY {
        for (codings, taken) in [
            (&["identity"][..], true),
            (&["Identity, identity"], true),
            (&[""], true),
            (&["gzip"], false),
            (&["identity, gzip"], false),
            (&["identity", "br"], false),
            (&["x"], false),
        ] {
            let ask = with_content(&fixture, method, template).await;
            let ask = codings
                .iter()
                .fold(ask, |ask, coding| ask.header("content-encoding", coding));
            let answer = send(&fixture.router, &ask).await;
            let context = format!("{method} {template} {codings:?}: {}", answer.status);
            assert_eq!(answer.status < 300, taken, "{context}");
            if !taken {
                fixture.document.check_as("415", &ask, &answer);
                assert_eq!(answer.headers["accept-encoding"], "identity", "{context}");
            }
        }
    }
}

#[tokio::test]
async fn without_content_no_type_is_needed() {
    let fixture = Fixture::new().await;
    for (method, template) in WITH_A_BODY {
        for media in [None, Some("text/plain"), Some("multipart/form-data")] {
            let mut ask = good(&fixture, method, template).await;
            ask.body = None;
            let ask = media
                .into_iter()
                .fold(ask, |ask, media| ask.header("content-type", media))
                .header("content-encoding", "gzip");
            let answer = send(&fixture.router, &ask).await.status;
            // If the body has a required field, it is missing.
            let expected = match template {
                "/keys" | "/import" | "/verify" => 422..=422,
                _ => 200..=204,
            };
            assert!(expected.contains(&answer), "{ask:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn too_much_content_is_413_and_the_most_is_taken() {
    let fixture = Fixture::new().await;
    for (method, template) in WITH_A_BODY {
        let takes = fixture.document.operation(method, template)["requestBody"].is_object();
        for (length, fits) in [(4 << 20, true), ((4 << 20) + 1, false)] {
            let mut ask = with_content(&fixture, method, template).await;
            // White space after JSON is insignificant.
            ask.body.as_mut().unwrap().resize(length, b' ');
            let answer = send(&fixture.router, &ask).await;
            if fits || !takes {
                assert!(
                    answer.status < 300,
                    "{method} {template}: {}",
                    answer.status
                );
                continue;
            }
            fixture.document.check_as("413", &ask, &answer);
            assert_eq!(answer.json()["code"], "TOO_LARGE", "{method} {template}");
            // The type is checked first.
            let answer = send(&fixture.router, &ask.header("content-type", "text/plain")).await;
            assert_eq!(answer.status, 415, "{method} {template}");
        }
    }
}

#[tokio::test]
async fn refusals_do_not_depend_on_the_content() {
    let fixture = Fixture::new().await;
    let text = |ask: Ask| ask.raw("x").header("content-type", "text/plain");
    for (method, template) in WITH_A_BODY {
        let ask = text(good(&fixture, method, template).await);
        let status = async |ask: Ask| send(&fixture.router, &ask).await.status;
        assert_eq!(
            status(ask.clone().by_nobody()).await,
            401,
            "{method} {template}"
        );
        assert_eq!(
            status(ask.clone().by("member")).await,
            403,
            "{method} {template}"
        );
        if template.contains("{id}") {
            assert_eq!(
                status(ask.clone().of("key_unknown")).await,
                404,
                "{method} {template}"
            );
        }
        assert_eq!(status(ask).await, 415, "{method} {template}");
    }
}

/// Returns the status for a request with content and without a media type.
async fn send_without_type(fixture: &Fixture, ask: &Ask) -> u16 {
    let operator = ask.operator.as_deref().unwrap();
    let request = Request::builder()
        .method(ask.method.as_str())
        .uri(format!("{NEST}{}", ask.path))
        .header("authorization", format!("Bearer {operator}"))
        .body(Body::from(ask.body.clone().unwrap()))
        .unwrap();
    let answer = fixture.router.clone().oneshot(request).await.unwrap();
    answer.status().as_u16()
}

/// A body of unknown length: these chunks, then its end, an error, or nothing.
struct Chunks {
    left: VecDeque<Bytes>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    End,
    Error,
    Silence,
}

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match (self.left.pop_front(), self.then) {
            (Some(data), _) => Poll::Ready(Some(Ok(Frame::data(data)))),
            (None, Then::End) => Poll::Ready(None),
            (None, Then::Error) => Poll::Ready(Some(Err("connection reset"))),
            (None, Then::Silence) => Poll::Pending,
        }
    }
}

pub(crate) fn chunks(chunks: &[&[u8]], then: Then) -> Body {
    let left = chunks.iter().copied().map(Bytes::copy_from_slice).collect();
    Body::new(Chunks { left, then })
}

/// Returns the status and code for a request with this body and media type.
async fn send_body(fixture: &Fixture, ask: &Ask, media: Option<&str>, body: Body) -> (u16, Value) {
    let operator = ask.operator.as_deref().unwrap_or("stranger");
    let mut request = Request::builder()
        .method(ask.method.as_str())
        .uri(format!("{NEST}{}", ask.path))
        .header("authorization", format!("Bearer {operator}"));
    for (name, value) in &ask.headers {
        request = request.header(*name, value.as_slice());
    }
    if let Some(media) = media {
        request = request.header("content-type", media);
    }
    let answer = fixture.router.clone().oneshot(request.body(body).unwrap());
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let answer = answer.unwrap_or_else(|_| panic!("{ask:?} {media:?}: no answer"));
    let (head, body) = answer.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let json = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    (head.status.as_u16(), json["code"].clone())
}

#[tokio::test]
async fn unexpected_chunked_content_is_refused_at_its_first_byte() {
    let fixture = Fixture::new().await;
    let mebibyte = vec![b' '; 1 << 20];
    let long = [&mebibyte[..]; 5];
    for (method, template) in WITH_A_BODY {
        let refused = (415, json!("UNSUPPORTED_MEDIA_TYPE"));
        for media in [
            None,
            Some("text/plain"),
            Some("application/json; charset=latin1"),
        ] {
            for (body, then) in [
                (&[&b"x"[..]][..], Then::Silence),
                (&[b"", b"", b"{"], Then::Silence),
                (&[b"{}"], Then::Error),
                (&long, Then::End),
                // More than is ever read, at once.
                (&[&mebibyte.repeat(5)], Then::End),
            ] {
                let ask = good(&fixture, method, template).await;
                let answer = send_body(&fixture, &ask, media, chunks(body, then)).await;
                assert_eq!(answer, refused, "{method} {template} {media:?} {then:?}");
            }
        }
        let ask = good(&fixture, method, template)
            .await
            .header("content-encoding", "gzip");
        let media = Some("application/json");
        let answer = send_body(&fixture, &ask, media, chunks(&[b"x"], Then::Silence)).await;
        assert_eq!(answer, refused, "{method} {template}");
    }
}

#[tokio::test]
async fn an_unauthorized_call_is_refused_before_any_chunk_arrives() {
    let fixture = Fixture::new().await;
    for (method, template) in WITH_A_BODY {
        let ask = good(&fixture, method, template).await;
        for (ask, status) in [
            (ask.clone().by("stranger"), 401),
            (ask.clone().by("member"), 403),
            (ask.clone().header("origin", "https://evil.example"), 403),
            (ask.clone().header("sec-fetch-site", "cross-site"), 403),
        ] {
            let media = Some("application/json");
            let answer = send_body(&fixture, &ask, media, chunks(&[], Then::Silence)).await;
            assert_eq!(answer.0, status, "{ask:?}");
        }
    }
}

#[tokio::test]
async fn chunks_of_the_right_type_are_read_to_their_end_and_not_beyond_the_most() {
    let fixture = Fixture::new().await;
    let mebibyte = vec![b' '; 1 << 20];
    for (method, template) in WITH_A_BODY {
        let takes = fixture.document.operation(method, template)["requestBody"].is_object();
        for (more, then, status, code) in [
            (&[][..], Then::End, 200, Value::Null),
            (&[&b""[..], &mebibyte], Then::End, 200, Value::Null),
            (&[&mebibyte], Then::Error, 400, json!("INVALID_REQUEST")),
            // The request is refused as soon as the limit is exceeded, without waiting for the end.
            (&[&mebibyte[..]; 4], Then::Silence, 413, json!("TOO_LARGE")),
        ] {
            let ask = with_content(&fixture, method, template).await;
            let own = ask.body.clone().unwrap();
            let body = [&[&own[..1], &own[1..]], more].concat();
            let body = chunks(&body, then);
            let answer = send_body(&fixture, &ask, Some("application/json"), body).await;
            // Content that is not accepted is not read either.
            if status == 200 || !takes {
                assert!(answer.0 < 300, "{method} {template}: {answer:?}");
            } else {
                assert_eq!(answer, (status, code), "{method} {template}");
            }
        }
    }
}

#[tokio::test]
async fn chunks_without_content_need_no_type() {
    let fixture = Fixture::new().await;
    for (method, template) in WITH_A_BODY {
        for (body, media) in [
            (&[][..], None),
            (&[&b""[..], b""], None),
            (&[b""], Some("text/plain")),
        ] {
            let ask = good(&fixture, method, template).await;
            let answer = send_body(&fixture, &ask, media, chunks(body, Then::End)).await;
            match template {
                "/keys" | "/import" | "/verify" => assert_eq!(answer.0, 422, "{template}"),
                _ => assert!(answer.0 < 300, "{method} {template}: {answer:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_smaller_limit_of_the_hosts_own_is_413_too() {
    let fixture = Fixture::new().await;
    for (method, template) in WITH_A_BODY {
        if !fixture.document.operation(method, template)["requestBody"].is_object() {
            continue;
        }
        let ask = with_content(&fixture, method, template).await;
        let body = Body::new(Limited::new(chunks(&[b"{", &[b' '; 100]], Then::End), 50));
        let answer = send_body(&fixture, &ask, Some("application/json"), body).await;
        assert_eq!(answer, (413, json!("TOO_LARGE")), "{method} {template}");
    }
}
