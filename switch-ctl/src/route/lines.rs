//! Routes by the line: as `switch-ctl route add` takes them, and as `ip route` prints them.

use std::iter::Peekable;
use std::net::IpAddr;
use std::str::SplitWhitespace;
use switch_api::{ApiError, Code, Name, NextHop, Prefix, Route, RouteApply, RouteDelete, RouteKind, Vid};

type Words<'a> = Peekable<SplitWhitespace<'a>>;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Add(Route),
    Replace(Route),
    Delete(RouteDelete),
}

/// Lines, each with its number.
pub type Lines = Vec<(usize, Line)>;

/// How lines are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The routing table of routes that name none.
    pub vrf: Name,
    /// `dev` names the kernel's devices, which mean nothing here.
    pub ignore_dev: bool,
}

impl Reading {
    /// Every line of a text; the error names the first that makes no sense.
    pub fn read(&self, text: &str) -> Result<Lines, ApiError> {
        let mut lines = Lines::new();
        for (n, text) in (1..).zip(text.lines()) {
            let said = text.split('#').next().unwrap_or_default();
            if said.trim().is_empty() {
                continue;
            }
            let line = self.line(said).map_err(|error| {
                ApiError::new(Code::InvalidParams, format!("line {n}: {error}"))
                    .hint("write `[add|replace|delete] NETWORK via ADDRESS…`, or what `ip route` prints; see `switch-ctl route apply --help`")
            })?;
            lines.push((n, line));
        }
        Ok(lines)
    }

    fn line(&self, text: &str) -> Result<Line, String> {
        let mut words = text.split_whitespace().peekable();
        words.next_if(|word| ["ip", "switch-ctl"].contains(word));
        words.next_if_eq(&"route");
        let verb = words.next_if(|word| ["add", "replace", "delete", "del"].contains(word));
        let mut said = Said::default();
        if let Some(kind) = words.peek().copied().and_then(kind_of) {
            words.next();
            said.kind = kind;
        }
        let network = words.next().ok_or("there is no network")?;
        let rest: Vec<&str> = words.collect();
        said.read(&rest.join(" "), self.ignore_dev)?;
        let prefix = said.network(network)?;
        let (vrf, metric) = (said.vrf.clone().unwrap_or_else(|| self.vrf.clone()), said.metric);
        if matches!(verb, Some("delete" | "del")) {
            return Ok(Line::Delete(RouteDelete { prefix, vrf, metric }));
        }
        let route = Route::new(prefix, said.kind, said.hops()?);
        let route = Route { vrf, metric: metric.unwrap_or(0), mtu: said.mtu, count: said.count, ..route };
        Ok(if verb == Some("add") { Line::Add(route) } else { Line::Replace(route) })
    }
}

fn kind_of(word: &str) -> Option<RouteKind> {
    match word {
        "unicast" => Some(RouteKind::Via),
        "blackhole" => Some(RouteKind::Blackhole),
        "unreachable" => Some(RouteKind::Unreachable),
        "prohibit" => Some(RouteKind::Prohibit),
        _ => None,
    }
}

/// What stands behind the network.
#[derive(Debug, Default)]
struct Said {
    kind: RouteKind,
    hops: Vec<Hop>,
    /// Of hops that have none of their own.
    dev: Option<Name>,
    vid: Option<Vid>,
    metric: Option<u32>,
    mtu: Option<u16>,
    count: bool,
    vrf: Option<Name>,
}

#[derive(Debug)]
struct Hop {
    address: IpAddr,
    weight: u16,
    dev: Option<Name>,
}

impl Said {
    fn read(&mut self, rest: &str, ignore_dev: bool) -> Result<(), String> {
        let mut words = rest.split_whitespace().peekable();
        // Next hops of one line, each begun by the word `nexthop`.
        let mut is_hop = false;
        let mut is_via = false;
        while let Some(word) = words.next() {
            if let Some(kind) = kind_of(word) {
                self.kind = kind;
                continue;
            }
            match word {
                "nexthop" => is_hop = true,
                "via" => self.hops.push(hop_of(after(word, &mut words)?)?),
                "dev" => {
                    let dev: &str = after(word, &mut words)?;
                    let dev = match ignore_dev {
                        true => None,
                        false => Some(dev.parse().map_err(|error| format!("dev {dev}: {error}"))?),
                    };
                    match self.hops.last_mut().filter(|_| is_hop) {
                        Some(hop) => hop.dev = dev,
                        None => self.dev = dev,
                    }
                }
                "weight" => {
                    let weight = number(word, &mut words)? as u16;
                    self.hops.last_mut().ok_or("a weight without a next hop")?.weight = weight;
                }
                "vid" => self.vid = Some(crate::fdb::parse_vid(after(word, &mut words)?)?),
                "mtu" => {
                    // `ip route` tells of one that path MTU discovery may not lower; a router discovers none.
                    words.next_if_eq(&"lock");
                    let mtu = number(word, &mut words)?;
                    self.mtu = Some(mtu.try_into().map_err(|_| format!("mtu {mtu}: at most 65535"))?);
                }
                "count" => self.count = true,
                "metric" => self.metric = Some(number(word, &mut words)?),
                "vrf" => {
                    let vrf = after(word, &mut words)?;
                    self.vrf = Some(vrf.parse().map_err(|error| format!("vrf {vrf}: {error}"))?);
                }
                // What the kernel says of its own routes, and means nothing here.
                "proto" | "scope" | "src" | "pref" | "expires" => _ = after(word, &mut words)?,
                "onlink" | "linkdown" | "dead" | "offload" | "trap" | "rt_offload" | "\\" => {}
                more if is_via => self.hops.push(hop_of(more)?),
                other => return Err(format!("{other:?} is not understood")),
            }
            is_via = word == "via" || is_via && super::parse_hop(word).is_ok();
        }
        Ok(())
    }

