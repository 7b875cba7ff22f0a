//! The reply of the script as decisions.

use std::time::Duration;

use portunus::limit::{Decision, LimitRequest, WindowState};
use redis::Value;

use crate::RedisError;
use crate::request::{length_of, windows};

/// The reply to a group of equal requests: doubles, of which the first are the time, the number of
/// requests that are admitted, and how long a retry of the others waits.
#[derive(Debug)]
pub(crate) struct Reply(Vec<u8>);

/// The doubles before those of the windows.
const HEAD: usize = 3;
/// Whole numbers below 2^53 are exact as doubles.
const MOST: f64 = 9_007_199_254_740_992.0;

impl Reply {
    /// Reads a reply. Anything unexpected is an error, so that nothing but a decision can admit.
    ///
    /// # Errors
    /// Returns an error if the value is no reply of the script.
    pub(crate) fn of(value: Value) -> Result<Self, RedisError> {
        match value {
            Value::BulkString(bytes) => Ok(Self(bytes)),
            _ => Err(unexpected()),
        }
    }

    /// Returns the server's time, in microseconds, if the requests came later than their senders
    /// waited for them, and nothing was decided.
    pub(crate) fn too_late(&self) -> Option<i64> {
        let is_late = self.number(1) == Some(-1);
        is_late.then(|| self.number(0)).flatten()
    }

    /// Returns the decision about one of the requests, by its place among them, and the server's
    /// time at which it was made, in microseconds.
    ///
    /// # Errors
    /// Returns an error if the reply is not about such requests.
    pub(crate) fn decision(
        &self,
        request: &LimitRequest<'_>,
        place: u64,
    ) -> Result<(Decision, i64), RedisError> {
        self.read(request, place).ok_or_else(unexpected)
    }

    fn read(&self, request: &LimitRequest<'_>, place: u64) -> Option<(Decision, i64)> {
        let time = self.number(0)?;
        let admitted = u64::try_from(self.number(1)?).ok()?;
        let wait = u64::try_from(self.number(2)?).ok()?;
        let is_admitted = place < admitted;
        let decision = match (is_admitted, wait) {
            (true, _) => Decision::admitted(),
            // A refusal says how long to wait.
            (false, 0) => return None,
            (false, wait) => Decision::refused(Duration::from_micros(wait)),
        };
        // The units of those that were admitted after this one.
        let later = admitted.saturating_sub(place + 1) * request.cost;
        let states = self.windows(request, if is_admitted { later } else { 0 })?;
        let judged = states.into_iter().map(|state| {
            let refused = !is_admitted && state.remaining() < request.cost;
            if refused { state.violated() } else { state }
        });
        Some((decision.with_windows(judged), time))
    }

    /// Returns the state of each window, as it was read.
    ///
    /// # Errors
    /// Returns an error if the reply is not about such a reading.
    pub(crate) fn states(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Vec<WindowState>, RedisError> {
        let is_reading = self.number(1) == Some(0) && self.number(2) == Some(0);
        let states = self.windows(request, 0).filter(|_| is_reading);
        states.ok_or_else(unexpected)
    }

    /// Returns the state of each window, without units that were counted later than it is for.
    fn windows(&self, request: &LimitRequest<'_>, later: u64) -> Option<Vec<WindowState>> {
        let (mut states, mut at) = (Vec::new(), HEAD);
        for bucket in request.buckets {
            for quota in bucket.quotas.as_slice() {
                let length = length_of(quota);
                let window = windows(bucket).position(|window| window.length == length)?;
                let live = u64::try_from(self.number(at + 2 * window)?).ok()?;
                let reset = u64::try_from(self.number(at + 2 * window + 1)?).ok();
                let left = quota.limit().saturating_sub(live.checked_sub(later)?);
                states.push(WindowState::new(left, reset.map(Duration::from_micros)));
            }
            at += 2 * windows(bucket).count();
        }
        (self.0.len() == 8 * at).then_some(states)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a whole number below 2^53 stays the same"
    )]
    fn number(&self, place: usize) -> Option<i64> {
        let bytes = self.0.get(8 * place..8 * place + 8)?;
        let number = f64::from_le_bytes(bytes.try_into().ok()?);
        // Only a value that somebody else wrote leads to parts of numbers.
        (number.abs() < MOST).then_some(number as i64)
    }
}

