//! A look over the whole file before it is decoded, without recursion and without keeping anything of it.
//!
//! Invariant: of what passes, every reader of protocol buffers makes the same model, and decoding it takes no more memory than [`BUDGET_FLOOR`] and
//! [`BUDGET_TIMES`] the file. So a field that is not in the format, one of another type, and a second copy of one that is there once are
//! refused: one reader would skip it, one would merge it, one would take the last.

use prost::encoding::{WireType, decode_key, decode_varint};

use super::super::error::Malformed;
use super::super::limits::Limits;
use super::schema::{Holds, Kind};

/// So much a file of any size may take once it is decoded, in bytes.
const BUDGET_FLOOR: usize = 64 << 20;
/// And so many times its own size. An empty message is 2 bytes in a file, and hundreds in memory.
const BUDGET_TIMES: usize = 4;
/// Messages within messages, of which graphs are some. Below what prost allows, which is 100.
const MOST_OPEN: usize = 64;

/// A message that is being looked at.
struct Open {
    kind: Kind,
    /// Where it ends, in bytes of the file.
    end: usize,
    /// Fields that were seen, by number; those of ONNX are below 64.
    seen: u64,
}

/// Looks over a file.
pub(super) fn check(bytes: &[u8], limits: &Limits) -> Result<(), Malformed> {
    let budget = bytes.len().saturating_mul(BUDGET_TIMES).saturating_add(BUDGET_FLOOR);
    let mut scan = Scan { rest: bytes, length: bytes.len(), open: vec![Open { kind: Kind::Model, end: bytes.len(), seen: 0 }], decoded: 0 };
    while let Some(message) = scan.open.last() {
        if scan.at() == message.end {
            scan.open.pop();
            continue;
        }
        scan.field(limits)?;
        if scan.decoded > budget {
            let what = format!("would take more than {budget} bytes of memory: it is made of very many very small parts");
            return Err(Malformed::new(format!("byte {}", scan.at()), what));
        }
    }
    Ok(())
}

struct Scan<'a> {
    rest: &'a [u8],
    length: usize,
    open: Vec<Open>,
    decoded: usize,
}

impl Scan<'_> {
    /// Bytes that were passed.
    fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    fn fault(&self, what: impl std::fmt::Display) -> Malformed {
        let kind = self.open.last().map_or(Kind::Model, |message| message.kind);
        Malformed::new(format_args!("byte {}, in a {kind:?}", self.at()), what)
    }

    /// Passes one field, or enters it when it is a message.
    fn field(&mut self, limits: &Limits) -> Result<(), Malformed> {
        let mut rest = self.rest;
        let (number, wire) =
            decode_key(&mut rest).map_err(|error| self.fault(format_args!("{error}: not an ONNX file, or a broken one")))?;
        let Some(message) = self.open.last_mut() else { return Ok(()) };
        let Some((holds, is_repeated)) = message.kind.field(number) else {
            return Err(self.fault(format_args!("field {number} is none that ONNX has: not an ONNX file, or a broken one")));
        };
        let bit = 1_u64.checked_shl(number).unwrap_or(0);
        let was_seen = message.seen & bit != 0;
        message.seen |= bit;
        // A value's type is one of several.
        let other_types = message.kind == Kind::Type && (message.seen & !(1 << 6)).count_ones() > 1;
        if (was_seen && !is_repeated) || other_types {
            return Err(self.fault(format_args!("field {number} is there twice")));
        }
        self.rest = rest;
        self.value(holds, is_repeated, wire, limits)?;
        let message = self.open.last().map_or(0, |message| message.end);
        if self.at() > message { Err(self.fault("a field is longer than what it is in")) } else { Ok(()) }
    }

    fn value(&mut self, holds: Holds, is_repeated: bool, wire: WireType, limits: &Limits) -> Result<(), Malformed> {
        match (holds, wire) {
            (Holds::Varint, WireType::Varint) => {
                self.varint()?;
                self.decoded += 8;
            }
            (Holds::Fixed32, WireType::ThirtyTwoBit) => self.pass(4)?,
            (Holds::Fixed64, WireType::SixtyFourBit) => self.pass(8)?,
            (Holds::Varint | Holds::Fixed32 | Holds::Fixed64, WireType::LengthDelimited) if is_repeated => self.packed(holds)?,
            (Holds::Message(kind), WireType::LengthDelimited) => self.enter(kind, limits)?,
            (Holds::Text | Holds::Bytes, WireType::LengthDelimited) => {
                let length = self.length_of()?;
                self.pass(length)?;
                self.decoded = self.decoded.saturating_add(holds.decoded_bytes());
            }
            _ => return Err(self.fault("a field is of another type than ONNX has")),
        }
        Ok(())
    }

    /// Numbers one after the other.
    fn packed(&mut self, holds: Holds) -> Result<(), Malformed> {
        let length = self.length_of()?;
        let numbers = self.rest.get(..length).unwrap_or_default();
        match holds {
            // The last byte of each has its highest bit clear.
            Holds::Varint => self.decoded += 8 * numbers.iter().filter(|byte| **byte < 0x80).count(),
            _ if length % holds.decoded_bytes() != 0 => return Err(self.fault("a list of numbers ends within one")),
            _ => {}
        }
        self.pass(length)
    }

    fn enter(&mut self, kind: Kind, limits: &Limits) -> Result<(), Malformed> {
        let length = self.length_of()?;
        let end = self.at() + length;
        if self.open.last().is_some_and(|message| end > message.end) {
            return Err(self.fault("a message is longer than what it is in"));
        }
        let graphs = self.open.iter().filter(|message| message.kind == Kind::Graph).count();
        if kind == Kind::Graph && graphs >= limits.nesting {
            return Err(self.fault(format_args!("graphs within graphs: must be at most {} deep", limits.nesting)));
        }
        if self.open.len() >= MOST_OPEN {
            return Err(self.fault(format_args!("messages within messages: must be at most {MOST_OPEN} deep")));
        }
        self.decoded = self.decoded.saturating_add(kind.decoded_bytes());
        self.open.push(Open { kind, end, seen: 0 });
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut rest = self.rest;
        let number = decode_varint(&mut rest).map_err(|_| self.fault("a number has no end: the file was cut off, or is no ONNX file"))?;
        self.rest = rest;
        Ok(number)
    }

    /// The length of what follows, which is there.
    fn length_of(&mut self) -> Result<usize, Malformed> {
        let length = self.varint()?;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        length.ok_or_else(|| self.fault("a part is longer than what is left of the file: it was cut off, or is no ONNX file"))
    }

    fn pass(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or_else(|| self.fault("the file was cut off"))?;
        self.decoded = self.decoded.saturating_add(bytes);
        Ok(())
    }
}
