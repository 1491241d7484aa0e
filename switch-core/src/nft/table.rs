//! A table as it is declared, and the messages that make it. Numbers are those of linux/netfilter/nf_tables.h; type numbers of
//! sets are `nft`'s, for whoever lists them (nftables `include/datatype.h`).

use super::attribute::Attributes;
use super::expression::Rule;
use super::ranges::{Range, bytes};

/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
pub const INET: u8 = 1;
/// Elements of one message: the largest takes 72 bytes, and the list must fit into 64 KiB.
const ELEMENTS_A_MESSAGE: usize = 512;
/// `IFNAMSIZ` (linux/if.h): what a device's name takes in a set.
const DEVICE_LEN: usize = 16;

/// A message of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `NFT_MSG_*`.
    pub kind: u16,
    /// Beside `NLM_F_REQUEST`.
    pub flags: u16,
    /// What it says.
    pub body: Attributes,
}

/// `NFT_MSG_*`.
pub mod kind {
    #![allow(missing_docs)]
    pub const NEW_TABLE: u16 = 0;
    pub const GET_TABLE: u16 = 1;
    pub const DELETE_TABLE: u16 = 2;
    pub const NEW_CHAIN: u16 = 3;
    pub const GET_CHAIN: u16 = 4;
    pub const NEW_RULE: u16 = 6;
    pub const GET_RULE: u16 = 7;
    pub const NEW_SET: u16 = 9;
    pub const GET_SET: u16 = 10;
    pub const NEW_ELEMENTS: u16 = 12;
    pub const GET_ELEMENTS: u16 = 13;
    pub const GET_GENERATION: u16 = 16;
}

/// `NLM_F_CREATE` (linux/netlink.h): make it if it is not there.
const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// `NLM_F_APPEND`: behind those that are there.
const APPEND: u16 = libc::NLM_F_APPEND as u16;

/// What a set's keys, or a map's values, are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// An IPv4 address.
    V4 = 7,
    /// An IPv6 address.
    V6 = 8,
    /// A transport's protocol number.
    Protocol = 12,
    /// A port.
    Port = 13,
    /// A device's name.
    Device = 41,
}

impl Type {
    /// Bytes it takes; in a row of several, multiples of 4.
    fn len(self) -> u32 {
        match self {
            Self::V4 | Self::Protocol | Self::Port => 4,
            Self::V6 | Self::Device => 16,
        }
    }
}

/// An element.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Element {
    key: Vec<u8>,
    value: Vec<u8>,
    /// The first address behind an interval.
    is_end: bool,
}

/// A set, or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    key: Vec<Type>,
    value: Vec<Type>,
    intervals: bool,
    elements: Vec<Element>,
}

impl Set {
    /// Keys alone; each part of a key is padded to 4 bytes.
    pub fn of(name: &str, key: &[Type], keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let elements = keys.into_iter().map(|key| Element { key, value: Vec::new(), is_end: false });
        let elements = elements.collect();
        Self { name: name.to_owned(), key: key.to_vec(), value: Vec::new(), intervals: false, elements }
    }

    /// Device names.
    pub fn devices<'a>(name: &str, devices: impl IntoIterator<Item = &'a String>) -> Self {
        let padded = |device: &String| {
            let mut bytes = device.clone().into_bytes();
            bytes.resize(DEVICE_LEN, 0);
            bytes
        };
        Self::of(name, &[Type::Device], devices.into_iter().map(padded))
    }

    /// Addresses in ranges that do not touch.
    pub fn addresses(name: &str, v4: bool, ranges: &[Range]) -> Self {
        let last = if v4 { u128::from(u32::MAX) } else { u128::MAX };
        let mut elements = Vec::new();
        let mut add = |number, is_end| {
            elements.push(Element { key: bytes(number, v4), value: Vec::new(), is_end });
        };
        // What is below the first is outside: as `nft` says it.
        if ranges.first().is_some_and(|range| range.first > 0) {
            add(0, true);
        }
        for range in ranges {
            add(range.first, false);
            if range.last < last {
                add(range.last + 1, true);
            }
        }
        let key = vec![if v4 { Type::V4 } else { Type::V6 }];
        Self { name: name.to_owned(), key, value: Vec::new(), intervals: true, elements }
    }

    /// Values for keys.
    pub fn map(
        name: &str,
        key: &[Type],
        value: &[Type],
        pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Self {
        let elements = pairs.into_iter().map(|(key, value)| Element { key, value, is_end: false });
        let elements = elements.collect();
        Self { name: name.to_owned(), key: key.to_vec(), value: value.to_vec(), intervals: false, elements }
    }

    fn messages(&self, table: &str, id: u32) -> Vec<Message> {
        // NFT_SET_INTERVAL, NFT_SET_MAP.
        let flags = u32::from(self.intervals) << 2 | u32::from(!self.value.is_empty()) << 3;
        let mut body = Attributes::new().text(1, table).text(2, &self.name).number(3, flags);
        body = body.number(4, number_of(&self.key)).number(5, len_of(&self.key));
        if !self.value.is_empty() {
            body = body.number(6, number_of(&self.value)).number(7, len_of(&self.value));
        }
        body = body.number(10, id);
        if self.key == [Type::Device] {
            // NFTA_SET_USERDATA, for `nft`: the key's byte order (type 0, length 4) is the machine's, or it shows no names.
            body = body.bytes(13, &[&[0, 4][..], &1u32.to_ne_bytes()].concat());
        }
        let mut messages = vec![Message { kind: kind::NEW_SET, flags: CREATE, body }];
        for some in self.elements.chunks(ELEMENTS_A_MESSAGE) {
            let list = some.iter().fold(Attributes::new(), |list, element| list.nested(1, &element.body()));
            let body = Attributes::new().text(1, table).text(2, &self.name).number(4, id).nested(3, &list);
            messages.push(Message { kind: kind::NEW_ELEMENTS, flags: CREATE, body });
        }
        messages
    }
}

