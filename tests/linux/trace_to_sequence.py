#!/usr/bin/python3
"""Turns an ftrace of a real workload's page allocator into a sequence that replay.c
plays: trace_to_sequence.py FOLDER OUT.jsonl.gz

FOLDER holds kmem.trace.gz (events mm_page_alloc, mm_page_free, mm_page_free_batched)
and two snapshots of the exact allocator state, state-begin and state-end. What counts
is what lies between them, and before the process that took the second one: loading its
module allocates in bulk, which has no tracepoint.

A page freed in a batch is announced by mm_page_free and freed at mm_page_free_batched.
When kswapd took a watermark boost back is not in the trace. That it did so at once is
what the `trace` line says; the frames then agree.
"""
import gzip
import json
import re
import sys

GFP = {
    'GFP_DMA': 0x1, 'GFP_NOWAIT': 0x800, 'GFP_ATOMIC': 0xa20, 'GFP_NOIO': 0xc00,
    'GFP_NOFS': 0xc40, 'GFP_KERNEL': 0xcc0, 'GFP_USER': 0x100cc0, 'GFP_HIGHUSER': 0x100cc2,
    'GFP_HIGHUSER_MOVABLE': 0x100cca, 'GFP_TRANSHUGE_LIGHT': 0x1c20ca,
    'GFP_TRANSHUGE': 0x1c24ca, 'GFP_KERNEL_ACCOUNT': 0x400cc0, '__GFP_RECLAIM': 0xc00,
}
for number, name in enumerate(
        'DMA HIGHMEM DMA32 MOVABLE RECLAIMABLE HIGH IO FS ZERO ATOMIC DIRECT_RECLAIM '
        'KSWAPD_RECLAIM WRITE NOWARN RETRY_MAYFAIL NOFAIL NORETRY MEMALLOC COMP NOMEMALLOC '
        'HARDWALL THISNODE ACCOUNT'.split()):
    GFP['__GFP_' + name] = 1 << number

LINE = re.compile(r'\s*(\S+)-(\d+)\s+\[\d+\] \S+\s+(\d+)\.(\d+): (mm_page_\w+): (.*)')


def snapshot(path):
    return [json.loads(line) for line in gzip.open(path, 'rt')]


def read_events(folder, begin_us, end_us):
    """[(kind, fields)] between the snapshots and before the one that took the second."""
    events, started = [], {}
    for line in gzip.open(folder + '/kmem.trace.gz', 'rt'):
        m = LINE.match(line)
        if not m:
            continue
        time = int(m[3]) * 10**6 + int(m[4])
        if time > end_us:
            break
        if time >= begin_us:
            if m[1] == 'insmod':
                started.setdefault(m[2], len(events))
            events.append((m[5], dict(f.split('=', 1) for f in m[6].split() if '=' in f)))
    return events[:max(started.values())] if started else events


def announcements(events):
    """Indexes of those mm_page_free whose page a batch frees later."""
    pending, found = {}, set()
    for i, (kind, f) in enumerate(events):
        if kind == 'mm_page_free':
            pending[f['pfn']] = i
        elif kind == 'mm_page_free_batched' and f['pfn'] in pending:
            found.add(pending.pop(f['pfn']))
        elif kind == 'mm_page_alloc':
            pending.pop(f.get('pfn'), None)
    return found


def main():
    folder, out_path = sys.argv[1:]
    begin = snapshot(folder + '/state-begin.jsonl.gz')
    end = snapshot(folder + '/state-end.jsonl.gz')
    zones = [s for s in begin if s['t'] == 'state']
    events = read_events(folder, begin[-1]['ns1'] // 1000, end[0]['ns0'] // 1000)
    skipped = announcements(events)
    out = gzip.GzipFile('', 'wb', fileobj=open(out_path, 'wb'), mtime=0)

    def put(line):
        out.write((json.dumps(line, separators=(',', ':')) + '\n').encode())

    put({'t': 'trace', 'unboost': 1})
    for zone in zones:
        put(dict(zone, t='init'))
    number = 0
    for i, (kind, f) in enumerate(events):
        if i in skipped or kind not in ('mm_page_alloc', 'mm_page_free', 'mm_page_free_batched'):
            continue
        op = {'t': 'op', 'i': number, 'order': int(f['order']), 'pfn': int(f['pfn'], 16)}
        if kind == 'mm_page_alloc':
            op['op'] = 'alloc'
            gfp = 0
            for flag in f['gfp_flags'].split('|'):
                gfp |= GFP[flag]
            op['gfp'] = hex(gfp)
            op['z'] = next(z['z'] for z in zones
                           if z['start'] <= op['pfn'] < z['start'] + z['spanned'])
        else:
            op['op'] = 'free'
        put(op)
        number += 1
    out.close()


main()
