//! Bytes as text, written out so that the tests do not lean on what they test.

/// Bytes in hexadecimal, in small letters.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digits = bytes.as_ref().iter();
    digits.map(|byte| format!("{byte:02x}")).collect()
}
