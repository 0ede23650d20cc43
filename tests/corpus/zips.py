"""Zip archives written by hand, so that they can say what is not so: other names, sizes or flags than what is in them."""

import struct
import zlib
from dataclasses import dataclass


@dataclass
class Entry:
    """`packed` is what the archive holds, `size` and `crc` are of what comes out; `method` 0 stored, 8 deflated.

    `listed` is the name in the directory at the archive's end, where it is another than the one before the data; `extra` are the extra
    fields in both.
    """

    name: str
    packed: bytes
    size: int
    crc: int
    method: int = 0
    listed: str = ""
    flags: int = 0
    listed_method: int = -1
    extra: bytes = b""


def stored(name: str, data: bytes, **more) -> Entry:
    return Entry(name, data, len(data), zlib.crc32(data), **more)


def deflated(name: str, data: bytes, **more) -> Entry:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return Entry(name, packer.compress(data) + packer.flush(), len(data), zlib.crc32(data), method=8, **more)


def archive(entries, before: bytes = b"", overlap: int = 0) -> bytes:
    """`before` stands before the first entry. With `overlap`, the first entry is listed so many times more, under other names."""
    data, directory, count = bytearray(before), bytearray(), 0
    for entry in entries:
        at = len(data)
        data += local(entry) + entry.packed
        directory += central(entry, at, entry.listed or entry.name)
        count += 1
        if count == 1:
            for number in range(overlap):
                directory += central(entry, at, f"{number}_{entry.name}")
            count += overlap
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(data), 0)
    return bytes(data + directory + end)


def local(entry: Entry) -> bytes:
    name = entry.name.encode()
    # 0x21 is 1 January 1980, so that the same archive is the same bytes.
    head = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, entry.flags, entry.method, 0, 0x21, entry.crc, len(entry.packed), entry.size, len(name), len(entry.extra)
    )
    return head + name + entry.extra


def central(entry: Entry, at: int, name: str) -> bytes:
    method = entry.method if entry.listed_method < 0 else entry.listed_method
    head = struct.pack(
        "<4s6H3I5H2I",
        b"PK\x01\x02",
        20,
        20,
        entry.flags,
        method,
        0,
        0x21,
        entry.crc,
        len(entry.packed),
        entry.size,
        len(name.encode()),
        len(entry.extra),
        0,
        0,
        0,
        0,
        at,
    )
    return head + name.encode() + entry.extra


ZEROS = 1 << 20
"""The bombs are made of blocks of so many zeros, packed once and repeated."""


def deflated_zeros(blocks: int, head: bytes = b"", tail: bytes = b"", zlib_wrapped: bool = False):
    """(packed, its checksum) of `head`, `blocks` MiB of zeros and `tail`, without packing them all: a flushed block can be said again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(ZEROS)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = start + block * blocks + packer.compress(tail) + packer.flush(zlib.Z_FINISH)
    check = zlib.adler32(head) if zlib_wrapped else zlib.crc32(head)
    add, zeros = (zlib.adler32 if zlib_wrapped else zlib.crc32), bytes(ZEROS)
    for _ in range(blocks):
        check = add(zeros, check)
    check = add(tail, check)
    if zlib_wrapped:
        return b"\x78\xda" + packed + struct.pack(">I", check), check
    return packed, check
