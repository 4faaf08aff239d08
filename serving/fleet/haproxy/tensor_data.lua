-- Tensors of a KServe v2 request: elements of a datatype as JSON, shapes, and binary BYTES.
--
-- Loaded by HAProxy after strict_json.lua; kserve_check.lua finds it as the global `tensor_data`.
-- Elements are checked where they stand and counted; no number is kept.

local json = strict_json
local byte, find, sub, unpack = string.byte, string.find, string.sub, string.unpack

local MAX_ELEMENTS = 2147483647 -- of a tensor, an empty dimension left out

-- Bytes of one element; a BYTES element has a length of its own.
local SIZES = {
  BOOL = 1, INT8 = 1, INT16 = 2, INT32 = 4, INT64 = 8, UINT8 = 1, UINT16 = 2, UINT32 = 4,
  UINT64 = 8, FP16 = 2, BF16 = 2, FP32 = 4, FP64 = 8, BYTES = 0,
}
local LARGEST = { FP32 = 3.4028235677973366e38, FP64 = math.huge } -- the first that is infinite
local QUOTE, MINUS, ZERO, DOT, OPEN, CLOSE, COMMA, SPACE = 34, 45, 48, 46, 91, 93, 44, 32

-- Elements of `data`: each function takes the index of one and returns that of its last character.
local function integers(bits, signed, datatype)
  local low, high = 0, (1 << bits) - 1
  if signed then
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
  end
  local safe = #tostring(high) - 2 -- so many characters, sign included, are always in range
  if bits == 64 then
    safe = 18
  end
  return function(s, i)
    local _, stop = find(s, "^-?%d+", i)
    local c = stop and byte(s, stop + 1)
    if not stop or c == DOT or c == 101 or c == 69 then
      json.number_end(s, i)
      json.refuse("the value at byte %d is no integer, and the datatype is %s", i - 1, datatype)
    end
    local negative = byte(s, i) == MINUS
    local first = negative and i + 1 or i
    if byte(s, first) == ZERO and stop > first then
      json.number_end(s, i)
    end
    if stop - i < safe and (signed or not negative) then
      return stop
    end
    local text, fits = sub(s, i, stop), false
    if bits == 64 and not signed then
      local digits = sub(s, first, stop)
      fits = text == "-0"
        or (not negative and (#digits < 20 or (#digits == 20 and digits <= "18446744073709551615")))
    else
      local value = tonumber(text)
      fits = math.type(value) == "integer" and value >= low and value <= high
    end
    if not fits then
      json.refuse("the value %s is outside the range of %s", json.shown(text), datatype)
    end
    return stop
  end
end

local function floats(datatype)
  local largest = LARGEST[datatype]
  return function(s, i)
    local c = byte(s, i)
    if c == MINUS or c == 78 or c == 73 then
      -- Not JSON, but what Python's json writes and Triton reads.
      local word = json.word_end(s, i, "^-?Infinity", "^NaN")
      if word then
        return word
      end
    end
    return json.finite_end(s, i, largest)
  end
end

local ELEMENTS = {
  BOOL = function(s, i)
    return json.word_end(s, i, "^true", "^false") or json.unexpected(s, i, "true or false")
  end,
  BYTES = function(s, i)
    return byte(s, i) == QUOTE and json.string_end(s, i) or json.unexpected(s, i, "a text")
  end,
  FP32 = floats("FP32"),
  FP64 = floats("FP64"),
}
for _, bits in ipairs({ 8, 16, 32, 64 }) do
  ELEMENTS["INT" .. bits] = integers(bits, true, "INT" .. bits)
  ELEMENTS["UINT" .. bits] = integers(bits, false, "UINT" .. bits)
end

-- The number of elements of the list at `i`, which may be nested, and the index of its bracket.
local function count_elements(s, i, element)
  local depth, count, at = 1, 0, json.skip(s, i + 1)
  if byte(s, i) ~= OPEN then
    json.refuse("its data must be a list")
  end
  local after_comma = false
  while true do
    local c = byte(s, at)
    if c == OPEN then
      depth = depth + 1
      if depth > json.MAX_DEPTH then
        json.refuse("its data is nested deeper than %d", json.MAX_DEPTH)
      end
      at, after_comma = json.skip(s, at + 1), false
    else
      if c ~= CLOSE or after_comma then
        at, count = element(s, at) + 1, count + 1
        c = byte(s, at)
        if c ~= COMMA then -- spares a call for each of many elements
          at = json.skip(s, at)
          c = byte(s, at)
        end
      end
      while c == CLOSE do
        depth = depth - 1
        if depth == 0 then
          return count, at
        end
        at = json.skip(s, at + 1)
        c = byte(s, at)
      end
      if c ~= COMMA then
        json.unexpected(s, at, "a comma or a bracket")
      end
      at, after_comma = at + 1, true
      c = byte(s, at)
      if c and c <= SPACE then
        at = json.skip(s, at)
      end
    end
  end
end

-- Two functions over one shape: one takes its dimensions in turn, the other has the elements.
local function element_counter()
  local dimensions, product, empty = 0, 1, false
  local function count(size)
    dimensions = dimensions + 1
    if size == 0 then
      empty = true
    elseif size > MAX_ELEMENTS // product then
      json.refuse("its shape holds more than %d values", MAX_ELEMENTS)
    else
      product = product * size
    end
    if dimensions > json.MAX_DEPTH then
      json.refuse("its shape has more than %d dimensions", json.MAX_DEPTH)
    end
  end
  return count, function() return empty and 0 or product end
end

-- Elements of a tensor of the shape at `i`, and the index of its bracket.
local function shape_elements(s, i)
  local count, elements = element_counter()
  local stop = json.walk_array(s, i, 1, "its shape", function(at)
    local digits, last = json.unsigned(s, at, "a dimension of its shape")
    count(#digits < 11 and tonumber(digits) or MAX_ELEMENTS + 1)
    return last
  end)
  return elements(), stop
end

-- An element of a datatype that is not known yet.
local function any(s, i)
  local c = byte(s, i)
  if c == QUOTE then
    return json.string_end(s, i)
  end
  return json.word_end(s, i, "^true", "^false") or ELEMENTS.FP64(s, i)
end

-- Refuse unless `body[at..stop]` is `elements` BYTES, each behind its length in four bytes.
local function check_binary_bytes(body, at, stop, elements)
  for element = 0, elements - 1 do
    if at + 3 > stop then
      json.refuse("its shape holds %d values, its binary data ends in value %d", elements, element)
    end
    at = at + 4 + unpack("<I4", body, at)
    if at > stop + 1 then
      json.refuse("value %d of its binary data is longer than what is left", element)
    end
  end
  if at ~= stop + 1 then
    json.refuse("its shape holds %d values, its binary data has more", elements)
  end
end

-- Run `check`, and put the input into its sentence.
local function about_input(found, number, check, ...)
  local ok, result = pcall(check, ...)
  if ok then
    return result
  elseif type(result) == "table" then
    local named = found.name and ("input '" .. json.shown(found.name) .. "'") or "input " .. number
    result.sentence = named .. ": " .. result.sentence
  end
  error(result, 0)
end

tensor_data = {
  SIZES = SIZES,
  ELEMENTS = ELEMENTS,
  any = any,
  count_elements = count_elements,
  element_counter = element_counter,
  shape_elements = shape_elements,
  check_binary_bytes = check_binary_bytes,
  about_input = about_input,
}
