#!/bin/sh
# Installs the locked packages into the build folder, once, and runs the node tests.
#
#     run_node.sh SOURCE_DIR BINARY_DIR
#
# Exit code 77 (skipped) without node, npm or a registry to install from.
set -eu
source=$1
build=$2
work=$build/interop-node
command -v node >/dev/null && command -v npm >/dev/null || { echo "no node or npm"; exit 77; }
mkdir -p "$work"
if ! cmp -s "$source/tests/interop/node/package-lock.json" "$work/.installed"; then
	cp "$source/tests/interop/node/package.json" "$source/tests/interop/node/package-lock.json" "$work"
	(cd "$work" && npm ci --no-audit --no-fund --loglevel=error) || { echo "npm ci failed"; exit 77; }
	cp "$work/package-lock.json" "$work/.installed"
fi
cp "$source/tests/interop/node/test_grpc_node.js" "$work"
exec node "$work/test_grpc_node.js" "$build/tests/rpc/echo_server" "$source/proto"