pub(crate) fn unexpected() -> RedisError {
    let why = "the server returned something else than a decision";
    RedisError::Unavailable(why.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use portunus::limit::{BucketId, LimitBucket};
    use portunus::quota::{Quota, Quotas};

    fn reply(numbers: &[f64]) -> Reply {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        Reply::of(Value::BulkString(bytes.collect())).unwrap()
    }

    #[test]
    fn nothing_but_a_whole_decision_is_one() {
        let quotas = Quotas::default();
        let bucket = [LimitBucket::new(BucketId::Shared, &quotas)];
        let request = LimitRequest::new(&bucket, 1);
        let whole = [1.0, 1.0, 0.0, 1.0, 60_000_001.0, 1.0, 3_614_062_500.0];
        let (decision, time) = reply(&whole).decision(&request, 0).unwrap();
        assert!(decision.is_admitted() && time == 1);
        for other in [
            Value::Nil,
            Value::Okay,
            Value::Int(1),
            Value::Boolean(true),
            Value::Double(1.0),
            Value::SimpleString("OK".to_owned()),
            Value::Array(vec![Value::Int(1); 7]),
        ] {
            assert!(Reply::of(other.clone()).is_err(), "{other:?}");
        }
        let mut others: Vec<Vec<f64>> = (0..whole.len())
            .map(|length| whole[..length].into())
            .collect();
        others.push([&whole[..], &[1.0]].concat());
        for place in 0..4 {
            for wrong in [f64::NAN, f64::INFINITY, 1e300, -2.0] {
                let mut numbers = whole.to_vec();
                numbers[place] = wrong;
                // Any time is one, if it is a number.
                if place > 0 || wrong != -2.0 {
                    others.push(numbers);
                }
            }
        }
        for other in others {
            let read = reply(&other).decision(&request, 0);
            assert!(read.is_err(), "{other:?}: {read:?}");
        }
        // The second request was neither admitted nor told how long to wait.
        assert!(reply(&whole).decision(&request, 1).is_err());
        let mut cut: Vec<u8> = whole
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        cut.pop();
        let cut = Reply::of(Value::BulkString(cut)).unwrap();
        assert!(cut.decision(&request, 0).is_err());

        // Nor is a decision a reading, and the other way round.
        assert!(reply(&whole).states(&request).is_err());
        let read = reply(&[1.0, 0.0, 0.0, 7.0, 9.0, 0.0, -1.0]);
        assert!(read.decision(&request, 0).is_err());
        let states = read.states(&request).unwrap();
        let states = states
            .iter()
            .map(|state| (state.remaining(), state.reset()));
        let expected = [(53, Some(Duration::from_micros(9))), (1000, None)];
        assert!(states.eq(expected));

        let late = reply(&[7.0, -1.0, 0.0]);
        assert_eq!(late.too_late(), Some(7));
        assert!(late.decision(&request, 0).is_err() && late.states(&request).is_err());
        assert_eq!(reply(&whole).too_late(), None);
        assert_eq!(reply(&[]).too_late(), None);
    }

    #[test]
    fn quotas_of_one_length_are_one_window_and_each_is_judged() {
        let quota = |name, limit| Quota::new(name, limit, Duration::from_secs(60)).unwrap();
        let quotas = Quotas::new([quota("a", 3), quota("b", 5), quota("c", 100)]).unwrap();
        let bucket = [LimitBucket::new(BucketId::Shared, &quotas)];
        let request = LimitRequest::new(&bucket, 3);
        let refused = reply(&[1.0, 0.0, 9.0, 2.0, 9.0]);
        let (decision, _) = refused.decision(&request, 0).unwrap();
        let states = decision.windows().iter();
        let states: Vec<_> = states
            .map(|state| (state.remaining(), state.is_violated()))
            .collect();
        assert_eq!(states, [(1, true), (3, false), (98, false)]);
    }

    #[test]
    fn each_request_of_a_group_is_told_what_was_left_after_it() {
        let quotas = Quotas::new([Quota::new("a", 10, Duration::from_secs(60)).unwrap()]).unwrap();
        let bucket = [LimitBucket::new(BucketId::Shared, &quotas)];
        let request = LimitRequest::new(&bucket, 2);
        // Of five requests with two units each, three passed beside three units of before.
        let reply = reply(&[1.0, 3.0, 500.0, 9.0, 500.0]);
        let decided = (0..5).map(|place| reply.decision(&request, place).unwrap().0);
        let states: Vec<_> = decided
            .map(|decision| {
                let left = decision.windows()[0].remaining();
                (
                    decision.is_admitted(),
                    left,
                    decision.windows()[0].is_violated(),
                )
            })
            .collect();
        let (admitted, refused) = ([5, 3, 1], (false, 1, true));
        let expected = admitted.map(|left| (true, left, false));
        assert_eq!(states, [&expected[..], &[refused, refused]].concat());
    }
}
