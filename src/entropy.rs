//! The system's randomness, and the ids and secrets made from it.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::domain::time::Timestamp;

/// `N` random bytes.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// `2 N` random hexadecimal digits.
pub fn hex<const N: usize>() -> io::Result<String> {
    Ok(bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A version 7 UUID (RFC 9562, section 5.7): the time in milliseconds, then 74 random bits.
/// Ids that grow with time keep their indexes append-mostly.
pub fn uuid(now: Timestamp) -> io::Result<String> {
    let mut random = bytes::<10>()?;
    random[0] = 0x70 | random[0] & 0x0f;
    random[2] = 0x80 | random[2] & 0x3f;
    let millis = now.as_micros().max(0) / 1000;
    let tail: String = random[4..].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "{:08x}-{:04x}-{:02x}{:02x}-{:02x}{:02x}-{tail}",
        millis >> 16 & 0xffff_ffff,
        millis & 0xffff,
        random[0],
        random[1],
        random[2],
        random[3],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_the_form_of_version_7_and_sorts_by_time() {
        let early = uuid(Timestamp::from_micros(1_795_397_888_000_000)).expect("randomness");
        let late = uuid(Timestamp::from_micros(1_795_397_888_001_000)).expect("randomness");
        assert!(early < late);
        let groups: Vec<_> = early.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(&early[14..15], "7");
        assert!(matches!(&early[19..20], "8" | "9" | "a" | "b"));
        assert_eq!(i64::from_str_radix(&early.replace('-', "")[..12], 16), Ok(1_795_397_888_000));
    }

    #[test]
    fn no_two_secrets_are_alike() {
        assert_ne!(hex::<32>().expect("randomness"), hex::<32>().expect("randomness"));
        assert_eq!(hex::<32>().expect("randomness").len(), 64);
    }
}
