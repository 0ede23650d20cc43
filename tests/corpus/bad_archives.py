"""joblib files, archives of PyTorch's shape, NumPy's files and archives of skops: with something in them that would run, or that are bombs."""

import bz2
import gzip
import io
import json
import lzma
import struct
import zlib

import joblib
import lz4.frame
import numpy as np
import opcodes as op
import zips
from bad_pickles import expect_name, shell
from good_pickles import torch_files
from item import Item
from opcodes import call, named, pickle2, text
from zips import archive, deflated, stored

BOMB = r"(?i)large|size|limit|bomb|expand|ratio|memory|too many|bytes"
ARCHIVE = r"(?i)zip|archive|entry|header|mismatch|differ|duplicate|overlap|name|encrypt|crc|"
GIB = 1 << 30


def items() -> list:
    return joblibs() + torches() + numpys() + skops() + bombs()


def harmful(name: str) -> bytes:
    return pickle2(call(named("os", "system"), text(shell(name))))


def bad(file: str, data: bytes, kind: str, why: str, expect: str = "") -> Item:
    return Item(f"bad/{file}", data, kind, why, expect or expect_name("os", "system"))


def packers() -> dict:
    """The compressors that joblib knows; without times in them."""
    return {
        "zlib": zlib.compress,
        "gzip": lambda data: gzip.compress(data, mtime=0),
        "bz2": bz2.compress,
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        "xz": lzma.compress,
        "lz4": lz4.frame.compress,
    }


def joblibs() -> list:
    made = [bad("joblib/plain.joblib", harmful("joblib_plain"), "joblib-code", "os.system, not compressed")]
    for name, pack in packers().items():
        made.append(bad(f"joblib/{name}.joblib", pack(harmful(f"joblib_{name}")), "joblib-code", f"os.system, {name}"))
    twice = zlib.compress(zlib.compress(harmful("joblib_twice")))
    made.append(
        bad(
            "joblib/zlib_twice.joblib",
            twice,
            "joblib-code",
            "compressed twice: no reader looks into it",
            r"(?i)pickle|opcode|zlib|not a|system",
        )
    )
    made.append(
        bad(
            "joblib/after_array.joblib",
            array_then(np.arange(6.0), harmful_tail("joblib_after_array")),
            "joblib-code",
            "an array first, whose raw bytes are no opcodes, then os.system",
        )
    )
    hidden = np.frombuffer(b"." * 64 + pickle2(op.EMPTY_DICT), np.uint8)
    made.append(
        bad(
            "joblib/after_array_of_stops.joblib",
            array_then(hidden, harmful_tail("joblib_after_array_of_stops")),
            "joblib-code",
            "an array whose bytes look like the end of a pickle, then os.system",
        )
    )
    made.append(
        bad(
            "joblib/object_array.joblib",
            object_array(harmful("joblib_object_array")),
            "joblib-code",
            "an array of objects: its items are a pickle of their own, with os.system",
        )
    )
    made.append(
        bad(
            "joblib/array_shape_huge.joblib",
            array_claims(),
            "memory-bomb",
            "an array that says it has 1e12 numbers",
            BOMB + "|shape|truncat|array|ends in the middle",
        )
    )
    made.append(
        bad(
            "joblib/truncated.joblib",
            dumped({"weights": np.arange(1000.0)})[:-2000],
            "truncated",
            "cut within an array",
            r"(?i)truncat|end|array|opcode|STOP",
        )
    )
    made.append(
        bad(
            "joblib/zlib_truncated.joblib",
            zlib.compress(dumped({"weights": np.random.default_rng(3).random(1000)}))[:-500],
            "truncated",
            "a zlib stream that breaks off",
            r"(?i)truncat|end|zlib|deflate|corrupt|compress",
        )
    )
    return made


def dumped(thing) -> bytes:
    out = io.BytesIO()
    joblib.dump(thing, out)
    return out.getvalue()


