#!/usr/bin/env python3
"""A tour of the Python package, in cells that a notebook editor shows one by one.

    tour.py [ADDRESS]           default: $ZONED_ADDRESS

Question: on a 1 GiB board, how far does user memory eat into NORMAL before anything fails,
under 3G/1G and under 2G/2G?
"""
# %% A connection. The daemon tells its ops by itself: help(m.alloc) is its own text.
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
import zoned

z = zoned.connect(sys.argv[1] if len(sys.argv) > 1 else None)
prefix = f"tour-{os.getpid()}"


# %% One machine per split; user memory, 64 KiB at a time, until the machine has none left.
def drain(split):
    m = z.create(f"{prefix}-{split}", ram="1G", split=split, preset="linux-6.1")
    with m.unchecked.run(batch=1024) as run:
        blocks = [run.alloc(gfp="GFP_HIGHUSER_MOVABLE", order=4, owner="app") for _ in range(1 << 14)]
    served = [b.result().zone for b in blocks if b.result().ok]
    return m, {zone: served.count(zone) for zone in sorted(set(served))}


for split in ("3G", "2G"):
    m, zones = drain(split)
    print(f"{split}: {sum(zones.values())} blocks:",
          ", ".join(f"{n} from {zone}" for zone, n in zones.items()))
    # The last report of a drained machine, as /proc/buddyinfo has it.
    print(m.buddyinfo())

# %% The same from the history. A Table draws itself; table.to_pandas() if pandas is there.
print(z.sql("""select machine, zone, count(*) blocks, min(from_op) first_op
               from allocations where machine glob ?1 || '*' group by 1, 2 order by 1, 2""", prefix))

# %% What could not be served, and what an error looks like.
try:
    m.alloc(gfp="GFP_KERNEL", order=10)
except zoned.OpFailed as e:
    print(e)

for row in z.machines():
    if row["name"].startswith(prefix):
        z.machine(row["name"]).destroy()
z.close()
