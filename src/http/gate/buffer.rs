//! A byte queue over one reused allocation: bytes come in at the end and leave at the front.
//!
//! Never holds more than its caller asks room for, and never hands out a byte that was not
//! read. It starts small and shrinks back, so an idle connection costs a few KiB.

use std::io::{self, Read};

/// Bytes read and not yet consumed.
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

    /// Replaces what it holds.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.start = 0;
        self.end = bytes.len();
        self.bytes = bytes;
    }

    /// Moves the bytes to the front and makes room for `capacity` bytes in all.
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

    /// Reads once into the free room, which must not be empty; at most `most` bytes.
    pub(super) fn fill(&mut self, mut source: impl Read, most: usize) -> io::Result<usize> {
        let until = self.bytes.len().min(self.end.saturating_add(most));
        debug_assert!(until > self.end, "a read needs room, or its 0 would mean the end");
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
