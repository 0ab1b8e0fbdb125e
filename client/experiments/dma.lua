-- lesson: an ISA device, its bounce buffer, and how it starves when DMA is full
local lesson = require "lesson"

lesson.say([[An ISA device drives 24 address lines: it reaches the first 16 MB of RAM, and that is
what ZONE_DMA is for. A buffer that lies elsewhere is copied through a bounce buffer that the
device can reach. Both need a page below 16 MB at the moment of the transfer.]])
local m = zoned.machine{name="lesson-dma", replace=true, ram="1G", pae=true}

lesson.step("three buffers and two devices")
local rows = {}
for _, gfp in ipairs{"GFP_DMA", "GFP_KERNEL", "GFP_HIGHUSER"} do
	local page = zoned.expect{m:alloc{gfp=gfp, owner="driver"}}
	for _, bits in ipairs{24, 32} do
		local map = zoned.expect{m:dma_map{pfn=page.pfn, length="4K", address_bits=bits, direction="TO_DEVICE"}}
		rows[#rows + 1] = {buffer=zoned.hex(page.pfn << 12), zone=page.zone, address_lines=bits,
			device_sees=zoned.hex(map.bus_address), bounced=map.bounced and "yes" or "no"}
		zoned.expect{"what the device gets is in its reach", got=map.bus_address, below=1 << bits}
		zoned.expect{"bounced", got=map.bounced, is=(page.pfn << 12) >= 1 << bits}
		zoned.expect{m:dma_unmap(map.handle)}
	end
end
lesson.table(rows, {"zone", "buffer", "address_lines", "device_sees", "bounced"})

lesson.step("the bytes of a transfer from the device")
local page = zoned.expect{m:alloc{gfp="GFP_HIGHUSER", owner="driver"}}
local va = zoned.expect{m:kmap(page.pfn)}.va
local map = zoned.expect{m:dma_map{pfn=page.pfn, length="4K", address_bits=24, direction="FROM_DEVICE"}}
local bounce = map.bus_address
local kva -- the device's side is the bounce buffer, which lies in lowmem
for _, part in ipairs(m:layout().parts) do
	kva = part.part == "LAYOUT_DIRECT_MAP" and part.start + bounce or kva
end
lesson.line("the buffer is at 0x%x, the device writes to 0x%x", page.pfn << 12, bounce)
zoned.expect{m:access{va=kva, data="sector 0", mode="WRITE", privilege="KERNEL"}}
local early = zoned.expect{m:access{va=va, length=8, privilege="KERNEL"}}.data
zoned.expect{"the buffer before the sync", got=early, is_not="sector 0"}
lesson.line("before dma_sync the driver reads %s", early == ("\0"):rep(8) and "zeros" or "something else")
zoned.expect{m:dma_sync{handle=map.handle, party="CPU"}}
zoned.expect{m:access{va=va, length=8, privilege="KERNEL"}, data="sector 0"}
lesson.line("after it: \"sector 0\"")
zoned.expect{m:dma_unmap(map.handle)}

lesson.step("starving")
local dma = lesson.zone(m, "DMA")
lesson.line("before: %d pages free in DMA", dma.free + dma.pcp)
-- Someone takes all that DMA gives, with emergency reserves: a leak in a driver.
local taken = 0
while m:alloc{gfp="GFP_DMA|__GFP_HIGH|__GFP_MEMALLOC", owner="leaky driver"}.ok do
	taken = taken + 1
end
local failed = zoned.expect{status="NO_MEMORY",
	m:dma_map{pfn=page.pfn, length="4K", address_bits=24, direction="TO_DEVICE"}}
local high, low = lesson.zone(m, "HIGHMEM").free, lesson.zone(m, "NORMAL").free
lesson.line("a leaky driver took %d; the ISA device now: %s", taken, failed.status)
lesson.line("(%s)", failed.detail)
lesson.line("NORMAL has %d pages free and HIGHMEM %d, out of the device's reach", low, high)
zoned.expect{"pages free elsewhere", got=low + high, above=100000}
local wide = zoned.expect{m:dma_map{pfn=page.pfn, length="4K", address_bits=32, direction="TO_DEVICE"}}
lesson.line("a device with 32 lines does not even notice: bounced %s", wide.bounced and "yes" or "no")
m:check()

local proof = lesson.prove("each transfer, and the bounce buffers made for it", [[
	SELECT d.op, d.address_bits, d.status, d.bounced, b.bounce AS bounce, b.zone
	FROM op_dma_map d LEFT JOIN event_bounce_made b ON b.key = d.key AND b.machine_id = ?1
	WHERE d.machine_id = ?1 ORDER BY d.op]], m)
for _, row in ipairs(proof) do
	if row.bounced == 1 and row.address_bits == 24 then
		zoned.expect{"where a bounce buffer lies", got=row.zone, is="ZONE_DMA"}
	end
end
