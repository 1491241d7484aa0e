//! `switch-ctl capture`: frames as they pass, into pcapng or onto the terminal.

use crate::filter;
use crate::output::Output;
use clap::{Args, ValueEnum};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use switch_api::{
    ApiError, CaptureEnd, CaptureStart, CaptureStarted, CapturedFrame, Client, Code, Direction, Name,
    Request, SNAPLEN_DEFAULT,
};

/// pcapng's if_tsresol: nanoseconds.
const NANOSECONDS: u8 = 9;
/// What is written at once while frames come faster than that: what a pipe holds.
const PIECE_BYTES: usize = 64 << 10;

/// Live frames: of some ports, directions, drop reasons, and of what a filter of tcpdump's accepts. Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl capture --port web 'icmp or tcp port 443'       # on the terminal
  switch-ctl capture --port web --port db -w incident.pcapng # for later
  switch-ctl capture -w - | wireshark -k -i -                # into Wireshark
  switch-ctl capture -w - | tcpdump -n -r -                  # as tcpdump says
  switch-ctl capture --reason hairpin --count 10             # what is dropped
  switch-ctl capture --stage admit --duration 2              # what rules drop
  switch-ctl capture --bpf \"$(tcpdump -y EN10MB -ddd 'ip[8] < 5')\"")]
pub struct Capture {
    /// Only of this port; may be given several times. Without it, of all.
    #[arg(long, value_name = "PORT")]
    port: Vec<Name>,
    /// Where frames are seen. Without it, in and out; with --reason, drop.
    #[arg(long, value_enum)]
    direction: Vec<Where>,
    /// Only what is dropped for this reason; may be given several times. `switch-ctl stats` names them.
    #[arg(long)]
    reason: Vec<String>,
    /// Of what comes in only what was decided about at this stage: parse, guard, learn, track, translate, route, forward, admit,
    /// rewrite or egress. `switch-ctl trace` shows a frame's way through all of them.
    #[arg(long, conflicts_with_all = ["reason", "direction"])]
    stage: Option<String>,
    /// Write pcapng to this file, - for standard output. Port, direction and verdict go with each packet.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Bytes kept of a frame.
    #[arg(short, long, default_value_t = SNAPLEN_DEFAULT)]
    snaplen: u32,
    /// End after so many frames.
    #[arg(short, long)]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// A compiled filter, as `tcpdump -ddd` prints one.
    #[arg(long, conflicts_with = "filter")]
    bpf: Option<String>,
    /// A filter in tcpdump's language, like `tcp port 443 and host 10.66.0.2`.
    filter: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    /// Frames that come in by a port.
    In,
    /// Frames that leave by a port.
    Out,
    /// Frames that are dropped.
    Drop,
}

pub fn run(capture: &Capture, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let start = capture.request()?;
    let mut sink = Sink::open(capture.write.as_deref(), capture.snaplen, output.is_json())?;
    let handle = client.handle()?;
    let stop = Stop::new(handle, capture.duration.map(Duration::from_secs))?;
    let started: CaptureStarted = client.call(&Request::CaptureStart(start))?;
    if !output.is_json() {
        let ports = started.ports.iter().map(Name::as_str).collect::<Vec<_>>().join(" ");
        eprintln!("capturing on {ports}; Ctrl-C ends it");
    }
    client.listen()?;
    // Wireshark waits for the file's head before it shows a window.
    sink.flush()?;
    let (mut frames, mut ended) = (0, None);
    while let Some(notice) = client.notice()? {
        match notice.method.as_str() {
            "capture.frame" if capture.count.is_none_or(|count| frames < count) => {
                let frame: CapturedFrame = read(notice.params)?;
                frames += 1;
                if !sink.put(&frame)? || capture.count == Some(frames) {
                    stop.now();
                }
            }
            "capture.end" => ended = Some(read::<CaptureEnd>(notice.params)?),
            _ => {}
        }
        // Whoever looks on sees what there is as soon as nothing more has come; while much comes, it is written in large pieces.
        if !client.has_more() && !sink.flush()? {
            stop.now();
        }
    }
    sink.flush()?;
    match (output.is_json(), ended) {
        (false, ended) => {
            let lost = ended.map_or("unknown".into(), |end| end.lost.to_string());
            eprintln!("{frames} frames captured, {lost} lost");
        }
        // A program that reads frames is told of those that it has not seen, beside them.
        (true, Some(end)) if end.lost > 0 => eprintln!("{}", serde_json::to_string(&end).unwrap_or_default()),
        (true, _) => {}
    }
    Ok(())
}

