//! How many cases a test goes through: all of them, or an `n`-th where `CASES_DIVISOR=n` says that the processor is emulated and the same
//! ones run elsewhere.

use proptest::prelude::ProptestConfig;

fn divisor() -> usize {
    std::env::var("CASES_DIVISOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// So many random ones.
pub fn cases(all: u32) -> ProptestConfig {
    ProptestConfig::with_cases(some_of(all as usize) as u32)
}

/// So many, where they are counted.
pub fn some_of(all: usize) -> usize {
    all.div_ceil(divisor())
}

/// Those of a list, evenly.
pub fn some<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    all.into_iter().step_by(divisor())
}
