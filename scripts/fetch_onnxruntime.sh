#!/bin/sh
# Fetches ONNX Runtime's shared library, which `switchback ranker` loads at run time, out of the Python wheel `onnxruntime`.
# Usage: scripts/fetch_onnxruntime.sh [FOLDER]     by default target/onnxruntime
# Needs python3 with pip. Does nothing when the library is there already. Prints the library's path as its last line.
set -eu

VERSION=1.32.0
FOLDER=${1:-target/onnxruntime}
PYTHON=${PYTHON:-python3}

fail() {
    echo "fetch_onnxruntime: $1" >&2
    exit 1
}

say() {
    echo "fetch_onnxruntime: $1" >&2
}

mkdir -p "$FOLDER" || fail "cannot make the folder $FOLDER"
FOLDER=$(cd "$FOLDER" && pwd)
# One wheel for each platform, whatever Python there is: only the library inside is used.
case $(uname -s)-$(uname -m) in
    Linux-x86_64)
        LIBRARY=libonnxruntime.so PLATFORM=manylinux_2_28_x86_64
        SHA256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d
        ;;
    Linux-aarch64)
        LIBRARY=libonnxruntime.so PLATFORM=manylinux_2_28_aarch64
        SHA256=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c
        ;;
    Darwin-arm64)
        LIBRARY=libonnxruntime.dylib PLATFORM=macosx_14_0_arm64
        SHA256=366b9e53d07812cc5c92822cecf7563b76a8a0f32ba3bb8dd232a206ac3bcb6c
        ;;
    *) fail "no ONNX Runtime wheel is known for $(uname -s) on $(uname -m); install ONNX Runtime $VERSION yourself and set ORT_DYLIB_PATH" ;;
esac

if [ -s "$FOLDER/$LIBRARY" ] && [ "$(cat "$FOLDER/VERSION" 2>/dev/null)" = "$VERSION" ]; then
    say "$VERSION is there already"
    echo "$FOLDER/$LIBRARY"
    exit 0
fi

"$PYTHON" -m pip --version >/dev/null 2>&1 || fail "needs $PYTHON with pip (on Debian: apt install python3-pip), or set PYTHON"

SCRATCH=$(mktemp -d "$FOLDER/download.XXXXXX")
trap 'rm -rf "$SCRATCH"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "downloading the wheel onnxruntime $VERSION (28 MB)"
echo "onnxruntime==$VERSION --hash=sha256:$SHA256" >"$SCRATCH/requirements.txt"
"$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp --python-version 3.11 \
    --platform "$PLATFORM" --require-hashes --requirement "$SCRATCH/requirements.txt" --dest "$SCRATCH" ||
    fail "pip could not download onnxruntime $VERSION for $PLATFORM; is the package index reachable?"

say "unpacking"
"$PYTHON" - "$SCRATCH" "$LIBRARY" <<'PYTHON' || fail "the wheel could not be unpacked"
import glob
import shutil
import sys
import zipfile

scratch, library = sys.argv[1:]
(wheel,) = glob.glob(f"{scratch}/*.whl")
stem, _, extension = library.rpartition(".")
with zipfile.ZipFile(wheel) as archive:
    # libonnxruntime.so.1.32.0, libonnxruntime.1.32.0.dylib; not the provider libraries beside it.
    found = [name for name in archive.namelist()
             if name.startswith(f"onnxruntime/capi/{stem}.") and f".{extension}" in name]
    if len(found) != 1:
        sys.exit(f"expected one {library} in the wheel, found {found}")
    with archive.open(found[0]) as source, open(f"{scratch}/{library}", "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON

[ -s "$SCRATCH/$LIBRARY" ] || fail "$LIBRARY is not in the wheel onnxruntime $VERSION"
mv "$SCRATCH/$LIBRARY" "$FOLDER/$LIBRARY"
echo "$VERSION" >"$FOLDER/VERSION"
[ -s "$FOLDER/$LIBRARY" ] || fail "$FOLDER/$LIBRARY is missing after all"
say "ONNX Runtime $VERSION is in $FOLDER"
echo "$FOLDER/$LIBRARY"
