-- lesson.lua - how lessons talk: prose, steps, tables, and SQL with its answer.
-- Found by require "lesson", in a script of your own too.
local lesson = {}

local WIDTH = 78 -- the same wherever it is read, so that two runs can be compared

local function folded(text)
	local column = 0
	for word in text:gmatch("%S+") do
		if column > 0 and column + 1 + #word > WIDTH then
			io.write("\n")
			column = 0
		end
		io.write(column > 0 and " " or "", word)
		column = column + (column > 0 and 1 or 0) + #word
	end
	io.write("\n")
end

-- A paragraph. Arguments are put in as string.format does.
function lesson.say(text, ...)
	print()
	folded(select("#", ...) > 0 and text:format(...) or text)
end

-- What comes next.
function lesson.step(text, ...)
	print(("\n== " .. text):format(...))
end

-- One line, indented: what was done and what came of it.
function lesson.line(text, ...)
	print("  " .. (select("#", ...) > 0 and text:format(...) or text))
end

-- Rows under a line of their own.
function lesson.table(rows, columns)
	print()
	zoned.table(rows, columns)
end

-- Asks the history, shows question and answer, and returns the rows. A machine among the
-- arguments stands for its id.
function lesson.prove(claim, sql, ...)
	local given = { ... }
	local shown = sql:gsub("^%s*\n", ""):gsub("%s+$", ""):gsub("%?(%d+)", function(n)
		local value = given[tonumber(n)]
		return type(value) == "string" and "'" .. value .. "'"
			or tostring(type(value) == "userdata" and value.id or value)
	end)
	-- The script's own indentation is not the statement's.
	local indent = shown:match("^%s*")
	shown = ("\n" .. shown):gsub("\n" .. indent, "\n    "):sub(2)
	lesson.step("the proof: %s", claim)
	print(shown)
	local rows = zoned.sql(sql, ...)
	lesson.table(rows)
	zoned.expect{"the history's rows", got=#rows, above=0}
	return rows
end

-- A zone's row of zoneinfo.
function lesson.zone(m, name)
	return zoned.by(m:zoneinfo().zones, "zone")["ZONE_" .. name]
end

-- The zones that have memory, as a table.
function lesson.zones(m, columns)
	local rows = {}
	for _, row in ipairs(m:zoneinfo().zones) do
		rows[#rows + 1] = row.managed > 0 and row or nil
	end
	lesson.table(rows, columns)
	return rows
end

-- A task with a mapping of `size`, current on CPU 0. Returns the machine as that task
-- sees it, and where the mapping begins.
function lesson.program(m, size, owner)
	local task = zoned.expect{m:task_create()}.task
	zoned.expect{m:schedule(task)}
	local user = m:with{task=task, owner=owner or "program"}
	return user, zoned.expect{user:mmap{length=size, prot="READ|WRITE"}}.addr
end

return lesson
