#!/usr/bin/env bash
# Adding an op is a message, an engine function and one table row. This adds one to a
# copy of the sources, touching nothing else, and uses it: from zonectl by its word and
# flag, from a pipe and a Lua script by its name, in the history by its view, in the
# digest's replay.
#
#   new_op.sh SOURCE_DIR WORK_DIR
set -euo pipefail
source=$1
work=$2/new_op
daemon=

cleanup() { [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; }
trap cleanup EXIT

rm -rf "$work"
mkdir -p "$work/tree"
(cd "$source" && tar -c --exclude=./build --exclude=./.git .) | tar -x -C "$work/tree"
cd "$work/tree"
cp -r proto "$work/proto.before"
cp -r server "$work/server.before"

# The message, and its places in the contract's lists.
cat >>proto/zoned/v1/ops.proto <<'PROTO'

// Adds two numbers. Lives in a test alone.
message AddNumbers {
  option (op) = {code: 99 word: "add-numbers"};
  OpContext context = 1;
  // The one number.
  uint32 left = 2 [(arg) = {max: 1000 required: true}];
  // The other.
  uint32 right = 3 [(arg) = {max: 1000 required: true}];
}
message AddNumbersResult {
  Outcome outcome = 1;
  // Both together.
  uint32 sum = 2;
}
PROTO
sed -i 's/^    Fork fork = 81;/&\n    AddNumbers add_numbers = 99;/
s/^    ForkResult fork = 81;/&\n    AddNumbersResult add_numbers = 99;/
s/^  rpc Fork(.*/&\n  rpc AddNumbers(.zoned.v1.AddNumbers) returns (.zoned.v1.AddNumbersResult);/' \
	proto/zoned/v1/memory.proto
# The function and the row.
sed -i 's/^#define OPS(X)/static op_fn op_add_numbers;\n\n&/
s/^\tX(OP_FORK, .*/& \\\n\tX(OP_ADD_NUMBERS, op_add_numbers, BOOTED)/' server/engine/machine.c
cat >>server/engine/machine.c <<'C'

static u32 op_add_numbers(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)e;
	res->values[0] = op->args[0] + op->args[1];
	return STATUS_OK;
}
C
changed=$(diff -rq "$work/proto.before" proto; diff -rq "$work/server.before" server) || true
[ "$(printf '%s\n' "$changed" | wc -l)" = 3 ] || { printf 'changed more than three files:\n%s\n' "$changed"; exit 1; }

cmake -S . -B "$work/build" -G Ninja -DZONED_KERNEL=OFF -DCMAKE_BUILD_TYPE=Debug >/dev/null
# Without words it would not be in the contract: nobody could explain it.
cp proto/zoned/v1/ops.proto "$work/ops.proto"
sed -i '/Both together/d' proto/zoned/v1/ops.proto
if cmake --build "$work/build" --target contract_generated >"$work/log" 2>&1; then
	echo "a field without words was taken"
	exit 1
fi
grep -q 'zoned.v1.AddNumbersResult.sum has no words' "$work/log"
cp "$work/ops.proto" proto/zoned/v1/ops.proto
cmake --build "$work/build" --target zoned zonectl

export ZONED_ADDRESS=unix:$work/socket PATH=$work/build/client:$PATH
rm -f "$work"/h.db*
"$work/build/server/zoned" --listen "$ZONED_ADDRESS" --history "$work/h.db" 2>"$work/log" &
daemon=$!
for _ in $(seq 200); do zonectl ping >/dev/null 2>&1 && break; sleep 0.05; done

expect() { # WHAT WANT GOT
	[ "$2" = "$3" ] || { printf '%s: wanted %s, got %s\n' "$1" "$2" "$3"; exit 1; }
}
json() { /usr/bin/python3 -c "import json,sys; print(json.load(sys.stdin)$1)"; }

zonectl machine create m0 --ram 64M >/dev/null
expect "the CLI's word and flags" 42 "$(zonectl add-numbers -m m0 --left 40 --right 2 --json | json "['sum']")"
zonectl add-numbers --help | grep -q 'Adds two numbers'
if zonectl add-numbers -m m0 --left 1001 --right 2 2>/dev/null; then
	echo "a number beyond the proto's range was taken"
	exit 1
fi
expect "a pipe" 7 "$(echo '{"op":"add-numbers","left":3,"right":4}' | zonectl pipe -m m0 | json "['sum']")"
expect "a Lua script" "OK 11" "$(echo 'm = zoned.attach"m0" r = m:add_numbers{left=5, right=6}
	zoned.expect{m:async("add_numbers", {left=1, right=1}), sum=2} print(r.status .. " " .. r.sum)' | zonectl run -)"
expect "the history's view" "40|2|42" \
	"$(sqlite3 "$work/h.db" 'select "left", "right", sum from op_add_numbers limit 1')"
expect "Python, which learns it from the daemon" 9 "$(PYTHONPATH=client/python/src /usr/bin/python3 -c '
import zoned
print(zoned.connect().machine("m0").add_numbers(left=4, right=5).sum)')"
before=$(zonectl machine digest m0)
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
"$work/build/server/zoned" --listen "$ZONED_ADDRESS" --history "$work/h.db" 2>>"$work/log" &
daemon=$!
for _ in $(seq 200); do zonectl ping >/dev/null 2>&1 && break; sleep 0.05; done
# The machine comes back after the daemon does.
after=
for _ in $(seq 200); do after=$(zonectl machine digest m0 2>/dev/null) && break; sleep 0.05; done
expect "the replay" "$before" "$after"
echo "one message, one function, one row: enough"
