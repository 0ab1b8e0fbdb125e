#!/usr/bin/env bash
# How fast a script is: a loop of m:async("alloc", ...) against a daemon of its own, ops per
# second and zonectl's CPU time; and, where valgrind is installed, instructions per op.
#
#   script_rate.sh ZONECTL ZONED [OPS]
set -euo pipefail
zonectl=$1 zoned=$2 ops=${3:-500000}
dir=$(mktemp -d)
"$zoned" --listen "unix:$dir/socket" --history "$dir/history.db" 2>"$dir/log" &
daemon=$!
trap 'kill $daemon; wait $daemon || true; rm -rf "$dir"' EXIT
export ZONED_ADDRESS=unix:$dir/socket
for _ in $(seq 200); do "$zonectl" ping >/dev/null 2>&1 && break; sleep 0.05; done

cat >"$dir/rate.lua" <<'LUA'
local n, detail = tonumber(arg[1]), arg[2]
local m = zoned.machine{name="rate", replace=true, ram="4G", pae=true, detail=detail}
for _ = 1, n do
	m:async("alloc", {gfp="GFP_HIGHUSER", order=0})
end
zoned.expect{"allocations", got=m:flush().OK, is=n}
LUA

TIMEFORMAT='%R %U %S'
printf '%-10s %10s %12s %18s\n' detail ops ops/s "zonectl CPU us/op"
for detail in ops all; do
	took=$( { time "$zonectl" run "$dir/rate.lua" "$ops" "$detail" >&2; } 2>&1)
	awk -v detail=$detail -v ops="$ops" '{printf "%-10s %10d %12d %18.2f\n", detail, ops, ops / $1, ($2 + $3) / ops * 1e6}' <<<"$took"
done
if command -v valgrind >/dev/null; then
	count() {
		valgrind --tool=callgrind --callgrind-out-file=/dev/null "$zonectl" run "$dir/rate.lua" "$1" ops 2>&1 |
			sed -n 's/.*Collected : //p'
	}
	echo "instructions of zonectl an op: $((($(count 40000) - $(count 20000)) / 20000))"
fi
