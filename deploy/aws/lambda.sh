#!/usr/bin/env bash
# The Lambda's zip: what the gateway imports, the bundle whose rule answers when the endpoint does not, and the sealed
# plan of the experiment, if one runs.
#   deploy/aws/lambda.sh BUNDLE OUT.zip [experiment.toml]
# boto3 is in Lambda's own runtime. The zip is for that runtime whatever machine makes it: x86-64, Amazon Linux 2023
# and its Python, as the template says (front.py). RUNTIME=3.11 makes it for another Python.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd) runtime=${RUNTIME:-3.13} python=${PYTHON:-}
python=${python:-"$root/.venv/bin/python"}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# the locked versions with their hashes
awk '/^[a-z]/ {wanted = /^(msgspec|numpy|typing-extensions)==/} wanted' "$root/requirements/run.txt" >"$work/wanted.txt"
platforms=()
for glibc in 28 27 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
pip=("$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/package")
"${pip[@]}" --require-hashes --only-binary=:all: --implementation cp --python-version "$runtime" "${platforms[@]}" \
    -r "$work/wanted.txt"
rm -r "$work/package/bin"
"${pip[@]}" --no-build-isolation "$root"
rm -r "$work/package/bin"
find "$work/package/firstspin" -name '*.so' -delete # of this machine's Python; the same steps are there in numpy
cp -R "$1" "$work/package/bundle"
if [ $# -gt 2 ]; then cp "$3" "$work/package/experiment.toml"; fi
find "$work/package" -name __pycache__ -prune -exec rm -r {} +
"$python" - "$work/package" "$2" <<'PY'
import re, shutil, sys
from pathlib import Path
package, out = Path(sys.argv[1]), Path(sys.argv[2])
for library in package.rglob("*.so*"):
    code = library.read_bytes()
    needed = max((int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", code)), default=0)
    # 62 is x86-64 in an ELF header; Amazon Linux 2023 has glibc 2.34
    if code[18:20] != b"\x3e\x00" or needed > 34:
        sys.exit(f"{library.name} is not for x86-64, or needs glibc 2.{needed}: Lambda could not load it")
# Lambda has no more than this for a function unpacked
size = sum(path.stat().st_size for path in package.rglob("*"))
print(f"{size / 2**20:.0f} MiB unpacked, of 250")
if size > 250 * 2**20:
    sys.exit("too large for a Lambda")
shutil.move(shutil.make_archive(str(package), "zip", package), out)
PY
