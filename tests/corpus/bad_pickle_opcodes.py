"""Pickles that hide the same call behind unusual opcodes, the stack, the memo, or a file that is not whole; some that are bombs; and some
that call nothing and make NumPy read where it must not."""

import opcodes as op
from bad_pickles import command, expect_name, shell
from item import Item
from opcodes import call, method, named, number, pickle2, pickle4, short, stacked, text


def items() -> list:
    made = {**by_opcode(), **by_memo(), **by_shape(), **by_state()}
    return [Item(f"bad/pickle/{name}.pkl", data, kind_of(name), why, expect) for name, (data, why, expect) in made.items()]


def kind_of(name: str) -> str:
    if name.startswith(("memory_", "deep_")):
        return "memory-bomb"
    if name.startswith(("array_", "generator_")):
        return "memory-unsafe"
    return "broken-pickle" if name in ("stack_underflow", "memo_get_missing", "opcode_persid") else "pickle-code"


def by_opcode() -> dict:
    """The same call by every opcode that calls."""
    line = shell("opcode_inst")
    inst = op.MARK + text(line) + b"ios\nsystem\n"
    obj = op.MARK + named("os", "system") + text(shell("opcode_obj")) + op.OBJ
    new = named("subprocess", "Popen") + op.items(text("sh")) + op.NEWOBJ
    new_ex = stacked("subprocess", "Popen") + op.items(text("sh")) + op.EMPTY_DICT + op.NEWOBJ_EX
    text0 = b"cos\nsystem\n(" + op.line(shell("protocol_0")) + b"tR."
    string0 = b"cos\nsystem\n(S" + repr(shell("protocol_0_string")).encode() + b"\ntR."
    # An instance whose class is harmless gets a __setstate__ from its state; the second state is then given to that.
    override = (
        named("collections", "Counter")
        + op.EMPTY_TUPLE
        + op.REDUCE
        + op.entry(text("__setstate__"), named("os", "system"))
        + op.BUILD
        + text(shell("build_setstate"))
        + op.BUILD
    )
    return {
        "opcode_inst": (pickle2(inst), "INST os.system", expect_name("os", "INST")),
        "opcode_obj": (pickle2(obj), "OBJ os.system", expect_name("os", "OBJ")),
        "opcode_newobj": (pickle2(new), "NEWOBJ of subprocess.Popen", expect_name("subprocess")),
        "opcode_newobj_ex": (pickle4(new_ex), "NEWOBJ_EX of subprocess.Popen", expect_name("subprocess")),
        "protocol_0": (text0, "protocol 0, all text", expect_name("os")),
        "protocol_0_string": (string0, "protocol 0, with STRING", expect_name("os")),
        "protocol_0_no_proto_named_bin": (
            text0.replace(b"protocol_0", b"protocol_0_no_proto_named_bin"),
            "protocol 0: nothing marks it as a pickle",
            expect_name("os"),
        ),
        "opcode_ext1": (
            pickle2(b"\x82\x01" + op.items(text("x")) + op.REDUCE),
            "EXT1: a name out of a table that the loading process has",
            expect_name("EXT", "extension"),
        ),
        "opcode_ext4": (pickle2(b"\x84\x01\x00\x00\x7f" + op.EMPTY_TUPLE + op.REDUCE), "EXT4", expect_name("EXT", "extension")),
        "opcode_persid": (pickle2(b"Pcommand\n"), "PERSID: an object that the loader is to find", expect_name("PERSID", "persistent")),
        "build_setstate": (pickle2(override), "BUILD puts os.system in place of __setstate__, and BUILD calls it", expect_name("os")),
        "reduce_chain": (
            pickle2(
                call(
                    call(named("builtins", "getattr"), call(named("builtins", "__import__"), text("subprocess")), text("call")),
                    command("reduce_chain"),
                )
            ),
            "REDUCE of a REDUCE of a REDUCE",
            expect_name("getattr", "__import__"),
        ),
    }


