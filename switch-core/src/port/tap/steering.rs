//! The program that chooses the queue of a frame that comes from a pod (`TUNSETSTEERINGEBPF`; steering.c says how). Only
//! devices with several queues have one. The device keeps it for as long as it lives, also without a daemon.

use super::device::Descriptor;
use aya::programs::SocketFilter;
use aya::{Ebpf, EbpfLoader};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steering.o"));
const PROGRAM: &str = "steer_flow";

/// From now on a flow's frames from the pod come by one and the same of the first `queues` queues.
pub fn steer(device: &Descriptor, queues: u16) -> io::Result<()> {
    let mut ebpf = load(queues).map_err(io::Error::other)?;
    let program = program(&mut ebpf).map_err(io::Error::other)?;
    program.load().map_err(io::Error::other)?;
    // The device holds the program from here on; ours may go.
    device.set_steering(program.fd().map_err(io::Error::other)?.as_fd().as_raw_fd())
}

fn load(queues: u16) -> Result<Ebpf, aya::EbpfError> {
    EbpfLoader::new().override_global("queues", &u32::from(queues), true).load(OBJECT)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SocketFilter, aya::programs::ProgramError> {
    let program = ebpf.program_mut(PROGRAM);
    program.ok_or(aya::programs::ProgramError::NotLoaded)?.try_into()
}
