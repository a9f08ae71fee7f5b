//! Splits a stream, in any of the supported forms, into the JSON texts of its receipts by
//! looking only at brackets and quotes.

use std::io::BufRead;

use crate::domain::json::{self, Json};

use super::{ExportError, RECEIPT_BYTES_MAX, syntax};

const TWICE: &str = "the receipts are given twice";

/// Splits a stream into the JSON texts of its receipts.
pub(super) struct Pieces<R> {
    input: R,
    piece: Vec<u8>,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    /// Inside the array, before an element.
    Array {
        first: bool,
        wrapped: bool,
    },
    Lines,
    Ended,
}

impl<R: BufRead> Pieces<R> {
    pub(super) fn new(input: R) -> Self {
        Pieces { input, piece: Vec::new(), form: Form::Unknown }
    }

    pub(super) fn next_receipt(&mut self) -> Result<Option<&[u8]>, ExportError> {
        if self.form == Form::Unknown && self.begin()? {
            return Ok(Some(&self.piece));
        }
        match self.form {
            Form::Unknown | Form::Ended => Ok(None),
            Form::Lines => {
                if self.skip_space()?.is_none() {
                    return Ok(None);
                }
                self.take_value()?;
                Ok(Some(&self.piece))
            }
            Form::Array { first, wrapped } => self.next_element(first, wrapped),
        }
    }

    fn next_element(&mut self, first: bool, wrapped: bool) -> Result<Option<&[u8]>, ExportError> {
        match (self.skip_space()?, first) {
            (Some(b']'), _) => {
                self.input.consume(1);
                self.form = Form::Ended;
                self.end(wrapped)?;
                return Ok(None);
            }
            (Some(b','), false) => self.input.consume(1),
            (Some(_), true) => {}
            _ => return Err(syntax("expected ',' or ']' after a receipt")),
        }
        self.form = Form::Array { first: false, wrapped };
        self.skip_space()?;
        self.take_value()?;
        Ok(Some(&self.piece))
    }

    /// Detects the form. Returns true if that already read the first receipt.
    fn begin(&mut self) -> Result<bool, ExportError> {
        match self.skip_space()? {
            Some(b'[') => {
                self.input.consume(1);
                self.form = Form::Array { first: true, wrapped: false };
                Ok(false)
            }
            Some(b'{') => self.begin_object(),
            Some(_) => Err(syntax("expected '[' or '{'")),
            None => Err(syntax("it is empty")),
        }
    }

    /// An object that has the member `receipts` wraps an array; any other is the first receipt
    /// of the one-per-line form.
    fn begin_object(&mut self) -> Result<bool, ExportError> {
        self.input.consume(1);
        let mut object = vec![b'{'];
        let mut named = false;
        loop {
            match self.skip_space()? {
                Some(b'}') => {
                    self.input.consume(1);
                    object.push(b'}');
                    self.piece = object;
                    self.form = Form::Lines;
                    return Ok(true);
                }
                Some(b',') if object.len() > 1 => {
                    self.input.consume(1);
                    object.push(b',');
                    self.skip_space()?;
                }
                _ if object.len() > 1 => return Err(syntax("expected ',' or '}'")),
                _ => {}
            }
            let is_receipts = self.take_name()? == "receipts";
            if is_receipts && named {
                return Err(syntax(TWICE));
            }
            named |= is_receipts;
            object.append(&mut self.piece);
            object.push(b':');
            if is_receipts && self.skip_space()? == Some(b'[') {
                self.input.consume(1);
                self.form = Form::Array { first: true, wrapped: true };
                return Ok(false);
            }
            self.skip_space()?;
            self.take_value()?;
            object.append(&mut self.piece);
            if object.len() > RECEIPT_BYTES_MAX {
                return Err(syntax("a receipt is too large"));
            }
        }
    }

    /// Takes a member's name and the colon after it; leaves the name as written in `piece`.
    fn take_name(&mut self) -> Result<String, ExportError> {
        self.take_value()?;
        let Ok(Json::String(name)) = json::parse(&self.piece) else {
            return Err(syntax("expected a member's name"));
        };
        if self.skip_space()? != Some(b':') {
            return Err(syntax("expected ':'"));
        }
        self.input.consume(1);
        Ok(name)
    }

    /// Only the rest of the wrapper may follow the array, without a second `receipts` member:
    /// another reader might use that one, while this one verified the first.
    fn end(&mut self, wrapped: bool) -> Result<(), ExportError> {
        let mut open = wrapped;
        loop {
            match self.skip_space()? {
                None if open => return Err(syntax("it is cut off")),
                None => return Ok(()),
                Some(b'}') if open => {
                    self.input.consume(1);
                    open = false;
                }
                Some(b',') if open => {
                    self.input.consume(1);
                    self.skip_space()?;
                    if self.take_name()? == "receipts" {
                        return Err(syntax(TWICE));
                    }
                    self.skip_space()?;
                    self.take_value()?;
                    json::parse(&self.piece).map_err(|error| syntax(&error.to_string()))?;
                }
                Some(_) => return Err(syntax("unexpected data after the receipts")),
            }
        }
    }

    fn skip_space(&mut self) -> Result<Option<u8>, ExportError> {
        loop {
            let buffer = self.input.fill_buf()?;
            let Some(&byte) = buffer.first() else { return Ok(None) };
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(Some(byte));
            }
            let spaces =
                buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
            self.input.consume(spaces);
        }
    }

    /// Takes one JSON value of any type by its brackets and quotes; the parser validates it
    /// later.
    fn take_value(&mut self) -> Result<(), ExportError> {
        self.piece.clear();
        let mut scan = Scan::default();
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                let is_whole = scan.is_outside() && !self.piece.is_empty();
                return if is_whole { Ok(()) } else { Err(syntax("it is cut off")) };
            }
            let (used, ended) = scan.take(buffer);
            self.piece.extend_from_slice(&buffer[..used]);
            self.input.consume(used);
            if self.piece.len() > RECEIPT_BYTES_MAX {
                return Err(syntax("a receipt is too large"));
            }
            if ended {
                return if self.piece.is_empty() { Err(syntax("expected a JSON value")) } else { Ok(()) };
            }
        }
    }
}

/// The scanner's state within a value.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// Where a byte lies relative to the value.
enum Step {
    Inside,
    /// The last byte of the value.
    Last,
    /// The first byte after it: a bare literal ends only at what follows.
    After,
}

impl Scan {
    /// How many of the bytes belong to the value, and whether it ends with them.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, &byte) in bytes.iter().enumerate() {
            match self.step(byte) {
                Step::Inside => {}
                Step::Last => return (index + 1, true),
                Step::After => return (index, true),
            }
        }
        (bytes.len(), false)
    }

    fn step(&mut self, byte: u8) -> Step {
        if self.in_string {
            return self.step_in_string(byte);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => {
                return Step::After;
            }
            b'}' | b']' => {
                self.depth -= 1;
                return self.ended();
            }
            _ => {}
        }
        Step::Inside
    }

    fn step_in_string(&mut self, byte: u8) -> Step {
        self.in_string = self.escaped || byte != b'"';
        self.escaped = !self.escaped && byte == b'\\';
        self.ended()
    }

    fn ended(&self) -> Step {
        if self.is_outside() { Step::Last } else { Step::Inside }
    }

    fn is_outside(&self) -> bool {
        self.depth == 0 && !self.in_string
    }
}
