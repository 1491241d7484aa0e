//! Classic BPF, as tcpdump compiles filters to (McCanne and Jacobson 1993; the instructions are those of Linux's
//! `linux/bpf_common.h`): checked once, then run on packets. Every jump goes forward and every word read lies in the
//! packet or ends the program with *no*, so a program ends after at most as many steps as it has instructions.

/// Longest program. A filter over a hundred hosts has some 400 instructions; on a worker each costs time.
pub const INSTRUCTIONS_MAX: usize = 1024;
const MEMORY_WORDS: usize = 16;

/// One instruction: code, jump if true, jump if false, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Why a program is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too long or empty.
    #[error("a filter has 1 to {INSTRUCTIONS_MAX} instructions, not {0}")]
    Length(usize),
    /// No such instruction.
    #[error("instruction {0} has the unknown code {1:#06x}")]
    Code(usize, u16),
    /// A jump out of the program.
    #[error("instruction {0} jumps out of the program")]
    Jump(usize),
    /// An operand that makes no sense: a division by 0, a shift by 32 or more, a memory word above 15.
    #[error("instruction {0} has an impossible operand")]
    Operand(usize),
    /// It does not end.
    #[error("the last instruction is no return")]
    End,
}

// Classes, and what is within them.
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;
/// In a code: the operand is X.
const BY_X: u16 = 8;
/// Modes of a load.
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
/// Four times the low half of a byte: an IPv4 header's length.
const MSH: u16 = 0xa0;

/// A program that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Box<[Instruction]>);

impl Program {
    /// Checks.
    pub fn new(instructions: &[Instruction]) -> Result<Self, Refused> {
        let len = instructions.len();
        if len == 0 || len > INSTRUCTIONS_MAX {
            return Err(Refused::Length(len));
        }
        for (at, instruction) in instructions.iter().enumerate() {
            check(at, instruction, len)?;
        }
        match instructions.last() {
            Some(last) if last.code & 7 == RET => Ok(Self(instructions.into())),
            _ => Err(Refused::End),
        }
    }

    /// Whether it accepts a packet of which `packet` is there, and which was `len` bytes long.
    pub fn accepts(&self, packet: &[u8], len: usize) -> bool {
        self.run(packet, len as u32).is_some_and(|accepted| accepted > 0)
    }

    /// None if it read beyond the packet.
    fn run(&self, packet: &[u8], len: u32) -> Option<u32> {
        let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; MEMORY_WORDS], 0);
        loop {
            let Instruction { code, jt, jf, k } = *self.0.get(at)?;
            at += 1;
            match code & 7 {
                LD => {
                    a = match code & 0xe0 {
                        IMM => k,
                        ABS => load(packet, k, code)?,
                        IND => load(packet, x.checked_add(k)?, code)?,
                        MEM => memory[k as usize % MEMORY_WORDS],
                        _ => len,
                    };
                }
                LDX => {
                    x = match code & 0xe0 {
                        IMM => k,
                        MEM => memory[k as usize % MEMORY_WORDS],
                        MSH => u32::from(packet.get(k as usize)? & 0xf) * 4,
                        _ => len,
                    };
                }
                ST => memory[k as usize % MEMORY_WORDS] = a,
                STX => memory[k as usize % MEMORY_WORDS] = x,
                ALU => a = compute(code, a, if code & BY_X == 0 { k } else { x })?,
                JMP if code & 0xf0 == 0 => at += k as usize,
                JMP => {
                    let holds = compare(code, a, if code & BY_X == 0 { k } else { x });
                    at += usize::from(if holds { jt } else { jf });
                }
                RET => return Some(if code & 0x18 == 0x10 { a } else { k }),
                _ if code & 0x80 == 0 => x = a,
                _ => a = x,
            }
        }
    }
}

fn check(at: usize, instruction: &Instruction, len: usize) -> Result<(), Refused> {
    let Instruction { code, jt, jf, k } = *instruction;
    let known = match code & 7 {
        // Words, half words and bytes of the packet; the others are words.
        LD => matches!(code & !0x18, ABS | IND) && code & 0x18 != 0x18 || matches!(code, IMM | MEM | LEN),
        LDX => [IMM, MEM, LEN].contains(&(code - LDX)) || code == LDX | MSH | 0x10,
        ST | STX => code < 8,
        ALU => code < 0x100 && code >> 4 <= 0xa,
        JMP => code < 0x100 && code >> 4 <= 4 && (code >> 4 != 0 || code & BY_X == 0),
        RET => code == RET || code == RET | 0x10,
        MISC => code == MISC || code == MISC | 0x80,
        _ => false,
    };
    if !known {
        return Err(Refused::Code(at, code));
    }
    let left = len - at - 1;
    let jumps_out = match (code & 7, code >> 4) {
        (JMP, 0) => k as usize >= left,
        (JMP, _) => usize::from(jt.max(jf)) >= left,
        _ => false,
    };
    if jumps_out {
        return Err(Refused::Jump(at));
    }
    let memory = matches!(code & 7, ST | STX) || matches!(code & 7, LD | LDX) && code & 0xe0 == MEM;
    let by_k = code & 7 == ALU && code & BY_X == 0;
    let impossible = memory && k as usize >= MEMORY_WORDS
        || by_k && matches!(code >> 4, 3 | 9) && k == 0
        || by_k && matches!(code >> 4, 6 | 7) && k >= 32;
    if impossible { Err(Refused::Operand(at)) } else { Ok(()) }
}

