//! The pool of threads that call the handler, and the queues to it and back.
//!
//! Requests wait in a bounded queue. Responses come back in batches: the loop is woken once for all
//! that have gathered since it last looked.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::Waker;

use crate::wire::{
    grpc,
    headers::Headers,
    message::{Event, Handler, Request, Response},
};

/// Where a request came from, so that its response finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The place of the connection in the loop's table.
    pub(super) slot: usize,
    /// Which of the connections that have used that place.
    pub(super) generation: u64,
    /// The stream within the connection; 0 on HTTP/1.
    pub(super) stream: u32,
}

/// Nearly all are requests: a box for each would cost more than the room that a probe does not need.
#[allow(clippy::large_enum_variant)]
enum Job {
    Request(Origin, Request),
    /// Shows that a worker is free, or gets free, to do it.
    Probe(Box<dyn FnOnce() + Send>),
}

/// A response, or nothing if the request had been cancelled before a worker took it.
pub(super) struct Done {
    pub(super) origin: Origin,
    pub(super) response: Response,
}

/// The queues between the loop and the workers.
pub(super) struct Workers {
    handler: Arc<dyn Handler>,
    jobs: Mutex<Jobs>,
    arrived: Condvar,
    done: Mutex<Vec<Done>>,
    waker: Waker,
    woken: AtomicBool,
    /// How often the loop has looked for responses, which it does in each of its turns.
    turns: AtomicU64,
    /// Requests that workers are done with.
    finished: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    limit: usize,
    idle: usize,
    /// A thread has been woken and has not looked yet.
    waking: bool,
    stopped: bool,
}

impl Workers {
    /// Starts `count` threads; at most `limit` requests wait for them.
    pub(super) fn start(
        count: usize,
        limit: usize,
        handler: Arc<dyn Handler>,
        waker: Waker,
    ) -> io::Result<(Arc<Workers>, Vec<JoinHandle<()>>)> {
        let workers = Arc::new(Workers {
            handler,
            jobs: Mutex::new(Jobs { limit, ..Jobs::default() }),
            arrived: Condvar::new(),
            done: Mutex::new(Vec::new()),
            waker,
            woken: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            finished: AtomicU64::new(0),
        });
        let threads = (0..count.max(1)).map(|number| {
            let workers = workers.clone();
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || workers.run())
        });
        let threads = threads.collect::<io::Result<Vec<_>>>();
        if threads.is_err() {
            workers.stop();
        }
        Ok((workers, threads?))
    }

    /// Queues a request; gives it back if the queue is full.
    pub(super) fn submit(&self, origin: Origin, request: Request) -> Result<(), Box<Request>> {
        let mut jobs = lock(&self.jobs);
        if jobs.queue.len() >= jobs.limit {
            return Err(Box::new(request));
        }
        jobs.queue.push_back(Job::Request(origin, request));
        self.wake_one(jobs);
        Ok(())
    }

    /// Queues work before all requests, and wakes the loop.
    pub(super) fn probe(self: &Arc<Workers>, work: impl FnOnce() + Send + 'static) -> Probe {
        let (done, answered) = mpsc::channel();
        let turn = self.turns.load(Ordering::SeqCst);
        let probe = Probe { receiver: answered, answer: Answer::None, turn, workers: Arc::clone(self) };
        let mut jobs = lock(&self.jobs);
        jobs.queue.push_front(Job::Probe(Box::new(move || {
            work();
            // The one who asked may have lost patience.
            let _ = done.send(());
        })));
        self.wake_one(jobs);
        self.wake();
        probe
    }

    /// Wakes a thread, if one waits and none is on its way. Each wakes the next one when it finds more than it takes,
    /// so that a batch of requests costs the loop one wake-up.
    fn wake_one(&self, mut jobs: MutexGuard<'_, Jobs>) {
        let wanted = jobs.idle > 0 && !jobs.waking && !jobs.queue.is_empty();
        jobs.waking |= wanted;
        drop(jobs);
        if wanted {
            self.arrived.notify_one();
        }
    }

    /// Takes the responses that have gathered.
    pub(super) fn take_done(&self, into: &mut Vec<Done>) {
        self.turns.fetch_add(1, Ordering::SeqCst);
        self.woken.store(false, Ordering::SeqCst);
        into.append(&mut lock(&self.done));
    }

    /// Wakes the loop.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("the loop cannot be woken: {error}");
        }
    }

    /// Lets the threads end once they have finished what they are at; what waits is dropped.
    pub(super) fn stop(&self) {
        let mut jobs = lock(&self.jobs);
        jobs.stopped = true;
        jobs.queue.clear();
        drop(jobs);
        self.arrived.notify_all();
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            let (origin, request) = match job {
                Job::Request(origin, request) => (origin, request),
                Job::Probe(work) => {
                    // A panic drops the sender: that is the answer.
                    let _ = catch_unwind(AssertUnwindSafe(work));
                    continue;
                }
            };
            let response =
                if request.cancelled.is_set() { Response::empty(499) } else { call(&*self.handler, request) };
            lock(&self.done).push(Done { origin, response });
            self.finished.fetch_add(1, Ordering::Relaxed);
            self.wake();
        }
    }

    /// How many requests the workers have been done with so far.
    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            if jobs.stopped {
                return None;
            }
            if let Some(job) = jobs.queue.pop_front() {
                self.wake_one(jobs);
                return Some(job);
            }
            jobs.idle += 1;
            jobs = self.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            jobs.idle -= 1;
            jobs.waking = false;
        }
    }
}

/// Work that shows whether the loop and the workers still do theirs.
pub struct Probe {
    receiver: mpsc::Receiver<()>,
    answer: Answer,
    /// The loop's turns when this was begun.
    turn: u64,
    workers: Arc<Workers>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Done,
    /// The work panicked, or was dropped by a server that stops.
    Lost,
}

impl Probe {
    /// Waits up to `patience` until a worker has done the work and the loop has turned. May be asked again.
    pub fn is_answered(&mut self, patience: Duration) -> bool {
        let since = Instant::now();
        if self.answer == Answer::None {
            match self.receiver.recv_timeout(patience) {
                Ok(()) => self.answer = Answer::Done,
                Err(mpsc::RecvTimeoutError::Disconnected) => self.answer = Answer::Lost,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
        // The loop was woken when this began; a moment is enough unless it is stuck.
        while self.answer == Answer::Done && self.workers.turns.load(Ordering::SeqCst) == self.turn {
            if since.elapsed() >= patience {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.answer == Answer::Done
    }

    /// Whether it will never be answered, because its work panicked.
    pub fn is_lost(&self) -> bool {
        self.answer == Answer::Lost
    }
}

/// Calls the handler. If it panics, the client gets 500, or INTERNAL.
pub(super) fn call(handler: &dyn Handler, request: Request) -> Response {
    let content_type =
        grpc::is_grpc(&request).then(|| request.headers.get("content-type").map(<[u8]>::to_vec));
    match catch_unwind(AssertUnwindSafe(|| handler.handle(request))) {
        Ok(response) => response,
        Err(_) => {
            handler.record(Event::Panicked);
            log::error!("a request made its handler panic; it is answered with an internal error");
            match content_type.flatten() {
                Some(content_type) => grpc::refuse(&Headers::new().with("content-type", content_type), 500),
                None => handler.refuse(None, 500),
            }
        }
    }
}

/// No invariant of these queues spans a panic, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
