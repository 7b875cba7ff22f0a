//! A store wrapper that fails, hangs, delays and counts calls, as a test requires.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Poll, Waker};
use std::time::SystemTime;

use crate::lock::Mutex;
use async_trait::async_trait;

use crate::events::SigningStore;
use crate::key::{KeyDigest, KeyId, KeyRecord, SigningState};
use crate::store::{
    BulkOperation, InvalidationBus, KeyLookup, KeyStore, ListQuery, MemoryStore, OwnerRef, Page,
    StoreError, StoredKey, Usage, UsageByHour, UsageDelta, UsageStore, WriteBatch,
};

/// A call to a [`KeyStore`], [`UsageStore`] or [`SigningStore`], named after its method.
/// [`find_now`](KeyLookup::find_now) is a `Find`, [`primaries`](KeyStore::primaries) is a
/// `Primary`.
#[allow(missing_docs)] // The names are those of the methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    Find,
    Get,
    List,
    Primary,
    SigningState,
    Apply,
    /// `bulk_operation` and `open_bulk_operations`.
    BulkOperations,
    RecordUsage,
    UsageOf,
    UsageByHour,
    ForgetUsageBefore,
}

/// A point in a call at which a [`FaultyStore`] can interfere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before the inner store is called: nothing has been read or written.
    Before(Call),
    /// After the inner store succeeded, before the caller gets the result.
    After(Call),
}

/// Wraps any store and injects faults, for tests of outages. Clones share the store and the faults.
///
/// At each point, a call is first delayed, then held, then runs a step, then fails; each only if
/// the test requested it.
///
/// ```
/// use portunus::key::{Alphabet, KeyFormat};
/// use portunus::testing::{Call, FaultyStore, Point, TestRequest};
/// use portunus::{ErrorCode, Portunus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let format = KeyFormat::builder("test_").random(Alphabet::BASE62, 32).build()?;
/// let request = TestRequest::get("/").bearer(&format.generate(None, None)?.reveal());
/// let store = FaultyStore::new();
/// let keys = Portunus::builder(format).store(store.clone()).build()?;
/// let authenticator = keys.authenticator();
/// let refusal = async || authenticator.authenticate(&request).await.err().map(|e| e.code());
///
/// store.fail(Point::Before(Call::Find));
/// assert_eq!(refusal().await, Some(ErrorCode::StoreUnavailable));
/// store.recover();
/// assert_eq!(refusal().await, Some(ErrorCode::InvalidKey));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn KeyStore>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    finds: AtomicUsize,
    writes: AtomicUsize,
    /// One additional reference for each call in flight.
    in_flight: Arc<()>,
    points_passed: AtomicUsize,
    most_yields: AtomicUsize,
    rules: Mutex<Rules>,
}

#[derive(Default)]
struct Rules {
    down: bool,
    faults: HashMap<Point, Fault>,
    steps: Vec<(Point, Step)>,
    held: HashMap<Point, Vec<Waker>>,
    always_found: Option<Arc<StoredKey>>,
    spoilt: HashSet<KeyId>,
}

fn down() -> StoreError {
    StoreError::unavailable("connection refused by db.internal")
}

type Fault = Arc<dyn Fn() -> StoreError + Send + Sync>;
type Step = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Rules {
    fn step(&self, point: Point) -> Option<usize> {
        self.steps.iter().position(|(at, _)| *at == point)
    }
}

impl Default for FaultyStore {
    fn default() -> Self {
        Self::over(MemoryStore::new())
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultyStore").field(&self.inner).finish()
    }
}

impl FaultyStore {
    /// Wraps a new [`MemoryStore`], initially without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps this store, initially without faults.
    #[must_use]
    pub fn over(inner: impl KeyStore) -> Self {
        let (inner, shared) = (Arc::new(inner), Arc::default());
        Self { inner, shared }
    }

