//! What a host must act on, as audit events: keys that expire soon, that nobody uses, that are used
//! although they were rotated, and whose owner has left; and accounts of which much is used
//! ([`credits`]).
//!
//! Nothing is stored about keys besides the events. The id of an event follows from the key, the kind
//! and the day on which it became due, and a sink keeps an event once, so that several nodes, and a
//! node that starts again, report the same event. An event that became due more than a week ago is
//! not reported any more: the sink may have deleted it.

mod credits;
mod passed;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::actor::{DirectoryError, OwnerStanding, Standing};
use crate::audit::{Action, AuditError, AuditEvent, AuditOutcome, AuditTrail, EventId, Party};
use crate::clock::Clock;
use crate::credit::{CreditAccounts, CreditError};
use crate::key::{KeyId, KeyRecord, KeyStatus, Owner};
use crate::lock::Mutex;
use crate::rfc3339::utc;
use crate::store::{Cursor, KeyStore, ListQuery, StoreError, UsageStore};

pub(super) use credits::CreditNotices;
pub(super) use passed::Passed;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after it became due an event is reported.
const LATEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a run may look for more before it lets the next one continue.
const LONGEST: Duration = Duration::from_secs(2);
/// How long the two lists of keys are not read again.
const EVERY: [Duration; 2] = [Duration::from_secs(60 * 60), DAY];
/// The lists: of the keys that expire soon, and of all that work.
const SOON: usize = 0;
const ALL: usize = 1;
const PAGE: usize = 500;
/// Fewer where the host is asked about each owner, so that a page takes less than a run may.
const PAGE_OF_OWNERS: usize = 25;

/// The days before the expiry of a key, and without a use of it, on which events are due.
#[derive(Debug, Clone)]
pub(super) struct Days {
    pub(super) expiring: Vec<u16>,
    pub(super) unused: Vec<u16>,
}

impl Default for Days {
    fn default() -> Self {
        Self {
            expiring: vec![60, 30, 7, 1],
            unused: vec![90],
        }
    }
}

/// Reports what is due.
pub(super) struct Notices {
    pub(super) days: Days,
    pub(super) trail: AuditTrail,
    pub(super) store: Arc<dyn KeyStore>,
    pub(super) usage: Option<Arc<dyn UsageStore>>,
    pub(super) standing: Option<Arc<dyn OwnerStanding>>,
    /// Whether keys can be listed.
    pub(super) managed: bool,
    pub(super) state: Mutex<State>,
    /// Events that are with the trail. They count as reported once the sinks have them.
    pub(super) passed: Passed<(EventId, SystemTime)>,
    pub(super) credits: CreditNotices,
}

#[derive(Default)]
pub(super) struct State {
    /// Of the keys that expire soon, and of all.
    walks: [Walk; 2],
    /// Reported events, and when they became due.
    reported: HashMap<EventId, SystemTime>,
}

/// One pass through a list of keys.
#[derive(Default, Clone)]
struct Walk {
    /// When it begins, by the monotonic clock.
    due: Duration,
    after: Option<Cursor>,
}

/// An event, and when it became due.
struct Due {
    action: Action,
    at: SystemTime,
    detail: String,
    days: Option<u16>,
}

/// Why a run ended early. The next one continues.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoticeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Credits(#[from] CreditError),
}

impl Notices {
    /// Reports what is due, for a few seconds at most. Dropping the future loses nothing.
    pub(super) async fn run(
        &self,
        clock: &dyn Clock,
        credits: Option<&CreditAccounts>,
    ) -> Result<(), NoticeError> {
        // A store of credits that does not answer must not hold up what is due for keys.
        let paid = match credits {
            Some(credits) => self.report_credits(credits).await,
            None => Ok(()),
        };
        if self.managed {
            self.report_keys(clock).await?;
        }
        paid
    }

