//! As much of a kubelet as a test needs: calls of the Container Runtime Interface. A call of gRPC is one request
//! over HTTP/2 with a message of five bytes more than protobuf; curl speaks the former, and the dozen messages
//! used here are written by hand. A library for it (`tonic`, `prost`) would be compiled for a minute in every run
//! of the tests.
//!
//! Numbers are those of kubernetes' `cri-api`, `pkg/apis/runtime/v1/api.proto`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Seconds a call may take.
const PATIENCE_S: u32 = 30;

/// A message as protobuf has it: fields one after the other.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// With one more field that is bytes: a text, or another message.
    pub fn with(mut self, number: u8, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        // Wire type 2: the length, then the bytes. Numbers up to 15 are one byte with it.
        self.0.push(number << 3 | 2);
        self.varint(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    /// With one more field that is a number.
    pub fn number(mut self, number: u8, value: usize) -> Self {
        self.0.push(number << 3);
        self.varint(value);
        self
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// A field that is bytes; empty if it is not there.
    pub fn bytes(&self, number: u8) -> Vec<u8> {
        self.all(number).pop().unwrap_or_default()
    }

    /// A field that is a message; an empty one if it is not there.
    pub fn message(&self, number: u8) -> Self {
        Self(self.bytes(number))
    }

    /// A field that is a text.
    pub fn text(&self, number: u8) -> String {
        String::from_utf8(self.bytes(number)).unwrap()
    }

    /// A field that is a number; 0 if it is not there.
    pub fn number(&self, number: u8) -> usize {
        let is_it = |(at, field): &(u8, Field)| match field {
            Field::Number(value) if *at == number => Some(*value),
            _ => None,
        };
        self.fields().iter().find_map(is_it).unwrap_or_default()
    }

    /// A repeated field.
    pub fn all(&self, number: u8) -> Vec<Vec<u8>> {
        let is_it = |(at, field): (u8, Field)| match field {
            Field::Bytes(bytes) if at == number => Some(bytes),
            _ => None,
        };
        self.fields().into_iter().filter_map(is_it).collect()
    }

    fn fields(&self) -> Vec<(u8, Field)> {
        let mut rest = self.0.as_slice();
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = varint(&mut rest);
            let number = u8::try_from(key >> 3).unwrap();
            let field = match key & 7 {
                0 => Field::Number(varint(&mut rest)),
                2 => {
                    let len = varint(&mut rest);
                    let (bytes, after) = rest.split_at(len);
                    rest = after;
                    Field::Bytes(bytes.to_vec())
                }
                wire => panic!("the wire type {wire} is not used here"),
            };
            fields.push((number, field));
        }
        fields
    }
}

impl From<Vec<u8>> for Reply {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

enum Field {
    Number(usize),
    Bytes(Vec<u8>),
}

fn varint(rest: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, after) = rest.split_first().unwrap();
        *rest = after;
        value |= usize::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The runtime's socket.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// Calls a method of the runtime service; an error is what the runtime says.
    pub fn call(&self, method: &str, message: Message) -> Result<Reply, String> {
        self.call_service("RuntimeService", method, message)
    }

    /// Calls a method of the image service.
    pub fn call_image(&self, method: &str, message: Message) -> Result<Reply, String> {
        self.call_service("ImageService", method, message)
    }

    fn call_service(&self, service: &str, method: &str, message: Message) -> Result<Reply, String> {
        let mut framed = vec![0]; // not compressed
        framed.extend_from_slice(&u32::try_from(message.0.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&message.0);
        let mut child = Command::new("curl")
            .args(["--silent", "--show-error", "--http2-prior-knowledge", "--dump-header", "/dev/stderr"])
            .args(["--header", "content-type: application/grpc", "--header", "te: trailers"])
            .args(["--data-binary", "@-", "--max-time", &PATIENCE_S.to_string()])
            .arg("--unix-socket")
            .arg(&self.socket)
            .arg(format!("http://localhost/runtime.v1.{service}/{method}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&framed).unwrap();
        let output = child.wait_with_output().unwrap();
        let headers = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_ok = output.status.success() && headers.lines().any(|line| line.trim() == "grpc-status: 0");
        match output.stdout.split_at_checked(5) {
            Some((_, body)) if is_ok => Ok(Reply(body.to_vec())),
            _ => Err(format!("{method}: {headers}")),
        }
    }
}