    /// `default` is of its next hops' version; an address alone is a network of one.
    fn network(&self, text: &str) -> Result<Prefix, String> {
        if text == "default" {
            let is_v6 = self.hops.first().is_some_and(|hop| hop.address.is_ipv6());
            let all = if is_v6 { "::/0" } else { "0.0.0.0/0" };
            return all.parse().map_err(|error| format!("{error}"));
        }
        match text.parse() {
            Ok(address) => Ok(Prefix::host(address)),
            Err(_) => text.parse().map_err(|error| format!("{error}")),
        }
    }

    fn hops(&self) -> Result<Vec<NextHop>, String> {
        if self.kind == RouteKind::Via && self.hops.is_empty() {
            return Err("there is no next hop; networks on the link are those of gateway addresses (`bridge address add`)".into());
        }
        let hop = |hop: &Hop| NextHop {
            address: hop.address,
            bridge: hop.dev.clone().or_else(|| self.dev.clone()),
            vid: self.vid.unwrap_or(Vid::DEFAULT),
            weight: hop.weight,
        };
        Ok(self.hops.iter().map(hop).collect())
    }
}

fn hop_of(text: &str) -> Result<Hop, String> {
    let (address, weight) = super::parse_hop(text)?;
    Ok(Hop { address, weight, dev: None })
}

fn after<'a>(word: &str, words: &mut Words<'a>) -> Result<&'a str, String> {
    words.next().ok_or_else(|| format!("nothing stands behind {word}"))
}

fn number(word: &str, words: &mut Words) -> Result<u32, String> {
    let text = after(word, words)?;
    text.parse().map_err(|_| format!("{word} {text}: that is no number"))
}

/// Lines as requests, each of no more than `bytes`, and the lines of each. Which one a refusal is about is found by the
/// place it names.
pub fn requests(lines: &Lines, bytes: usize) -> Vec<(RouteApply, &[(usize, Line)])> {
    let mut parts = Vec::new();
    let (mut from, mut len) = (0, 0);
    for (at, (_, line)) in lines.iter().enumerate() {
        let more = size_of(line);
        if len + more > bytes && at > from {
            parts.push(&lines[from..at]);
            (from, len) = (at, 0);
        }
        len += more;
    }
    parts.push(&lines[from..]);
    parts.into_iter().map(|lines| (request(lines), lines)).collect()
}

/// Bytes of a line in a request, with its comma.
fn size_of(line: &Line) -> usize {
    let text = match line {
        Line::Add(route) | Line::Replace(route) => serde_json::to_vec(route),
        Line::Delete(by) => serde_json::to_vec(by),
    };
    text.map_or(0, |text| text.len() + 1)
}

fn request(lines: &[(usize, Line)]) -> RouteApply {
    let mut apply = RouteApply::default();
    for (_, line) in lines {
        match line.clone() {
            Line::Add(route) => apply.add.push(route),
            Line::Replace(route) => apply.replace.push(route),
            Line::Delete(by) => apply.delete.push(by),
        }
    }
    apply
}

