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
node "$work/test_grpc_node.js" "$build/tests/rpc/echo_server" "$source/proto"

# The example, against the daemon itself.
cp "$source/client/javascript/example.js" "$work"
rm -f "$work"/example.db* "$work/example.sock"
"$build/server/zoned" --listen "unix:$work/example.sock" --history "$work/example.db" --log-level error &
daemon=$!
trap 'kill $daemon 2>/dev/null || true' EXIT
until [ -S "$work/example.sock" ] || ! kill -0 $daemon; do sleep 0.05; done
ZONED_PROTO=$source/proto node "$work/example.js" "unix:$work/example.sock" >"$work/example.out"
cat "$work/example.out"
grep -q 'run: 1000 allocations, 1000 different frames' "$work/example.out"
grep -q '^sql: example ZONE_HIGHMEM 1$' "$work/example.out"
