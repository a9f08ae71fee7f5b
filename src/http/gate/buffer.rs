//! A byte queue in one reused allocation: bytes enter at the end and leave at the front.
//!
//! Never grows beyond what its caller reserved, and never exposes a byte that was not read.
//! It starts small and shrinks back, so an idle connection costs a few KiB.

use std::io::{self, Read};

/// Bytes that were read but not yet consumed.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity], start: 0, end: 0 }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.consume(self.len());
    }

    /// Replaces the contents.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.start = 0;
        self.end = bytes.len();
        self.bytes = bytes;
    }

    /// Moves the contents to the front and ensures a total capacity of `capacity` bytes.
    pub(super) fn reserve(&mut self, capacity: usize) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() < capacity {
            self.bytes.resize(capacity, 0);
        }
    }

    /// Shrinks an empty buffer to `capacity`, if it is larger.
    pub(super) fn shrink(&mut self, capacity: usize) {
        if self.is_empty() && self.bytes.len() > capacity {
            self.bytes = vec![0; capacity];
        }
    }

    /// Reads once, at most `most` bytes, into the free space, which must not be empty.
    pub(super) fn fill(&mut self, mut source: impl Read, most: usize) -> io::Result<usize> {
        let until = self.bytes.len().min(self.end.saturating_add(most));
        debug_assert!(until > self.end, "a zero-length read would look like the end");
        loop {
            match source.read(&mut self.bytes[self.end..until]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
