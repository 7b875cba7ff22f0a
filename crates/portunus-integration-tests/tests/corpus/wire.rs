//! A client that sends raw bytes and reads a response, on its own connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use portunus_test_support::wait::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// Fields that frame or date a message and are independent of the request.
const NOT_COMPARED: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// The compared parts of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `200`; `100, then 200` if an interim response came first; `closed` if there was none.
    pub(crate) status: String,
    /// Names in lower case, in order; lines of one name in their order.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A response as written in a row.
    pub(crate) fn of_lines(lines: &[String]) -> Self {
        let (status, rest) = lines.split_first().unwrap();
        let end = rest.iter().position(String::is_empty).unwrap_or(rest.len());
        let split = |line: &String| {
            let (name, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("a field? {line:?}"));
            (name.to_owned(), value.to_owned())
        };
        let mut fields: Vec<_> = rest[..end].iter().map(split).collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self {
            status: status.clone(),
            fields,
            body: rest.get(end + 1..).unwrap_or_default().join("\n"),
        }
    }

    fn closed() -> Self {
        Self {
            status: "closed".into(),
            fields: Vec::new(),
            body: String::new(),
        }
    }

    fn of_bytes(bytes: &[u8], to_head: bool) -> Self {
        if bytes.is_empty() {
            return Self::closed();
        }
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a whole head");
        let head = String::from_utf8_lossy(&bytes[..end]);
        let rest = &bytes[end + 4..];
        let (status, lines) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = status
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .expect("a status")
            .to_owned();
        if status.starts_with('1') {
            let answer = Self::of_bytes(rest, to_head);
            return Self {
                status: format!("{status}, then {}", answer.status),
                ..answer
            };
        }
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines.lines() {
            let (name, value) = line.split_once(':').expect("a field");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let value = |name: &str| {
            fields
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("transfer-encoding"), None, "no answer is that long");
        let length = value("content-length").map_or(0, |length| length.parse().expect("a length"));
        assert_eq!(
            rest.len(),
            if to_head { 0 } else { length },
            "the body is as long as it says: {head}"
        );
        fields.retain(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self {
            status,
            fields,
            body: String::from_utf8_lossy(rest).into_owned(),
        }
    }

    /// The lines for comparison, as in a row.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.status.clone()];
        lines.extend(
            self.fields
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        if !self.body.is_empty() {
            lines.push(String::new());
            lines.extend(self.body.split('\n').map(ToOwned::to_owned));
        }
        lines
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

/// Sends bytes from an address, and reads until the server closes.
pub(crate) async fn ask(server: SocketAddr, from: IpAddr, request: &[u8]) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let mut stream = soon(socket.connect(server)).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        // A server that refuses before it has read everything resets the connection after its
        // response.
        while let Ok(length @ 1..) = reading.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..length]);
        }
    };
    let write = async { drop(writing.write_all(request).await) };
    soon(async { tokio::join!(read, write) }).await;
    Answer::of_bytes(&answer, request.starts_with(b"HEAD "))
}

/// Sends the request that these bytes of HTTP/1.1 describe over HTTP/2 without TLS; `Host` becomes
/// `:authority`.
pub(crate) async fn ask_over_http_2(server: SocketAddr, from: IpAddr, request: &[u8]) -> Answer {
    let (request, body) = over_http_2(request);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let stream = soon(socket.connect(server)).await.unwrap();
    let (client, connection) = soon(h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = soon(client.ready()).await.unwrap();
    let (answer, mut upload) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        // A server that refuses the request need not read all of the body.
        let _ = upload.send_data(body, true);
    }
    let Ok(answer) = soon(answer).await else {
        return Answer::closed();
    };
    let (head, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    // A reset without an error after the complete response also ends the stream (RFC 9113 §8.1).
    while let Some(Ok(bytes)) = soon(stream.data()).await {
        let _ = stream.flow_control().release_capacity(bytes.len());
        body.extend_from_slice(&bytes);
    }
    connection.abort();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut fields: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    fields.retain(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    Answer {
        status: head.status.as_str().to_owned(),
        fields,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn over_http_2(bytes: &[u8]) -> (Request<()>, Bytes) {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.expect("a whole head");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let (line, lines) = head.split_once("\r\n").unwrap();
    let [method, target, _] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    let mut request = Request::new(());
    *request.method_mut() = method.parse().unwrap();
    for line in lines.split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "host" => {
                *request.uri_mut() = format!("http://{value}{target}").parse::<Uri>().unwrap();
            }
            "connection" => {}
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                request.headers_mut().append(name, value);
            }
        }
    }
    (request, Bytes::copy_from_slice(&bytes[end + 4..]))
}
