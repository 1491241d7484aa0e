//! How a snapshot reaches every worker. The control thread puts it into each worker's mailbox and then
//! moves the generation; a worker reads the generation once a turn and looks into its mailbox when it
//! moved. Neither waits for the other, unless the control thread wants to know when all have it: then whoever
//! takes a snapshot wakes it. The publisher keeps every snapshot until no worker has it, so a worker never frees one.

use super::Snapshot;
use std::sync::{Arc, OnceLock};
use sync::{AtomicU64, Mailbox, Ordering};

#[cfg(not(loom))]
mod sync {
    pub use crossbeam::queue::ArrayQueue;
    pub use std::sync::atomic::{AtomicU64, Ordering};
    pub type Mailbox<T> = ArrayQueue<T>;
}

/// Under loom the mailbox is a locked cell: loom cannot look into crossbeam's queue, whose contract
/// (the newest wins, nothing is torn) this keeps.
#[cfg(loom)]
mod sync {
    pub use loom::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug)]
    pub struct Mailbox<T>(loom::sync::Mutex<Option<T>>);
    impl<T> Mailbox<T> {
        pub fn new(_: usize) -> Self {
            Self(loom::sync::Mutex::new(None))
        }
        pub fn force_push(&self, value: T) -> Option<T> {
            self.0.lock().unwrap().replace(value)
        }
        pub fn pop(&self) -> Option<T> {
            self.0.lock().unwrap().take()
        }
    }
}

#[derive(Debug)]
struct Slot {
    mailbox: Mailbox<Arc<Snapshot>>,
    seen: AtomicU64,
}

/// What a worker does when it has taken a snapshot: it wakes who waits for that.
struct Hook(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

#[derive(Debug)]
struct Shared {
    generation: AtomicU64,
    slots: Box<[Slot]>,
    taken: OnceLock<Hook>,
}

/// The control thread's side.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    kept: Vec<Arc<Snapshot>>,
}

/// A worker's side.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    worker: usize,
    generation: u64,
    current: Arc<Snapshot>,
}

/// A publisher and one reader a worker.
pub fn channel(workers: usize) -> (Publisher, Vec<Reader>) {
    let slot = |_| Slot { mailbox: Mailbox::new(1), seen: AtomicU64::new(0) };
    let (generation, slots) = (AtomicU64::new(0), (0..workers).map(slot).collect());
    let shared = Arc::new(Shared { generation, slots, taken: OnceLock::new() });
    let empty = Arc::new(Snapshot::empty());
    let reader = |worker| Reader { shared: shared.clone(), worker, generation: 0, current: empty.clone() };
    let readers = (0..workers).map(reader).collect();
    (Publisher { shared, kept: vec![empty] }, readers)
}

impl Publisher {
    /// What every worker does each time when it has taken a snapshot, on its own path: nothing that blocks. Told once, before workers
    /// start. Who looks for a [laggard](Self::laggard) before each wait for this misses none.
    pub fn when_taken(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.shared.taken.get_or_init(|| Hook(Box::new(hook)));
    }

    /// Hands `snapshot` to every worker. Wake them afterwards: they may be asleep.
    pub fn publish(&mut self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        for slot in &self.shared.slots {
            slot.mailbox.force_push(snapshot.clone());
        }
        self.shared.generation.store(snapshot.generation, Ordering::Release);
        self.kept.push(snapshot.clone());
        self.kept.retain(|kept| Arc::strong_count(kept) > 1);
        snapshot
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<&Snapshot> {
        self.kept.last().map(|newest| &**newest)
    }

    /// Whether every worker uses `generation` or a later one.
    pub fn is_seen(&self, generation: u64) -> bool {
        self.shared.slots.iter().all(|slot| slot.seen.load(Ordering::Acquire) >= generation)
    }

    /// The first worker that does not.
    pub fn laggard(&self, generation: u64) -> Option<usize> {
        self.shared.slots.iter().position(|slot| slot.seen.load(Ordering::Acquire) < generation)
    }

    /// The newest snapshot.
    pub fn current(&self) -> &Arc<Snapshot> {
        // One is made with the publisher, and the newest stays until there is a newer one.
        self.kept.last().unwrap_or_else(|| unreachable!("the newest snapshot is kept"))
    }

    /// The newest generation.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Relaxed)
    }
}

