//! The Unix socket, signals, netlink and the workers' bell: one `mio` loop on one thread. A client can make
//! nothing here wait: lines are bounded, answers queue per client, and a client with an unread answer is
//! not listened to until it has read it.

use super::daemon::Daemon;
use super::feed::{Heard, Subscription};
use super::input::{Input, Room};
use super::links::{self, LinkEvent};
use super::mirror::Mirror;
use super::owners::Asker;
use super::peer::Rules;
use super::places;
use super::supervisor::Supervisor;
use super::uplinks::Uplinks;
use crate::worker::thread::now;
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::fs::{FlockOperation, flock};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::codec::{decode_request, encode_answer};
use switch_api::{ApiError, Code, Hello, Request, Role};

/// A client that has left a line half sent, or an answer unread, for so long is let go.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Clients that are welcomed before those that are there get their turn.
const ACCEPTS_A_TURN: usize = 64;
/// Requests answered for one client before the others get their turn.
const REQUESTS_A_TURN: usize = 16;
/// Bytes read of one client before the others get their turn: a millisecond's work.
const BYTES_A_TURN: usize = 4 << 20;
/// Memory that a client keeps for the answers to come; more was for a long one, and while that is not read nothing is answered.
const OUTPUT_KEPT_BYTES: usize = 1 << 20;
const TICK: Duration = Duration::from_secs(1);
/// While a capture runs, or somebody hears of flows, the workers' records are looked at so often. Workers ring no bell for them: a ring is a call.
const CAPTURE_PAUSE: Duration = Duration::from_millis(10);

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const LINKS: Token = Token(2);
/// The workers' bell.
const REPORTS: Token = Token(3);
/// News of the kernel's routes.
const MIRROR: Token = Token(4);
/// News of NICs that the kernel shares.
const UPLINKS: Token = Token(5);
const FIRST_CLIENT: usize = 6;

/// The socket, bound but not served yet.
pub struct Server {
    poll: Poll,
    listener: UnixListener,
    signals: Signals,
    links: netlink_sys::Socket,
    rules: Rules,
    clients: HashMap<Token, Client>,
    /// There may be more to be accepted, of whom no event will tell.
    accepting: bool,
    next: usize,
    path: PathBuf,
    bell: Arc<Waker>,
    supervisor: Supervisor,
    _lock: File,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    asker: Asker,
    subscription: Option<Subscription>,
    input: Input,
    /// There may be more to be read, of which no event will tell.
    unread: bool,
    output: Vec<u8>,
    /// So many bytes of the output are sent.
    written: usize,
    moved: Instant,
    closing: bool,
}

