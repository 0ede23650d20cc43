//! Every known kind of a payload, in every way that a pickle has to name a global. What others' scanners missed is here by what they
//! missed.

use super::asm::Asm;
use super::{refused, refused_globals};

/// Modules and names that run code, start programs, open files or sockets, import, unpickle, or find things by name. Names with a dot are
/// methods.
const PAYLOADS: &str = "
    os:system os:popen os:execvp os:spawnlp os:remove os:putenv os:kill posix:system nt:system subprocess:Popen subprocess:check_output
    subprocess:run _posixsubprocess:fork_exec pty:spawn commands:getoutput asyncio:run asyncio.unix_events:_UnixSubprocessTransport._start
    multiprocessing.util:spawnv_passfds uuid:_get_command_stdout imaplib:IMAP4_stream _osx_support:_read_output
    _osx_support:_find_build_tool _aix_support:_read_cmd_output _pyrepl.pager:pipe_pager pydoc:pipepager pydoc:tempfilepager
    webbrowser:open webbrowser:GenericBrowser.open antigravity:geohash platform:popen distutils.spawn:spawn distutils.util:execute
    test.support.script_helper:assert_python_ok venv:create ensurepip:_run_pip pip:main pip._internal:main setuptools:setup
    torch.utils.collect_env:run torch._inductor.codecache:compile_file torch.utils.cpp_extension:load_inline
    concurrent.futures:ProcessPoolExecutor sched:scheduler.run signal:signal atexit:register builtins:eval builtins:exec builtins:compile
    builtins:breakpoint __builtin__:eval __builtin__:execfile __builtin__:apply __builtin__:input builtins:help
    code:InteractiveInterpreter code:InteractiveInterpreter.runcode code:interact codeop:compile_command runpy:_run_code runpy:run_path
    timeit:timeit timeit:main trace:Trace.run trace:Trace.runctx profile:run profile:Profile.runctx cProfile:run cProfile:runctx
    bdb:Bdb.run pdb:run pdb:Pdb doctest:debug_script doctest:testmod idlelib.run:Executive.runcode
    idlelib.pyshell:ModifiedInterpreter.runcode idlelib.pyshell:ModifiedInterpreter.runcommand idlelib.calltip:get_entity
    idlelib.calltip:Calltip.fetch_tip idlelib.autocomplete:AutoComplete.get_entity idlelib.autocomplete:AutoComplete.fetch_completions
    idlelib.debugobj:ObjectTreeItem.SetText numpy.testing._private.utils:runstring numpy.f2py.crackfortran:getlincoef
    numpy.f2py.crackfortran:_eval_length numpy.f2py.crackfortran:param_eval numpy.f2py.diagnose:run_command
    numpy.lib._npyio_impl:DataSource numpy.distutils.exec_command:exec_command torch._dynamo.guards:GuardBuilder.get
    torch.fx.experimental.symbolic_shapes:ShapeEnv.evaluate_guards_expression torch.jit.unsupported_tensor_ops:execWrapper
    torch.utils.bottleneck.__main__:run_cprofile torch.utils.bottleneck.__main__:run_autograd_prof
    torch.fx.graph_module:reduce_graph_module torch.jit:script torch:compile sympy:sympify pandas.core.computation.eval:eval pandas:eval
    pandas:DataFrame.query types:CodeType types:FunctionType types:LambdaType new:code marshal:loads dis:dis ast:literal_eval
    string:Formatter cloudpickle.cloudpickle:_make_function cloudpickle.cloudpickle:_builtin_type cloudpickle.cloudpickle:subimport
    cloudpickle.cloudpickle:_function_setstate dill._dill:_create_function dill._dill:_import_module dill._dill:_eval_repr jax:jit
    numba:jit lib2to3.pgen2.grammar:Grammar.loads lib2to3.pgen2.pgen:ParserGenerator.make_label tkinter:Tk turtle:config_dict
    site:addsitedir site:execsitecustomize smtpd:SMTPServer logging.config:dictConfig logging.config:listen dataclasses:make_dataclass
    collections:namedtuple typing:get_type_hints typing:ForwardRef._evaluate builtins:getattr builtins:setattr builtins:delattr
    builtins:hasattr builtins:vars builtins:globals builtins:locals builtins:__import__ builtins:dir builtins:type builtins:super
    builtins:property builtins:classmethod __builtin__:__import__ importlib:import_module importlib:__import__
    importlib.util:module_from_spec importlib._bootstrap:_load importlib.machinery:SourceFileLoader imp:load_source imp:load_dynamic
    pkgutil:resolve_name pkgutil:get_data pydoc:locate pydoc:safeimport zipimport:zipimporter zipimport:zipimporter.load_module
    unittest.mock:_importer unittest:TestLoader.loadTestsFromName xmlrpc.server:resolve_dotted_attribute inspect:getattr_static
    operator:attrgetter operator:itemgetter operator:methodcaller operator:call _operator:attrgetter _operator:methodcaller
    functools:partial functools:reduce functools:partialmethod functools:singledispatch __builtin__:reduce builtins:map builtins:filter
    builtins:sorted builtins:max builtins:next builtins:iter itertools:imap itertools:starmap itertools:accumulate builtins:zip
    weakref:finalize contextlib:ExitStack threading:Thread threading:Timer _thread:start_new_thread gc:get_objects sys:modules
    sys:settrace sys:setprofile sys:_getframe sys:path sys:exit copyreg:__newobj__ copyreg:add_extension copyreg:dispatch_table
    copyreg:pickle copy:_reconstruct __main__:Model __main__:X __mp_main__:X torch.distributed.rpc:rpc_sync joblib:Parallel
    joblib.parallel:BatchedCalls joblib.externals.loky.backend.popen_loky_posix:Popen sklearn.utils.validation:check_array
    sklearn.utils._joblib:delayed pickle:loads pickle:load _pickle:loads _pickle:Unpickler pickle:_loads cPickle:loads
    pickle:Unpickler.load dill:loads cloudpickle:loads joblib:load joblib.numpy_pickle:load joblib.numpy_pickle:read_array
    joblib.numpy_pickle_compat:ZNDArrayWrapper joblib.numpy_pickle_compat:NDArrayWrapper numpy:load numpy.lib.npyio:load
    numpy.lib.format:read_array pandas:read_pickle pandas.io.pickle:read_pickle pandas.compat.pickle_compat:load torch:load
    torch.serialization:load torch.storage:_load_from_bytes torch.hub:load torch.utils._config_module:ConfigModule.load_config
    torch.utils.data.datapipes.utils.decoder:basichandlers torch.package:PackageImporter
    torch.distributed.elastic.rendezvous.api:basichandlers shelve:open shelve:DbfilenameShelf yaml:load yaml:unsafe_load jsonpickle:decode
    catboost:CatBoost.load_model keras.models:load_model tensorflow:keras.models.load_model mlflow.pyfunc:load_model
    sklearn.externals.joblib:load multiprocessing.reduction:_rebuild_partial multiprocessing.connection:Client
    multiprocessing.managers:RebuildProxy torch.multiprocessing.reductions:rebuild_storage_fd builtins:open io:open _io:open _io:FileIO
    io:FileIO __builtin__:file codecs:open tempfile:NamedTemporaryFile pathlib:Path.write_text pathlib:PosixPath shutil:rmtree shutil:move
    distutils.file_util:write_file distutils.file_util:copy_file glob:glob fileinput:input linecache:getlines logging:FileHandler
    mmap:mmap numpy:memmap numpy:fromfile numpy:save numpy:genfromtxt numpy.ctypeslib:load_library numpy:vectorize numpy:apply_along_axis
    numpy:frompyfunc numpy:fromfunction numpy:piecewise ctypes:CDLL ctypes:cdll.LoadLibrary ctypes:pythonapi ctypes:string_at
    _ctypes:dlopen cffi:FFI torch.ops:load_library torch.classes:load_library torch:from_file socket:socket socket:create_connection
    ssl:get_server_certificate urllib.request:urlopen urllib:urlopen urllib2:urlopen urllib.request:urlretrieve
    http.client:HTTPSConnection httplib:HTTPConnection requests.api:get requests:get aiohttp.client:ClientSession ftplib:FTP smtplib:SMTP
    telnetlib:Telnet poplib:POP3 socketserver:TCPServer xmlrpc.client:ServerProxy sqlite3:connect sqlite3.dbapi2:Connection.load_extension
    dbm:open whichdb:whichdb tarfile:open zipfile:ZipFile lightgbm:Booster lightgbm.basic:Dataset xgboost:DMatrix xgboost.core:DataIter
    sklearn.datasets:load_files sklearn.feature_extraction.text:HashingVectorizer joblib.memory:Memory fickling:always_check_safety
    picklescan.scanner:scan_pickle_bytes
