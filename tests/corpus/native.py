"""Loads one LightGBM or XGBoost file with its own library, under limits, and says what happened. A process for each file, since
these libraries do not bear to be forked, and may crash.

  native.py FILE JUDGED.npz     prints one line of JSON: {"ok": true, ...} or {"ok": false, "error": "..."}
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

SECONDS, BYTES = 10, 2 << 30


def run(file: Path, judged: Path) -> dict:
    """In a child process with limits."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, str(file), str(judged)], capture_output=True, text=True, timeout=3 * SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": "never ends"}
    if done.returncode != 0 or not done.stdout.strip():
        died = f"the process died by signal {-done.returncode}" if done.returncode < 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
        return {"ok": False, "error": died[:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def load(file: Path, rows):
    """The scores. `str` as the error of whatever goes wrong."""
    if file.suffix == ".txt":
        import lightgbm

        return lightgbm.Booster(model_str=file.read_bytes().decode(), params={"verbosity": -1}).predict(rows, num_threads=1)
    import xgboost

    xgboost.set_config(verbosity=0)
    booster = xgboost.Booster(params={"nthread": 1})
    booster.load_model(bytearray(file.read_bytes()))
    return booster.predict(xgboost.DMatrix(rows, nthread=1))


def main():
    import numpy as np
    from data import Judged, ndcg_at_10

    file, kept = Path(sys.argv[1]), np.load(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    judged = Judged(kept["features"], kept["labels"])
    try:
        scores = np.asarray(load(file, judged.features))
        answer = {"ok": True, "shape": list(scores.shape), "not_finite": int((~np.isfinite(scores)).sum())}
        if scores.size == len(judged.labels):
            answer["ndcg"] = round(float(ndcg_at_10(judged, scores.ravel()).mean()), 4)
            answer["constant"] = bool(np.ptp(scores[np.isfinite(scores)]) == 0)
    except BaseException as error:  # whatever it is, it is what happened
        answer = {"ok": False, "error": " ".join(str(error).split("Stack trace:")[0].split())[:200] or type(error).__name__}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
