-- prelude.lua - the part of `zoned` that is written in Lua. Part of zonectl; the
-- functions are documented in client/experiments/README.md.
local zoned, core = ...

-- A number in hex, as addresses and frames are written.
function zoned.hex(n)
	return string.format("0x%x", n)
end

-- Rows by one of their columns: zoned.by(m:zoneinfo().zones, "zone").ZONE_DMA.free
function zoned.by(rows, column)
	local result = {}
	for _, row in ipairs(rows) do
		result[row[column]] = row
	end
	return result
end

-- The columns of a list of rows: those given, the list's own, or the first row's by name.
local function columns_of(rows, columns)
	if columns or rows.columns then
		return columns or rows.columns
	end
	local names = {}
	for name in pairs(rows[1] or {}) do
		names[#names + 1] = tostring(name)
	end
	table.sort(names)
	return names
end

-- Rows as text after RFC 4180, numbers as they are.
function zoned.csv(rows, columns)
	columns = columns_of(rows, columns)
	local function line(value)
		local cells = {}
		for i, name in ipairs(columns) do
			local cell = value(name)
			cell = cell == nil and "" or tostring(cell)
			if cell:find('[,"\r\n]') then
				cell = '"' .. cell:gsub('"', '""') .. '"'
			end
			cells[i] = cell
		end
		return table.concat(cells, ",") .. "\r\n"
	end
	local lines = { line(function(name) return name end) }
	for _, row in ipairs(rows) do
		lines[#lines + 1] = line(function(name) return row[name] end)
	end
	return table.concat(lines)
end

-- Prints rows as a table: addresses and frames in hex, an absent value as nothing.
function zoned.table(rows, columns)
	columns = columns_of(rows, columns)
	local cells, right = {}, {}
	for r, row in ipairs(rows) do
		cells[r] = {}
		for c, name in ipairs(columns) do
			local value = row[name]
			cells[r][c] = value == nil and "" or core.format(name, value)
			right[c] = right[c] or math.type(value) ~= nil
		end
	end
	core.print_table(columns, cells, right)
end

-- Prints anything as people read it: an answer in a line, rows as a table, an inspection
-- as its text, other tables as JSON.
function zoned.print(value)
	core.clear_bar()
	if core.is_answer(value) or type(value) ~= "table" or getmetatable(value) then
		print(value)
	elseif type(value.text) == "string" and math.type(value.op) then
		io.write(value.text, value.text:sub(-1) == "\n" and "" or "\n")
	elseif type(value[1]) == "table" and not core.is_answer(value[1]) then
		zoned.table(value)
	elseif value.columns then
		print("(no rows)")
	elseif type(value[1]) == "table" then
		for _, one in ipairs(value) do
			print(one)
		end
	else
		print(zoned.json(value, true))
	end
end

-- for i in zoned.steps(10000, "touching pages") do ... end: 1 to n, with a progress bar.
function zoned.steps(n, what)
	local i = 0
	return function()
		if i % 64 == 0 or i == n then
			zoned.progress(i, n, what)
		end
		i = i + 1
		return i <= n and i or nil
	end
end

-- Text goes where the bar may stand.
local plain_print = print
function print(...)
	core.clear_bar()
	plain_print(...)
end

-- Where text is to end: the terminal's width, and 80 where there is none.
function zoned.width()
	local is_terminal, width = core.terminal()
	return is_terminal and width or 80
end
