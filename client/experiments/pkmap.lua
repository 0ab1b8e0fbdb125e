-- lesson: the pkmap window: filling, lazy flush, sleeping, a deadlock, and kmap_local
local lesson = require "lesson"

lesson.say([[The kernel has no address for a HIGHMEM frame until kmap() gives it one, in a
window that is small and shared by all. What is unmapped stays in the page tables until the
window has been gone round once; then one flush frees all such slots together, since flushing
the TLBs of every CPU is what costs.]])
local m = zoned.machine{name="lesson-pkmap", replace=true, ram="1G", pae=true}

local function window()
	return m:kmap_window().summary[1]
end
local function show(what)
	local w = window()
	lesson.line("%-44s used %3d  stale %3d  free %3d  flushes %d", what, w.used, w.stale, w.free, w.flushes)
	return w
end

lesson.step("filling")
local slots = show("an empty window").slots
local pages = {}
for i = 1, slots + 2 do
	pages[i] = m:async("alloc", {gfp="GFP_HIGHUSER", owner="cache"})
end
local low = zoned.expect{m:alloc{gfp="GFP_KERNEL"}, zone="ZONE_NORMAL"}
zoned.expect{"a lowmem page's mapping", got=m:kmap(low.pfn).slot, is=0xffffffff}
lesson.line("a lowmem page needs no slot: frame 0x%x is at 0x%x for ever", low.pfn, m:kmap(low.pfn).va)
local first = zoned.expect{m:kmap(pages[1].pfn), slot=1}
lesson.line("the first HIGHMEM page: %s", first)
zoned.expect{"mapped again, it keeps its address", got=m:kmap(pages[1].pfn).va, is=first.va}
m:kunmap(pages[1].pfn)
for i = 2, slots do
	m:async("kmap", {pfn=pages[i].pfn})
end
m:flush()
zoned.expect{"used slots", got=show(slots .. " pages mapped").used, is=slots}
local full = zoned.expect{m:kmap(pages[slots + 1].pfn), status="NO_SPACE"}
lesson.line("one more: %s", full)
lesson.line("(task 0 is the kernel's own context: it has nobody to switch to)")

lesson.step("the lazy flush")
for i = 1, 100 do
	zoned.expect{m:kunmap(pages[i].pfn)}
end
local w = show("100 unmapped: still in the page tables")
zoned.expect{got=w.stale, is=100}
local again = zoned.expect{m:kmap(pages[5].pfn)}
lesson.line("a stale page comes back without work, at its old address: %s", again)
zoned.expect{"the flushes", got=show("after it").flushes, is=w.flushes}
zoned.expect{m:kmap(pages[slots + 1].pfn)}
local flushed = show("a new page: the window wraps and is flushed")
zoned.expect{"stale slots after a flush", got=flushed.stale, is=0}
zoned.expect{"flushes", got=flushed.flushes, is=w.flushes + 1}

lesson.step("sleeping")
zoned.expect{m:kunmap(pages[5].pfn)}
for i = 101, slots + 1 do
	zoned.expect{m:async("kunmap", {pfn=pages[i].pfn})}
end
zoned.expect{"slots in use", got=show("everything unmapped").used, is=0}
local a, b = m:task_create().task, m:task_create().task
local A, B = m:with{task=a, owner="task A"}, m:with{task=b, owner="task B"}
local half = slots // 2
m:schedule(a)
for i = 1, half do
	zoned.expect{A:async("kmap", {pfn=pages[i].pfn})}
end
m:schedule(b)
for i = half + 1, slots do
	zoned.expect{B:async("kmap", {pfn=pages[i].pfn})}
end
show("tasks A and B hold half each")
local sleeper = B:async("kmap", {pfn=pages[slots + 1].pfn})
zoned.expect{"who sleeps", got=m:flush().PARKED, is=1}
lesson.line("B asks for one more and sleeps: task %d waits for frame 0x%x",
	m:kmap_window().sleepers[1].task, m:kmap_window().sleepers[1].pfn)
m:schedule(a)
zoned.expect{A:kunmap(pages[1].pfn)}
lesson.line("A unmaps one, and B wakes with its slot: %s", zoned.expect{sleeper})

lesson.step("the deadlock of nested kmaps")
sleeper = A:async("kmap", {pfn=pages[1].pfn})
zoned.expect{"who sleeps", got=m:flush().PARKED, is=1}
lesson.line("A holds %d, wants one more, and sleeps until B lets go", half - 1)
m:schedule(b)
local dead = zoned.expect{B:kmap(pages[slots + 2].pfn), status="DEADLOCK"}
lesson.line("B holds %d and wants one more: %s", half + 1, dead.status)
lesson.line("%s", dead.detail)
lesson.say([[Each waits for what the other will give back only after it has got one more. A real
kernel hangs here; the machine refuses the op that would close the ring, and names all %d
mappings that sleepers hold.]], #dead.holders // 2)
zoned.expect{B:kunmap(pages[slots].pfn)}
zoned.expect{sleeper}
lesson.line("B gives one back instead, and A goes on: %s", sleeper)

lesson.step("the same done right: kmap_local")
lesson.say([[A local mapping is the task's own. Nobody waits for a slot, no other CPU has to flush, and
a switch of tasks takes it along; so two tasks that nest cannot block each other.]])
m:schedule(a)
local a1, a2 = zoned.expect{A:kmap_local(pages[1].pfn)}, zoned.expect{A:kmap_local(pages[2].pfn)}
m:schedule(b)
local b1, b2 = zoned.expect{B:kmap_local(pages[2].pfn)}, zoned.expect{B:kmap_local(pages[1].pfn)}
lesson.line("A: 0x%x, 0x%x   B, of the same frames in the other order: 0x%x, 0x%x",
	a1.va, a2.va, b1.va, b2.va)
zoned.expect{B:kunmap_local(b2.va)}
zoned.expect{B:kunmap_local(b1.va)}
m:schedule(a)
zoned.expect{A:kunmap_local(a2.va)}
zoned.expect{A:kunmap_local(a1.va)}
lesson.line("all four mapped and unmapped while the pkmap window is as full as before")
zoned.expect{"slots in use meanwhile", got=window().used, is=slots}
m:check()

local rows = lesson.prove("who slept, who woke, and what each flush gave back", [[
	SELECT op, 'flush' AS what, NULL AS task, freed || ' freed, ' || used || ' in use' AS outcome
	FROM event_pkmap_flush WHERE machine_id = ?1
	UNION ALL SELECT op, 'sleep', task, 'for a slot' FROM event_park WHERE machine_id = ?1
	UNION ALL SELECT op, 'wake', task, status FROM event_wake WHERE machine_id = ?1
	UNION ALL SELECT op, 'deadlock', task, sleepers || ' asleep' FROM event_deadlock
	WHERE machine_id = ?1 ORDER BY op]], m)
local seen = {}
for _, row in ipairs(rows) do
	seen[row.what] = (seen[row.what] or 0) + 1
end
zoned.expect{"sleeps, wakes, deadlocks", got={seen.sleep, seen.wake, seen.deadlock}, is={2, 2, 1}}