/// Why the daemon does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody serves here already.
    #[error("another switchd serves {0}; stop it, or give this one its own --socket")]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("cannot serve {path}: {error}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Server {
    /// Takes the socket. A file that a dead daemon left is replaced; a living one is not disturbed.
    pub fn bind(path: &Path, rules: Rules) -> Result<Self, ServeError> {
        let failed = |error| ServeError::Socket { path: path.to_owned(), error };
        let lock = lock(path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut listener = UnixListener::bind(path).map_err(failed)?;
        // Who may do what is decided by credentials; the file's mode only keeps those away who may nothing.
        let mode = if rules.lets_others_in() { 0o666 } else { 0o600 };
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        let poll = Poll::new().map_err(failed)?;
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let mut links = links::watch().map_err(failed)?;
        let registry = poll.registry();
        let bell = Waker::new(registry, REPORTS).map_err(failed)?;
        registry.register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
        registry.register(&mut signals, SIGNALS, Interest::READABLE).map_err(failed)?;
        registry.register(&mut links, LINKS, Interest::READABLE).map_err(failed)?;
        Ok(Self {
            poll,
            listener,
            signals,
            links,
            rules,
            clients: HashMap::new(),
            accepting: false,
            next: FIRST_CLIENT,
            path: path.to_owned(),
            bell: Arc::new(bell),
            supervisor: Supervisor::from_environment(),
            _lock: lock,
        })
    }

    /// What workers ring when they have something to report.
    pub fn bell(&self) -> Arc<Waker> {
        self.bell.clone()
    }

    /// Listens to the mirror's news as well.
    pub fn watch(&self, mirror: &mut Mirror) -> std::io::Result<()> {
        self.poll.registry().register(mirror.socket(), MIRROR, Interest::READABLE)
    }

    /// Listens to the news of shared NICs as well.
    pub fn watch_uplinks(&self, uplinks: &mut Uplinks) -> std::io::Result<()> {
        let socket = uplinks.socket();
        socket.map_or(Ok(()), |socket| self.poll.registry().register(socket, UPLINKS, Interest::READABLE))
    }

    /// Serves until told to stop. Whether to detach.
    pub fn run(&mut self, daemon: &mut Daemon) -> bool {
        let mut events = Events::with_capacity(128);
        let mut ticked = Instant::now();
        self.supervisor.ready(daemon);
        loop {
            let due = daemon.mirror.as_ref().and_then(Mirror::wait).unwrap_or(TICK);
            let pause = TICK.saturating_sub(ticked.elapsed()).min(due).min(self.supervisor.wait());
            let looks_on = daemon.is_capturing() || daemon.is_watching_flows();
            let pause = if looks_on { pause.min(CAPTURE_PAUSE) } else { pause };
            let waits = self.accepting || self.clients.values().any(Client::is_waiting);
            let pause = if waits { Duration::ZERO } else { pause };
            if let Err(error) = self.poll.poll(&mut events, Some(pause))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!("poll: {error}");
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    SIGNALS => self.read_signals(daemon),
                    LINKS => self.read_links(daemon),
                    REPORTS => daemon.read_reports(),
                    MIRROR => daemon.kernel_changed(),
                    UPLINKS => daemon.uplinks_changed(),
                    client => self.serve(client, daemon),
                }
            }
            if self.accepting {
                self.accept();
            }
            self.serve_waiting(daemon);
            daemon.mirror_due();
            self.feed(daemon);
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                daemon.tick(now().s());
                // Whoever could not be accepted, for want of descriptors, of whom no event will tell again.
                self.accept();
                self.clients.retain(|_, client| !client.is_stalled());
            }
            self.supervisor.look(daemon);
            if let Some(detach) = daemon.stopping {
                self.supervisor.stopping();
                return detach;
            }
        }
    }

    fn read_signals(&mut self, daemon: &mut Daemon) {
        for signal in self.signals.pending() {
            tracing::info!(signal, "stopping; XDP programs stay, their dead-man settings decide");
            daemon.stopping = Some(false);
        }
    }

    fn read_links(&mut self, daemon: &mut Daemon) {
        let events: Vec<LinkEvent> = links::events(&self.links);
        if !events.is_empty() {
            daemon.links_changed(events);
        }
    }

    fn accept(&mut self) {
        self.accepting = false;
        for _ in 0..ACCEPTS_A_TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return tracing::warn!("accept: {error}"),
            };
            self.welcome(stream);
        }
        self.accepting = true;
    }

    fn welcome(&mut self, mut stream: UnixStream) {
        let (rights, caller) = (self.rules.rights(&stream), self.rules.caller(&stream));
        let role = rights.unwrap_or(Role::Reader);
        let refusal = if rights.is_none() {
            Some(ApiError::new(Code::Forbidden, "this user may not use the switch").hint(
                "use root or a member of a group given to `switchd --group`, `--cni-group` or `--reader-group`; `--readers` lets everybody look",
            ))
        } else {
            let there = self.clients.values().map(|client| (client.asker.role, client.asker.caller.uid));
            places::refusal(role, caller.uid, there)
        };
        if let Some(error) = refusal {
            // One write: if the client is not there to read it, that is its loss.
            _ = stream.write(&encode_answer(serde_json::Value::Null, Err(error)));
            return;
        }
        let token = Token(self.next);
        self.next += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, token, both).is_ok() {
            let asker = Asker::new(role, caller);
            self.clients.insert(token, Client::new(stream, asker));
        }
    }

    fn serve(&mut self, token: Token, daemon: &mut Daemon) {
        let others = self.clients.iter().filter(|(other, _)| **other != token);
        let beyond = others.map(|(_, client)| client.input.beyond()).sum();
        let Some(client) = self.clients.get_mut(&token) else { return };
        if client.serve(daemon, Room::of(client.asker.role, beyond)).is_err() {
            self.clients.remove(&token);
        }
    }

    /// Tells subscribers what there is to tell.
    fn feed(&mut self, daemon: &mut Daemon) {
        let ((events, lost), (flows, flows_lost)) = (daemon.take_news(), daemon.take_flow_news());
        let heard = Heard { events, lost, flows, flows_lost };
        self.clients.retain(|_, client| client.feed(daemon, &heard).is_ok());
        let subscribed = |kind: fn(&Subscription) -> bool| {
            self.clients.values().any(|client| client.subscription.as_ref().is_some_and(kind))
        };
        if daemon.is_capturing() && !subscribed(|kind| *kind == Subscription::Capture) {
            daemon.end_capture(&mut Vec::new());
        }
        daemon.set_listened(subscribed(|kind| matches!(kind, Subscription::Events { .. })));
        daemon.watch_flows(subscribed(|kind| matches!(kind, Subscription::Events { flows: true, .. })));
    }

    /// Clients with whole lines that were not their turn yet.
    fn serve_waiting(&mut self, daemon: &mut Daemon) {
        let waiting = self.clients.iter().filter(|(_, client)| client.is_waiting());
        let tokens: Vec<_> = waiting.map(|(token, _)| *token).collect();
        for token in tokens {
            self.serve(token, daemon);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The lock is still ours here, so it is our own socket that goes.
        _ = std::fs::remove_file(&self.path);
    }
}

