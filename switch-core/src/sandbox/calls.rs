//! System calls (seccomp(2)): those that the daemon and its libraries make, found by tracing its tests. Any other is
//! answered EPERM, so that a library that learns a new one loses a feature and not the node its network. Those that only
//! an intruder makes end the process (SIGSYS; systemd names it) and a supervisor starts afresh.
//!
//! Calls of the packet path have no conditions on their arguments: those the kernel allows by one bit, without running
//! the filter (`seccomp_cache_check_allow`, Linux 5.11).

use libc::c_long;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Without conditions.
const ALLOWED: &[c_long] = &[
    // Frames and messages.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    // Waiting, and being woken.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Sockets, less their making.
    libc::SYS_socketpair,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Files; which ones, is for Landlock to say.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_getcwd,
    // Memory, less what could be executed.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    // Threads and ourselves.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_wait4,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_capget,
    // Programs for devices; CAP_BPF says who.
    libc::SYS_bpf,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// What the daemon never does, whatever becomes of its libraries: who makes one of these is not the daemon any more.
const NEVER: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_capset,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_personality,
];

/// Families of sockets, of any type.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_NETLINK, libc::AF_XDP, libc::AF_PACKET];

/// `ioctl` requests: non-blocking, whether it is a terminal, what a device can do and its name and flags, TAP.
const REQUESTS: &[u64] = &[
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::TCGETS,
    libc::SIOCETHTOOL,
    libc::SIOCGIFINDEX,
    libc::SIOCGIFFLAGS,
    libc::SIOCSIFFLAGS,
    libc::TUNSETIFF,
    libc::TUNGETIFF,
    libc::TUNSETPERSIST,
    libc::TUNSETOFFLOAD,
    libc::TUNSETVNETLE,
    libc::TUNSETVNETHDRSZ,
    libc::TUNSETSTEERINGEBPF,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Restricts every thread there is and those that will be; how far, in words.
pub fn restrict() -> Result<String, String> {
    let programs = programs().map_err(|error| error.to_string())?;
    for program in &programs {
        apply_filter_all_threads(program).map_err(|error| error.to_string())?;
    }
    let allowed = conditional().map_err(|error| error.to_string())?.len() + ALLOWED.len();
    Ok(format!("{allowed} allowed, {} end the process, others EPERM", NEVER.len()))
}

/// Of several filters the strictest answer counts.
fn programs() -> Result<[BpfProgram; 3], Error> {
    let unconditional = |calls: &[c_long]| calls.iter().map(|call| (*call, Vec::new())).collect::<Rules>();
    let mut allowed = conditional()?;
    allowed.extend(unconditional(ALLOWED));
    // Judged below; glibc asks for it first and takes `clone` when there is none.
    allowed.insert(libc::SYS_clone3, Vec::new());
    let refuse = |errno: i32| SeccompAction::Errno(errno as u32);
    let (allow, kill) = (SeccompAction::Allow, SeccompAction::KillProcess);
    Ok([
        program(unconditional(&[libc::SYS_clone3]), allow.clone(), refuse(libc::ENOSYS))?,
        program(unconditional(NEVER), allow.clone(), kill)?,
        program(allowed, refuse(libc::EPERM), allow)?,
    ])
}

fn program(rules: Rules, otherwise: SeccompAction, action: SeccompAction) -> Result<BpfProgram, Error> {
    let machine = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, action, machine)?.try_into()?)
}

/// Calls that depend on what they are for.
fn conditional() -> Result<Rules, Error> {
    let when = |conditions: Vec<SeccompCondition>| Ok::<_, Error>(SeccompRule::new(conditions)?);
    let equal = |argument, value| Ok::<_, Error>(SeccompCondition::new(argument, Dword, Eq, value)?);
    let masked = |argument, mask, value| {
        Ok::<_, Error>(SeccompCondition::new(argument, Dword, MaskedEq(mask), value)?)
    };
    let any = |argument: u8, values: &[u64]| {
        values.iter().map(|value| when(vec![equal(argument, *value)?])).collect::<Result<Vec<_>, _>>()
    };
    let families: Vec<_> = FAMILIES.iter().map(|family| *family as u64).collect();
    let mut sockets = any(0, &families)?;
    // For SIOCETHTOOL and its like; of the types only the one that such a socket needs (the rest are flags).
    let types = 0xf;
    sockets.push(when(vec![equal(0, libc::AF_INET as u64)?, masked(1, types, libc::SOCK_DGRAM as u64)?])?);
    let executable = libc::PROT_EXEC as u64;
    let thread = libc::CLONE_THREAD as u64;
    let net = libc::CLONE_NEWNET as u64;
    let us = u64::from(std::process::id());
    Ok([
        (libc::SYS_socket, sockets),
        (libc::SYS_ioctl, any(1, REQUESTS)?),
        (libc::SYS_mmap, vec![when(vec![masked(2, executable, 0)?])?]),
        (libc::SYS_mprotect, vec![when(vec![masked(2, executable, 0)?])?]),
        // Threads, no processes.
        (libc::SYS_clone, vec![when(vec![masked(0, thread, thread)?])?]),
        (libc::SYS_setns, any(1, &[net])?),
        (libc::SYS_unshare, any(0, &[net])?),
        (libc::SYS_prctl, any(0, &[libc::PR_SET_NAME as u64, libc::PR_SET_TIMERSLACK as u64])?),
        // How soon the calling thread runs, and no other (0 is PRIO_PROCESS, too).
        (libc::SYS_setpriority, vec![when(vec![equal(0, 0)?, equal(1, 0)?])?]),
        (libc::SYS_sched_getattr, any(0, &[0])?),
        (libc::SYS_sched_setattr, any(0, &[0])?),
        // Our own limits.
        (libc::SYS_prlimit64, any(0, &[0])?),
        // What abort(3) does.
        (libc::SYS_tgkill, any(0, &[us])?),
    ]
    .into())
}
