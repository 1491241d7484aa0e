//! A place between the plugin and the daemon, where an answer can be held: what was asked for is done, and the plugin has not heard of it.
//! So it can be killed between any two of its steps, however quick the machine is.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked at what is waited for.
const LOOK: Duration = Duration::from_millis(1);

#[derive(Debug)]
struct State {
    /// Answers that pass before one is held.
    left: AtomicUsize,
    holds: AtomicBool,
    goes_on: AtomicBool,
    is_over: AtomicBool,
}

/// It; gone when it is dropped, and what it held is passed on.
#[derive(Debug)]
pub struct Midway {
    /// Where the plugin finds it.
    pub socket: PathBuf,
    state: Arc<State>,
    door: Option<JoinHandle<()>>,
}

impl Midway {
    /// Before the daemon at a socket. So many answers pass, the next one is held.
    pub fn new(daemon: &Path, passes: usize) -> Self {
        let socket = daemon.with_file_name("midway.sock");
        _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let state = Arc::new(State {
            left: AtomicUsize::new(passes),
            holds: AtomicBool::new(false),
            goes_on: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let (daemon, of_door) = (daemon.to_path_buf(), state.clone());
        let door = std::thread::spawn(move || {
            for client in listener.incoming() {
                if of_door.is_over.load(SeqCst) {
                    return;
                }
                let (client, state) = (client.unwrap(), of_door.clone());
                let daemon = UnixStream::connect(&daemon).unwrap();
                // It ends when either side hangs up.
                std::thread::spawn(move || pass(&client, &daemon, &state));
            }
        });
        Self { socket, state, door: Some(door) }
    }

    /// Waits until it holds an answer; `false` if who is to hear it has ended without.
    pub fn holds(&self, mut has_ended: impl FnMut() -> bool) -> bool {
        loop {
            // Who has ended waits for nothing.
            let ended = has_ended();
            if self.state.holds.load(SeqCst) || ended {
                return self.state.holds.load(SeqCst);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What is held is passed on, and all that follows.
    pub fn goes_on(&self) {
        self.state.goes_on.store(true, SeqCst);
    }
}

/// One request and its answer after the other: the plugin never has two under way.
fn pass(mut client: &UnixStream, mut daemon: &UnixStream, state: &State) -> io::Result<()> {
    let (mut asked, mut answered) = (BufReader::new(client), BufReader::new(daemon));
    loop {
        let mut line = Vec::new();
        if asked.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        daemon.write_all(&line)?;
        line.clear();
        answered.read_until(b'\n', &mut line)?;
        if state.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err() {
            state.holds.store(true, SeqCst);
            while !state.goes_on.load(SeqCst) {
                std::thread::sleep(LOOK);
            }
        }
        client.write_all(&line)?;
    }
}

impl Drop for Midway {
    fn drop(&mut self) {
        self.state.is_over.store(true, SeqCst);
        self.goes_on();
        // Opens the door once more, behind which nobody is.
        _ = UnixStream::connect(&self.socket);
        if let Some(door) = self.door.take() {
            _ = door.join();
        }
        _ = std::fs::remove_file(&self.socket);
    }
}