/// One daemon a socket: an advisory lock beside it (`switchd.lock` of `switchd.sock`), which the kernel lets go of when we die. The empty file
/// stays behind: who opened it just before it was removed would lock a file without a name, the next daemon a new one, and both would
/// have the socket. In `/run` it goes with the node's end, under systemd with the service's.
fn lock(path: &Path) -> Result<File, ServeError> {
    let failed = |error| ServeError::Socket { path: path.to_owned(), error };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let file = File::create(path.with_extension("lock")).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::Taken(path.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// The client is to be let go of.
struct Gone;

impl Client {
    fn new(stream: UnixStream, asker: Asker) -> Self {
        Self {
            stream,
            asker,
            subscription: None,
            input: Input::default(),
            unread: false,
            output: Vec::new(),
            written: 0,
            moved: Instant::now(),
            closing: false,
        }
    }

    fn is_stalled(&self) -> bool {
        let owes = !self.input.is_empty() || !self.output.is_empty();
        owes && self.moved.elapsed() > STALL_MAX || self.input.is_overdue()
    }

    /// Whether there is something to do for it that was not its turn yet.
    fn is_waiting(&self) -> bool {
        self.output.is_empty() && (self.input.has_line() || self.unread)
    }

    fn serve(&mut self, daemon: &mut Daemon, room: Room) -> Result<(), Gone> {
        self.write()?;
        if self.output.is_empty() {
            if !self.closing {
                self.read(room)?;
            }
            self.answer(daemon, room);
            self.write()?;
        }
        // A capture has a last word; see `feed`. Whole lines that are left have their turn.
        let is_done = self.closing
            && self.output.is_empty()
            && !self.input.has_line()
            && self.subscription != Some(Subscription::Capture);
        if is_done { Err(Gone) } else { Ok(()) }
    }

    fn feed(&mut self, daemon: &mut Daemon, heard: &Heard) -> Result<(), Gone> {
        match &mut self.subscription {
            None => return Ok(()),
            Some(Subscription::Capture) if self.closing => {
                daemon.end_capture(&mut self.output);
                self.subscription = None;
            }
            Some(subscription) => subscription.feed(daemon, heard, &mut self.output),
        }
        self.write()?;
        if self.closing && self.output.is_empty() { Err(Gone) } else { Ok(()) }
    }

    fn read(&mut self, room: Room) -> Result<(), Gone> {
        let mut chunk = [0; 16 * 1024];
        let mut taken = 0;
        self.unread = false;
        while self.input.wants_more(room) {
            if taken >= BYTES_A_TURN {
                self.unread = true;
                return Ok(());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    // What was asked in whole lines is still answered.
                    self.closing = true;
                    return Ok(());
                }
                Ok(n) => {
                    self.moved = Instant::now();
                    self.input.push(&chunk[..n]);
                    taken += n;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        // It is read on when what is there is answered.
        self.unread = true;
        Ok(())
    }

    fn answer(&mut self, daemon: &mut Daemon, room: Room) {
        for _ in 0..REQUESTS_A_TURN {
            // What is to be read is read first: of long answers a client that reads none would gather many.
            if self.output.len() > OUTPUT_KEPT_BYTES {
                return;
            }
            let line = match self.input.line(room) {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(refusal) => return self.refuse_long_line(refusal),
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let began = Instant::now();
            let call = decode_request(&line);
            let override_owner = call.override_owner;
            let outcome = call.request.and_then(|request| {
                let answer = daemon.handle(&request, &Asker { override_owner, ..self.asker })?;
                match request {
                    Request::Hello(Hello { owner: Some(owner), .. }) => self.asker.owner = owner,
                    Request::EventsSubscribe(asked) => {
                        let flows = asked.flows;
                        self.subscription = Some(Subscription::Events { missed: 0, flows });
                    }
                    Request::CaptureStart(_) | Request::TraceLive(_) => {
                        self.subscription = Some(Subscription::Capture)
                    }
                    _ => {}
                }
                Ok(answer)
            });
            self.output.extend(encode_answer(call.id, outcome));
            if let Some(method) = call.method {
                daemon.note_latency(&method, began.elapsed());
            }
        }
    }

    /// A line that is too long, its end there or not. Where the next one would begin is not known to be a beginning: the
    /// connection ends with the refusal.
    fn refuse_long_line(&mut self, refusal: ApiError) {
        self.output.extend(encode_answer(serde_json::Value::Null, Err(refusal)));
        self.input.clear();
        self.unread = false;
        self.closing = true;
    }

    fn write(&mut self) -> Result<(), Gone> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(n) => {
                    self.moved = Instant::now();
                    self.written += n;
                    // What is sent goes when it is half of all: each byte is moved once, whatever the length.
                    if self.written * 2 >= self.output.len() {
                        self.output.drain(..self.written);
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        if self.output.capacity() > OUTPUT_KEPT_BYTES {
            self.output = Vec::new();
        }
        Ok(())
    }
}
