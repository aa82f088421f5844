//! A build without TLS: the types are there and can never be made, so what uses them vanishes.
#![forbid(unsafe_code)]

use std::{
    convert::Infallible,
    io::{self, BufRead, Read, Write},
};

/// Cannot be made: this build has no TLS (feature `tls`).
#[derive(Clone, Debug)]
pub enum Tls {}

/// Cannot be made: this build has no TLS (feature `tls`).
#[derive(Debug)]
pub enum TlsError {}

impl Tls {
    pub(super) fn accept(&self) -> Result<ServerConnection, Infallible> {
        match *self {}
    }
}

/// The state of a connection; there is none.
pub(super) enum ServerConnection {}

impl ServerConnection {
    pub(super) fn set_buffer_limit(&mut self, _: Option<usize>) {
        match *self {}
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(super) fn wants_write(&self) -> bool {
        match *self {}
    }

    pub(super) fn read_tls(&mut self, _: &mut dyn Read) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn write_tls(&mut self, _: &mut dyn Write) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn process_new_packets(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn reader(&mut self) -> Box<dyn BufRead> {
        match *self {}
    }

    pub(super) fn writer(&mut self) -> Box<dyn Write> {
        match *self {}
    }

    pub(super) fn send_close_notify(&mut self) {
        match *self {}
    }
}
