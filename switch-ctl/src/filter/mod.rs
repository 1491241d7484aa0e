//! tcpdump's filter language (pcap-filter(7)), compiled here to the classic BPF that the switch checks and runs, without
//! C. What is not spoken here (`ip[8] < 5`, names, some protocols) tcpdump compiles, and --bpf hands it over.
//!
//! | module | what |
//! |---|---|
//! | [`read`] | text to a tree of tests |
//! | [`code`] | a tree to instructions |

mod code;
mod read;

use switch_api::{ApiError, Code};

/// An instruction as the API has it.
pub type Instruction = (u16, u8, u8, u32);

/// Compiles an expression; none accepts everything.
pub fn compile(expression: &str) -> Result<Vec<Instruction>, ApiError> {
    if expression.trim().is_empty() {
        return Ok(Vec::new());
    }
    let tree = read::read(expression).map_err(|error| {
        ApiError::new(Code::InvalidParams, format!("the filter {expression:?} is not understood: {error}"))
            .field("filter")
            .hint("see pcap-filter(7); what is missing here: --bpf \"$(tcpdump -y EN10MB -ddd FILTER)\"")
    })?;
    Ok(code::generate(&tree))
}

/// Reads what `tcpdump -ddd` prints: a count, and four numbers an instruction.
pub fn parse_ddd(text: &str) -> Result<Vec<Instruction>, ApiError> {
    let wrong = || {
        ApiError::new(Code::InvalidParams, "this is not what `tcpdump -ddd` prints")
            .field("filter")
            .hint("--bpf \"$(tcpdump -y EN10MB -ddd 'tcp port 443')\"")
    };
    // Blanks and line ends are the same here: the shell makes one of the other.
    let mut numbers = text.split([' ', '\n', ',']).filter(|word| !word.is_empty());
    let count: usize = numbers.next().and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let numbers: Vec<u32> = numbers.map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let (lines, rest) = numbers.as_chunks::<4>();
    if !rest.is_empty() || lines.len() != count {
        return Err(wrong());
    }
    let line = |[code, jt, jf, k]: &[u32; 4]| {
        let small = |number: u32| u8::try_from(number).map_err(|_| wrong());
        Ok((u16::try_from(*code).map_err(|_| wrong())?, small(*jt)?, small(*jf)?, *k))
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tcpdump_prints_is_read() {
        assert_eq!(parse_ddd("2\n40 0 0 12\n6 0 0 262144\n").unwrap(), [(40, 0, 0, 12), (6, 0, 0, 262_144)]);
        assert_eq!(parse_ddd("1,6 0 0 0").unwrap(), [(6, 0, 0, 0)]);
        for bad in ["", "2\n6 0 0 0", "1\n6 0 0", "1\n6 0 300 0", "x"] {
            assert!(parse_ddd(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_expression_that_is_none_says_where_it_went_wrong() {
        let said = |text| compile(text).unwrap_err().message;
        assert!(said("tcp prot 80").contains("\"prot\""), "{}", said("tcp prot 80"));
        assert!(said("host 10.0.0.1 and").contains("end"), "{}", said("host 10.0.0.1 and"));
        assert!(said("(tcp").contains("\")\""), "{}", said("(tcp"));
        assert!(said("port https").contains("\"https\""), "{}", said("port https"));
        assert!(compile(" ").unwrap().is_empty());
        let deep = "(".repeat(100_000);
        assert!(said(&deep).contains("deep"), "and no stack overflows");
    }
}
