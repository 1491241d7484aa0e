//! How many random cases a test draws.

use proptest::prelude::ProptestConfig;

/// `all` of them; an `n`-th where `CASES_DIVISOR=n` says that the processor is emulated and the same cases run elsewhere.
pub fn cases(all: u32) -> ProptestConfig {
    let divisor = std::env::var("CASES_DIVISOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    ProptestConfig::with_cases(all.div_ceil(divisor))
}
