-- lesson: user faults drain HIGHMEM, then NORMAL, then DMA as the last resort
local lesson = require "lesson"

lesson.say([[A user page may lie anywhere, so the allocator takes it from where it hurts
least: HIGHMEM, which the kernel cannot address directly anyway. Only when HIGHMEM is short
does it turn to NORMAL, and to DMA last. A request for NORMAL or DMA never goes upwards: what
HIGHMEM has free is of no use to it. A small machine shows it: 128 MB of lowmem, 64 MB of
HIGHMEM.]])
local m = zoned.machine{name="lesson-drain", replace=true, ram="192M", highmem="64M", pae=true}
lesson.zones(m, {"zone", "managed", "free", "min", "low", "high"})

lesson.step("a program writes to page after page, until no zone may serve another")
local user, heap = lesson.program(m, "512M")
local touched, stop = 0, nil
local zones, first = {}, {}
while not stop do
	-- 16 pages an op; each first touch is a page fault and a frame.
	local batch = {}
	for i = 0, 63 do
		batch[i] = user:async("access", {va=heap + (touched + 16 * i) * 4096, length=16 * 4096,
			mode="WRITE", data="."})
	end
	for i = 0, 63 do
		touched = touched + (batch[i].done or 0) // 4096
		stop = stop or (not batch[i].ok and batch[i])
	end
	zoned.progress(touched, 49152, "pages touched")
end
zoned.expect{stop, status="NO_MEMORY"}
lesson.line("%d pages (%s) were touched; then: %s", touched, zoned.size(touched * 4096), stop.status)

lesson.step("what is left, and why nobody may have it")
for _, z in ipairs(lesson.zones(m, {"zone", "free", "pcp", "min", "boost", "reserve_highmem"})) do
	-- A zone is left while a request would go below its mark and its reserve. What the
	-- per-CPU lists took at once may bring it a refill below.
	zoned.expect{z.zone .. " is down to its mark and reserve", got=z.free,
		at_most=z.min + z.reserve_highmem + 64}
end
lesson.say([[min is what a zone keeps for emergencies; boost, a part of it, came when blocks
were taken from lists of another migratetype. reserve_highmem is what the zone keeps back beyond
that from requests that could have used HIGHMEM: those had more places to go than the kernel's
own.]])

lesson.step("the kernel asks now, while the program has all it could get")
local kernel = m:alloc{gfp="GFP_KERNEL", owner="kernel"}
zoned.expect{kernel, zone="ZONE_NORMAL"}
lesson.line("%s", kernel)
lesson.line("NORMAL kept its reserve for this")

lesson.step("never upwards: HIGHMEM is given back, and DMA asks for what it does not have")
m:schedule(0)
zoned.expect{m:task_exit(1)}
local dma = 0
while m:alloc{gfp="GFP_DMA", owner="isa"}.ok do
	dma = dma + 1
end
local high = lesson.zone(m, "HIGHMEM").free
zoned.expect{"HIGHMEM is all but free again", got=high, above=10000}
lesson.line("a driver got %d pages of DMA and then NO_MEMORY, while HIGHMEM had %d free", dma, high)
m:check()

local rows = lesson.prove("where the faults' pages came from, in which order", [[
	SELECT zone, count, first_op, last_op FROM faults
	WHERE machine_id = ?1 AND resolution = 'FAULT_DEMAND_ZERO' ORDER BY first_op]], m)
zoned.expect{got={rows[1].zone, rows[2].zone, rows[3].zone}, is={"ZONE_HIGHMEM", "ZONE_NORMAL", "ZONE_DMA"}}
zoned.expect{"pages by the history and by the answers", is=touched,
	got=rows[1].count + rows[2].count + rows[3].count}

rows = lesson.prove("each fallback was downwards, and why it was taken", [[
	SELECT wanted, got, why, count(*) AS times, min(op) AS first_op
	FROM zone_fallbacks WHERE machine_id = ?1 GROUP BY 1, 2, 3 ORDER BY first_op]], m)
local level = { ZONE_DMA = 0, ZONE_NORMAL = 1, ZONE_HIGHMEM = 2 }
for _, row in ipairs(rows) do
	zoned.expect{"a fallback goes down", got=level[row.got], below=level[row.wanted]}
end
