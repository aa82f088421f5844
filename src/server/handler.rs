//! One handler for every port: gRPC by its content type, health and metrics by their path, the rest is REST.

use super::{
    cheap::{Costs, Kind},
    door::{self, Door},
    named,
};
use crate::{
    api::{
        Surface,
        auth::Refusal,
        modelarts::{self, ModelArts},
        tfs_grpc::TfsGrpc,
        tfs_rest::TfsRest,
    },
    models::{Code, Entrypoint, Monitoring, Patience, Registry, Stats},
    tensor::release_free_memory,
    wire::{Body, Event, Handler, Protocol, Request, RequestHead, Response, page, path_of},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Kinglet's own path of the page of metrics.
const METRICS: &str = "/metrics";

/// What answers requests.
pub(super) struct Surfaces {
    pub(super) rest: TfsRest,
    pub(super) grpc: TfsGrpc,
    pub(super) modelarts: ModelArts,
    pub(super) registry: Arc<Registry>,
    pub(super) stats: Arc<Stats>,
    pub(super) monitoring: Monitoring,
    pub(super) door: Door,
    /// Time limit of a REST call.
    pub(super) rest_timeout: Duration,
    pub(super) draining: AtomicBool,
    pub(super) costs: Costs,
    /// Requests that wait together run together, so none may run alone on the loop's thread.
    pub(super) batching: bool,
}

impl Surfaces {
    /// The models have been tried: health checks tell from here on how they are.
    pub(super) fn finish_start(&self) {
        self.grpc.set_serving(true);
        if self.is_draining() {
            // The signal came meanwhile.
            self.grpc.set_serving(false);
        }
    }

    /// Health checks fail from here on, so that nobody sends more.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.grpc.set_serving(false);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Reads the tokens again.
    pub(super) fn reload(&self) {
        self.door.reload();
    }

    fn answer_rest(&self, request: Request) -> Response {
        let deadline = request.received.checked_add(self.rest_timeout);
        let patience = Patience { deadline, cancelled: Some(request.cancelled.flag()) };
        let (call, named) = (Call::of(&request), named::of_rest(path_of(&request.target)));
        let response = self.rest.handle(request, &patience);
        self.record(named, Entrypoint::Rest, named::code_of(response.status), &call);
        response
    }

    fn answer(&self, request: Request) -> Response {
        if self.grpc.takes(&request) {
            let call = Call::of(&request);
            let patience = Patience { deadline: None, cancelled: Some(request.cancelled.flag()) };
            return self.grpc.handle(&request, &patience, |path, message, code| {
                self.record(named::of_grpc(path, message), Entrypoint::Grpc, code, &call);
            });
        }
        match self.answer_operator(&request.target) {
            Some(response) => response,
            None if self.modelarts.takes(&request) => self.answer_modelarts(request),
            None => self.answer_rest(request),
        }
    }

    fn answer_modelarts(&self, request: Request) -> Response {
        let patience = Patience {
            deadline: request.received.checked_add(self.rest_timeout),
            cancelled: Some(request.cancelled.flag()),
        };
        let call = Call::of(&request);
        let named = self.modelarts.model_of(&request.method, &request.target).map(|model| ("predict", model));
        let response = self.modelarts.handle(request, &patience);
        self.record(named, Entrypoint::Rest, named::code_of(response.status), &call);
        response
    }

    /// How each surface over plain HTTP says no.
    fn refuse_http(&self, method: &str, target: &str, refusal: &Refusal) -> Response {
        let mut response = match self.modelarts.takes_path(method, target) {
            true => modelarts::refusal(refusal),
            false => door::refuse_rest(refusal),
        };
        door::add_fields(&mut response, refusal);
        response
    }

    /// One request that named a model: in the metrics and, at debug level, in the log.
    fn record(&self, named: Option<(&'static str, String)>, entrypoint: Entrypoint, code: Code, call: &Call) {
        let took = call.received.elapsed();
        log::debug!(target: "access", "{} {} {:.3} ms", call.line, code.name(), took.as_secs_f64() * 1e3);
        if let Some((api, model)) = named {
            self.stats.request(&model, api, entrypoint, code, took);
        }
    }

    /// The paths of operators.
    fn answer_operator(&self, target: &str) -> Option<Response> {
        let path = path_of(target);
        match path {
            "/healthz" => Some(plain(200, "ok\n")),
            "/readyz" | "/health" => Some(self.readiness()),
            _ if self.monitoring.enabled && (path == METRICS || path == self.monitoring.path) => {
                Some(self.metrics(target, path))
            }
            _ => None,
        }
    }

    fn metrics(&self, target: &str, path: &str) -> Response {
        if target != path && path != METRICS {
            return plain(400, format!("Unexpected path: {target}. Should be {path}"));
        }
        plain(200, self.stats.render(&self.registry))
    }

    fn readiness(&self) -> Response {
        if self.is_draining() {
            plain(503, "stopping\n")
        } else if self.registry.is_ready() {
            plain(200, "ready\n")
        } else if self.registry.is_starting() {
            plain(503, "the models are still being loaded\n")
        } else {
            plain(503, "no model is available; /v1/models says why\n")
        }
    }
}

impl Handler for Surfaces {
    fn handle(&self, request: Request) -> Response {
        self.stats.waited(request.received.elapsed());
        if let Some(refusal) = self.door.refusal(&request, &self.modelarts) {
            return match self.grpc.takes(&request) {
                true => door::refuse_grpc(&request, &refusal),
                false => self.refuse_http(&request.method, &request.target, &refusal),
            };
        }
        let (kind, started) = (Kind::of(&request), Instant::now());
        let response = self.answer(request);
        if let Some(kind) = kind {
            self.costs.record(kind, started.elapsed());
        }
        response
    }

    fn run_inline(&self, request: &Request) -> bool {
        match Kind::of(request) {
            Some(kind) => !self.batching && self.costs.is_cheap(kind),
            None => matches!(path_of(&request.target), "/healthz" | "/readyz"),
        }
    }

    fn body_limit(&self, head: &RequestHead) -> usize {
        let own = match self.modelarts.takes_path(&head.method, &head.target) {
            true => modelarts::MAX_BODY,
            false => usize::MAX,
        };
        own.min(self.door.body_limit(head))
    }

    fn refuse(&self, head: Option<&RequestHead>, status: u16) -> Response {
        let Some(head) = head else { return page::error(status) };
        match self.door.refusal_of_head(head).filter(|_| status == 413) {
            Some(refusal) => self.refuse_http(&head.method, &head.target, &refusal),
            None if self.modelarts.takes_path(&head.method, &head.target) => {
                modelarts::refusal_of_wire(status)
            }
            None => page::error(status),
        }
    }

    fn record(&self, event: Event) {
        match event {
            Event::ConnectionOpened => {
                self.stats.connections(1);
                self.stats.wire_event("connection_opened");
            }
            Event::ConnectionClosed => self.stats.connections(-1),
            Event::ConnectionRefused => self.stats.wire_event("connection_refused"),
            Event::RequestRefused(_) => self.stats.wire_event("request_refused"),
            Event::ProtocolError(Protocol::Http2) => self.stats.wire_event("http2_protocol_error"),
            Event::ProtocolError(_) => self.stats.wire_event("http1_protocol_error"),
            Event::Cancelled => self.stats.wire_event("request_cancelled"),
            Event::Panicked => self.stats.wire_event("handler_panicked"),
            Event::Received(bytes) => self.stats.bytes(bytes, 0),
            Event::Sent(bytes) => self.stats.bytes(0, bytes),
            // It locks the allocator for some milliseconds, which the loop has no time for.
            Event::Emptied => drop(thread::Builder::new().spawn(release_free_memory)),
        }
    }
}

/// What the access log and the metrics need of a request.
struct Call {
    /// Method and target; empty where nobody logs them.
    line: String,
    received: Instant,
}

impl Call {
    fn of(request: &Request) -> Self {
        let logged = log::log_enabled!(target: "access", log::Level::Debug);
        let line = if logged { format!("{} {}", request.method, request.target) } else { String::new() };
        Self { line, received: request.received }
    }
}

fn plain(status: u16, text: impl Into<Body>) -> Response {
    Response::new(status, "text/plain", text)
}
