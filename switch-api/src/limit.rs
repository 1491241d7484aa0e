//! How fast a port may send and be sent.

use serde::{Deserialize, Serialize};

/// A rate and what may come at once above it (a token bucket as in RFC 2697, with one rate).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Packets or bytes a second. 1 to [`LIMIT_MAX`].
    pub per_s: u64,
    /// How many may come at once after a rest. None: a quarter of a second's worth ([`BURST_MS`]), and no less than one superframe. 1 to [`LIMIT_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// The largest rate and burst: 8 Tbit/s. So that what a second fills fits into 128 bits with billionths.
pub const LIMIT_MAX: u64 = 1_000_000_000_000;
/// A burst that is not said is what the rate gives in so many milliseconds. A TCP sender that loses the end of what it sent is
/// silent for at least 200 ms (Linux's shortest retransmission timeout, `TCP_RTO_MIN`; RFC 6298 would have a second): a bucket
/// that is full before that throws the rest of that time away, and one connection gets no more than `burst / 200 ms` of its rate.
pub const BURST_MS: u64 = 250;
/// Bytes of the longest superframe, which a burst of bytes has room for unless it is said to have none.
const SUPERFRAME_BYTES: u64 = 64 * 1024;
/// Packets of 1 500 bytes that are in one.
const SUPERFRAME_PACKETS: u64 = 45;

impl Limit {
    /// What the rate gives in [`BURST_MS`].
    fn worth(self) -> u64 {
        (u128::from(self.per_s) * u128::from(BURST_MS) / 1000) as u64
    }

    /// The burst of a limit of bytes.
    pub fn burst_bytes(self) -> u64 {
        self.burst.unwrap_or_else(|| self.worth().max(SUPERFRAME_BYTES))
    }

    /// The burst of a limit of packets.
    pub fn burst_packets(self) -> u64 {
        self.burst.unwrap_or_else(|| self.worth().max(SUPERFRAME_PACKETS))
    }
}

/// The limits of a port. What is above is dropped, and of connections those that would be new. A superframe counts as the segments that it stands for; bytes are
/// those on the wire from the destination MAC on, without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortLimits {
    /// Packets that come in by the port: what a pod sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_packets: Option<Limit>,
    /// Bytes of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<Limit>,
    /// Packets that leave by the port: what a pod is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_packets: Option<Limit>,
    /// Bytes of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<Limit>,
    /// Flows that began at the port and are not over, at most: connections of TCP and SCTP, and what speaks with each other over other
    /// protocols. 1 or more. Those that it has when it gets the limit stay (and are not counted if nobody kept flows before). What is translated counts once, as all else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
}

impl PortLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Each rate, by its field's name.
    pub fn each(&self) -> [(&'static str, Option<Limit>); 4] {
        [
            ("rx_packets", self.rx_packets),
            ("rx_bytes", self.rx_bytes),
            ("tx_packets", self.tx_packets),
            ("tx_bytes", self.tx_bytes),
        ]
    }
}
