//! The readiness loop: accepts, lets connections have their turns, moves requests and responses.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};

use crate::wire::{
    budget::Budget,
    clock::Clock,
    context::Context,
    http1,
    limits::Limits,
    message::{Event, Handler},
    output::Output,
    tls::Tls,
};

use super::{
    Stop,
    link::{After, Link},
    socket::{Listener, Socket},
    spin::Spin,
    workers::{self, Done, Origin, Workers},
};

/// The token of the waker; listeners have the ones after it, connections those from `FIRST_LINK` on.
pub(super) const WAKE: Token = Token(0);
const FIRST_LISTENER: usize = 1;
const FIRST_LINK: usize = 1 << 16;

/// How often the time limits are looked at.
const TICK: Duration = Duration::from_millis(250);
/// What one read takes at most.
const SCRATCH: usize = 128 << 10;
/// Connections accepted before those that are open have their turn.
const ACCEPTS: usize = 256;
/// How long the requests of one connection are answered on the loop's thread before others have their turn.
const INLINE: Duration = Duration::from_micros(500);
/// So many connections are answered, or for so long, before the answers are written. A client on this machine that the first
/// answer wakes finds the others when it looks; written one by one, each of them would wake it again, which costs more
/// than a small model.
const GATHERED: usize = 32;
const GATHERING: Duration = Duration::from_micros(200);
/// Bodies and answers of so many bytes leave an allocator with memory that is worth giving back.
const MUCH: usize = 16 << 20;
/// Idle connections closed at once when descriptors run out.
const SHED: usize = 16;

/// The loop and everything that it owns.
pub(super) struct Reactor {
    poll: Poll,
    listeners: Vec<Listener>,
    /// Listeners with connections that wait.
    accepting: Vec<bool>,
    links: Vec<Slot>,
    free: Vec<usize>,
    open: usize,
    /// Connections that have something to do without a new event.
    ready: VecDeque<usize>,
    /// Connections that have been answered in this turn, and what their turn has come to so far.
    answering: Vec<(usize, After)>,
    done: Vec<Done>,
    /// Requests that the workers have.
    handed_over: usize,
    /// An answer has been given since the loop last waited.
    answered: bool,
    spin: Spin,
    scratch: Vec<u8>,
    clock: Clock,
    ticked: Instant,
    /// Kept so that there is a descriptor to accept, and close, with when no other is left.
    reserve: Option<File>,
    budget: Arc<Budget>,
    /// The most that the budget has held at a tick since it was last found to be emptied.
    held: usize,
    settings: Settings,
    stopping: Option<Instant>,
}

/// What the loop is given and does not change.
pub(super) struct Settings {
    pub(super) limits: Arc<Limits>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) workers: Arc<Workers>,
    pub(super) stop: Stop,
    pub(super) tls: Option<Tls>,
    pub(super) require_tls: bool,
    pub(super) plain_ports: Vec<u16>,
    pub(super) busy_poll: Duration,
}

/// A place for a connection; the generation tells apart those that have used it.
#[derive(Default)]
struct Slot {
    link: Option<Link>,
    generation: u64,
}

