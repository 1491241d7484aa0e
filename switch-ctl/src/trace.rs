//! `switch-ctl trace`: a frame is made or read here; the switch says what becomes of it.

use crate::live;
use crate::output::Output;
use clap::Args;
use etherparse::{ArpOperation, ArpPacket, EtherType, IpNumber, PacketBuilder, PacketBuilderStep, VlanId};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use switch_api::{ApiError, Client, Code, Hex, Mac, Name, Request, TraceReply, Vid};

/// Payload of a frame made of fields, in bytes, unless --len says otherwise.
const PAYLOAD_LEN: usize = 32;
/// The hop limit that most senders start with.
const TTL: u8 = 64;
/// The port a connection seems to come from.
const SOURCE_PORT: u16 = 40_000;

/// One frame, and what becomes of it. Nothing is changed by it: nothing is learned, counted or asked. With --live, real frames.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl trace --in web --dst 02:00:00:00:00:09 \\
    --ip '10.66.0.2>10.66.0.3' --tcp 443
  switch-ctl trace --in web --src 02:42:00:00:00:02 --arp 10.66.0.1
  switch-ctl trace --live 'icmp and host 10.66.0.2' --count 2 --for 10s
  switch-ctl capture --port web --count 2 --duration 10 -w web.pcapng
  switch-ctl trace --in web --pcap web.pcapng --frame 2
  switch-ctl trace --in web --hex 'ffffffffffff 020000000001 0806
    0001080006040001 020000000001 0a420002 000000000000 0a420001'")]
pub struct Trace {
    /// The port by which it comes in.
    #[arg(long = "in", value_name = "PORT", required_unless_present = "live")]
    in_port: Option<Name>,
    /// Follow real frames instead: the next that come in and that this filter of tcpdump's language accepts ('' for any), each
    /// with every stage's verdict, reason and time. With --in only of that port.
    #[arg(long, value_name = "FILTER", group = "what")]
    live: Option<String>,
    /// How many real frames.
    #[arg(long, default_value_t = 10, conflicts_with_all = ["hex", "pcap", "dst", "arp"], requires = "live")]
    count: u32,
    /// For how long at most, like 10s [default: until Ctrl-C].
    #[arg(long = "for", value_name = "TIME", value_parser = crate::live::parse_time, conflicts_with_all = ["hex", "pcap", "dst", "arp"], requires = "live")]
    within: Option<Duration>,
    /// The whole frame in hexadecimal, from its destination MAC on.
    #[arg(long, group = "what")]
    hex: Option<Hex>,
    /// A capture (pcap or pcapng) to take it from.
    #[arg(long, group = "what")]
    pcap: Option<PathBuf>,
    /// Which frame of the capture, from 1 on.
    #[arg(long, default_value_t = 1, requires = "pcap")]
    frame: usize,
    /// Destination MAC.
    #[arg(long, group = "what")]
    dst: Option<Mac>,
    /// Source MAC.
    #[arg(long, default_value = "02:00:00:00:00:f0")]
    src: Mac,
    /// A VLAN tag.
    #[arg(long, value_parser = crate::fdb::parse_vid)]
    vlan: Option<Vid>,
    /// Addresses, 'FROM>TO' (quoted: the shell takes > for itself) or FROM,TO.
    #[arg(long, value_parser = parse_ip, requires = "dst")]
    ip: Option<(IpAddr, IpAddr)>,
    /// TTL or hop limit.
    #[arg(long, default_value_t = TTL)]
    ttl: u8,
    /// A TCP segment that opens a connection: PORT or 'FROM>TO'.
    #[arg(long, value_parser = parse_ports, requires = "ip", group = "transport")]
    tcp: Option<(u16, u16)>,
    /// A UDP datagram: PORT or 'FROM>TO'.
    #[arg(long, value_parser = parse_ports, requires = "ip", group = "transport")]
    udp: Option<(u16, u16)>,
    /// A ping.
    #[arg(long, requires = "ip", group = "transport")]
    icmp: bool,
    /// An ARP question for this address, to everybody.
    #[arg(long, group = "what")]
    arp: Option<std::net::Ipv4Addr>,
    /// Bytes of payload.
    #[arg(long, default_value_t = PAYLOAD_LEN)]
    len: usize,
}

/// The builder's next step differs by version, and the one before by the tag.
macro_rules! ip_on {
    ($link:expr, $from:expr, $to:expr, $ttl:expr) => {
        match ($from, $to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => $link.ipv4(from.octets(), to.octets(), $ttl),
            (IpAddr::V6(from), IpAddr::V6(to)) => $link.ipv6(from.octets(), to.octets(), $ttl),
            (from, to) => return Err(wrong(format!("{from} and {to} differ in version"), "give two of one")),
        }
    };
}
/// Both halves of `A>B`.
fn halves(text: &str) -> Option<(&str, &str)> {
    text.split_once('>').or_else(|| text.split_once(','))
}

