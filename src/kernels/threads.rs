//! A fork-join pool for loops of 20 to 100 microseconds.
//!
//! A network is a chain of such loops, so handing one over must cost next to nothing: workers spin for a
//! bounded time after each loop and only then sleep, and the caller never waits for a worker that has not woken
//! up. All of the hand-over is one atomic word (`state`): the number of the loop, whether it takes more
//! workers, and how many are inside. A pool has one loop at a time; a caller that finds it busy, be it from another
//! thread or from inside a task, runs its tasks itself. So nothing here can wait for itself.
//!
//! Every thread has its own part of a loop's tasks, the same one each time, and takes from those of others when it is done
//! with it: what a core wrote in one loop it reads again in the next, out of its own cache.
//!
//! Cores are one budget: whoever announces its work ([`Threads::enter`]) takes one from the loops of others, so that
//! a lone request runs on all cores and each of many on its own.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks for the next loop before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Looks between two readings of the clock.
const SPINS_PER_CLOCK: u32 = 64;

/// A handle to a pool; clones share it. The threads end when the last handle goes.
#[derive(Clone)]
pub struct Threads(Option<Arc<Pool>>);

impl Threads {
    /// A pool that runs loops on `count` threads, the caller's among them; 0 counts as 1. Threads that the system
    /// refuses to start are done without.
    pub fn new(count: usize) -> Threads {
        if count <= 1 { Threads::single() } else { Threads(Some(Arc::new(Pool::start(count - 1)))) }
    }

    /// The caller's thread alone.
    pub fn single() -> Threads {
        Threads(None)
    }

    /// Threads a loop can run on, at least 1.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.workers.len() + 1)
    }

    /// Announces work that will call loops, until the guard goes. Each such work keeps the core that it runs on; a loop
    /// is shared out among those that are left.
    pub fn enter(&self) -> Running<'_> {
        let pool = self.0.as_deref();
        if let Some(pool) = pool {
            pool.running.0.fetch_add(1, Ordering::Relaxed);
        }
        Running(pool)
    }

    /// The number of the loop that is being run, if there is one: seen twice with time between, it shows a loop that
    /// does not get on.
    pub fn current_loop(&self) -> Option<u64> {
        let shared = &self.0.as_ref()?.shared;
        let busy = shared.busy.load(Ordering::Acquire);
        busy.then(|| shared.state.0.load(Ordering::Acquire) >> NUMBER_SHIFT)
    }

    /// Calls `task(i)` once for every `i < tasks`, on any of the threads and in any order, and returns when all
    /// are done.
    ///
    /// # Panics
    /// If a task panics: with that panic, after the tasks that had begun have ended; others are skipped.
    pub fn for_each(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        match &self.0 {
            Some(pool) if tasks > 1 => pool.run(tasks, &task),
            _ => (0..tasks).for_each(task),
        }
    }

    /// Cuts `out` into pieces of `chunk` elements (the last may be shorter) and calls `task(i, piece)` for each.
    /// A `chunk` of 0 counts as 1.
    ///
    /// # Panics
    /// As [`Threads::for_each`].
    pub fn for_each_slice<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunk = chunk.max(1);
        let length = out.len();
        let base = SendPtr(out.as_mut_ptr());
        self.for_each(length.div_ceil(chunk), |index| {
            let start = index * chunk;
            let end = (start + chunk).min(length);
            // SAFETY: start < length, and the pieces of different indices are disjoint; `for_each` gives every
            // index once, and `out` stays borrowed until all are done.
            let piece = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), end - start) };
            task(index, piece);
        });
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count())
    }
}

/// Work under way; see [`Threads::enter`].
#[must_use]
pub struct Running<'a>(Option<&'a Pool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.0 {
            pool.running.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A pointer that tasks on several threads derive disjoint parts from.
pub(crate) struct SendPtr<T>(pub(crate) *mut T);

impl<T> SendPtr<T> {
    /// The pointer. A method, so that closures capture the whole wrapper.
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}
// SAFETY: whoever dereferences the pointer answers for disjointness; moving the address is harmless.
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SendPtr<T> {}

struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Works announced.
    running: CacheLine<AtomicUsize>,
}

/// Bit of `Shared::state`: the loop takes more workers.
const OPEN: u64 = 1 << 31;
/// Bits of `Shared::state` that count the workers inside.
const INSIDE: u64 = OPEN - 1;
/// The loop's number stands above these bits.
const NUMBER_SHIFT: u32 = 32;

