//! The packet generator and sink, on the `afxdp` crate: an AF_XDP implementation that is not ours, so that
//! our rings are tested against a second opinion. Each end is a socket on a pod's device.
//!
//! Every packet carries a sequence number and the time it was sent; the sink counts by its own clock, and
//! tells loss from reorder. Beyond 2 million packets a second a socket cannot send on this kind of machine.

use crate::sink::{Report, Sink, stamp};
use afxdp::buf::Buf;
use afxdp::buf_mmap::BufMmap;
use afxdp::mmap_area::{MmapArea, MmapAreaOptions};
use afxdp::socket::{Socket, SocketOptions, SocketRx, SocketTx};
use afxdp::umem::{Umem, UmemCompletionQueue, UmemFillQueue};
use arraydeque::{ArrayDeque, Wrapping};
use std::time::{Duration, Instant};
use switch_core::port::traffic::{client, server, udp_frame};

/// Buffers of each end, of 2 KiB.
const BUFFERS: usize = 4096;
const BUFFER_BYTES: usize = 2048;
const RING: u32 = 2048;
const BATCH: usize = 32;
/// How long the sink listens after the last packet was sent.
const LINGER: Duration = Duration::from_millis(300);

type Buffers = ArrayDeque<[BufMmap<'static, Tag>; afxdp::PENDING_LEN], Wrapping>;

/// What the crate keeps beside a buffer; nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tag;

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Flows, each with its own pair of stations.
    pub flows: u32,
    /// Frame lengths without FCS, used in turn. 60 to 1514.
    pub lengths: Vec<usize>,
    /// Packets a second; 0 is as fast as the socket sends.
    pub rate_pps: u64,
    /// How long.
    pub duration: Duration,
}

/// The Internet mix: seven of 64 bytes, four of 594, one of 1518 (with FCS).
pub const IMIX: [usize; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590];

/// One socket with everything that belongs to it.
pub struct End {
    rx: SocketRx<'static, Tag>,
    tx: SocketTx<'static, Tag>,
    fill: UmemFillQueue<'static, Tag>,
    completion: UmemCompletionQueue<'static, Tag>,
    free: Vec<BufMmap<'static, Tag>>,
    pending: Box<Buffers>,
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("End")
    }
}

impl End {
    /// Opens a socket on queue 0 of `device` in the calling thread's namespace.
    pub fn open(device: &str) -> Result<Self, String> {
        let said = |what: &str, error: &dyn std::fmt::Debug| format!("{device}: {what}: {error:?}");
        let (area, free) = MmapArea::new(BUFFERS, BUFFER_BYTES, MmapAreaOptions { huge_tlb: false })
            .map_err(|error| said("memory", &error))?;
        let (umem, completion, fill) = Umem::new(area, RING, RING).map_err(|error| said("UMEM", &error))?;
        let options = SocketOptions { copy_mode: true, ..SocketOptions::default() };
        let (_, rx, tx) = Socket::new(umem, device, 0, RING as usize as u32, RING, options)
            .map_err(|error| said("socket", &error))?;
        let mut end = Self { rx, tx, fill, completion, free, pending: Box::new(ArrayDeque::new()) };
        end.refill(BUFFERS / 2)?;
        Ok(end)
    }

    fn refill(&mut self, n: usize) -> Result<(), String> {
        self.fill.fill(&mut self.free, n).map_err(|error| format!("fill: {error}"))?;
        Ok(())
    }

    /// Sends one frame, waiting for the ring if it has to.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.queue(frame)?;
        while !self.pending.is_empty() {
            self.flush()?;
        }
        Ok(())
    }

    fn queue(&mut self, frame: &[u8]) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(2);
        // Half of the buffers are for receiving.
        while self.free.is_empty() {
            self.flush()?;
            if Instant::now() > deadline {
                return Err("no buffer came back for two seconds".into());
            }
        }
        if let Some(mut buffer) = self.free.pop() {
            buffer.get_data_mut()[..frame.len()].copy_from_slice(frame);
            buffer.set_len(frame.len() as u16);
            self.pending.push_back(buffer);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        self.tx.try_send(&mut self.pending, BATCH).map_err(|error| format!("send: {error:?}"))?;
        self.completion.service(&mut self.free, BATCH * 2).map_err(|error| format!("completion: {error}"))?;
        Ok(())
    }

    /// Takes what arrived and gives the buffers back to the kernel.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<usize, String> {
        let mut arrived: Box<Buffers> = Box::new(ArrayDeque::new());
        let got =
            self.rx.try_recv(&mut arrived, BATCH, Tag).map_err(|error| format!("receive: {error:?}"))?;
        for buffer in arrived.drain(..) {
            let len = usize::from(buffer.get_len());
            each(&buffer.get_data()[..len]);
            self.free.push(buffer);
        }
        if got > 0 {
            self.refill(got)?;
        }
        Ok(got)
    }
}

/// Announces every far station from the sink's end, so that the switch knows where they are.
pub fn announce(sink: &mut End, flows: u32) -> Result<(), String> {
    for flow in 0..flows {
        sink.send(&udp_frame(client(flow), server(flow), flow, 60))?;
    }
    Ok(())
}

/// Sends by the plan and hears at the sink, both on the calling thread: one core pays for both ends, the
/// other is the switch's.
pub fn run(source: &mut End, sink: &mut End, plan: &Plan) -> Result<Report, String> {
    // Each flow in each length: the next frame has the next flow and the next length, whatever their numbers have in common.
    let of_flow =
        |flow| plan.lengths.iter().map(move |len| udp_frame(server(flow), client(flow), flow, *len));
    let templates: Vec<Vec<u8>> = (0..plan.flows).flat_map(of_flow).collect();
    let lengths = plan.lengths.len() as u64;
    let mut heard = Sink::new()?;
    let start = Instant::now();
    let mut sent = 0u64;
    let mut ended = None;
    while ended.is_none_or(|ended: Instant| ended.elapsed() < LINGER) {
        if ended.is_none() {
            let due = match plan.rate_pps {
                0 => BATCH as u64,
                rate => ((start.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64 - sent)
                    .min(BATCH as u64),
            };
            for _ in 0..due {
                // Rewritten every time: a recycled buffer keeps what the way through the switch left in it.
                let mut frame =
                    templates[(sent % u64::from(plan.flows) * lengths + sent % lengths) as usize].clone();
                stamp(&mut frame, sent, start.elapsed().as_nanos() as u64);
                source.queue(&frame)?;
                sent += 1;
            }
            if start.elapsed() >= plan.duration {
                ended = Some(Instant::now());
            }
        }
        source.flush()?;
        sink.receive(|frame| heard.hear(frame, sent, start.elapsed().as_nanos() as u64))?;
        // What the switch floods to the source's end is taken out, or its ring would fill.
        source.receive(|_| {})?;
    }
    Ok(heard.report(sent))
}
