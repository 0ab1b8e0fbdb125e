#!/usr/bin/env bash
# Draining memory: a program on a 2 GiB machine touches page after page. Its faults take
# HIGHMEM first, then NORMAL, and DMA as the last resort, until no zone may serve one.
# A driver's kmap and a module's vmalloc happen on the way, before and after HIGHMEM is
# gone. Then the memory is drawn, and the history is asked what happened.
#
#   drain.sh [MACHINE]          needs a running daemon ($ZONED_ADDRESS) and zonectl
#
# The memory map is that of a real boot of Linux 6.1 (686-pae-2G.dmesg, beside this file).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export ZONED_MACHINE=${1:-drain}
zonectl=${ZONECTL:-zonectl}

say() { printf '\n== %s\n' "$*"; }

# Writes 16 pages at a time, from the mapping's begin on. Every write is one op with up
# to 16 page faults in it. 32768 of them are 2 GiB, more than the machine has.
touches() {
	awk 'BEGIN {
		for (i = 0; i < 32768; i++)
			printf "{\"op\":\"access\",\"va\":\"$heap.addr+%d\",\"length\":65536," \
			       "\"mode\":\"ACCESS_WRITE\",\"data\":\".\",\"task\":1,\"owner\":\"program\"}\n", i * 65536
	}'
}

# What the kernel does for itself: a page of the driver's, mapped for a while, and a
# module's memory.
kernel_work() {
	cat <<-'LINES'
	{"op":"alloc","gfp":"GFP_HIGHUSER","owner":"driver","as":"page"}
	{"op":"kmap","pfn":"$page.pfn","owner":"driver","as":"map"}
	{"op":"access","va":"$map.va","privilege":"PRIVILEGE_KERNEL","mode":"ACCESS_WRITE","data":"hello","owner":"driver"}
	{"op":"kunmap","pfn":"$page.pfn","owner":"driver"}
	{"op":"vmalloc","size":"4M","owner":"module"}
	LINES
}

lines() {
	printf '%s\n' '{"op":"task-create"}' '{"op":"schedule","next":1}' \
		'{"op":"mmap","length":"2G","prot":"PROT_READ|PROT_WRITE","task":1,"as":"heap"}' \
		'{"op":"schedule","next":0}'
	kernel_work
	echo '{"op":"schedule","next":1}'
	touches | head -n 20000
	echo '{"op":"schedule","next":0}'
	kernel_work
	echo '{"op":"schedule","next":1}'
	touches | tail -n +20001
}

say "a machine from a real boot's memory map"
"$zonectl" machine create --from-dmesg "$here/686-pae-2G.dmesg"

say "a program touches memory until there is none (this takes some ten seconds)"
rc=0
lines | "$zonectl" pipe --quiet || rc=$?
# 1: an op answered with something else than OK, which is how this has to end.
if [ "$rc" != 1 ]; then
	echo "drain.sh: expected the pipe to end with NO_MEMORY (exit code 1), got $rc" >&2
	exit 1
fi

echo "that is the end: no zone may serve another page of it"

say "the memory now"
"$zonectl" map --rows 8
"$zonectl" machine check

say "who used HIGHMEM, and what was left of it?"
"$zonectl" sql --no-pager --timeout 5m --param "$ZONED_MACHINE" "
	with used as (
		select coalesce(owner, '(nobody)') as owner, sum(pages) as pages,
		       min(from_op) as first_op, max(from_op) as last_op
		from allocations where machine = ?1 and zone = 'ZONE_HIGHMEM' and live group by 1)
	select * from used
	union all
	select '(left)', free - (select sum(pages) from used), null, null
	from event_zone_ready where machine = ?1 and zone = 'ZONE_HIGHMEM'"

say "when did each fallback happen, and why?"
"$zonectl" sql --no-pager --timeout 5m --param "$ZONED_MACHINE" "
	select wanted, got, why, count(*) as times, min(op) as first_op, max(op) as last_op
	from zone_fallbacks where machine = ?1 group by 1, 2, 3 order by first_op"

say "where did the faults' pages come from?"
"$zonectl" sql --no-pager --timeout 5m --param "$ZONED_MACHINE" "
	select resolution, zone, count, first_op, last_op from faults where machine = ?1
	order by first_op"
