-- lesson: user pages forbidden from NORMAL and DMA, and what that does to fragmentation
local lesson = require "lesson"

lesson.say([[When HIGHMEM is short, user pages come to live in NORMAL, one by one between the kernel's own.
The kernel then finds memory but no large block. A policy can forbid it: user_fallback=HIGHMEM_ONLY
keeps NORMAL and DMA for the kernel, and a user page that finds HIGHMEM full is refused. The same load,
op for op, runs on two machines that differ in nothing else.]])

local GROW, SHRINK, OPS, ORDER = 9, 4, 200, 9

-- A generator of its own: the load is the same on both machines and wherever Lua runs.
local seed
local function random(n)
	seed = (seed * 1103515245 + 12345) & 0x7fffffff
	return (seed >> 8) % n
end

-- NORMAL's fragmentation at an order: Linux's index in thousandths (-1000: it would not
-- fail; towards 1000: it fails, and not for want of memory), and its largest free block.
local function look(m)
	local index, largest
	for _, row in ipairs(m:buddyinfo().blocks) do
		if row.zone == "ZONE_NORMAL" then
			index = row.order == ORDER and row.extfrag_index or index
			largest = row.free > 0 and zoned.size(4096 << row.order) or largest
		end
	end
	return index, largest
end

-- A program touches 64 KiB here and there and gives pages back; the kernel takes and frees
-- small blocks. Returns what NORMAL looked like after each round.
local function run(policy)
	local m = zoned.machine{name="lesson-frag-" .. policy:lower(), replace=true, ram="96M", highmem="32M",
		pae=true, user_fallback=policy}
	local user, heap = lesson.program(m, "128M")
	local held, touched, samples, refused = {}, {}, {}, 0
	seed = 7
	for round = 1, GROW + SHRINK do
		local answers = {}
		for _ = 1, OPS do
			if round <= GROW then
				local page = random(32000)
				touched[#touched + 1] = page
				answers[#answers + 1] = user:async("access",
					{va=heap + page * 4096, length="64K", mode="WRITE", data="u"})
			end
			-- A page given back and mapped again leaves a hole where its frame was.
			for _ = 1, round <= GROW and 0 or 4 do
				local at = heap + (touched[random(#touched) + 1] + random(16)) * 4096
				user:async("munmap", {addr=at, length="4K"})
				user:async("mmap", {addr=at, length="4K", prot="READ|WRITE", flags="PRIVATE|ANONYMOUS|FIXED"})
			end
			local order = random(2)
			held[#held + 1] = {order=order, block=m:async("alloc", {gfp="GFP_KERNEL", order=order, owner="kernel"})}
			if random(10) < 9 then
				local one = table.remove(held, random(#held) + 1)
				if one.block.ok then
					m:async("free", {pfn=one.block.pfn, order=one.order})
				end
			end
		end
		for _, answer in ipairs(answers) do
			refused = refused + (answer.ok and 0 or 1)
		end
		local index, largest = look(m)
		samples[round] = {index=index, largest=largest, free=lesson.zone(m, "NORMAL").free}
	end
	return m, samples, refused
end

local any, with_any, refused_any = run("ANY")
local only, with_only, refused_only = run("HIGHMEM_ONLY")

lesson.step("NORMAL over time: its free pages, its largest free block, its index at order %d", ORDER)
local rows = {}
for round, a in ipairs(with_any) do
	local o = with_only[round]
	rows[round] = {round=round, program=round <= GROW and "grows" or "gives back", any_free=a.free,
		any_largest=a.largest, any_index=a.index, only_free=o.free, only_largest=o.largest, only_index=o.index}
end
lesson.table(rows, {"round", "program", "any_free", "any_largest", "any_index",
	"only_free", "only_largest", "only_index"})
lesson.line("user requests refused: %d with ANY, %d with HIGHMEM_ONLY", refused_any, refused_only)

local grown, last = with_any[GROW], with_any[GROW + SHRINK]
zoned.expect{"pages came back to NORMAL", got=last.free, above=grown.free}
zoned.expect{"but no large block, and not for want of memory", got=last.index, above=900}
zoned.expect{"with the policy a block is there all along", got=with_only[GROW + SHRINK].index, is=-1000}
zoned.expect{"the price", got=refused_only, above=refused_any}

lesson.step("the kernel wants %s in one piece, as often as it can get it", zoned.size(4096 << ORDER))
local function blocks_by_zone(m)
	local got = {ZONE_NORMAL=0, ZONE_DMA=0}
	local answer = m:alloc{gfp="GFP_KERNEL", order=ORDER, owner="kernel"}
	while answer.ok do
		got[answer.zone] = got[answer.zone] + 1
		answer = m:alloc{gfp="GFP_KERNEL", order=ORDER, owner="kernel"}
	end
	return got
end
local a, o = blocks_by_zone(any), blocks_by_zone(only)
lesson.line("any:          %2d from NORMAL, %d from DMA; %s of NORMAL was free", a.ZONE_NORMAL, a.ZONE_DMA,
	zoned.size(last.free * 4096))
lesson.line("highmem only: %2d from NORMAL, %d from DMA", o.ZONE_NORMAL, o.ZONE_DMA)
zoned.expect{"large blocks of NORMAL without the policy", got=a.ZONE_NORMAL, is=0}
zoned.expect{"large blocks of NORMAL with the policy", got=o.ZONE_NORMAL, above=5}
lesson.say([[The pages that the program gave back lie where they were, each between two that it kept. That
is the case for the policy. Against it stand the requests that it refused while NORMAL had memory.
(`zonectl report -m lesson-frag-any -o any.html` draws the same index after every op, from the
history alone, with its SQL.)]])
any:check()
only:check()

local proof = lesson.prove("whose pages NORMAL holds, on each machine", [[
	SELECT machine, owner, count(*) AS blocks, sum(pages) AS pages, max("order") AS largest_order
	FROM allocations WHERE machine_id IN (?1, ?2) AND live AND zone = 'ZONE_NORMAL'
	GROUP BY machine_id, owner ORDER BY machine_id, pages DESC]], any, only)
local users = 0
for _, row in ipairs(proof) do
	-- A program's page tables are the kernel's memory, whoever they are for.
	users = users + (row.machine == only.name and row.owner == "program" and row.pages or 0)
end
zoned.expect{"pages of the program in NORMAL with the policy: its page tables", got=users, below=200}