    /// Returns the inner store, for example to read and write as another node.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn KeyStore> {
        &self.inner
    }

    /// Fails every call at this point with [`StoreError::unavailable`], until
    /// [`recover`](Self::recover).
    pub fn fail(&self, at: Point) {
        self.fail_with(at, down);
    }

    /// Fails every call at this point with this error, until [`recover`](Self::recover). Replaces
    /// the previous error of the point. The function may block or panic, as a faulty store would.
    pub fn fail_with(&self, at: Point, error: impl Fn() -> StoreError + Send + Sync + 'static) {
        self.shared.rules.lock().faults.insert(at, Arc::new(error));
    }

    /// Fails every call before it reaches the inner store, until [`recover`](Self::recover).
    pub fn fail_all(&self) {
        self.shared.rules.lock().down = true;
    }

    /// Ends all failures. Held calls stay held, and steps stay planned.
    pub fn recover(&self) {
        let mut rules = self.shared.rules.lock();
        (rules.down, rules.faults) = (false, HashMap::new());
    }

    /// Holds every call at this point until [`release`](Self::release), like a store that hangs.
    pub fn hold(&self, at: Point) {
        self.shared.rules.lock().held.entry(at).or_default();
    }

    /// Releases all calls held at this point, and stops holding calls there.
    pub fn release(&self, at: Point) {
        let waiting = self.shared.rules.lock().held.remove(&at);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Runs this step in the next call that reaches this point. Several steps at one point run in
    /// order, one per call.
    pub fn once(&self, at: Point, step: impl Future<Output = ()> + Send + 'static) {
        self.shared.rules.lock().steps.push((at, Box::pin(step)));
    }

    /// Makes every call asynchronous from now on: at each point it yields to other tasks between
    /// once and this many times. 0 ends this.
    pub fn answer_late(&self, most_yields: usize) {
        self.shared.most_yields.store(most_yields, SeqCst);
    }

    /// Makes every lookup return this key from now on, whatever is looked up, to simulate a wrong
    /// answer.
    pub fn always_find(&self, stored: Arc<StoredKey>) {
        self.shared.rules.lock().always_found = Some(stored);
    }

    /// Makes the row of this key unreadable from now on. Lists omit it and report it in
    /// [`Page::corrupt`]; lookups and [`get`](KeyStore::get) fail with [`StoreError::corrupt`].
    pub fn spoil(&self, id: &KeyId) {
        self.shared.rules.lock().spoilt.insert(id.clone());
    }

    /// Returns the name of this key's row if the row is unreadable.
    fn spoilt(&self, id: &KeyId) -> Option<String> {
        let is_spoilt = self.shared.rules.lock().spoilt.contains(id);
        is_spoilt.then(|| format!("row {id}"))
    }

    fn readable(&self, id: &KeyId) -> Result<(), StoreError> {
        self.spoilt(id)
            .map_or(Ok(()), |what| Err(StoreError::corrupt(what)))
    }

    fn found(
        &self,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
    ) -> Result<Option<Arc<StoredKey>>, StoreError> {
        let found = found?;
        found
            .as_ref()
            .map_or(Ok(()), |key| self.readable(&key.record().id))?;
        Ok(found)
    }

    /// Returns the number of lookups by digest so far, including failed ones.
    #[must_use]
    pub fn finds(&self) -> usize {
        self.shared.finds.load(SeqCst)
    }

    /// Returns the number of batches passed to [`apply`](KeyStore::apply) so far, including failed
    /// ones.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.shared.writes.load(SeqCst)
    }

    /// Returns the number of asynchronous calls that have started and were neither completed nor
    /// dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        Arc::strong_count(&self.shared.in_flight) - 1
    }

    async fn through<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let _in_flight = Arc::clone(&self.shared.in_flight);
        self.reach(Point::Before(call)).await?;
        let result = work.await?;
        self.reach(Point::After(call)).await?;
        Ok(result)
    }

    async fn reach(&self, point: Point) -> Result<(), StoreError> {
        let turn = self.shared.points_passed.fetch_add(1, SeqCst);
        let most = self.shared.most_yields.load(SeqCst);
        let mut yields = turn.checked_rem(most).map_or(0, |rest| rest + 1);
        poll_fn(|context| {
            // Pending and already woken: yields in any runtime.
            if yields > 0 {
                yields -= 1;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.shared.rules.lock().held.get_mut(&point) {
                None => Poll::Ready(()),
                Some(waiting) => {
                    waiting.push(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        // Not under the lock: a step may call this store, and both may panic.
        let step = {
            let mut rules = self.shared.rules.lock();
            rules.step(point).map(|index| rules.steps.remove(index).1)
        };
        if let Some(step) = step {
            step.await;
        }
        self.fault(point)
    }

    fn fault(&self, point: Point) -> Result<(), StoreError> {
        let rules = self.shared.rules.lock();
        if rules.down {
            return Err(down());
        }
        let fault = rules.faults.get(&point).cloned();
        drop(rules);
        fault.map_or(Ok(()), |error| Err(error()))
    }

    fn always_found(&self) -> Option<Arc<StoredKey>> {
        self.shared.rules.lock().always_found.clone()
    }
}

#[async_trait]
impl KeyLookup for FaultyStore {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.shared.finds.fetch_add(1, SeqCst);
        let always = self.always_found();
        if always.is_some() {
            return self.through(Call::Find, ready(Ok(always))).await;
        }
        let found = async { self.found(self.inner.find(digests).await) };
        self.through(Call::Find, found).await
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        let (before, after) = (Point::Before(Call::Find), Point::After(Call::Find));
        let rules = self.shared.rules.lock();
        let waits = |at| rules.held.contains_key(&at) || rules.step(at).is_some();
        if self.shared.most_yields.load(SeqCst) > 0 || waits(before) || waits(after) {
            return None;
        }
        drop(rules);
        if digests.is_empty() {
            // An empty lookup only asks whether the store must be awaited.
            return Some(Ok(None));
        }
        let found = match (self.fault(before), self.always_found()) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => self.found(self.inner.find_now(digests)?),
            (Ok(()), always) => Ok(always),
        };
        self.shared.finds.fetch_add(1, SeqCst);
        Some(found.and_then(|found| self.fault(after).map(|()| found)))
    }

    fn knows(&self, digests: &[KeyDigest]) -> bool {
        self.inner.knows(digests)
    }

    fn bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        self.inner.bus()
    }
}

#[async_trait]
impl KeyStore for FaultyStore {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.through(Call::Get, async {
            self.readable(id)?;
            self.inner.get(id).await
        })
        .await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let mut page = self.through(Call::List, self.inner.list(query)).await?;
        page.items.retain(|key| {
            let spoilt = self.spoilt(&key.id);
            let is_shown = spoilt.is_none();
            page.corrupt.extend(spoilt);
            is_shown
        });
        Ok(page)
    }

    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.through(Call::Primary, self.inner.primary(owner, at))
            .await
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        self.through(Call::Primary, self.inner.primaries(owners, at))
            .await
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.shared.writes.fetch_add(1, SeqCst);
        self.through(Call::Apply, self.inner.apply(batch)).await
    }

    async fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        self.through(Call::BulkOperations, self.inner.bulk_operation(id))
            .await
    }

    async fn open_bulk_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        self.through(Call::BulkOperations, self.inner.open_bulk_operations())
            .await
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        self.inner.usage()?;
        Some(Arc::new(self.clone()))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        self.inner.signing()?;
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl SigningStore for FaultyStore {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        let work = async {
            match self.inner.signing() {
                Some(inner) => inner.signing_state(id).await,
                None => Ok(None),
            }
        };
        self.through(Call::SigningState, work).await
    }
}

impl FaultyStore {
    fn counts(&self) -> Result<Arc<dyn UsageStore>, StoreError> {
        let none = || StoreError::unavailable("the inner store does not count usage");
        self.inner.usage().ok_or_else(none)
    }
}

#[async_trait]
impl UsageStore for FaultyStore {
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        let work = async { self.counts()?.record_usage(batch).await };
        self.through(Call::RecordUsage, work).await
    }

    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let work = async { self.counts()?.usage_of(ids).await };
        self.through(Call::UsageOf, work).await
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let work = async { self.counts()?.usage_by_hour(id, from, to).await };
        self.through(Call::UsageByHour, work).await
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        let work = async { self.counts()?.forget_usage_before(before).await };
        self.through(Call::ForgetUsageBefore, work).await
    }
}