fn parse_ip(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let malformed = || format!("{text:?} is no pair of addresses: write '10.0.0.1>10.0.0.2'");
    let (from, to) = halves(text).ok_or_else(malformed)?;
    let (from, to): (IpAddr, IpAddr) =
        (from.trim().parse().map_err(|_| malformed())?, to.trim().parse().map_err(|_| malformed())?);
    if from.is_ipv4() == to.is_ipv4() {
        Ok((from, to))
    } else {
        Err(format!("{from} and {to} are of different IP versions"))
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let malformed = || format!("{text:?} is no port: write 443, or '40000>443'");
    match halves(text) {
        Some((from, to)) => {
            Ok((from.parse().map_err(|_| malformed())?, to.parse().map_err(|_| malformed())?))
        }
        None => Ok((SOURCE_PORT, text.parse().map_err(|_| malformed())?)),
    }
}

pub fn run(trace: &Trace, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    if let Some(filter) = &trace.live {
        let (filter, ports) = (filter.clone(), trace.in_port.iter().cloned().collect());
        let asked = live::Asked { filter, ports, count: trace.count, within: trace.within };
        return live::run(&asked, client, output);
    }
    let frame = trace.frame()?;
    let in_port = trace.in_port.clone().ok_or_else(|| wrong("no port is given", "give --in"))?;
    let request = Request::Trace(switch_api::Trace { in_port, frame: Hex(frame) });
    let reply: TraceReply = client.call(&request)?;
    output.answer(&reply, |reply| show(reply, output));
    Ok(())
}

impl Trace {
    fn frame(&self) -> Result<Vec<u8>, ApiError> {
        match (&self.hex, &self.pcap, self.dst, self.arp) {
            (Some(hex), ..) => Ok(hex.0.clone()),
            (_, Some(path), ..) => nth(path, self.frame),
            (_, _, _, Some(target)) => self.arp(target),
            (_, _, Some(dst), _) => self.made(dst),
            _ => {
                Err(wrong("no frame is given", "give --dst with fields, --arp, --hex or --pcap; see --help"))
            }
        }
    }

    fn made(&self, dst: Mac) -> Result<Vec<u8>, ApiError> {
        let payload = vec![0; self.len];
        let mut frame = Vec::new();
        let Some((from, to)) = self.ip else {
            // IEEE 802 local experimental EtherType 2: nobody takes it for a protocol.
            link_header(&mut frame, dst, self.src, self.vlan, 0x88b6);
            frame.extend(payload);
            return Ok(frame);
        };
        let link = PacketBuilder::ethernet2(self.src.0, dst.0);
        let written = match self.vlan {
            None => self.write(ip_on!(link, from, to, self.ttl), from, &mut frame, &payload),
            Some(vid) => {
                let vlan = VlanId::try_new(vid.get()).map_err(|error| wrong(error, "1 to 4094"))?;
                self.write(ip_on!(link.single_vlan(vlan), from, to, self.ttl), from, &mut frame, &payload)
            }
        };
        written.map(|()| frame).map_err(|error| wrong(error, "give a smaller --len"))
    }

    fn write(
        &self,
        ip: PacketBuilderStep<etherparse::IpHeaders>,
        from: IpAddr,
        frame: &mut Vec<u8>,
        payload: &[u8],
    ) -> Result<(), etherparse::err::packet::BuildWriteError> {
        match (self.tcp, self.udp, self.icmp) {
            (Some((from, to)), ..) => ip.tcp(from, to, 1, 65_535).syn().write(frame, payload),
            (_, Some((from, to)), _) => ip.udp(from, to).write(frame, payload),
            (.., true) if from.is_ipv4() => ip.icmpv4_echo_request(1, 1).write(frame, payload),
            (.., true) => ip.icmpv6_echo_request(1, 1).write(frame, payload),
            // RFC 3692 experimental protocol: an address alone decides.
            _ => ip.write(frame, IpNumber::EXPERIMENTAL_AND_TESTING_0, payload),
        }
    }

    fn arp(&self, target: std::net::Ipv4Addr) -> Result<Vec<u8>, ApiError> {
        // Who only asks whether an address is taken has none yet (RFC 5227).
        let sender = [0; 4];
        let question = ArpPacket::new(
            etherparse::ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &self.src.0,
            &sender,
            &[0; 6],
            &target.octets(),
        );
        let question = question.map_err(|error| wrong(error, "give --hex"))?;
        let mut frame = Vec::new();
        link_header(&mut frame, Mac([0xff; 6]), self.src, self.vlan, 0x0806);
        frame.extend(question.to_bytes());
        Ok(frame)
    }
}

fn link_header(frame: &mut Vec<u8>, dst: Mac, src: Mac, vlan: Option<Vid>, ethertype: u16) {
    frame.extend(dst.0.iter().chain(&src.0));
    if let Some(vid) = vlan {
        frame.extend(0x8100_u16.to_be_bytes().into_iter().chain(vid.get().to_be_bytes()));
    }
    frame.extend(ethertype.to_be_bytes());
}

fn wrong(what: impl ToString, hint: &str) -> ApiError {
    ApiError::new(Code::InvalidParams, what.to_string()).hint(hint)
}

/// A frame of a capture, from 1 on.
fn nth(path: &Path, n: usize) -> Result<Vec<u8>, ApiError> {
    let unreadable = |error: String| {
        wrong(format!("{}: {error}", path.display()), "--pcap takes a pcap or pcapng file of Ethernet frames")
    };
    let mut file = BufReader::new(File::open(path).map_err(|error| crate::files::refused(path, &error))?);
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(|error| unreadable(error.to_string()))?;
    file.rewind().map_err(|error| unreadable(error.to_string()))?;
    let index = n.checked_sub(1).ok_or_else(|| wrong("frames are counted from 1 on", "give --frame 1"))?;
    let (found, seen) = if magic == 0x0a0d_0d0a_u32.to_be_bytes() {
        nth_ng(file, index).map_err(|error| unreadable(error.to_string()))?
    } else {
        nth_classic(file, index).map_err(|error| unreadable(error.to_string()))?
    };
    found.ok_or_else(|| {
        wrong(format!("{} has {seen} frames, no {n}", path.display()), "give a smaller --frame")
    })
}

type Found = (Option<Vec<u8>>, usize);

fn nth_ng(file: BufReader<File>, index: usize) -> Result<Found, pcap_file::PcapError> {
    let (mut reader, mut seen) = (PcapNgReader::new(file)?, 0);
    while let Some(block) = reader.next_block() {
        let data = match block? {
            Block::EnhancedPacket(packet) => packet.data,
            Block::SimplePacket(packet) => packet.data,
            _ => continue,
        };
        if seen == index {
            return Ok((Some(data.into_owned()), seen));
        }
        seen += 1;
    }
    Ok((None, seen))
}

fn nth_classic(file: BufReader<File>, index: usize) -> Result<Found, pcap_file::PcapError> {
    let (mut reader, mut seen) = (PcapReader::new(file)?, 0);
    while let Some(packet) = reader.next_packet() {
        let data = packet?.data;
        if seen == index {
            return Ok((Some(data.into_owned()), seen));
        }
        seen += 1;
    }
    Ok((None, seen))
}

fn show(reply: &TraceReply, output: &Output) -> String {
    let mut table = output.table(&["STAGE", "VERDICT", "WHY"]);
    for step in &reply.steps {
        let good = !step.verdict.starts_with("drop");
        table.add_row(vec![
            step.stage.clone().into(),
            output.verdict(&step.verdict, good),
            step.why.clone().into(),
        ]);
    }
    let mut text = format!("{table}\n\n{}\n", reply.outcome);
    for out in &reply.out {
        let what = if out.by_switch { "the switch's own" } else { "the frame" };
        text += &format!("  by {}: {what}, {} bytes: {}\n", out.port, out.frame.0.len(), head(&out.frame));
    }
    text
}

/// The first bytes, so that a person sees which headers there are.
fn head(frame: &Hex) -> String {
    let shown = frame.0.len().min(34);
    let rest = if frame.0.len() > shown { " …" } else { "" };
    format!("{}{rest}", Hex(frame.0[..shown].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use etherparse::SlicedPacket;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        trace: Trace,
    }

    fn frame(line: &str) -> Vec<u8> {
        let words = std::iter::once("trace").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).trace.frame().unwrap()
    }

    #[test]
    fn fields_become_the_frame_they_name() {
        let bytes = frame("--in p --dst 02:00:00:00:00:02 --vlan 7 --ip 10.0.0.1>10.0.0.2 --tcp 443 --ttl 9");
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        assert_eq!(sliced.vlan_ids()[0].value(), 7);
        let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { panic!("{sliced:?}") };
        assert_eq!((ip.header().destination(), ip.header().ttl()), ([10, 0, 0, 2], 9));
        let Some(etherparse::TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("{sliced:?}") };
        assert_eq!((tcp.destination_port(), tcp.syn(), tcp.ack()), (443, true, false));
        let bytes = frame("--in p --dst 02:00:00:00:00:02 --ip fd00::1,fd00::2 --udp 5>53");
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = &sliced.transport else { panic!("{sliced:?}") };
        assert_eq!((udp.source_port(), udp.destination_port()), (5, 53));
        let bytes = frame("--in p --arp 10.0.0.1");
        assert_eq!(
            (&bytes[..6], &bytes[12..14], &bytes[38..42]),
            (&[0xff; 6][..], &[8, 6][..], &[10, 0, 0, 1][..])
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |line: &str| {
            let words = std::iter::once("trace").chain(line.split_whitespace());
            Line::try_parse_from(words).is_err()
        };
        assert!(refused("--in p --hex 02 --pcap x"), "two frames");
        assert!(refused("--hex 02"), "no port");
        assert!(refused("--live icmp --hex 02") && refused("--in p --hex 02 --count 3"), "made and real");
        assert!(!refused("--live icmp --count 3 --for 10s --in p"));
        assert!(refused("--in p --dst 02:00:00:00:00:02 --ip 10.0.0.1>fd00::1"));
        assert!(refused("--in p --dst 02:00:00:00:00:02 --tcp 443"), "ports without addresses");
        assert!(refused("--in p --dst 02:00:00:00:00:02 --ip 10.0.0.1>10.0.0.2 --tcp 1 --udp 2"));
    }
}