def harmful_tail(name: str) -> bytes:
    """Goes on after a list's first item."""
    return call(named("os", "system"), text(shell(name))) + op.APPEND


def array_then(array: np.ndarray, tail: bytes) -> bytes:
    """A list of one array, as joblib writes it, and `tail` before the list's end."""
    data = dumped([array])
    assert data.endswith(b"a.")
    return data[:-1] + tail + op.STOP


def object_array(inner: bytes) -> bytes:
    """joblib puts a pickle of the array of objects right behind what describes it: here it is another pickle."""
    data = dumped([np.array(["a", None], dtype=object)])
    place = data.index(b"\x80", 2)
    return data[:place] + inner + data[-2:]


def array_claims() -> bytes:
    data = dumped([np.zeros(100_000, np.float64)])
    small, large = b"J" + struct.pack("<i", 100_000), b"\x8a\x06" + (10**12).to_bytes(6, "little")
    at = data.index(small)
    # The frame's length counts the longer number.
    frame = int.from_bytes(data[3:11], "little") + len(large) - len(small)
    return data[:3] + frame.to_bytes(8, "little") + data[11:at] + large + data[at + len(small) : 600]


def torches() -> list:
    state = dict(torch_files())
    evil = harmful("torch_data_pkl")
    with_evil = {**state, "archive/data.pkl": evil}
    plain = [stored(name, data) for name, data in state.items()]
    second = [*plain, stored("archive/extra.pkl", harmful("torch_second_pickle"))]
    renamed = [
        stored(name, data, listed="archive/data.pkl" if name == "archive/other" else "")
        for name, data in {"archive/other": harmful("torch_names_differ"), **state}.items()
        if name != "archive/data.pkl"
    ]
    twice = [*plain, stored("archive/data.pkl", harmful("torch_twice"))]
    crc = [stored(name, data) for name, data in {**state, "archive/data.pkl": harmful("torch_crc")}.items()]
    for entry in crc:
        entry.crc ^= 1
    flagged = [stored(name, data, flags=1) for name, data in {**state, "archive/data.pkl": harmful("torch_flag")}.items()]
    method = [
        stored(name, data, listed_method=12 if name.endswith(".pkl") else -1)
        for name, data in {**state, "archive/data.pkl": harmful("torch_method")}.items()
    ]
    sevenzip = b"7z\xbc\xaf\x27\x1c" + harmful("torch_prefix")
    legacy = torch_legacy(harmful("torch_legacy"))
    made = {
        "data_pkl": (archive([stored(name, data) for name, data in with_evil.items()]), "os.system in data.pkl", ""),
        "data_pkl_deflated": (archive([deflated(name, data) for name, data in with_evil.items()]), "the same, deflated", ""),
        "second_pickle": (archive(second), "a good data.pkl, and a second pickle beside it", r"(?i)neither torch's nor numpy's"),
        "in_storage": (
            archive([stored(name, harmful("torch_in_storage") if name.endswith("data/0") else data) for name, data in state.items()]),
            "a pickle where the numbers should be: of another size than the tensor",
            r"(?i)size|length|storage|data/0|bytes",
        ),
        "names_differ": (archive(renamed), "the directory calls a file data.pkl that the file itself calls other", ARCHIVE + "system"),
        "twice": (archive(twice), "two files of the name data.pkl: readers differ in which one they take", ARCHIVE + "system"),
        "crc_wrong": (archive(crc), "wrong checksums: one reader stops, another goes on", ARCHIVE + "system"),
        "encrypted_flag": (archive(flagged), "marked as encrypted, and not", ARCHIVE + "system"),
        "methods_differ": (archive(method), "the directory says bzip2 where it is stored", ARCHIVE + "system"),
        "before_archive": (
            archive(plain, before=harmful("torch_before_archive")),
            "a pickle before the archive: by its first bytes it is a pickle",
            ARCHIVE + "system|prefix|before",
        ),
        "after_seven_zip": (archive(plain, before=sevenzip), "the first bytes of another sort of archive", ARCHIVE + "prefix|before"),
        "path_outside": (
            archive([*plain, stored("../../outside.py", b"pass\n")]),
            "a file that would be unpacked outside",
            ARCHIVE + r"path|\.\.",
        ),
        "code_beside": (
            archive([*plain, stored("archive/code/__torch__.py", b"import os\n")]),
            "TorchScript: code in the archive",
            ARCHIVE + "code|script",
        ),
        "legacy": (legacy, "the old form: pickles one after the other, os.system in the last", ""),
        "truncated": (archive(plain)[:-40], "without the end of its directory", r"(?i)zip|archive|truncat|end|directory|opcode|pickle"),
        "pickle_named_pt": (harmful("torch_pickle_named_pt"), "a bare pickle, named .pt", ""),
    }
    return [bad(f"torch/{name}.pt", data, "torch-code", why, expect) for name, (data, why, expect) in made.items()]


