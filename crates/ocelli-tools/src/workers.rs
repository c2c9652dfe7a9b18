//! A fixed number of threads behind a bounded queue: what does not fit is refused at once, not stacked up.
//!
//! The threads take jobs in the order in which they came. One thread more takes short jobs alone, so that a crop does not
//! wait until somebody's texts are read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Fatal;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    long: VecDeque<(u64, Job)>,
    short: VecDeque<(u64, Job)>,
    /// Number of the next job, in the order in which they came.
    next: u64,
    closed: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.long.len() + self.short.len()
    }

    /// The job that came first, or the first short one.
    fn take(&mut self, short_only: bool) -> Option<Job> {
        let first = |queue: &VecDeque<(u64, Job)>| queue.front().map_or(u64::MAX, |(number, _)| *number);
        let from = match short_only || first(&self.short) < first(&self.long) {
            true => &mut self.short,
            false => &mut self.long,
        };
        from.pop_front().map(|(_, job)| job)
    }
}

/// Which threads may take a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// All.
    Short,
    /// All but the one that is kept for short ones.
    Long,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// For the thread that takes short jobs alone.
    short: Condvar,
    capacity: usize,
    running: AtomicUsize,
    /// Mean time of a job in microseconds, over the last 16 or so.
    mean_micros: AtomicU64,
    threads: usize,
}

/// The threads. Dropping it lets them finish what is queued.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// How busy the threads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) capacity: usize,
    pub(crate) threads: usize,
    pub(crate) closed: bool,
}

impl Workers {
    pub(crate) fn start(threads: usize, capacity: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            short: Condvar::new(),
            capacity,
            running: AtomicUsize::new(0),
            mean_micros: AtomicU64::new(0),
            threads,
        });
        let start = |i: usize| {
            let shared = shared.clone();
            let short_only = i == threads;
            std::thread::Builder::new().name(format!("tool-{i}")).spawn(move || work(&shared, short_only))
        };
        let threads = (0..=threads).map(start).collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { shared, threads })
    }

    /// Queues a job, or says that the queue is full or closed.
    pub(crate) fn submit(&self, length: Length, job: impl FnOnce() + Send + 'static) -> Result<(), Fatal> {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return Err(Fatal::Draining);
        }
        if queue.len() >= self.shared.capacity {
            return Err(self.busy(queue.len()));
        }
        let job = (queue.next, Box::new(job) as Job);
        queue.next += 1;
        match length {
            Length::Short => queue.short.push_back(job),
            Length::Long => queue.long.push_back(job),
        }
        drop(queue);
        self.shared.changed.notify_one();
        if length == Length::Short {
            self.shared.short.notify_one();
        }
        Ok(())
    }

    /// The answer to a call that there is no room for, with a guess at when there will be.
    pub(crate) fn busy(&self, waiting: usize) -> Fatal {
        let mean = self.shared.mean_micros.load(Ordering::Relaxed);
        let retry_after_ms = (mean * waiting as u64 / self.shared.threads as u64 / 2000).clamp(5, 5000);
        Fatal::Busy { waiting, retry_after_ms }
    }

    /// Counts a job that runs on the caller's thread, where none waits and a thread is free; `None` where it must queue.
    pub(crate) fn seat(&self) -> Option<Seat<'_>> {
        let queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.shared.running.load(Ordering::Relaxed);
        if queue.closed || queue.len() > 0 || running >= self.shared.threads {
            return None;
        }
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        Some(Seat { shared: &self.shared, begun: Instant::now() })
    }

    pub(crate) fn load(&self) -> Load {
        let queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        Load {
            running: self.shared.running.load(Ordering::Relaxed),
            waiting: queue.len(),
            closed: queue.closed,
            capacity: self.shared.capacity,
            threads: self.shared.threads,
        }
    }

    /// Takes no more jobs.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.changed.notify_all();
        self.shared.short.notify_all();
    }

    /// Waits until nothing runs or waits, or the time is up; true where all is done.
    pub(crate) fn wait_idle(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let load = self.load();
            if load.running == 0 && load.waiting == 0 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
        let me = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|t| t.thread().id() != me) {
            // Jobs do not panic: tools are caught at the registry; a lost thread would show here as an error.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, short_only: bool) {
    loop {
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = loop {
            if let Some(job) = queue.take(short_only) {
                break job;
            }
            if queue.closed {
                return;
            }
            let changed = if short_only { &shared.short } else { &shared.changed };
            queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        // Counted before the lock is let go, so that nobody sees a moment with nothing waiting and nothing running.
        shared.running.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        let _seat = Seat { shared, begun: Instant::now() };
        job();
    }
}

/// A job that runs, until it is dropped.
pub(crate) struct Seat<'a> {
    shared: &'a Shared,
    begun: Instant,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed().as_micros() as u64;
        let mean = self.shared.mean_micros.load(Ordering::Relaxed);
        self.shared.mean_micros.store((mean * 15 + took) / 16, Ordering::Relaxed);
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_drains() {
        let workers = Workers::start(1, 1).unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        workers
            .submit(Length::Long, move || {
                begun.send(()).unwrap();
                gate.recv().unwrap();
            })
            .unwrap();
        has_begun.recv().unwrap();
        let (done, is_done) = mpsc::channel();
        workers.submit(Length::Long, move || done.send(()).unwrap()).unwrap();
        assert!(matches!(workers.submit(Length::Long, || ()), Err(Fatal::Busy { waiting: 1, .. })));
        assert!(workers.seat().is_none());
        workers.close();
        assert_eq!(workers.submit(Length::Long, || ()), Err(Fatal::Draining));
        go.send(()).unwrap();
        is_done.recv().unwrap();
        assert!(workers.wait_idle(Duration::from_secs(5)));
        assert!(workers.seat().is_none());
    }

    #[test]
    fn short_jobs_do_not_wait_for_long_ones() {
        let workers = Workers::start(1, 8).unwrap();
        let (go, gate) = mpsc::channel::<()>();
        workers.submit(Length::Long, move || gate.recv().unwrap()).unwrap();
        let (done, is_done) = mpsc::channel();
        let also = done.clone();
        workers.submit(Length::Long, move || also.send("long").unwrap()).unwrap();
        workers.submit(Length::Short, move || done.send("short").unwrap()).unwrap();
        assert_eq!(is_done.recv_timeout(Duration::from_secs(30)), Ok("short"));
        go.send(()).unwrap();
        assert_eq!(is_done.recv_timeout(Duration::from_secs(30)), Ok("long"));
    }

    #[test]
    fn a_seat_counts_as_a_running_job() {
        let workers = Workers::start(1, 1).unwrap();
        let seat = workers.seat().unwrap();
        assert!(workers.seat().is_none());
        assert_eq!(workers.load().running, 1);
        assert!(!workers.wait_idle(Duration::from_millis(20)));
        drop(seat);
        assert!(workers.wait_idle(Duration::from_millis(20)) && workers.seat().is_some());
    }
}
