//! `/credits/{id}`: the credits of an account, its ledger, grants, and what a crashed node had taken.
//! The paths exist only if requests cost credits.

use std::num::NonZeroU16;

use axum::Router;
use axum::extract::{FromRequestParts, Path, RawQuery};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use portunus::audit::Action;
use portunus::credit::{
    Balance, CreditAccount, CreditId, GrantBalance, LedgerEntry, NewGrant, Period, TakenUnits,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::{Object, Whole, private, read_whole};
use crate::content::Content;
use crate::issue::time;
use crate::query::{limit, parameters};
use crate::time::time_text;
use crate::{AuthenticatedOperator, Fault, Shared, terms};

/// Adds the paths of credits.
pub(crate) fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/credits/{id}", get(show))
        .route("/credits/{id}/ledger", get(ledger))
        .route("/credits/{id}/grants", post(grant))
        .route("/credits/{id}/grants/{grant}/void", post(void))
        .route("/credits/{id}/blocks/{block}/give_back", post(give_back))
}

/// The account in a path. A malformed one is treated as unknown.
pub(crate) struct Account(CreditAccount);

/// The account in a path, and the grant or block.
pub(crate) struct Part(CreditAccount, CreditId);

fn unknown() -> Fault {
    Fault::new(
        portunus::ErrorCode::NotFound,
        "There is no such account, grant or block, or it has ended",
    )
}

impl<S: Send + Sync> FromRequestParts<S> for Account {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let account = text.ok().and_then(|Path(text)| text.parse().ok());
        account.map(Self).ok_or_else(unknown)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Part {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let texts = Path::<(String, String)>::from_request_parts(parts, state).await;
        let parsed = texts.ok().and_then(|Path((account, id))| {
            let account = account.parse().ok()?;
            Some(Self(account, id.parse().ok()?))
        });
        parsed.ok_or_else(unknown)
    }
}

/// A unit of the calendar.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes a text")]
enum CalendarUnit {
    Month,
    Week,
    Day,
}

/// How often the units are granted again. The current period counts as a whole one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeriodRequest {
    #[schema(value_type = CalendarUnit)]
    unit: String,
    /// The length of a period in units of the calendar: 12 months for a year. 1 by default.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 65_535)]
    count: Option<Whole>,
    /// A time at which one of the periods starts. By default, months start on the 1st, weeks on
    /// Monday and days at 0:00.
    #[schema(value_type = Option<terms::Time>)]
    anchor: Option<String>,
    /// The IANA name of the time zone; UTC by default.
    #[schema(max_length = 64)]
    time_zone: Option<String>,
}

/// A grant to be made. A `null` member counts as absent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantRequest {
    /// An id of the caller's choice, for example that of an invoice: a grant with the id of an earlier
    /// one is not made again. Not together with `Idempotency-Key`.
    #[schema(value_type = Option<terms::CreditId>)]
    id: Option<String>,
    /// The units granted, in each period if there are periods.
    #[schema(value_type = u64, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    units: Whole,
    /// The grant with the lowest priority is spent first. 0 by default.
    #[schema(value_type = Option<u64>, maximum = 255)]
    priority: Option<Whole>,
    /// When the units cannot be spent any more; never by default.
    #[schema(value_type = Option<terms::Time>)]
    expires_at: Option<String>,
    #[schema(value_type = Option<PeriodRequest>)]
    period: Option<Object<PeriodRequest>>,
    /// Whether what is left is kept at the start of a period.
    rolls_over: Option<bool>,
}

impl PeriodRequest {
    fn into_period(self) -> Result<Period, Fault> {
        let period = match self.unit.as_str() {
            "month" => Period::monthly(),
            "week" => Period::weekly(),
            "day" => Period::daily(),
            _ => {
                let why = "expected `month`, `week` or `day`";
                return Err(Fault::invalid("period.unit", why));
            }
        };
        let count = self.count.map_or(1, |Whole(count)| count);
        let count = u16::try_from(count).ok().and_then(NonZeroU16::new);
        let why = || Fault::invalid("period.count", "expected 1 to 65535");
        let mut period = period.every(count.ok_or_else(why)?);
        if let Some(anchor) = time("period.anchor", self.anchor)? {
            period = period.anchored(anchor);
        }
        match self.time_zone {
            Some(name) => period
                .in_zone(&name)
                .map_err(|error| Fault::invalid("period.time_zone", error)),
            None => Ok(period),
        }
    }
}

