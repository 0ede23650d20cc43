//! One opcode after another, with its argument. Knows nothing of what they do. Invariant: an argument is either known whole or not at all.

use std::io::Read;

use super::error::Fault;
use super::input::Input;
use super::opcodes::{Form, Opcode, opcode};

/// Where arguments are put, so that none is allocated for each opcode.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    first: Vec<u8>,
    second: Vec<u8>,
}

/// An opcode's argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arg<'a> {
    Nothing,
    Bool(bool),
    Int(i64),
    /// A number that nothing depends on.
    Number,
    /// A text; none where it is longer than what is kept, or has escapes.
    Text(Option<&'a str>),
    /// Bytes, likewise.
    Bytes(Option<&'a [u8]>),
    /// A module and a name; none likewise.
    Names(Option<(&'a str, &'a str)>),
}

/// Reads the argument of `opcode`, which was read before.
pub(super) fn argument<'s, R: Read>(
    opcode: Opcode,
    input: &mut Input<R>,
    text_bytes: usize,
    scratch: &'s mut Scratch,
) -> Result<Arg<'s>, Fault> {
    let Scratch { first, second } = scratch;
    Ok(match opcode.form {
        Form::Nothing => Arg::Nothing,
        Form::Unsigned(width) => {
            let number = input.number(width)?;
            Arg::Int(i64::try_from(number).map_err(|_| Fault::broken(format!("a length of {number} bytes is longer than any file")))?)
        }
        Form::Signed => Arg::Int(i64::from(signed_32(input.number(4)?))),
        Form::Float => {
            input.number(8)?;
            Arg::Number
        }
        Form::Text(width) => {
            let length = length(opcode, input, width)?;
            let whole = input.data(length, text_bytes, first)?;
            Arg::Text(if whole { std::str::from_utf8(first).ok() } else { None })
        }
        Form::Bytes(width) => {
            let length = length(opcode, input, width)?;
            let whole = input.data(length, text_bytes, first)?;
            Arg::Bytes(whole.then_some(first.as_slice()))
        }
        Form::Long(width) => {
            let length = length(opcode, input, width)?;
            let whole = input.data(length, 8, first)?;
            if whole { Arg::Int(twos_complement(first)) } else { Arg::Number }
        }
        Form::IntLine | Form::LongLine | Form::FloatLine => {
            let whole = input.line(text_bytes, first)?;
            number_line(opcode.form, whole, first)?
        }
        Form::QuotedLine => {
            let whole = input.line(text_bytes, first)?;
            if whole { quoted(first)? } else { Arg::Text(None) }
        }
        Form::Line => {
            let whole = input.line(text_bytes, first)?;
            Arg::Text(if whole { plain(first) } else { None })
        }
        Form::TwoLines => {
            let both = input.line(text_bytes, first)? & input.line(text_bytes, second)?;
            let names = || Some((std::str::from_utf8(first).ok()?, std::str::from_utf8(second).ok()?));
            Arg::Names(if both { names() } else { None })
        }
    })
}

/// Reads the next opcode's byte.
pub(super) fn next_opcode<R: Read>(input: &mut Input<R>) -> Result<Opcode, Fault> {
    let code = input.byte()?;
    opcode(code).ok_or_else(|| Fault::broken(format!("0x{code:02x} is no opcode")))
}

fn length<R: Read>(opcode: Opcode, input: &mut Input<R>, width: usize) -> Result<u64, Fault> {
    let number = input.number(width)?;
    // These four are signed, and a negative length is an error.
    let is_signed = matches!(opcode.name, "BINSTRING" | "LONG4");
    if number > i64::MAX as u64 || (is_signed && signed_32(number) < 0) {
        return Err(Fault::broken("a length is negative"));
    }
    Ok(number)
}

fn signed_32(number: u64) -> i32 {
    u32::try_from(number).unwrap_or(u32::MAX).cast_signed()
}

/// At most eight bytes, little-endian.
fn twos_complement(bytes: &[u8]) -> i64 {
    let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(wide)
}

fn number_line(form: Form, whole: bool, line: &[u8]) -> Result<Arg<'static>, Fault> {
    if !whole {
        return if form == Form::LongLine { Ok(Arg::Number) } else { Err(Fault::broken("a number is too long")) };
    }
    let text = std::str::from_utf8(line).map_err(|_| Fault::broken("a number is not one"))?;
    let no_number = || Fault::broken(format!("{text:?} is not a number"));
    if form == Form::FloatLine {
        return text.parse::<f64>().map(|_| Arg::Number).map_err(|_| no_number());
    }
    match (form, text) {
        (Form::IntLine, "00") => return Ok(Arg::Bool(false)),
        (Form::IntLine, "01") => return Ok(Arg::Bool(true)),
        _ => {}
    }
    let digits = if form == Form::LongLine { text.strip_suffix('L').unwrap_or(text) } else { text };
    let magnitude = digits.strip_prefix('-').unwrap_or(digits);
    if magnitude.is_empty() || !magnitude.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_number());
    }
    Ok(digits.parse().map_or(Arg::Number, Arg::Int))
}

/// A text in quotes, as Python 2 wrote it: escapes are not looked into.
fn quoted(line: &[u8]) -> Result<Arg<'_>, Fault> {
    let inner = match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return Err(Fault::broken("a text is not in quotes")),
    };
    Ok(Arg::Text(plain(inner)))
}

/// A text without escapes and in ASCII: what every reader of these forms agrees on.
fn plain(line: &[u8]) -> Option<&str> {
    let is_plain = line.iter().all(|byte| byte.is_ascii() && *byte != b'\\');
    if is_plain { std::str::from_utf8(line).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        assert_eq!(twos_complement(&[]), 0);
        assert_eq!(twos_complement(&[0xff]), -1);
        assert_eq!(twos_complement(&[0, 1]), 256);
        assert_eq!(signed_32(0xffff_fffe), -2);
        assert_eq!(number_line(Form::IntLine, true, b"01"), Ok(Arg::Bool(true)));
        assert_eq!(number_line(Form::LongLine, true, b"-7L"), Ok(Arg::Int(-7)));
        assert!(number_line(Form::IntLine, true, b"0x10").is_err());
        assert!(number_line(Form::IntLine, true, b"").is_err());
        assert_eq!(number_line(Form::FloatLine, true, b"nan"), Ok(Arg::Number));
    }

    #[test]
    fn a_text_with_an_escape_is_not_known() {
        assert_eq!(quoted(b"'os'"), Ok(Arg::Text(Some("os"))));
        assert_eq!(quoted(br"'\x6fs'"), Ok(Arg::Text(None)));
        assert!(quoted(b"'os").is_err());
    }
}
