//! Text to a tree of tests: primitives with their qualifiers, `and` and `or` of equal rank from left to right, `not`,
//! parentheses. `vlan` moves what stands behind it in the text by a tag, as tcpdump has it.

use super::code::{Is, Load, Tree};
use std::net::IpAddr;
use switch_api::{Mac, Prefix};

/// Parentheses and nots in one another.
const DEPTH_MAX: usize = 64;

const IPV4: u32 = 0x0800;
const ARP: u32 = 0x0806;
const RARP: u32 = 0x8035;
const IPV6: u32 = 0x86dd;
/// EtherTypes of a tag.
const TAGS: [u32; 3] = [0x8100, 0x88a8, 0x9100];
const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const FRAGMENT: u32 = 44;
const ICMPV6: u32 = 58;
const SCTP: u32 = 132;
const ALL_BITS: u32 = u32::MAX;

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
    Either,
    Both,
}

/// What kind of name an address or number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Proto,
}

/// What stands before a name; a bare one inherits it from the one before.
#[derive(Clone, Copy, Debug)]
struct Qualifiers<'a> {
    proto: Option<&'a str>,
    end: End,
    kind: Kind,
}

struct Reader<'a> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
    /// Bytes of tags before the EtherType that is meant.
    tags: u32,
    last: Option<Qualifiers<'a>>,
}

