-- lesson: copy on write and the zero page, frame by frame
local lesson = require "lesson"

lesson.say([[A page that was never written needs no memory: every read of it can show one and the same
frame of zeros. And after a fork two tasks need no more memory than one, until one of them
writes. Here is which frame stands behind one address, at each step.]])
local m = zoned.machine{name="lesson-cow", replace=true, ram="1G", pae=true}
local parent, va = lesson.program(m, "16K", "parent")
local parent_task, child, child_task = 1, nil, nil

local rows = {}
-- The frame behind `va` in a task's tables, and what it is.
local function frame_of(task)
	local t = m:walk(va, {task=task}).translation[1]
	if not t or not t.present then
		return nil
	end
	local frame = m:page(t.paddr >> 12).frame[1]
	return {pfn=t.paddr >> 12, writable=t.writable, mapcount=frame.mapcount, state=frame.state,
		zone=frame.zone}
end
local function note(what, answer)
	local p, c = frame_of(parent_task), child and frame_of(child_task)
	local function text(f)
		return f and ("0x%x %s"):format(f.pfn, f.writable and "rw" or "ro") or "-"
	end
	rows[#rows + 1] = {step=what, faults=answer and answer.faults or nil, parent=text(p), child=text(c),
		mapped=p and p.mapcount or nil}
	return p, c
end

local function touch(who, mode, data)
	return zoned.expect{who:access{va=va, length=1, mode=mode, data=data or ""}}
end

note("nothing was touched")
local r = touch(parent, "READ")
local zero = note("the parent reads: the zero page", r)
zoned.expect{"what it reads", got=r.data, is="\0"}
zoned.expect{"the zero page is reserved, nobody's", got=zero.state, is="FRAME_RESERVED"}
zoned.expect{"and cannot be written", got=zero.writable, is=false}

local own = note("the parent writes: a frame of its own", touch(parent, "WRITE", "p"))
zoned.expect{"another frame", got=own.pfn, is_not=zero.pfn}
zoned.expect{"from HIGHMEM", got=own.zone, is="ZONE_HIGHMEM"}

child_task = zoned.expect{m:task_fork(parent_task)}.task
child = m:with{task=child_task, owner="child"}
local p, c = note("fork: both read-only, one frame")
zoned.expect{"shared", got=p.pfn, is=c.pfn}
zoned.expect{"nobody may write", got={p.writable, c.writable}, is={false, false}}
zoned.expect{"mapped twice", got=p.mapcount, is=2}

zoned.expect{m:schedule(child_task)}
zoned.expect{touch(child, "READ"), faults=0, data="p"}
note("the child reads: no fault")
p, c = note("the child writes: a copy", touch(child, "WRITE", "c"))
zoned.expect{"the child's is new", got=c.pfn, is_not=own.pfn}
zoned.expect{"the parent's stays", got=p.pfn, is=own.pfn}
zoned.expect{"and is still read-only", got=p.writable, is=false}

zoned.expect{m:schedule(parent_task)}
zoned.expect{touch(parent, "READ"), data="p"}
p = note("the parent writes: alone again, reused", touch(parent, "WRITE", "P"))
zoned.expect{"no copy: the same frame", got=p.pfn, is=own.pfn}
zoned.expect{"writable again", got=p.writable, is=true}

lesson.step("the frame behind 0x%x", va)
lesson.table(rows, {"step", "faults", "parent", "child", "mapped"})
lesson.say([[ro and rw are what the page tables say, not what the task may do: the task may write all
along, and its write to a read-only entry is the fault that makes the copy.]])
local next_page = zoned.expect{parent:access{va=va + 4096, mode="WRITE", data="x"}, faults=1}
lesson.line("The page beside it, written before it was ever read, is zeroed at once: %d fault.",
	next_page.faults)
lesson.line("The first write above was a copy, too: of the zero page.")
m:check()

local proof = lesson.prove("each fault, what it was, and the frame that resolved it", [[
	SELECT f.op, o.task, f.error_code_names AS error_code, f.resolution, printf('0x%x', f.pfn) AS frame
	FROM event_page_fault f JOIN op_access o USING (key)
	WHERE f.machine_id = ?1 AND o.machine_id = ?1 ORDER BY f.op]], m)
local seen = {}
for i, row in ipairs(proof) do
	seen[i] = row.resolution
end
zoned.expect{"the resolutions in order", got=seen,
	is={"FAULT_ZERO_PAGE", "FAULT_COPY_ON_WRITE", "FAULT_COPY_ON_WRITE", "FAULT_REUSE", "FAULT_DEMAND_ZERO"}}