/// What a notice says.
pub fn read<T: serde::de::DeserializeOwned>(params: serde_json::Value) -> Result<T, ApiError> {
    serde_json::from_value(params).map_err(|error| {
        ApiError::new(Code::Parse, format!("the daemon's notice makes no sense: {error}"))
            .hint(switch_api::codec::UPDATE_BOTH)
    })
}

impl Capture {
    fn request(&self) -> Result<CaptureStart, ApiError> {
        let directions = self.direction.iter().map(|wanted| match wanted {
            Where::In => Direction::In,
            Where::Out => Direction::Out,
            Where::Drop => Direction::Drop,
        });
        let filter = match &self.bpf {
            Some(text) => filter::parse_ddd(text)?,
            None => filter::compile(&self.filter.join(" "))?,
        };
        Ok(CaptureStart {
            ports: self.port.clone(),
            directions: directions.collect(),
            reasons: self.reason.clone(),
            stage: self.stage.clone(),
            filter,
            snaplen: self.snaplen,
        })
    }
}

/// Tells the daemon that it is enough: by a signal, after a time, or by itself. The daemon then says what was lost.
pub struct Stop(UnixStream);

impl Stop {
    /// Ready for Ctrl-C.
    pub fn new(handle: UnixStream, after: Option<Duration>) -> Result<Self, ApiError> {
        let failed = |error: std::io::Error| {
            ApiError::new(Code::System, format!("Ctrl-C cannot be waited for: {error}"))
                .hint("see the limits of open files and processes of this shell (`ulimit -a`)")
        };
        let mut signals =
            signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
                .map_err(failed)?;
        let by_signal = handle.try_clone().map_err(failed)?;
        std::thread::spawn(move || {
            signals.forever().next();
            _ = by_signal.shutdown(Shutdown::Write);
        });
        if let Some(after) = after {
            let by_time = handle.try_clone().map_err(failed)?;
            std::thread::spawn(move || {
                std::thread::sleep(after);
                _ = by_time.shutdown(Shutdown::Write);
            });
        }
        Ok(Self(handle))
    }

    /// Now.
    pub fn now(&self) {
        _ = self.0.shutdown(Shutdown::Write);
    }
}

/// Where frames go.
enum Sink {
    Pcapng { writer: Box<PcapNgWriter<Box<dyn Write>>>, interfaces: Vec<Name>, snaplen: u32 },
    Text,
    Json,
}

impl Sink {
    fn open(path: Option<&Path>, snaplen: u32, json: bool) -> Result<Self, ApiError> {
        let Some(path) = path else { return Ok(if json { Self::Json } else { Self::Text }) };
        let to: Box<dyn Write> = if path == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            Box::new(File::create(path).map_err(|error| crate::files::refused(path, &error))?)
        };
        let to: Box<dyn Write> = Box::new(std::io::BufWriter::with_capacity(PIECE_BYTES, to));
        let writer = PcapNgWriter::new(to).map_err(broken)?;
        Ok(Self::Pcapng { writer: Box::new(writer), interfaces: Vec::new(), snaplen })
    }

    /// Whether more is wanted: a reader that has gone away is no error.
    fn put(&mut self, frame: &CapturedFrame) -> Result<bool, ApiError> {
        let line = match self {
            Self::Pcapng { writer, interfaces, snaplen } => {
                return match write(writer, interfaces, *snaplen, frame) {
                    Err(pcap_file::PcapError::IoError(error)) if error.kind() == ErrorKind::BrokenPipe => {
                        Ok(false)
                    }
                    Err(error) => Err(broken(error)),
                    Ok(()) => Ok(true),
                };
            }
            Self::Text => describe(frame),
            Self::Json => serde_json::to_string(frame).unwrap_or_default(),
        };
        Ok(writeln!(std::io::stdout(), "{line}").is_ok())
    }

    /// What was put is where it shall go. Whether more is wanted, as above.
    fn flush(&mut self) -> Result<bool, ApiError> {
        match self {
            Self::Pcapng { writer, .. } => match writer.get_mut().flush() {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
                Err(error) => Err(broken(pcap_file::PcapError::IoError(error))),
                Ok(()) => Ok(true),
            },
            _ => Ok(true),
        }
    }
}