impl Reader {
    /// The newest snapshot: one load if nothing changed. Called between batches only, when no stage
    /// holds on to the old one; that is what `seen` tells the publisher.
    #[inline(always)]
    pub fn refresh(&mut self) -> &Arc<Snapshot> {
        if self.is_stale() {
            self.take();
        }
        &self.current
    }

    #[cold]
    fn take(&mut self) {
        let slot = &self.shared.slots[self.worker];
        if let Some(snapshot) = slot.mailbox.pop() {
            self.generation = snapshot.generation;
            self.current = snapshot;
            slot.seen.store(self.generation, Ordering::Release);
            // Behind the word that the control thread looks at before it waits.
            self.shared.taken.get().inspect(|hook| hook.0());
        }
    }

    /// Whether a newer snapshot waits: a worker does not fall asleep on one.
    #[inline(always)]
    pub fn is_stale(&self) -> bool {
        self.shared.generation.load(Ordering::Acquire) != self.generation
    }

    /// The generation in use.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_freed_by_the_publisher_once_nobody_has_them() {
        let (mut publisher, mut readers) = channel(2);
        for generation in 1..=5 {
            publisher.publish(Snapshot { generation, ..Snapshot::empty() });
            assert!(!publisher.is_seen(generation));
            readers[0].refresh();
            assert_eq!(publisher.laggard(generation), Some(1));
            readers[1].refresh();
            assert!(publisher.is_seen(generation));
            assert!(publisher.kept.len() <= 2, "{} kept", publisher.kept.len());
        }
    }

    #[test]
    fn a_worker_that_slept_through_several_takes_the_last() {
        let (mut publisher, mut readers) = channel(1);
        for generation in 1..=3 {
            publisher.publish(Snapshot { generation, ..Snapshot::empty() });
        }
        assert_eq!(readers[0].refresh().generation, 3);
        assert!(!readers[0].is_stale());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// What the publisher believes seen is seen: after `is_seen(g)` the worker never uses an older one.
    #[test]
    fn loom_seen_means_seen() {
        let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = executions.clone();
        loom::model(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (mut publisher, mut readers) = channel(1);
            let mut reader = readers.remove(0);
            let worker = loom::thread::spawn(move || {
                let first = reader.refresh().generation;
                let second = reader.refresh().generation;
                assert!(second >= first, "a snapshot went backwards");
                reader
            });
            publisher.publish(Snapshot { generation: 1, ..Snapshot::empty() });
            let seen = publisher.is_seen(1);
            publisher.publish(Snapshot { generation: 2, ..Snapshot::empty() });
            let mut reader = worker.join().unwrap();
            assert!(!seen || reader.generation() >= 1);
            assert_eq!(reader.refresh().generation, 2, "the last one is never lost");
            assert!(publisher.is_seen(2));
        });
        println!("seen_means_seen: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
    }

    /// Whoever waits until all have a snapshot is woken by the last of them, in whatever order things happen: it waits without a time
    /// limit here.
    #[test]
    fn loom_who_waits_for_workers_is_woken() {
        let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = executions.clone();
        loom::model(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (mut publisher, readers) = channel(2);
            // A flag that stays up, and a condition to wait on: what a thread that is parked is.
            let bench = loom::sync::Arc::new((loom::sync::Mutex::new(false), loom::sync::Condvar::new()));
            let woken = bench.clone();
            publisher.when_taken(move || {
                *woken.0.lock().unwrap() = true;
                woken.1.notify_all();
            });
            publisher.publish(Snapshot { generation: 1, ..Snapshot::empty() });
            let take = |mut reader: Reader| loom::thread::spawn(move || reader.refresh().generation);
            let workers: Vec<_> = readers.into_iter().map(take).collect();
            while publisher.laggard(1).is_some() {
                let mut is_woken = bench.0.lock().unwrap();
                while !*is_woken {
                    is_woken = bench.1.wait(is_woken).unwrap();
                }
                *is_woken = false;
            }
            workers.into_iter().for_each(|worker| assert_eq!(worker.join().unwrap(), 1));
        });
        println!("who_waits_is_woken: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
    }
}