def torch_legacy(last: bytes) -> bytes:
    """Magic number, protocol, system info, then the object."""
    magic = pickle2(b"\x8a\x0a" + bytes.fromhex("6cfc9c46f9206aa85019"))
    info = pickle2(op.entry(text("little_endian"), op.TRUE))
    return magic + pickle2(b"M\xe9\x03") + info + last


def npy(shape: str, descr: str = "'<f8'", data: bytes = b"") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def numpys() -> list:
    objects = npy("(1,)", "'|O'", harmful("npy_objects"))
    in_npz = npy("(1,)", "'|O'", harmful("npz_objects"))
    return [
        bad(
            "numpy/objects.npy", objects, "numpy-code", "an array of objects is a pickle: os.system", expect_name("os", "object", "pickle")
        ),
        bad(
            "numpy/objects.npz",
            archive([stored("weights.npy", npy("(2,)", data=bytes(16))), stored("bias.npy", in_npz)]),
            "numpy-code",
            "the second of two arrays is of objects, with os.system",
            expect_name("os", "object", "pickle"),
        ),
        bad(
            "numpy/pickle_member.npz",
            archive([stored("weights.npy", npy("(2,)", data=bytes(16))), stored("more.pkl", harmful("npz_pickle_member"))]),
            "numpy-code",
            "a pickle beside the arrays",
            expect_name("os", "pickle", "npy", "entry"),
        ),
        bad(
            "numpy/header_code.npy",
            npy("(__import__('os').getpid(),)"),
            "numpy-code",
            "a header that is code for who evaluates it",
            r"(?i)header|shape|literal|parse",
        ),
        bad("numpy/shape_huge.npy", npy("(1000000, 1000000)"), "memory-bomb", "an array that says it is 8 TB", BOMB + "|shape|truncat|there are"),
        bad(
            "numpy/truncated.npz",
            archive([stored("weights.npy", npy("(100,)", data=bytes(80)))]),
            "truncated",
            "an array with a tenth of its numbers",
            r"(?i)truncat|size|shape|bytes|end",
        ),
    ]


