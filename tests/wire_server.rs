//! The server over real sockets: protocols on one port, TLS, limits, and the orderly end.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kinglet::wire::{
    Bind, BoundAddress, Event, Handler, Limits, Request, Response, Server, ServerConfig, ServerHandle, Tls,
    WireError,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::pem::PemObject};

/// Nothing here should take this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Echoes; `/hold` waits until it is released.
struct Echo {
    release: Mutex<mpsc::Receiver<()>>,
    holding: AtomicUsize,
    cancelled: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Handler for Echo {
    fn handle(&self, request: Request) -> Response {
        match request.target.as_str() {
            "/panic" => panic!("asked for by a test"),
            "/hold" => {
                self.holding.fetch_add(1, Ordering::SeqCst);
                let _ = self.release.lock().unwrap().recv_timeout(PATIENCE);
                if request.cancelled.is_set() {
                    self.cancelled.fetch_add(1, Ordering::SeqCst);
                }
                Response::new(200, "text/plain", "held")
            }
            "/large" => Response::new(200, "text/plain", vec![b'x'; 8 << 20]),
            _ if request.body.is_empty() => {
                Response::new(200, "text/plain", format!("{:?} {}", request.protocol, request.tls))
            }
            _ => Response::new(200, "text/plain", request.body),
        }
    }

    fn run_inline(&self, request: &Request) -> bool {
        request.target.starts_with("/inline")
    }

    fn record(&self, event: Event) {
        match event {
            Event::ConnectionOpened => self.opened.fetch_add(1, Ordering::SeqCst),
            Event::ConnectionClosed => self.closed.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
    }
}

/// A server on a thread of its own; dropping it stops it.
struct Running {
    addresses: Vec<BoundAddress>,
    handle: ServerHandle,
    thread: Option<JoinHandle<Result<(), WireError>>>,
    echo: Arc<Echo>,
    release: mpsc::Sender<()>,
}

impl Running {
    fn start(config: ServerConfig) -> Running {
        let (release, receiver) = mpsc::channel();
        let echo = Arc::new(Echo {
            release: Mutex::new(receiver),
            holding: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        });
        let server = Server::bind(config, echo.clone()).unwrap();
        let (addresses, handle) = (server.local_addrs().to_vec(), server.handle());
        let thread = Some(thread::spawn(move || server.run()));
        Running { addresses, handle, thread, echo, release }
    }

    fn with(limits: Limits) -> Running {
        Running::start(ServerConfig { limits, ..config() })
    }

    fn address(&self) -> SocketAddr {
        match &self.addresses[0] {
            BoundAddress::Tcp(address) => *address,
            other => panic!("{other:?}"),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    fn wait_until(&self, condition: impl Fn(&Echo) -> bool) {
        let start = Instant::now();
        while !condition(&self.echo) {
            assert!(start.elapsed() < PATIENCE, "waited too long");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop(Duration::ZERO);
    }
}

fn config() -> ServerConfig {
    ServerConfig {
        binds: vec![Bind::Tcp("127.0.0.1:0".parse().unwrap())],
        workers: 2,
        ..ServerConfig::default()
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// Writes a request and reads its answer: (head, body).
fn exchange(stream: &mut (impl Read + Write), request: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    stream.write_all(request.as_ref()).unwrap();
    answer(stream)
}

fn answer(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn text(answer: (String, Vec<u8>)) -> String {
    String::from_utf8(answer.1).unwrap()
}

fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is as good an end as any.
    let _ = stream.read_to_end(&mut rest);
    rest
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn tls() -> Tls {
    Tls::new(&fixture("localhost.pem"), &fixture("localhost.key")).unwrap()
}

fn secure(stream: TcpStream, trusted: &str, alpn: &[&str]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&fixture(trusted)).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, stream)
}

#[test]
fn one_port_speaks_every_protocol() {
    let server = Running::start(ServerConfig { tls: Some(tls()), ..config() });
    let mut plain = server.connect();
    assert_eq!(text(exchange(&mut plain, get("/"))), "Http11 false");
    assert_eq!(text(exchange(&mut plain, get("/inline"))), "Http11 false", "on the same connection");
    let mut secured = secure(server.connect(), "localhost.pem", &["http/1.1"]);
    assert_eq!(text(exchange(&mut secured, get("/"))), "Http11 true");
    assert_eq!(secured.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut http2 = server.connect();
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut header = [0; 9];
    http2.read_exact(&mut header).unwrap();
    assert_eq!(header[3], 4, "SETTINGS");
    let mut both = secure(server.connect(), "localhost.pem", &["h2", "http/1.1"]);
    both.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    both.read_exact(&mut header).unwrap();
    assert_eq!(header[3], 4, "SETTINGS");
    assert_eq!(both.conn.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn tls_carries_large_bodies_both_ways() {
    let server = Running::start(ServerConfig { tls: Some(tls()), ..config() });
    let mut stream = secure(server.connect(), "localhost.pem", &[]);
    let body: Vec<u8> = (0..5_000_000_u32).map(|i| (i >> 3) as u8).collect();
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(exchange(&mut stream, [head.as_bytes(), &body].concat()).1, body);
}

#[test]
fn certificates_are_exchanged_for_new_connections() {
    let tls = tls();
    let server = Running::start(ServerConfig { tls: Some(tls.clone()), ..config() });
    let mut before = secure(server.connect(), "localhost.pem", &[]);
    exchange(&mut before, get("/"));
    tls.reload(&fixture("other.pem"), &fixture("other.key")).unwrap();
    assert_eq!(text(exchange(&mut before, get("/"))), "Http11 true", "the old connection lives on");
    exchange(&mut secure(server.connect(), "other.pem", &[]), get("/"));
    let mut distrusting = secure(server.connect(), "localhost.pem", &[]);
    assert!(distrusting.write_all(get("/").as_bytes()).and_then(|()| distrusting.read(&mut [0])).is_err());
    assert!(
        tls.reload(&fixture("other.pem"), &fixture("localhost.key")).is_err(),
        "key of another certificate"
    );
    assert!(tls.reload(b"junk", &fixture("other.key")).is_err() && tls.reload(b"", b"").is_err());
    exchange(&mut secure(server.connect(), "other.pem", &[]), get("/"));
}

#[test]
fn client_certificates_can_be_required() {
    let tls = Tls::with_client_certificates(
        &fixture("localhost.pem"),
        &fixture("localhost.key"),
        &fixture("other.pem"),
    )
    .unwrap();
    let server = Running::start(ServerConfig { tls: Some(tls), ..config() });
    let mut stream = secure(server.connect(), "localhost.pem", &[]);
    let refused = stream.write_all(get("/").as_bytes()).and_then(|()| stream.read_exact(&mut [0; 4]));
    assert!(refused.is_err());
}

#[test]
fn the_wrong_security_is_closed() {
    let plain = Running::start(config());
    let mut stream = plain.connect();
    stream.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
    assert!(rest(&mut stream).is_empty());
    let secured = Running::start(ServerConfig { tls: Some(tls()), require_tls: true, ..config() });
    let mut stream = secured.connect();
    stream.write_all(get("/").as_bytes()).unwrap();
    assert!(rest(&mut stream).is_empty());
    let mut stream = secured.connect();
    stream.write_all(&[0x16, 3, 1, 0, 5, b'j', b'u', b'n', b'k', b'!']).unwrap();
    assert!(rest(&mut stream).len() < 20, "at most an alert");
    exchange(&mut secure(secured.connect(), "localhost.pem", &[]), get("/"));
}

#[test]
fn a_port_can_stay_without_tls() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    let binds = vec![Bind::Inherited(plain.into()), Bind::Tcp("127.0.0.1:0".parse().unwrap())];
    let plain_ports = vec![address.port()];
    let server =
        Running::start(ServerConfig { binds, tls: Some(tls()), require_tls: true, plain_ports, ..config() });
    exchange(&mut TcpStream::connect(address).unwrap(), get("/"));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
    assert!(rest(&mut stream).is_empty());
    let Some(BoundAddress::Tcp(secured)) = server.addresses.get(1) else { panic!() };
    exchange(&mut secure(TcpStream::connect(secured).unwrap(), "localhost.pem", &[]), get("/"));
}

#[test]
fn answers_come_with_and_without_busy_polling() {
    for busy_poll in [Duration::ZERO, Duration::from_micros(200)] {
        let server = Running::start(ServerConfig { busy_poll, ..config() });
        let mut stream = server.connect();
        for target in ["/inline", "/inline", "/", "/inline"] {
            exchange(&mut stream, get(target));
        }
    }
}

#[test]
fn unix_sockets_ipv6_and_inherited_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    let inherited_address = inherited.local_addr().unwrap();
    let other = folder.path().join("inherited");
    let inherited_unix = std::os::unix::net::UnixListener::bind(&other).unwrap();
    let mut binds = vec![Bind::Unix(path.clone()), Bind::Inherited(inherited.into())];
    binds.push(Bind::Inherited(inherited_unix.into()));
    let ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if ipv6 {
        binds.push(Bind::Tcp("[::1]:0".parse().unwrap()));
    } else {
        eprintln!("no IPv6 here: that part is skipped");
    }
    let mut server = Running::start(ServerConfig { binds, ..config() });
    assert_eq!(server.addresses[0], BoundAddress::Unix(path.clone()));
    assert_eq!(server.addresses[1], BoundAddress::Tcp(inherited_address));
    assert_eq!(server.addresses[2], BoundAddress::Unix(other.clone()));
    exchange(&mut UnixStream::connect(&path).unwrap(), get("/"));
    exchange(&mut UnixStream::connect(&other).unwrap(), get("/"));
    exchange(&mut TcpStream::connect(inherited_address).unwrap(), get("/"));
    if let Some(BoundAddress::Tcp(address)) = server.addresses.get(3) {
        exchange(&mut TcpStream::connect(address).unwrap(), get("/"));
    }
    server.handle.stop(Duration::from_secs(1));
    server.join();
    assert!(!path.exists(), "the socket file is removed");
    assert!(other.exists(), "the inherited one belongs to somebody else");
}

#[test]
fn a_place_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let echo = Running::start(config()).echo.clone();
    let error =
        Server::bind(ServerConfig { binds: vec![Bind::Tcp(address)], ..config() }, echo).err().unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Running::start(config());
    let mut stream = server.connect();
    let mut requests = Vec::new();
    for number in 0..500 {
        let body = format!("number {number}");
        let target = if number % 3 == 0 { "/inline" } else { "/" };
        requests.extend(
            format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .bytes(),
        );
    }
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all(&requests).unwrap());
    for number in 0..500 {
        assert_eq!(text(answer(&mut stream)), format!("number {number}"));
    }
    writing.join().unwrap();
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() {
    let server = Running::start(config());
    let mut stream = server.connect();
    stream.write_all(get("/hold").as_bytes()).unwrap();
    server.wait_until(|echo| echo.holding.load(Ordering::SeqCst) == 1);
    stream.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(20));
    server.release.send(()).unwrap();
    let (head, body) = answer(&mut stream);
    assert!(head.contains("Connection: close") && body == b"held");
    assert!(rest(&mut stream).is_empty());
}

#[test]
fn a_panic_is_an_answer() {
    let server = Running::start(config());
    for _ in 0..5 {
        let (head, _) = exchange(&mut server.connect(), get("/panic"));
        assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    }
    exchange(&mut server.connect(), get("/"));
}

#[test]
fn an_error_is_readable_although_the_body_still_comes() {
    let server = Running::with(Limits { body: 1000, ..Limits::default() });
    let mut stream = server.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n").unwrap();
    // The peer does not look before it has sent everything, as most do not.
    let _ = stream.write_all(&vec![b'x'; 1_000_000]);
    let (head, _) = answer(&mut stream);
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
}

#[test]
fn a_full_queue_refuses_at_once() {
    let server = Running::start(ServerConfig {
        workers: 1,
        limits: Limits { queued_per_worker: 1, ..Limits::default() },
        ..config()
    });
    let mut held: Vec<TcpStream> = Vec::new();
    for count in 0..2 {
        let mut stream = server.connect();
        stream.write_all(get("/hold").as_bytes()).unwrap();
        if count == 0 {
            server.wait_until(|echo| echo.holding.load(Ordering::SeqCst) == 1);
        } else {
            // The second one has to be queued before the third can be refused.
            thread::sleep(Duration::from_millis(100));
        }
        held.push(stream);
    }
    let (head, _) = exchange(&mut server.connect(), get("/"));
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("Retry-After: 1"), "{head}");
    let call =
        "POST /s/M HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc-web\r\nContent-Length: 0\r\n\r\n";
    let (head, body) = exchange(&mut server.connect(), call);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("grpc-status: 8"), "RESOURCE_EXHAUSTED");
    assert_eq!(
        text(exchange(&mut server.connect(), get("/inline"))),
        "Http11 false",
        "cheap calls are answered"
    );
    for stream in &mut held {
        server.release.send(()).unwrap();
        assert_eq!(text(answer(stream)), "held");
    }
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let server = Running::with(Limits { connections: 2, ..Limits::default() });
    let mut open: Vec<TcpStream> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut open {
        exchange(stream, get("/"));
    }
    let mut refused = server.connect();
    let (head, _) = answer(&mut refused);
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Connection: close"), "{head}");
    exchange(&mut open[0], get("/"));
    drop(open.pop());
    server.wait_until(|echo| echo.closed.load(Ordering::SeqCst) == 1);
    exchange(&mut server.connect(), get("/"));
}

#[test]
fn idle_connections_make_room_for_new_ones() {
    let server = Running::with(Limits { connections: 2, ..Limits::default() });
    let mut open: Vec<TcpStream> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut open {
        exchange(stream, get("/"));
    }
    thread::sleep(Duration::from_millis(1300));
    exchange(&mut server.connect(), get("/"));
    assert!(rest(&mut open[0]).is_empty(), "the one that was idle for longest had to go");
}

#[test]
fn time_limits_hold_on_sockets() {
    let short = Duration::from_millis(300);
    let limits =
        Limits { first_byte: short, idle: short, head_time: short, write_stall: short, ..Limits::default() };
    let server = Running::with(limits);
    let mut silent = server.connect();
    assert!(rest(&mut silent).is_empty(), "no first byte");
    let mut idle = server.connect();
    exchange(&mut idle, get("/"));
    assert!(rest(&mut idle).is_empty(), "idle");
    let mut slow = server.connect();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert!(rest(&mut slow).starts_with(b"HTTP/1.1 408 "), "head that stops");
    let mut preface = server.connect();
    preface.write_all(b"PRI * HT").unwrap();
    assert!(rest(&mut preface).is_empty(), "preface that stops");
    let mut deaf = server.connect();
    deaf.write_all(get("/large").as_bytes()).unwrap();
    server.wait_until(|echo| echo.closed.load(Ordering::SeqCst) == 5);
    assert!(rest(&mut deaf).len() < 8 << 20, "an answer that nobody reads is given up");
}

#[test]
fn memory_of_bodies_is_given_back() {
    let server = Running::with(Limits { in_flight_bytes: 1 << 20, ..Limits::default() });
    let body = vec![b'x'; 700_000];
    let request = [b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 700000\r\n\r\n", &body[..]].concat();
    let mut stream = server.connect();
    for _ in 0..10 {
        assert_eq!(exchange(&mut stream, &request).1.len(), 700_000);
    }
    let mut half = server.connect();
    half.write_all(&request[..600_000]).unwrap();
    thread::sleep(Duration::from_millis(100));
    stream.write_all(&request).unwrap();
    assert!(answer(&mut stream).0.starts_with("HTTP/1.1 429 "));
    drop(half);
    server.wait_until(|echo| echo.closed.load(Ordering::SeqCst) >= 1);
    assert_eq!(exchange(&mut server.connect(), &request).1.len(), 700_000);
}

#[test]
fn stopping_finishes_what_is_under_way() {
    let mut server = Running::start(config());
    let mut idle = server.connect();
    exchange(&mut idle, get("/"));
    let mut busy = server.connect();
    busy.write_all(get("/hold").as_bytes()).unwrap();
    server.wait_until(|echo| echo.holding.load(Ordering::SeqCst) == 1);
    let address = server.address();
    server.handle.stop(PATIENCE);
    assert!(rest(&mut idle).is_empty(), "idle connections are closed after a moment");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    server.release.send(()).unwrap();
    let (head, body) = answer(&mut busy);
    assert!(head.contains("Connection: close") && body == b"held");
    server.join();
}

#[test]
fn stopping_answers_what_is_on_its_way() {
    let mut server = Running::start(config());
    let (mut fresh, mut used) = (server.connect(), server.connect());
    exchange(&mut used, get("/"));
    server.wait_until(|echo| echo.opened.load(Ordering::SeqCst) == 2);
    server.handle.stop(PATIENCE);
    // Both were sent before their clients could know.
    for stream in [&mut fresh, &mut used] {
        let (head, _) = exchange(stream, get("/"));
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("Connection: close"), "{head}");
        assert!(rest(stream).is_empty());
    }
    server.join();
}

#[test]
fn a_probe_goes_the_way_of_a_request() {
    const MOMENT: Duration = Duration::from_millis(50);
    let server = Running::start(config());
    let ran = Arc::new(AtomicUsize::new(0));
    let probe = |handle: &ServerHandle| {
        let ran = ran.clone();
        handle.probe(move || {
            ran.fetch_add(1, Ordering::SeqCst);
        })
    };
    assert!(probe(&server.handle).is_answered(PATIENCE));
    // Both workers are held up: nobody answers, until one of them has got on.
    let mut held = [server.connect(), server.connect()];
    held.iter_mut().for_each(|stream| stream.write_all(get("/hold").as_bytes()).unwrap());
    server.wait_until(|echo| echo.holding.load(Ordering::SeqCst) == 2);
    let mut waiting = probe(&server.handle);
    assert!(!waiting.is_answered(MOMENT));
    server.release.send(()).unwrap();
    assert!(waiting.is_answered(PATIENCE));
    server.release.send(()).unwrap();
    let mut panics = server.handle.probe(|| panic!("on purpose"));
    assert!(!panics.is_answered(PATIENCE) && panics.is_lost());
    assert!(probe(&server.handle).is_answered(PATIENCE));
    assert_eq!(ran.load(Ordering::SeqCst), 3);
}

#[test]
fn stopping_has_a_deadline() {
    let mut server = Running::start(config());
    let mut busy = server.connect();
    busy.write_all(get("/hold").as_bytes()).unwrap();
    server.wait_until(|echo| echo.holding.load(Ordering::SeqCst) == 1);
    server.handle.stop(Duration::from_millis(200));
    server.join();
    assert!(rest(&mut busy).is_empty());
    server.release.send(()).unwrap();
    server.wait_until(|echo| echo.cancelled.load(Ordering::SeqCst) == 1);
}

#[test]
fn many_connections_at_once() {
    let server = Running::start(config());
    let address = server.address();
    let clients: Vec<_> = (0..16)
        .map(|client| {
            thread::spawn(move || {
                for round in 0..20 {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for call in 0..10 {
                        let body = format!("{client} {round} {call}").repeat(call * 200 + 1);
                        let head =
                            format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
                        assert_eq!(text(exchange(&mut stream, head + &body)), body);
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    server.wait_until(|echo| echo.closed.load(Ordering::SeqCst) == 320);
    assert_eq!(server.echo.opened.load(Ordering::SeqCst), 320);
}
