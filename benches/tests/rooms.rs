//! Every bench runs, makes what it should, and allocates nothing on the packet path. Nothing is timed.

use std::process::Command;

#[test]
fn every_room_works_and_the_packet_path_does_not_allocate() {
    let output = Command::new(env!("CARGO_BIN_EXE_switch-rooms")).arg("--smoke").output();
    let output = output.expect("switch-rooms runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
