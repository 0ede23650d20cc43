//! Opcodes that find things by name: globals, extension codes, persistent ids. Invariant: a name that is not a known constant is refused.

use super::error::{Fault, shown};
use super::machine::{Machine, Reader};
use super::opcodes::Opcode;
use super::parse::Arg;
use super::report::Report;
use super::values::Value;

/// Packages that may well have attributes of these names.
const ARRAY_PACKAGES: &[&str] = &[
    "cupy",
    "dask",
    "jax",
    "joblib",
    "lightgbm",
    "ml_dtypes",
    "numba",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "scipy",
    "sklearn",
    "tensorflow",
    "torch",
    "xarray",
    "xgboost",
];
/// Of the modules in the list, those that have them.
const ARRAY_MODULES: &[&str] = &["numpy.", "torch.", "scipy."];

/// Bytes of an element of a torch storage.
fn element_bytes(storage: &str) -> Option<u64> {
    match storage.strip_prefix("torch.")?.strip_suffix("Storage")? {
        "Byte" | "Char" | "Bool" | "Untyped" | "storage.Untyped" | "QInt8" | "QUInt8" => Some(1),
        "Short" | "Half" | "BFloat16" => Some(2),
        "Int" | "Float" | "QInt32" => Some(4),
        "Long" | "Double" | "ComplexFloat" => Some(8),
        "ComplexDouble" => Some(16),
        _ => None,
    }
}

impl Machine<'_> {
    pub(super) fn name(&mut self, opcode: Opcode, arg: Arg<'_>, report: &mut Report) -> Result<(), Fault> {
        match (opcode.name, arg) {
            ("GLOBAL", Arg::Names(names)) => {
                let value = self.find(names, report)?;
                self.push(value)
            }
            ("STACK_GLOBAL", _) => self.stack_global(report),
            ("BINPERSID", _) => {
                let id = self.pop()?;
                let value = self.storage(id, report);
                self.push(value)
            }
            ("PERSID", _) => {
                report.refuse("names an object outside of the pickle by a text; only the storages of a torch archive may be");
                self.push(Value::Refused)
            }
            _ => {
                report.refuse("names a global by a number of the extension registry, which is not in the file");
                self.push(Value::Refused)
            }
        }
    }

    /// A global by its two names. None: they are not known.
    pub(super) fn find(&mut self, names: Option<(&str, &str)>, report: &mut Report) -> Result<Value, Fault> {
        let Some((module, name)) = names else {
            report.refuse("names a global by a name that cannot be told");
            return Ok(Value::Refused);
        };
        let (number, is_allowed) = report.global(self.rules.allowed, self.rules.limits.globals, self.protocol, module, name)?;
        Ok(if is_allowed { Value::Global(number) } else { Value::Refused })
    }

    fn stack_global(&mut self, report: &mut Report) -> Result<(), Fault> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (known_name, known_module) = (self.heap.text(name).map(str::to_owned), self.heap.text(module).map(str::to_owned));
        if self.reader == Reader::Straight {
            self.check_straight(module, known_module.as_deref(), known_name.as_deref())?;
        }
        let names = known_module.as_deref().zip(known_name.as_deref());
        let value = self.find(names, report)?;
        self.push(value)
    }

    /// [`Reader::Straight`] takes an outer value where the inner pickle means one of its own, so a good file makes it look for things like
    /// `features.dtype`. That is an error in Python, and the end of what it would do.
    fn check_straight(&self, module: Value, known_module: Option<&str>, known_name: Option<&str>) -> Result<(), Fault> {
        let is_text = matches!(module, Value::Text(_) | Value::SomeText | Value::Refused);
        let (Some(module), Some("dtype" | "scalar")) = (known_module, known_name) else {
            return if is_text { Ok(()) } else { Err(Fault::broken("the name of a module is no text")) };
        };
        let is_of_arrays = ARRAY_MODULES.iter().any(|start| module.starts_with(start));
        let is_elsewhere = module.contains('.') && (is_of_arrays || !self.rules.allowed.has_module(module));
        if is_elsewhere || ARRAY_PACKAGES.contains(&module) {
            return Ok(());
        }
        Err(Fault::broken(format!("no module {} has such a name", shown(module))))
    }

    /// The storage of a torch archive: `("storage", type, key, device, elements)`.
    fn storage(&mut self, id: Value, report: &mut Report) -> Value {
        if id == Value::Refused {
            return Value::Refused;
        }
        let storage = match self.heap.tuple(id) {
            Some([word, Value::Global(kind), key, device, Value::Int(elements @ 0..)]) => {
                let is_key = |key: &&str| key.len() <= 20 && key.bytes().all(|byte| byte.is_ascii_digit());
                let is_as_torch_writes = self.heap.text(*word) == Some("storage") && self.heap.text(*device).is_some();
                let bytes = element_bytes(report.label(*kind)).and_then(|bytes| bytes.checked_mul(u64::try_from(*elements).ok()?));
                self.heap.text(*key).filter(is_key).map(str::to_owned).zip(bytes).filter(|_| is_as_torch_writes)
            }
            // A storage of a type that is refused was reported.
            Some([_, Value::Refused, ..]) => return Value::Refused,
            _ => None,
        };
        if let Some((key, bytes)) = storage.filter(|_| self.reader == Reader::Torch) {
            let has_room = report.storages.len() < self.rules.limits.entries;
            if has_room && *report.storages.entry(key).or_insert(bytes) == bytes {
                return Value::Storage;
            }
        }
        report.refuse("names an object outside of the pickle that is not a storage of a torch archive");
        Value::Refused
    }
}