def by_memo() -> dict:
    """Names that only come together on the stack or in the memo: reading the opcodes one by one does not show them."""

    def finish(name: str, *parts: bytes) -> bytes:
        named_tail = op.items(text(shell(name))) + op.REDUCE
        return pickle4(*parts, named_tail)

    good = short("collections"), short("OrderedDict")
    return {
        "memo_names": (
            finish(
                "memo_names",
                short("os") + op.MEMOIZE + op.POP + short("system") + op.MEMOIZE + op.POP + op.get(0) + op.get(1) + op.STACK_GLOBAL,
            ),
            "STACK_GLOBAL with both names from the memo",
            expect_name("os", "system"),
        ),
        "memo_overwritten": (
            finish(
                "memo_overwritten",
                good[0]
                + op.put(0)
                + op.POP
                + good[1]
                + op.put(1)
                + op.POP
                + short("os")
                + op.put(0)
                + op.POP
                + short("system")
                + op.put(1)
                + op.POP
                + op.get(0)
                + op.get(1)
                + op.STACK_GLOBAL,
            ),
            "names in the memo are overwritten with others",
            expect_name("os", "system"),
        ),
        "memo_put_after_pop": (
            finish(
                "memo_put_after_pop",
                short("os")
                + good[0]
                + op.POP
                + op.put(0)
                + op.POP
                + short("system")
                + good[1]
                + op.POP
                + op.put(1)
                + op.POP
                + op.get(0)
                + op.get(1)
                + op.STACK_GLOBAL,
            ),
            "what is put into the memo is not what was pushed last",
            expect_name("os", "system"),
        ),
        "memo_reset_by_put": (
            finish(
                "memo_reset_by_put",
                good[0]
                + op.MEMOIZE
                + op.POP
                + short("os")
                + op.put(0)
                + op.POP
                + short("system")
                + op.put(7)
                + op.POP
                + op.get(0)
                + op.get(7)
                + op.STACK_GLOBAL,
            ),
            "BINPUT over what MEMOIZE kept",
            expect_name("os", "system"),
        ),
        "stack_dup": (
            finish("stack_dup", short("os") + op.DUP + op.POP + short("system") + op.DUP + op.POP + op.STACK_GLOBAL),
            "names with DUP and POP between",
            expect_name("os", "system"),
        ),
        "stack_pop_mark": (
            finish("stack_pop_mark", short("os") + op.MARK + good[0] + good[1] + op.POP_MARK + short("system") + op.STACK_GLOBAL),
            "other names between, which POP_MARK removes",
            expect_name("os", "system"),
        ),
        "stack_decoy": (
            finish("stack_decoy", short("os") + short("system") + good[0] + good[1] + op.POP + op.POP + op.STACK_GLOBAL),
            "the last two texts are not the names",
            expect_name("os", "system"),
        ),
        "memo_holds_function": (
            pickle4(stacked("os", "system") + op.MEMOIZE + op.POP + op.get(0) + op.items(text(shell("memo_holds_function"))) + op.REDUCE),
            "the function itself from the memo",
            expect_name("os", "system"),
        ),
        "name_as_bytes": (
            finish("name_as_bytes", b"U\x02os" + b"U\x06system" + op.STACK_GLOBAL),
            "names as SHORT_BINSTRING",
            expect_name("os", "system"),
        ),
        "name_made_by_call": (
            finish(
                "name_made_by_call",
                short("os")
                + method(text("metsys"), "__getitem__")
                + call(named("builtins", "slice"), op.NONE, op.NONE, number(-1))
                + op.TUPLE1
                + op.REDUCE
                + op.STACK_GLOBAL,
            ),
            "a name that a call makes",
            expect_name("getattr", "system", "STACK_GLOBAL"),
        ),
        "memo_get_missing": (
            finish("memo_get_missing", op.get(9) + op.get(8) + op.STACK_GLOBAL),
            "names from places of the memo that are empty",
            expect_name("memo", "STACK_GLOBAL"),
        ),
    }


