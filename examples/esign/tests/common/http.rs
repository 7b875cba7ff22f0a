//! A minimal HTTP/1.1 client: requests and responses as raw bytes.
//!
//! It can send what client libraries reject (repeated fields, unusual bytes), and checks what it
//! reads: lengths must match bodies.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::PATIENCE;

/// A request.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str) -> Self {
        Self::new("POST", target).body("")
    }

    /// Prepends a path to the target.
    pub(crate) fn under(mut self, prefix: &str) -> Self {
        self.target.insert_str(0, prefix);
        self
    }

    /// Adds a field line with these bytes as its value.
    pub(crate) fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn authorization(self, value: impl AsRef<[u8]>) -> Self {
        self.field("Authorization", value)
    }

    pub(crate) fn bearer(self, key: &str) -> Self {
        self.authorization(format!("Bearer {key}"))
    }

    /// Adds Basic credentials with the encoding of these bytes: `key:` for a key.
    pub(crate) fn basic(self, pair: impl AsRef<[u8]>) -> Self {
        self.authorization(format!("Basic {}", STANDARD.encode(pair)))
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.field("Content-Type", "application/json")
            .body(body.to_string())
    }

    /// Adds a JSON media type, unless another one is set.
    pub(crate) fn typed(self) -> Self {
        let said = |(name, _): &(String, _)| name.eq_ignore_ascii_case("Content-Type");
        match self.body.as_deref() {
            Some([_, ..]) if !self.fields.iter().any(said) => {
                self.field("Content-Type", "application/json")
            }
            _ => self,
        }
    }

    /// Returns the bytes of the request, for a connection of its own.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "{} {} HTTP/1.1\r\nConnection: close\r\n",
            self.method, self.target
        )
        .into_bytes();
        if !self.fields.iter().any(|(name, _)| name == "Host") {
            bytes.extend_from_slice(b"Host: localhost\r\n");
        }
        for (name, value) in &self.fields {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, sorted; lines of one name in their order.
    pub(crate) all: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Returns the values of all lines of a field.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        self.all
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns everything except the date and the remaining limit, for comparing responses that
    /// must be indistinguishable.
    pub(crate) fn timeless(mut self) -> Self {
        self.all
            .retain(|(name, _)| name != "date" && name != "ratelimit");
        self
    }
}

/// A connection that stays open: raw bytes are sent, and responses are read one by one.
pub(crate) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Writes in the background as long as the other side accepts data: it may refuse the request,
    /// and close, before it has read everything.
    pub(crate) fn write_beside(&self, bytes: &[u8]) {
        let (mut writer, bytes) = (self.stream.try_clone().unwrap(), bytes.to_vec());
        thread::spawn(move || {
            let _ = writer.write_all(&bytes);
        });
    }

    /// Shuts down the write half; responses can still be read.
    pub(crate) fn end_writing(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads the next response, which may be an interim one. Returns `None` if the connection ends
    /// before a whole response.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, rest)) = read_answer(&self.unread, false) {
                self.unread = rest.to_vec();
                return Some(answer);
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer) {
                Ok(read @ 1..) => self.unread.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return None,
            }
        }
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    /// Whether these bytes arrive, after any others.
    pub(crate) fn reads(&mut self, expected: &[u8]) -> bool {
        self.reads_until(|unread| unread.windows(expected.len()).any(|part| part == expected))
    }

    /// Whether this many bytes arrive.
    pub(crate) fn reads_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> bool {
        let mut buffer = [0; 8192];
        while !enough(&self.unread) {
            match self.stream.read(&mut buffer) {
                Ok(read @ 1..) => self.unread.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
        true
    }

    /// Returns the bytes that were received but not yet consumed as a response.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }
}

/// Sends bytes, and reads until the other side closes the connection or sends nothing for a long
/// time.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    // In the background: a server may refuse the request, and close, before it has read everything.
    let written = thread::spawn(move || {
        let _ = writer.write_all(&bytes);
    });
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    // A reset connection has also ended; what was received before it counts.
    loop {
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    drop(stream);
    written.join().unwrap();
    answer
}

/// Parses the first response in these bytes and returns it with the rest. Returns `None` if it is
/// incomplete.
pub(crate) fn read_answer(bytes: &[u8], to_head: bool) -> Option<(Answer, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status: u16 = lines
        .next()?
        .strip_prefix("HTTP/1.")?
        .get(2..5)?
        .parse()
        .ok()?;
    let mut all: Vec<_> = lines
        .map(|line| {
            line.split_once(':')
                .unwrap_or_else(|| panic!("no field: {line}"))
        })
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    // The order of different names has no meaning (RFC 9110 §5.3), and varies with actix-web; the
    // order of lines with the same name is kept.
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut answer = Answer {
        status,
        all,
        body: Vec::new(),
    };
    assert!(
        answer.fields("transfer-encoding").is_empty(),
        "nothing here answers in chunks"
    );
    let rest = &bytes[end + 4..];
    if to_head || [204, 304].contains(&status) || (100..200).contains(&status) {
        return Some((answer, rest));
    }
    let length: usize = match answer.fields("content-length")[..] {
        [length] => length.parse().unwrap(),
        _ => panic!("no length: {head}"),
    };
    answer.body = rest.get(..length)?.to_vec();
    Some((answer, &rest[length..]))
}
