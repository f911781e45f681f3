#!/usr/bin/env bash
# Build the image and hold it to SageMaker's contract, in a container engine that takes docker's words.
#   deploy/check_image.sh [DATA_DIR]     tables to train on; make-believe ones where none are given
# Other engines, and what yours needs further, by variables: ENGINE=podman, BUILD="buildah bud", RUN="podman run --ulimit …",
# BASE=… for another base than the Dockerfile's.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-docker} image=firstspin:checked firstspin=.venv/bin/firstspin
read -ra build <<<"${BUILD:-$engine build}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
data=${1:-$work/tables}
[ -d "$data" ] || $firstspin world "$data" --users 2500 --seed 1 >/dev/null
"${build[@]}" ${BASE:+--build-arg "BASE=$BASE"} -t "$image" .
$engine image inspect "$image" >"$work/inspect.json"
$firstspin sagemaker check --train "$data" --hyperparameter model=auto --hyperparameter seed=7 --inspect "$work/inspect.json" \
    --command "${RUN:-$engine run} --rm --name {name} --network host -v {root}:/opt/ml --env-file {env} $image"
