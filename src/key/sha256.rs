//! SHA-256 (FIPS 180-4) by its compression function: of a short text, without the buffer of the
//! general way, which takes half as long as the digest to wipe; and continued from a kept state.

use sha2::block_api::compress256;
use zeroize::optimization_barrier;

pub(super) const BLOCK: usize = 64;

/// The state before the first block (§5.3.3).
pub(super) const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Hashes a message into a state into which this many bytes, whole blocks, were hashed before, and
/// finishes it (§5.1.1).
pub(super) fn finish(state: &mut [u32; 8], before: usize, message: &[u8]) {
    let (blocks, rest) = message.as_chunks::<BLOCK>();
    compress256(state, blocks);
    let mut last = [[0_u8; BLOCK]; 2];
    last[0][..rest.len()].copy_from_slice(rest);
    last[0][rest.len()] = 0x80;
    let used = if rest.len() < BLOCK - 8 { 1 } else { 2 };
    let bits = (before as u64 + message.len() as u64) * 8;
    last[used - 1][BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
    compress256(state, &last[..used]);
    // Wiped by whole registers: `zeroize` writes single bytes, which takes a fifth of the digest.
    last = [[0; BLOCK]; 2];
    optimization_barrier(&last);
}
