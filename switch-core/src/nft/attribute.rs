//! Netlink's attributes (netlink(7), `struct nlattr`): 16 bits of length, 16 of type, the value, padded to 4 bytes. nf_tables has
//! its numbers in network byte order, the head of an attribute is in the machine's.

/// An attribute with attributes in it (`NLA_F_NESTED`, linux/netlink.h).
const NESTED: u16 = 1 << 15;
/// The bits of a type that are its number (`NLA_TYPE_MASK`).
const NUMBER: u16 = 0x3fff;
/// Bytes of the head.
const HEAD_LEN: usize = 4;
/// Attributes begin at multiples of this (`NLA_ALIGNTO`).
const ALIGN: usize = 4;

/// Attributes, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes; at most 65 531, which is all that the length can say.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let len = HEAD_LEN + value.len();
        debug_assert!(len <= usize::from(u16::MAX), "attribute {kind} is too long");
        self.0.extend((len as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
        self
    }

    /// Appends a text, with the zero that ends it in C.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let bytes: Vec<u8> = value.bytes().chain([0]).collect();
        self.bytes(kind, &bytes)
    }

    /// Appends a number, in network byte order.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends attributes.
    #[must_use]
    pub fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// As they are sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads attributes: number and value of each, up to the first that does not fit.
pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..HEAD_LEN)?.try_into().ok()?) & NUMBER;
        let value = bytes.get(HEAD_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn they_look_as_the_kernel_wants_them() {
        let inner = Attributes::new().text(2, "abc");
        let all = Attributes::new().number(1, 0x0102_0304).nested(3, &inner).bytes(4, &[9]);
        let le = |n: u16| n.to_ne_bytes();
        let [a, b, c, d] = [le(8), le(1), le(12), le(3 | NESTED)];
        let [e, f, g, h] = [le(8), le(2), le(5), le(4)];
        let expected = [&a[..], &b, &[1, 2, 3, 4], &c, &d, &e, &f, b"abc\0", &g, &h, &[9, 0, 0, 0]].concat();
        assert_eq!(all.as_bytes(), expected);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all: Vec<(u8, Vec<u8>)>) {
            let written = all.iter().fold(Attributes::new(), |list, (kind, value)| list.bytes((*kind).into(), value));
            let read: Vec<_> = read(written.as_bytes()).map(|(kind, value)| (kind as u8, value.to_vec())).collect();
            prop_assert_eq!(read, all);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            prop_assert!(read(&bytes).count() <= bytes.len());
        }
    }
}
