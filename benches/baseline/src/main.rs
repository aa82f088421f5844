//! half_plus_two over HTTP as a first attempt would write it: `baseline ADDRESS`.

use std::{sync::Arc, thread};

use serde_json::{Value, json};
use tiny_http::{Header, Request, Response, Server};

const THREADS: usize = 8;

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8601".to_owned());
    let server = Arc::new(Server::http(address).expect("the address is free"));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let server = server.clone();
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    answer(request);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
}

fn answer(mut request: Request) {
    let mut body = Vec::new();
    let read = request.as_reader().read_to_end(&mut body);
    let value: Value = read.ok().and_then(|_| serde_json::from_slice(&body).ok()).unwrap_or_default();
    let empty = Vec::new();
    let instances = value["instances"].as_array().unwrap_or(&empty);
    let halves: Vec<f64> = instances.iter().filter_map(Value::as_f64).map(|x| x / 2.0 + 2.0).collect();
    let header = Header::from_bytes("Content-Type", "application/json").expect("a valid field");
    let text = json!({ "predictions": halves }).to_string();
    // A client that is gone needs no answer.
    let _ = request.respond(Response::from_string(text).with_header(header));
}
