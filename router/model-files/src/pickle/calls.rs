//! Opcodes that call something or make an instance. Invariant: only a global of the list is called, with arguments that its entry allows;
//! what a call made is never called.

use super::allowed::{Rule, Use};
use super::dtype;
use super::error::{Fault, shown};
use super::machine::{Machine, Step};
use super::opcodes::Opcode;
use super::parse::Arg;
use super::report::Report;
use super::values::Value;

/// What a `defaultdict` may call for a key that is not there.
const FACTORIES: &[&str] =
    &["builtins.list", "builtins.dict", "builtins.set", "builtins.int", "builtins.float", "builtins.str", "collections.OrderedDict"];

impl Machine<'_> {
    pub(super) fn call_opcode(&mut self, opcode: Opcode, arg: Arg<'_>, report: &mut Report) -> Result<Step, Fault> {
        let value = match opcode.name {
            "BUILD" => return self.build(report),
            "REDUCE" => {
                let (args, callee) = (self.pop()?, self.pop()?);
                match self.elements(args) {
                    Some(args) => self.call(callee, &args, report)?,
                    None => self.refused_call(callee, "with arguments that cannot be told", report),
                }
            }
            "NEWOBJ" => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.make(class, args, report)?
            }
            "NEWOBJ_EX" => {
                let (keywords, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                let has_none = self.heap.dict(keywords).is_some_and(|dict| dict.items().is_empty());
                if has_none {
                    // Python reads it before anything can be put in.
                    self.make(class, args, report)?
                } else {
                    self.refused_call(class, "with keyword arguments", report)
                }
            }
            "INST" => {
                let args = self.pop_mark()?;
                let Arg::Names(names) = arg else { return Err(Fault::broken("it has no name")) };
                let class = self.find(names, report)?;
                self.instantiate(class, &args, report)?
            }
            _ => {
                let args = self.pop_mark()?;
                let (class, args) = args.split_first().ok_or_else(|| Fault::broken("it has no class"))?;
                self.instantiate(*class, args, report)?
            }
        };
        self.push(value)?;
        Ok(Step::Next)
    }

    fn elements(&self, args: Value) -> Option<Vec<Value>> {
        self.heap.tuple(args).map(<[Value]>::to_vec)
    }

    /// As INST and OBJ do it: a class without arguments is made, not called.
    fn instantiate(&mut self, class: Value, args: &[Value], report: &mut Report) -> Result<Value, Fault> {
        match class {
            Value::Global(global) if args.is_empty() && is_made_bare(report.uses(global)) => Ok(Value::Made(global)),
            _ => self.call(class, args, report),
        }
    }

    /// `cls.__new__(cls, *args)`.
    fn make(&mut self, class: Value, args: Value, report: &mut Report) -> Result<Value, Fault> {
        let Some(args) = self.elements(args) else { return Ok(self.refused_call(class, "with arguments that cannot be told", report)) };
        match class {
            Value::Global(global) if args.is_empty() && is_made_bare(report.uses(global)) => Ok(Value::Made(global)),
            Value::Global(global) if matches!(report.uses(global), Some(Use::Plain | Use::Mapping | Use::Sequence | Use::Trusted)) => {
                self.call(class, &args, report)
            }
            _ => Ok(self.refused_call(class, "as a class with arguments", report)),
        }
    }

    fn call(&mut self, callee: Value, args: &[Value], report: &mut Report) -> Result<Value, Fault> {
        let Value::Global(global) = callee else { return Ok(self.refused_call(callee, "", report)) };
        // It was reported where it was named.
        if args.contains(&Value::Refused) {
            return Ok(Value::Refused);
        }
        let is_plain = args.iter().all(|arg| is_plain(*arg));
        match report.uses(global) {
            Some(Use::Trusted) => Ok(Value::Made(global)),
            Some(Use::Plain | Use::Mapping | Use::Sequence) if is_plain => Ok(Value::Made(global)),
            Some(Use::Plain | Use::Mapping | Use::Sequence) => {
                Ok(self.refused_call(callee, "with arguments that are not plain data", report))
            }
            Some(Use::Checked(rule)) => self.call_checked(global, rule, args, report),
            _ => Ok(self.refused_call(callee, "", report)),
        }
    }

    fn call_checked(&mut self, global: usize, rule: Rule, args: &[Value], report: &mut Report) -> Result<Value, Fault> {
        let made = Value::Made(global);
        let is_plain = |arg: &Value| is_plain(*arg);
        let label_of = |arg: &Value| match arg {
            Value::Made(id) | Value::Global(id) => report.label(*id),
            _ => "",
        };
        let is_good = match (rule, args) {
            (Rule::Dtype, _) => return self.call_dtype(args, report),
            (Rule::Encode, [text, encoding]) => return self.encode(global, *text, *encoding, report),
            (Rule::Reconstructor, [class, base, state]) => return Ok(self.reconstruct(global, *class, *base, *state, report)),
            (Rule::Cython, [class, Value::Int(_), Value::Nothing | Value::Tuple(_)]) => {
                let wanted = report.label(global).replacen("__pyx_unpickle_", "", 1);
                if label_of(class) == wanted && matches!(class, Value::Global(_)) {
                    return Ok(global_made(*class));
                }
                false
            }
            (Rule::Reconstruct, [class @ Value::Global(_), shape, code]) => {
                let is_empty = self.heap.tuple(*shape) == Some(&[Value::Int(0)]);
                let has_code = matches!(self.heap.text_or_bytes(*code), Some(b"b"));
                if label_of(class) == "numpy.ndarray" && is_empty && has_code {
                    return Ok(global_made(*class));
                }
                false
            }
            (Rule::Scalar, [dtype, Value::Bytes(_) | Value::SomeBytes | Value::Text(_) | Value::SomeText]) => self.use_raw(*dtype),
            (
                Rule::FromBuffer,
                [buffer @ (Value::Bytes(_) | Value::SomeBytes | Value::Made(_)), dtype, Value::Tuple(_), Value::Text(_), ..],
            ) => {
                let is_buffer = is_plain(buffer) || matches!(label_of(buffer), "builtins.bytes" | "builtins.bytearray");
                is_buffer && args.get(4).is_none_or(is_plain) && self.use_raw(*dtype)
            }
            (Rule::Random, [..]) => args.iter().all(|arg| is_plain(arg) || label_of(arg).starts_with("numpy.random.")),
            (Rule::DefaultDict, [factory, rest @ ..]) => {
                let is_class = matches!(factory, Value::Global(_)) && FACTORIES.contains(&label_of(factory));
                (is_class || *factory == Value::Nothing) && rest.iter().all(is_plain)
            }
            (Rule::Buffer, _) => args.iter().all(is_plain) && !matches!(args.first(), Some(Value::Int(_) | Value::Bool(_) | Value::Number)),
            (Rule::Time, _) => args.iter().all(|arg| is_plain(arg) || label_of(arg).starts_with("datetime.")),
            (Rule::Arrays, _) => args.iter().all(|arg| is_plain(arg) || is_array(label_of(arg))),
            (Rule::Tensor, [Value::Storage, rest @ ..]) => {
                rest.iter().all(|arg| is_plain(arg) || label_of(arg) == "collections.OrderedDict")
            }
            (Rule::Parameter, [tensor, rest @ ..]) => {
                label_of(tensor) == "torch._utils._rebuild_tensor_v2"
                    && rest.iter().all(|arg| is_plain(arg) || label_of(arg) == "collections.OrderedDict")
            }
            _ => false,
        };
        if is_good { Ok(made) } else { Ok(self.refused_call(Value::Global(global), "with other arguments than its pickles have", report)) }
    }

    fn call_dtype(&mut self, args: &[Value], report: &mut Report) -> Result<Value, Fault> {
        match dtype::called(&self.heap, args) {
            Ok(dtype) => self.heap.new_dtype(dtype),
            Err(why) => {
                report.refuse(format!("calls {why}"));
                Ok(Value::Refused)
            }
        }
    }

    /// Whether a value is a data type without objects; it stays as it is from here on.
    pub(super) fn use_raw(&mut self, dtype: Value) -> bool {
        self.heap.dtype_mut(dtype).is_some_and(|dtype| {
            dtype.settle();
            !dtype.is_object()
        })
    }

    fn encode(&mut self, global: usize, text: Value, encoding: Value, report: &mut Report) -> Result<Value, Fault> {
        let is_latin = matches!(self.heap.text(encoding), Some("latin1" | "latin-1" | "latin_1" | "iso-8859-1"));
        if !is_latin || !matches!(text, Value::Text(_) | Value::SomeText) {
            return Ok(self.refused_call(Value::Global(global), "other than to make bytes of a text by latin-1", report));
        }
        match self.heap.text(text).filter(|text| text.is_ascii()).map(str::to_owned) {
            Some(text) => self.heap.new_bytes(text.as_bytes()),
            None => Ok(Value::SomeBytes),
        }
    }

    /// `copyreg._reconstructor`: an instance of a class that may be made, by way of object or a builtin collection.
    fn reconstruct(&mut self, global: usize, class: Value, base: Value, state: Value, report: &mut Report) -> Value {
        let (Value::Global(class_id), Value::Global(base_id)) = (class, base) else {
            return self.refused_call(Value::Global(global), "with something else than two classes", report);
        };
        if [class, base, state].contains(&Value::Refused) {
            return Value::Refused;
        }
        let is_base = match report.label(base_id) {
            "builtins.object" => state == Value::Nothing,
            "builtins.dict" | "builtins.list" | "builtins.tuple" => is_plain(state),
            _ => false,
        };
        if is_base && is_made_bare(report.uses(class_id)) {
            return Value::Made(class_id);
        }
        self.refused_call(Value::Global(global), "with a class or a base that may not be made so", report)
    }

    fn refused_call(&mut self, callee: Value, how: &str, report: &mut Report) -> Value {
        if callee != Value::Refused {
            let what = match callee {
                Value::Global(global) => shown(report.label(global)),
                _ => self.described(callee, report),
            };
            let space = if how.is_empty() { "" } else { " " };
            report.refuse(format!("calls {what}{space}{how}, which is not allowed"));
        }
        Value::Refused
    }
}

fn global_made(class: Value) -> Value {
    match class {
        Value::Global(global) => Value::Made(global),
        _ => Value::Refused,
    }
}

/// Whether a class may be made by `cls.__new__(cls)`.
fn is_made_bare(uses: Option<Use>) -> bool {
    matches!(
        uses,
        Some(
            Use::New
                | Use::Own
                | Use::Items
                | Use::Mapping
                | Use::Sequence
                | Use::Trusted
                | Use::Checked(Rule::Wrapper | Rule::NoFunctions | Rule::Texts)
        )
    )
}

fn is_array(label: &str) -> bool {
    matches!(label, "numpy.ndarray" | "numpy._core.numeric._frombuffer" | "numpy.core.numeric._frombuffer")
}

/// What calls nothing and has no class of its own. What collections hold was judged when it was made.
fn is_plain(value: Value) -> bool {
    !matches!(value, Value::Global(_) | Value::Made(_) | Value::Dtype(_) | Value::Storage | Value::Refused)
}
