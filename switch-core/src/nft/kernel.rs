//! To the kernel and back: a transaction, the number of the ruleset in force, and a mark by which a table is known again.
//! Protocol: linux/netfilter/nfnetlink.h; how the kernel takes a batch: net/netfilter/nfnetlink.c, `nfnetlink_rcv_batch`.

use super::attribute::{Attributes, read};
use super::expression::Family;
use super::table::{INET, Message, Table, kind};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::set_socket_send_buffer_size_force;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::io;

/// `NFNL_SUBSYS_NFTABLES`: the high byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFNL_SUBSYS_CTNETLINK`, its `IPCTNL_MSG_CT_DELETE`, and `CTA_FILTER` (linux/netfilter/nfnetlink_conntrack.h).
const CONNTRACK: u16 = 1;
const DELETE_FLOWS: u16 = 2;
const CTA_FILTER: u16 = 25;
/// Parts of a tuple that count (`enum ctattr_filter_flags` in net/netfilter/nf_internals.h).
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_TO_PORT: u32 = 1 << 5;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_BATCH_GENID`: the batch is refused (ERESTART) unless the ruleset in force has this number.
const BATCH_GENERATION: u16 = 1;
/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
const ELEMENTS: u16 = 3;
/// Bytes of `struct nlmsghdr` and of `struct nfgenmsg` behind it.
const HEAD_LEN: usize = 16;
const GENERAL_LEN: usize = 4;
/// Bytes of the largest transaction: 1 024 published ports and all else of 512 ports take 400 KiB.
const TRANSACTION_BYTES: usize = 1 << 20;
/// Somebody else changes the ruleset at the same time; so often we begin anew. kube-proxy, the busiest, does so once a second.
const ATTEMPTS: u32 = 8;
/// `ERESTART` (include/linux/errno.h): the kernel's own, which rarely leaves it.
const ERESTART: i32 = 85;

/// A connection to the kernel's nf_tables, in the namespace it was opened in.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    sequence: u32,
}

/// By what a table is known again: its content, as the kernel tells it, and when that was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The number of the ruleset. Any change of any table makes another.
    pub generation: u32,
    /// Of what the kernel tells of the table, handles included; none: it is not there.
    content: Option<u64>,
}

impl Mark {
    /// Whether the table is as it was then.
    pub fn is_same(&self, other: &Self) -> bool {
        self.content == other.content
    }

    /// Whether there is no such table.
    pub fn is_gone(&self) -> bool {
        self.content.is_none()
    }
}

/// What was received.
struct Reply<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Kernel {
    /// Opens one. It is never waited on: the kernel answers within the call that asks.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Without CAP_NET_ADMIN in the first user namespace it stays as it is, enough for some hundred ports.
        _ = set_socket_send_buffer_size_force(&socket, TRANSACTION_BYTES);
        Ok(Self { socket, sequence: 0 })
    }

    /// The number of the ruleset in force.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut found = None;
        self.ask(kind::GET_GENERATION, 0, libc::AF_UNSPEC as u8, &Attributes::new(), |body| {
            let id = read(body).find(|(kind, _)| *kind == 1).map(|(_, value)| value);
            found = id.and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)));
        })?;
        found.ok_or_else(|| io::Error::other("the kernel did not tell the number of its ruleset"))
    }

    /// Puts `table` in place of the one of its name; the number that the ruleset has with it.
    pub fn put(&mut self, table: &Table) -> io::Result<u32> {
        self.change(&table.replace())
    }

    /// The same, and reads it again: its mark. That takes several times as long.
    pub fn put_and_mark(&mut self, table: &Table) -> io::Result<Mark> {
        for _ in 0..ATTEMPTS {
            let (generation, mark) = (self.put(table)?, self.mark(table)?);
            // Else somebody was faster, and may have changed what we are to know again.
            if mark.generation == generation {
                return Ok(mark);
            }
        }
        Err(all_the_time())
    }

    /// Takes the table of that name away; that there is none is no error.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(&Table::remove(name)).map(drop)
    }

    /// A transaction, begun anew when another was faster; the number that the ruleset has with it.
    fn change(&mut self, messages: &[Message]) -> io::Result<u32> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            match self.commit(before, messages) {
                Err(error) if is_overtaken(&error) => {}
                outcome => return outcome.map(|()| next_generation(before)),
            }
        }
        Err(all_the_time())
    }

    /// The mark of the table as the kernel has it now.
    pub fn mark(&mut self, table: &Table) -> io::Result<Mark> {
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let content = match self.content(table) {
                Ok(content) => Some(content),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
                Err(error) if is_overtaken(&error) => continue,
                Err(error) => return Err(error),
            };
            if self.generation()? == generation {
                return Ok(Mark { generation, content });
            }
        }
        Err(all_the_time())
    }

    /// All that the kernel tells of the table, in one number.
    fn content(&mut self, table: &Table) -> io::Result<u64> {
        let mut hasher = DefaultHasher::new();
        let dump = libc::NLM_F_DUMP as u16;
        let of = |kind: u16, name: &str| Attributes::new().text(1, &table.name).text(kind, name);
        let whole = Attributes::new().text(1, &table.name);
        self.ask(kind::GET_TABLE, 0, INET, &whole, |body| hasher.write(body))?;
        for chain in &table.chains {
            self.ask(kind::GET_CHAIN, 0, INET, &of(3, &chain.name), |body| hasher.write(body))?;
        }
        self.ask(kind::GET_RULE, dump, INET, &whole, |body| hasher.write(body))?;
        for set in &table.sets {
            self.ask(kind::GET_SET, 0, INET, &of(2, &set.name), |body| hasher.write(body))?;
            // A hash table's order is its own affair.
            let mut elements = Vec::new();
            self.ask(kind::GET_ELEMENTS, dump, INET, &of(2, &set.name), |body| {
                let lists = read(body).filter(|(kind, _)| *kind == ELEMENTS);
                elements.extend(lists.flat_map(|(_, list)| read(list).map(|(_, one)| one.to_vec())));
            })?;
            elements.sort();
            elements.iter().for_each(|element| hasher.write(element));
        }
        Ok(hasher.finish())
    }

    /// All of it, or nothing.
    fn commit(&mut self, generation: u32, messages: &[Message]) -> io::Result<()> {
        let begin = self.next();
        let mut batch = Vec::new();
        let number = Attributes::new().number(BATCH_GENERATION, generation);
        append(&mut batch, BATCH_BEGIN, 0, begin, 0, SUBSYSTEM, &number);
        for (i, message) in messages.iter().enumerate() {
            // Acknowledged in order, errors before: the last one's answer is the end.
            let acknowledged = if i + 1 == messages.len() { libc::NLM_F_ACK as u16 } else { 0 };
            let (kind, flags) = (SUBSYSTEM << 8 | message.kind, message.flags | acknowledged);
            append(&mut batch, kind, flags, self.next(), INET, 0, &message.body);
        }
        let last = self.sequence;
        append(&mut batch, BATCH_END, 0, self.next(), 0, SUBSYSTEM, &Attributes::new());
        self.socket.send_to(&batch, &SocketAddr::new(0, 0), 0)?;
        let mut first = None;
        loop {
            let bytes = self.receive()?;
            for reply in replies(&bytes).filter(|reply| (begin..=last).contains(&reply.sequence)) {
                let Some(outcome) = outcome(&reply) else { continue };
                if let Err(error) = outcome {
                    first.get_or_insert(error);
                }
                // What is wrong with the batch as a whole is said of its beginning.
                if reply.sequence == last || reply.sequence == begin {
                    return first.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Has the kernel forget flows to a port: it judges their next packet as a first one. An older Linux
    /// refuses (EOPNOTSUPP; 6.8 does): it deletes one flow at a time, or all.
    pub fn forget_flows(&mut self, family: Family, protocol: u8, port: u16) -> io::Result<()> {
        // CTA_TUPLE_ORIG of CTA_TUPLE_PROTO: CTA_PROTO_NUM, CTA_PROTO_DST_PORT; of these both count (CTA_FILTER_ORIG_FLAGS).
        let transport = Attributes::new().bytes(1, &[protocol]).bytes(3, &port.to_be_bytes());
        let counts = Attributes::new().bytes(1, &(FILTER_PROTOCOL | FILTER_TO_PORT).to_ne_bytes());
        let tuple = Attributes::new().nested(2, &transport);
        let body = Attributes::new().nested(1, &tuple).nested(CTA_FILTER, &counts);
        // AF_INET and AF_INET6 are NFPROTO_IPV4 and NFPROTO_IPV6.
        let acknowledged = libc::NLM_F_ACK as u16;
        self.ask_of(CONNTRACK << 8 | DELETE_FLOWS, acknowledged, family.number(), &body, |_| {})
    }

    /// Asks nf_tables for one thing, or for all of a kind with `NLM_F_DUMP`; `take` is given each.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        body: &Attributes,
        take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.ask_of(SUBSYSTEM << 8 | kind, flags, family, body, take)
    }

    fn ask_of(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        body: &Attributes,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let (sequence, is_dump) = (self.next(), flags & libc::NLM_F_DUMP as u16 != 0);
        let mut message = Vec::new();
        append(&mut message, kind, flags, sequence, family, 0, body);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        loop {
            let bytes = self.receive()?;
            for reply in replies(&bytes).filter(|reply| reply.sequence == sequence) {
                if reply.flags & libc::NLM_F_DUMP_INTR as u16 != 0 {
                    return Err(io::Error::from_raw_os_error(ERESTART));
                }
                if reply.kind == libc::NLMSG_DONE as u16 {
                    return Ok(());
                }
                if let Some(outcome) = outcome(&reply) {
                    return outcome;
                }
                take(reply.body.get(GENERAL_LEN..).unwrap_or_default());
                if !is_dump {
                    return Ok(());
                }
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        self.socket.recv_from_full().map(|(bytes, _)| bytes)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// The number after this one; 0 is none (`nf_tables_commit`, net/netfilter/nf_tables_api.c).
fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

fn all_the_time() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "others change the ruleset all the time")
}

/// The ruleset was changed by somebody else meanwhile.
fn is_overtaken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ERESTART | libc::EINTR))
}

/// Appends a message: `struct nlmsghdr`, `struct nfgenmsg` (family, version 0, resource in network byte order), attributes.
fn append(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    body: &Attributes,
) {
    let len = (HEAD_LEN + GENERAL_LEN + body.as_bytes().len()) as u32;
    to.extend(len.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    to.extend(sequence.to_ne_bytes());
    to.extend([0; 4]);
    to.extend([family, 0]);
    to.extend(resource.to_be_bytes());
    to.extend(body.as_bytes());
}

/// The messages of what was received, up to the first that does not fit.
fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let len = word(0)? as usize;
        let (kind, flags, sequence) = (half(4)?, half(6)?, word(8)?);
        let body = bytes.get(HEAD_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Reply { kind, flags, sequence, body })
    })
}

/// What an acknowledgement (`struct nlmsgerr`) says; none if it is none.
fn outcome(reply: &Reply) -> Option<io::Result<()>> {
    if reply.kind != libc::NLMSG_ERROR as u16 {
        return None;
    }
    let code = i32::from_ne_bytes(reply.body.get(..4)?.try_into().ok()?);
    Some(if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) })
}