impl GrantRequest {
    fn into_grant(self) -> Result<NewGrant, Fault> {
        let Whole(units) = self.units;
        let mut grant = NewGrant::new(units);
        if let Some(id) = self.id {
            let id = CreditId::new(&id).map_err(|error| Fault::invalid("id", error))?;
            grant = grant.with_id(id);
        }
        if let Some(Whole(priority)) = self.priority {
            let priority = u8::try_from(priority);
            let why = |_| Fault::invalid("priority", "expected 0 to 255");
            grant = grant.with_priority(priority.map_err(why)?);
        }
        if let Some(end) = time("expires_at", self.expires_at)? {
            grant = grant.expiring_at(end);
        }
        if let Some(Object(period)) = self.period {
            grant = grant.refilled(period.into_period()?);
        }
        Ok(match self.rolls_over {
            Some(true) => grant.rolling_over(),
            Some(false) | None => grant,
        })
    }
}

/// A grant that was made.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MadeGrant<'c> {
    #[schema(value_type = terms::CreditId)]
    id: &'c CreditId,
}

/// A number of units.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Units {
    units: u64,
}

/// How often a grant is refilled.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PeriodView<'c> {
    #[schema(value_type = CalendarUnit)]
    unit: &'c str,
    #[schema(minimum = 1)]
    count: u16,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    anchor: Option<String>,
    time_zone: &'c str,
}

/// A grant with what is left of it.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Grant<'c> {
    #[schema(value_type = terms::CreditId)]
    id: &'c CreditId,
    /// The units granted, in each period if there are periods.
    units: u64,
    left: u64,
    /// The lowest is spent first.
    priority: u8,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    expires_at: Option<String>,
    #[schema(required)]
    period: Option<PeriodView<'c>>,
    #[schema(required, value_type = Option<terms::Timestamp>)]
    refills_at: Option<String>,
    rolls_over: bool,
    /// The sum of its changes in ledger entries that were deleted because of their age. With the
    /// changes in later entries it is what is left.
    carried_forward: i64,
}

/// Units that a node has taken to spend them, or that are reserved for a request. They are in no
/// grant.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Taken<'c> {
    #[schema(value_type = terms::CreditId)]
    id: &'c CreditId,
    units: u64,
    /// Number of them that were used, as last reported.
    used: u64,
    #[schema(value_type = terms::Timestamp)]
    taken_at: String,
    #[schema(value_type = terms::Timestamp)]
    reported_at: String,
    /// When a reservation ends; `null` for the block of a node.
    #[schema(required, value_type = Option<terms::Timestamp>)]
    ends_at: Option<String>,
}

/// The credits of an account. They may be as old as the last report of each node: about a second.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credits<'c> {
    #[schema(value_type = terms::CreditAccount)]
    account: String,
    /// The units that can be taken: what is left of all grants.
    available: u64,
    /// The grants that can be spent or refilled, in the order in which they are spent.
    #[schema(max_items = 100)]
    grants: Vec<Grant<'c>>,
    /// Oldest first.
    #[schema(max_items = 1000)]
    taken: Vec<Taken<'c>>,
    /// The number of the last ledger entry that was deleted because of its age, or is about to be; 0
    /// for none.
    forgotten: u64,
}

