//! Hash slots of a cluster (the Redis Cluster specification, "Hash tags").

/// The number of slots.
pub(crate) const SLOTS: u16 = 16_384;

/// Returns the slot of a key: that of its hash tag, if it has one.
pub(crate) fn slot(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS
}

/// Returns what is between the first brace and the next closing one, unless it is empty.
fn tag(key: &[u8]) -> &[u8] {
    let tag = || {
        let start = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[start..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[start..start + length])
    };
    tag().unwrap_or(key)
}

/// CRC-16 with the polynomial 0x1021 and nothing else (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            let poly = if crc & 0x8000 == 0 { 0 } else { 0x1021 };
            crc << 1 ^ poly
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"portunus:{acme}:k:a"), slot(b"acme"));
        for (key, hashed) in [
            ("{}x", "{}x"),
            ("a{b{c}d}", "b{c"),
            ("{a}{b}", "a"),
            ("{a", "{a"),
            ("", ""),
        ] {
            assert_eq!(tag(key.as_bytes()), hashed.as_bytes());
        }
    }
}