";

/// Names that are allowed elsewhere, other names of allowed modules, and names that only look like allowed ones.
const LOOKALIKES: &[(&str, &str)] = &[
    ("os.path", "dtype"),
    ("numpy", "os.system"),
    ("numpy", "dtype.__class__"),
    ("numpy", "ndarray.tofile"),
    ("collections", "OrderedDict.fromkeys"),
    ("collections", "_sys.modules"),
    ("os", "path.join"),
    ("sklearn", "os.system"),
    ("numpy.core", "multiarray._reconstruct"),
    ("builtins", "str.format"),
    ("builtins", "object.__subclasses__"),
    ("datetime", "sys.modules"),
    ("numpy ", "dtype"),
    ("numpy", " dtype"),
    ("NUMPY", "dtype"),
    ("numpy", "dtype\r"),
    ("numpy\u{200b}", "dtype"),
    ("", ""),
    ("numpy", ""),
    ("", "dtype"),
    ("builtins.", "list"),
    ("nump\u{0443}", "dtype"),
];

fn payloads() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAYLOADS.split_ascii_whitespace().filter_map(|pair| pair.split_once(':')).chain(LOOKALIKES.iter().copied())
}

/// As Python 3 knows it, for protocols below 3.
fn label(protocol: u8, module: &str, name: &str) -> String {
    let (module, name) = super::super::python2::mapped(protocol, module, name);
    super::super::error::shown(&format!("{module}.{name}"))
}