    async fn report_keys(&self, clock: &dyn Clock) -> Result<(), NoticeError> {
        let begun = clock.monotonic();
        self.confirm().await?;
        for (place, every) in EVERY.into_iter().enumerate() {
            let mut owners = HashMap::new();
            loop {
                let walk = self.state.lock().walks[place].clone();
                let now = clock.monotonic();
                if now < walk.due || now.saturating_sub(begun) >= LONGEST {
                    break;
                }
                let next = self
                    .page(place, walk.after, clock.now(), &mut owners)
                    .await?;
                let mut state = self.state.lock();
                if next.is_none() {
                    state.walks[place].due = now.saturating_add(every);
                    let old = clock.now().checked_sub(LATEST);
                    state
                        .reported
                        .retain(|_, at| old.is_none_or(|old| *at > old));
                }
                state.walks[place].after = next;
            }
        }
        Ok(())
    }

    /// Reports what is due for the keys of one page. Returns the position of the next one.
    async fn page(
        &self,
        place: usize,
        after: Option<Cursor>,
        now: SystemTime,
        owners: &mut HashMap<Owner, Standing>,
    ) -> Result<Option<Cursor>, NoticeError> {
        let mut query = ListQuery::new(now);
        query.status = Some(KeyStatus::Active);
        let asks = place == ALL && self.standing.is_some();
        (query.limit, query.after) = (if asks { PAGE_OF_OWNERS } else { PAGE }, after);
        if place == SOON {
            let most = self.days.expiring.iter().max().copied().unwrap_or(0).max(7);
            query.expires_before = now.checked_add(DAY * (u32::from(most) + 1));
        }
        let page = self.store.list(&query).await?;
        let ids: Vec<_> = page.items.iter().map(|record| record.id.clone()).collect();
        // Without counts, or with unreadable ones, nothing is known to be unused.
        let used = match &self.usage {
            Some(usage) => readable(usage.usage_of(&ids).await)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut events = Vec::new();
        for (place_in_page, record) in page.items.iter().enumerate() {
            let used = used.get(place_in_page).map(|usage| usage.last_used_at);
            let due = match (&record.successor, record.expires_at, used) {
                (Some(successor), _, Some(used)) => {
                    self.rotated(record, successor, used, now).await?
                }
                (None, Some(end), _) if place == SOON => self.expiring(record, end, now),
                (None, _, Some(used)) if place == ALL => self.unused(record, used, now),
                _ => None,
            };
            events.extend(due.map(|due| self.event(record, due)));
            if place == ALL {
                let left = self.left(record, owners, now).await?;
                events.extend(left.map(|due| self.event(record, due)));
            }
        }
        {
            let reported = &self.state.lock().reported;
            events.retain(|(event, _)| !reported.contains_key(&event.id));
        }
        let ids = |(event, at): (AuditEvent, SystemTime)| ((event.id, at), event);
        self.passed.pass(&self.trail, events.into_iter().map(ids));
        self.confirm().await?;
        Ok(page.next)
    }

    /// Waits until the sinks have the events that are with the trail. If some were dropped, the page
    /// is read again.
    async fn confirm(&self) -> Result<(), NoticeError> {
        let reported = self.passed.confirmed(&self.trail).await?;
        self.state.lock().reported.extend(reported);
        Ok(())
    }

    /// The nearest of the set days before the expiry, if the key has lived longer than that.
    fn expiring(&self, record: &KeyRecord, end: SystemTime, now: SystemTime) -> Option<Due> {
        let due = |days: &u16| {
            let at = end.checked_sub(DAY * u32::from(*days))?;
            (at > record.created_at && is_due(at, now)).then_some((*days, at))
        };
        let (days, at) = self.days.expiring.iter().filter_map(due).min()?;
        let detail = format!("expires at {}, within {days} days", shown(end));
        Some(Due {
            action: Action::KeyExpiring,
            at,
            detail,
            days: Some(days),
        })
    }

    /// The longest of the set days since the last use, or since the key was created.
    fn unused(&self, record: &KeyRecord, used: Option<SystemTime>, now: SystemTime) -> Option<Due> {
        let since = used.unwrap_or(record.created_at).max(record.created_at);
        let due = |days: &u16| {
            let at = since.checked_add(DAY * u32::from(*days))?;
            is_due(at, now).then_some((*days, at))
        };
        let (days, at) = self.days.unused.iter().filter_map(due).max()?;
        let detail = format!("not used since {}, for {days} days", shown(since));
        Some(Due {
            action: Action::KeyUnused,
            at,
            detail,
            days: Some(days),
        })
    }

    /// A key that was replaced, in whose grace period half or all but a week is over, and that was
    /// used within a day. Where rotated keys stay valid, a week after it was replaced.
    async fn rotated(
        &self,
        record: &KeyRecord,
        successor: &KeyId,
        used: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Option<Due>, StoreError> {
        let Some(used) = used else {
            return Ok(None);
        };
        if now.duration_since(used).is_ok_and(|since| since > DAY) {
            return Ok(None);
        }
        let Some(successor) = readable(self.store.get(successor).await)?.flatten() else {
            return Ok(None);
        };
        let since = successor.created_at;
        let at = match record.expires_at {
            Some(end) => {
                let grace = end.duration_since(since).unwrap_or_default();
                end.checked_sub((grace / 2).min(LATEST))
            }
            None => since.checked_add(LATEST),
        };
        let due = |at: SystemTime| Due {
            action: Action::KeyRotatedInUse,
            at,
            detail: match record.expires_at {
                Some(end) => format!("last used at {}, ends at {}", shown(used), shown(end)),
                None => format!("last used at {}", shown(used)),
            },
            days: None,
        };
        Ok(at.filter(|at| used > since && is_due(*at, now)).map(due))
    }

    /// Asks the host about the owner of a key.
    async fn left(
        &self,
        record: &KeyRecord,
        known: &mut HashMap<Owner, Standing>,
        now: SystemTime,
    ) -> Result<Option<Due>, DirectoryError> {
        let Some(owners) = &self.standing else {
            return Ok(None);
        };
        let standing = match known.get(&record.owner) {
            Some(standing) => *standing,
            None => {
                let standing = owners.standing(&record.owner).await?;
                known.insert(record.owner.clone(), standing);
                standing
            }
        };
        let detail = match standing {
            Standing::Good => return Ok(None),
            Standing::Suspended => "the owner is suspended",
            Standing::RoleLost => "the owner no longer has the role that the key requires",
        };
        let (action, detail) = (Action::KeyOwnerLeft, detail.to_owned());
        Ok(Some(Due {
            action,
            at: now,
            detail,
            days: None,
        }))
    }

    /// Creates the event, and returns it with the time at which it became due.
    fn event(&self, record: &KeyRecord, due: Due) -> (AuditEvent, SystemTime) {
        let day = match due.action {
            // The day on which an owner left is not known: this is one event, whoever finds it.
            Action::KeyOwnerLeft => 0,
            _ => {
                due.at
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs()
                    / DAY.as_secs()
            }
        };
        let of = format!("{} {} {day}", record.id, due.action);
        let mut event = self.trail.event(due.action, AuditOutcome::Ok);
        event.id = EventId::of(&of);
        event.name_key(record);
        event.subject = Party::user(
            record.owner.user_id.as_ref(),
            record.owner.user_email.as_deref(),
        );
        event.detail = Some(due.detail);
        event.count = due.days.map(u64::from);
        (event, due.at)
    }
}

/// Returns what was read, or nothing if it is corrupt: that must not hold up all other keys.
fn readable<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(error) if error.is_corrupt() => Ok(None),
        read => read.map(Some),
    }
}

/// Whether an event is due, and not for too long.
fn is_due(at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|since| since < LATEST)
}

fn shown(at: SystemTime) -> String {
    format!("{:.0}Z", utc(at))
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notices({:?})", self.days)
    }
}
