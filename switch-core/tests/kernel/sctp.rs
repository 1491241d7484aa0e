//! SCTP made by hand: the kernels of tests have none.

/// CRC32c (RFC 9260 appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// An SCTP INIT (RFC 9260 §3.3.2), its CRC right.
fn init(mark: u8) -> Vec<u8> {
    let mut packet = vec![0x30, 0x39, 0x30, 0x3a, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend([1, 0, 0, 28, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, mark, 0, 0, 0, 0, 0, 0, 0, 0]);
    let crc = crc32c(&packet);
    packet[8..12].copy_from_slice(&crc.to_le_bytes());
    packet
}

/// It over IPv4.
pub fn sctp(to: switch_api::Mac, from: switch_api::Mac, mark: u8) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x08, 0x00]].concat();
    frame.extend([0x45, 0, 0, 60, 0, mark, 0x40, 0, 64, 132, 0, 0, 10, 66, 0, 1, 10, 66, 0, 2]);
    [frame, init(mark)].concat()
}

/// It over IPv6.
pub fn sctp6(to: switch_api::Mac, from: switch_api::Mac, mark: u8) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 132, 64]].concat();
    for n in [1, 2] {
        frame.extend([0xfd, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]);
    }
    [frame, init(mark)].concat()
}
