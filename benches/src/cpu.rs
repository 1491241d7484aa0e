//! What the machine's cores were busy for, as the kernel counts it (proc_stat(5)): user, nice, system, and
//! interrupts, soft ones too; not what a hypervisor took away.

/// Columns of `/proc/stat` behind a core's name: user, nice, system, then idle and iowait, then irq and softirq.
const BUSY_COLUMNS: [usize; 5] = [0, 1, 2, 5, 6];

/// Seconds that each core has been busy since the machine started.
pub fn busy() -> Result<Vec<f64>, String> {
    let said = std::fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let cores = said.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let seconds = cores.map(|line| {
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        BUSY_COLUMNS.iter().filter_map(|column| ticks.get(*column)).sum::<f64>() / per_second
    });
    Ok(seconds.collect())
}

/// What `work` hands out, and the seconds that each core was busy meanwhile.
pub fn busy_during<T>(work: impl FnOnce() -> Result<T, String>) -> Result<(T, Vec<f64>), String> {
    let before = busy()?;
    let result = work()?;
    Ok((result, busy()?.iter().zip(before).map(|(after, before)| after - before).collect()))
}