/// The line that a field of a refusal is about, like `add[3].via`.
pub fn line_of(field: &str, lines: &[(usize, Line)]) -> Option<usize> {
    let (list, rest) = field.split_once('[')?;
    let at: usize = rest.split_once(']')?.0.parse().ok()?;
    let is_of = |line: &Line| match line {
        Line::Add(_) => list == "add",
        Line::Replace(_) => list == "replace",
        Line::Delete(_) => list == "delete",
    };
    lines.iter().filter(|(_, line)| is_of(line)).nth(at).map(|(n, _)| *n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Lines, ApiError> {
        Reading { vrf: Name::main(), ignore_dev: true }.read(text)
    }

    fn way(line: &Line) -> String {
        let (Line::Add(route) | Line::Replace(route)) = line else { panic!("{line:?}") };
        let hops: Vec<_> = route.via.iter().map(|hop| format!("{}*{}", hop.address, hop.weight)).collect();
        format!("{} {:?} {} {}", route.prefix, route.kind, hops.join(" "), route.metric)
    }

    #[test]
    fn what_ip_route_prints_is_read() {
        // As iproute2 6.1 prints them, `ip -o route` the last.
        let text = "default via 10.1.0.2 dev eth0 proto dhcp src 10.1.0.9 metric 100\n\
            10.9.0.0/16 via 10.1.0.2 dev switch0 proto bird metric 32\n\
            blackhole 10.66.0.0/16 \n\
            unreachable default dev lo metric 4294967295 pref medium\n\
            10.7.0.1 via 10.1.0.3 dev eth0 onlink\n\
            fd09::/48 via fd10::2 dev eth0 proto static metric 1024 pref medium\n\
            10.8.0.0/24 proto bird \\\tnexthop via 10.1.0.2 dev eth0 weight 3 \\\tnexthop via 10.1.0.3 dev eth1 weight 1 \n";
        let lines = read(text).unwrap();
        let ways: Vec<String> = lines.iter().map(|(_, line)| way(line)).collect();
        assert_eq!(
            ways,
            [
                "0.0.0.0/0 Via 10.1.0.2*1 100",
                "10.9.0.0/16 Via 10.1.0.2*1 32",
                "10.66.0.0/16 Blackhole  0",
                "0.0.0.0/0 Unreachable  4294967295",
                "10.7.0.1/32 Via 10.1.0.3*1 0",
                "fd09::/48 Via fd10::2*1 1024",
                "10.8.0.0/24 Via 10.1.0.2*3 10.1.0.3*1 0",
            ]
        );
    }

    #[test]
    fn our_own_words_are_read() {
        let text = "# a comment\n\nadd 10.9.0.0/16 via 10.1.0.2*3 10.1.0.3 dev br0 vid 20 metric 5 vrf red # more\n\
            replace ::/0 prohibit\nroute del 10.9.0.0/16 metric 5\ndelete 10.8.0.0/16\n";
        let lines = Reading { vrf: Name::main(), ignore_dev: false }.read(text).unwrap();
        let Line::Add(route) = &lines[0].1 else { panic!() };
        assert_eq!((lines[0].0, way(&lines[0].1)), (3, "10.9.0.0/16 Via 10.1.0.2*3 10.1.0.3*1 5".into()));
        assert!(
            route.via.iter().all(|hop| hop.bridge.as_ref().is_some_and(|bridge| bridge.as_str() == "br0"))
        );
        assert_eq!((route.vrf.as_str(), route.via[1].vid.get()), ("red", 20));
        assert_eq!(way(&lines[1].1), "::/0 Prohibit  0");
        for (text, mtu) in [("mtu 1400", 1400), ("mtu lock 1300 metric 2 count", 1300)] {
            let lines = read(&format!("10.9.0.0/16 via 10.1.0.2 {text}")).unwrap();
            let Line::Replace(route) = &lines[0].1 else { panic!() };
            assert_eq!((route.mtu, route.count), (Some(mtu), text.ends_with("count")));
        }
        let Line::Delete(by) = &lines[2].1 else { panic!() };
        assert_eq!(by.metric, Some(5));
        assert!(matches!(&lines[3].1, Line::Delete(RouteDelete { metric: None, .. })));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for bad in [
            "10.0.0.0/33 via 10.1.0.2",
            "10.0.0.0/8 via",
            "10.0.0.0/8 by 10.1.0.2",
            "10.0.0.0/8 via 10.1.0.2 metric high",
            "10.0.0.0/8 dev eth0 scope link",
            "add",
            "10.0.0.0/8 weight 3",
            "10.0.0.0/8 via 10.1.0.2 mtu 65536",
        ] {
            let error = read(&format!("10.1.0.0/16 via 10.1.0.2\n{bad}\n")).unwrap_err();
            assert!(error.message.starts_with("line 2: "), "{bad}: {error:?}");
        }
    }

    #[test]
    fn parts_have_all_lines_and_places_lead_back_to_them() {
        let text: String =
            (0..200).map(|n| format!("{} 10.{n}.0.0/16 via 10.1.0.2\n", ["add", "replace"][n % 2])).collect();
        let lines = read(&text).unwrap();
        let parts = requests(&lines, 3000);
        assert!(parts.len() > 4);
        let whole: usize = parts.iter().map(|(apply, _)| apply.add.len() + apply.replace.len()).sum();
        assert_eq!(whole, 200);
        for (apply, lines) in &parts {
            let text = switch_api::codec::encode_request(1, &switch_api::Request::RouteApply(apply.clone()));
            assert!(text.len() < 3200, "{}", text.len());
            let first = line_of("replace[1].via", lines).unwrap();
            let (_, said) = lines.iter().find(|(n, _)| *n == first).unwrap();
            assert_eq!(*said, Line::Replace(apply.replace[1].clone()));
        }
        assert_eq!(line_of("vrf", &lines), None);
    }
}