struct Shared {
    /// Loop number << 32 | open << 31 | workers inside. On a line of its own: workers spin on it.
    state: CacheLine<AtomicU64>,
    /// Held by the caller whose loop is running.
    busy: AtomicBool,
    /// For each thread, the caller first: the next task of its part to hand out. Apart from `state`, so that this traffic
    /// does not disturb those who spin, and from one another.
    next: Box<[CacheLine<AtomicUsize>]>,
    /// Written while the loop is closed and nobody inside, read while inside.
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}
// SAFETY: `job` is guarded by the protocol of `state`, all else is Sync.
unsafe impl Sync for Shared {}
// SAFETY: the pointer inside `job` is only used while the loop it belongs to runs.
unsafe impl Send for Shared {}

#[repr(align(128))]
struct CacheLine<T>(T);

/// A loop body, stripped of its type.
#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    /// Workers that take part at most, besides the caller.
    helpers: usize,
    body: *const (),
    call: unsafe fn(*const (), usize),
}

impl Job {
    fn new<F: Fn(usize) + Sync>(tasks: usize, body: &F) -> Job {
        unsafe fn call<F: Fn(usize)>(body: *const (), index: usize) {
            // SAFETY: `body` was made from an `&F` that the running loop still borrows.
            unsafe { (*body.cast::<F>())(index) }
        }
        Job { tasks, helpers: 0, body: std::ptr::from_ref(body).cast(), call: call::<F> }
    }

    /// Parts of the tasks: one for each thread that may take some.
    fn parts(&self) -> usize {
        self.helpers + 1
    }

    /// The tasks of a part.
    fn part(&self, part: usize) -> Range<usize> {
        super::product::part(self.tasks, self.parts(), part)
    }

    fn none() -> Job {
        Job::new(0, &|_: usize| {})
    }
}

impl Pool {
    fn start(workers: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: CacheLine(AtomicU64::new(0)),
            busy: AtomicBool::new(false),
            next: (0..=workers).map(|_| CacheLine(AtomicUsize::new(0))).collect(),
            job: UnsafeCell::new(Job::none()),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (0..workers)
            .filter_map(|index| {
                let shared = Arc::clone(&shared);
                let name = format!("kernels-{}", index + 1);
                std::thread::Builder::new().name(name).spawn(move || shared.work(index + 1)).ok()
            })
            .collect();
        Pool { shared, workers, running: CacheLine(AtomicUsize::new(0)) }
    }

    fn run<F: Fn(usize) + Sync>(&self, tasks: usize, body: &F) {
        let shared = &*self.shared;
        let others = self.running.0.load(Ordering::Relaxed).saturating_sub(1);
        let helpers = self.workers.len().saturating_sub(others);
        if helpers == 0 {
            return (0..tasks).for_each(body);
        }
        if shared.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return (0..tasks).for_each(body);
        }
        let job = Job { helpers, ..Job::new(tasks, body) };
        shared.open(job);
        shared.take_tasks(job, 0);
        shared.close();
        let panic = shared.panic().take();
        shared.busy.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self.shared.lock();
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // The last handle may go inside a task; a worker cannot wait for its own end.
            if worker.thread().id() != std::thread::current().id() {
                let _ = worker.join();
            }
        }
    }
}

impl Shared {
    /// Publishes a loop. The caller holds `busy`, so the previous loop is closed and nobody is inside.
    fn open(&self, job: Job) {
        for (part, next) in self.next.iter().enumerate().take(job.parts()) {
            next.0.store(job.part(part).start, Ordering::Relaxed);
        }
        // SAFETY: the loop is closed and nobody is inside, so nobody reads the job.
        unsafe { *self.job.get() = job };
        let number = (self.state.0.load(Ordering::Relaxed) >> NUMBER_SHIFT).wrapping_add(1);
        // SeqCst against `sleep`: either this thread sees the sleeper or the sleeper sees the loop.
        self.state.0.store(number << NUMBER_SHIFT | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.lock();
            self.wake.notify_all();
        }
    }

