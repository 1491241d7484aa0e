//! A blocking client: one request, one answer, over the Unix socket.

use crate::request::Hello;
use crate::{API_VERSION, ApiError, Code, HelloReply, Owner, Request, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest answer a client takes, in bytes: a listing of every MAC of a full table.
const ANSWER_LEN_MAX: u64 = 64 << 20;

/// Something that the daemon tells unasked, once it was subscribed to (JSON-RPC 2.0 §4.1: a notification).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// What kind of notice.
    pub method: String,
    /// What it says.
    pub params: serde_json::Value,
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
    hello: HelloReply,
    override_owner: Option<Owner>,
}

impl Client {
    /// Connects and agrees on the version. `timeout` bounds every later wait.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Self, ApiError> {
        let stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
        let limits = stream.set_read_timeout(Some(timeout)).and(stream.set_write_timeout(Some(timeout)));
        limits.map_err(|error| unreachable(socket, &error))?;
        let hello = HelloReply {
            version: API_VERSION,
            daemon: String::new(),
            admin: false,
            role: None,
            line_len_max: None,
        };
        let mut client = Self { stream: BufReader::new(stream), next_id: 1, hello, override_owner: None };
        client.hello = client.call(&Request::Hello(Hello { version: API_VERSION, owner: None }))?;
        Ok(client)
    }

    /// The same, asking from then on as somebody other than the operator.
    pub fn connect_as(socket: &Path, timeout: Duration, owner: Owner) -> Result<Self, ApiError> {
        let mut client = Self::connect(socket, timeout)?;
        let hello = Hello { version: API_VERSION, owner: Some(owner) };
        match client.call::<HelloReply>(&Request::Hello(hello)) {
            // A daemon from before owners were asked for: it does not tell whose objects a request may touch.
            Err(error)
                if error.data.field.as_deref() == Some("owner") && error.code == Code::InvalidParams =>
            {
                Ok(client)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(client),
        }
    }

    /// From now on objects of `owner`'s may be touched, too.
    pub fn override_owner(&mut self, owner: Option<Owner>) {
        self.override_owner = owner;
    }

    /// What the daemon said of itself.
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// Longest request that the daemon takes of this client, in bytes, its newline included.
    pub fn line_len_max(&self) -> usize {
        self.hello.line_len_max.unwrap_or(codec::LINE_LEN_MAX)
    }

    /// From now on only notices are read, for however long it takes until there is one.
    pub fn listen(&mut self) -> Result<(), ApiError> {
        self.stream.get_ref().set_read_timeout(None).map_err(broken)
    }

    /// A second handle on the connection: shut down for writing, it tells the daemon that this client has enough.
    pub fn handle(&self) -> Result<UnixStream, ApiError> {
        self.stream.get_ref().try_clone().map_err(broken)
    }

    /// The next notice of what was subscribed to; none when the daemon has closed the connection.
    pub fn notice(&mut self) -> Result<Option<Notice>, ApiError> {
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(ANSWER_LEN_MAX).read_until(b'\n', &mut line).map_err(broken)?;
        if read == 0 { Ok(None) } else { codec::decode_notice(&line).map(Some) }
    }

    /// Whether something was read already that [`Client::notice`] has not given: who shows notices may then wait with showing.
    pub fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }

    /// Sends `request` and waits for its answer.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ApiError> {
        let id = self.next_id;
        self.next_id += 1;
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ApiError::new(Code::Timeout, "the daemon did not answer in time")
                    .hint("it may be busy or stopped: look at its log, or give --timeout")
            }
            _ => broken(error),
        };
        let line = codec::encode_call(id, request, self.override_owner);
        if line.len() > self.line_len_max() {
            return Err(too_long(line.len(), self.line_len_max()));
        }
        let written = self.stream.get_mut().write_all(&line);
        drop(line);
        // A daemon that takes no more of it, and closes the connection, has said why before.
        if written.as_ref().is_err_and(|error| !is_hung_up(error)) {
            written.map_err(failed)?;
        }
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(ANSWER_LEN_MAX).read_until(b'\n', &mut line);
        if read.map_err(failed)? == 0 {
            return Err(ApiError::new(Code::System, "the daemon closed the connection without an answer")
                .hint("it may have been stopped, or too many clients are connected"));
        }
        codec::decode_answer(&line)
    }
}

fn is_hung_up(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Said before it is sent: the daemon closes the connection at such a line, and its reason is then hard to come by.
fn too_long(len: usize, most: usize) -> ApiError {
    ApiError::new(Code::Limit, format!("the request has {len} bytes, and the daemon takes {most} at most"))
        .hint("nothing was sent; declare it in several parts, like several policies with fewer peers each")
}

fn broken(error: std::io::Error) -> ApiError {
    ApiError::new(Code::System, format!("the connection to the daemon broke: {error}"))
        .hint("see whether it still runs (`switch-ctl status`) and what it said last; what was asked may or may not be done")
}

fn unreachable(socket: &Path, error: &std::io::Error) -> ApiError {
    let hint = match error.kind() {
        ErrorKind::NotFound => "start the daemon (`switchd`), or name its socket with --socket",
        ErrorKind::PermissionDenied => "run as root, or join the group given to `switchd --group`",
        ErrorKind::ConnectionRefused => {
            "the daemon is gone but its socket file is still there: start `switchd`"
        }
        _ => "check the path given with --socket",
    };
    ApiError::new(Code::System, format!("cannot reach the daemon at {}: {error}", socket.display()))
        .hint(hint)
}
