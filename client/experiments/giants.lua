-- lesson: why 64 GiB starves lowmem, and what 8 GiB costs
local lesson = require "lesson"

lesson.say([[Every frame of RAM has a descriptor, struct page, and the descriptors have to be where the
kernel can always reach them: in lowmem. Lowmem does not grow with RAM. So each gigabyte of HIGHMEM
that is added takes away from the memory that the kernel lives in.]])

local rows = {}
for _, ram in ipairs{"1G", "2G", "4G", "8G", "16G", "32G", "63G"} do
	local m = zoned.machine{name="lesson-giant-" .. ram, replace=true, ram=ram, pae=true, detail="notable"}
	local total = m:meminfo().totals[1]
	local normal, high = lesson.zone(m, "NORMAL"), lesson.zone(m, "HIGHMEM")
	local lowmem = (normal.present + lesson.zone(m, "DMA").present) * 4 + 512
	rows[#rows + 1] = {ram=ram, mem_map_mib=total.mem_map >> 10, lowmem_mib=lowmem >> 10,
		left_mib=total.low_free >> 10, of_lowmem=("%d%%"):format(total.low_free * 100 // lowmem),
		highmem_per_lowmem=("%d : 1"):format(high.managed // normal.managed), id=m.id,
		mem_map=total.mem_map, low_free=total.low_free}
	m:destroy()
end

lesson.step("what the descriptors take")
lesson.table(rows, {"ram", "lowmem_mib", "mem_map_mib", "left_mib", "of_lowmem", "highmem_per_lowmem"})
for i = 2, #rows do
	zoned.expect{rows[i].ram .. " has less lowmem left than " .. rows[i - 1].ram, got=rows[i].low_free,
		below=rows[i - 1].low_free}
	zoned.expect{"a part of lowmem is the same for all", got=rows[i].lowmem_mib, is=rows[1].lowmem_mib}
end
local eight, giant = rows[4], rows[7]
zoned.expect{"a giant leaves less than half of lowmem", got=giant.left_mib, below=giant.lowmem_mib // 2}
lesson.say([[8 GiB cost %d MiB of lowmem before anything has run, %d MiB more than 1 GiB; %s cost %d of %d
MiB. (The PC's map has 1 GiB of holes below 4 GiB, so 63 GiB end at 64.)]], eight.mem_map_mib,
	eight.mem_map_mib - rows[1].mem_map_mib, giant.ram, giant.mem_map_mib, giant.lowmem_mib)

lesson.step("and then the kernel works")
lesson.say([[A program maps its memory sparsely, a page in every 2 MiB: each touch takes one frame from
HIGHMEM, and one from lowmem for the page table above it. Program after program starts on the giant,
until something is out; then as many start on a machine of 1 GiB. (Both with 384 MiB of addresses for
vmalloc, as machines with large cards have them. That is lowmem's loss too, and the end comes sooner.)]])

-- One more program. True: all of its touches were served; else the answer that was not.
local function start_program(m)
	local task = m:task_create()
	if not task.ok then
		return false, task
	end
	zoned.expect{m:schedule(task.task)}
	local user = m:with{task=task.task, owner="program"}
	local heap = user:mmap{length="2G", prot="READ|WRITE"}
	if not heap.ok then
		return false, heap
	end
	local touches = {}
	for i = 0, 1023 do
		touches[i] = user:async("access", {va=heap.addr + (i << 21), mode="WRITE", data="x"})
	end
	for i = 0, 1023 do
		if not touches[i].ok then
			return false, touches[i]
		end
	end
	return true
end

local ended, most = {}, math.huge
for _, ram in ipairs{"63G", "1G"} do
	local m = zoned.machine{name="lesson-sparse-" .. ram, replace=true, ram=ram, pae=true,
		vmalloc="384M", detail="notable"}
	local programs, ok, stop = 0, true, nil
	while ok and programs < most do
		ok, stop = start_program(m)
		programs = programs + (ok and 1 or 0)
	end
	most = programs
	local normal, high = lesson.zone(m, "NORMAL"), lesson.zone(m, "HIGHMEM")
	ended[#ended + 1] = {ram=ram, programs=programs, then_=ok and "goes on" or stop.op .. ": " .. stop.status,
		normal_free=normal.free, normal_min=normal.min, highmem_free=high.free, id=m.id,
		highmem_used=("%d%%"):format((high.managed - high.free) * 100 // high.managed), high=high}
end
lesson.table(ended, {"ram", "programs", "then_", "normal_free", "normal_min", "highmem_free", "highmem_used"})
local big, small = ended[1], ended[2]
zoned.expect{"the giant ended while HIGHMEM was all but unused", got=big.high.free,
	above=big.high.managed * 9 // 10}
zoned.expect{"with", got=big.then_:match("%S+$"), is="NO_MEMORY"}
zoned.expect{"as many programs on 1 GiB", got=small.then_, is="goes on"}
zoned.expect{"which has lowmem left", got=small.normal_free, above=10 * small.normal_min // 2}
lesson.say([[The giant is out of memory with %d GiB free: all of it HIGHMEM, where page tables, tasks and
buffers cannot live. A machine with a 63rd of its RAM is at ease with the same load.]], big.high.free >> 18)

local proof = lesson.prove("the allocation that failed, and what was free in each zone", [[
	SELECT machine, op, op_name, gfp_names, free_dma, free_normal, free_highmem
	FROM event_alloc_failed WHERE machine_id IN (?1, ?2) ORDER BY op LIMIT 1]], big.id, small.id)
zoned.expect{"HIGHMEM was free when the giant failed", got=proof[1].free_highmem, above=1 << 22}
zoned.expect{"whose request it was", got=proof[1].machine, is="lesson-sparse-63G"}
