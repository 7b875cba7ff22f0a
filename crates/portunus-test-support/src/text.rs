//! Bytes as text, implemented here so that tests do not depend on the code under test.

/// Encodes bytes in lowercase hexadecimal.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digits = bytes.as_ref().iter();
    digits.map(|byte| format!("{byte:02x}")).collect()
}
