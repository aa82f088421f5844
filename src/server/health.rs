//! `kinglet health`: asks a running server whether it is ready, over HTTP/1.1 or gRPC.
//!
//! A client of a few lines: a container of nothing but kinglet has no curl for its health check.

use crate::{
    cli::{HealthOptions, Question},
    proto::grpc::health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus},
};
use prost::Message;
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// An answer is short; what is longer is not from kinglet.
const MAX_ANSWER: usize = 64 << 10;
/// HTTP/2 frame kinds and flags (RFC 9113, 6) that a call needs.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Why a server is not ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// No answer.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// An answer that is no.
    #[error("{0} is not ready: {1}")]
    NotReady(String, String),
    /// What was answered is of another protocol.
    #[error("{0} does not answer as a server of this protocol does")]
    Strange(String),
}

/// Asks; the text says what the server said.
///
/// # Errors
/// When the server is not ready, or cannot be asked.
pub fn health(options: &HealthOptions) -> Result<String, HealthError> {
    let address = &options.address;
    let failed = |error| HealthError::Io(address.clone(), error);
    let mut call = Call::connect(address, options.timeout).map_err(failed)?;
    match &options.question {
        Question::Http(path) => {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            call.send(request.as_bytes()).map_err(failed)?;
            let answer = call.rest().map_err(failed)?;
            let (status, body) = http_answer(&answer).ok_or_else(|| HealthError::Strange(address.clone()))?;
            match status {
                200 => Ok(format!("{address} is ready\n")),
                _ => Err(HealthError::NotReady(address.clone(), format!("{status} {body}"))),
            }
        }
        Question::Grpc(service) => {
            call.send(&grpc_call(address, service)).map_err(failed)?;
            let message = call.grpc_message().map_err(failed)?;
            let answer = message.and_then(|message| HealthCheckResponse::decode(message.as_slice()).ok());
            let answer = answer.ok_or_else(|| HealthError::Strange(address.clone()))?;
            match answer.status() {
                ServingStatus::Serving => Ok(format!("{address} is ready\n")),
                status => Err(HealthError::NotReady(address.clone(), status.as_str_name().to_owned())),
            }
        }
    }
}

/// The status and the text after the header fields.
fn http_answer(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    Some((status, body.trim().to_owned()))
}

/// Everything that a client sends for one call of `Check`.
fn grpc_call(authority: &str, service: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http (RFC 7541, appendix A)
    let literals: [(&[u8], &str); 4] = [
        (&[0x04], "/grpc.health.v1.Health/Check"), // :path
        (&[0x01], authority),                      // :authority
        (&[0x0f, 0x10], "application/grpc"),       // content-type
        (b"\x00\x02te", "trailers"),
    ];
    for (name, value) in literals {
        let length = value.len().min(126);
        block.extend_from_slice(name);
        block.push(length as u8);
        block.extend_from_slice(&value.as_bytes()[..length]);
    }
    let request = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut message = vec![0];
    message.extend_from_slice(&(request.len() as u32).to_be_bytes());
    message.extend_from_slice(&request);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for (kind, flags, stream, payload) in [
        (SETTINGS, 0, 0, &[][..]),
        (HEADERS, END_HEADERS, 1, &block[..]),
        (DATA, END_STREAM, 1, &message[..]),
    ] {
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// A connection and the time that is left for it.
struct Call {
    stream: TcpStream,
    deadline: Instant,
}

impl Call {
    fn connect(address: &str, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, remaining(deadline)?) {
                Ok(stream) => return Ok(Self { stream, deadline }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(remaining(self.deadline)?))?;
        self.stream.write_all(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(remaining(self.deadline)?))?;
        self.stream.read(bytes)
    }

    /// What comes until the server closes the connection.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        while answer.len() < MAX_ANSWER {
            match self.read(&mut part)? {
                0 => break,
                length => answer.extend_from_slice(&part[..length]),
            }
        }
        Ok(answer)
    }

    /// The message of the first stream; `None` when the stream or the connection ends without one.
    fn grpc_message(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (mut data, mut taken, mut bytes, mut part) = (Vec::new(), 0, Vec::new(), [0; 4096]);
        while taken < MAX_ANSWER {
            let frame =
                bytes.first_chunk::<9>().copied().map(|[l0, l1, l2, kind, flags, _, _, _, stream]| {
                    (u32::from_be_bytes([0, l0, l1, l2]) as usize, kind, flags, stream)
                });
            let Some((length, kind, flags, stream)) = frame.filter(|(length, ..)| bytes.len() >= 9 + length)
            else {
                match self.read(&mut part)? {
                    0 => return Ok(None),
                    length => bytes.extend_from_slice(&part[..length]),
                }
                taken = bytes.len() + data.len();
                continue;
            };
            if (kind, stream) == (DATA, 1) {
                data.extend_from_slice(&bytes[9..9 + length]);
            }
            let (prefix, rest) = data.split_at(data.len().min(5));
            if let &[0, a, b, c, d] = prefix
                && let Some(message) = rest.get(..u32::from_be_bytes([a, b, c, d]) as usize)
            {
                return Ok(Some(message.to_vec()));
            }
            if stream == 1 && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Ok(None);
            }
            bytes.drain(..9 + length);
        }
        Ok(None)
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        false => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    /// A peer that answers one connection with these bytes.
    fn ask(question: Question, answer: &'static [u8]) -> Result<String, HealthError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        });
        let result = health(&HealthOptions { address, question, timeout: Duration::from_secs(5) });
        peer.join().unwrap();
        result
    }

    #[test]
    fn statuses_of_http() {
        let http = || Question::Http("/readyz".into());
        assert!(ask(http(), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_ok());
        let error = ask(http(), b"HTTP/1.1 503 x\r\n\r\nstopping\n").unwrap_err().to_string();
        assert!(error.ends_with("is not ready: 503 stopping"), "{error}");
        for hostile in [&b""[..], b"HTTP/1.1 200", b"HTTP/1.1 2\r\n\r\n", b"\xff\xff", b"SSH-2.0\r\n\r\n"] {
            assert!(
                matches!(ask(http(), hostile), Err(HealthError::Strange(_) | HealthError::Io(..))),
                "{hostile:?}"
            );
        }
    }

    /// Frames as RFC 9113 draws them, the message as the health checking protocol defines it.
    #[test]
    fn statuses_of_grpc() {
        let grpc = || Question::Grpc(String::new());
        let serving =
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x01";
        assert!(ask(grpc(), serving).is_ok());
        let error = ask(grpc(), b"\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x02").unwrap_err().to_string();
        assert!(error.ends_with("NOT_SERVING"), "{error}");
        let hostile: [&'static [u8]; 4] = [
            b"\0\0\x01\x01\x05\0\0\0\x01\x88",
            b"\xff\xff\xff\0\0\0\0\0\x01\0",
            b"\0\0\x07\0\0\0\0\0\x01\0\xff\xff\xff\xff\x08\x01",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ];
        for hostile in hostile {
            assert!(
                matches!(ask(grpc(), hostile), Err(HealthError::Strange(_) | HealthError::Io(..))),
                "{hostile:?}"
            );
        }
    }

    #[test]
    fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let options =
            HealthOptions { address, question: Question::Http("/".into()), timeout: Duration::from_secs(1) };
        assert!(matches!(health(&options), Err(HealthError::Io(..))));
    }
}