/// A word, half word or byte, big-endian.
fn load(packet: &[u8], at: u32, code: u16) -> Option<u32> {
    let from = packet.get(at as usize..)?;
    match code & 0x18 {
        0x00 => from.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
        0x08 => from.first_chunk().map(|bytes| u32::from(u16::from_be_bytes(*bytes))),
        _ => from.first().map(|byte| u32::from(*byte)),
    }
}

/// None for a division by 0.
fn compute(code: u16, a: u32, by: u32) -> Option<u32> {
    Some(match code >> 4 {
        0 => a.wrapping_add(by),
        1 => a.wrapping_sub(by),
        2 => a.wrapping_mul(by),
        3 => a.checked_div(by)?,
        4 => a | by,
        5 => a & by,
        6 => a.checked_shl(by).unwrap_or(0),
        7 => a.checked_shr(by).unwrap_or(0),
        8 => a.wrapping_neg(),
        9 => a.checked_rem(by)?,
        _ => a ^ by,
    })
}

fn compare(code: u16, a: u32, by: u32) -> bool {
    match code >> 4 {
        1 => a == by,
        2 => a > by,
        3 => a >= by,
        _ => a & by != 0,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn program(lines: &[(u16, u8, u8, u32)]) -> Result<Program, Refused> {
        let lines: Vec<_> = lines
            .iter()
            .map(|(code, jt, jf, k)| Instruction { code: *code, jt: *jt, jf: *jf, k: *k })
            .collect();
        Program::new(&lines)
    }

    /// As `tcpdump -dd tcp port 80` on Ethernet, for IPv4 alone.
    #[test]
    fn a_filter_of_tcpdump_is_understood() {
        let filter = program(&[
            (0x28, 0, 0, 12),
            (0x15, 0, 10, 0x800),
            (0x30, 0, 0, 23),
            (0x15, 0, 8, 6),
            (0x28, 0, 0, 20),
            (0x45, 6, 0, 0x1fff),
            (0xb1, 0, 0, 14),
            (0x48, 0, 0, 14),
            (0x15, 2, 0, 80),
            (0x48, 0, 0, 16),
            (0x15, 0, 1, 80),
            (0x06, 0, 0, 262_144),
            (0x06, 0, 0, 0),
        ])
        .unwrap();
        let frame = |to: u16, options: u8| {
            let mut frame = vec![0; 14 + 20 + usize::from(options) * 4 + 20];
            frame[12..14].copy_from_slice(&[8, 0]);
            (frame[14], frame[23]) = (0x45 + options, 6);
            let ports = 34 + usize::from(options) * 4;
            frame[ports + 2..ports + 4].copy_from_slice(&to.to_be_bytes());
            frame
        };
        for options in [0, 3] {
            assert!(filter.accepts(&frame(80, options), 60) && !filter.accepts(&frame(81, options), 60));
        }
        assert!(!filter.accepts(&frame(80, 0)[..34], 60), "what is not there is no match");
    }

    #[test]
    fn programs_that_could_go_wrong_are_refused() {
        assert_eq!(program(&[]), Err(Refused::Length(0)));
        assert_eq!(program(&[(0x06, 0, 0, 1); 1025]), Err(Refused::Length(1025)));
        assert_eq!(program(&[(0x15, 0, 1, 0), (0x06, 0, 0, 0)]), Err(Refused::Jump(0)));
        assert_eq!(program(&[(0x05, 0, 0, u32::MAX), (0x06, 0, 0, 0)]), Err(Refused::Jump(0)));
        assert_eq!(program(&[(0x34, 0, 0, 0), (0x06, 0, 0, 0)]), Err(Refused::Operand(0)));
        assert_eq!(program(&[(0x60, 0, 0, 16), (0x06, 0, 0, 0)]), Err(Refused::Operand(0)));
        assert_eq!(program(&[(0xffff, 0, 0, 0), (0x06, 0, 0, 0)]), Err(Refused::Code(0, 0xffff)));
        assert_eq!(program(&[(0x00, 0, 0, 0)]), Err(Refused::End));
    }

    proptest! {
        /// What was accepted ends and reads nothing beyond the packet, whatever it says.
        #[test]
        fn no_program_does_harm(lines in proptest::collection::vec((0u16..0x100, 0u8..4, 0u8..4, 0u32..80), 1..40),
                                packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut lines = lines;
            // Codes that are known, mostly, and an end.
            lines.retain(|(code, ..)| check(0, &Instruction { code: *code, jt: 0, jf: 0, k: 1 }, 9).is_ok());
            lines.push((0x16, 0, 0, 0));
            if let Ok(program) = program(&lines) {
                _ = program.accepts(&packet, packet.len());
            }
        }
    }
}
