//! Addresses, and listening on them: one connection after the other, until Ctrl-C.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use switch_api::{ApiError, Code};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(path) => {
                Err(format!("{path:?} is no path from the root: give unix:/run/switchd/metrics.sock"))
            }
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "give ADDRESS:PORT like 127.0.0.1:9477 or [::1]:9477, or unix:/PATH".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection, of either kind.
pub trait Stream: Read + Write {
    /// From now on no read and no write waits longer.
    fn wait_at_most(&self, limit: Duration) -> io::Result<()>;

    /// The other side reads to the end of what was written, and no further.
    fn say_no_more(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn wait_at_most(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit)).and(self.set_write_timeout(Some(limit)))
    }

    fn say_no_more(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn wait_at_most(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit)).and(self.set_write_timeout(Some(limit)))
    }

    fn say_no_more(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Listens.
pub struct Listener {
    address: Address,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// On `address`; a socket file that nobody serves any more is replaced.
    pub fn bind(address: &Address) -> Result<Self, ApiError> {
        let failed = |error: io::Error| cannot_listen(address, &error);
        let (address, socket) = match address {
            Address::Tcp(wanted) => {
                let socket = TcpListener::bind(wanted).map_err(failed)?;
                (Address::Tcp(socket.local_addr().map_err(failed)?), Socket::Tcp(socket))
            }
            Address::Unix(path) => {
                remove_orphan(path)?;
                (address.clone(), Socket::Unix(UnixListener::bind(path).map_err(failed)?))
            }
        };
        end_by_signal(&address)?;
        Ok(Self { address, socket })
    }

    /// Where it listens: with port 0, the one that was found.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Each connection in turn. It ends by a signal alone, or an error of the socket itself.
    pub fn each(&self, mut serve: impl FnMut(&mut dyn Stream)) -> Result<(), ApiError> {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(socket) => socket.accept().map(|(mut stream, _)| serve(&mut stream)),
                Socket::Unix(socket) => socket.accept().map(|(mut stream, _)| serve(&mut stream)),
            };
            match accepted {
                Err(error)
                    if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) =>
                {
                    return Err(cannot_listen(&self.address, &error));
                }
                _ => {}
            }
        }
    }
}

/// What an earlier process that was killed has left. A path that is anything but a socket is refused: the kernel says *connection
/// refused* of any other file too (`unix_find_bsd`), and what somebody keeps there is not ours to take away.
fn remove_orphan(path: &Path) -> Result<(), ApiError> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(ApiError::new(Code::Exists, format!("{} is no socket", path.display()))
            .hint("it was left as it is: give a path at which there is nothing yet"));
    }
    if UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
        _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Ctrl-C and SIGTERM are how serving ends: the process is done, and its socket file goes with it.
fn end_by_signal(address: &Address) -> Result<(), ApiError> {
    let ends = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
    let mut signals = signal_hook::iterator::Signals::new(ends).map_err(|error| {
        ApiError::new(Code::System, format!("Ctrl-C cannot be waited for: {error}"))
            .hint("see the limits of open files and processes of this shell (`ulimit -a`)")
    })?;
    let address = address.clone();
    std::thread::spawn(move || {
        signals.forever().next();
        if let Address::Unix(path) = &address {
            _ = std::fs::remove_file(path);
        }
        std::process::exit(0);
    });
    Ok(())
}

fn cannot_listen(address: &Address, error: &io::Error) -> ApiError {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => "something listens there already: end it, or give another address",
        ErrorKind::PermissionDenied => "run as a user that may, or give a port above 1023",
        ErrorKind::NotFound => "make the directory first",
        _ => "give an address of this machine, like 127.0.0.1:9477",
    };
    ApiError::new(Code::System, format!("cannot listen on {address}: {error}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["127.0.0.1:9477", "[::1]:0", "unix:/run/switchd/metrics.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for (text, says) in
            [("unix:metrics", "root"), ("9477", "127.0.0.1:9477"), ("localhost", "ADDRESS:PORT")]
        {
            assert!(text.parse::<Address>().unwrap_err().contains(says), "{text}");
        }
    }
}
