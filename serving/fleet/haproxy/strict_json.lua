-- Strict JSON (RFC 8259) without building values: walks a text and hands out positions.
--
-- Loaded by HAProxy before kserve_check.lua, which finds it as the global `strict_json`. All
-- positions are of Lua strings, from 1. Every function here that meets a mistake ends by
-- `refuse`, which raises a table {sentence = ...}. Time is linear in the text, depth is bounded.

local byte, find, match = string.byte, string.find, string.match
local sub, format = string.sub, string.format

local MAX_DEPTH = 64 -- nesting of a document, and dimensions of a tensor (numpy's own limit)
local MAX_SHOWN = 64 -- letters of a client's text in a sentence

local ESCAPES = {
  b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/",
}
local QUOTE, BACKSLASH, COMMA, MINUS, ZERO, DOT, COLON = 34, 92, 44, 45, 48, 46, 58
local OPEN, CLOSE, BEGIN, END = 91, 93, 123, 125

local function refuse(text, ...)
  error({ sentence = format(text, ...) }, 0)
end

local function shown(text)
  text = text:gsub("[^%g ]", "?")
  return #text > MAX_SHOWN and sub(text, 1, MAX_SHOWN) .. "..." or text
end

-- Index of the first character at or after `i` that is no white space.
local function skip(s, i)
  local c = byte(s, i)
  if c == 32 or c == 10 or c == 13 or c == 9 then
    return find(s, "[^ \t\r\n]", i) or #s + 1
  end
  return i
end

local function unexpected(s, i, wanted)
  if i > #s then
    refuse("the JSON is cut off: %s is missing at its end", wanted)
  end
  refuse("the JSON has %q at byte %d, where %s must be", shown(sub(s, i, i)), i - 1, wanted)
end

-- The last character of one of two words at `i`; nil for neither.
local function word_end(s, i, one, other)
  local _, stop = find(s, one, i)
  if not stop then
    _, stop = find(s, other, i)
  end
  return stop
end

-- Strings: `i` is at the opening quote, the answer is the index of the closing one.
local function string_end(s, i)
  local at = i + 1
  while true do
    at = find(s, '["\\\0-\31]', at)
    local c = at and byte(s, at)
    if c == QUOTE then
      return at
    elseif not c then
      refuse("the JSON is cut off in a text")
    elseif c ~= BACKSLASH then
      refuse("the JSON has a control character in a text at byte %d", at - 1)
    end
    local letter = sub(s, at + 1, at + 1)
    if ESCAPES[letter] then
      at = at + 2
    else
      local hex = letter == "u" and match(s, "^%x%x%x%x", at + 2)
      if not hex then
        refuse("the JSON has a bad escape in a text at byte %d", at - 1)
      end
      local code = tonumber(hex, 16)
      at = at + 6
      if code >= 0xD800 and code <= 0xDFFF then
        if code >= 0xDC00 or not find(s, "^\\u[dD][c-fC-F]%x%x", at) then
          refuse("the JSON has half a surrogate pair in a text at byte %d", at - 7)
        end
        at = at + 6
      end
    end
  end
end

-- The text between two quotes, escapes replaced. For names and keys: one piece at a time.
local function text_between(s, from, to)
  local raw = sub(s, from + 1, to - 1)
  if not find(raw, "\\", 1, true) then
    return raw
  end
  local pieces, at = {}, 1
  while at <= #raw do
    local stop = find(raw, "\\", at, true) or #raw + 1
    pieces[#pieces + 1] = sub(raw, at, stop - 1)
    local letter = sub(raw, stop + 1, stop + 1)
    at = stop + 2
    if letter == "u" then
      local code = tonumber(sub(raw, at, at + 3), 16)
      at = at + 4
      if code >= 0xD800 then
        if code <= 0xDBFF then
          code = 0x10000 + (code - 0xD800) * 0x400 + tonumber(sub(raw, at + 2, at + 5), 16) - 0xDC00
          at = at + 6
        end
      end
      pieces[#pieces + 1] = utf8.char(code)
    else
      pieces[#pieces + 1] = ESCAPES[letter]
    end
  end
  return table.concat(pieces)
end

-- Numbers: the index of the last character of the one at `i`; true for an integer; and true where
-- it has an exponent.
local function number_end(s, i)
  local _, stop = find(s, "^-?%d+", i)
  if not stop then
    unexpected(s, i, "a number")
  end
  local first = byte(s, i) == MINUS and i + 1 or i
  if byte(s, first) == ZERO and stop > first then
    refuse("the JSON has a number with a leading zero at byte %d", i - 1)
  end
  local c = byte(s, stop + 1)
  if c ~= DOT and c ~= 101 and c ~= 69 then
    return stop, true, false
  end
  local last = stop
  if c == DOT then
    _, last = find(s, "^%d+", stop + 2)
    c = last and byte(s, last + 1)
  end
  local exponent = c == 101 or c == 69
  if exponent then
    _, last = find(s, "^[+-]?%d+", last + 2)
  end
  if not last then
    refuse("the JSON has an unfinished number at byte %d", i - 1)
  end
  return last, false, exponent
end

-- The last character of the number at `i`, refused from `largest` on; and 0e999, which Triton takes
-- for infinite.
local function finite_end(s, i, largest)
  local stop, _, exponent = number_end(s, i)
  if not exponent and stop - i < 38 then
    return stop -- below 1e38, whatever it is
  end
  local text = sub(s, i, stop)
  local value = math.abs(tonumber(text) + 0.0)
  local power = tonumber(match(text, "[eE]%+?(%d+)$") or 0)
  if value >= largest or (value == 0 and power > 308) then
    refuse("the number %s is too large", shown(text))
  end
  return stop
end

-- The value 0 to 2^64-1 at `i` as its digits and the index of its last character.
local function unsigned(s, i, what)
  local digits, after = match(s, "^(%d+)()", i)
  local c = after and byte(s, after)
  if not digits or c == DOT or c == 101 or c == 69 then
    refuse("%s must be a whole number, 0 or more", what)
  end
  number_end(s, i)
  if #digits > 20 or (#digits == 20 and digits > "18446744073709551615") then
    refuse("%s is %s: too large", what, shown(digits))
  end
  return digits, after - 1
end

local values -- defined below: every value may hold others

-- Walk the object at `i`. `member(key, start)` takes a value and returns the index of its last
-- character, or nothing for one that is not its business. Returns the index of the brace.
local function walk_object(s, i, depth, what, member)
  if byte(s, i) ~= BEGIN then
    refuse("%s must be an object", what)
  elseif depth > MAX_DEPTH then
    refuse("the JSON is nested deeper than %d", MAX_DEPTH)
  end
  local seen = {}
  local at = skip(s, i + 1)
  if byte(s, at) == END then
    return at
  end
  while true do
    if byte(s, at) ~= QUOTE then
      unexpected(s, at, "a key")
    end
    local stop = string_end(s, at)
    local key = text_between(s, at, stop)
    if seen[key] then
      refuse("%s has the key %q twice", what, shown(key))
    end
    seen[key] = true
    at = skip(s, stop + 1)
    if byte(s, at) ~= COLON then
      unexpected(s, at, "a colon")
    end
    at = skip(s, at + 1)
    stop = member and member(key, at) or values(s, at, depth + 1)
    at = skip(s, stop + 1)
    local c = byte(s, at)
    if c == END then
      return at
    elseif c ~= COMMA then
      unexpected(s, at, "a comma or a brace")
    end
    at = skip(s, at + 1)
  end
end

-- Walk the array at `i`; `element(start)` is as `member` above. Returns the index of the bracket.
local function walk_array(s, i, depth, what, element)
  if byte(s, i) ~= OPEN then
    refuse("%s must be a list", what)
  elseif depth > MAX_DEPTH then
    refuse("the JSON is nested deeper than %d", MAX_DEPTH)
  end
  local at = skip(s, i + 1)
  if byte(s, at) == CLOSE then
    return at
  end
  while true do
    at = skip(s, element(at) + 1)
    local c = byte(s, at)
    if c == CLOSE then
      return at
    elseif c ~= COMMA then
      unexpected(s, at, "a comma or a bracket")
    end
    at = skip(s, at + 1)
  end
end

-- Index of the last character of the value at `i`, whatever it is.
function values(s, i, depth)
  local c = byte(s, i)
  if c == QUOTE then
    return string_end(s, i)
  elseif c == BEGIN then
    return walk_object(s, i, depth, "an object")
  elseif c == OPEN then
    return walk_array(s, i, depth, "a list", function(at) return values(s, at, depth + 1) end)
  end
  local word = word_end(s, i, "^true", "^false") or word_end(s, i, "^null", "^null")
  if word then
    return word
  end
  return finite_end(s, i, math.huge)
end

strict_json = {
  MAX_DEPTH = MAX_DEPTH,
  refuse = refuse,
  shown = shown,
  skip = skip,
  unexpected = unexpected,
  word_end = word_end,
  string_end = string_end,
  text_between = text_between,
  number_end = number_end,
  finite_end = finite_end,
  unsigned = unsigned,
  walk_object = walk_object,
  walk_array = walk_array,
  value_end = values,
}