impl Reactor {
    pub(super) fn new(poll: Poll, mut listeners: Vec<Listener>, settings: Settings) -> io::Result<Reactor> {
        for (number, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(FIRST_LISTENER + number))?;
        }
        let clock = Clock::new();
        Ok(Reactor {
            poll,
            accepting: vec![true; listeners.len()],
            listeners,
            links: Vec::new(),
            free: Vec::new(),
            open: 0,
            ready: VecDeque::new(),
            answering: Vec::new(),
            done: Vec::new(),
            handed_over: 0,
            answered: false,
            spin: Spin::new(settings.busy_poll),
            scratch: vec![0; SCRATCH],
            ticked: clock.now(),
            clock,
            reserve: File::open("/dev/null").ok(),
            budget: Budget::new(settings.limits.in_flight_bytes),
            held: 0,
            settings,
            stopping: None,
        })
    }

    /// Whether every connection has been closed.
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Runs until the server is stopped and the last connection is closed, or its deadline has passed.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.wait(&mut events)?;
            self.clock.update();
            for event in &events {
                self.note(event);
            }
            self.begin_stopping();
            self.accept();
            self.take_responses();
            self.drive();
            if self.clock.since(self.ticked) >= TICK {
                self.tick();
            }
            if let Some(deadline) = self.stopping
                && (self.is_empty() || self.clock.now() >= deadline)
            {
                self.links.iter_mut().filter_map(|slot| slot.link.as_mut()).for_each(Link::cancel);
                return Ok(());
            }
        }
    }

    /// Waits for events, or for the time of the next tick.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        // While workers compute, their cores are better used by them.
        let idle = timeout != Some(Duration::ZERO) && self.handed_over == 0;
        if idle && std::mem::take(&mut self.answered) {
            let poll = &mut self.poll;
            let look = || poll_once(poll, events, Some(Duration::ZERO)).map(|()| !events.is_empty());
            if self.spin.look(look)? {
                return Ok(());
            }
        }
        poll_once(&mut self.poll, events, timeout)
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            Some(Duration::ZERO)
        } else if self.open > 0 || self.held > 0 || self.stopping.is_some() || self.accepting.contains(&true)
        {
            Some(TICK)
        } else {
            None
        }
    }

    fn note(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        if let Some(slot) = token.checked_sub(FIRST_LINK) {
            let Some(link) = self.links.get_mut(slot).and_then(|slot| slot.link.as_mut()) else { return };
            link.readable |= event.is_readable();
            link.writable |= event.is_writable();
            link.read_closed |= event.is_read_closed();
            link.readable |= link.read_closed;
            link.broken |= event.is_error() || (event.is_read_closed() && event.is_write_closed());
            enqueue(&mut self.ready, link, slot);
        } else if let Some(accepting) =
            token.checked_sub(FIRST_LISTENER).and_then(|n| self.accepting.get_mut(n))
        {
            *accepting = true;
        }
    }

    fn accept(&mut self) {
        for number in 0..self.listeners.len() {
            for _ in 0..ACCEPTS {
                if self.accepting.get(number) != Some(&true) {
                    break;
                }
                let Some(listener) = self.listeners.get(number) else { break };
                match listener.accept() {
                    Ok((socket, peer, port)) => self.open_link(socket, peer, port),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if let Some(accepting) = self.accepting.get_mut(number) {
                            *accepting = false;
                        }
                    }
                    Err(error) if is_exhausted(&error) => {
                        if !self.make_room(number) {
                            break;
                        }
                    }
                    // The connection that waited is gone, or was never meant for us: the next one may do.
                    Err(_) => {}
                }
            }
        }
    }

    fn open_link(&mut self, mut socket: Socket, peer: Option<SocketAddr>, local_port: Option<u16>) {
        let context = Context {
            limits: self.settings.limits.clone(),
            handler: self.settings.handler.clone(),
            budget: Budget::within(&self.budget, self.settings.limits.connection_bytes),
            peer,
            local_port,
            tls: false,
        };
        if self.open >= self.settings.limits.connections && !self.shed(1) {
            return self.turn_away(&mut socket, &context);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.links.push(Slot::default());
            self.links.len() - 1
        });
        if let Err(error) = socket.register(self.poll.registry(), Token(FIRST_LINK + slot)) {
            log::warn!("a connection cannot be watched: {error}");
            self.free.push(slot);
            return;
        }
        self.settings.handler.record(Event::ConnectionOpened);
        if let Some(place) = self.links.get_mut(slot) {
            // A unix socket does not leave the machine: there TLS is never asked for.
            let plain = local_port.is_some_and(|port| self.settings.plain_ports.contains(&port));
            let require_tls = self.settings.require_tls && local_port.is_some() && !plain;
            let tls = self.settings.tls.clone().filter(|_| !plain);
            let mut link = Link::new(socket, context, tls, require_tls, &self.clock);
            enqueue(&mut self.ready, &mut link, slot);
            place.link = Some(link);
            self.open += 1;
        }
    }

    /// Tells a connection beyond the limit that the server is full.
    fn turn_away(&self, socket: &mut Socket, context: &Context) {
        self.settings.handler.record(Event::ConnectionRefused);
        let mut output = Output::default();
        http1::write_refusal(&mut output, context, 503, &self.clock);
        // One attempt: the answer is far smaller than the buffer of a fresh socket.
        let _ = socket.write(&output.take());
        socket.shut_down();
    }

    /// Descriptors have run out: idle connections go, and if there are none, the one that waits.
    fn make_room(&mut self, listener: usize) -> bool {
        if self.shed(SHED) {
            return true;
        }
        log::warn!("out of file descriptors: a connection is turned away");
        self.settings.handler.record(Event::ConnectionRefused);
        self.reserve = None;
        let accepted = self.listeners.get(listener).is_some_and(|listener| listener.accept().is_ok());
        self.reserve = File::open("/dev/null").ok();
        accepted
    }

    /// Closes up to `count` connections that have been idle for longest; says whether there were any.
    fn shed(&mut self, count: usize) -> bool {
        let mut idle: Vec<(Instant, usize)> = self
            .links
            .iter()
            .enumerate()
            .filter_map(|(slot, place)| Some((place.link.as_ref()?, slot)))
            .filter(|(link, _)| link.is_idle() && self.clock.since(link.idle_since) >= Duration::from_secs(1))
            .map(|(link, slot)| (link.idle_since, slot))
            .collect();
        idle.sort_unstable();
        idle.truncate(count);
        idle.iter().for_each(|(_, slot)| self.close(*slot));
        !idle.is_empty()
    }

    fn take_responses(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        self.settings.workers.take_done(&mut done);
        self.handed_over = self.handed_over.saturating_sub(done.len());
        self.answered |= !done.is_empty();
        for Done { origin, response } in done.drain(..) {
            let Some(place) = self.links.get_mut(origin.slot) else { continue };
            if let Some(link) = place.link.as_mut().filter(|_| place.generation == origin.generation) {
                link.respond(origin.stream, response, &self.clock);
                enqueue(&mut self.ready, link, origin.slot);
            }
        }
        self.done = done;
    }

    /// Gives every connection that has something to do its turn.
    fn drive(&mut self) {
        let mut since = Instant::now();
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            let now = Instant::now();
            if self.answering.len() >= GATHERED || now.duration_since(since) >= GATHERING {
                self.send_answers();
                since = now;
            }
            let after = self.answer(slot, now);
            self.answering.push((slot, after));
        }
        self.send_answers();
    }

    /// Reads from a connection and answers what can be answered at once, or hands it to the workers.
    fn answer(&mut self, slot: usize, started: Instant) -> After {
        let Some(place) = self.links.get_mut(slot) else { return After::Wait };
        let generation = place.generation;
        let Some(link) = place.link.as_mut() else { return After::Wait };
        link.queued = false;
        let after = link.receive(&mut self.scratch, &self.clock);
        if after == After::Close {
            return after;
        }
        while let Some((stream, request)) = link.next_request() {
            let response = if self.settings.handler.run_inline(&request) {
                self.answered = true;
                Some(workers::call(&*self.settings.handler, request))
            } else {
                let origin = Origin { slot, generation, stream };
                match self.settings.workers.submit(origin, request) {
                    Ok(()) => {
                        self.handed_over += 1;
                        None
                    }
                    Err(mut request) => {
                        self.settings.handler.record(Event::RequestRefused(429));
                        Some(request.with_head(|head| link.context().refuse(Some(head), 429)))
                    }
                }
            };
            if let Some(response) = response {
                link.respond(stream, response, &self.clock);
                if link.has_request() && started.elapsed() >= INLINE {
                    break;
                }
            }
        }
        after
    }

    /// Writes what the connections that were answered have to say.
    fn send_answers(&mut self) {
        let mut answering = std::mem::take(&mut self.answering);
        for (slot, mut after) in answering.drain(..) {
            let Some(link) = self.links.get_mut(slot).and_then(|place| place.link.as_mut()) else { continue };
            if after != After::Close {
                after = match link.send(&self.clock) {
                    // Its time was up, or sending has brought up the next message of a stream.
                    After::Wait if link.has_request() => After::Again,
                    After::Wait => after,
                    other => other,
                };
            }
            match after {
                After::Wait => {}
                After::Again => enqueue(&mut self.ready, link, slot),
                After::Close => self.close(slot),
            }
        }
        self.answering = answering;
    }

    fn close(&mut self, slot: usize) {
        let Some(place) = self.links.get_mut(slot) else { return };
        if let Some(mut link) = place.link.take() {
            link.cancel();
            place.generation += 1;
            self.free.push(slot);
            self.open -= 1;
            self.settings.handler.record(Event::ConnectionClosed);
        }
    }

    /// Applies the time limits to every connection.
    fn tick(&mut self) {
        self.ticked = self.clock.now();
        // What could not be accepted for want of descriptors makes no new event.
        self.accepting.fill(true);
        let used = self.budget.used();
        if self.held >= MUCH && used < self.held / 4 {
            self.settings.handler.record(Event::Emptied);
            self.held = used;
        }
        self.held = if used == 0 && self.held < MUCH { 0 } else { self.held.max(used) };
        for slot in 0..self.links.len() {
            let Some(link) = self.links.get_mut(slot).and_then(|place| place.link.as_mut()) else { continue };
            match link.tick(&self.clock) {
                After::Wait => {}
                After::Again => enqueue(&mut self.ready, link, slot),
                After::Close => self.close(slot),
            }
        }
    }

    fn begin_stopping(&mut self) {
        let Some(deadline) = self.settings.stop.get() else { return };
        let first = self.stopping.is_none();
        self.stopping = Some(deadline);
        if !first {
            return;
        }
        // Closing a socket that listens resets the connections that wait in it.
        self.accepting.fill(true);
        self.accept();
        self.listeners.clear();
        self.accepting.clear();
        for slot in 0..self.links.len() {
            let Some(link) = self.links.get_mut(slot).and_then(|place| place.link.as_mut()) else { continue };
            link.shut_down(&self.clock);
            enqueue(&mut self.ready, link, slot);
        }
    }
}

fn poll_once(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Puts a connection into the list of those that have something to do, once.
fn enqueue(ready: &mut VecDeque<usize>, link: &mut Link, slot: usize) {
    if !link.queued {
        link.queued = true;
        ready.push_back(slot);
    }
}

/// Whether the process or the system has no descriptor or memory left for another connection.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
