//! Python's own. Protocols below 3 name them by Python 2's modules, which are mapped to these.

use super::super::allowed::{Rule, Use};
use super::Entry;

pub(super) const LIST: &[Entry] = &[
    ("builtins", Use::Plain, "list dict set frozenset tuple complex int float bool str slice range"),
    ("builtins", Use::Checked(Rule::Buffer), "bytearray bytes"),
    ("builtins", Use::New, "object"),
    ("copyreg", Use::Checked(Rule::Reconstructor), "_reconstructor"),
    ("_codecs", Use::Checked(Rule::Encode), "encode"),
    ("collections", Use::Mapping, "OrderedDict Counter"),
    ("collections", Use::Checked(Rule::DefaultDict), "defaultdict"),
    ("collections", Use::Sequence, "deque"),
    ("datetime", Use::Checked(Rule::Time), "date datetime time timedelta timezone"),
    ("decimal", Use::Plain, "Decimal"),
];
