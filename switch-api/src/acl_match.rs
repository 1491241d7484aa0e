//! What rules of access control lists say of a packet beyond addresses and ports: TCP flags, fragments, MACs and VLANs. Each is read as
//! text, and said as it is written.

use crate::{Mac, Vid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// TCP flags that must be set and that must not be; the others may be either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpFlags {
    /// Flags that count, at least one, as bits of the TCP header's fourteenth byte (RFC 9293 §3.1).
    pub mask: u8,
    /// What these are; no bit that is not in `mask`.
    pub value: u8,
}

impl TcpFlags {
    /// By their bits, the lowest first.
    const NAMES: [&'static str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

    /// Whether a segment's flags are these.
    pub fn fit(self, flags: u8) -> bool {
        flags & self.mask == self.value
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let counts = |bit: &usize| self.mask >> bit & 1 == 1;
        let word = |bit: usize| {
            let not = if self.value >> bit & 1 == 1 { "" } else { "!" };
            format!("{not}{}", Self::NAMES[bit])
        };
        let words: Vec<String> = (0..8).filter(counts).map(word).collect();
        f.pad(&words.join(","))
    }
}

impl FromStr for TcpFlags {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            let (text, names) = (text.chars().take(64).collect::<String>(), Self::NAMES.join(", "));
            format!(
                "{text:?} are no TCP flags: write those that must be set, and with ! those that must not, like syn,!ack, each once, of {names}"
            )
        };
        let mut flags = Self { mask: 0, value: 0 };
        for word in text.split(',').map(str::trim) {
            let (name, is_set) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
            let bit = Self::NAMES
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name))
                .ok_or_else(malformed)?;
            if flags.mask >> bit & 1 == 1 {
                return Err(malformed());
            }
            flags.mask |= 1 << bit;
            flags.value |= u8::from(is_set) << bit;
        }
        Ok(flags)
    }
}

/// MACs of which the bits of a mask are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacMask {
    /// The bits; none that is not in the mask.
    pub mac: Mac,
    /// Bits that count.
    pub mask: Mac,
}

impl MacMask {
    /// The mask of one MAC.
    pub const ALL: Mac = Mac([0xff; 6]);

    /// Whether a MAC is one of them.
    pub fn contains(self, mac: Mac) -> bool {
        mac.to_u64() & self.mask.to_u64() == self.mac.to_u64()
    }
}

impl fmt::Display for MacMask {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.mask == Self::ALL {
            true => f.pad(&self.mac.to_string()),
            false => f.pad(&format!("{}/{}", self.mac, self.mask)),
        }
    }
}

impl FromStr for MacMask {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (mac, mask) = text.split_once('/').map_or((text, None), |(mac, mask)| (mac, Some(mask)));
        let read = |text: &str| {
            text.parse::<Mac>().map_err(|error| {
                format!("{error}; behind a slash may be a mask, like 02:42:00:00:00:00/ff:ff:00:00:00:00")
            })
        };
        let it = Self { mac: read(mac)?, mask: mask.map_or(Ok(Self::ALL), read)? };
        match it.mac.to_u64() & !it.mask.to_u64() {
            0 => Ok(it),
            _ => {
                let mac = Mac::from_u64(it.mac.to_u64() & it.mask.to_u64());
                Err(format!("{it} has bits that its mask leaves out: write {mac}/{}", it.mask))
            }
        }
    }
}

/// VLANs from one to another, that one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanRange {
    /// The lowest.
    pub first: Vid,
    /// The highest; not below `first`.
    pub last: Vid,
}

impl fmt::Display for VlanRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.first == self.last {
            true => f.pad(&self.first.to_string()),
            false => f.pad(&format!("{}-{}", self.first, self.last)),
        }
    }
}

impl FromStr for VlanRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let vid = |text: &str| crate::acl::number::<u32>(text).and_then(|vid| Vid::try_from(vid).ok());
        let range = vid(first).zip(vid(last)).map(|(first, last)| Self { first, last });
        range.filter(|range| range.first <= range.last).ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            format!("{text:?} is no VLAN or range of VLANs: write 10, or 10-20, of 1 to 4094")
        })
    }
}

/// Which part of a packet is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FragmentMatch {
    /// A fragment, whichever.
    Any,
    /// The first of its packet, with the transport header.
    First,
    /// One behind the first.
    Later,
    /// A whole packet.
    None,
}

impl fmt::Display for FragmentMatch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Any => "any",
            Self::First => "first",
            Self::Later => "later",
            Self::None => "none",
        })
    }
}

/// Read and written as text.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.to_string())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(TcpFlags, MacMask);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_said_as_they_were_written() {
        let flags: TcpFlags = "syn,!ACK".parse().unwrap();
        assert_eq!((flags, flags.to_string().as_str()), (TcpFlags { mask: 0x12, value: 2 }, "syn,!ack"));
        assert!(flags.fit(0x02) && flags.fit(0xc2) && !flags.fit(0x12) && !flags.fit(0));
        let mac: MacMask = "02:42:00:00:00:00/ff:ff:00:00:00:00".parse().unwrap();
        assert!(
            mac.contains("02:42:ac:11:00:02".parse().unwrap())
                && !mac.contains("02:43:00:00:00:00".parse().unwrap())
        );
        assert_eq!(mac.to_string(), "02:42:00:00:00:00/ff:ff:00:00:00:00");
        assert_eq!("02:00:00:00:00:01".parse::<MacMask>().unwrap().to_string(), "02:00:00:00:00:01");
        assert_eq!("10-20".parse::<VlanRange>().unwrap().to_string(), "10-20");
        for bad in ["", "syn,syn", "syn,!syn", "sny", "syn ack", "!"] {
            assert!(bad.parse::<TcpFlags>().is_err(), "{bad}");
        }
        let bits = "02:42:00:00:00:01/ff:ff:00:00:00:00".parse::<MacMask>().unwrap_err();
        assert!(bits.contains("write 02:42:00:00:00:00/ff:ff:00:00:00:00"), "{bits}");
        for bad in ["0", "4095", "20-10", "+1", "10-"] {
            assert!(bad.parse::<VlanRange>().is_err(), "{bad}");
        }
    }
}
