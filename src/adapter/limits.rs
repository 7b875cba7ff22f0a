//! The limits of a request, for handlers: their state, and charging more units.

use std::fmt;
use std::net::IpAddr;
use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use super::carrier::{Anonymous, Carrier, Holds};
use super::rejection::Rejection;
use crate::error::AuthError;
use crate::limit::LimitReport;
use crate::principal::{AnonymousCount, KeyPrincipal};
use crate::request::{FieldName, RequestHead};
use crate::respond::Responder;

/// The limits that apply to a request: a handler's argument.
///
/// It has the state of each quota after the request was counted, and it can count more units, for
/// example once the size of a result is known. The rate-limit fields of the response show the state
/// after the last charge. Without any limit it is empty, and charges are not refused.
///
/// ```
/// use portunus::adapter::axum::{RateLimits, Rejection};
///
/// async fn export(mut limits: RateLimits) -> Result<String, Rejection> {
///     let rows = vec!["a", "b", "c"];
///     limits.charge(rows.len() as u64).await?; // 429, and nothing is counted, if they do not fit
///     Ok(format!("{} rows, {:?} units left", rows.len(), limits.remaining()))
/// }
/// ```
#[derive(Clone)]
pub struct RateLimits {
    report: LimitReport,
    of: Of,
    responder: Arc<Responder>,
    head: KeptHead,
}

/// Those whose request was counted.
#[derive(Clone)]
enum Of {
    Key(Box<KeyPrincipal>),
    Anonymous(Arc<AnonymousCount>),
    Nobody,
}

impl RateLimits {
    /// Returns the limits of a request that an outer layer authenticated; `None` if none did.
    pub(super) fn read<C: Carrier>(carrier: &C, head: &dyn RequestHead) -> Option<Self> {
        let head = KeptHead::of(head);
        if let Some(principal) = Holds::<KeyPrincipal>::look(carrier) {
            let report = principal.limits().unwrap_or_else(LimitReport::empty);
            return Some(Self {
                report,
                responder: principal.responder_arc(),
                of: Of::Key(Box::new(principal.into_owned())),
                head,
            });
        }
        let Anonymous {
            responder, count, ..
        } = Holds::<Anonymous>::look(carrier)?.into_owned();
        let of = count.map_or(Of::Nobody, Of::Anonymous);
        let report = match &of {
            Of::Anonymous(count) => count.report(),
            _ => LimitReport::empty(),
        };
        Some(Self {
            report,
            of,
            responder,
            head,
        })
    }

    /// Counts more units against all limits of the request, or against none.
    ///
    /// # Errors
    /// If the units do not fit, the rejection is the response with 429 `RATE_LIMITED`, and nothing
    /// is counted; with 403 if they can never fit. While the limiter does not answer, the
    /// service's outage mode applies.
    pub async fn charge(&mut self, units: u64) -> Result<(), Rejection> {
        self.count(units, false).await
    }

    /// Counts more units against all limits of the request, even if they do not fit: later requests
    /// are refused until they do.
    ///
    /// # Errors
    /// The rejection is the response with 503 if the limiter does not answer and the outage mode is
    /// `closed`.
    pub async fn overdraw(&mut self, units: u64) -> Result<(), Rejection> {
        self.count(units, true).await
    }

    async fn count(&mut self, units: u64, overdraw: bool) -> Result<(), Rejection> {
        let charged = match &self.of {
            _ if units == 0 => return Ok(()),
            Of::Key(principal) => principal.count_more(units, overdraw).await,
            Of::Anonymous(count) => count.charge(units, overdraw).await,
            Of::Nobody => return Ok(()),
        };
        match charged {
            Ok(report) => {
                self.report = report;
                Ok(())
            }
            Err(error) => {
                if let Some(report) = error.limits() {
                    self.report = report.clone();
                }
                Err(self.reject(error))
            }
        }
    }

    fn reject(&self, error: AuthError) -> Rejection {
        let answer = self.responder.answer(&error, &self.head);
        Rejection { error, answer }
    }
}

impl Deref for RateLimits {
    type Target = LimitReport;
    fn deref(&self) -> &LimitReport {
        &self.report
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimits").field(&self.report).finish()
    }
}

/// What a renderer may read of a request, kept until a charge is refused.
#[derive(Clone)]
struct KeptHead {
    method: String,
    path: String,
    serves_grpc: bool,
    fields: Vec<(&'static str, Vec<u8>)>,
}

/// The fields that decide the form of an error response.
const KEPT: [&str; 3] = ["accept", "accept-language", "content-type"];

impl KeptHead {
    fn of(head: &dyn RequestHead) -> Self {
        let mut fields = Vec::new();
        for name in KEPT {
            head.visit(FieldName::Other(name), &mut |value| {
                fields.push((name, value.to_vec()));
                ControlFlow::Continue(())
            });
        }
        Self {
            method: head.method().to_owned(),
            path: head.path().to_owned(),
            serves_grpc: head.serves_grpc(),
            fields,
        }
    }
}

impl RequestHead for KeptHead {
    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        None
    }

    fn serves_grpc(&self) -> bool {
        self.serves_grpc
    }

    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        let of_name = self
            .fields
            .iter()
            .filter(|(kept, _)| *kept == name.as_str());
        for (_, value) in of_name {
            if see(value).is_break() {
                return;
            }
        }
    }
}
