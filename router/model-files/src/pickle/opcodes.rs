//! Pickle's opcodes: protocols 0 to 5, as the module `pickletools` of Python 3.8 and later lists them.

/// How an opcode's argument is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// There is none.
    Nothing,
    /// A decimal number on a line; `00` and `01` are booleans.
    IntLine,
    /// A decimal number on a line, with an `L` at its end.
    LongLine,
    /// A number on a line, as `float` reads it.
    FloatLine,
    /// A quoted text on a line.
    QuotedLine,
    /// A text on a line.
    Line,
    /// Two lines, a module and a name.
    TwoLines,
    /// A little-endian unsigned number of so many bytes.
    Unsigned(usize),
    /// Four bytes, signed.
    Signed,
    /// Eight bytes of a float.
    Float,
    /// A length of so many bytes, and then so much text.
    Text(usize),
    /// A length of so many bytes, and then so many bytes.
    Bytes(usize),
    /// A length of so many bytes, and then a two's complement number.
    Long(usize),
}

/// What an opcode is for: who takes care of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Pushes a value that is in the opcode.
    Constant,
    /// Makes a collection.
    Collection,
    /// Puts items in one.
    Items,
    /// Moves values.
    Stack,
    /// Remembers and recalls values.
    Memo,
    /// Finds a global.
    Name,
    /// Calls something, or gives an object its state.
    Call,
    /// Says how to read.
    Control,
}

/// An opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opcode {
    pub(super) code: u8,
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) group: Group,
}

/// The opcode of a byte; none where there is none.
pub(super) fn opcode(code: u8) -> Option<Opcode> {
    let (name, form, group) = of_values(code).or_else(|| of_deeds(code))?;
    Some(Opcode { code, name, form, group })
}

type Row = Option<(&'static str, Form, Group)>;

/// Opcodes that make a value.
fn of_values(code: u8) -> Row {
    use Form::{Bytes, Float, FloatLine, IntLine, Line, Long, LongLine, Nothing, QuotedLine, Signed, Text, Unsigned};
    use Group::{Collection, Constant};
    Some(match code {
        b'I' => ("INT", IntLine, Constant),
        b'J' => ("BININT", Signed, Constant),
        b'K' => ("BININT1", Unsigned(1), Constant),
        b'M' => ("BININT2", Unsigned(2), Constant),
        b'L' => ("LONG", LongLine, Constant),
        0x8a => ("LONG1", Long(1), Constant),
        0x8b => ("LONG4", Long(4), Constant),
        b'S' => ("STRING", QuotedLine, Constant),
        b'T' => ("BINSTRING", Text(4), Constant),
        b'U' => ("SHORT_BINSTRING", Text(1), Constant),
        b'B' => ("BINBYTES", Bytes(4), Constant),
        b'C' => ("SHORT_BINBYTES", Bytes(1), Constant),
        0x8e => ("BINBYTES8", Bytes(8), Constant),
        0x96 => ("BYTEARRAY8", Bytes(8), Constant),
        b'N' => ("NONE", Nothing, Constant),
        0x88 => ("NEWTRUE", Nothing, Constant),
        0x89 => ("NEWFALSE", Nothing, Constant),
        b'V' => ("UNICODE", Line, Constant),
        0x8c => ("SHORT_BINUNICODE", Text(1), Constant),
        b'X' => ("BINUNICODE", Text(4), Constant),
        0x8d => ("BINUNICODE8", Text(8), Constant),
        b'F' => ("FLOAT", FloatLine, Constant),
        b'G' => ("BINFLOAT", Float, Constant),
        b']' => ("EMPTY_LIST", Nothing, Collection),
        b'l' => ("LIST", Nothing, Collection),
        b')' => ("EMPTY_TUPLE", Nothing, Collection),
        b't' => ("TUPLE", Nothing, Collection),
        0x85 => ("TUPLE1", Nothing, Collection),
        0x86 => ("TUPLE2", Nothing, Collection),
        0x87 => ("TUPLE3", Nothing, Collection),
        b'}' => ("EMPTY_DICT", Nothing, Collection),
        b'd' => ("DICT", Nothing, Collection),
        0x8f => ("EMPTY_SET", Nothing, Collection),
        0x91 => ("FROZENSET", Nothing, Collection),
        _ => return None,
    })
}

/// Opcodes that do something.
fn of_deeds(code: u8) -> Row {
    use Form::{IntLine, Line, Nothing, Signed, TwoLines, Unsigned};
    use Group::{Call, Control, Items, Memo, Name, Stack};
    Some(match code {
        b'a' => ("APPEND", Nothing, Items),
        b'e' => ("APPENDS", Nothing, Items),
        b's' => ("SETITEM", Nothing, Items),
        b'u' => ("SETITEMS", Nothing, Items),
        0x90 => ("ADDITEMS", Nothing, Items),
        b'0' => ("POP", Nothing, Stack),
        b'2' => ("DUP", Nothing, Stack),
        b'(' => ("MARK", Nothing, Stack),
        b'1' => ("POP_MARK", Nothing, Stack),
        b'g' => ("GET", IntLine, Memo),
        b'h' => ("BINGET", Unsigned(1), Memo),
        b'j' => ("LONG_BINGET", Unsigned(4), Memo),
        b'p' => ("PUT", IntLine, Memo),
        b'q' => ("BINPUT", Unsigned(1), Memo),
        b'r' => ("LONG_BINPUT", Unsigned(4), Memo),
        0x94 => ("MEMOIZE", Nothing, Memo),
        b'c' => ("GLOBAL", TwoLines, Name),
        0x93 => ("STACK_GLOBAL", Nothing, Name),
        0x82 => ("EXT1", Unsigned(1), Name),
        0x83 => ("EXT2", Unsigned(2), Name),
        0x84 => ("EXT4", Signed, Name),
        b'P' => ("PERSID", Line, Name),
        b'Q' => ("BINPERSID", Nothing, Name),
        b'R' => ("REDUCE", Nothing, Call),
        b'b' => ("BUILD", Nothing, Call),
        b'i' => ("INST", TwoLines, Call),
        b'o' => ("OBJ", Nothing, Call),
        0x81 => ("NEWOBJ", Nothing, Call),
        0x92 => ("NEWOBJ_EX", Nothing, Call),
        0x80 => ("PROTO", Unsigned(1), Control),
        b'.' => ("STOP", Nothing, Control),
        0x95 => ("FRAME", Unsigned(8), Control),
        0x97 => ("NEXT_BUFFER", Nothing, Control),
        0x98 => ("READONLY_BUFFER", Nothing, Control),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_68_and_no_two_have_one_name() {
        let all: Vec<Opcode> = (0..=u8::MAX).filter_map(opcode).collect();
        let names: std::collections::HashSet<&str> = all.iter().map(|one| one.name).collect();
        assert_eq!((all.len(), names.len()), (68, 68));
    }
}