#[test]
fn every_payload_is_refused_by_its_name_however_it_is_named() {
    assert!(payloads().count() > 250);
    for (module, name) in payloads() {
        let old = label(0, module, name);
        let new = label(4, module, name);
        let args = |asm: Asm| asm.text("x").raw(b"\x85R");
        let ways = [
            (&old, args(Asm::default().global(module, name)).stop()),
            (&old, args(Asm::protocol(2).global(module, name)).stop()),
            (&new, args(Asm::protocol(3).global(module, name)).stop()),
            (&new, args(Asm::protocol(4).stack_global(module, name)).stop()),
            // The names by way of the memo, and with other values between.
            (&new, Asm::protocol(4).text(module).raw(b"\x940").text(name).raw(b"\x940N0h\x00h\x01\x93)R").stop()),
            (&new, Asm::protocol(4).text(module).raw(b"q\x07N0").text(name).raw(b"2q\x090h\x07h\x09\x93)R").stop()),
            // Called by INST and OBJ, with and without arguments.
            (&old, Asm::default().raw(b"(").text("x").raw(format!("i{module}\n{name}\n").as_bytes()).stop()),
            (&old, Asm::default().raw(format!("(i{module}\n{name}\n").as_bytes()).stop()),
            (&old, Asm::protocol(2).raw(b"(").global(module, name).text("x").raw(b"o").stop()),
            // Made, and made with keywords.
            (&new, Asm::protocol(4).stack_global(module, name).raw(b")\x81").stop()),
            (&new, Asm::protocol(4).stack_global(module, name).raw(b")}\x92").stop()),
            // Only named, and thrown away.
            (&new, Asm::protocol(4).stack_global(module, name).raw(b"0N").stop()),
            // In a list that is never used.
            (&old, Asm::protocol(2).raw(b"](").global(module, name).raw(b"e").stop()),
        ];
        for (label, bytes) in ways {
            assert_eq!(refused_globals(&bytes), std::slice::from_ref(label), "{module} {name} {bytes:?}");
        }
    }
}

#[test]
fn a_payload_is_named_though_the_rest_is_broken() {
    // Python has run it when it comes to the broken part.
    let payload = Asm::protocol(2).global("os", "system").text("id").raw(b"\x85R").0;
    for rest in [
        &b""[..],
        b"\xff",
        b"0",
        b"0000",
        b"h\x63",
        b"t",
        b"X\xff\xff\xff\x7f",
        b".\xff",
        b".garbage",
        b"cno newline",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"I12x\n",
    ] {
        let bytes = [payload.as_slice(), rest].concat();
        assert_eq!(refused_globals(&bytes), ["os.system"], "{rest:?}");
        let text = refused(&bytes);
        assert!(text.starts_with("at byte 2 (GLOBAL): names os.system, which is not among the allowed globals; at byte "), "{text}");
    }
}

#[test]
fn a_message_says_what_and_where() {
    let bytes = Asm::protocol(4).raw(b"N0").stack_global("os", "system").stop();
    assert_eq!(refused(&bytes), "at byte 16 (STACK_GLOBAL): names os.system, which is not among the allowed globals");
}