def by_shape() -> dict:
    """Files that break off, go on, or hide what they are."""
    harmful = {
        name: call(named("os", "system"), text(shell(name)))
        for name in ("no_stop", "broken_later", "second_pickle", "frame_lies", "long_text", "unused", "proto_255")
    }
    small = pickle2(op.EMPTY_DICT)
    expect = expect_name("os", "system", "trailing", "after", "STOP", "truncat")
    return {
        "no_stop": (op.PROTO2 + harmful["no_stop"], "no STOP: it has run by then", expect),
        "broken_later": (op.PROTO2 + harmful["broken_later"] + b"\xff\xff\xff", "an opcode that there is not, after the call", expect),
        "second_pickle": (small + pickle2(harmful["second_pickle"]), "a second pickle after a harmless one", expect),
        "frame_lies": (
            op.PROTO4 + b"\x95" + (1 << 40).to_bytes(8, "little") + harmful["frame_lies"] + op.STOP,
            "a frame that says it is 1 TiB",
            expect + "|frame",
        ),
        "unused": (pickle2(harmful["unused"], op.POP, op.EMPTY_DICT), "the result is thrown away: what is loaded is an empty dict", expect),
        "long_text": (pickle2(text("x" * 300_000), op.POP, harmful["long_text"]), "300 kB of text before the call", expect),
        "proto_255": (b"\x80\xff" + harmful["proto_255"] + op.STOP, "protocol 255", expect + "|protocol"),
        "memory_memo": (
            pickle2(b"r\xff\xff\xff\x7f"),
            "LONG_BINPUT into place 2^31-1 of the memo: 16 GB",
            r"(?i)memo|limit|large|size|opcode|stack",
        ),
        "memory_bytes": (
            pickle4(b"\x8e" + (1 << 42).to_bytes(8, "little")),
            "BINBYTES8 of 4 TiB",
            r"(?i)size|length|truncat|limit|end|large|opcode",
        ),
        "memory_laughs": (
            pickle2(op.EMPTY_TUPLE, (op.DUP + op.TUPLE2) * 40),
            "a tuple of two of itself, forty times: small to load, 2^40 to walk",
            r"(?i)counted each time",
        ),
        "deep_nesting": (
            pickle2(op.EMPTY_TUPLE, op.TUPLE1 * 200_000),
            "200,000 tuples, one within the other: a hash of it ends Python",
            r"(?i)tuples in each other",
        ),
        "stack_underflow": (pickle2(op.POP * 3), "takes from an empty stack", r"(?i)stack|underflow|broken|invalid|opcode"),
    }


def by_state() -> dict:
    """States that NumPy's C code believes: it takes as many objects out of a list as the shape says, and reads its numbers where the state says."""

    def array(size: int, data: bytes) -> bytes:
        described = op.items(number(3), text("|"), op.NONE * 3, number(-1), number(-1), number(63))
        dtype = call(named("numpy", "dtype"), text("O8"), b"\x89", op.TRUE) + described + op.BUILD
        empty = call(named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), op.items(number(0)), op.raw(b"b"))
        return empty + op.items(number(1), op.items(number(size)), dtype, b"\x89", data) + op.BUILD

    # Bytes of the size of such a list in memory, which lie beside it.
    laid = b"".join(b"\x96" + (47).to_bytes(8, "little") + b"ABCDEFGH" * 5 + b"ABCDEFG" + op.put(place) + op.POP for place in range(100, 200))
    mersenne = call(named("numpy.random._pickle", "__bit_generator_ctor"), named("numpy.random._mt19937", "MT19937"))
    place = op.entry(text("bit_generator"), text("MT19937")) + text("state") + op.entry(text("pos"), number(10**9)) + op.SETITEM
    return {
        "array_short": (
            pickle4(array(1000, op.listed(op.NONE))),
            "an array of 1000 objects, of which the file has one",
            r"(?i)shape has 1000 objects",
        ),
        "array_groomed": (
            pickle4(laid, op.listed(op.NONE * 6), op.put(5), op.POP, array(66, op.get(5))),
            "the same, with bytes laid beside that become pointers",
            r"(?i)shape has 66 objects",
        ),
        "generator_place": (
            pickle4(mersenne, place, op.BUILD),
            "a Mersenne Twister that goes on 4 GB behind its numbers",
            r"(?i)generator of random numbers",
        ),
    }
