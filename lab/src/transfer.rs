//! Real sockets of real kernels, between two namespaces: every byte that arrives is checked.

use crate::net::Net;
use crate::{bind_udp, uninterrupted};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

/// How long a step may take before a transfer counts as stuck.
const LIMIT: Duration = Duration::from_secs(60);
/// Length of the pattern; a prime, so that a lost or doubled segment shifts it.
const PATTERN: usize = 251;
const TCP_PORT: u16 = 7000;
const UDP_PORT: u16 = 7001;

fn pattern(at: usize) -> u8 {
    (at % PATTERN) as u8
}

/// Sends `bytes` patterned bytes over TCP to `address` in `to`; how many arrived right and in order.
pub fn tcp(from: &Net, to: &Net, address: IpAddr, bytes: usize) -> usize {
    let (ready, is_ready) = mpsc::channel();
    let server = to.inside(move || -> std::io::Result<usize> {
        let listener = TcpListener::bind((address, TCP_PORT))?;
        _ = ready.send(());
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let (mut right, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            let n = uninterrupted(|| stream.read(&mut buffer))?;
            let same =
                buffer[..n].iter().enumerate().take_while(|(i, byte)| **byte == pattern(right + i)).count();
            right += same;
            if n == 0 || same < n {
                return Ok(right);
            }
        }
    });
    is_ready.recv().unwrap_or_else(|_| panic!("no TCP server at {address}"));
    let client = from.inside(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&(address, TCP_PORT).into(), LIMIT)?;
        stream.set_write_timeout(Some(LIMIT))?;
        let block: Vec<u8> = (0..PATTERN * 256).map(pattern).collect();
        let mut left = bytes;
        while left > 0 {
            let n = left.min(block.len());
            stream.write_all(&block[..n])?;
            left -= n;
        }
        Ok(())
    });
    joined("TCP client", client.join());
    joined("TCP server", server.join())
}

/// Sends `count` datagrams one after another and gets each back; how many came back right.
pub fn udp(from: &Net, to: &Net, address: IpAddr, count: usize) -> usize {
    let (ready, is_ready) = mpsc::channel();
    let server = to.inside(move || -> std::io::Result<()> {
        let socket = bind_udp((address, UDP_PORT));
        socket.set_read_timeout(Some(LIMIT))?;
        _ = ready.send(());
        let mut buffer = [0; 2048];
        for expected in 0..count {
            let (len, peer) = uninterrupted(|| socket.recv_from(&mut buffer))?;
            if buffer[..len] != datagram(expected) {
                let text = format!("not datagram {expected} but {len} bytes, {:?}", &buffer[..len.min(8)]);
                return Err(std::io::Error::other(text));
            }
            socket.send_to(&buffer[..len], peer)?;
        }
        Ok(())
    });
    is_ready.recv().unwrap_or_else(|_| panic!("no UDP server at {address}"));
    let client = from.inside(move || -> std::io::Result<usize> {
        let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, UDP_PORT))?;
        socket.set_read_timeout(Some(LIMIT))?;
        let (mut buffer, mut right) = ([0; 2048], 0);
        for i in 0..count {
            socket.send(&datagram(i))?;
            let len = uninterrupted(|| socket.recv(&mut buffer))?;
            right += usize::from(buffer[..len] == datagram(i));
        }
        Ok(right)
    });
    let (right, served) = (client.join(), server.join());
    // What went wrong at the server is why the client failed.
    joined("UDP server", served);
    joined("UDP client", right)
}

/// Datagram `i` of a transfer: numbered, of all lengths that a frame holds.
fn datagram(i: usize) -> Vec<u8> {
    let mut bytes = vec![i as u8; 4 + i * 7 % 1400];
    bytes[..4].copy_from_slice(&(i as u32).to_be_bytes());
    bytes
}

fn joined<T>(who: &str, outcome: std::thread::Result<std::io::Result<T>>) -> T {
    match outcome {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => panic!("{who}: {error}"),
        Err(_) => panic!("{who} panicked"),
    }
}

/// TCP and UDP packets with a wrong checksum, and others that were malformed, that a namespace's kernel has
/// seen so far.
pub fn checksum_errors(net: &Net) -> u64 {
    let said =
        net.run("nstat -asz TcpInCsumErrors UdpInCsumErrors Udp6InCsumErrors IpInHdrErrors Ip6InHdrErrors");
    let counts = said.lines().filter(|line| !line.starts_with('#'));
    counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
