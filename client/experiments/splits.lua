-- lesson: the five splits and 1.5:2.5, for 1, 2 and 4 GiB, and the kernel before HIGHMEM
local lesson = require "lesson"

lesson.say([[Four GiB of addresses are shared by the program (below) and the kernel (above). What the
kernel gets, less what it keeps for vmalloc, kmap and fixmap, is how much RAM it can map directly:
lowmem. The rest is HIGHMEM, or with --highmem off, as before HIGHMEM came to be, not used at all.
So the split decides what a program may map and what the kernel can hold. Without PAE a PC reaches
no more than 4 GiB of addresses, with a hole for devices among them: what lies above is unused under
every split.]])

local splits = {
	{"3G", "3G"}, {"2.75G (3G_OPT)", "3G_OPT"}, {"2G", "2G"}, {"1.875G (2G_OPT)", "2G_OPT"},
	{"1.5G (1.5:2.5)", "0x60000000"}, {"1G", "1G"},
}

local function machine(name, config)
	config.name, config.replace = "lesson-split-" .. name, true
	return zoned.machine(config)
end

-- What a configuration gives, in MiB, from the machine's own zones and layout.
local function measure(m)
	local row = {user=0, lowmem=0, highmem=0, unused=0, mem_map=m:meminfo().totals[1].mem_map // 1024}
	for _, part in ipairs(m:layout().parts) do
		if part.part == "LAYOUT_USER" then
			row.user = (part["end"] - part.start) >> 20
		end
	end
	local pages = {lowmem=0, highmem=0}
	for _, z in ipairs(m:zoneinfo().zones) do
		local key = z.zone == "ZONE_HIGHMEM" and "highmem" or "lowmem"
		pages[key] = pages[key] + z.present
	end
	-- To the nearest MiB: the first one has a hole for the BIOS.
	row.lowmem, row.highmem = (pages.lowmem + 128) // 256, (pages.highmem + 128) // 256
	for _, e in ipairs(zoned.sql("SELECT size FROM event_ram_unused WHERE machine_id = ?1", m)) do
		row.unused = row.unused + (e.size >> 20)
	end
	return row
end

local by_name, ids = {}, {}
for _, ram in ipairs{"1G", "2G", "4G"} do
	lesson.step("%s of RAM (all in MiB)", ram)
	local rows = {}
	for _, split in ipairs(splits) do
		local name = ram .. split[2]
		local with = machine(name, {ram=ram, split=split[2]})
		local without = machine(name .. "-off", {ram=ram, split=split[2], highmem="off"})
		local row, old = measure(with), measure(without)
		row.split, row.lost_without_highmem = split[1], old.unused - row.unused
		zoned.expect{name .. ": what is lost is what was HIGHMEM", got=row.lost_without_highmem, is=row.highmem}
		zoned.expect{name .. ": lowmem is the same", got=old.lowmem, is=row.lowmem}
		rows[#rows + 1] = row
		by_name[name] = row
		ids[name] = with.id
		with:destroy()
		without:destroy()
	end
	lesson.table(rows, {"split", "user", "lowmem", "highmem", "lost_without_highmem", "unused", "mem_map"})
end

lesson.step("what the tables say")
zoned.expect{"1 GiB: 3G needs HIGHMEM", got=by_name["1G3G"].highmem, above=0}
zoned.expect{"1 GiB: 3G_OPT does not", got=by_name["1G3G_OPT"].highmem, is=0}
lesson.line("1 GiB: 3G leaves %d MiB to HIGHMEM; 3G_OPT maps all of it, for %d MiB less of user space",
	by_name["1G3G"].highmem, by_name["1G3G"].user - by_name["1G3G_OPT"].user)
zoned.expect{"2 GiB: 2G leaves a rest", got=by_name["2G2G"].highmem, above=0}
zoned.expect{"2 GiB: 2G_OPT leaves none", got=by_name["2G2G_OPT"].highmem, is=0}
zoned.expect{"2 GiB: nor does 1.5:2.5", got=by_name["2G0x60000000"].highmem, is=0}
lesson.line("2 GiB: 2G still leaves %d MiB; 2G_OPT, and 1.5:2.5, map all of it", by_name["2G2G"].highmem)
zoned.expect{"4 GiB: even 1G leaves a rest", got=by_name["4G1G"].highmem, above=0}
lesson.line("4 GiB: no split maps all of it; the kernel before HIGHMEM loses from %d (1G) to %d MiB (3G)",
	by_name["4G1G"].lost_without_highmem, by_name["4G3G"].lost_without_highmem)
lesson.line("       and without PAE, %d MiB that lie above 4 GiB are lost to every split", by_name["4G3G"].unused)
for name, row in pairs(by_name) do
	zoned.expect{name .. ": user space ends where the kernel begins", got=row.user, at_least=1024 - 16}
end

lesson.prove("the zones of each machine at its making, and the RAM that it could not use", [[
	SELECT z.machine, printf('0x%x', c.page_offset) AS split,
		(sum(z.present) FILTER (WHERE z.zone <> 'ZONE_HIGHMEM') + 128) / 256 AS lowmem,
		coalesce(sum(z.present) FILTER (WHERE z.zone = 'ZONE_HIGHMEM'), 0) / 256 AS highmem,
		(SELECT coalesce(sum(size), 0) >> 20 FROM event_ram_unused u
		 WHERE u.machine_id = z.machine_id) AS unused
	FROM event_zone_ready z JOIN machine_config c USING (machine_id)
	WHERE z.machine_id BETWEEN ?1 AND ?2 GROUP BY z.machine_id ORDER BY z.machine_id]],
	ids["2G3G"], ids["2G1G"] + 1)
