//! Request signatures: HMAC-SHA256 (RFC 2104) with a key that is not stored.
//!
//! HMAC uses its key only to fill the first block of each of its two hashes. The SHA-256
//! states after those blocks are all that verification needs, so they are stored and the
//! key's text is dropped. They are as good as the key for signing requests to this gateway,
//! but do not reveal the key, which may be in use elsewhere.

use sha2::block_api::compress256;

use super::canon::Hash;

/// Block size of SHA-256, in bytes.
const BLOCK_BYTES: usize = 64;
/// Size of a stored [`SigningKey`], in bytes.
pub const KEY_BYTES: usize = 64;
/// Prefix of a signature.
const SCHEME: &str = "sha256=";

/// SHA-256 state between blocks.
type State = [u32; 8];

/// Initial SHA-256 state (FIPS 180-4, section 5.3.3).
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A key, as the states of the inner and the outer hash. Secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SigningKey {
    inner: State,
    outer: State,
}

/// Why a request's signature is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has no signature, or more than one.
    Missing,
    /// Its signature is wrong, or not of the form `sha256=<64 lowercase hex digits>`.
    Invalid,
}

impl SigningKey {
    /// Derives the key from its text. A text longer than a block is hashed first (RFC 2104,
    /// section 2).
    pub fn new(text: &[u8]) -> Self {
        let mut block = [0; BLOCK_BYTES];
        match block.get_mut(..text.len()) {
            Some(start) => start.copy_from_slice(text),
            None => block[..32].copy_from_slice(Hash::of(text).as_bytes()),
        }
        let after = |pad: u8| {
            let mut state = INITIAL;
            compress256(&mut state, &[block.map(|byte| byte ^ pad)]);
            state
        };
        SigningKey { inner: after(0x36), outer: after(0x5c) }
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> Hash {
        finish(self.outer, finish(self.inner, message).as_bytes())
    }

    /// Verifies a header against a body, in time that does not depend on where a wrong
    /// signature differs.
    pub fn check(&self, header: Option<&str>, body: &[u8]) -> Result<(), Fault> {
        let given = header.ok_or(Fault::Missing)?;
        let given = given.strip_prefix(SCHEME).and_then(Hash::parse).ok_or(Fault::Invalid)?;
        if given.equals_in_constant_time(&self.sign(body)) { Ok(()) } else { Err(Fault::Invalid) }
    }

    /// Only for storing in the database.
    pub fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        for (four, word) in bytes.chunks_exact_mut(4).zip(self.inner.iter().chain(&self.outer)) {
            four.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`SigningKey::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut key = SigningKey { inner: INITIAL, outer: INITIAL };
        let words = key.inner.iter_mut().chain(&mut key.outer);
        for (word, four) in words.zip(bytes.chunks_exact(4)) {
            *word = four.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        key
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// The digest of the block that led to `state`, followed by `rest` (FIPS 180-4, section 5.1.1).
fn finish(mut state: State, rest: &[u8]) -> Hash {
    let (blocks, tail) = rest.as_chunks::<BLOCK_BYTES>();
    compress256(&mut state, blocks);
    let mut last = [0; 2 * BLOCK_BYTES];
    last[..tail.len()].copy_from_slice(tail);
    last[tail.len()] = 0x80;
    let bits = 8 * (BLOCK_BYTES + rest.len()) as u64;
    // The length takes eight bytes after the 0x80 marker.
    let end = if tail.len() + 1 + 8 <= BLOCK_BYTES { BLOCK_BYTES } else { 2 * BLOCK_BYTES };
    last[end - 8..end].copy_from_slice(&bits.to_be_bytes());
    compress256(&mut state, last[..end].as_chunks::<BLOCK_BYTES>().0);
    let mut digest = [0; 32];
    for (four, word) in digest.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    Hash::from_bytes(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, section 4, without case 5, which is about truncation.
    #[test]
    fn the_vectors_of_rfc_4231_hold() {
        let counting: Vec<u8> = (1..=25).collect();
        let large = "This is a test using a larger than block-size key and a larger than block-size \
                     data. The key needs to be hashed before being used by the HMAC algorithm.";
        let cases: [(&[u8], &[u8], &str); 6] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (&counting, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &[0xaa; 131],
                large.as_bytes(),
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, message, signature) in cases {
            assert_eq!(SigningKey::new(key).sign(message).to_string(), signature);
        }
    }

    /// HMAC as RFC 2104 defines it, with two complete hashes.
    fn by_the_book(key: &[u8], message: &[u8]) -> Hash {
        let mut block = if key.len() > 64 { Hash::of(key).as_bytes().to_vec() } else { key.to_vec() };
        block.resize(64, 0);
        let pad = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
        let inner = Hash::of(&[pad(0x36), message.to_vec()].concat());
        Hash::of(&[pad(0x5c), inner.as_bytes().to_vec()].concat())
    }

    #[test]
    fn every_length_about_the_edges_of_blocks_is_signed_as_by_the_book() {
        let bytes: Vec<u8> = (0..=255).cycle().take(200).collect();
        for key in [0, 1, 31, 32, 63, 64, 65, 128, 200].map(|length| &bytes[..length]) {
            for length in 0..=200 {
                let signed = SigningKey::new(key).sign(&bytes[..length]);
                assert_eq!(signed, by_the_book(key, &bytes[..length]), "{} {length}", key.len());
            }
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_never_shown() {
        let key = SigningKey::new(b"secret");
        assert_eq!(SigningKey::from_bytes(&key.to_bytes()), key);
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
        let bytes = key.to_bytes();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn only_the_signature_of_these_bytes_under_this_key_is_taken() {
        let (key, body) = (SigningKey::new(b"k"), b"{\"a\":1}");
        let good = format!("sha256={}", key.sign(body));
        assert_eq!(key.check(Some(&good), body), Ok(()));
        assert_eq!(key.check(None, body), Err(Fault::Missing));
        let other = format!("sha256={}", SigningKey::new(b"l").sign(body));
        let last = if good.ends_with('0') { "1" } else { "0" };
        let near = format!("{}{last}", &good[..good.len() - 1]);
        for bad in
            ["", "sha256=", &good[7..], &good.to_uppercase(), &format!("{good} "), &other, &near, "sha1=00"]
        {
            assert_eq!(key.check(Some(bad), body), Err(Fault::Invalid), "{bad}");
        }
        assert_eq!(key.check(Some(&good), b"{\"a\": 1}"), Err(Fault::Invalid));
    }
}