    /// Shuts the door and waits for the workers inside.
    fn close(&self) {
        self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0u32;
        while self.state.0.load(Ordering::Acquire) & INSIDE != 0 {
            looks = looks.wrapping_add(1);
            // A worker that lost its core needs this one, perhaps.
            if looks.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    /// Runs tasks until none is left, those of part `own` first. A panic is kept for the caller and ends the loop early.
    fn take_tasks(&self, job: Job, own: usize) {
        let parts = &self.next[..job.parts()];
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for step in 0..parts.len() {
                let part = (own + step) % parts.len();
                let end = job.part(part).end;
                loop {
                    let index = parts[part].0.fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        break;
                    }
                    // SAFETY: the loop this job belongs to is running: its caller waits in `run`.
                    unsafe { (job.call)(job.body, index) };
                }
            }
        }));
        if let Err(panic) = outcome {
            parts.iter().for_each(|next| next.0.store(job.tasks, Ordering::Relaxed));
            self.panic().get_or_insert(panic);
        }
    }

    /// The life of worker `number`.
    fn work(&self, number: usize) {
        let mut done = 0;
        loop {
            let state = self.wait_for_loop(done);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let entered =
                self.state.0.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
            if entered.is_ok() {
                // SAFETY: inside, so the job stands still until this worker leaves.
                let job = unsafe { *self.job.get() };
                if (state & INSIDE) < job.helpers as u64 {
                    self.take_tasks(job, number);
                }
                self.state.0.fetch_sub(1, Ordering::Release);
                done = state >> NUMBER_SHIFT;
            }
        }
    }

    /// Spins, then sleeps, until a loop other than number `done` is open (or the pool stops); returns the state seen.
    fn wait_for_loop(&self, done: u64) -> u64 {
        let is_new = |state: u64| state & OPEN != 0 && state >> NUMBER_SHIFT != done;
        let since = Instant::now();
        loop {
            for _ in 0..SPINS_PER_CLOCK {
                let state = self.state.0.load(Ordering::Acquire);
                if is_new(state) || self.stop.load(Ordering::Relaxed) {
                    return state;
                }
                std::hint::spin_loop();
            }
            if since.elapsed() > SPIN {
                break;
            }
        }
        let mut guard = self.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let state = loop {
            let state = self.state.0.load(Ordering::SeqCst);
            if is_new(state) || self.stop.load(Ordering::SeqCst) {
                break state;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        state
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn panic(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(threads: &Threads, tasks: usize) {
        let seen: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        threads.for_each(tasks, |i| {
            seen[i].fetch_add(1, Ordering::Relaxed);
        });
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn many_works_run_on_a_core_each() {
        let threads = Threads::new(2);
        let works = [threads.enter(), threads.enter()];
        let own = std::thread::current().id();
        for _ in 0..100 {
            threads.for_each(8, |_| assert_eq!(std::thread::current().id(), own));
        }
        drop(works);
        counts(&threads, 100);
    }

    #[test]
    fn every_task_runs_once() {
        for count in [0, 1, 2, 3, 5] {
            let threads = Threads::new(count);
            assert_eq!(threads.count(), count.max(1));
            for round in 0..2000 {
                counts(&threads, round % 17);
            }
        }
    }

    #[test]
    fn wakes_after_sleep() {
        let threads = Threads::new(3);
        for _ in 0..20 {
            std::thread::sleep(SPIN * 4);
            counts(&threads, 64);
        }
    }

    #[test]
    fn the_loop_that_runs_has_a_number() {
        let threads = Threads::new(2);
        let numbers = Mutex::new(Vec::new());
        for _ in 0..3 {
            assert_eq!(threads.current_loop(), None);
            threads.for_each(2, |_| numbers.lock().unwrap().push(threads.current_loop().unwrap()));
        }
        let numbers = numbers.into_inner().unwrap();
        assert!(
            numbers.chunks(2).all(|pair| pair[0] == pair[1])
                && numbers.is_sorted()
                && numbers[0] < numbers[5]
        );
        assert_eq!(Threads::single().current_loop(), None);
    }

    #[test]
    fn slices_are_disjoint_and_complete() {
        let threads = Threads::new(2);
        for length in [0, 1, 7, 64, 1000] {
            for chunk in [0, 1, 3, 64, 2000] {
                let mut out = vec![0usize; length];
                threads.for_each_slice(&mut out, chunk, |index, piece| {
                    for (offset, value) in piece.iter_mut().enumerate() {
                        *value += index * chunk.max(1) + offset + 1;
                    }
                });
                assert!(out.iter().enumerate().all(|(i, &value)| value == i + 1));
            }
        }
    }

    #[test]
    fn nested_loops_run_on_their_own_thread() {
        let threads = Threads::new(3);
        let total = AtomicUsize::new(0);
        threads.for_each(8, |_| {
            threads.for_each(8, |_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 64);
    }

    #[test]
    fn many_callers_share_one_pool() {
        let threads = Threads::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let threads = threads.clone();
                scope.spawn(move || (0..500).for_each(|round| counts(&threads, round % 9)));
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let threads = Threads::new(3);
        for round in 0..50 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                threads.for_each(10, |i| assert!(i != round % 10, "task {i}"));
            }));
            let message = outcome.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(*message, format!("task {}", round % 10));
            counts(&threads, 10);
        }
    }

    #[test]
    fn dropping_the_pool_inside_a_task_does_not_hang() {
        let slot = Mutex::new(Some(Threads::new(2)));
        let threads = slot.lock().unwrap().clone().unwrap();
        threads.for_each(4, |_| drop(slot.lock().unwrap().take()));
        drop(threads);
    }
}
