//! UDP requests and their responses between two pods, timed. Client and server share core 0.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use switch_lab::Pod;

const PORT: u16 = 7007;
/// Longer than any response takes; what was lost is an error and not a latency.
const LIMIT: Duration = Duration::from_secs(2);
/// Round trips that are made first and not counted.
const WARM_UP: usize = 500;

/// Microseconds of each of `count` round trips, `outstanding` at a time.
pub fn measure(client: &Pod, server: &Pod, outstanding: usize, count: usize) -> Result<Vec<f64>, String> {
    let address: SocketAddr = format!("{}:{PORT}", server.ip).parse().map_err(|error| format!("{error}"))?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    let serving = server.net.inside(move || serve(address, &ready));
    let asked = is_ready.recv().map_err(|_| "no server".to_owned()).and_then(|()| {
        let asking = client.net.inside(move || ask(address, outstanding, count + WARM_UP));
        let asked = asking.join().map_err(|_| "the client panicked")?;
        asked.map_err(|error| format!("a response did not come: {error}"))
    });
    serving.join().map_err(|_| "the server panicked")?.map_err(|error| format!("server: {error}"))?;
    asked.map(|mut latencies| latencies.split_off(WARM_UP))
}

/// Answers until an empty request comes, or none for too long.
fn serve(address: SocketAddr, ready: &std::sync::mpsc::Sender<()>) -> io::Result<()> {
    core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    _ = ready.send(());
    let mut request = [0; 64];
    loop {
        match socket.recv_from(&mut request) {
            Ok((0, _)) => return Ok(()),
            Ok((len, from)) => _ = socket.send_to(&request[..len], from)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn ask(address: SocketAddr, outstanding: usize, count: usize) -> io::Result<Vec<f64>> {
    core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut sent = Vec::with_capacity(count);
    let mut latencies = Vec::with_capacity(count);
    while latencies.len() < count {
        while sent.len() < count && sent.len() - latencies.len() < outstanding {
            let number = sent.len() as u64;
            sent.push(Instant::now());
            socket.send(&number.to_le_bytes())?;
        }
        let mut response = [0; 8];
        socket.recv(&mut response)?;
        let asked = sent.get(u64::from_le_bytes(response) as usize);
        let asked = asked.ok_or_else(|| io::Error::other("a response to no request"))?;
        latencies.push(asked.elapsed().as_nanos() as f64 / 1000.0);
    }
    socket.send(&[])?;
    Ok(latencies)
}
