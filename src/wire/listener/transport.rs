//! What lies between the socket and the protocol: nothing, or TLS.
//!
//! Both directions work on whole buffers: what one read of the socket brought is decrypted record by
//! record in place of further reads, and what the protocol wants to say is encrypted until the socket is full.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};

use crate::wire::{output::Output, tls::ServerConnection};

use super::socket::Socket;

/// What rustls may hold of encrypted output.
const ENCRYPTED: usize = 256 << 10;
/// Pieces that are written at once.
const SLICES: usize = 32;

/// A socket, with or without TLS.
pub(super) struct Transport {
    pub(super) socket: Socket,
    tls: Option<Box<ServerConnection>>,
}

impl Transport {
    pub(super) fn new(socket: Socket) -> Transport {
        Transport { socket, tls: None }
    }

    /// From here on the peer speaks TLS.
    pub(super) fn secure(&mut self, mut connection: ServerConnection) {
        connection.set_buffer_limit(Some(ENCRYPTED));
        self.tls = Some(Box::new(connection));
    }

    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Reads from the socket into `scratch`; what came is still as the peer sent it.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        self.socket.read(scratch)
    }

    /// Hands the content of `bytes`, as they were read, to `take`.
    pub(super) fn open(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            take(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            if tls.read_tls(&mut bytes)? == 0 {
                return Err(ErrorKind::InvalidData.into());
            }
            if let Err(error) = tls.process_new_packets() {
                log::debug!("TLS connection ends: {error}");
                // The alert tells the peer why; if it cannot be sent, the end of the connection has to do.
                let _ = tls.write_tls(&mut self.socket);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
            loop {
                let mut reader = tls.reader();
                match reader.fill_buf() {
                    Ok([]) => break,
                    Ok(content) => {
                        let length = content.len();
                        take(content);
                        reader.consume(length);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Whether TLS itself has something to send.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes the front of `output`; returns how many bytes the socket took, 0 if there was nothing to write.
    pub(super) fn write(&mut self, output: Option<&mut Output>) -> io::Result<usize> {
        match (&mut self.tls, output) {
            (None, Some(output)) => write_plain(&mut self.socket, output),
            (None, None) => Ok(0),
            (Some(tls), output) => {
                if let Some(output) = output.filter(|_| !tls.is_handshaking()) {
                    while !output.is_empty() {
                        let mut slices = [IoSlice::new(&[]); SLICES];
                        let filled = output.slices(&mut slices);
                        let count = tls.writer().write_vectored(slices.get(..filled).unwrap_or_default())?;
                        if count == 0 {
                            break;
                        }
                        output.advance(count);
                    }
                }
                if tls.wants_write() { tls.write_tls(&mut self.socket) } else { Ok(0) }
            }
        }
    }

    /// Ends our side of the stream.
    pub(super) fn shut_down(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // One attempt: a peer that does not read does not wait for it either.
            let _ = tls.write_tls(&mut self.socket);
        }
        self.socket.shut_down();
    }
}

fn write_plain(socket: &mut Socket, output: &mut Output) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = output.slices(&mut slices);
    let count = match slices.get(..filled) {
        None | Some([]) => 0,
        Some([single]) => socket.write(single)?,
        Some(several) => socket.write_vectored(several)?,
    };
    output.advance(count);
    Ok(count)
}
