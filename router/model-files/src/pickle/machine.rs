//! An unpickler that calls nothing: stack, marks and memo of abstract values. Invariant: where Python would do something with a global,
//! [`Machine`] asks whether it may; where Python would stop with an error, it stops too.

use super::allowed::{Allowed, Rule, Use};
use super::error::{Fault, shown};
use super::limits::Limits;
use super::opcodes::{Group, Opcode};
use super::parse::Arg;
use super::report::Report;
use super::values::{Heap, Value};

/// Memo indices may have gaps, as `pickletools.optimize` once left them, but not such that the memo is mostly gaps.
const MEMO_GAP: u64 = 1_024;

/// Who would read the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// `pickle.load`, or `joblib.load` outside of arrays.
    Plain,
    /// `torch.load`, which knows storages by their ids.
    Torch,
    /// `joblib.load`, at an array of objects.
    Inner,
    /// `pickle.load`, when it comes to an array of objects: it does not know that this is another pickle, and reads on with the memo it
    /// has.
    Straight,
}

/// What to do after an opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Next,
    /// The pickle is at its end.
    Stop,
    /// An array of joblib's comes next: its bytes, or none where it is of objects.
    Array(Option<u64>),
}

/// Limits and list, which do not change during a walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) allowed: &'a Allowed,
    pub(super) limits: &'a Limits,
}

/// The unpickler.
#[derive(Debug, Clone)]
pub(super) struct Machine<'a> {
    pub(super) rules: Rules<'a>,
    pub(super) reader: Reader,
    pub(super) protocol: u8,
    pub(super) heap: Heap,
    pub(super) stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    memo_count: usize,
    steps: u64,
}

impl<'a> Machine<'a> {
    /// `kept` bytes of the limit are spent.
    pub(super) fn new(rules: Rules<'a>, reader: Reader, kept: u64) -> Machine<'a> {
        Machine {
            rules,
            reader,
            protocol: 0,
            heap: Heap::new(rules.limits.kept_bytes.saturating_sub(kept)),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            memo_count: 0,
            steps: 0,
        }
    }

    /// The same, as `pickle.load` has it when it comes to an inner pickle.
    pub(super) fn read_straight(&self) -> Machine<'a> {
        Machine { reader: Reader::Straight, ..self.clone() }
    }

    /// Does what an opcode says. FRAME is the input's, not the machine's.
    pub(super) fn step(&mut self, opcode: Opcode, arg: Arg<'_>, report: &mut Report) -> Result<Step, Fault> {
        self.steps += 1;
        match opcode.group {
            Group::Constant => self.constant(opcode, arg)?,
            Group::Collection => self.collection(opcode)?,
            Group::Items => self.items(opcode, report)?,
            Group::Stack => self.move_values(opcode)?,
            Group::Memo => self.remember(opcode, arg)?,
            Group::Name => self.name(opcode, arg, report)?,
            Group::Call => return self.call_opcode(opcode, arg, report),
            Group::Control => return self.control(opcode, arg, report),
        }
        Ok(Step::Next)
    }

    fn control(&mut self, opcode: Opcode, arg: Arg<'_>, report: &mut Report) -> Result<Step, Fault> {
        match (opcode.name, arg) {
            ("PROTO", Arg::Int(protocol @ 0..=5)) => {
                // A second one would change how names are read, and no pickler writes one.
                if self.steps > 1 && self.reader != Reader::Straight {
                    return Err(Fault::broken("it is not at the beginning"));
                }
                self.protocol = u8::try_from(protocol).unwrap_or(u8::MAX);
                report.protocol = report.protocol.max(self.protocol);
                Ok(Step::Next)
            }
            ("PROTO", Arg::Int(protocol)) => Err(Fault::broken(format!("protocol {protocol}: must be from 0 to 5"))),
            ("STOP", _) => {
                self.pop()?;
                Ok(Step::Stop)
            }
            ("FRAME", _) => Ok(Step::Next),
            _ => Err(Fault::broken("takes a buffer that is not in the file")),
        }
    }

    fn constant(&mut self, opcode: Opcode, arg: Arg<'_>) -> Result<(), Fault> {
        let value = match (opcode.name, arg) {
            ("NONE", _) => Value::Nothing,
            ("NEWTRUE", _) => Value::Bool(true),
            ("NEWFALSE", _) => Value::Bool(false),
            (_, Arg::Bool(value)) => Value::Bool(value),
            (_, Arg::Int(number)) => Value::Int(number),
            (_, Arg::Text(Some(text))) => self.heap.new_text(text)?,
            (_, Arg::Text(None)) => Value::SomeText,
            // It can be changed where it is.
            ("BYTEARRAY8", _) => Value::SomeBytes,
            (_, Arg::Bytes(Some(bytes))) => self.heap.new_bytes(bytes)?,
            (_, Arg::Bytes(None)) => Value::SomeBytes,
            _ => Value::Number,
        };
        self.push(value)
    }

    fn collection(&mut self, opcode: Opcode) -> Result<(), Fault> {
        let value = match opcode.name {
            "EMPTY_LIST" => self.heap.new_list(0)?,
            "EMPTY_SET" => Value::Set,
            "EMPTY_TUPLE" => self.heap.new_tuple(&[])?,
            "EMPTY_DICT" => self.heap.new_dict()?,
            "LIST" => {
                let items = self.pop_mark()?;
                self.heap.new_list(items.len())?
            }
            "FROZENSET" => {
                self.pop_mark()?;
                Value::Set
            }
            "TUPLE" => {
                let elements = self.pop_mark()?;
                self.heap.new_tuple(&elements)?
            }
            "DICT" => {
                let items = self.pop_mark()?;
                let dict = self.heap.new_dict()?;
                self.set_items(dict, &items)?;
                dict
            }
            _ => {
                let count = usize::from(opcode.code.saturating_sub(0x84));
                let from = self.stack.len().checked_sub(count).filter(|from| *from >= self.floor()).ok_or_else(empty)?;
                let elements = self.stack.split_off(from);
                self.heap.new_tuple(&elements)?
            }
        };
        self.push(value)
    }

