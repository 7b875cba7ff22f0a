//! Secrets are wiped from memory when a call has ended: no copy of an issued, rotated or verified
//! secret is left in memory that this process has freed or still holds.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use zeroize::Zeroize;

use crate::fixture::{Fixture, NEST};

/// A secret stored with every byte inverted, so that it is not a copy itself.
struct Needle(Vec<u8>);

/// An allocator writes its own data over the beginning of freed memory.
const OVERWRITTEN: usize = 16;

impl Needle {
    fn of(text: &[u8]) -> Self {
        Self(text.iter().map(|byte| !byte).collect())
    }

    /// The text to search for.
    fn tail(&self) -> impl Iterator<Item = u8> + Clone {
        self.0[OVERWRITTEN..].iter().map(|byte| !byte)
    }
}

/// Reads the memory of this process without allocating: an allocation could reuse freed memory and
/// overwrite it.
struct Memory {
    maps: String,
    buffer: Vec<u8>,
}

const CHUNK: usize = 1 << 20;

impl Memory {
    fn new() -> Self {
        Self {
            maps: String::with_capacity(1 << 20),
            buffer: vec![0; CHUNK],
        }
    }

    /// Returns how often a string occurs in the writable memory.
    fn count(&mut self, needle: &Needle) -> usize {
        self.maps.clear();
        let mut maps = File::open("/proc/self/maps").unwrap();
        maps.read_to_string(&mut self.maps).unwrap();
        let mut memory = File::open("/proc/self/mem").unwrap();
        let tail = needle.tail();
        let (first, length) = (tail.clone().next(), tail.clone().count());
        let overlap = length - 1;
        let mut found = 0;
        for line in self.maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            if !rest.starts_with("rw") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let bound = |text| u64::from_str_radix(text, 16).unwrap();
            let (mut start, end) = (bound(start), bound(end));
            while start + (overlap as u64) < end {
                let part = usize::try_from(end - start).unwrap().min(CHUNK);
                let chunk = &mut self.buffer[..part];
                memory.seek(SeekFrom::Start(start)).unwrap();
                // Some regions may be gone by now, or may not be readable.
                if memory.read_exact(chunk).is_ok() {
                    let is_copy = |place: &&[u8]| {
                        Some(place[0]) == first && tail.clone().eq(place.iter().copied())
                    };
                    found += chunk.windows(length).filter(is_copy).count();
                }
                chunk.zeroize();
                start += (part - overlap) as u64;
            }
        }
        found
    }
}

/// Sends a request without keeping a copy of it or of the response. Returns the status, the secret
/// in the response, and the id of its key.
async fn ask(fixture: &Fixture, path: &str, body: Vec<u8>) -> (u16, Option<Needle>, String) {
    let request = Request::post(format!("{NEST}{path}"))
        .header("authorization", "Bearer owner")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let response = fixture.router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let string_after = |name: &str| {
        let place = body
            .windows(name.len())
            .position(|part| part == name.as_bytes())?;
        let rest = &body[place + name.len()..];
        Some(&rest[..rest.iter().position(|byte| *byte == b'"')?])
    };
    let needle = string_after(r#""key":""#).map(Needle::of);
    let id = string_after(r#""id":""#).unwrap_or_default();
    (status, needle, String::from_utf8_lossy(id).into_owned())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_copy_of_a_secret_is_left_after_a_call() {
    let fixture = Fixture::new().await;
    let mut memory = Memory::new();
    // A copy that is freed without wiping is found.
    let freed = b"a secret that is not wiped ".repeat(9);
    let needle = Needle::of(&freed[27..200]);
    drop(std::hint::black_box(freed));
    assert!(memory.count(&needle) > 0);

    let (status, issued, id) = ask(&fixture, "/keys", br#"{"name":"n"}"#.to_vec()).await;
    let issued = issued.unwrap();
    assert_eq!((status, memory.count(&issued)), (201, 0), "issued");

    // Longer than any other allocation of the call, so that a freed copy is not overwritten.
    let mut body = Vec::with_capacity(1 << 16);
    body.resize((1 << 16) - 256, b' ');
    body.extend_from_slice(br#"{"key":""#);
    body.extend(issued.0.iter().map(|byte| !byte));
    body.extend_from_slice(br#""}"#);
    let (status, nothing, known) = ask(&fixture, "/verify", body).await;
    assert!(nothing.is_none() && known == id);
    assert_eq!((status, memory.count(&issued)), (200, 0), "verified");

    let (status, rotated, _) = ask(&fixture, &format!("/keys/{id}/rotate"), Vec::new()).await;
    assert_eq!(
        (status, memory.count(&rotated.unwrap())),
        (201, 0),
        "rotated"
    );
}
