-- lesson: every rule of kmap_atomic and kmap_local, broken once
local lesson = require "lesson"

lesson.say([[Short mappings live on a stack: each task has one, with a few slots of the CPU that it
runs on. That makes them cheap, since nobody else can see them and only one CPU's TLB is concerned, and it
makes rules. kmap_local_page() keeps to the stack, and its holder to the CPU; kmap_atomic() is the
same and forbids its holder to sleep or to give the CPU away as well. Each rule is broken here once;
the answer is what the machine says, and nothing is changed by it.]])
local m = zoned.machine{name="lesson-rules", replace=true, ram="1G", pae=true, cpus=2}
local user, heap = lesson.program(m, "1M", "task A")
local other = m:with{task=zoned.expect{m:task_create()}.task, owner="task B"}
local A, B = user, other
local a, b = 1, 2
local pages = {}
for i = 1, 20 do
	pages[i] = zoned.expect{m:alloc{gfp="GFP_HIGHUSER"}}.pfn
end

-- Shows a rule, what was done against it, and that it was refused as it should be.
local function broken(rule, answer, status)
	zoned.expect{answer, status=status}
	lesson.line("%-58s %s", rule, answer.status)
end

lesson.step("both: the stack")
local one, two = A:kmap_local(pages[1]), A:kmap_local(pages[2])
lesson.line("two mappings, one below the other: 0x%x, 0x%x", one.va, two.va)
broken("the last one made is the first one unmapped", A:kunmap_local(one.va), "NOT_LIFO")
broken("what is local is unmapped as local", A:kunmap_atomic(two.va), "INVALID")
broken("only what is mapped can be unmapped", A:kunmap_local(two.va - 0x1000), "NOT_FOUND")
zoned.expect{m:free(pages[20])}
broken("only an allocated frame can be mapped", A:kmap_local(pages[20]), "NOT_FOUND")
broken("a mapped frame cannot be freed", m:free(pages[1]), "BUSY")
local depth = 2
local answer
repeat
	answer = A:kmap_local(pages[depth + 1])
	depth = depth + (answer.ok and 1 or 0)
until not answer.ok
broken("the stack has an end: " .. depth .. " mappings fit", answer, "LIMIT")

lesson.step("kmap_local: nobody else's, and it leaves and returns with its task")
zoned.expect{A:access{va=two.va, data="A's own", mode="WRITE", privilege="KERNEL"}}
zoned.expect{m:schedule(b)}
lesson.line("task B runs on the CPU now: the switch took A's mappings out of the tables")
broken("another task cannot look through it", B:access{va=two.va, length=7, privilege="KERNEL"}, "FAULT")
broken("another task cannot unmap it", B:kunmap_local(two.va), "NOT_OWNER")
broken("a task that is not running cannot map", A:kmap_local(pages[9]), "NOT_OWNER")
zoned.expect{m:schedule(a)}
zoned.expect{A:access{va=two.va, length=7, privilege="KERNEL"}, data="A's own"}
lesson.line("task A again: it reads what it wrote, at the same address")
local stack = {}
for _, row in ipairs(m:kmap_window().locals) do
	stack[row.depth + 1] = row.task == a and row or nil
end
zoned.expect{"A still holds all of its mappings", got=#stack, is=depth}
for i = #stack, 1, -1 do
	zoned.expect{A:kunmap_local(stack[i].va)}
end

lesson.step("kmap_atomic: its holder may neither sleep nor leave")
local atomic = zoned.expect{A:kmap_atomic(pages[1])}
broken("its holder cannot be switched away", m:schedule(b), "ATOMIC")
broken("its holder cannot take a page fault that allocates",
	A:access{va=heap, data="x", mode="WRITE"}, "ATOMIC")
broken("its holder cannot pin a user page that is not there",
	A:pin_user_page{va=heap, write=true}, "ATOMIC")
broken("its holder cannot end", m:task_exit(a), "ATOMIC")
-- The window is filled by the kernel's own context on CPU 1.
local slots = m:kmap_window().summary[1].slots
for i = 1, slots do
	m:async("kmap", {pfn=m:alloc{gfp="GFP_HIGHUSER"}.pfn, cpu=1})
end
m:flush()
broken("its holder cannot sleep for a slot of pkmap", A:kmap(pages[3]), "ATOMIC")
broken("what is atomic is unmapped as atomic", A:kunmap_local(atomic.va), "INVALID")
zoned.expect{A:kunmap_atomic(atomic.va)}
zoned.expect{A:access{va=heap, data="x", mode="WRITE"}, faults=1}
lesson.line("unmapped, and the same page fault is served")
m:check()

local rows = lesson.prove("every refusal, by op", [[
	SELECT name AS op_name, status, count(*) AS times FROM op_log
	WHERE machine_id = ?1 AND status NOT IN ('OK') GROUP BY 1, 2 ORDER BY 1, 2]], m)
local violations = zoned.sql("SELECT count(*) AS n FROM event_atomic_violation WHERE machine_id = ?1", m)[1].n
zoned.expect{"what tried to sleep or to leave", got=violations, at_least=4}
