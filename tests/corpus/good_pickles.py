"""Pickles, joblib files, state dicts and arrays that a gate must let pass: what people really keep of such models."""

import bz2
import gzip
import io
import lzma
import pickle
import zlib

import joblib
import lightgbm
import lz4.frame
import numpy as np
import opcodes as op
from data import FEATURES, NAMES
from item import Item
from opcodes import named, number, pickle2, text
from sklearn.preprocessing import StandardScaler
from trained import Trained
from zips import archive, stored

STORAGE = "archive/data/0"


def items(trained: Trained) -> list:
    return pickles(trained) + joblibs(trained) + others()


def good(file: str, data: bytes, why: str) -> Item:
    return Item(f"good/{file}", data, "good-pickle", why)


def pickles(trained: Trained) -> list:
    made = []
    for protocol in (2, 3, 4, 5):
        data = pickle.dumps(trained.sklearn["gradient_boosting"], protocol)
        made.append(good(f"pickle/gradient_boosting_p{protocol}.pkl", data, f"scikit-learn, gradient boosting, protocol {protocol}"))
    for name in ("random_forest", "hist_gradient_boosting", "mlp", "linear"):
        made.append(good(f"pickle/{name}.pkl", pickle.dumps(trained.sklearn[name]), f"scikit-learn, {name}"))
    ranker = lightgbm.LGBMRanker(n_estimators=12, num_leaves=7, random_state=7, n_jobs=1, verbose=-1)
    ranker.fit(trained.train.features, trained.train.labels, group=trained.train.groups)
    made.append(good("pickle/lightgbm_ranker.pkl", pickle.dumps(ranker), "LightGBM's LGBMRanker"))
    made.append(good("pickle/lightgbm_booster.pkl", pickle.dumps(trained.live), "a LightGBM Booster"))
    made.append(good("pickle/xgboost_ranker.pkl", pickle.dumps(trained.xgb), "XGBoost's XGBRanker"))
    made.append(good("pickle/xgboost_ranker_p2.pkl", pickle.dumps(trained.xgb, 2), "XGBoost's XGBRanker, protocol 2"))
    made.append(
        good(
            "pickle/dict_of_arrays.pkl",
            pickle.dumps({"weights": np.arange(FEATURES, dtype=np.float32), "names": NAMES}),
            "a dict of an array and names",
        )
    )
    return made


def packed(pack, thing) -> bytes:
    out = io.BytesIO()
    joblib.dump(thing, out)
    return pack(out.getvalue())


def joblibs(trained: Trained) -> list:
    packers = {
        "plain": bytes,
        "zlib": zlib.compress,
        "gzip": lambda data: gzip.compress(data, mtime=0),
        "bz2": bz2.compress,
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        "xz": lzma.compress,
        "lz4": lz4.frame.compress,
    }
    made = []
    for name, pack in packers.items():
        made.append(
            good(f"joblib/mlp_{name}.joblib", packed(pack, trained.sklearn["mlp"]), f"scikit-learn, a scaler and an mlp, joblib, {name}")
        )
    for name in ("random_forest", "hist_gradient_boosting"):
        made.append(good(f"joblib/{name}.joblib", packed(bytes, trained.sklearn[name]), f"scikit-learn, {name}, joblib"))
    scaler = StandardScaler().fit(trained.train.features)
    scaler.feature_names_in_ = np.array(NAMES, dtype=object)
    made.append(
        good(
            "joblib/feature_names.joblib",
            packed(bytes, scaler),
            "with the names of the features, as fitting on a table leaves them: an array of objects",
        )
    )
    made.append(good("joblib/xgboost_ranker.joblib", packed(zlib.compress, trained.xgb), "XGBoost's XGBRanker, joblib, zlib"))
    return made


def others() -> list:
    arrays = io.BytesIO()
    np.save(arrays, np.arange(FEATURES, dtype=np.float32))
    weights = arrays.getvalue()
    return [
        good("torch/state_dict.pt", archive([stored(name, data) for name, data in torch_files()]), "a state dict as PyTorch writes it"),
        good("numpy/weights.npz", archive([stored("weights.npy", weights), stored("bias.npy", weights)]), "two arrays"),
        good("numpy/weights.npy", weights, "an array"),
    ]


def torch_files(numbers: int = FEATURES) -> list:
    """(name, data) of the files in torch.save({"weight": tensor of `numbers` floats}), written by hand."""
    storage = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + number(numbers) + b"tQ"
    rebuilt = (
        named("torch._utils", "_rebuild_tensor_v2")
        + op.items(
            storage,
            number(0),
            op.items(number(1), number(numbers)),
            op.items(number(numbers), number(1)),
            b"\x89",
            named("collections", "OrderedDict") + op.EMPTY_TUPLE + op.REDUCE,
        )
        + op.REDUCE
    )
    state = named("collections", "OrderedDict") + op.EMPTY_TUPLE + op.REDUCE + text("weight") + rebuilt + op.SETITEM
    values = np.linspace(-1, 1, numbers, dtype=np.float32).tobytes() if numbers <= 10**6 else b""
    return [
        ("archive/data.pkl", pickle2(state)),
        ("archive/byteorder", b"little"),
        (STORAGE, values),
        ("archive/version", b"3\n"),
    ]
