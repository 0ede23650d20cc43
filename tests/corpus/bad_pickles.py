"""Pickles that would run something if they were loaded, one of each public sort.

What they would run is harmless and can be seen: it makes a file EXECUTED_<name> in the folder that the environment's CORPUS_CANARY
names, or tries to in /tmp/nowhere. They are put together from opcodes; nothing here or elsewhere in the corpus loads one.
"""

import opcodes as op
from item import Item
from opcodes import call, method, named, number, pickle2, pickle4, short, stacked, text


def shell(name: str) -> str:
    """A line of sh."""
    return f': > "${{CORPUS_CANARY:-/tmp/nowhere}}/EXECUTED_{name}"'


def python(name: str) -> str:
    """An expression, a statement too."""
    return f"open(__import__('os').environ.get('CORPUS_CANARY', '/tmp/nowhere') + '/EXECUTED_{name}', 'w').close()"


def canary_path(name: str) -> bytes:
    """Opcodes of the path, for what takes one."""
    return call(stacked("posixpath", "expandvars"), text(f"$CORPUS_CANARY/EXECUTED_{name}"))


def command(name: str) -> bytes:
    """Opcodes of the list ["sh", "-c", line]."""
    return op.listed(text("sh"), text("-c"), text(shell(name)))


def expect_name(*names: str) -> str:
    """A refusal says which name, or that it is what a pickle may not do."""
    return "(?i)" + "|".join(name.replace(".", r"\.") for name in names) + "|opcode|not allowed|allow.?list"


def items() -> list:
    made = {**by_module(), **by_builtins(), **by_indirection(), **by_file_access()}
    return [Item(f"bad/pickle/{name}.pkl", data, "pickle-code", why, expect) for name, (data, why, expect) in made.items()]