impl Element {
    fn body(&self) -> Attributes {
        let data = |bytes: &[u8]| Attributes::new().bytes(1, bytes);
        let mut body = Attributes::new();
        if self.is_end {
            // NFT_SET_ELEM_INTERVAL_END.
            body = body.number(3, 1);
        }
        body = body.nested(1, &data(&self.key));
        if self.value.is_empty() { body } else { body.nested(2, &data(&self.value)) }
    }
}

/// A row of types, as `nft` numbers it: 6 bits each (`TYPE_BITS`).
fn number_of(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, one| number << 6 | *one as u32)
}

fn len_of(types: &[Type]) -> u32 {
    types.iter().map(|one| one.len()).sum()
}

/// Where the kernel calls a chain, and when (`enum nf_inet_hooks`; linux/netfilter_ipv4.h has the priorities).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before connections are tracked: raw, at prerouting.
    Raw,
    /// Destinations are translated, of what comes.
    Prerouting,
    /// The same, of what the machine itself sends.
    Output,
    /// Sources are translated.
    Postrouting,
}

impl Hook {
    fn place(self) -> (&'static str, u32, i32) {
        match self {
            Self::Raw => ("filter", 0, -300),
            Self::Prerouting => ("nat", 0, -100),
            Self::Output => ("nat", 3, -100),
            Self::Postrouting => ("nat", 4, 100),
        }
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// None: others jump to it.
    pub hook: Option<Hook>,
    /// In their order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain.
    pub fn new(name: &str, hook: Option<Hook>, rules: Vec<Rule>) -> Self {
        Self { name: name.to_owned(), hook, rules }
    }

    fn message(&self, table: &str) -> Message {
        let mut body = Attributes::new().text(1, table).text(3, &self.name);
        if let Some((kind, hook, priority)) = self.hook.map(Hook::place) {
            let place = Attributes::new().number(1, hook).number(2, priority as u32);
            body = body.text(7, kind).nested(4, &place);
        }
        Message { kind: kind::NEW_CHAIN, flags: CREATE, body }
    }

    fn rules<'a>(&'a self, table: &'a str) -> impl Iterator<Item = Message> + 'a {
        self.rules.iter().map(move |rule| {
            let body = Attributes::new().text(1, table).text(2, &self.name);
            let body = body.nested(4, rule.expressions());
            Message { kind: kind::NEW_RULE, flags: CREATE | APPEND, body }
        })
    }
}

/// A table of the family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// For whoever lists it.
    pub comment: String,
    /// Its sets and maps.
    pub sets: Vec<Set>,
    /// Its chains; one is before those that jump to it or behind them, as one likes.
    pub chains: Vec<Chain>,
}

impl Table {
    /// What puts it in place of the one of its name, if there is one.
    pub fn replace(&self) -> Vec<Message> {
        let mut messages = Self::remove(&self.name);
        // NFTA_TABLE_USERDATA: a comment is type 0, its length, the text with its zero.
        let text: Vec<u8> = self.comment.bytes().take(126).chain([0]).collect();
        let comment = [&[0, text.len() as u8], &text[..]].concat();
        let body = Attributes::new().text(1, &self.name).number(2, 0).bytes(6, &comment);
        messages.push(Message { kind: kind::NEW_TABLE, flags: CREATE, body });
        for (id, set) in (1..).zip(&self.sets) {
            messages.extend(set.messages(&self.name, id));
        }
        messages.extend(self.chains.iter().map(|chain| chain.message(&self.name)));
        messages.extend(self.chains.iter().flat_map(|chain| chain.rules(&self.name)));
        messages
    }

    /// What takes the table of that name away, be it there or not: what is made first can be deleted.
    pub fn remove(name: &str) -> Vec<Message> {
        let body = || Attributes::new().text(1, name);
        vec![
            Message { kind: kind::NEW_TABLE, flags: CREATE, body: body() },
            Message { kind: kind::DELETE_TABLE, flags: 0, body: body() },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_many_takes_several_messages() {
        let keys = (0..1300u32).map(|n| n.to_be_bytes().to_vec());
        let messages = Set::of("many", &[Type::V4], keys).messages("t", 1);
        assert_eq!(messages.len(), 4);
        assert!(messages.iter().all(|message| message.body.as_bytes().len() < usize::from(u16::MAX)));
    }

    #[test]
    fn a_range_is_its_first_and_what_is_behind_it() {
        let shown = |ranges: &[Range]| {
            let set = Set::addresses("s", true, ranges);
            set.elements.iter().map(|element| (element.key[3], element.is_end)).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[Range { first: 3, last: 5 }]), [(0, true), (3, false), (6, true)]);
        assert_eq!(shown(&[Range { first: 0, last: u128::from(u32::MAX) }]), [(0, false)]);
        assert_eq!(shown(&[]), []);
    }
}
