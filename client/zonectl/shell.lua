-- shell.lua - completion for `zonectl shell`: what may stand at the end of a text.
--
-- core.methods() lists what a machine can be told; core.fields(name) lists what an op, an
-- inspection or `machine` takes: { name = {value, ...} }, values being an enum's names.
local core = ...

local keywords = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function",
	"goto", "if", "in", "local", "nil", "not", "or", "repeat", "return", "then", "true",
	"until", "while" }

-- Brackets that are open at the end of the text, innermost last, and where an open string
-- begins. Long strings and comments are not looked for: a guess may be wrong there.
local function scan(text)
	local open, quote, start = {}, nil, nil
	local i = 1
	while i <= #text do
		local c = text:sub(i, i)
		if quote then
			if c == "\\" then
				i = i + 1
			elseif c == quote then
				quote = nil
			end
		elseif c == '"' or c == "'" then
			quote, start = c, i
		elseif c == "{" or c == "(" then
			open[#open + 1] = i
		elseif c == "}" or c == ")" then
			open[#open] = nil
		end
		i = i + 1
	end
	return open, quote and start
end

-- Which op, inspection or function the innermost bracket is for: of m:alloc{ alloc, and of
-- m:async("alloc", { too.
local function callee(text, open)
	for depth = #open, math.max(#open - 1, 1), -1 do
		local before, inside = text:sub(1, open[depth] - 1), text:sub(open[depth] + 1)
		local name = before:match("[:.]%s*([%w_]+)%s*$")
		if name == "async" or name == "op" then
			return inside:match("^%s*[\"']([%w_-]+)[\"']"), name
		elseif name then
			return name, name
		end
	end
end

local function matching(prefix, names, suffix)
	local found = {}
	for _, name in ipairs(names) do
		if name:sub(1, #prefix):lower() == prefix:lower() then
			found[#found + 1] = name .. (suffix or "")
		end
	end
	table.sort(found)
	return #prefix, found
end

local function names_of(t)
	local names = {}
	for name in pairs(t) do
		if type(name) == "string" then
			names[#names + 1] = name
		end
	end
	return names
end

-- Returns how much of the text's end the candidates stand for, and the candidates.
return function(text)
	local open, string_start = scan(text)
	local name, through = callee(text, open)
	local fields = name and core.fields(name) or {}

	if string_start then
		local value = text:sub(string_start + 1)
		local key = text:sub(1, string_start - 1):match("([%w_]+)%s*=%s*$")
		if key then
			-- Flags are joined by |; the last one is the one that is being typed.
			local values = name == "expect" and core.fields("expect")[key] or fields[key]
			return matching(value:match("[^|]*$"), values or {})
		elseif through == "async" or through == "op" then
			return matching(value, core.methods("ops"))
		elseif through == "inspect" then
			return matching(value, core.methods("inspections"))
		end
		return 0, {}
	end

	local word = text:match("[%w_]*$")
	local before = text:sub(1, #text - #word)
	if before:match("[%w_%])]%s*:%s*$") then
		return matching(word, core.methods("all"))
	end
	local path = before:match("([%a_][%w_.]*)%.$")
	if path then
		local value = _G
		for part in path:gmatch("[^.]+") do
			value = type(value) == "table" and rawget(value, part) or nil
		end
		return matching(word, type(value) == "table" and names_of(value) or {})
	end
	if #open > 0 and before:match("[{,]%s*$") and next(fields) and text:sub(open[#open], open[#open]) == "{" then
		return matching(word, names_of(fields), "=")
	end
	local all = names_of(_G)
	table.move(keywords, 1, #keywords, #all + 1, all)
	return matching(word, all)
end
