//! The limits of a port: `--limit-rx-packets` and the like, `--limit-connections`.

use crate::output::thousands;
use switch_api::{Limit, PortLimits};

/// How fast a port may send and be sent.
#[derive(Debug, clap::Args)]
pub struct Limits {
    /// Packets a second that it may send into the switch, and after a comma how many at once: `10000`, `10k,500`; `off`
    /// for no limit. What is above is dropped (rate-limited-rx), not delayed. Without a comma: a quarter of a second's worth,
    /// which a TCP connection needs to find its rate. k, M and G are thousands.
    #[arg(long, value_name = "PPS[,BURST]", value_parser = parse)]
    limit_rx_packets: Option<OneLimit>,
    /// Bytes a second that it may send, and after a comma how many at once: `12500000`, `12.5M,3M`; `off` for no limit. Bytes
    /// of Ethernet frames as they are on the wire, without FCS; an eighth of what bits a second are.
    #[arg(long, value_name = "BYTES[,BURST]", value_parser = parse)]
    limit_rx_bytes: Option<OneLimit>,
    /// Packets a second that it may be sent, and how many at once; `off` for no limit. What is above is dropped
    /// (rate-limited-tx). A port of several queues on several workers has a part of each limit for each.
    #[arg(long, value_name = "PPS[,BURST]", value_parser = parse)]
    limit_tx_packets: Option<OneLimit>,
    /// Bytes a second that it may be sent, and how many at once; `off` for no limit.
    #[arg(long, value_name = "BYTES[,BURST]", value_parser = parse)]
    limit_tx_bytes: Option<OneLimit>,
    /// Flows that may begin at the port and not be over: `1000`, `10k`; `off` for no limit. One more is dropped (connection-limit). A port
    /// with a limit has its flows tracked.
    #[arg(long, value_name = "FLOWS", value_parser = count)]
    limit_connections: Option<Count>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct OneLimit(Option<Limit>);

/// A number of flows, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Count(Option<u32>);

fn count(text: &str) -> Result<Count, String> {
    if text == "off" {
        return Ok(Count(None));
    }
    let many = |_| format!("{text} flows are more than there can be");
    Ok(Count(Some(u32::try_from(number(text)?).map_err(many)?)))
}

fn parse(text: &str) -> Result<OneLimit, String> {
    if text == "off" {
        return Ok(OneLimit(None));
    }
    let (rate, burst) = match text.split_once(',') {
        Some((rate, burst)) => (rate, Some(number(burst)?)),
        None => (text, None),
    };
    Ok(OneLimit(Some(Limit { per_s: number(rate)?, burst })))
}

/// `1500`, `64k`, `12.5M`, `1G`: thousands, as rates are counted.
fn number(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no number: write it like 1500, 64k, 12.5M or 1G, or off");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(part) || part.len() > 9 {
        return Err(bad());
    }
    let parts = 10u64.pow(part.len() as u32);
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let part: u64 = if part.is_empty() { 0 } else { part.parse().map_err(|_| bad())? };
    if !(unit * part).is_multiple_of(parts) {
        return Err(bad());
    }
    whole.checked_mul(unit).and_then(|n| n.checked_add(unit * part / parts)).ok_or_else(bad)
}

impl Limits {
    /// `before` with what was named.
    pub fn over(&self, before: PortLimits) -> PortLimits {
        let or = |named: Option<OneLimit>, before| named.map_or(before, |limit| limit.0);
        PortLimits {
            rx_packets: or(self.limit_rx_packets, before.rx_packets),
            rx_bytes: or(self.limit_rx_bytes, before.rx_bytes),
            tx_packets: or(self.limit_tx_packets, before.tx_packets),
            tx_bytes: or(self.limit_tx_bytes, before.tx_bytes),
            connections: self.limit_connections.map_or(before.connections, |count| count.0),
        }
    }
}

/// Lines of `port show`.
pub fn show(limits: &PortLimits) -> [(&'static str, String); 5] {
    let line = |limit: Option<Limit>, burst: fn(Limit) -> u64| {
        limit.map_or("off".into(), |limit| {
            format!("{} a second, {} at once", thousands(limit.per_s), thousands(burst(limit)))
        })
    };
    [
        ("limit rx packets", line(limits.rx_packets, Limit::burst_packets)),
        ("limit rx bytes", line(limits.rx_bytes, Limit::burst_bytes)),
        ("limit tx packets", line(limits.tx_packets, Limit::burst_packets)),
        ("limit tx bytes", line(limits.tx_bytes, Limit::burst_bytes)),
        ("limit connections", limits.connections.map_or("off".into(), |most| thousands(most.into()))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let limit = |per_s, burst| Ok(OneLimit(Some(Limit { per_s, burst })));
        assert_eq!((count("10k"), count("off")), (Ok(Count(Some(10_000))), Ok(Count(None))));
        assert!(count("5G").is_err() && count("1,2").is_err());
        assert_eq!(parse("1500"), limit(1500, None));
        assert_eq!(parse("12.5M,64k"), limit(12_500_000, Some(64_000)));
        assert_eq!(parse("1G"), limit(1_000_000_000, None));
        assert_eq!(parse("off"), Ok(OneLimit(None)));
        for text in
            ["", "k", "1.5", "1.0001k,", "-1", "1 M", "0.0000000001G", "99999999999999999999", "1,off", "1µ"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
