//! What a flow goes through, and how long each of it may last without a packet.

/// Flag: the originator is the higher end.
pub const ORIGIN_HIGHER: u16 = 1;
/// Flag: both ends of a TCP flow scale their windows.
pub const SCALED: u16 = 2;
/// Flag: the flow was picked up in the middle; its windows are guesses.
pub const PICKED_UP: u16 = 4;
/// Flag: the first FIN came from the higher end.
pub const FIN_HIGHER: u16 = 8;
/// Flag of a dead flow: its owner takes the place back, and no packet may begin a flow there any more.
pub const TAKEN_BACK: u16 = 16;
/// All flags fit so many bits.
const FLAG_BITS: u32 = 9;

macro_rules! stages {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal, $timeout:literal, $half_open:literal;)*) => {
        /// A stage.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Stage {
            /// No flow.
            #[default]
            Dead,
            $($(#[doc = $doc])* $variant,)*
        }

        impl Stage {
            /// All, in order.
            pub const ALL: &[Self] = &[Self::Dead, $(Self::$variant,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { Self::Dead => "dead", $(Self::$variant => $name,)* }
            }

            /// What it is, and why it may last so long.
            pub fn meaning(self) -> &'static str {
                match self { Self::Dead => "no flow", $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// Seconds without a packet after which the flow is forgotten.
            #[inline(always)]
            pub fn timeout_s(self) -> u32 {
                const TIMEOUTS_S: [u32; 32] = {
                    let given = [0, $($timeout,)*];
                    let mut all = [0; 32];
                    let mut i = 0;
                    while i < given.len() { all[i] = given[i]; i += 1; }
                    all
                };
                TIMEOUTS_S[self as usize & 31]
            }

            /// Whether it is not a flow's: nothing passes by it alone.
            #[inline(always)]
            pub fn is_none(self) -> bool {
                self as u8 <= Self::Reply as u8
            }

            /// Whether nobody has answered yet: such a flow makes room for others of its port.
            #[inline(always)]
            pub fn is_half_open(self) -> bool {
                const HALF_OPEN: u32 = {
                    let given = [false, $($half_open,)*];
                    let mut bits = 0;
                    let mut i = 0;
                    while i < given.len() { if given[i] { bits |= 1 << i; } i += 1; }
                    bits
                };
                HALF_OPEN >> (self as u32 & 31) & 1 != 0
            }
        }
    };
}

// Where RFC and Linux (nf_conntrack) differ, the reason says which was taken.
stages! {
    /// Not a flow: the other key of a translated one, which lives and ends with it.
    Reply = "reply", 0, false;
    /// A SYN went out. 120 s, as Linux: a SYN is sent again for up to two minutes (RFC 9293 §3.8.3 wants three,
    /// hosts give up after 127 s).
    SynSent = "syn-sent", 120, true;
    /// SYNs from both ends (RFC 9293 §3.5). 120 s, as one SYN: each is sent again for so long.
    BothSynSent = "simultaneous-open", 120, true;
    /// The SYN was answered. 60 s, as Linux: a SYN ACK is sent again for 63 s.
    SynReceived = "syn-received", 60, true;
    /// Open. A day, as kube-proxy sets it: more than the 2 h 4 min of RFC 5382 REQ-5, less than Linux' five
    /// days, which fill a table with the dead.
    Established = "established", 86_400, false;
    /// One end is done and was not acknowledged yet. 240 s: RFC 5382 REQ-5, transitory.
    FinWait = "fin-wait", 240, false;
    /// One end is done. An hour, as kube-proxy sets it: half-closed streams are in use.
    CloseWait = "close-wait", 3600, false;
    /// Both ends are done. 240 s: RFC 5382 REQ-5, transitory.
    LastAck = "last-ack", 240, false;
    /// Both were acknowledged. 120 s, as Linux: twice the lifetime of a segment (RFC 9293 §3.4.2) with one of
    /// a minute.
    TimeWait = "time-wait", 120, false;
    /// Reset. 10 s, as Linux: for what is still on its way.
    Closed = "closed", 10, false;
    /// One end has spoken. 30 s, as Linux: who is not answered by then asks again.
    UdpOneWay = "udp-one-way", 30, true;
    /// Answered. 120 s: RFC 4787 REQ-5, at least.
    UdpAnswered = "udp-answered", 120, false;
    /// Goes on. 300 s: RFC 4787 REQ-5, recommended.
    UdpStream = "udp-stream", 300, false;
    /// A query. 60 s: RFC 5508 REQ-2, at least.
    Asked = "asked", 60, true;
    /// Answered. 60 s: RFC 5508 REQ-2.
    Answered = "answered", 60, false;
    /// INIT. 30 s: sent again for that long with RFC 9260's timers before most hosts give up.
    SctpInit = "sctp-init", 30, true;
    /// INIT ACK. 30 s, as INIT, which is sent again if this is lost (RFC 9260 §5.1).
    SctpInitAnswered = "sctp-init-answered", 30, true;
    /// COOKIE ECHO. 60 s: the cookie's life (RFC 9260 §16).
    SctpCookie = "sctp-cookie", 60, true;
    /// Open. 210 s, as Linux: seven heartbeats (RFC 9260 §16: one in 30 s) unheard.
    SctpOpen = "sctp-established", 210, false;
    /// Being closed. 30 s: SHUTDOWN is sent again meanwhile.
    SctpShutdown = "sctp-shutdown", 30, false;
    /// Closed or aborted. 10 s, as TCP.
    SctpClosed = "sctp-closed", 10, false;
    /// Another protocol, one end has spoken. 30 s, as UDP.
    OneWay = "one-way", 30, true;
    /// Another protocol, both ends. 600 s, as Linux' generic timeout: nothing is known of its pauses.
    BothWays = "both-ways", 600, false;
}

/// Where a packed state has its stage.
pub(super) const STAGE_MASK: u32 = 31;

/// Half a word: stage 5 bits, port 10, two scales of 4, flags 9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How far.
    pub stage: Stage,
    /// The port whose packet made the flow, and which pays for it.
    pub port: u16,
    /// Window scales by side, 4 bits each, lower end low.
    pub scales: u8,
    /// See the constants.
    pub flags: u16,
}

const _: () = assert!(5 + 10 + 8 + FLAG_BITS == 32);
const _: () = assert!(crate::table::fdb::PORTS_NAMED == 1 << 10);

impl State {
    /// No flow.
    pub const DEAD: Self = Self { stage: Stage::Dead, port: 0, scales: 0, flags: 0 };

    /// In half a word.
    #[inline(always)]
    pub fn pack(self) -> u32 {
        self.stage as u32
            | u32::from(self.port) << 5
            | u32::from(self.scales) << 15
            | u32::from(self.flags) << 23
    }

    /// The reverse.
    #[inline(always)]
    pub fn unpack(word: u32) -> Self {
        let stage = Stage::ALL.get((word & STAGE_MASK) as usize).copied().unwrap_or_default();
        Self {
            stage,
            port: (word >> 5) as u16 & 0x3ff,
            scales: (word >> 15) as u8,
            flags: (word >> 23) as u16,
        }
    }

    /// The side of the originator.
    #[inline(always)]
    pub fn origin(self) -> u8 {
        u8::from(self.flags & ORIGIN_HIGHER != 0)
    }

    pub(super) fn set_origin(&mut self, side: u8) {
        self.flags = self.flags & !ORIGIN_HIGHER | if side == 1 { ORIGIN_HIGHER } else { 0 };
    }

    /// The shift of a side's window, in bits.
    #[inline(always)]
    pub fn scale(self, side: u8) -> u8 {
        if self.flags & SCALED != 0 { self.scales >> (side * 4) & 0xf } else { 0 }
    }

    /// The same, of which nothing is left, and where no flow may begin.
    pub(super) fn freed(self) -> Self {
        Self { stage: Stage::Dead, flags: self.flags | TAKEN_BACK, ..self }
    }

    /// The same at another stage.
    #[inline(always)]
    pub(super) fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/flows.md");
    const TABLE: &str =
        "| state | forgotten after | makes room first | what it is, and why so long |\n|---|---|---|---|\n";

    fn flows() -> impl Iterator<Item = Stage> {
        Stage::ALL.iter().copied().filter(|stage| !stage.is_none())
    }

    /// Each timeout has its reason beside it, not only its number.
    #[test]
    fn every_timeout_has_its_reason() {
        for stage in flows() {
            let (meaning, seconds) = (stage.meaning(), stage.timeout_s());
            let told = match seconds {
                86_400 => "A day".to_owned(),
                3600 => "An hour".to_owned(),
                seconds => format!("{seconds} s"),
            };
            let (_, reason) = meaning.split_once(&told).unwrap_or_else(|| panic!("{stage:?}: {meaning}"));
            assert!(reason.len() > 5, "{stage:?} has no reason: {meaning}");
        }
    }

    /// `UPDATE_GUIDE=1 cargo test guide` writes the table anew.
    #[test]
    fn the_guide_has_every_state() {
        let text = std::fs::read_to_string(GUIDE).unwrap();
        let (words, _) = text.split_once(TABLE).unwrap();
        let row = |stage: Stage| {
            let first = if stage.is_half_open() { "yes" } else { "" };
            let meaning = stage.meaning().split_whitespace().collect::<Vec<_>>().join(" ");
            format!("| `{}` | {} s | {first} | {meaning} |\n", stage.name(), stage.timeout_s())
        };
        let wanted = format!("{words}{TABLE}{}", flows().map(row).collect::<String>());
        if std::env::var_os("UPDATE_GUIDE").is_some() {
            std::fs::write(GUIDE, &wanted).unwrap();
        }
        assert!(
            text == wanted,
            "docs/guide/flows.md is not what the code says: UPDATE_GUIDE=1 cargo test guide"
        );
    }
}