def by_module() -> dict:
    """One call of something that takes a command or code: (module, name, arguments)."""
    calls = {
        "os_system": ("os", "system", lambda n: [text(shell(n))]),
        "posix_system": ("posix", "system", lambda n: [text(shell(n))]),
        "nt_system": ("nt", "system", lambda n: [text(shell(n))]),
        "os_popen": ("os", "popen", lambda n: [text(shell(n))]),
        "subprocess_popen": ("subprocess", "Popen", lambda n: [command(n)]),
        "subprocess_getoutput": ("subprocess", "getoutput", lambda n: [text(shell(n))]),
        "subprocess_check_output": ("subprocess", "check_output", lambda n: [command(n)]),
        "pty_spawn": ("pty", "spawn", lambda n: [command(n)]),
        "runpy_run_code": (
            "runpy",
            "_run_code",
            lambda n: [call(named("builtins", "compile"), text(python(n)), text("x"), text("exec")), op.EMPTY_DICT],
        ),
        "timeit_timeit": ("timeit", "timeit", lambda n: [text(python(n))]),
        "cprofile_run": ("cProfile", "run", lambda n: [text(python(n))]),
        "profile_run": ("profile", "run", lambda n: [text(python(n))]),
        "pdb_run": ("pdb", "run", lambda n: [text(python(n))]),
        "trace_run": ("trace", "Trace.run", lambda n: [call(named("trace", "Trace")), text(python(n))]),
        "doctest_debug_script": ("doctest", "debug_script", lambda n: [text(python(n))]),
        "pydoc_pipepager": ("pydoc", "pipepager", lambda n: [text("x"), text(shell(n))]),
        "uuid_command": ("uuid", "_get_command_stdout", lambda n: [text("sh"), text("-c"), text(shell(n))]),
        "imaplib_stream": ("imaplib", "IMAP4_stream", lambda n: [text(shell(n))]),
        "asyncio_transport": (
            "asyncio.unix_events",
            "_UnixSubprocessTransport._start",
            lambda n: [op.EMPTY_DICT, text(shell(n)), op.TRUE, op.NONE, op.NONE, op.NONE, number(0)],
        ),
        "numpy_testing_runstring": ("numpy.testing._private.utils", "runstring", lambda n: [text(python(n)), op.EMPTY_DICT]),
        "numpy_f2py": ("numpy.f2py.crackfortran", "myeval", lambda n: [text(python(n))]),
        "code_interact": (
            "code",
            "InteractiveInterpreter.runcode",
            lambda n: [call(named("code", "InteractiveInterpreter")), text(python(n))],
        ),
        "pip_main": ("pip", "main", lambda n: [op.listed(text("--version"))]),
        "pip_internal": ("pip._internal.cli.main", "main", lambda n: [op.listed(text("--version"))]),
        "ensurepip": ("ensurepip", "_run_pip", lambda n: [op.listed(text("--version"))]),
        "torch_hub_load": ("torch.hub", "load", lambda n: [text("/tmp/nowhere"), text("model")]),
        "torch_load": ("torch.serialization", "load", lambda n: [text("/tmp/nowhere/model.pt")]),
        "torch_compile_file": ("torch._inductor.codecache", "compile_file", lambda n: [text(""), text(""), command(n)]),
        "webbrowser_open": (
            "webbrowser",
            "GenericBrowser.open",
            lambda n: [call(named("webbrowser", "GenericBrowser"), command(n)), text("x")],
        ),
        "ctypes_cdll": ("ctypes", "CDLL", lambda n: [text("libc.so.6")]),
        "multiprocessing_spawnv": ("multiprocessing.util", "spawnv_passfds", lambda n: [op.raw(b"/bin/sh"), command(n), op.EMPTY_TUPLE]),
        "posixsubprocess": ("_posixsubprocess", "fork_exec", lambda n: [text(shell(n))]),
        "distutils_spawn": ("distutils.spawn", "spawn", lambda n: [command(n)]),
        "commands_python2": ("commands", "getoutput", lambda n: [text(shell(n))]),
        "builtin_python2": ("__builtin__", "eval", lambda n: [text(python(n))]),
        "execfile_python2": ("__builtin__", "execfile", lambda n: [text("/tmp/nowhere/x.py")]),
    }
    made = {}
    for name, (module, function, arguments) in calls.items():
        write, how = (stacked, pickle4) if "." in function else (named, pickle2)
        made[name] = (how(call(write(module, function), *arguments(name))), f"calls {module}.{function}", expect_name(module, function))
    return made


def by_builtins() -> dict:
    """The built-in ways to run code, and chains from them."""
    imported = call(named("builtins", "__import__"), text("os"))
    return {
        "builtins_eval": (pickle2(call(named("builtins", "eval"), text(python("builtins_eval")))), "builtins.eval", expect_name("eval")),
        "builtins_exec": (pickle2(call(named("builtins", "exec"), text(python("builtins_exec")))), "builtins.exec", expect_name("exec")),
        "builtins_getattr": (
            pickle2(call(method(imported, "system"), text(shell("builtins_getattr")))),
            "getattr(__import__('os'), 'system')",
            expect_name("getattr", "__import__"),
        ),
        "builtins_import": (pickle2(imported), "__import__ alone", expect_name("__import__")),
        "builtins_compile_exec": (
            pickle2(
                call(
                    named("builtins", "exec"),
                    call(named("builtins", "compile"), text(python("builtins_compile_exec")), text("x"), text("exec")),
                )
            ),
            "compile, then exec",
            expect_name("exec", "compile"),
        ),
        "builtins_map": (
            pickle2(
                call(
                    named("builtins", "list"), call(named("builtins", "map"), named("os", "system"), op.listed(text(shell("builtins_map"))))
                )
            ),
            "list(map(os.system, ...))",
            expect_name("map", "system"),
        ),
        "builtins_breakpoint": (
            pickle2(named("builtins", "breakpoint") + op.EMPTY_TUPLE + op.REDUCE),
            "breakpoint()",
            expect_name("breakpoint"),
        ),
        "builtins_dotted": (
            pickle4(
                call(stacked("builtins", "__import__"), short("os")),
                op.POP,
                call(stacked("os", "path.os.system"), text(shell("builtins_dotted"))),
            ),
            "a name with dots that walks from os.path back to os.system",
            expect_name("os"),
        ),
    }


