//! Walks the pickles of one stream: one after another to the end, and those inside joblib's arrays. Invariant: every byte of the stream is
//! an opcode, its argument, or raw data whose length was known before.

use std::io::Read;

use super::error::{Fault, Unsafe};
use super::input::Input;
use super::machine::{Machine, Reader, Rules, Step};
use super::opcodes::Opcode;
use super::parse::{self, Arg, Scratch};
use super::report::Report;

/// Bytes that joblib puts between its padding's length and an array.
const PADDING: u8 = 0xff;

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// Pickles and nothing else.
    Pickles,
    /// The one pickle of a torch archive.
    Torch,
    /// The one pickle of an array file.
    One,
}

/// A walk over one stream.
struct Walk<'a, 'r, R> {
    rules: Rules<'a>,
    input: Input<R>,
    report: &'r mut Report,
    scratch: Scratch,
    line: Vec<u8>,
    /// `pickle.load` would have stopped with an error by now, or would have come to an end.
    is_past_straight: bool,
}

/// Walks `input` to its end, and gives it back. What is refused is in `report`; an error ends the walk, at the place that `report` has.
pub(super) fn walk<R: Read>(rules: Rules<'_>, input: Input<R>, contents: Contents, report: &mut Report) -> Result<Input<R>, Fault> {
    let mut walk = Walk { rules, input, report, scratch: Scratch::default(), line: Vec::new(), is_past_straight: false };
    loop {
        walk.pickle(contents)?;
        walk.report.place.opcode = None;
        walk.report.place.offset = walk.input.position();
        if walk.input.is_at_end()? {
            return Ok(walk.input);
        }
        if contents != Contents::Pickles {
            return Err(Fault::broken("there is something after the end of the pickle"));
        }
    }
}

/// An error with its place, and with what was refused before it.
pub(super) fn verdict(fault: Option<Fault>, report: &mut Report) -> Result<(), Unsafe> {
    let mut refusals = report.take_refusals();
    match fault.map(|fault| fault.at(report.place.clone())) {
        None if refusals.is_empty() => Ok(()),
        None => Err(Unsafe::Refused(refusals)),
        Some(Unsafe::Broken(last)) if !refusals.is_empty() => {
            refusals.push(last);
            Err(Unsafe::Refused(refusals))
        }
        Some(_) if !refusals.is_empty() => Err(Unsafe::Refused(refusals)),
        Some(error) => Err(error),
    }
}

impl<'a, R: Read> Walk<'a, '_, R> {
    fn pickle(&mut self, contents: Contents) -> Result<(), Fault> {
        let reader = if contents == Contents::Torch { Reader::Torch } else { Reader::Plain };
        let mut machine = self.begin(reader)?;
        loop {
            let opcode = self.opcode()?;
            let arg = argument(opcode, &mut self.input, self.rules, &mut self.scratch)?;
            match machine.step(opcode, arg, self.report)? {
                Step::Next => {}
                Step::Stop => {
                    self.input.end_frame()?;
                    self.report.kept = self.report.kept.saturating_add(machine.heap.kept());
                    // A second load begins anew.
                    return Ok(());
                }
                Step::Array(Some(bytes)) => self.raw_array(bytes)?,
                Step::Array(None) => self.inner_pickle(&machine)?,
            }
        }
    }

    fn begin(&mut self, reader: Reader) -> Result<Machine<'a>, Fault> {
        let limit = self.rules.limits.pickles;
        self.report.pickles = self.report.pickles.saturating_add(1);
        if self.report.pickles > limit {
            return Err(Fault::Limit { what: "pickles in a file", limit: u64::from(limit) });
        }
        Ok(Machine::new(self.rules, reader, self.report.kept))
    }

    fn opcode(&mut self) -> Result<Opcode, Fault> {
        self.report.place.offset = self.input.position();
        self.report.place.opcode = None;
        self.report.opcodes += 1;
        if self.report.opcodes > self.rules.limits.opcodes {
            return Err(Fault::Limit { what: "opcodes", limit: self.rules.limits.opcodes });
        }
        let opcode = parse::next_opcode(&mut self.input)?;
        self.report.place.opcode = Some(opcode.name);
        Ok(opcode)
    }

    /// The bytes of an array. The length of the padding is no opcode, so a reader that does not expect an array here stops with an error.
    fn raw_array(&mut self, bytes: u64) -> Result<(), Fault> {
        self.input.end_frame()?;
        let padding = self.input.byte()?;
        let is_padding = matches!(padding, 1..=16) && {
            self.input.data(u64::from(padding), 16, &mut self.line)?;
            self.line.iter().all(|byte| *byte == PADDING)
        };
        if !is_padding {
            return Err(Fault::broken("an array is not padded as joblib pads it"));
        }
        self.is_past_straight = true;
        self.input.data(bytes, 0, &mut self.line)?;
        Ok(())
    }

    /// A pickle inside another: joblib reads it anew, and `pickle.load` would go on with the outer one's stack and memo. Both are walked.
    fn inner_pickle(&mut self, outer: &Machine<'a>) -> Result<(), Fault> {
        self.input.end_frame()?;
        let mut straight = (!self.is_past_straight).then(|| outer.read_straight());
        self.is_past_straight = true;
        let mut inner = self.begin(Reader::Inner)?;
        loop {
            let opcode = self.opcode()?;
            let arg = argument(opcode, &mut self.input, self.rules, &mut self.scratch)?;
            let step = inner.step(opcode, arg, self.report)?;
            if let Some(machine) = &mut straight {
                self.report.reading = ", as pickle.load would read it";
                let other = machine.step(opcode, arg, self.report);
                self.report.reading = "";
                match other {
                    Ok(_) => {}
                    Err(Fault::Broken(_)) => straight = None,
                    Err(limit) => return Err(limit),
                }
            }
            if step == Step::Stop {
                self.input.end_frame()?;
                self.report.kept = self.report.kept.saturating_add(inner.heap.kept());
                return Ok(());
            }
        }
    }
}

/// The argument of an opcode. A frame begins after its own.
fn argument<'s, R: Read>(opcode: Opcode, input: &mut Input<R>, rules: Rules<'_>, scratch: &'s mut Scratch) -> Result<Arg<'s>, Fault> {
    let arg = parse::argument(opcode, input, rules.limits.text_bytes, scratch)?;
    if let ("FRAME", Arg::Int(length)) = (opcode.name, arg) {
        input.begin_frame(u64::try_from(length).unwrap_or(u64::MAX))?;
    }
    Ok(arg)
}
