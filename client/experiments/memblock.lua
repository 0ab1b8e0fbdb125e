-- lesson: memblock before the buddy: how a kernel that cannot allocate yet allocates
local lesson = require "lesson"

lesson.say([[The page allocator needs a descriptor for every frame, and memory for the descriptors has to
come from somewhere. At first there is only memblock: two sorted lists of ranges, what is RAM and
what is taken. To allocate is to find a gap between the two and to put it on the second list.]])
local m = zoned.machine{name="lesson-memblock", replace=true, ram="256M", early=true}

local function regions(array)
	local rows = {}
	for _, r in ipairs(m:memblock().regions) do
		if r.array == array then
			rows[#rows + 1] = r
		end
	end
	return rows
end
local function show(what)
	local reserved = regions("MEMBLOCK_RESERVED")
	local parts = {}
	for i, r in ipairs(reserved) do
		parts[i] = ("%x-%x"):format(r.start, r.start + r.size)
	end
	lesson.line("%-30s reserved: %s", what, table.concat(parts, " "))
	return reserved
end

lesson.step("what is RAM")
for _, r in ipairs(regions("MEMBLOCK_MEMORY")) do
	lesson.line("%08x to %08x, %s", r.start, r.start + r.size, zoned.size(r.size))
end
lesson.line("there are no zones yet, and no page can be allocated: %s",
	zoned.expect{m:alloc{gfp="GFP_KERNEL"}, status="INVALID"}.status)

lesson.step("what is taken: neighbours merge, a hole splits")
local before = #show("at the start")
zoned.expect{m:memblock_reserve{start=0x2000000, size="64K"}}
zoned.expect{"one more region", got=#show("reserve 64K at 2000000"), is=before + 1}
zoned.expect{m:memblock_reserve{start=0x2010000, size="64K"}}
zoned.expect{"it merged with its neighbour", got=#show("reserve 64K at 2010000"), is=before + 1}
zoned.expect{m:memblock_free{start=0x2008000, size="64K"}}
zoned.expect{"freeing the middle split it", got=#show("free 64K at 2008000"), is=before + 2}

lesson.step("allocating, from either end")
local top = zoned.expect{m:memblock_alloc{size="1M", align="1M"}}
lesson.line("1 MiB, top down:  %x", top.paddr)
local bottom = zoned.expect{m:memblock_alloc{size="1M", align="1M", direction="BOTTOM_UP", min="16M"}}
lesson.line("1 MiB, bottom up from 16 MiB: %x", bottom.paddr)
zoned.expect{"top down is above bottom up", got=top.paddr, above=bottom.paddr}
local isa = zoned.expect{m:memblock_alloc{size="64K", max="16M"}}
lesson.line("64 KiB below 16 MiB, for a device: %x", isa.paddr)
zoned.expect{"it ends below the limit", got=isa.paddr + 65536, at_most=16 << 20}
local none = zoned.expect{m:memblock_alloc{size="16M", min="8M", max="16M"}, status="NO_MEMORY"}
lesson.line("16 MiB between 8 and 16 MiB: %s", none.status)
show("now")

lesson.step("the buddy takes over")
local boot = zoned.expect{m:boot()}
lesson.line("boot: %d pages that memblock had not given away are the buddy's", boot.free_pages)
local free = 0
for _, z in ipairs(lesson.zones(m, {"zone", "start", "present", "managed", "free"})) do
	free = free + z.free
end
zoned.expect{"the zones have what boot gave", got=free, is=boot.free_pages}
for what, paddr in pairs{top=top.paddr, bottom=bottom.paddr, isa=isa.paddr} do
	zoned.expect{what .. " stays reserved", got=m:page(paddr >> 12).frame[1].state, is="FRAME_RESERVED"}
end
lesson.line("what memblock gave away stays away: the frame at %x is reserved", top.paddr)
zoned.expect{m:alloc{gfp="GFP_KERNEL"}, zone="ZONE_NORMAL"}
lesson.line("and the same request is served: %s", zoned.expect{m:alloc{gfp="GFP_KERNEL"}})
zoned.expect{m:memblock_reserve{start=0x3000000, size="4K"}, status="INVALID"}
m:check()

local proof = lesson.prove("regions that came, grew together and were cut", [[
	SELECT op, 'added' AS what, printf('%08x', start) AS start, size FROM event_memblock_added
	WHERE machine_id = ?1 AND op > 0
	UNION ALL SELECT op, 'merged', printf('%08x', start), size FROM event_memblock_merged
	WHERE machine_id = ?1 AND op > 0
	UNION ALL SELECT op, 'split', printf('%08x', start), size FROM event_memblock_split
	WHERE machine_id = ?1 AND op > 0 ORDER BY op]], m)
local seen = {}
for _, row in ipairs(proof) do
	seen[row.what] = true
end
zoned.expect{got={seen.added, seen.merged, seen.split}, is={true, true, true}}
