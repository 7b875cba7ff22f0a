//! Refusals of gRPC calls: the same decision as over HTTP, as a gRPC status.
//!
//! A gRPC call is a `POST` of `application/grpc` (gRPC over HTTP2, "Requests") to a service for
//! which the host declared that it serves gRPC. gRPC-Web is a different protocol; its translator
//! belongs in an outer layer. A call is refused with a trailers-only response: HTTP status 200,
//! `grpc-status`, `grpc-message`, and in `grpc-status-details-bin` a `google.rpc.Status` with an
//! `ErrorInfo`, which contains the stable code, and, if a retry helps, a `RetryInfo`. Challenges
//! and rate-limit fields are sent as metadata. `Retry-After` has no meaning in a 200 response;
//! gRPC clients obey `grpc-retry-pushback-ms` (gRFC A6) instead.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::error::{AuthError, ErrorCode};
use crate::limit::LimitReport;
use crate::request::{FieldName, RequestHead, Single};
use crate::text::floor_char_boundary;

/// In bytes. Clients may stop reading metadata at 8 KiB, and the message is sent twice.
const LONGEST_MESSAGE: usize = 1024;

const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const ABORTED: i32 = 10;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// A refusal as a gRPC status, created by
/// [`Responder::grpc_status`](super::Responder::grpc_status).
///
/// The layers answer refused calls themselves. This is for a handler that refuses a call; with
/// tonic:
/// `Status::with_details(Code::from_i32(status.code), status.message, status.details.into())`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcStatus {
    /// The status code (`google.rpc.Code`): 16 for `UNAUTHENTICATED`.
    pub code: i32,
    /// The message for the caller, not encoded; `grpc-message` carries it percent-encoded.
    pub message: String,
    /// A protobuf-encoded `google.rpc.Status` with an `ErrorInfo` and an optional `RetryInfo`;
    /// `grpc-status-details-bin` carries it in base64.
    pub details: Vec<u8>,
}

impl GrpcStatus {
    /// Creates the status for an error. The error code becomes the `reason` within `domain`.
    pub(super) fn new(error: &AuthError, domain: &str) -> Self {
        let code = number(error.code());
        let mut message = error.detail().trim().to_owned();
        message.truncate(floor_char_boundary(&message, LONGEST_MESSAGE));
        let details = details(code, &message, error, domain);
        Self {
            code,
            message,
            details,
        }
    }

    /// Returns the fields of a trailers-only response that follow from the status.
    pub(super) fn fields(&self, error: &AuthError) -> Vec<(&'static str, Cow<'static, str>)> {
        let mut fields: Vec<(&'static str, Cow<'static, str>)> = vec![
            ("content-type", "application/grpc".into()),
            ("grpc-status", self.code.to_string().into()),
            ("grpc-message", percent_encoded(&self.message).into()),
            (
                "grpc-status-details-bin",
                STANDARD_NO_PAD.encode(&self.details).into(),
            ),
        ];
        if let Some(wait) = error.retry_after() {
            fields.push(("grpc-retry-pushback-ms", pushback(wait).into()));
        }
        fields
    }
}

/// Returns whether the request is a gRPC call to a service that serves gRPC.
pub(super) fn is_call(request: &dyn RequestHead) -> bool {
    if !request.serves_grpc() {
        return false;
    }
    let Single::One(value) = request.single(FieldName::Other("content-type")) else {
        return false;
    };
    const TYPE: &[u8] = b"application/grpc";
    let (name, rest) = value.split_at(value.len().min(TYPE.len()));
    request.method() == "POST"
        && name.eq_ignore_ascii_case(TYPE)
        && matches!(rest, [] | [b'+' | b';' | b' ', ..])
}

/// Returns the gRPC status code that `google/rpc/code.proto` maps to the error's HTTP status.
const fn number(code: ErrorCode) -> i32 {
    match code {
        // HTTP 409 maps to several gRPC codes: a key quota is a resource; any other conflict can be
        // retried against the current state.
        ErrorCode::QuotaExceeded => RESOURCE_EXHAUSTED,
        ErrorCode::PreconditionFailed => FAILED_PRECONDITION,
        _ => match code.status() {
            400 | 413 | 415 | 422 => INVALID_ARGUMENT,
            401 => UNAUTHENTICATED,
            404 => NOT_FOUND,
            409 => ABORTED,
            429 => RESOURCE_EXHAUSTED,
            500 => INTERNAL,
            503 => UNAVAILABLE,
            _ => PERMISSION_DENIED,
        },
    }
}

/// Percent-encodes all bytes except space and visible ASCII other than `%`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// Formats a delay in milliseconds, rounded up. A delay that does not fit the field becomes -1,
/// which tells clients not to retry.
fn pushback(wait: Duration) -> String {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000))
        .unwrap_or(-1)
        .to_string()
}

/// Encodes a `google.rpc.Status`: code 1, message 2, details 3.
fn details(code: i32, message: &str, error: &AuthError, domain: &str) -> Vec<u8> {
    let mut status = Message::default();
    status.number(1, u64::from(code.unsigned_abs()));
    status.bytes(2, message.as_bytes());
    status.any("google.rpc.ErrorInfo", &error_info(error, domain));
    if let Some(wait) = error.retry_after() {
        status.any("google.rpc.RetryInfo", &retry_info(wait));
    }
    status.0
}

/// Encodes a `google.rpc.ErrorInfo`: reason 1, domain 2, metadata 3 (key 1, value 2).
fn error_info(error: &AuthError, domain: &str) -> Message {
    let mut info = Message::default();
    info.bytes(1, error.code().as_str().as_bytes());
    info.bytes(2, domain.as_bytes());
    let violated = error
        .limits()
        .map(LimitReport::violated)
        .unwrap_or_default();
    if !violated.is_empty() {
        let mut entry = Message::default();
        entry.bytes(1, b"violated-policies");
        entry.bytes(2, violated.join(",").as_bytes());
        info.bytes(3, &entry.0);
    }
    info
}

/// Encodes a `google.rpc.RetryInfo`: retry_delay 1, a `google.protobuf.Duration` (seconds 1,
/// nanos 2).
fn retry_info(wait: Duration) -> Message {
    let (mut delay, mut info) = (Message::default(), Message::default());
    delay.number(1, wait.as_secs());
    delay.number(2, u64::from(wait.subsec_nanos()));
    info.bytes(1, &delay.0);
    info
}

/// A protobuf message under construction. Only two wire types are needed.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7F {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// Appends a varint field. Zero, the default, is omitted.
    fn number(&mut self, field: u64, value: u64) {
        if value > 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// Appends an element of `details`: a `google.protobuf.Any` (type_url 1, value 2).
    fn any(&mut self, name: &str, message: &Self) {
        let mut any = Self::default();
        any.bytes(1, format!("type.googleapis.com/{name}").as_bytes());
        any.bytes(2, &message.0);
        self.bytes(3, &any.0);
    }
}
