//! What a rule is made of: expressions, which load into registers, compare, look up and decide, one after the other; the first
//! comparison that fails ends the rule. Numbers are those of linux/netfilter/nf_tables.h.

use super::attribute::Attributes;

/// Registers of 4 bytes (`NFT_REG32_00` …); a wider value takes those that follow.
pub const REG: u32 = 8;
/// The verdict's register (`NFT_REG_VERDICT`).
const VERDICT: u32 = 0;

const NF_DROP: i32 = 0;
const NFT_JUMP: i32 = -3;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` (linux/netfilter/nf_nat.h): ports that nobody can guess, and no two flows that wait for each other's.
const RANDOM_FULLY: u32 = 1 << 4;

/// What a packet is known by beside its bytes (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The name of the device it came by, 16 bytes.
    InDevice = 6,
    /// The name of the device it leaves by, 16 bytes.
    OutDevice = 7,
    /// IPv4 or IPv6: [`Family::number`], 1 byte.
    Family = 15,
    /// The transport's protocol number (IANA), 1 byte.
    Protocol = 16,
}

/// An IP version, as netfilter has it (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4 = 2,
    /// IPv6.
    V6 = 10,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Bytes of an address.
    pub fn address_len(self) -> u32 {
        if self == Self::V4 { 4 } else { 16 }
    }

    /// Where the source address is in the header: RFC 791 §3.1, RFC 8200 §3.
    fn source_at(self) -> u32 {
        if self == Self::V4 { 12 } else { 8 }
    }
}

/// A rule's expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule(Attributes);

impl Rule {
    /// One that says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `NFTA_LIST_ELEM` of `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
    fn with(self, name: &str, data: &Attributes) -> Self {
        Self(self.0.nested(1, &Attributes::new().text(1, name).nested(2, data)))
    }

    /// Loads what is known of the packet: `NFTA_META_KEY`, `NFTA_META_DREG`.
    #[must_use]
    pub fn meta(self, key: Meta, register: u32) -> Self {
        self.with("meta", &Attributes::new().number(2, key as u32).number(1, register))
    }

    /// Loads `len` bytes at `offset` of the network header (1) or the transport header (2).
    fn payload(self, base: u32, offset: u32, len: u32, register: u32) -> Self {
        let data = Attributes::new().number(1, register).number(2, base).number(3, offset).number(4, len);
        self.with("payload", &data)
    }

    /// Loads the source address.
    #[must_use]
    pub fn source(self, family: Family, register: u32) -> Self {
        self.payload(1, family.source_at(), family.address_len(), register)
    }

    /// Loads the destination address.
    #[must_use]
    pub fn destination(self, family: Family, register: u32) -> Self {
        self.payload(1, family.source_at() + family.address_len(), family.address_len(), register)
    }

    /// Goes on with IPv4 from 127.0.0.0/8.
    #[must_use]
    pub fn from_loopback(self) -> Self {
        self.family(Family::V4).payload(1, Family::V4.source_at(), 1, REG).is(REG, &[127])
    }

    /// Goes on with IPv4 to 127.0.0.0/8.
    #[must_use]
    pub fn to_loopback(self) -> Self {
        let at = Family::V4.source_at() + Family::V4.address_len();
        self.family(Family::V4).payload(1, at, 1, REG).is(REG, &[127])
    }

    /// Loads the destination port of TCP, UDP or SCTP: each has it behind the source port.
    #[must_use]
    pub fn destination_port(self, register: u32) -> Self {
        self.payload(2, 2, 2, register)
    }

    /// Goes on if the register is (`NFT_CMP_EQ`) that.
    #[must_use]
    pub fn is(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, 0, value)
    }

    fn compare(self, register: u32, how: u32, value: &[u8]) -> Self {
        let value = Attributes::new().bytes(1, value);
        self.with("cmp", &Attributes::new().number(1, register).number(2, how).nested(3, &value))
    }

    /// Goes on with packets of that IP version.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        self.meta(Meta::Family, REG).is(REG, &[family.number()])
    }

    /// Goes on if the flow has its destination translated: `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h) of the
    /// status (`NFT_CT_STATUS`), which is in the machine's byte order.
    #[must_use]
    pub fn is_translated(self) -> Self {
        let mask = Attributes::new().bytes(1, &(1u32 << 5).to_ne_bytes());
        let none = Attributes::new().bytes(1, &[0; 4]);
        let bits =
            Attributes::new().number(1, REG).number(2, REG).number(3, 4).nested(4, &mask).nested(5, &none);
        self.with("ct", &Attributes::new().number(2, 2).number(1, REG))
            .with("bitwise", &bits)
            .compare(REG, 1, &[0; 4])
    }

    /// Goes on if the destination is an address of this machine: `NFT_FIB_RESULT_ADDRTYPE` by `NFTA_FIB_F_DADDR` is `RTN_LOCAL`,
    /// in the machine's byte order.
    #[must_use]
    pub fn to_this_machine(self) -> Self {
        self.with("fib", &Attributes::new().number(3, 1 << 1).number(2, 3).number(1, REG))
            .is(REG, &2u32.to_ne_bytes())
    }

    /// Goes on if what the register holds is in the set.
    #[must_use]
    pub fn is_in(self, set: &str, register: u32) -> Self {
        self.with("lookup", &Attributes::new().number(2, register).text(1, set))
    }

    /// Goes on if what the register holds is not in the set (`NFT_LOOKUP_F_INV`).
    #[must_use]
    pub fn is_not_in(self, set: &str, register: u32) -> Self {
        self.with("lookup", &Attributes::new().number(2, register).text(1, set).number(5, 1))
    }

    /// Goes on if the map has what the register holds, and puts what it has for it there.
    #[must_use]
    pub fn mapped(self, map: &str, register: u32) -> Self {
        self.with("lookup", &Attributes::new().number(2, register).number(3, register).text(1, map))
    }

    /// Translates the destination (`NFT_NAT_DNAT`) to the address in `address` and the port in `port`.
    #[must_use]
    pub fn translate(self, family: Family, address: u32, port: u32) -> Self {
        let data = Attributes::new().number(1, 1).number(2, family.number().into());
        self.with("nat", &data.number(3, address).number(5, port))
    }

    /// Translates the source to an address of the device that the packet leaves by.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.with("masq", &Attributes::new().number(1, RANDOM_FULLY))
    }

    /// Drops it.
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(NF_DROP, None)
    }

    /// Goes on in another chain of the table, and comes back.
    #[must_use]
    pub fn jump(self, chain: &str) -> Self {
        self.verdict(NFT_JUMP, Some(chain))
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let verdict = Attributes::new().number(1, code as u32);
        let verdict = chain.into_iter().fold(verdict, |verdict, chain| verdict.text(2, chain));
        let data = Attributes::new().nested(2, &verdict);
        self.with("immediate", &Attributes::new().number(1, VERDICT).nested(2, &data))
    }

    /// What `NFTA_RULE_EXPRESSIONS` holds.
    pub fn expressions(&self) -> &Attributes {
        &self.0
    }
}