fn broken(error: pcap_file::PcapError) -> ApiError {
    ApiError::new(Code::System, format!("the capture cannot be written: {error}"))
        .hint("see the space and rights of --write")
}

/// One packet; before it, its interface if this is the first of it.
fn write(
    writer: &mut PcapNgWriter<Box<dyn Write>>,
    interfaces: &mut Vec<Name>,
    snaplen: u32,
    frame: &CapturedFrame,
) -> Result<(), pcap_file::PcapError> {
    let known = interfaces.iter().position(|name| *name == frame.port);
    let interface = match known {
        Some(interface) => interface,
        None => {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(frame.port.to_string())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            let linktype = DataLink::ETHERNET;
            writer.write_pcapng_block(InterfaceDescriptionBlock { linktype, snaplen, options })?;
            interfaces.push(frame.port.clone());
            interfaces.len() - 1
        }
    };
    let mut options = vec![EnhancedPacketOption::Comment(Cow::Owned(comment(frame)))];
    // epb_flags, bits 0 and 1: inbound or outbound.
    match frame.direction {
        Direction::In => options.push(EnhancedPacketOption::Flags(1)),
        Direction::Out => options.push(EnhancedPacketOption::Flags(2)),
        Direction::Drop => {}
    }
    writer.write_pcapng_block(EnhancedPacketBlock {
        interface_id: interface as u32,
        timestamp: Duration::from_nanos(frame.time_ns),
        original_len: frame.len,
        data: Cow::Borrowed(&frame.data.0),
        options,
    })?;
    Ok(())
}

fn comment(frame: &CapturedFrame) -> String {
    let word = word(frame.direction);
    format!("{} {word}: {}", frame.port, frame.verdict)
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Drop => "drop",
    }
}

/// Nanoseconds since 1970 as the time of day, UTC.
pub fn clock_time(time_ns: u64) -> String {
    let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1000 % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}")
}

/// A line for a person.
fn describe(frame: &CapturedFrame) -> String {
    let what = summary(&frame.data.0);
    format!(
        "{} {} {} ({}) {what}, {} bytes",
        clock_time(frame.time_ns),
        frame.port,
        word(frame.direction),
        frame.verdict,
        frame.len
    )
}

/// What a frame is, in a few words.
pub fn summary(bytes: &[u8]) -> String {
    let Ok(sliced) = SlicedPacket::from_ethernet(bytes) else { return "a broken header".into() };
    let ends = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().to_string(), ip.header().destination_addr().to_string())
        }
        Some(NetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().to_string(), ip.header().destination_addr().to_string())
        }
        Some(NetSlice::Arp(arp)) => {
            let dots = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".");
            return format!(
                "ARP {} asks or tells {}",
                dots(arp.sender_protocol_addr()),
                dots(arp.target_protocol_addr())
            );
        }
        None => {
            let ethertype = bytes.get(12..14).map_or(0, |kind| u16::from(kind[0]) << 8 | u16::from(kind[1]));
            return format!("EtherType {ethertype:#06x}");
        }
    };
    let (from, to) = ends;
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            format!("{from}:{} > {to}:{} TCP", tcp.source_port(), tcp.destination_port())
        }
        Some(TransportSlice::Udp(udp)) => {
            format!("{from}:{} > {to}:{} UDP", udp.source_port(), udp.destination_port())
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => format!("{from} > {to} ICMP"),
        _ => format!("{from} > {to}"),
    }
}
