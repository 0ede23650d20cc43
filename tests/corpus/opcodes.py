"""Pickle opcodes as bytes. Each function gives the bytes of what it names; nothing here ever loads a pickle."""

import struct

PROTO2, PROTO4 = b"\x80\x02", b"\x80\x04"
MARK, STOP, POP, POP_MARK, DUP = b"(", b".", b"0", b"1", b"2"
REDUCE, BUILD, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL, MEMOIZE = b"R", b"b", b"\x81", b"\x92", b"\x93", b"\x94"
NONE, TRUE, EMPTY_TUPLE, EMPTY_DICT, EMPTY_LIST = b"N", b"\x88", b")", b"}", b"]"
TUPLE, TUPLE1, TUPLE2, TUPLE3, SETITEM, APPEND, OBJ = b"t", b"\x85", b"\x86", b"\x87", b"s", b"a", b"o"


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def short(value: str) -> bytes:
    """SHORT_BINUNICODE, protocol 4."""
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def raw(value: bytes) -> bytes:
    """BINBYTES, protocol 3."""
    return b"B" + struct.pack("<I", len(value)) + value


def line(value: str) -> bytes:
    """UNICODE, protocol 0."""
    return b"V" + value.encode("raw_unicode_escape") + b"\n"


def number(value: int) -> bytes:
    """BININT."""
    return b"J" + struct.pack("<i", value)


def named(module: str, name: str) -> bytes:
    """GLOBAL, as protocols 0 to 3 name things."""
    return b"c" + f"{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    """STACK_GLOBAL, as protocol 4 does; the name may have dots."""
    return short(module) + short(name) + STACK_GLOBAL


def items(*parts: bytes) -> bytes:
    """A tuple."""
    return MARK + b"".join(parts) + TUPLE


def listed(*parts: bytes) -> bytes:
    """A list."""
    return EMPTY_LIST + MARK + b"".join(parts) + b"e"


def call(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE: the function's result."""
    return function + items(*arguments) + REDUCE


def method(thing: bytes, name: str) -> bytes:
    """getattr(thing, name)."""
    return call(named("builtins", "getattr"), thing, text(name))


def put(place: int) -> bytes:
    """BINPUT."""
    return b"q" + bytes([place])


def get(place: int) -> bytes:
    """BINGET."""
    return b"h" + bytes([place])


def entry(key: bytes, value: bytes) -> bytes:
    """A dict with one entry."""
    return EMPTY_DICT + key + value + SETITEM


def pickle2(*parts: bytes) -> bytes:
    return PROTO2 + b"".join(parts) + STOP


def pickle4(*parts: bytes) -> bytes:
    """Without a frame, which readers do not need."""
    return PROTO4 + b"".join(parts) + STOP
