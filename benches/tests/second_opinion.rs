//! Our AF_XDP against another one: the generator and sink use the `afxdp` crate, the switch its own rings.
//! `cargo xtask test` says where the daemon is.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use switch_api::PortSettings;
use switch_lab::{Node, Options, wait_until};

/// A steady load is sent so often, until all of it arrives.
const ATTEMPTS: u32 = 5;

fn switchd() -> PathBuf {
    PathBuf::from(std::env::var_os("SWITCHD").expect("SWITCHD names the daemon; run `cargo xtask test`"))
}

fn measure(size: &str, rate: u64) -> serde_json::Value {
    let node = Node::new();
    let daemon = node.start(&Options::new(switchd()));
    daemon.bridge("br0");
    let pods = [node.pod(1), node.pod(2)];
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    wait_until("pods reach each other", Duration::from_secs(60), || pods[0].reaches("10.66.0.2"));
    let output = Command::new(env!("CARGO_BIN_EXE_switch-traffic"))
        .arg(format!("--send={}:eth0", pods[0].net.name()))
        .arg(format!("--receive={}:eth0", pods[1].net.name()))
        .args(["--flows=50", "--seconds=2", "--json", &format!("--size={size}"), &format!("--rate={rate}")])
        .output()
        .expect("switch-traffic runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.assert_conserved();
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

#[test]
fn a_steady_rate_arrives_whole_and_in_order() {
    for size in ["64", "imix"] {
        // Some may be missed while others have the core, and fewer sent; a broken ring loses most, each time.
        let is_whole = |_| {
            let report = measure(size, 5_000);
            println!("{size}: {report}");
            assert_eq!(report["reordered"], 0, "{report}");
            let count = |name: &str| report[name].as_u64().expect("a number");
            count("sent") > 9_000 && count("lost") * 100 <= count("sent")
        };
        assert!((0..ATTEMPTS).any(is_whole), "{size}: none of {ATTEMPTS} arrived whole");
    }
}

#[test]
fn as_fast_as_it_goes_stays_in_order() {
    let report = measure("64", 0);
    println!("{report}");
    assert_eq!(report["reordered"], 0, "{report}");
    assert!(report["received"].as_u64() > Some(1_000), "{report}");
}
