//! A bounded queue that never blocks: many requests push, one task at a time takes what waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::lock::Mutex;

pub(super) struct Queue<T> {
    sender: SyncSender<T>,
    receiver: Mutex<Receiver<T>>,
    /// Counts an item from before it is pushed until after it is popped.
    len: AtomicUsize,
    capacity: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let (sender, receiver) = sync_channel(capacity);
        Self {
            sender,
            receiver: Mutex::new(receiver),
            len: AtomicUsize::new(0),
            capacity,
        }
    }

    /// Adds an item without waiting, or returns it if the queue is full.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        self.len.fetch_add(1, Ordering::Relaxed);
        self.sender.try_send(item).map_err(|refused| {
            self.len.fetch_sub(1, Ordering::Relaxed);
            match refused {
                TrySendError::Full(item) | TrySendError::Disconnected(item) => item,
            }
        })
    }

    /// Takes the oldest item.
    pub(super) fn pop(&self) -> Option<T> {
        let item = self.receiver.lock().try_recv().ok()?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(item)
    }

    /// Returns how many items wait, including those that are being pushed.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_full_queue_returns_the_item_and_accepts_the_next_after_a_pop() {
        let queue = Queue::new(2);
        assert_eq!([queue.push(1), queue.push(2)], [Ok(()), Ok(())]);
        assert_eq!((queue.push(3), queue.len()), (Err(3), 2));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!((queue.push(4), queue.len()), (Ok(()), 2));
        assert_eq!(
            [queue.pop(), queue.pop(), queue.pop()],
            [Some(2), Some(4), None]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn items_pushed_by_many_threads_all_arrive_in_the_order_of_each() {
        const EACH: usize = 5_000;
        let queue = Queue::new(64);
        let mut last = [None; 4];
        thread::scope(|scope| {
            for thread in 0..last.len() {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..EACH {
                        while queue.push((thread, number)).is_err() {
                            thread::yield_now();
                        }
                    }
                });
            }
            while last.iter().any(|last| *last != Some(EACH - 1)) {
                match queue.pop() {
                    Some((thread, number)) => {
                        assert_eq!(number, last[thread].map_or(0, |last| last + 1));
                        last[thread] = Some(number);
                    }
                    None => thread::yield_now(),
                }
            }
        });
        assert_eq!((queue.pop(), queue.len()), (None, 0));
    }
}
