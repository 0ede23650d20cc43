//! Whether bytes of which nobody says what they are would be unpickled by some loader. Opcodes are read and not followed; so this is for telling, and
//! `examine` for judging. Invariant: what `pickle.load` or `joblib.load` would find a global in is told, whatever is broken after it.

use std::io::{self, Read};

use super::compression::Compression;
use super::error::Fault;
use super::examine::budget;
use super::input::Input;
use super::limits::Limits;
use super::npy;
use super::opcodes::Form;
use super::parse::{Arg, Scratch, argument, next_opcode};
use super::zip_layout::LOCAL;

/// Where the head of a ZIP entry has the length of its name, and where the name begins.
const NAME_LENGTH_AT: std::ops::Range<usize> = 26..28;
const NAME_AT: usize = 30;

/// What bytes are, read as a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// It names a global, or says that it is one and comes to its end.
    Pickle,
    /// It says that it is one, and ends before it names anything.
    Cut,
    /// It names nothing, and is one from its first byte to its last.
    Plain,
    /// It is none.
    Other,
}

/// Whether a file that begins with these bytes is a pickle of protocol 0 to 5, an array file, an archive of torch's or numpy's, or a compressed pickle. `head` may be the
/// whole file; of a compressed one it has to be as much as its first block. It may be something else all the same: an examination tells.
#[must_use]
pub fn is_pickle(head: &[u8]) -> bool {
    let limits = Limits::default();
    if head.starts_with(LOCAL) {
        let length = head.get(NAME_LENGTH_AT).and_then(|bytes| Some(usize::from(u16::from_le_bytes(bytes.try_into().ok()?))));
        let name = length.and_then(|length| head.get(NAME_AT..NAME_AT.checked_add(length)?)).unwrap_or_default();
        return name.ends_with(b"/data.pkl") || name.ends_with(b".npy");
    }
    if head.starts_with(npy::MAGIC) {
        return true;
    }
    let budget = budget(head, &limits);
    let read = match Compression::guess(head) {
        None => read(&mut Input::new(head, budget), &limits),
        Some(compression) => match compression.open(head, limits.dictionary_bytes) {
            Ok(stream) => read(&mut Input::new(stream, budget), &limits),
            Err(_) => return false,
        },
    };
    matches!(read, Ok(Reads::Pickle | Reads::Cut | Reads::Plain))
}

/// Whether some loader would unpickle these bytes, which are no archive; also where that cannot be told, since a stream cannot be unpacked here.
pub(super) fn is_unpickled(bytes: &[u8], limits: &Limits) -> bool {
    if bytes.starts_with(npy::MAGIC) {
        return true;
    }
    let budget = budget(bytes, limits);
    let Some(compression) = Compression::guess(bytes) else {
        return names_something(&mut Input::new(bytes, budget), limits);
    };
    let Ok(stream) = compression.open(bytes, limits.dictionary_bytes) else { return true };
    let mut input = Input::new(Watched { reader: stream, has_failed: false }, budget);
    if names_something(&mut input, limits) {
        return true;
    }
    let is_at_end = input.is_at_end().unwrap_or(true);
    let (watched, _) = input.into_parts();
    // Others go on with what comes after a stream.
    watched.has_failed || (is_at_end && watched.reader.left_over() > 0)
}

/// Whether a pickle is read that names a global; or nobody can say.
pub(super) fn names_something<R: Read>(input: &mut Input<R>, limits: &Limits) -> bool {
    matches!(read(input, limits), Ok(Reads::Pickle) | Err(Fault::Limit { .. }))
}

/// Reads opcodes until a global is named or there is none.
fn read<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Reads, Fault> {
    let mut has_protocol = false;
    match opcodes(input, limits, &mut has_protocol) {
        Err(Fault::Broken(_)) if has_protocol => Ok(Reads::Cut),
        read => read,
    }
}

/// Python takes numbers and texts on a line in more ways than one: they are not looked at. Two bytes that say a protocol also begin numbers, as the length that a
/// safetensors file has first: opcodes have to come after them, and then whatever finds a global is one, by whatever name.
fn opcodes<R: Read>(input: &mut Input<R>, limits: &Limits, has_protocol: &mut bool) -> Result<Reads, Fault> {
    let (mut scratch, mut line) = (Scratch::default(), Vec::new());
    let (mut has_text, mut is_whole) = (false, false);
    for count in 0..limits.opcodes {
        if input.is_at_end()? {
            return Ok(match (is_whole, *has_protocol) {
                (true, _) => Reads::Plain,
                (false, true) => Reads::Cut,
                (false, false) => Reads::Other,
            });
        }
        let Ok(opcode) = next_opcode(input) else { return Ok(Reads::Other) };
        *has_protocol |= opcode.name == "PROTO";
        // What is after the end of a pickle does not matter, and neither whether a name could be read.
        if *has_protocol && matches!(opcode.name, "GLOBAL" | "INST" | "STACK_GLOBAL" | "EXT1" | "EXT2" | "EXT4" | "STOP") {
            return Ok(Reads::Pickle);
        }
        if matches!(opcode.form, Form::IntLine | Form::LongLine | Form::FloatLine | Form::QuotedLine | Form::Line) {
            input.line(limits.text_bytes, &mut line)?;
            has_text = true;
            is_whole = false;
            continue;
        }
        match (opcode.name, argument(opcode, input, limits.text_bytes, &mut scratch)?) {
            ("GLOBAL" | "INST", Arg::Names(Some((module, name)))) if is_path(module) && is_path(name) => return Ok(Reads::Pickle),
            ("STACK_GLOBAL", _) if has_text => return Ok(Reads::Pickle),
            (_, Arg::Text(Some(text))) => has_text |= is_path(text),
            _ => {}
        }
        is_whole = opcode.name == "STOP" && count > 0;
    }
    Err(Fault::Limit { what: "opcodes", limit: limits.opcodes })
}

/// A name that Python can find: `os`, `os.path`.
fn is_path(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '.'))
}

/// A stream that remembers that it could not be unpacked.
struct Watched<R> {
    reader: R,
    has_failed: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        self.has_failed |= read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}
