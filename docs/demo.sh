#!/bin/sh
# The main job on a real archive: verify, load into a fresh store, list, save, verify the result; then a thin archive.
# Usage: docs/demo.sh path/to/imgtar   (make demo does this)
set -eu
cd "$(dirname "$0")/.."
imgtar=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
IMGTAR_STORE=$work/store
export IMGTAR_STORE
archive=fixtures/docker-20.10.24/three-images.tar

run() {
    printf '\n$ %s\n' "$(echo "imgtar $*" | sed "s|$work|/tmp/demo|g")"
    status=0
    "$imgtar" "$@" >"$work/said" 2>&1 || status=$?
    sed "s|$work|/tmp/demo|g" "$work/said"
    return $status
}

run verify $archive
run load -i $archive
run images
run save -o "$work/out.tar" app:1 app:2
run verify "$work/out.tar"
run inventory -o "$work/here.inv.zst"
run save --base base:1 -o "$work/delta.tar" app:2
run verify --against "$work/here.inv.zst" "$work/delta.tar"
run deps
printf '\nThe demo has run to its end: what was loaded was saved again, and proved good.\n'
