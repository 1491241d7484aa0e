//! Instructions, which are the same whatever else the machine does: callgrind runs this program again, for one case, and counts
//! only inside [`super::counted`].
//!
//! What the first turns alone do (a cold table, a first allocation) is not in the figure: they are run before, not counted.
//! callgrind 3.19 crashed here for a reason that has nothing to do with the processor: a program that asks the kernel for its auxiliary
//! vector (`prctl(PR_GET_AUXV)`) finds the address of a vDSO that Valgrind has taken away. The benches ask the C library instead (the
//! feature `use-libc-auxv` of rustix).

use super::{COUNTED, Case};
use std::path::Path;
use std::process::Command;

/// Runs before anything is counted.
pub const WARM_UP: u64 = 20;
/// Runs that are counted.
const RUNS: u64 = 40;

/// Instructions an item of a case, by running `program` with `--instructions ID --runs N`.
pub fn count(program: &Path, case: &Case) -> Result<f64, String> {
    Ok(collected(program, case.id, RUNS)? as f64 / (RUNS * case.items) as f64)
}

fn collected(program: &Path, id: &str, runs: u64) -> Result<u64, String> {
    let mut command = Command::new("valgrind");
    command.args([
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        &format!("--toggle-collect={COUNTED}"),
    ]);
    command.arg(program).args(["--instructions", id, "--runs", &runs.to_string()]);
    let output = command.output().map_err(|error| {
        format!("valgrind is missing ({error}); install it with `apt-get install --no-install-recommends valgrind`")
    })?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(format!("{id} under callgrind: {}: {}", output.status, last.join(" / ")));
    }
    let count = said.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    count.filter(|count| *count > 0).ok_or_else(|| format!("callgrind counted nothing of {id}:\n{said}"))
}
