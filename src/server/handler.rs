//! One handler for every port: gRPC by its content type, health and metrics by their path, the rest is REST.

use crate::{
    api::{tfs_grpc::TfsGrpc, tfs_rest::TfsRest},
    cli::Options,
    models::{Error, Patience, Registry},
    wire::{Body, Handler, Request, RequestHead, Response, grpc},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What answers requests.
pub(super) struct Surfaces {
    rest: TfsRest,
    pub(super) grpc: TfsGrpc,
    registry: Arc<Registry>,
    rest_timeout: Duration,
    max_grpc_message: usize,
    draining: AtomicBool,
}

impl Surfaces {
    pub(super) fn new(rest: TfsRest, grpc: TfsGrpc, registry: Arc<Registry>, options: &Options) -> Self {
        Self {
            rest,
            grpc,
            registry,
            rest_timeout: options.rest_timeout,
            max_grpc_message: crate::wire::Limits::default().grpc_message,
            draining: AtomicBool::new(false),
        }
    }

    /// Health checks fail from here on, so that nobody sends more.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.grpc.set_serving(false);
    }

    fn answer_grpc(&self, request: &Request) -> Response {
        let result = grpc::decode(request, self.max_grpc_message).and_then(|call| {
            let patience = Patience { deadline: call.deadline };
            self.grpc.call(&call.path, call.message, &patience).map(Body::from).map_err(status)
        });
        grpc::encode(result, request)
    }

    fn answer_rest(&self, mut request: Request) -> Response {
        let patience = Patience { deadline: request.received.checked_add(self.rest_timeout) };
        let body = std::mem::take(&mut request.body);
        let header = |name: &str| request.headers.get(name);
        let answer = self.rest.handle(&request.method, &request.target, &header, body, &patience);
        let mut response = Response::new(answer.status, answer.content_type, answer.body);
        for (name, value) in answer.headers {
            response.headers.push(name, value);
        }
        if answer.close {
            response.headers.push("Connection", "close");
        }
        response
    }

    fn answer_health(&self, path: &str) -> Option<Response> {
        match path {
            "/healthz" => Some(Response::new(200, "text/plain", "ok\n")),
            "/readyz" => Some(self.readiness()),
            _ => None,
        }
    }

    fn readiness(&self) -> Response {
        if self.draining.load(Ordering::Acquire) {
            Response::new(503, "text/plain", "stopping\n")
        } else if self.registry.is_ready() {
            Response::new(200, "text/plain", "ready\n")
        } else {
            Response::new(503, "text/plain", "the models are still being loaded\n")
        }
    }
}

impl Handler for Surfaces {
    fn handle(&self, request: Request) -> Response {
        if grpc::is_grpc(&request) {
            return self.answer_grpc(&request);
        }
        match self.answer_health(path_of(&request.target)) {
            Some(response) => response,
            None => self.answer_rest(request),
        }
    }

    fn run_inline(&self, head: &RequestHead) -> bool {
        matches!(path_of(&head.target), "/healthz" | "/readyz")
    }
}

fn path_of(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or(target)
}

fn status(error: Error) -> grpc::Status {
    grpc::Status::new(error.code as u32, error.message)
}