/// Reads an expression; what is wrong, in a sentence.
pub fn read(text: &str) -> Result<Tree, String> {
    let mut reader = Reader { words: words(text), at: 0, depth: 0, tags: 0, last: None };
    let tree = reader.expression()?;
    match reader.peek() {
        None => Ok(tree),
        Some(word) => Err(format!("{word:?} stands where `and` or `or` should")),
    }
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(at) = rest.find(['(', ')', '!']) {
            if at > 0 {
                words.push(&rest[..at]);
            }
            words.push(&rest[at..=at]);
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            words.push(rest);
        }
    }
    words
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self) -> Result<&'a str, String> {
        let word = self.peek().ok_or("it ends where something should follow")?;
        self.at += 1;
        Ok(word)
    }

    fn takes(&mut self, wanted: &[&str]) -> bool {
        let is = self.peek().is_some_and(|word| wanted.contains(&word));
        self.at += usize::from(is);
        is
    }

    fn expression(&mut self) -> Result<Tree, String> {
        let mut tree = self.term()?;
        loop {
            if self.takes(&["and", "&&"]) {
                tree = Tree::All(vec![tree, self.term()?]);
            } else if self.takes(&["or", "||"]) {
                tree = Tree::Any(vec![tree, self.term()?]);
            } else {
                return Ok(tree);
            }
        }
    }

    fn term(&mut self) -> Result<Tree, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("it is more than {DEPTH_MAX} parentheses deep"));
        }
        let tree = if self.takes(&["not", "!"]) {
            Tree::Not(Box::new(self.term()?))
        } else if self.takes(&["("]) {
            let tree = self.expression()?;
            if !self.takes(&[")"]) {
                return Err("a \")\" is missing".into());
            }
            tree
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(tree)
    }

    fn primitive(&mut self) -> Result<Tree, String> {
        match self.peek() {
            Some("vlan") => return self.vlan(),
            Some("less") => {
                self.at += 1;
                let len = number(self.take()?)?;
                return Ok(Tree::Not(Box::new(Tree::Test(Load::Len, ALL_BITS, Is::Above(len)))));
            }
            Some("greater") => {
                self.at += 1;
                return Ok(Tree::Test(Load::Len, ALL_BITS, Is::AtLeast(number(self.take()?)?)));
            }
            _ => {}
        }
        let protocols = ["ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6"];
        let proto = self.peek().filter(|word| protocols.contains(word));
        self.at += usize::from(proto.is_some());
        if self.takes(&["broadcast"]) {
            return broadcast(proto);
        }
        if self.takes(&["multicast"]) {
            return self.multicast(proto);
        }
        let end = self.end();
        let kind = match self.peek() {
            Some("host") => Some(Kind::Host),
            Some("net") => Some(Kind::Net),
            Some("port") => Some(Kind::Port),
            Some("portrange") => Some(Kind::PortRange),
            Some("proto") => Some(Kind::Proto),
            _ => None,
        };
        self.at += usize::from(kind.is_some());
        let qualifiers = match (proto, end, kind) {
            (Some(proto), None, None) => return self.protocol(proto),
            // A name alone means what the last one did: `port 80 or 443`.
            (None, None, None) => self.last.ok_or_else(|| self.unknown())?,
            _ => Qualifiers { proto, end: end.unwrap_or(End::Either), kind: kind.unwrap_or(Kind::Host) },
        };
        let name = self.take()?;
        self.last = Some(qualifiers);
        self.named(qualifiers, name)
    }

    fn unknown(&self) -> String {
        self.peek().map_or("it ends where something should follow".into(), |word| {
            format!("{word:?} is not known here")
        })
    }

    fn end(&mut self) -> Option<End> {
        let first = match self.peek()? {
            "src" => End::Source,
            "dst" => End::Destination,
            _ => return None,
        };
        self.at += 1;
        let rest = self.words.get(self.at..self.at + 2).unwrap_or_default();
        let both = match rest {
            ["or", "src" | "dst"] => End::Either,
            ["and", "src" | "dst"] => End::Both,
            _ => return Some(first),
        };
        self.at += 2;
        Some(both)
    }

    fn vlan(&mut self) -> Result<Tree, String> {
        self.at += 1;
        let tag = Tree::Any(TAGS.into_iter().map(|tag| self.ethertype(tag)).collect());
        self.tags += 4;
        let Some(vid) = self.peek().and_then(|word| word.parse::<u32>().ok()) else { return Ok(tag) };
        self.at += 1;
        if vid > 4095 {
            return Err(format!("{vid} is no VLAN: 0 to 4095"));
        }
        Ok(Tree::All(vec![tag, Tree::Test(Load::Half(10 + self.tags), 0xfff, Is::Equal(vid))]))
    }

    fn ethertype(&self, ethertype: u32) -> Tree {
        Tree::Test(Load::Half(12 + self.tags), ALL_BITS, Is::Equal(ethertype))
    }

    /// Where the packet behind the EtherType begins.
    fn packet(&self) -> u32 {
        14 + self.tags
    }

    fn multicast(&self, proto: Option<&str>) -> Result<Tree, String> {
        let at = self.packet();
        match proto {
            None | Some("ether") => Ok(Tree::Test(Load::Byte(0), ALL_BITS, Is::Some(1))),
            Some("ip") => Ok(Tree::All(vec![
                self.ethertype(IPV4),
                Tree::Test(Load::Byte(at + 16), ALL_BITS, Is::AtLeast(224)),
            ])),
            Some("ip6") => Ok(Tree::All(vec![
                self.ethertype(IPV6),
                Tree::Test(Load::Byte(at + 24), ALL_BITS, Is::Equal(255)),
            ])),
            Some(other) => Err(format!("{other} knows no multicast")),
        }
    }

    /// A protocol alone.
    fn protocol(&self, proto: &str) -> Result<Tree, String> {
        Ok(match proto {
            "ip" => self.ethertype(IPV4),
            "ip6" => self.ethertype(IPV6),
            "arp" => self.ethertype(ARP),
            "rarp" => self.ethertype(RARP),
            "icmp" => self.over_v4(ICMP),
            "icmp6" => self.over_v6(ICMPV6),
            "tcp" => self.over_ip(TCP),
            "udp" => self.over_ip(UDP),
            "sctp" => self.over_ip(SCTP),
            _ => return Err(self.unknown()),
        })
    }

    fn over_v4(&self, protocol: u32) -> Tree {
        let is = Tree::Test(Load::Byte(self.packet() + 9), ALL_BITS, Is::Equal(protocol));
        Tree::All(vec![self.ethertype(IPV4), is])
    }

    fn over_v6(&self, protocol: u32) -> Tree {
        let next = |at, is| Tree::Test(Load::Byte(self.packet() + at), ALL_BITS, Is::Equal(is));
        let behind = Tree::All(vec![next(6, FRAGMENT), next(40, protocol)]);
        Tree::All(vec![self.ethertype(IPV6), Tree::Any(vec![next(6, protocol), behind])])
    }

    fn over_ip(&self, protocol: u32) -> Tree {
        Tree::Any(vec![self.over_v4(protocol), self.over_v6(protocol)])
    }

    fn named(&self, qualifiers: Qualifiers, name: &str) -> Result<Tree, String> {
        let Qualifiers { proto, end, kind } = qualifiers;
        match (proto, kind) {
            (Some("ether"), Kind::Host) => {
                let mac: Mac = name.parse().map_err(|_| format!("{name:?} is no MAC address"))?;
                Ok(ends(end, |at| station(at, mac), 6, 0))
            }
            (Some("ether"), Kind::Proto) => Ok(self.ethertype(number(name)?)),
            (Some("ip"), Kind::Proto) => Ok(self.over_v4(number(name)?)),
            (Some("ip6"), Kind::Proto) => Ok(self.over_v6(number(name)?)),
            (None, Kind::Proto) => Ok(self.over_ip(number(name)?)),
            (_, Kind::Host) => {
                let address: IpAddr = name.parse().map_err(|_| format!("{name:?} is no address"))?;
                let len = if address.is_ipv4() { 32 } else { 128 };
                self.network(proto, end, address, len)
            }
            (_, Kind::Net) => {
                let prefix: Prefix =
                    name.parse().map_err(|_| format!("{name:?} is no network like 10.0.0.0/8"))?;
                self.network(proto, end, prefix.address, prefix.len)
            }
            (_, Kind::Port) => {
                let port = number(name)?;
                self.ports(proto, end, (port, port))
            }
            (_, Kind::PortRange) => {
                let (first, last) =
                    name.split_once('-').ok_or_else(|| format!("{name:?} is no range like 1-1024"))?;
                self.ports(proto, end, (number(first)?, number(last)?))
            }
            (Some(proto), Kind::Proto) => Err(format!("{proto} has no protocols in it")),
        }
    }

    fn network(&self, proto: Option<&str>, end: End, address: IpAddr, len: u8) -> Result<Tree, String> {
        let at = self.packet();
        match address {
            IpAddr::V4(address) => {
                let test = |at| masked(at, u32::from(address), u32::from(len));
                let ip = Tree::All(vec![self.ethertype(IPV4), ends(end, test, at + 12, at + 16)]);
                let inside = |kind| Tree::All(vec![self.ethertype(kind), ends(end, test, at + 14, at + 24)]);
                match proto {
                    None => Ok(Tree::Any(vec![ip, inside(ARP), inside(RARP)])),
                    Some("ip") => Ok(ip),
                    Some("arp") => Ok(inside(ARP)),
                    Some("rarp") => Ok(inside(RARP)),
                    Some(other) => Err(format!("{other} packets have no hosts: write `{other} and host …`")),
                }
            }
            IpAddr::V6(address) if matches!(proto, None | Some("ip6")) => {
                let words: Vec<_> =
                    address.octets().as_chunks::<4>().0.iter().map(|w| u32::from_be_bytes(*w)).collect();
                let test = |at| {
                    let word = |(n, word): (usize, &u32)| {
                        masked(at + 4 * n as u32, *word, u32::from(len).saturating_sub(32 * n as u32).min(32))
                    };
                    Tree::All(words.iter().enumerate().map(word).collect())
                };
                Ok(Tree::All(vec![self.ethertype(IPV6), ends(end, test, at + 8, at + 24)]))
            }
            IpAddr::V6(_) => Err(format!("{} has no IPv6 addresses", proto.unwrap_or_default())),
        }
    }

    fn ports(&self, proto: Option<&str>, end: End, ports: (u32, u32)) -> Result<Tree, String> {
        let protocols: &[u32] = match proto {
            None => &[TCP, UDP, SCTP],
            Some("tcp") => &[TCP],
            Some("udp") => &[UDP],
            Some("sctp") => &[SCTP],
            Some(other) => return Err(format!("{other} has no ports")),
        };
        if ports.0 > ports.1 || ports.1 > 65_535 {
            return Err("ports are 0 to 65535, the lower one first".into());
        }
        let at = self.packet();
        let is = |load| {
            if ports.0 == ports.1 {
                return Tree::Test(load, ALL_BITS, Is::Equal(ports.0));
            }
            let above = Tree::Test(load, ALL_BITS, Is::Above(ports.1));
            Tree::All(vec![Tree::Test(load, ALL_BITS, Is::AtLeast(ports.0)), Tree::Not(Box::new(above))])
        };
        let one_of = |at| {
            let is = |protocol: &u32| Tree::Test(Load::Byte(at), ALL_BITS, Is::Equal(*protocol));
            Tree::Any(protocols.iter().map(is).collect())
        };
        // Later fragments have no ports.
        let later = Tree::Test(Load::Half(at + 6), ALL_BITS, Is::Some(0x1fff));
        let v4 = vec![
            self.ethertype(IPV4),
            one_of(at + 9),
            Tree::Not(Box::new(later)),
            ends(end, |n| is(Load::Behind(n, at)), 0, 2),
        ];
        let v6 =
            vec![self.ethertype(IPV6), one_of(at + 6), ends(end, |at| is(Load::Half(at)), at + 40, at + 42)];
        Ok(Tree::Any(vec![Tree::All(v6), Tree::All(v4)]))
    }
}

