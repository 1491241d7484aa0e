//! Next-hop objects of the kernel (linux/nexthop.h, since 5.3), which routes may name by number instead of saying
//! where they lead. FRR writes such routes. Read by hand: the netlink crates do not know them.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// struct nlmsghdr, struct nhmsg, struct nexthop_grp.
const HEADER_LEN: usize = 16;
const BODY_LEN: usize = 8;
const MEMBER_LEN: usize = 8;

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The device's index.
    pub device: u32,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// Its share.
    pub weight: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Object {
    Way(Way),
    Blackhole,
    /// Numbers and shares.
    Group(Vec<(u32, u16)>),
}

/// All of them, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nexthops(BTreeMap<u32, Object>);

impl Nexthops {
    /// The ways that `id` stands for; none of them: a blackhole. `None`: there is no such object.
    pub fn resolve(&self, id: u32) -> Option<Vec<Way>> {
        match self.0.get(&id)? {
            Object::Blackhole => Some(Vec::new()),
            Object::Way(way) => Some(vec![*way]),
            // Groups have no groups in them (Documentation of ip-nexthop(8)).
            Object::Group(members) => Some(
                members
                    .iter()
                    .filter_map(|(id, weight)| match self.0.get(id)? {
                        Object::Way(way) => Some(Way { weight: *weight, ..*way }),
                        _ => None,
                    })
                    .collect(),
            ),
        }
    }

    /// Reads a datagram of answers; whether it was the last one.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while bytes.len() >= HEADER_LEN {
            let len = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            let Some(message) = bytes.get(HEADER_LEN..len) else { break };
            match u16::from_ne_bytes([bytes[4], bytes[5]]) {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let code = message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(-code));
                }
                RTM_NEWNEXTHOP => self.0.extend(read(message)),
                _ => {}
            }
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// Asks for all of them; none where that fails.
pub fn all_or_none() -> Nexthops {
    all().unwrap_or_default()
}

/// Asks for all of them.
fn all() -> io::Result<Nexthops> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut request = Vec::with_capacity(HEADER_LEN + BODY_LEN);
    request.extend(((HEADER_LEN + BODY_LEN) as u32).to_ne_bytes());
    request.extend(RTM_GETNEXTHOP.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend([0; 8 + BODY_LEN]);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut found = Nexthops::default();
    while !found.take(&socket.recv_from_full()?.0)? {}
    Ok(found)
}

fn read(message: &[u8]) -> Option<(u32, Object)> {
    let word = |value: &[u8]| value.first_chunk().map(|word| u32::from_ne_bytes(*word));
    let (mut id, mut object, mut way) = (None, None, Way { device: 0, gateway: None, weight: 1 });
    for attribute in NlasIterator::new(message.get(BODY_LEN..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            NHA_ID => id = word(value),
            NHA_BLACKHOLE => object = Some(Object::Blackhole),
            NHA_OIF => way.device = word(value)?,
            NHA_GATEWAY => {
                way.gateway = match value.len() {
                    4 => value.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
                    _ => value.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
                }
            }
            // The weight less one, in two bytes since 6.12.
            NHA_GROUP => {
                let member = |member: &[u8]| {
                    Some((word(member)?, u16::from_le_bytes([member[4], member[5]]).saturating_add(1)))
                };
                object = Some(Object::Group(value.chunks_exact(MEMBER_LEN).filter_map(member).collect()));
            }
            _ => {}
        }
    }
    Some((id?, object.unwrap_or(Object::Way(way))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn groups_resolve_to_their_members() {
        let way = |device| Way { device, gateway: Some([192, 0, 2, device as u8].into()), weight: 1 };
        let objects = [
            (1, Object::Way(way(1))),
            (2, Object::Way(way(2))),
            (3, Object::Blackhole),
            (4, Object::Group(vec![(1, 3), (2, 1), (9, 1)])),
        ];
        let nexthops = Nexthops(objects.into_iter().collect());
        assert_eq!(nexthops.resolve(1), Some(vec![way(1)]));
        assert_eq!(nexthops.resolve(3), Some(vec![]));
        assert_eq!(nexthops.resolve(4), Some(vec![Way { weight: 3, ..way(1) }, way(2)]));
        assert_eq!(nexthops.resolve(7), None);
    }

    proptest! {
        #[test]
        fn arbitrary_answers_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = Nexthops::default().take(&bytes);
            let mut framed = ((bytes.len() + HEADER_LEN) as u32).to_ne_bytes().to_vec();
            framed.extend(RTM_NEWNEXTHOP.to_ne_bytes());
            framed.extend([0; 10]);
            framed.extend(&bytes);
            _ = Nexthops::default().take(&framed);
        }
    }
}