def by_indirection() -> dict:
    """Harmless-looking names that fetch or call another."""
    imported = call(named("importlib", "import_module"), text("os"))
    partial = call(named("functools", "partial"), named("os", "system"))
    system = call(named("operator", "attrgetter"), text("system"))
    caller = call(named("operator", "methodcaller"), text("system"), text(shell("operator_methodcaller")))
    code = call(named("marshal", "loads"), op.raw(b"N"))
    return {
        "importlib": (
            pickle2(call(method(imported, "system"), text(shell("importlib")))),
            "importlib.import_module",
            expect_name("importlib"),
        ),
        "functools_partial": (
            pickle2(call(partial, text(shell("functools_partial")))),
            "functools.partial(os.system)",
            expect_name("functools", "os"),
        ),
        "functools_reduce": (
            pickle2(call(named("functools", "reduce"), named("os", "execl"), op.listed(text("/bin/true")))),
            "functools.reduce",
            expect_name("functools"),
        ),
        "operator_attrgetter": (
            pickle2(call(call_on(system, imported), text(shell("operator_attrgetter")))),
            "operator.attrgetter('system')",
            expect_name("operator"),
        ),
        "operator_methodcaller": (pickle2(call_on(caller, imported)), "operator.methodcaller", expect_name("operator")),
        "pkgutil_resolve": (
            pickle2(call(call(named("pkgutil", "resolve_name"), text("os:system")), text(shell("pkgutil_resolve")))),
            "pkgutil.resolve_name('os:system')",
            expect_name("pkgutil"),
        ),
        "pydoc_locate": (
            pickle2(call(call(named("pydoc", "locate"), text("os.system")), text(shell("pydoc_locate")))),
            "pydoc.locate('os.system')",
            expect_name("pydoc"),
        ),
        "marshal_function": (
            pickle2(call(named("types", "FunctionType"), code, op.EMPTY_DICT)),
            "a function made of marshalled code",
            expect_name("marshal", "types"),
        ),
        "sys_modules": (
            pickle2(call(method(call(method(named("sys", "modules"), "get"), text("os")), "system"), text(shell("sys_modules")))),
            "sys.modules['os']",
            expect_name("sys"),
        ),
        "pickle_loads": (
            pickle2(call(named("pickle", "loads"), op.raw(pickle2(call(named("os", "system"), text(shell("pickle_loads"))))))),
            "a pickle within bytes, loaded by pickle.loads",
            expect_name("pickle"),
        ),
        "pickle_loads_hidden": (
            pickle2(call(named("_pickle", "loads"), call(named("zlib", "decompress"), op.raw(squeezed("pickle_loads_hidden"))))),
            "the same, compressed, by _pickle.loads",
            expect_name("_pickle", "zlib"),
        ),
        "copyreg_reconstructor": (
            pickle2(call(named("copyreg", "_reconstructor"), named("subprocess", "Popen"), named("builtins", "object"), op.NONE)),
            "copyreg._reconstructor of Popen",
            expect_name("subprocess", "Popen"),
        ),
        "cloudpickle": (
            pickle2(call(named("cloudpickle.cloudpickle", "subimport"), text("os"))),
            "cloudpickle's subimport",
            expect_name("cloudpickle"),
        ),
        "dill": (pickle2(call(named("dill._dill", "_create_code"), text("x"))), "dill's code objects", expect_name("dill")),
        "sklearn_nested_module": (
            pickle4(call(stacked("sklearn.externals._packaging.version", "warnings.sys.modules.get"), text("os"))),
            "a dotted name that leaves scikit-learn",
            expect_name("sklearn"),
        ),
        "numpy_module_walk": (
            pickle4(call(stacked("numpy", "testing._private.utils.os.system"), text(shell("numpy_module_walk")))),
            "a dotted name that leaves NumPy for os.system",
            expect_name("numpy"),
        ),
    }


