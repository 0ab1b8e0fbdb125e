-- lesson: vmalloc takes HIGHMEM first, guards its areas, and runs out of addresses
local lesson = require "lesson"

lesson.say([[vmalloc() maps single frames side by side, so it needs no large block and takes HIGHMEM
before it touches lowmem: what it is short of is addresses. They come from a window at the end of
the address space, whose size is lowmem's loss.]])
local m = zoned.machine{name="lesson-vmalloc", replace=true, ram="1G", pae=true, vmalloc="128M"}

lesson.step("HIGHMEM first")
local area = zoned.expect{m:with{owner="module"}:vmalloc{size="64K"}}
lesson.line("%s", area)
local zones = {}
for i = 0, area.nr_pages - 1 do
	local at = m:walk(area.va + i * 4096).translation[1].paddr
	local frame = m:page(at >> 12).frame[1]
	zones[frame.zone] = (zones[frame.zone] or 0) + 1
	zoned.expect{"what the frame is for", got=frame.state, is="FRAME_VMALLOC"}
end
zoned.expect{"where its frames are", got=zones, is={ZONE_HIGHMEM=area.nr_pages}}
lesson.line("its %d pages, frame by frame: all in HIGHMEM, none needs its neighbour", area.nr_pages)
local dma = zoned.expect{m:vmalloc{size="16K", gfp="GFP_DMA"}}
local frame = m:page(m:walk(dma.va).translation[1].paddr >> 12).frame[1]
zoned.expect{got=frame.zone, is="ZONE_DMA"}
lesson.line("unless it is asked for another zone: gfp=GFP_DMA gives %s", frame.zone)

lesson.step("a guard page behind each area")
local last = zoned.expect{m:access{va=area.va + 65535, data="!", mode="WRITE", privilege="KERNEL"}}
local beyond = zoned.expect{status="FAULT",
	m:access{va=area.va + 65536, data="!", mode="WRITE", privilege="KERNEL"}}
lesson.line("the last byte:    0x%x %s", area.va + 65535, last.status)
lesson.line("one byte further: 0x%x %s (%s)", beyond.fault_va, beyond.status, beyond.error_code)
zoned.expect{"the next area begins behind it", got=dma.va, is=area.va + 65536 + 4096}

lesson.step("freed frames are free at once, addresses are not")
local before = lesson.zone(m, "HIGHMEM")
zoned.expect{m:vfree(area.va)}
local after = lesson.zone(m, "HIGHMEM")
zoned.expect{"pages back", got=after.free + after.pcp - before.free - before.pcp, is=area.nr_pages}
zoned.expect{m:access{va=area.va, length=1, privilege="KERNEL"}, status="FAULT"}
local next_area = zoned.expect{m:vmalloc{size="64K"}}
zoned.expect{"a new area's address", got=next_area.va, is_not=area.va}
lesson.line("vfree 0x%x: %d pages back; the next vmalloc gets 0x%x", area.va, area.nr_pages, next_area.va)
local purged = zoned.expect{m:purge_vmap()}
lesson.line("after the purge (%d pages of addresses): 0x%x again", purged.pages,
	zoned.expect{m:vmalloc{size="64K"}, va=area.va}.va)

lesson.step("the window runs out at 128 MB, and not at 256")
local rows = {}
for _, reserve in ipairs{"128M", "256M"} do
	local box = zoned.machine{name="lesson-vmalloc-" .. reserve, replace=true, ram="1G", pae=true,
		vmalloc=reserve}
	local taken, answer = 0, nil
	repeat
		answer = box:vmalloc{size="4M"}
		taken = taken + (answer.ok and 1 or 0)
	until not answer.ok or taken == 40
	local high, low = lesson.zone(box, "HIGHMEM"), lesson.zone(box, "NORMAL")
	rows[#rows + 1] = {window=reserve, areas_of_4M=taken, then_=answer.status,
		normal=low.managed, highmem=high.managed, highmem_free=high.free, id=box.id}
end
lesson.table(rows, {"window", "areas_of_4M", "then_", "normal", "highmem", "highmem_free"})
zoned.expect{"128 MB end in NO_SPACE", got=rows[1].then_, is="NO_SPACE"}
zoned.expect{"256 MB take the same and more", got=rows[2].then_, is="OK"}
lesson.say([[It is addresses that ended, not memory. The larger window took its addresses from
lowmem: what the direct map cannot reach any more is HIGHMEM now.]])

local proof = lesson.prove("areas that were given, and the one that was not", [[
	SELECT machine, status, count(*) AS areas, sum(nr_pages) AS pages, max(op) AS last_op
	FROM op_vmalloc WHERE machine_id IN (?1, ?2) GROUP BY machine_id, status]], rows[1].id, rows[2].id)
zoned.expect{"who ran out", got={proof[1].machine, proof[1].status}, is={"lesson-vmalloc-128M", "NO_SPACE"}}
zoned.expect{"the other one did not", got=#proof, is=3}
proof = lesson.prove("no zone but HIGHMEM gave a page to it", [[
	SELECT zone, count(*) AS pages FROM event_alloc
	WHERE machine_id = ?1 AND op_name = 'Vmalloc' AND gfp & 2 GROUP BY zone]], rows[1].id)
zoned.expect{got=proof[1].zone, is="ZONE_HIGHMEM"}
zoned.expect{got=#proof, is=1}
