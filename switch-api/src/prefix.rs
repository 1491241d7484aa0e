//! `ADDRESS/LENGTH`: an address and how many of its leading bits its network shares.

use crate::name::as_text;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An IP address with a prefix length. Whether bits behind the prefix may be set is for the object that
/// has it to say: an interface's address has them, a route has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Leading bits; at most 32 (IPv4) or 128 (IPv6).
    pub len: u8,
}

/// Why a text is no [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no prefix: write ADDRESS/LENGTH, like 10.1.0.1/24 or fd00:1::1/64")]
pub struct NoPrefix(String);

impl Prefix {
    /// An address alone.
    pub fn host(address: IpAddr) -> Self {
        Self { address, len: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Bits of an address of this family.
    pub fn bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The same with every bit behind the prefix zero.
    pub fn network(&self) -> Self {
        Self { address: self.masked(0), len: self.len }
    }

    /// The highest address; for IPv4 the network's broadcast address.
    pub fn last(&self) -> IpAddr {
        self.masked(u128::MAX)
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let other = Self { address, len: self.len };
        address.is_ipv4() == self.address.is_ipv4() && other.network() == self.network()
    }

    /// The address with its trailing bits from `fill`.
    fn masked(&self, fill: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask | fill as u32 & !mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask | fill & !mask).into())
            }
        }
    }
}

impl FromStr for Prefix {
    type Err = NoPrefix;
    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let malformed = || NoPrefix(text.chars().take(64).collect());
        let (address, len) = text.split_once('/').ok_or_else(malformed)?;
        let address = address.parse().map_err(|_| malformed())?;
        let digits = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
        let len = len.parse().ok().filter(|_| digits).ok_or_else(malformed)?;
        let prefix = Self { address, len };
        (len <= prefix.bits()).then_some(prefix).ok_or_else(malformed)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.len))
    }
}

as_text!(Prefix);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_prefix_is_refused() {
        for bad in
            ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0/8", "x/8", "::/-1"]
        {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn networks_have_two_ends() {
        let prefix: Prefix = "10.1.2.3/23".parse().unwrap();
        assert_eq!(prefix.network().to_string(), "10.1.2.0/23");
        assert_eq!(prefix.last().to_string(), "10.1.3.255");
        assert!(
            prefix.contains("10.1.3.9".parse().unwrap()) && !prefix.contains("10.1.4.0".parse().unwrap())
        );
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("9.9.9.9".parse().unwrap()));
        assert!(!"0.0.0.0/0".parse::<Prefix>().unwrap().contains("::".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_prefix_survives_text(v6: bool, bits: u128, len in 0u8..=128) {
            let address = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
            let prefix = Prefix { address, len: if v6 { len } else { len / 4 } };
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            prop_assert!(prefix.contains(prefix.last()) && prefix.contains(prefix.network().address));
        }
    }
}