def squeezed(name: str) -> bytes:
    import zlib

    return zlib.compress(pickle2(call(named("os", "system"), text(shell(name)))))


def call_on(function: bytes, thing: bytes) -> bytes:
    return function + thing + op.TUPLE1 + op.REDUCE


def by_file_access() -> dict:
    """Calls that read, write or fetch: some in libraries that model files really name, so a list by module's prefix lets them in."""
    return {
        "builtins_open": (
            pickle4(call(stacked("builtins", "open"), canary_path("builtins_open"), short("w"))),
            "open for writing",
            expect_name("open"),
        ),
        "io_fileio": (
            pickle4(call(stacked("_io", "FileIO"), canary_path("io_fileio"), short("w"))),
            "_io.FileIO for writing",
            expect_name("_io", "FileIO"),
        ),
        "logging_filehandler": (
            pickle4(call(stacked("logging", "FileHandler"), canary_path("logging_filehandler"))),
            "logging.FileHandler makes a file",
            expect_name("logging"),
        ),
        "shutil_copy": (
            pickle4(call(stacked("shutil", "copyfile"), text("/dev/null"), canary_path("shutil_copy"))),
            "shutil.copyfile",
            expect_name("shutil"),
        ),
        "urllib_open": (
            pickle4(call(stacked("urllib.request", "urlopen"), text("http://127.0.0.1:9/"))),
            "fetches a URL",
            expect_name("urllib"),
        ),
        "socket_connect": (
            pickle4(call(stacked("socket", "create_connection"), op.items(text("127.0.0.1"), number(9)))),
            "opens a connection",
            expect_name("socket"),
        ),
        "numpy_save": (
            pickle4(call(stacked("numpy", "save"), canary_path("numpy_save"), number(1))),
            "numpy.save writes a file",
            expect_name("numpy"),
        ),
        "numpy_memmap": (
            pickle4(call(stacked("numpy", "memmap"), canary_path("numpy_memmap"), short("u1"), short("w+"), number(0), number(1))),
            "numpy.memmap makes a file",
            expect_name("numpy"),
        ),
        "numpy_load": (
            pickle4(call(stacked("numpy", "load"), text("/tmp/nowhere/x.npy"), op.NONE, op.TRUE)),
            "numpy.load with allow_pickle",
            expect_name("numpy"),
        ),
        "numpy_tofile": (
            pickle4(call(stacked("numpy", "ndarray.tofile"), call(stacked("numpy", "zeros"), number(1)), canary_path("numpy_tofile"))),
            "ndarray.tofile writes a file",
            expect_name("numpy"),
        ),
        "joblib_load": (
            pickle4(call(stacked("joblib.numpy_pickle", "load"), text("/tmp/nowhere/x.joblib"))),
            "joblib.load of another file",
            expect_name("joblib"),
        ),
        "joblib_dump": (
            pickle4(call(stacked("joblib", "dump"), number(1), canary_path("joblib_dump"))),
            "joblib.dump writes a file",
            expect_name("joblib"),
        ),
        "sklearn_load_files": (
            pickle4(call(stacked("sklearn.datasets", "load_files"), text("/etc"))),
            "sklearn.datasets.load_files reads a folder",
            expect_name("sklearn"),
        ),
        "sklearn_fetch": (
            pickle4(call(stacked("sklearn.datasets", "fetch_openml"), number(1))),
            "sklearn.datasets.fetch_openml fetches",
            expect_name("sklearn"),
        ),
        "lightgbm_from_file": (
            pickle4(call(stacked("lightgbm.basic", "Booster"), op.NONE, op.NONE, text("/etc/passwd"))),
            "a LightGBM booster out of any file",
            expect_name("lightgbm"),
        ),
        "xgboost_from_file": (
            pickle4(call(stacked("xgboost.core", "Booster"), op.NONE, op.NONE, text("/etc/passwd"))),
            "an XGBoost booster out of any file",
            expect_name("xgboost"),
        ),
    }
