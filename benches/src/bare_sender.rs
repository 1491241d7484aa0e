//! A socket that does nothing but send: the most that anything can put on a veth by AF_XDP in copy mode. It receives nothing
//! and looks at nothing, and its frames never leave its core's cache. What a switch can be ahead of others by ends here.

use std::io;
use std::time::{Duration, Instant};
use switch_core::frame::{Area, AreaSize};
use switch_core::port::traffic::{client, server, udp_frame};
use switch_core::port::xdp::socket::{self, Kick, RawSocket};
use switch_lab::{Node, Pod};

/// Where what is measured runs.
const CORE: usize = 1;
/// Frames, and entries of each ring: one kick takes a quarter of them.
const FRAMES: u32 = 4096;
const KICK_FRAMES: usize = 1024;
const WARM_UP: Duration = Duration::from_millis(200);

/// Packets a second of `len` bytes (without the check sequence) that it sends on the node's end of a pod's cable.
pub fn packets_per_second(node: &Node, pod: &Pod, len: usize, window: Duration) -> Result<f64, String> {
    let device = pod.device.clone();
    let sending = node.net.inside(move || send(&device, len, window));
    sending
        .join()
        .map_err(|_| "the bare sender panicked")?
        .map_err(|error| format!("the bare sender: {error}"))
}

fn send(device: &str, len: usize, window: Duration) -> io::Result<f64> {
    core_affinity::set_for_current(core_affinity::CoreId { id: CORE });
    let size = AreaSize { chunk_bytes: 2048, chunks: FRAMES, large: 0 };
    let (area, frames) = Area::new(size).map_err(io::Error::other)?;
    let socket = RawSocket::new()?;
    socket.register_umem(&area, 0)?;
    let mut rings = socket.make_rings(FRAMES)?;
    socket.raise_tx_budget(FRAMES);
    socket.bind(socket::index(device)?, 0, libc::XDP_COPY, None)?;

    let packet = udp_frame(client(0), server(0), 0, len);
    let mut holder = area.holder().ok_or_else(|| io::Error::other("no holder"))?;
    let mut free: Vec<u64> = frames
        .into_iter()
        .map(|mut frame| {
            let filled = area.fill(&mut frame, &packet);
            debug_assert!(filled, "a chunk has room for the longest frame");
            area.record(frame, &mut holder) as u64
        })
        .collect();
    let (mut sent, mut counted_from) = (0, None);
    let start = Instant::now();
    loop {
        let room = rings.tx.room(KICK_FRAMES as u32) as usize;
        for addr in free.drain(free.len().saturating_sub(room.min(KICK_FRAMES))..) {
            rings.tx.put(libc::xdp_desc { addr, len: len as u32, options: 0 });
        }
        rings.tx.publish();
        if let Kick::Dead(errno) = socket.kick_tx() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let done = rings.completion.waiting(FRAMES);
        free.extend((0..done).map(|_| rings.completion.get()));
        rings.completion.release();
        sent += u64::from(done);
        match counted_from {
            None if start.elapsed() >= WARM_UP => counted_from = Some((Instant::now(), sent)),
            Some((since, before)) if since.elapsed() >= window => {
                return Ok((sent - before) as f64 / since.elapsed().as_secs_f64());
            }
            _ => {}
        }
    }
}
