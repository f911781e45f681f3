#!/usr/bin/env bash
# The Lambda's zip: what the gateway imports, and the bundle whose rule answers when the endpoint does not.
#   deploy/aws/lambda.sh BUNDLE OUT.zip
# boto3 is in Lambda's own runtime. Run it with Python 3.11 on x86-64 Linux, as the function does.
set -euo pipefail
bundle=$(realpath "$1") out=$(realpath -m "$2") root=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wanted=$(sed -nE 's/^(msgspec|numpy|typing-extensions)==([^ ]+).*/\1==\2/p' "$root/requirements/run.txt")
python=${PYTHON:-"$root/.venv/bin/python"}
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --target "$work/package" $wanted
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target "$work/package" "$root"
cp -r "$bundle" "$work/package/bundle"
find "$work/package" -name __pycache__ -prune -exec rm -r {} +
rm -f "$out"
(cd "$work/package" && "$python" -m zipfile -c "$out" *)
"$python" - "$work/package" <<'PY'
import os, sys
# Lambda has no more than this for a function unpacked
size = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(sys.argv[1]) for name in names)
print(f"{size / 2**20:.0f} MiB unpacked, of 250")
sys.exit(size > 250 * 2**20)
PY
