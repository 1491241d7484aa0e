//! A TCP connection between two hosts, one byte at a time, as somebody types: what an administrator has open on a node.

use crate::net::Net;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

const PORT: u16 = 2222;

/// Both ends of it.
#[derive(Debug)]
pub struct Session {
    client: TcpStream,
    server: TcpStream,
}

impl Session {
    /// From one host to an address of another; what is typed may take `patience` to come back.
    pub fn open(from: &Net, to: &Net, address: IpAddr, patience: Duration) -> Self {
        let listening = to.inside(move || TcpListener::bind((address, PORT)));
        let listener = done(address, listening.join());
        let client = from.inside(move || TcpStream::connect_timeout(&(address, PORT).into(), patience));
        let client = done(address, client.join());
        let (server, _) = done(address, Ok(listener.accept()));
        for stream in [&client, &server] {
            let set = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_nodelay(true));
            done(address, Ok(set));
        }
        Self { client, server }
    }

    /// Types something, and waits for the echo. Panics, with `when` it was, if it does not come.
    pub fn types(&mut self, when: &str) {
        for typed in when.bytes().take(4) {
            let mut byte = [0];
            let echo = self
                .client
                .write_all(&[typed])
                .and_then(|()| self.server.read_exact(&mut byte))
                .and_then(|()| self.server.write_all(&byte))
                .and_then(|()| self.client.read_exact(&mut byte));
            assert!(echo.is_ok() && byte[0] == typed, "{when}: the session does not answer: {echo:?}");
        }
    }
}

fn done<T>(address: IpAddr, outcome: std::thread::Result<std::io::Result<T>>) -> T {
    match outcome {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => panic!("a session with {address}: {error}"),
        Err(_) => panic!("a session with {address} panicked"),
    }
}
