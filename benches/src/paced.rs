//! A generator for low rates: a socket of the pod's own kernel, which sends what is due and rests. A run of the kernel's XDP
//! test ([`flood`](crate::flood)) begins and ends with the kernel waiting for all its cores, some 24 ms, so that one that is to rest cannot
//! be made of many short ones; and a long one takes its core for itself, and the kernel, which carries its frames to the
//! device on that core, comes too late now and then.

use crate::flood::Load;
use etherparse::PacketBuilder;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use switch_lab::RawSocket;

/// Between looks at what is due. With what the waking takes, five to ten are due by then of a hundred thousand a second.
const REST: Duration = Duration::from_micros(20);
/// How exact that is to be: the default slack is longer than the rest.
const REST_SLACK_NS: NonZeroU64 = NonZeroU64::new(1_000).unwrap();
/// It makes up for so many frames at once, as the other generator does: who was held up for longer does not send what nobody could take.
const DEBT_MAX: u64 = 64;
/// It ends by itself if nobody tells it to.
const MOST: Duration = Duration::from_secs(120);
/// `generate` of flood.c.
const PORT: u16 = 12345;
/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 42;
/// Bytes of the number and the time that every frame carries.
const MARK: usize = 16;

/// What a generator has made, and whether it shall stop.
#[derive(Debug, Default)]
pub struct Paced {
    /// Frames that the device took.
    pub made: AtomicU64,
    /// Set once.
    pub stop: AtomicBool,
}

impl Paced {
    /// Sends by a socket until it is told to stop, on the calling thread, before whatever else wants its core: who changes the switch
    /// meanwhile does not hold it up.
    pub fn send(&self, socket: &RawSocket, load: &Load) -> Result<(), String> {
        switch_lab::trouble::go_first().map_err(|error| format!("SCHED_FIFO: {error}"))?;
        rustix::thread::set_current_timer_slack(Some(REST_SLACK_NS)).map_err(|error| error.to_string())?;
        let (mut start, mut frame) = (Instant::now(), Vec::new());
        let end = start + MOST;
        while !self.stop.load(Relaxed) {
            let now = Instant::now();
            if now >= end {
                return Err("nobody told the generator to stop".into());
            }
            let due = ((now - start).as_secs_f64() * load.rate_pps as f64) as u64;
            let mut made = self.made.load(Relaxed);
            if due.saturating_sub(made) > DEBT_MAX {
                start +=
                    Duration::from_secs_f64((due - made - DEBT_MAX) as f64 / load.rate_pps.max(1) as f64);
            }
            let until = due.min(made + DEBT_MAX);
            while made < until {
                write(&mut frame, load, made, now_ns())?;
                if !socket.try_send(&frame) {
                    return Err(format!("send: {}", std::io::Error::last_os_error()));
                }
                made += 1;
                self.made.store(made, Relaxed);
            }
            std::thread::sleep(REST);
        }
        Ok(())
    }
}

/// The clock of `bpf_ktime_get_ns`.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The frame of this number, as `generate` of flood.c makes it and `sink` checks it.
fn write(frame: &mut Vec<u8>, load: &Load, number: u64, time_ns: u64) -> Result<(), String> {
    let flow = (number % u64::from(load.flows.max(1))) as u32;
    let pair = flow % load.stations.max(1);
    let station = |side: u8| {
        let [a, b, c, d] = pair.to_be_bytes();
        [2, side, a, b, c, d]
    };
    let address = |first: u8| (u32::from(first) << 24 | flow & 0xff_ffff).to_be_bytes();
    let mut payload = [0; 1514 - HEADERS];
    payload[..8].copy_from_slice(&number.to_ne_bytes());
    payload[8..MARK].copy_from_slice(&time_ns.to_ne_bytes());
    let packet = PacketBuilder::ethernet2(station(0), load.gateway.map_or(station(1), |mac| mac.0))
        .ipv4(address(10), address(11), 64)
        .udp(PORT, PORT);
    frame.clear();
    packet.write(frame, &payload[..load.len_of(number) - HEADERS]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    #[test]
    fn a_frame_is_what_the_sink_looks_for() {
        let mut frame = Vec::new();
        for (len, number, wanted) in
            [(Some(60), 1_001, 60), (Some(1514), 7, 1514), (None, 1, 590), (None, 6, 1514)]
        {
            let load = Load { flows: 1_000, stations: 10, len, ..Load::default() };
            write(&mut frame, &load, number, 77).unwrap();
            assert_eq!(frame.len(), wanted);
            let flow = (number % 1_000) as u8;
            assert_eq!(frame[..12], [2, 1, 0, 0, 0, flow % 10, 2, 0, 0, 0, 0, flow % 10]);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport)
            else {
                panic!("{number}: not UDP over IPv4");
            };
            let header = ip.header();
            assert_eq!((header.source(), header.destination()), ([10, 0, 0, flow], [11, 0, 0, flow]));
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!((udp.source_port(), udp.destination_port()), (PORT, PORT));
            assert_eq!(udp.payload()[..8], number.to_ne_bytes());
            assert_eq!(udp.payload()[8..MARK], 77_u64.to_ne_bytes());
        }
    }
}
