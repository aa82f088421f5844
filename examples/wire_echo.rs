//! A server that echoes: the wire without models, for trying clients and for load tests.
//!
//! `wire_echo ADDRESS [--inline] [--workers N] [--connections N] [--tls CERTIFICATE KEY]`. Any body is answered
//! with itself. gRPC calls echo their message; `/test/Size` answers as many bytes as the message says in decimal
//! digits, `/test/Fail` fails with it, `/test/Panic` panics, `/test/Sleep` waits for so many milliseconds, and
//! `/test/Stream` echoes each message of a stream as it comes.

use std::{sync::Arc, thread, time::Duration};

use bytes::Bytes;
use kinglet::wire::{
    Bind, Body, Handler, Request, RequestHead, Response, Server, ServerConfig, Tls, grpc,
    grpc::{Call, Status},
};

struct Echo {
    inline: bool,
}

impl Handler for Echo {
    fn handle(&self, request: Request) -> Response {
        if grpc::is_grpc(&request) {
            let result = grpc::decode(&request, 64 << 20).and_then(|call| answer(&call));
            return grpc::encode(result, &request);
        }
        let number = |text: &str| text.parse().unwrap_or(0_usize);
        if let Some(size) = request.target.strip_prefix("/size/") {
            return Response::new(200, "application/octet-stream", vec![b'x'; number(size)]);
        }
        match request.target.as_str() {
            "/panic" => panic!("asked for"),
            "/sleep" => thread::sleep(Duration::from_millis(500)),
            _ => {}
        }
        if request.body.is_empty() {
            return Response::new(200, "text/plain", format!("{} {}\n", request.method, request.target));
        }
        Response::new(200, "application/octet-stream", request.body)
    }

    fn answers_each_message(&self, head: &RequestHead) -> bool {
        head.target == "/test/Stream"
    }

    fn run_inline(&self, _: &Request) -> bool {
        self.inline
    }
}

fn answer(call: &Call<'_>) -> Result<Body, Status> {
    let number =
        || std::str::from_utf8(&call.message).ok().and_then(|text| text.parse().ok()).unwrap_or(0_usize);
    match call.path.as_str() {
        "/test/Size" => Ok(Bytes::from(vec![b'x'; number()]).into()),
        "/test/Fail" => Err(Status::new(3, String::from_utf8_lossy(&call.message))),
        "/test/Panic" => panic!("asked for"),
        "/test/Sleep" => {
            thread::sleep(Duration::from_millis(number() as u64));
            Ok(Body::default())
        }
        _ => Ok(call.message.clone().into()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.first().map_or("127.0.0.1:8600", String::as_str).parse()?;
    let inline = arguments.iter().any(|argument| argument == "--inline");
    let mut config = ServerConfig { binds: vec![Bind::Tcp(address)], ..ServerConfig::default() };
    config.limits.grpc_message = 64 << 20;
    // Load tests ask for many answers of tens of megabytes at once.
    config.limits.in_flight_bytes = 4 << 30;
    if let Some(at) = arguments.iter().position(|argument| argument == "--workers") {
        config.workers = arguments.get(at + 1).ok_or("--workers takes a number")?.parse()?;
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "--connections") {
        config.limits.connections = arguments.get(at + 1).ok_or("--connections takes a number")?.parse()?;
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "--tls") {
        let [certificate, key] = [at + 1, at + 2].map(|at| arguments.get(at).ok_or("--tls takes two files"));
        config.tls = Some(Tls::new(&std::fs::read(certificate?)?, &std::fs::read(key?)?)?);
    }
    let server = Server::bind(config, Arc::new(Echo { inline }))?;
    Ok(server.run()?)
}