impl<'c> Credits<'c> {
    fn of(account: &CreditAccount, balance: &'c Balance) -> Self {
        let grants = balance.grants.iter().map(|grant: &GrantBalance| Grant {
            id: &grant.id,
            units: grant.units,
            left: grant.left,
            priority: grant.priority,
            expires_at: grant.expires_at.map(time_text),
            period: grant.period.as_ref().map(|period| PeriodView {
                unit: period.unit(),
                count: period.count().get(),
                anchor: period.anchor().map(time_text),
                time_zone: period.zone_name(),
            }),
            refills_at: grant.refills_at.map(time_text),
            rolls_over: grant.rolls_over,
            carried_forward: grant.carried_forward,
        });
        let taken = balance.taken.iter().map(|taken: &TakenUnits| Taken {
            id: &taken.id,
            units: taken.units,
            used: taken.used,
            taken_at: time_text(taken.taken_at),
            reported_at: time_text(taken.reported_at),
            ends_at: taken.ends_at.map(time_text),
        });
        Self {
            account: account.to_string(),
            available: balance.available,
            grants: grants.collect(),
            taken: taken.collect(),
            forgotten: balance.forgotten,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LedgerParameters {
    /// Maximum number of items in a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<usize>,
    /// `next_cursor` of the previous page.
    #[param(pattern = "^[0-9]{1,18}$")]
    cursor: Option<String>,
}

/// A change of a grant's balance.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Entry<'c> {
    /// The place in the ledger, from 1, without gaps. The oldest may have been deleted.
    #[schema(minimum = 1)]
    number: u64,
    #[schema(value_type = terms::Timestamp)]
    at: String,
    #[schema(value_type = terms::CreditId)]
    grant: &'c CreditId,
    #[schema(value_type = terms::LedgerKind)]
    kind: &'static str,
    /// The change of the grant's units.
    change: i64,
    /// The block or reservation; `null` unless units were taken or given back.
    #[schema(required, value_type = Option<terms::CreditId>)]
    taken: Option<&'c CreditId>,
}

/// A page of a ledger. The changes of a grant add up to what is left of it, together with its
/// `carried_forward`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerPage<'c> {
    items: Vec<Entry<'c>>,
    /// Cursor of the next page; `null` on the last page.
    #[schema(required, pattern = "^[0-9]+$")]
    next_cursor: Option<String>,
}

async fn show(
    operator: AuthenticatedOperator,
    Account(account): Account,
) -> Result<Response, Fault> {
    let balance = operator.manager.credits(&account).await?;
    Ok(private(StatusCode::OK, &Credits::of(&account, &balance)))
}

async fn ledger(
    operator: AuthenticatedOperator,
    Account(account): Account,
    RawQuery(raw): RawQuery,
) -> Result<Response, Fault> {
    let asked = parameters::<LedgerParameters>(raw.as_deref())?;
    let most = limit(asked.limit, 50)?;
    let digits = |text: &String| text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    let after = match asked.cursor {
        None => 0,
        Some(text) => {
            let number = digits(&text).then(|| text.parse().ok()).flatten();
            number.ok_or_else(|| Fault::bad("cursor: not a cursor of this list"))?
        }
    };
    // One more, which shows whether there is another page.
    let mut entries = operator
        .manager
        .credit_ledger(&account, after, most + 1)
        .await?;
    let has_more = entries.len() > most;
    entries.truncate(most);
    let next = entries.last().filter(|_| has_more);
    let items = entries.iter().map(|entry: &LedgerEntry| Entry {
        number: entry.number,
        at: time_text(std::time::UNIX_EPOCH + std::time::Duration::from_millis(entry.at_ms)),
        grant: &entry.grant,
        kind: entry.kind.as_str(),
        change: entry.change,
        taken: entry.taken.as_ref(),
    });
    let page = LedgerPage {
        next_cursor: next.map(|entry| entry.number.to_string()),
        items: items.collect(),
    };
    Ok(private(StatusCode::OK, &page))
}

async fn grant(
    operator: AuthenticatedOperator,
    Account(account): Account,
    headers: HeaderMap,
    body: Content,
) -> Result<Response, Fault> {
    // An account that the operator cannot see is reported before an invalid body.
    let manager = &operator.manager;
    manager.check_credits(Action::CreditGrant, &account).await?;
    let read = read_whole::<GrantRequest>(body).await;
    let (asked, bytes) = operator.audited(Action::CreditGrant, None, read)?;
    let call = format!("grant {account}");
    let request = operator.idempotency(&headers, &call, &bytes);
    let request = operator.audited(Action::CreditGrant, None, request)?;
    let both = request.is_some() && asked.id.is_some();
    let grant = match both {
        false => asked.into_grant(),
        true => Err(Fault::invalid("id", "not together with Idempotency-Key")),
    };
    let grant = operator.audited(Action::CreditGrant, None, grant)?;
    let made = manager.grant_credits_once(&account, grant, request.as_ref());
    let (id, now) = made.await?;
    let status = if now {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(private(status, &MadeGrant { id: &id }))
}

async fn void(
    operator: AuthenticatedOperator,
    Part(account, grant): Part,
    body: Content,
) -> Result<Response, Fault> {
    operator.audited(Action::CreditVoid, None, body.ignored().await)?;
    let units = operator.manager.void_credits(&account, &grant).await?;
    Ok(private(StatusCode::OK, &Units { units }))
}

async fn give_back(
    operator: AuthenticatedOperator,
    Part(account, block): Part,
    body: Content,
) -> Result<Response, Fault> {
    operator.audited(Action::CreditGiveBack, None, body.ignored().await)?;
    let units = operator.manager.give_back_credits(&account, &block).await?;
    Ok(private(StatusCode::OK, &Units { units }))
}