/// The test at one end, or at both.
fn ends(end: End, test: impl Fn(u32) -> Tree, source: u32, destination: u32) -> Tree {
    match end {
        End::Source => test(source),
        End::Destination => test(destination),
        End::Either => Tree::Any(vec![test(source), test(destination)]),
        End::Both => Tree::All(vec![test(source), test(destination)]),
    }
}

fn masked(at: u32, word: u32, len: u32) -> Tree {
    let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
    Tree::Test(Load::Word(at), mask, Is::Equal(word & mask))
}

fn station(at: u32, mac: Mac) -> Tree {
    let [a, b, c, d, e, f] = mac.0;
    let last = Tree::Test(Load::Word(at + 2), ALL_BITS, Is::Equal(u32::from_be_bytes([c, d, e, f])));
    let first = Tree::Test(Load::Half(at), ALL_BITS, Is::Equal(u32::from_be_bytes([0, 0, a, b])));
    Tree::All(vec![last, first])
}

fn broadcast(proto: Option<&str>) -> Result<Tree, String> {
    match proto {
        None | Some("ether") => Ok(station(0, Mac([0xff; 6]))),
        Some(other) => Err(format!("{other} broadcast depends on a netmask: name the address")),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let parsed =
        text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16));
    parsed.map_err(|_| format!("{text:?} is no number"))
}
