//! HTTP, as much as a scrape needs: one exchange a connection, `GET` or `HEAD` of `/metrics`. `httparse` reads the request;
//! the limits are here, because one exchange is served at a time and none may keep the next from its turn.

use super::listen::Stream;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};
use switch_api::ApiError;

/// Longest that a client may take to ask, and again to take the answer: a hundred times what a scraper on a busy network needs, and
/// short enough that a second scraper behind a stuck one stays within its own 10 s.
const CLIENT_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest that an answered client may take to close, while what it still sends is thrown away. It has been told that nothing
/// follows, and one that heeds that closes at once; the next in turn does not wait long for one that does not.
const LINGER_MAX: Duration = Duration::from_millis(200);
/// Longest request head. Prometheus sends under 1 KiB.
const HEAD_LEN_MAX: usize = 8 << 10;
/// Most header fields. Prometheus sends five.
const HEADERS_MAX: usize = 64;
const PLAIN: &str = "text/plain; charset=utf-8";

/// What is answered.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn refusal(status: &'static str, body: &str) -> Self {
        Self { status, kind: PLAIN, body: format!("{body}\n") }
    }
}

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    method: String,
    path: String,
}

/// Reads one request and answers it with what `scrape` says, which is of this `kind`. A client that goes away or is too slow is let go.
pub fn answer(
    stream: &mut dyn Stream,
    kind: &'static str,
    scrape: impl FnOnce() -> Result<String, ApiError>,
) {
    let (answer, with_body) = match read(stream) {
        Ok(Ok(asked)) => (respond(&asked, kind, scrape), asked.method != "HEAD"),
        Ok(Err(refusal)) => (refusal, true),
        Err(_) => return,
    };
    let Answer { status, kind, body } = &answer;
    let length = body.len();
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    if with_body {
        text.push_str(body);
    }
    // Whoever does not take it has no use for it.
    _ = write(stream, text.as_bytes()).and_then(|()| linger(stream));
}

/// Waits until the client has closed: a socket that is closed with something unread in it resets the connection, and what
/// was answered is lost on the way (RFC 9112, section 9.6).
fn linger(stream: &mut dyn Stream) -> io::Result<()> {
    stream.say_no_more()?;
    let deadline = Instant::now() + LINGER_MAX;
    let mut unread = [0; 1 << 10];
    loop {
        wait_until(stream, deadline)?;
        if stream.read(&mut unread)? == 0 {
            return Ok(());
        }
    }
}

fn respond(asked: &Asked, kind: &'static str, scrape: impl FnOnce() -> Result<String, ApiError>) -> Answer {
    if asked.path.split('?').next() != Some("/metrics") {
        return Answer::refusal("404 Not Found", "there is /metrics, and nothing else");
    }
    if asked.method != "GET" && asked.method != "HEAD" {
        return Answer::refusal("405 Method Not Allowed", "ask with GET");
    }
    match scrape() {
        Ok(body) => Answer { status: "200 OK", kind, body },
        Err(error) => {
            let hint = error.data.hint.as_deref().unwrap_or("see the daemon's log");
            Answer::refusal("503 Service Unavailable", &format!("{}\n{hint}", error.message))
        }
    }
}

/// The request's head, or what to say of it; an error if nobody is there to hear it.
fn read(stream: &mut dyn Stream) -> io::Result<Result<Asked, Answer>> {
    let deadline = Instant::now() + CLIENT_WAIT_MAX;
    let (mut head, mut len) = ([0; HEAD_LEN_MAX], 0);
    while len < head.len() {
        let read = match wait_until(stream, deadline).and_then(|()| stream.read(&mut head[len..])) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if is_late(&error) => {
                return Ok(Err(Answer::refusal("408 Request Timeout", "the request did not come in time")));
            }
            Err(error) => return Err(error),
        };
        len += read;
        match parse(&head[..len]) {
            Ok(Some(asked)) => return Ok(Ok(asked)),
            Ok(None) => {}
            Err(error) => return Ok(Err(Answer::refusal("400 Bad Request", &error.to_string()))),
        }
    }
    Ok(Err(Answer::refusal("431 Request Header Fields Too Large", "the request's head is too long")))
}

/// None: there is more to come.
fn parse(head: &[u8]) -> Result<Option<Asked>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head)?.is_partial() {
        return Ok(None);
    }
    let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Ok(Some(Asked { method: owned(request.method), path: owned(request.path) }))
}

fn write(stream: &mut dyn Stream, mut text: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + CLIENT_WAIT_MAX;
    while !text.is_empty() {
        wait_until(stream, deadline)?;
        match stream.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A client that sends a byte now and then has no more time than one that sends none.
fn wait_until(stream: &dyn Stream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { stream.wait_at_most(left) }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use switch_api::Code;

    /// What is answered to `request`, sent in pieces of `piece` bytes.
    fn ask(request: &[u8], piece: usize, scrape: Result<String, ApiError>) -> String {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let served = std::thread::spawn(move || answer(&mut far, PLAIN, || scrape));
        for piece in request.chunks(piece) {
            near.write_all(piece).unwrap();
        }
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        drop(near);
        served.join().unwrap();
        text
    }

    #[test]
    fn one_request_has_one_answer() {
        let cases = [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK", "\r\n\r\nm 1\n# EOF\n"),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "\r\n\r\nm 1\n# EOF\n"),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK", "Connection: close\r\n\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 ", "nothing else\n"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 ", "GET\n"),
            ("nonsense\r\n\r\n", "HTTP/1.1 400 ", "\n"),
        ];
        for (request, begins, ends) in cases {
            for piece in [1, 7, 100] {
                let text = ask(request.as_bytes(), piece, Ok("m 1\n# EOF\n".into()));
                assert!(text.starts_with(begins) && text.ends_with(ends), "{request:?}: {text}");
            }
        }
        let away = ApiError::new(Code::System, "cannot reach the daemon").hint("start it");
        let text = ask(b"GET /metrics HTTP/1.1\r\n\r\n", 100, Err(away));
        assert!(
            text.starts_with("HTTP/1.1 503 ") && text.ends_with("cannot reach the daemon\nstart it\n"),
            "{text}"
        );
    }

    /// What is refused at its first byte still has its answer, though the rest is never read as a request.
    #[test]
    fn an_answer_outlives_what_nobody_reads() {
        let rest = [b"nonsense\r\n", &[b'a'; 4 * HEAD_LEN_MAX][..]].concat();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(&rest).unwrap();
        let served = std::thread::spawn(move || answer(&mut far, PLAIN, || Ok(String::new())));
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        drop(near);
        served.join().unwrap();
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut long = b"GET /metrics HTTP/1.1\r\na: ".to_vec();
        long.resize(HEAD_LEN_MAX, b'a');
        let text = ask(&long, HEAD_LEN_MAX, Ok(String::new()));
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert!(ask(many.as_bytes(), HEAD_LEN_MAX, Ok(String::new())).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_silent_client_is_told_and_let_go() {
        let text = ask(b"GET /metrics HTTP/1.1\r\n", 100, Ok(String::new()));
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    }
}
