-- lesson: other boards: PowerPC with an empty DMA zone, ARM with 768 MB of lowmem
local lesson = require "lesson"

lesson.say([[Which zones there are is a matter of the board. On a PC DMA ends at 16 MB, because ISA
devices do. A PowerPC has no such devices: its DMA zone is empty, and what asks for DMA is served from
NORMAL. A 32-bit ARM gives vmalloc 240 MB of its gigabyte, so lowmem ends at 768 MB, 128 MB earlier
than on a PC. (These two are simulated only: they are zones and layouts on x86 page tables.)]])

local boards, rows = {}, {}
for _, preset in ipairs{"classic", "arm32", "ppc32"} do
	local m = zoned.machine{name="lesson-board-" .. preset, replace=true, ram="1G", preset=preset,
		backend="sim"}
	local row = {board=preset, dma=0, normal=0, highmem=0, id=m.id}
	for _, z in ipairs(m:zoneinfo().zones) do
		local key = z.zone:sub(6):lower()
		row[key] = (row[key] or 0) + (z.spanned + 128) // 256
	end
	for _, part in ipairs(m:layout().parts) do
		if part.part == "LAYOUT_DIRECT_MAP" then
			row.lowmem = (part["end"] - part.start) >> 20
		elseif part.part == "LAYOUT_VMALLOC" then
			row.vmalloc = (part["end"] - part.start) >> 20
		elseif part.part == "LAYOUT_USER" then
			row.user_ends = zoned.hex(part["end"])
		elseif part.part == "LAYOUT_PKMAP" then
			row.pkmap_at = zoned.hex(part.start)
		end
	end
	row.kmap_slots = m:kmap_window().summary[1].slots
	local page = zoned.expect{m:alloc{gfp="GFP_DMA", owner="driver"}}
	row.gfp_dma_gives = page.zone
	boards[preset], rows[#rows + 1] = m, row
end

lesson.step("three boards of 1 GiB (zones and windows in MiB)")
lesson.table(rows, {"board", "dma", "normal", "highmem", "lowmem", "vmalloc", "gfp_dma_gives"})
lesson.table(rows, {"board", "user_ends", "pkmap_at", "kmap_slots"})
local pc, arm, ppc = rows[1], rows[2], rows[3]
zoned.expect{"a PC's DMA zone", got=pc.gfp_dma_gives, is="ZONE_DMA"}
zoned.expect{"a PowerPC's DMA zone is empty", got=ppc.dma, is=0}
zoned.expect{"and DMA comes from", got=ppc.gfp_dma_gives, is="ZONE_NORMAL"}
zoned.expect{"lowmem of an ARM", got=arm.lowmem, at_most=768}
zoned.expect{"lowmem of an ARM", got=arm.lowmem, at_least=760}
zoned.expect{"lowmem of a PC", got=pc.lowmem, is=896}
zoned.expect{"more HIGHMEM on an ARM", got=arm.highmem, above=pc.highmem}

lesson.step("what an empty DMA zone means")
local page = zoned.expect{boards.ppc32:alloc{gfp="GFP_HIGHUSER"}}
local ok = zoned.expect{boards.ppc32:dma_map{pfn=page.pfn, length="4K", address_bits=32}, bounced=false}
lesson.line("a device there reaches all of RAM: bus address 0x%x, bounced %s", ok.bus_address,
	ok.bounced and "yes" or "no")
local isa = zoned.expect{boards.ppc32:dma_map{pfn=page.pfn, length="4K", address_bits=24}, bounced=true}
lesson.line("a device with 24 lines gets a bounce buffer from NORMAL, at 0x%x: while there is one so low",
	isa.bus_address)

lesson.step("the same kernel work on all three, until lowmem is out")
local ended = {}
for _, row in ipairs(rows) do
	local m, blocks, pages = boards[row.board], 0, 0
	local high = zoned.expect{m:alloc{gfp="GFP_HIGHUSER", owner="buffer"}, zone="ZONE_HIGHMEM"}
	zoned.expect{m:dma_map{pfn=high.pfn, length="4K", address_bits=32}}
	while m:alloc{gfp="GFP_KERNEL", order=10, owner="kernel"}.ok do
		blocks = blocks + 1
	end
	while m:alloc{gfp="GFP_KERNEL", owner="kernel"}.ok do
		pages = pages + 1
	end
	local map = m:dma_map{pfn=high.pfn, length="4K", address_bits=24}
	ended[row.board] = {board=row.board, kernel_mib=blocks * 4 + pages // 256, isa_device=map.status,
		highmem_free_mib=lesson.zone(m, "HIGHMEM").free // 256}
end
lesson.table({ended.classic, ended.arm32, ended.ppc32},
	{"board", "kernel_mib", "highmem_free_mib", "isa_device"})
zoned.expect{"an ARM runs out of lowmem first", got=ended.arm32.kernel_mib, below=ended.classic.kernel_mib - 100}
zoned.expect{"a PC kept DMA for its devices", got=ended.classic.isa_device, is="OK"}
zoned.expect{"a PowerPC has nothing to keep it in", got=ended.ppc32.isa_device, is="NO_MEMORY"}
lesson.say([[The ARM's kernel had 128 MB less to live in, with twice the HIGHMEM idle beside it. And a zone of
its own is what saves the ISA device on the PC: lowmem_reserve keeps DMA from requests that could go
elsewhere. On the PowerPC nothing keeps low frames apart, so when they are gone they are gone.]])
for _, m in pairs(boards) do
	m:check()
end

local proof = lesson.prove("the zones as they came to be", [[
	SELECT machine, preset, zone, z.start, z.spanned, z.managed
	FROM event_zone_ready z JOIN machine_config c USING (machine_id, machine)
	WHERE machine_id IN (?1, ?2, ?3) ORDER BY machine_id, z.start]], pc.id, arm.id, ppc.id)
for _, row in ipairs(proof) do
	if row.preset == "PPC32" and row.zone == "ZONE_DMA" then
		zoned.expect{"pages of a PowerPC's DMA zone", got=row.managed, is=0}
	end
end
