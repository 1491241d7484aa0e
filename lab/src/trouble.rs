//! Kernels and threads that are not well: what cannot be had by configuration is made here, for one process.

#![allow(unsafe_code)]

use crate::net::{Net, run};
use crate::wait_until;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a kernel without AF_XDP does, for `work` and every process that it starts: `socket` answers
/// EAFNOSUPPORT to that family. A seccomp filter (seccomp(2)), which children inherit and nobody can take off.
pub fn without_af_xdp<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            deny_af_xdp().unwrap_or_else(|error| panic!("seccomp: {error}"));
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn deny_af_xdp() -> io::Result<()> {
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let unless_equal = |value, skip| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
    let answer = |value| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    // struct seccomp_data: the call's number at 0, the lower half of its first argument at 16.
    let mut filter = [
        load(0),
        unless_equal(libc::SYS_socket as u32, 3),
        load(16),
        unless_equal(libc::AF_XDP as u32, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to `filter`, which lives until the kernel has copied it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// A system call by its number, with its first argument; the others are zero, no pointer among them leads anywhere.
pub fn call(number: libc::c_long, first: libc::c_long) -> io::Result<()> {
    // SAFETY: every pointer is null or a number that no library handed out; the kernel checks what it is given.
    match unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Asks for memory that can be executed.
pub fn executable_memory() -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at no given place, which nobody uses.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_EXEC, flags, -1, 0) };
    if place == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One thread of another process that hangs while the others go on, until this is dropped. A debugger's
/// stop (ptrace(2)): signals stop whole processes.
#[derive(Debug)]
pub struct Hung {
    release: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Hung {
    /// Stops the thread called `name` of process `pid`.
    pub fn thread(pid: u32, name: &str) -> io::Result<Self> {
        let tid = find(pid, name)?;
        let (release, released) = mpsc::channel::<()>();
        let (report, reported) = mpsc::channel();
        // Only the thread that traces may let go again.
        let tracer = std::thread::spawn(move || {
            let stopped = stop(tid);
            let is_stopped = stopped.is_ok();
            _ = report.send(stopped);
            if is_stopped {
                _ = released.recv();
                // SAFETY: a request about a thread that this one traces; no pointers.
                unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, 0, 0) };
            }
        });
        reported.recv().unwrap_or_else(|_| Err(io::Error::other("the tracer panicked")))?;
        Ok(Self { release: Some(release), tracer: Some(tracer) })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        drop(self.release.take());
        _ = self.tracer.take().map(JoinHandle::join);
    }
}

/// A device whose receive ring the kernel hardly empties, until this is dropped: the polling has a thread of its own
/// (Documentation/networking/napi.rst, threaded NAPI), which runs when nobody else wants its core (SCHED_IDLE, sched(7)), and somebody
/// always does. What is sent to the device finds its ring full.
#[derive(Debug)]
pub struct Undrained {
    poller: libc::pid_t,
    enough: Arc<AtomicBool>,
    busy: Option<JoinHandle<()>>,
}

/// How long the kernel may take to start the thread.
const PATIENCE: Duration = Duration::from_secs(60);

impl Undrained {
    /// Stops the polling of `device`, one with an XDP program, in `net`. `core` is kept busy. The name must be the only one of its
    /// kind on the machine.
    pub fn device(net: &Net, device: &str, core: usize) -> io::Result<Self> {
        // Another namespace's devices are in its own /sys.
        let line = format!("echo 1 > /sys/class/net/{device}/threaded");
        run("ip", &["netns", "exec", net.name(), "sh", "-c", &line]);
        let mut poller = None;
        wait_until("the polling has a thread", PATIENCE, || {
            poller = kernel_thread(&format!("napi/{device}-"));
            poller.is_some()
        });
        let poller = poller.ok_or(io::ErrorKind::NotFound)?;
        pin(poller, core)?;
        schedule(poller, libc::SCHED_IDLE)?;
        let enough = Arc::new(AtomicBool::new(false));
        let busy = std::thread::spawn({
            let enough = enough.clone();
            move || {
                pin(0, core).unwrap_or_else(|error| panic!("core {core}: {error}"));
                while !enough.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        Ok(Self { poller, enough, busy: Some(busy) })
    }
}

impl Drop for Undrained {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        _ = self.busy.take().map(JoinHandle::join);
        _ = schedule(self.poller, libc::SCHED_OTHER);
    }
}

/// A process that can start no further thread, until this is dropped: it is in a control group of its own that is full (the controller
/// `pids`, Documentation/admin-guide/cgroup-v1/pids.rst).
#[derive(Debug)]
pub struct Crowded {
    group: PathBuf,
    pid: u32,
}

/// Where the controller may be: of the first version of control groups, of the second.
const PIDS: [&str; 2] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

impl Crowded {
    /// None if this machine's control groups count no processes.
    pub fn process(pid: u32) -> io::Result<Option<Self>> {
        for parent in PIDS.map(Path::new).into_iter().filter(|parent| parent.is_dir()) {
            let group = parent.join(format!("switch-lab-{pid}"));
            if std::fs::create_dir(&group).is_err() {
                continue;
            }
            let crowded = Self { group, pid };
            if crowded.group.join("pids.max").exists() {
                std::fs::write(crowded.group.join("cgroup.procs"), pid.to_string())?;
                let now = std::fs::read_to_string(crowded.group.join("pids.current"))?;
                std::fs::write(crowded.group.join("pids.max"), now.trim())?;
                return Ok(Some(crowded));
            }
        }
        Ok(None)
    }
}

impl Drop for Crowded {
    fn drop(&mut self) {
        let parent = self.group.parent().map(|parent| parent.join("cgroup.procs"));
        // It may have ended, and is in no group then.
        _ = parent.map(|parent| std::fs::write(parent, self.pid.to_string()));
        _ = std::fs::remove_dir(&self.group);
    }
}

/// The kernel's thread whose name begins so.
fn kernel_thread(prefix: &str) -> Option<libc::pid_t> {
    let begins = |pid: &libc::pid_t| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(prefix))
    };
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(begins)
}

/// Lets a thread, 0 the calling one, run on one core alone.
fn pin(thread: libc::pid_t, core: usize) -> io::Result<()> {
    // SAFETY: all zero is an empty cpu_set_t; CPU_SET writes inside of it, or not at all.
    let done = unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &raw const cores)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The calling thread before all ordinary ones on its core (sched(7)): who makes a load, and is not to be held up by what else it asks for.
pub fn go_first() -> io::Result<()> {
    schedule(0, libc::SCHED_FIFO)
}

fn schedule(thread: libc::pid_t, policy: libc::c_int) -> io::Result<()> {
    let sched_priority = i32::from(policy == libc::SCHED_FIFO);
    let priority = libc::sched_param { sched_priority };
    // SAFETY: a live sched_param that the kernel only reads.
    let done = unsafe { libc::sched_setscheduler(thread, policy, &raw const priority) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn find(pid: u32, name: &str) -> io::Result<libc::pid_t> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        if std::fs::read_to_string(entry.path().join("comm"))?.trim() == name {
            let tid = entry.file_name().into_string().ok().and_then(|tid| tid.parse().ok());
            return tid.ok_or_else(|| io::Error::other("a thread whose name is no number"));
        }
    }
    Err(io::Error::other(format!("process {pid} has no thread {name}")))
}

fn stop(tid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: requests about another thread; `status` is a live int that waitpid writes.
    let stopped = unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0) == 0
            && libc::waitpid(tid, &raw mut status, libc::__WALL) == tid
    };
    if stopped { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a kernel does that makes no huge pages, for `work` and every process that it starts (PR_SET_THP_DISABLE, prctl(2)). The
/// whole process is concerned meanwhile.
pub fn without_huge_pages<T>(work: impl FnOnce() -> T) -> T {
    let disable = |on: libc::c_ulong| {
        // SAFETY: numbers only.
        let done = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, 0, 0, 0) };
        assert_eq!(done, 0, "PR_SET_THP_DISABLE: {}", io::Error::last_os_error());
    };
    disable(1);
    let outcome = work();
    disable(0);
    outcome
}

/// Microseconds of busy polling (`SO_BUSY_POLL`, socket(7)) of each AF_XDP socket of another process, in the order of their
/// numbers.
pub fn busy_polls(pid: u32) -> io::Result<Vec<libc::c_int>> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
    let open = std::fs::read_dir(format!("/proc/{}/fd", pid.map_or(0, Pid::as_raw_pid)))?;
    let mut numbers: Vec<i32> =
        open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers {
        // One that was closed meanwhile is none.
        let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        if option_of(&socket, libc::SO_DOMAIN).is_ok_and(|domain| domain == libc::AF_XDP) {
            found.push(option_of(&socket, libc::SO_BUSY_POLL)?);
        }
    }
    Ok(found)
}

fn option_of(socket: &OwnedFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let (mut value, mut len): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`.
    let result = unsafe {
        let place = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, place, &raw mut len)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
