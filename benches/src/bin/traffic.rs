//! The generator and sink as a process of its own.

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use switch_bench::traffic::{End, IMIX, Plan, announce, run};

/// Sends packets into the switch by one device and counts them at another.
#[derive(Debug, Parser)]
struct Options {
    /// Where to send: NAMESPACE:DEVICE.
    #[arg(long)]
    send: String,
    /// Where to listen: NAMESPACE:DEVICE.
    #[arg(long)]
    receive: String,
    /// Flows, each with its own stations.
    #[arg(long, default_value_t = 100)]
    flows: u32,
    /// Bytes of a frame with its FCS, 64 to 1518, or `imix`.
    #[arg(long, default_value = "64")]
    size: String,
    /// Packets a second; 0 is as fast as it goes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match go(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switch-traffic: {error}");
            ExitCode::FAILURE
        }
    }
}

fn go(options: &Options) -> Result<(), String> {
    let lengths = match options.size.as_str() {
        "imix" => IMIX.to_vec(),
        size => match size.parse() {
            Ok(size @ 64..=1518) => vec![size - 4],
            _ => return Err(format!("{size:?} is no size: 64 to 1518, or imix")),
        },
    };
    if options.flows == 0 || !(0.1..=600.0).contains(&options.seconds) {
        return Err("at least one flow, and 0.1 to 600 seconds".into());
    }
    let duration = Duration::from_secs_f64(options.seconds);
    let plan = Plan { flows: options.flows, lengths, rate_pps: options.rate, duration };
    let mut source = open(&options.send)?;
    let mut sink = open(&options.receive)?;
    announce(&mut sink, plan.flows)?;
    std::thread::sleep(Duration::from_millis(200));
    // What was announced and flooded back is not part of the count.
    while source.receive(|_| {})? > 0 {}
    let report = run(&mut source, &mut sink, &plan)?;
    if options.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        println!(
            "sent {}, received {} ({:.0} a second), lost {}, reordered {}, repeated {}; latency p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs",
            report.sent,
            report.received,
            report.rate_pps,
            report.lost,
            report.reordered,
            report.repeated,
            report.p50_us,
            report.p99_us,
            report.max_us
        );
    }
    Ok(())
}

/// A socket in another namespace: this thread enters it and stays; the next call enters the next one.
fn open(place: &str) -> Result<End, String> {
    let (namespace, device) =
        place.split_once(':').ok_or_else(|| format!("{place:?}: write NAMESPACE:DEVICE"))?;
    let path = format!("/run/netns/{namespace}");
    let file = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)
        .map_err(|error| format!("{path}: {error}"))?;
    End::open(device)
}
