//! The requests that one call of the script decides: groups of equal ones, which are decided one after
//! the other. Groups share no more than the call: an error of one is not told to the others.

use std::sync::Arc;

use tokio::time::Instant;

use crate::RedisError;
use crate::reply::{Reply, unexpected};
use crate::request::Request;
use crate::waiter::{Waiter, Wakers};

/// The number of requests in a call.
const MOST_REQUESTS: usize = 64;
/// The number of buckets in a call, which takes the server a few microseconds for each. It does nothing
/// else meanwhile. The last request of a call may exceed this.
const MOST_BUCKETS: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Batch {
    groups: Vec<Group>,
    requests: usize,
    buckets: usize,
}

/// Equal requests, in the order in which they were made.
#[derive(Debug)]
struct Group {
    request: Arc<Request>,
    waiters: Vec<Waiter>,
}

impl Batch {
    pub(crate) fn of(request: &Arc<Request>, waiter: Waiter) -> Self {
        let mut batch = Self::default();
        batch.add(request, waiter);
        batch
    }

    pub(crate) fn add(&mut self, request: &Arc<Request>, waiter: Waiter) {
        self.requests += 1;
        let mut groups = self.groups.iter_mut();
        if let Some(group) = groups.find(|group| group.request == *request) {
            group.waiters.push(waiter);
            return;
        }
        self.buckets += request.keys.len();
        self.groups.push(Group {
            request: Arc::clone(request),
            waiters: vec![waiter],
        });
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.requests >= MOST_REQUESTS || self.buckets >= MOST_BUCKETS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The number of requests.
    pub(crate) fn len(&self) -> usize {
        self.requests
    }

    /// Drops the requests whose senders gave up. Returns when the first and the last one of the others
    /// give up; `None` if there are none.
    pub(crate) fn keep_waiting(&mut self, now: Instant) -> Option<(Instant, Instant)> {
        for group in &mut self.groups {
            group.waiters.retain(|waiter| waiter.waits(now));
        }
        self.groups.retain(|group| !group.waiters.is_empty());
        self.requests = self.groups.iter().map(|group| group.waiters.len()).sum();
        let waiters = self.groups.iter().flat_map(|group| &group.waiters);
        let ends = waiters.map(|waiter| waiter.ends);
        Some((ends.clone().min()?, ends.max()?))
    }

    /// Returns the keys and what is asked of them, as the script reads both. What several groups ask
    /// of different buckets is sent once.
    pub(crate) fn packed(&mut self) -> (Vec<&[u8]>, Vec<u8>) {
        self.groups
            .sort_by(|one, other| one.request.asks.cmp(&other.request.asks));
        let mut asked = Vec::with_capacity(128 + 2 * self.groups.len());
        let number = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        for alike in self
            .groups
            .chunk_by(|one, other| one.request.asks == other.request.asks)
        {
            asked.extend(number(alike.len()));
            for group in alike {
                let requests = group.waiters.len();
                asked.extend(number(if group.request.reads { 0 } else { requests }));
            }
            let asks = &alike[0].request.asks;
            let bytes = u32::try_from(4 + asks.len()).unwrap_or(u32::MAX);
            asked.extend(bytes.to_le_bytes());
            asked.extend(asks);
        }
        let keys = self.groups.iter().flat_map(|group| &group.request.keys);
        (keys.map(Vec::as_slice).collect(), asked)
    }

    /// Answers all requests: those of a group with its reply or its error. Returns what wakes their
    /// senders.
    pub(crate) fn answer(self, replies: Vec<Result<Reply, RedisError>>) -> Wakers {
        if replies.len() != self.groups.len() {
            return self.fail(&unexpected());
        }
        let mut wakers = Vec::with_capacity(self.requests);
        for (group, reply) in self.groups.into_iter().zip(replies) {
            let reply = reply.map(Arc::new);
            for (place, waiter) in (0..).zip(group.waiters) {
                let answer = reply.clone().map(|reply| (reply, place));
                wakers.extend(waiter.answer(answer));
            }
        }
        Wakers::new(wakers)
    }

    /// Answers all requests with an error.
    pub(crate) fn fail(self, error: &RedisError) -> Wakers {
        let waiters = self.groups.into_iter().flat_map(|group| group.waiters);
        let wakers = waiters.filter_map(|waiter| waiter.answer(Err(error.clone())));
        Wakers::new(wakers.collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use portunus::limit::{BucketId, LimitBucket, LimitRequest};
    use portunus::quota::{Quota, Quotas};

    use super::*;

    fn request(name: &str, limit: u64) -> Arc<Request> {
        let quotas = Quotas::new([Quota::per_minute(limit).unwrap()]).unwrap();
        let bucket = [LimitBucket::new(BucketId::Custom(name), &quotas)];
        let request = Request::new(&LimitRequest::new(&bucket, 1), "p", false);
        Arc::new(request.unwrap().unwrap())
    }

    #[test]
    fn a_batch_is_complete_with_sixteen_buckets_or_sixty_four_requests() {
        let soon = Instant::now() + Duration::from_secs(9);
        for (different, expected) in [(64, 16), (4, 64), (1, 64)] {
            let (mut batch, mut count) = (Batch::default(), 0);
            while !batch.is_complete() {
                let name = (count % different).to_string();
                batch.add(&request(&name, 9), Waiter::until(soon).0);
                count += 1;
            }
            assert_eq!(count, expected, "{different} keys");
        }
    }

    /// Keys are in the order in which they are asked for, and what is asked of several is sent once.
    #[test]
    fn what_is_asked_of_several_buckets_is_packed_once() {
        let (mut batch, now) = (Batch::default(), Instant::now());
        let mut answers = Vec::new();
        for (name, limit) in [("a", 9), ("b", 7), ("c", 9), ("a", 9), ("d", 9), ("b", 9)] {
            let (waiter, answer) = Waiter::until(now + Duration::from_secs(9));
            batch.add(&request(name, limit), waiter);
            answers.push((name, answer));
        }
        // Those for d are given up.
        answers.retain(|(name, _)| *name != "d");
        assert!(batch.keep_waiting(now).is_some());
        assert_eq!(batch.len(), 5);
        let (keys, asked) = batch.packed();
        let keys: Vec<_> = keys.into_iter().map(|key| key[4]).collect();
        let (asks, other) = (&request("", 7).asks, &request("", 9).asks);
        let length = [u8::try_from(asks.len() + 4).unwrap(), 0, 0, 0];
        let first = [&[1, 0, 1, 0][..], &length, asks].concat();
        let second = [&[3, 0, 2, 0, 1, 0, 1, 0][..], &length, other].concat();
        assert_eq!(keys, *b"bacb");
        assert_eq!(asked, [first, second].concat());
        drop(answers);
        assert!(batch.keep_waiting(now).is_none() && batch.is_empty());
    }
}
