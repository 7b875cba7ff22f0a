//! The operations on credits.

use utoipa::openapi::Required;
use utoipa::openapi::path::{HttpMethod, ParameterIn};

use super::answers::{json, matching, of};
use super::calls::{Call, call};
use crate::credits::{Credits, GrantRequest, LedgerPage, LedgerParameters, MadeGrant, Units};
use crate::terms;

/// An operation on an account.
fn on_account(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Call {
    let account = of::<terms::CreditAccount>();
    call(method, path, id, summary)
        .taking(ParameterIn::Path, "id", "The account.", account)
        .refused(&[404])
}

pub(super) fn calls() -> [Call; 5] {
    let part = |call: Call, name, what| {
        call.taking(ParameterIn::Path, name, what, of::<terms::CreditId>())
    };
    let once = "Makes the request safe to retry: a repeated request with the same body gets 200 with \
                the same id; with another body it gets 422.";
    [
        on_account(
            HttpMethod::Get,
            "/credits/{id}",
            "getCredits",
            "Get the credits of an account",
        )
        .about("An account to which nothing was ever granted has no units.")
        .answers(200, json::<Credits<'static>>("The credits.")),
        on_account(
            HttpMethod::Get,
            "/credits/{id}/ledger",
            "listLedger",
            "List what changed the credits of an account, oldest first",
        )
        .about(
            "What happens at a certain time, such as a refill, is entered when the account is changed \
             for the first time afterwards.",
        )
        .query::<LedgerParameters>()
        .answers(200, json::<LedgerPage<'static>>("A page of the ledger.")),
        on_account(
            HttpMethod::Post,
            "/credits/{id}/grants",
            "grantCredits",
            "Grant credits to an account",
        )
        .about(
            "Only `units` is required. Grants are spent in the order of their priority, then of the \
             time at which their units lapse. The node that is called spends them at once, others \
             within a second. A request with the `id` of an earlier grant gets 200, and nothing is \
             granted; if the terms differ, 409. The last 100 ids of grants that have ended are known, \
             without their terms.",
        )
        .header("Idempotency-Key", once, matching("^[!-~]{1,255}$"))
        .body::<GrantRequest>(Required::True)
        .answers(200, json::<MadeGrant<'static>>("The grant was made before."))
        .answers(201, json::<MadeGrant<'static>>("The grant is made."))
        .refused(&[409, 422]),
        part(
            on_account(
                HttpMethod::Post,
                "/credits/{id}/grants/{grant}/void",
                "voidGrant",
                "End a grant",
            ),
            "grant",
            "The grant.",
        )
        .about(
            "Units that nodes have taken of it, one block at most each, and those that are reserved \
             can still be used, but do not come back.",
        )
        .answers(200, json::<Units>("How many units were left of it.")),
        part(
            on_account(
                HttpMethod::Post,
                "/credits/{id}/blocks/{block}/give_back",
                "giveBackBlock",
                "Give back what a crashed node had taken",
            ),
            "block",
            "The block, from `taken` of the account.",
        )
        .about(
            "What the node has not reported as used comes back. Until then it counts as used. A \
             conflict if the node reported its use less than two minutes ago.",
        )
        .answers(200, json::<Units>("How many units came back."))
        .refused(&[409]),
    ]
}
