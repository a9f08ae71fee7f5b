//! Decodes a chunked body incrementally and strictly, without I/O.
//!
//! Never panics. Invariant: it consumes exactly the body, from the first chunk size to the
//! blank line after the trailers, and not one byte of the next request. Extensions and
//! trailers are bounded, read, and discarded (RFC 9112 section 7.1 allows ignoring both).

use super::framing::is_token;
use super::refusal::Refusal;

/// Most hexadecimal digits in a chunk size: eight cover 4 GiB, more than any body may have.
const SIZE_DIGITS_MAX: u32 = 8;
/// Most bytes of extensions and trailers over the whole body.
const EXTRAS_BYTES_MAX: usize = 4096;

/// Decoder for one body.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    /// Bytes left of the current chunk.
    left: u64,
    digits: u32,
    extras: usize,
    produced: usize,
    body_bytes_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl ChunkDecoder {
    /// Creates a decoder for one body of at most `body_bytes_max` bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { state: State::Size, left: 0, digits: 0, extras: 0, produced: 0, body_bytes_max }
    }

    /// Whether the whole body has been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes `input` into `out` and returns the number of bytes consumed, which is all of
    /// them unless the body ended.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                at += self.take_data(&input[at..], out);
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn take_data(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        let taken = wanted.min(input.len());
        out.extend_from_slice(&input[..taken]);
        self.left -= taken as u64;
        if self.left == 0 {
            self.state = State::DataReturn;
        }
        taken
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.size_digit(byte),
            (State::Size, b';') if self.digits > 0 => self.extra(State::Extension),
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLineFeed),
            (State::Extension, b'\t' | 0x20..=0x7e) => self.extra(State::Extension),
            (State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::SizeLineFeed, b'\n') => self.size_known(),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size),
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::TrailerName, b':') => self.extra(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, b) if is_token(b) => self.extra(State::TrailerName),
            (State::TrailerValue, b'\t' | 0x20..=0x7e) => self.extra(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            _ => Err(Refusal::CHUNK),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::CHUNK)?;
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(Refusal::CHUNK);
        }
        self.left = self.left * 16 + u64::from(digit);
        Ok(State::Size)
    }

    fn size_known(&mut self) -> Result<State, Refusal> {
        self.digits = 0;
        if self.left == 0 {
            return Ok(State::TrailerStart);
        }
        let room = self.body_bytes_max.saturating_sub(self.produced);
        let size = usize::try_from(self.left).map_err(|_| Refusal::BODY)?;
        if size > room {
            return Err(Refusal::BODY);
        }
        self.produced += size;
        Ok(State::Data)
    }

    fn extra(&mut self, next: State) -> Result<State, Refusal> {
        self.extras += 1;
        if self.extras > EXTRAS_BYTES_MAX { Err(Refusal::CHUNK) } else { Ok(next) }
    }
}