    fn items(&mut self, opcode: Opcode, report: &mut Report) -> Result<(), Fault> {
        let items = match opcode.name {
            "APPEND" => vec![self.pop()?],
            "SETITEM" => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let target = self.top()?;
        let takes = match (opcode.name, target) {
            (_, Value::Refused) => return Ok(()),
            ("ADDITEMS", Value::Set) => true,
            ("APPEND" | "APPENDS", Value::List(_)) => {
                self.heap.extend_list(target, items.len());
                true
            }
            ("APPEND" | "APPENDS", Value::Made(global)) => matches!(report.uses(global), Some(Use::Sequence | Use::Trusted)),
            ("SETITEM" | "SETITEMS", Value::Dict(_)) => {
                if self.heap.dict(target).is_some_and(|dict| dict.is_frozen) {
                    report.refuse("changes the fields of a data type of numpy");
                }
                self.set_items(target, &items)?;
                true
            }
            ("SETITEM" | "SETITEMS", Value::Made(global)) => {
                matches!(report.uses(global), Some(Use::Items | Use::Mapping | Use::Trusted | Use::Checked(Rule::DefaultDict)))
            }
            _ => false,
        };
        if !takes {
            report.refuse(format!("puts items in {}", self.described(target, report)));
        }
        Ok(())
    }

    fn set_items(&mut self, dict: Value, items: &[Value]) -> Result<(), Fault> {
        for pair in items.chunks(2) {
            let [key, value] = pair else { return Err(Fault::broken("a dict has a key without a value")) };
            self.heap.set_item(dict, *key, *value)?;
        }
        Ok(())
    }

    fn move_values(&mut self, opcode: Opcode) -> Result<(), Fault> {
        match opcode.name {
            "MARK" => {
                self.marks.push(self.stack.len());
                self.check_stack()
            }
            "POP_MARK" => self.pop_mark().map(drop),
            "DUP" => {
                let top = self.top()?;
                self.push(top)
            }
            // A mark that is at the top goes instead of a value.
            _ if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                Ok(())
            }
            _ => self.pop().map(drop),
        }
    }

    fn remember(&mut self, opcode: Opcode, arg: Arg<'_>) -> Result<(), Fault> {
        let index = match arg {
            Arg::Int(index) => u64::try_from(index).map_err(|_| Fault::broken("an index of the memo is negative"))?,
            Arg::Bool(index) => u64::from(index),
            Arg::Nothing => self.memo_count as u64,
            _ => return Err(Fault::broken("an index of the memo is no number")),
        };
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        if opcode.name.ends_with("GET") {
            let value = self.memo.get(place).copied().flatten();
            return self.push(value.ok_or_else(|| Fault::broken(format!("nothing has the number {index} in the memo")))?);
        }
        let limit = self.rules.limits.memo;
        let value = self.top()?;
        if place >= self.memo.len() {
            if place >= limit {
                return Err(Fault::Limit { what: "entries of a memo", limit: limit as u64 });
            }
            if index > self.steps.saturating_mul(4).saturating_add(MEMO_GAP) {
                return Err(Fault::broken(format!("{index} is far beyond the end of the memo")));
            }
            self.memo.resize(place + 1, None);
        }
        if let Some(slot) = self.memo.get_mut(place) {
            self.memo_count += usize::from(slot.is_none());
            *slot = Some(value);
        }
        Ok(())
    }

    /// What a value is, in words.
    pub(super) fn described(&self, value: Value, report: &Report) -> String {
        match value {
            Value::Global(global) => format!("the global {}", shown(report.label(global))),
            Value::Made(global) => format!("what {} made", shown(report.label(global))),
            Value::Dtype(_) => "a data type of numpy".to_owned(),
            Value::Text(_) | Value::SomeText => "a text".to_owned(),
            Value::List(_) | Value::Set | Value::Tuple(_) | Value::Dict(_) => "a collection".to_owned(),
            _ => "a plain value".to_owned(),
        }
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), Fault> {
        self.stack.push(value);
        self.check_stack()
    }

    pub(super) fn pop(&mut self) -> Result<Value, Fault> {
        if self.stack.len() <= self.floor() {
            return Err(empty());
        }
        self.stack.pop().ok_or_else(empty)
    }

    pub(super) fn top(&self) -> Result<Value, Fault> {
        if self.stack.len() <= self.floor() {
            return Err(empty());
        }
        self.stack.last().copied().ok_or_else(empty)
    }

    pub(super) fn pop_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let from = self.marks.pop().ok_or_else(|| Fault::broken("there is no mark"))?;
        Ok(self.stack.split_off(from.min(self.stack.len())))
    }

    /// Values below the last mark are out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn check_stack(&self) -> Result<(), Fault> {
        let limit = self.rules.limits.stack;
        if self.stack.len() + self.marks.len() > limit {
            return Err(Fault::Limit { what: "values on the stack", limit: limit as u64 });
        }
        Ok(())
    }
}

fn empty() -> Fault {
    Fault::broken("there are too few values on the stack")
}