def skops_json(value) -> dict:
    return part("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def part(made: str, name: str, **more) -> dict:
    """What skops writes of one value, made by `made`."""
    module, _, kind = name.rpartition(".")
    return {"__class__": kind, "__module__": module, "__loader__": made, **more}


def skops_schema(name: str, **decoy) -> bytes:
    """A dict whose one key is of the type os.system, which skops calls with it; `decoy` stands in the type, and nobody reads it."""
    keys = part("ListNode", "builtins.list", content=[part("TypeNode", "os.system", **decoy)])
    made = part("DictNode", "builtins.dict", content={shell(name): skops_json(1)}, key_types=keys)
    return json.dumps({**made, "protocol": 2, "_skops_version": "0.16.0"}).encode()


def skops() -> list:
    # Python from 3.12 on takes the second name.
    other = struct.pack("<HHBI", 0x7075, 5 + 11, 1, zlib.crc32(b"x.json")) + b"schema.json"
    hidden = stored("x.json", skops_schema("skops_renamed"), extra=other)
    harmless = json.dumps({**skops_json(1), "protocol": 2, "_skops_version": "0.16.0"}).encode()
    decoy = {"__class__": "str", "__module__": "builtins"}
    renamed = r"(?i)gives it another name"
    return [
        bad("skops/type.skops", archive([stored("schema.json", skops_schema("skops_type"))]), "skops-code", "os.system as the type of a key"),
        bad(
            "skops/type_decoy.skops",
            archive([stored("schema.json", skops_schema("skops_type_decoy", content=decoy))]),
            "skops-code",
            "the same, and a harmless type in the content, which skops does not read",
            r"names os\.system",
        ),
        bad("skops/renamed.skops", archive([hidden]), "skops-code", "its schema has another name for readers before Python 3.12", renamed),
        bad(
            "skops/renamed_beside.skops",
            archive([stored("schema.json", harmless), hidden]),
            "skops-code",
            "the same, beside a schema that is harmless",
            renamed,
        ),
    ]


def bombs() -> list:
    head = npy(f"({GIB // 8},)")
    packed, crc = zips.deflated_zeros(1024, head)
    size = GIB + len(head)
    zeros = zips.Entry("zeros.npy", packed, size, crc, method=8)
    state = dict(torch_files(numbers=GIB // 4))
    packed_storage, storage_crc = zips.deflated_zeros(1024)
    torch_entries = [stored(name, data) for name, data in state.items() if not name.endswith("data/0")]
    torch_entries.append(zips.Entry("archive/data/0", packed_storage, GIB, storage_crc, method=8))
    head, tail = huge_array()
    zlib_bomb, _ = zips.deflated_zeros(1024, head, tail, zlib_wrapped=True)
    mib = bytes(zips.ZEROS)
    lies = zips.Entry("zeros.npy", packed, 128, crc, method=8)
    in_zip = archive([deflated("inner.npz", archive([zeros]))])
    return [
        bad("numpy/bomb.npz", archive([zeros]), "zip-bomb", "1 GiB of zeros in a megabyte", BOMB),
        bad("numpy/bomb_many.npz", archive([zeros], overlap=40), "zip-bomb", "41 files of 1 GiB that share their bytes", BOMB + "|overlap|headers differ"),
        bad("numpy/bomb_lies.npz", archive([lies]), "zip-bomb", "1 GiB of zeros that says it is 128 bytes", BOMB + "|mismatch|differ"),
        bad("numpy/bomb_nested.npz", in_zip, "zip-bomb", "an archive in an archive", BOMB + "|zip|npy|entry"),
        bad("torch/bomb.pt", archive(torch_entries), "zip-bomb", "1 GiB of zeros as a tensor", BOMB),
        bad("joblib/bomb_zlib.joblib", zlib_bomb, "zip-bomb", "a good array of 1 GiB of zeros, zlib", BOMB),
    ] + [
        bad(
            f"joblib/bomb_{name}.joblib",
            packers()[name](head) + packers()[name](mib) * 1024 + packers()[name](tail),
            "zip-bomb",
            f"a good array of 1 GiB of zeros, {name}, in 1026 parts",
            BOMB + "|ends in the middle",
        )
        for name in ("gzip", "bz2", "xz", "lz4")
    ]


def huge_array():
    """What stands before and after the numbers of an array of 1 GiB of bytes in a joblib file."""
    data = dumped(np.ones(100_000, np.uint8))
    start = data.index(bytes([1]) * 100_000)
    return data[:start].replace(b"J" + struct.pack("<i", 100_000), b"J" + struct.pack("<i", GIB)), data[start + 100_000 :]
