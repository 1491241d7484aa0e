//! A port made of files: replays a capture into the switch, writes what the switch sends. Real pcap files
//! (`pcap-file` reads and writes them), nanosecond timestamps, link type Ethernet: Wireshark opens them.
//!
//! File I/O may block. This port is for replays, tests and bug reports, not beside ports in production.

use super::{At, Dropped, Port, Remains, Sent, Serviced};
use crate::counter::{Counters, DropReason, Event};
use crate::frame::{Area, Batch, Pool, TxQueue};
use crate::wire::checksum::{self, Csum};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};
use std::fs::File;
use std::io::BufReader;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes kept of a packet; more than any frame has.
const SNAPLEN: u32 = 65_535;

/// A capture being written.
pub struct Capture(PcapWriter<File>);

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Capture")
    }
}

impl Capture {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<Self, PcapError> {
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let file = File::create(path).map_err(PcapError::IoError)?;
        Ok(Self(PcapWriter::with_header(file, header)?))
    }

    /// Appends a packet, with the time of day. A full disk ends the capture, not the switch.
    pub fn write(&mut self, packet: &[u8]) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.write_packet(&PcapPacket::new(now, packet.len() as u32, packet)).is_ok()
    }
}

/// Why a file cannot be used. Of what the system said, the library's own words say nothing.
pub fn why(error: &PcapError) -> String {
    match error {
        PcapError::IoError(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// See the module.
pub struct PcapPort {
    read: Option<PcapReader<BufReader<File>>>,
    write: Option<Capture>,
    /// Packets longer than a frame that nobody was told of yet.
    giants: u64,
    /// The file broke off, and nobody was told yet.
    broke_off: bool,
}

impl std::fmt::Debug for PcapPort {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("PcapPort")
    }
}

impl PcapPort {
    /// Opens the files.
    pub fn open(read: Option<&Path>, write: Option<&Path>) -> Result<Self, PcapError> {
        let open = |path| PcapReader::new(BufReader::new(File::open(path).map_err(PcapError::IoError)?));
        let read = read.map(open).transpose()?;
        let write = write.map(Capture::create).transpose()?;
        Ok(Self { read, write, giants: 0, broke_off: false })
    }
}

impl Port for PcapPort {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let Some(reader) = &mut self.read else { return };
        while !batch.is_full() {
            let Some(mut frame) = pool.take() else { return };
            match reader.next_packet() {
                Some(Ok(packet)) if pool.area().fill(&mut frame, &packet.data) => batch.push(frame),
                // Too long for a frame: passed over, as a device would drop it, and counted.
                Some(Ok(_)) => {
                    self.giants += 1;
                    pool.give(frame);
                }
                // The end, or a file that breaks off, which is told: either way nothing more can be read from it.
                end @ (Some(Err(_)) | None) => {
                    self.broke_off = end.is_some();
                    self.read = None;
                    return pool.give(frame);
                }
            }
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let mut sent = Sent::default();
        for mut frame in queue.take(usize::MAX) {
            let csum = match frame.offload.csum {
                // From a kernel that may leave it unfinished: nobody behind a file will finish it.
                Csum::Unknown => checksum::state(pool.area().bytes(&frame)),
                known => known,
            };
            if let Csum::Partial { start, field } = csum {
                checksum::finish(pool.area().bytes_mut(&mut frame), start, field);
            }
            let bytes = pool.area().bytes(&frame);
            if self.write.as_mut().is_none_or(|capture| capture.write(bytes)) {
                sent.packets += 1;
                sent.bytes += bytes.len() as u64;
            } else {
                sent.refused += 1;
            }
            pool.give(frame);
        }
        sent
    }

    fn service(&mut self, _: &mut Pool, _: bool, counters: &Counters) -> Serviced {
        if std::mem::take(&mut self.broke_off) {
            counters.event(Event::ReplayBrokeOff).add(1);
        }
        let frames = std::mem::take(&mut self.giants);
        let giants = Dropped { frames, reason: DropReason::Giant, at: At::Outside };
        Serviced { dropped: (frames > 0).then_some(giants), ..Serviced::WELL }
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn may_sleep(&self) -> bool {
        self.read.is_none()
    }

    fn held(&self) -> usize {
        0
    }

    fn close(self: Box<Self>, _: &Area) -> Remains {
        Remains::default()
    }
}