#[test]
fn all_of_a_file_are_listed_and_no_more_than_32() {
    let names = ["os.system", "subprocess.Popen", "builtins.eval"];
    let asm = names.iter().fold(Asm::protocol(4), |asm, name| {
        let (module, name) = name.split_once('.').unwrap();
        asm.stack_global(module, name).raw(b"0")
    });
    assert_eq!(refused_globals(&asm.raw(b"N").stop()), names);
    let many = (0..100).fold(Asm::protocol(4), |asm, number| asm.stack_global("m", &format!("n{number}")).raw(b"0"));
    assert_eq!(refused_globals(&many.raw(b"N").stop()).len(), 32);
}

#[test]
fn a_second_pickle_of_a_file_is_walked() {
    let first = Asm::protocol(4).raw(b"N").stop();
    let second = Asm::protocol(2).global("posix", "system").stop();
    assert_eq!(refused_globals(&[first, second].concat()), ["posix.system"]);
}

#[test]
fn a_name_that_cannot_be_told_is_refused() {
    let text = "names a global by a name that cannot be told";
    let long = "m".repeat(5_000);
    let length = u32::try_from(long.len()).unwrap().to_le_bytes();
    for bytes in [
        // The name comes of a call, is a number, is bytes, or has escapes.
        Asm::protocol(4).text("os").global("builtins", "str").text("system").raw(b"\x85R\x93").stop(),
        Asm::protocol(4).text("os").raw(b"K\x01\x93").stop(),
        Asm::protocol(4).text("os").raw(b"C\x06system\x93").stop(),
        Asm::protocol(4).raw(b"V\\u006fs\nVsystem\n\x93").stop(),
        Asm::protocol(4).raw(b"S'\\x6fs'\nS'system'\n\x93").stop(),
        Asm::protocol(4).text("os").global("_codecs", "encode").text("system").text("latin1").raw(b"\x86R\x93").stop(),
        Asm::protocol(4).raw(b"X").raw(&length).raw(long.as_bytes()).text("x").raw(b"\x93").stop(),
        Asm::protocol(4).raw(b"\x8c\x02\xff\xfe").text("x").raw(b"\x93").stop(),
        Asm::protocol(2).raw(b"c\xff\xfe\nx\n").stop(),
    ] {
        assert!(refused(&bytes).contains(text), "{bytes:?}");
    }
    // Text forms without escapes are constants as good as any.
    assert_eq!(refused_globals(&Asm::protocol(4).raw(b"Vos\nS'system'\n\x93").stop()), ["os.system"]);
}

#[test]
fn memo_games_do_not_hide_a_name() {
    // A number is given anew between: MEMOIZE counts entries, and PUT puts where it says.
    let swapped =
        Asm::protocol(4).text("numpy").raw(b"q\x000").text("os").raw(b"q\x000").text("system").raw(b"q\x010h\x00h\x01\x93").stop();
    assert_eq!(refused_globals(&swapped), ["os.system"]);
    let mixed = Asm::protocol(4)
        .text("os")
        .raw(b"q\x00")
        .text("system")
        .raw(b"q\x01")
        .text("collections")
        .raw(b"\x94")
        .text("OrderedDict")
        .raw(b"\x94")
        .raw(b"0000h\x00h\x01\x93")
        .stop();
    assert_eq!(refused_globals(&mixed), ["os.system"]);
    // MEMOIZE after a PUT far away takes the number of entries, not the next after it.
    let counted = Asm::protocol(4).text("dtype").raw(b"r\x20\x00\x00\x00").text("os").raw(b"\x9400").raw(b"h\x01h\x20\x93").stop();
    assert_eq!(refused_globals(&counted), ["os.dtype"]);
}

#[test]
fn extension_codes_and_foreign_ids_are_refused() {
    for code in [&b"\x82\x01"[..], b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"] {
        assert!(refused(&Asm::protocol(2).raw(code).stop()).contains("extension registry"));
    }
    assert!(refused(&Asm::default().raw(b"Pos\n").stop()).contains("outside of the pickle"));
    assert!(refused(&Asm::protocol(2).text("x").raw(b"Q").stop()).contains("outside of the pickle"));
    for buffer in [b"\x97", b"\x98"] {
        assert!(refused(&Asm::protocol(5).raw(buffer).stop()).contains("a buffer that is not in the file"));
    }
}

#[test]
fn python_2_names_are_judged_as_python_3_loads_them() {
    assert!(super::look(&Asm::protocol(2).global("__builtin__", "set").raw(b"](K\x01e\x85R").stop()).is_ok());
    // With protocol 3 there is no such module, and no mapping.
    assert_eq!(refused_globals(&Asm::protocol(3).global("__builtin__", "set").stop()), ["__builtin__.set"]);
}
