//! Addresses with the length of their network, checked when they are made.

use crate::name::{Malformed, NAME_LEN_MAX};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and the length of its network, like `10.66.0.2/24` or `fd66::2/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    len: u8,
}

impl Cidr {
    /// The address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Bits of the network: 0 to 32, or to 128 for IPv6.
    pub fn prefix_len(self) -> u8 {
        self.len
    }

    /// Whether it names a network and no host in it: every bit behind the prefix is 0.
    pub fn is_network(self) -> bool {
        match self.address {
            IpAddr::V4(v4) => v4.to_bits().checked_shl(u32::from(self.len)).unwrap_or(0) == 0,
            IpAddr::V6(v6) => v6.to_bits().checked_shl(u32::from(self.len)).unwrap_or(0) == 0,
        }
    }
}

impl FromStr for Cidr {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::Cidr(text.chars().take(NAME_LEN_MAX).collect());
        let (address, len) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let len_max = if address.is_ipv4() { 32 } else { 128 };
        // "+8" is a number to Rust, but nobody writes a prefix so.
        let digits = len.bytes().all(|byte| byte.is_ascii_digit());
        let len = len.parse().ok().filter(|len| digits && *len <= len_max).ok_or_else(malformed)?;
        Ok(Self { address, len })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_have_edges() {
        for bad in ["", "10.0.0.1", "10.0.0.1/33", "fd00::/129", "10.0.0.1/", "10.0.0.1/+8", "x/8", "/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?}");
        }
        for (text, network) in [
            ("0.0.0.0/0", true),
            ("10.0.0.0/8", true),
            ("10.0.0.1/8", false),
            ("10.0.0.1/32", true),
            ("::/0", true),
            ("fd00::1/64", false),
            ("fd00::1/128", true),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!((cidr.to_string().as_str(), cidr.is_network()), (text, network));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Cidr>();
        }
    }
}
