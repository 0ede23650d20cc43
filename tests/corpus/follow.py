"""Follows what loading a pickle would do, without doing it: every name that is looked up becomes a recorder that only notes its calls.

It shows that a bad file's payload is reached, and which names a good file needs. Nothing of the file is imported or run. Only the
classes that describe an array in a joblib file are real, since the array's raw bytes must be stepped over.

  follow.py FILE     prints one line of JSON: {"names": [...], "calls": ["os.system", ...], "error": "..."}
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import resource
import sys
import types
import zipfile
import zlib
from pathlib import Path

import joblib.numpy_pickle
import lz4.frame
import numpy

LOOK_AT_MOST = 64 << 20
REAL = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): joblib.numpy_pickle.NumpyArrayWrapper,
    ("numpy", "ndarray"): numpy.ndarray,
    ("numpy", "dtype"): numpy.dtype,
}
PACKED = {
    b"\x1f\x8b": lambda data: gzip.GzipFile(fileobj=io.BytesIO(data)),
    b"BZh": lambda data: bz2.BZ2File(io.BytesIO(data)),
    b"\xfd7zXZ": lambda data: lzma.LZMAFile(io.BytesIO(data)),
    b"\x5d\x00\x00": lambda data: lzma.LZMAFile(io.BytesIO(data)),
    b"\x04\x22\x4d\x18": lambda data: lz4.frame.LZ4FrameFile(io.BytesIO(data)),
}


class Seen:
    """Names that were looked up, and what was called."""

    def __init__(self):
        self.names, self.calls = [], []

    def recorder(self, label: str):
        seen = self

        class Recorder(dict):
            """Stands for anything: a class, a function, an instance."""

            def __new__(cls, *arguments, **named):
                seen.calls.append(label)
                return dict.__new__(cls)

            def __init__(self, *arguments, **named):
                dict.__init__(self)

            def __call__(self, *arguments, **named):
                seen.calls.append(f"{label}()")
                return self

            def __setstate__(self, state):
                # As loading does: attributes of the instance, which may hide this method the next time.
                if isinstance(state, dict):
                    self.__dict__.update((key, value) for key, value in state.items() if isinstance(key, str))

            def append(self, item):
                pass

            def extend(self, items):
                pass

            def __hash__(self):
                return id(self)

        return Recorder


def tracer(seen: Seen, data):
    class Tracer(joblib.numpy_pickle.NumpyUnpickler):
        def __init__(self):
            super().__init__("", data, True, None)

        def find_class(self, module, name):
            if type(module) is not str or type(name) is not str:
                raise pickle.UnpicklingError("a name that is no text")
            seen.names.append(f"{module}.{name}")
            return REAL.get((module, name)) or seen.recorder(f"{module}.{name}")

        def get_extension(self, code):
            seen.names.append(f"extension {code}")
            self.append(seen.recorder(f"extension {code}"))

        def persistent_load(self, identity):
            return seen.recorder("persistent object")

    return Tracer()


def follow(data: bytes, seen: Seen) -> str:
    """What went wrong, or an empty text. Goes through all pickles that stand one after the other."""
    joblib.numpy_pickle.pickle = types.SimpleNamespace(load=lambda file: tracer(seen, file).load())
    file = io.BytesIO(data)
    try:
        while file.tell() < len(data):
            tracer(seen, file).load()
    except BaseException as error:  # broken files end in any error there is
        return f"{type(error).__name__}: {error}"[:120]
    return ""


def unpacked(data: bytes):
    """(name, bytes) of what may be a pickle in it, to LOOK_AT_MOST bytes each."""
    if data[:6] == b"\x93NUMPY":
        size = int.from_bytes(data[8:10], "little")
        return [("", data[10 + size :])] if b"|O" in data[: 10 + size] else []
    if zipfile.is_zipfile(io.BytesIO(data)):
        found = [("", data)] if data[:2] != b"PK" else []
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                found += member(archive, info)
        return found
    for head, opener in PACKED.items():
        if data.startswith(head):
            return [("", opener(data).read(LOOK_AT_MOST))]
    if data[:1] == b"\x78":
        return [("", zlib.decompressobj().decompress(data, LOOK_AT_MOST))]
    return [("", data)]


def member(archive, info):
    try:
        with archive.open(info) as file:
            content = file.read(LOOK_AT_MOST)
    except Exception as error:  # a broken member; what is wrong with it is the finding
        return [(f"{info.filename}: {error}", b"")]
    if content[:6] == b"\x93NUMPY":
        return [(info.filename, inner) for _, inner in unpacked(content)]
    return [(info.filename, content)] if info.filename.endswith(".pkl") else []


def main():
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 21))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seen, errors = Seen(), []
    try:
        for name, data in unpacked(Path(sys.argv[1]).read_bytes()):
            error = follow(data, seen) if data else name
            errors += [error] if error else []
    except Exception as error:  # not even unpacked
        errors.append(f"{type(error).__name__}: {error}"[:120])
    names = list(dict.fromkeys(seen.names))
    print(json.dumps({"names": names, "calls": list(dict.fromkeys(seen.calls)), "error": "; ".join(errors)}))


if __name__ == "__main__":
    main()
