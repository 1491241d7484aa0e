//! Names, MAC addresses and VLAN identifiers. Each is checked when it is made and trusted afterwards.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest object name. 63 is the DNS label length (RFC 1035 §2.3.4), which Kubernetes uses for
/// most of its names, and a name of it fits every table the CLI prints.
pub const NAME_LEN_MAX: usize = 63;

/// The name of a bridge or a port: 1 to [`NAME_LEN_MAX`] characters of `A-Z a-z 0-9 . _ -`,
/// the first one a letter or a digit. Safe in a file name, a shell and a log line. Copies share the text: a model of what is
/// declared, of which each change makes another, has thousands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a name, a MAC or a VLAN identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a [`Name`].
    #[error(
        "{0:?} is not a name: use 1 to 63 characters of A-Z a-z 0-9 . _ - and begin with a letter or a digit"
    )]
    Name(String),
    /// Not a [`Mac`].
    #[error("{0:?} is not a MAC address: write six bytes in hex, like 02:00:00:00:00:01")]
    Mac(String),
    /// Not a [`crate::Cidr`].
    #[error(
        "{0:?} is no address with a prefix length: write ADDRESS/LENGTH, like 10.66.0.2/24 or fd66::2/64"
    )]
    Cidr(String),
    /// Not a [`Vid`].
    #[error("{0} is not a VLAN identifier: use 1 to 4094")]
    Vid(u32),
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the routing table (VRF) that everything belongs to unless said otherwise.
    pub fn main() -> Self {
        Self("main".into())
    }

    /// Whether it is [`Name::main`].
    pub fn is_main(&self) -> bool {
        self.as_str() == "main"
    }
}

impl FromStr for Name {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if first && rest && text.len() <= NAME_LEN_MAX {
            Ok(Self(text.into()))
        } else {
            // The text comes from outside: quote no more of it than a name could hold.
            Err(Malformed::Name(text.chars().take(NAME_LEN_MAX).collect()))
        }
    }
}

/// An IEEE 802 MAC address. Bytes are in the order in which they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The group bit (IEEE 802-2014 §8.2): multicast and broadcast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// All zero: no station has it.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// The address as the low 48 bits of a word, first byte highest.
    pub fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The address from the low 48 bits of a word; the reverse of [`Mac::to_u64`].
    pub fn from_u64(word: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
        Self([a, b, c, d, e, f])
    }
}

impl FromStr for Mac {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::Mac(text.chars().take(NAME_LEN_MAX).collect());
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(malformed)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or_else(malformed)
    }
}

/// An IEEE 802.1Q VLAN identifier that a frame may carry: 1 to 4094. Zero means "priority only"
/// and 4095 is reserved, so there is no `From<u16>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vid(u16);

impl Vid {
    /// The identifier of untagged frames on a bridge nobody configured (IEEE 802.1Q default PVID).
    pub const DEFAULT: Self = Self(1);

    /// The lowest and the highest.
    pub const MIN: Self = Self(1);
    /// See [`Vid::MIN`].
    pub const MAX: Self = Self(4094);

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for Vid {
    type Error = Malformed;
    fn try_from(number: u32) -> Result<Self, Malformed> {
        match number {
            1..=4094 => Ok(Self(number as u16)),
            _ => Err(Malformed::Vid(number)),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text in JSON, checked on the way in.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use as_text;
as_text!(Name, Mac);

impl Serialize for Vid {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(self.0)
    }
}

impl<'de> Deserialize<'de> for Vid {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::try_from(u32::deserialize(from)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_with_odd_characters_are_refused() {
        for bad in ["", "-a", ".", "a b", "a/b", "../x", "é", "a\n", "a\0", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for good in ["a", "0", "veth-1.2_x", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn vlan_identifiers_have_edges() {
        assert!(Vid::try_from(0).is_err());
        assert!(Vid::try_from(4095).is_err());
        assert_eq!(Vid::try_from(4094).unwrap().get(), 4094);
    }

    proptest! {
        #[test]
        fn a_mac_survives_text_and_word(bytes: [u8; 6]) {
            let mac = Mac(bytes);
            prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
            prop_assert_eq!(Mac::from_u64(mac.to_u64()), mac);
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = text.parse::<Mac>();
            let _ = text.parse::<Name>();
        }
    }
}
