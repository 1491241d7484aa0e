//! What a supervisor is told (`sd_notify(3)`, `sd_watchdog_enabled(3)`): that we are ready, how we are, that we live, that
//! we stop. Without `NOTIFY_SOCKET` in the environment nobody is told anything.
//!
//! *Ready* means that every declared port is open or has said why it is not, and that the next request is answered. *Alive*
//! is said by the control thread alone, and only if every worker has turned since it was said last: one thread that hangs
//! is a switch that hangs. So is one whose keeper has ended: no pod can be attached any more, and only a new daemon gets a new one. The socket is connected once, at the start, and never waited for: a supervisor that does not
//! read cannot make us stand still.

use super::daemon::{Daemon, PortLife};
use crate::sandbox::keeper;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Ports that a status names with their reasons; the others are in `switch-ctl port list`.
const NAMED_MAX: usize = 3;
/// Looks at the workers within one limit of the watchdog: with half of it (as the manual advises) one late look would be
/// one too many.
const LOOKS: u32 = 4;
/// Between two looks without a watchdog, or with one that has all the time in the world.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Supervisor {
    line: Option<Line>,
    watchdog: Option<Duration>,
    looked: Instant,
    told: String,
    turns: Vec<u64>,
}

/// A connected socket, and whom it leads to.
#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Line {
    /// A path, or an abstract name, which begins with `@` here.
    fn new(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Self { socket, address })
    }

    /// A supervisor that was started anew listens at the same place.
    fn send(&self, words: &str) -> io::Result<()> {
        let again =
            |_| self.socket.connect_addr(&self.address).and_then(|()| self.socket.send(words.as_bytes()));
        self.socket.send(words.as_bytes()).or_else(again).map(|_| ())
    }
}

impl Supervisor {
    /// Whoever the environment names, if anybody.
    pub fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let line = name.and_then(|name| {
            let line = Line::new(&name);
            let failed = |error: &io::Error| tracing::warn!(?name, "NOTIFY_SOCKET: nobody is told: {error}");
            line.inspect_err(failed).ok()
        });
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| *us > 0 && is_for_us).map(Duration::from_micros);
        Self { line, watchdog, looked: Instant::now(), told: String::new(), turns: Vec::new() }
    }

    /// Every declared port was looked at, and requests are answered from now on.
    pub fn ready(&mut self, daemon: &Daemon) {
        self.turns = turns(daemon);
        self.told = status(daemon);
        self.tell(&format!("READY=1\nSTATUS={}\nWATCHDOG=1\n", self.told));
    }

    /// How long the control thread may sleep before the next look.
    pub fn wait(&self) -> Duration {
        match self.line {
            Some(_) => self.pause().saturating_sub(self.looked.elapsed()),
            None => LOOK_PAUSE,
        }
    }

    fn pause(&self) -> Duration {
        self.watchdog.map_or(LOOK_PAUSE, |limit| (limit / LOOKS).min(LOOK_PAUSE))
    }

    /// If it is time: says that we live, if all of us do, and what has changed.
    pub fn look(&mut self, daemon: &Daemon) {
        if self.line.is_none() || self.looked.elapsed() < self.pause() {
            return;
        }
        self.looked = Instant::now();
        let (now, mut words) = (turns(daemon), String::new());
        let hung = now.iter().zip(&self.turns).position(|(now, before)| now == before);
        let is_alone = keeper::is_gone();
        let status = match hung {
            Some(worker) => format!("worker {worker} has not turned since the last look"),
            None if is_alone => "the keeper is gone: namespaces of pods cannot be entered".into(),
            None => status(daemon),
        };
        if hung.is_none() && !is_alone {
            self.turns = now;
            words += "WATCHDOG=1\n";
        }
        if status != self.told {
            // Writing to a String cannot fail.
            _ = writeln!(words, "STATUS={status}");
            self.told = status;
        }
        self.tell(&words);
    }

    /// We end because we were asked to.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping\n");
    }

    fn tell(&self, words: &str) {
        if let Some(line) = self.line.as_ref().filter(|_| !words.is_empty())
            && let Err(error) = line.send(words)
        {
            tracing::debug!("the supervisor was not told: {error}");
        }
    }
}

fn turns(daemon: &Daemon) -> Vec<u64> {
    daemon.counters.iter().map(|counters| counters.life.turns.get()).collect()
}

/// One line for `systemctl status`.
fn status(daemon: &Daemon) -> String {
    let mut down: Vec<_> = daemon
        .model
        .ports
        .iter()
        .filter_map(|(name, port)| match daemon.ports.get(&port.id) {
            Some(PortLife::Up(_)) => None,
            Some(PortLife::Down(reason)) => Some((name, reason.as_str())),
            None => Some((name, "not opened yet")),
        })
        .collect();
    down.sort();
    let declared = daemon.model.ports.len();
    let mut text = format!("{} of {declared} ports up", declared - down.len());
    for (name, reason) in down.iter().take(NAMED_MAX) {
        // A line break would begin another word of the protocol.
        _ = write!(text, "; {name}: {}", reason.replace('\n', " "));
    }
    if down.len() > NAMED_MAX {
        _ = write!(text, "; and {} more", down.len() - NAMED_MAX);
    }
    text
}
