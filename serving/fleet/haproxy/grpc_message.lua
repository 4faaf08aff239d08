-- Strict protobuf behind a gRPC frame, read without building values: hands out positions.
--
-- Loaded by HAProxy after strict_json.lua; grpc_check.lua finds it as the global `grpc_message`. All
-- positions are of Lua strings, from 1; a range is its first and its last byte. A mistake raises a
-- table {sentence = ...}. Stricter than protobuf: a field that is unknown, of another wire type, or
-- there twice where only the last would count, is refused.
--
-- https://protobuf.dev/programming-guides/encoding and
-- https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

local json = strict_json
local byte, find, sub, unpack = string.byte, string.find, string.sub, string.unpack

local VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
local PREFIX = 5 -- bytes of a frame before its message: a flag, and the length in four

-- The first byte of the only message in `body`.
local function message_start(body)
  if #body < PREFIX then
    json.refuse("the request has no message")
  elseif byte(body, 1) ~= 0 then
    json.refuse("a compressed message is not taken: send it as it is")
  end
  local length = unpack(">I4", body, 2)
  if length ~= #body - PREFIX then
    json.refuse("the request must be one message: its length is said to be %d, and %d bytes came",
      length, #body - PREFIX)
  end
  return PREFIX + 1
end

-- The 64 bits of the number at `at`, and the byte after it.
local function varint(s, at, stop)
  local c = at <= stop and byte(s, at)
  if c and c < 128 then
    return c, at + 1
  end
  local value, shift = 0, 0
  while at <= stop and shift < 70 do
    c = byte(s, at)
    value, at = value | (c & 127) << shift, at + 1
    if c < 128 then
      if shift == 63 and c > 1 then
        break
      end
      return value, at
    end
    shift = shift + 7
  end
  json.refuse("the message has a number that is cut off or too long at byte %d", at - 1)
end

-- First and last byte of the value of wire type `wire` at `at`, and the byte after it.
local function value_range(s, at, stop, wire)
  local first, last = at, nil
  if wire == VARINT then
    last = select(2, varint(s, at, stop)) - 1
  elseif wire == FIXED64 then
    last = at + 7
  elseif wire == FIXED32 then
    last = at + 3
  elseif wire == BYTES then
    local size
    size, first = varint(s, at, stop)
    if size < 0 or size > stop - first + 1 then
      json.refuse("the message ends inside a value at byte %d", first - 1)
    end
    last = first + size - 1
  else
    json.refuse("the message has an unknown kind of field at byte %d", at - 1)
  end
  if last > stop then
    json.refuse("the message ends inside a value at byte %d", at - 1)
  end
  return first, last
end

-- Walk the message `s[at..stop]`. `fields[number]` is {name, wire, read, many = , packed = }, where
-- `read(first, last)` takes the bytes of a value; of a packed field also those of several values.
local function walk(s, at, stop, what, fields)
  local seen = {}
  while at <= stop do
    local tag, first, last
    tag, first = varint(s, at, stop)
    local number, wire = tag >> 3, tag & 7
    local field = fields[number]
    if not field then
      json.refuse("%s has an unknown field at byte %d", what, at - 1)
    elseif wire ~= field.wire and not (field.packed and wire == BYTES) then
      json.refuse("%s has a %s of another type", what, field.name)
    elseif seen[number] and not field.many then
      json.refuse("%s has %s twice", what, field.name)
    end
    seen[number] = true
    first, last = value_range(s, first, stop, wire)
    field.read(first, last)
    at = last + 1
  end
end

-- The text `s[first..last]`, which must be UTF-8 as protobuf knows it.
local function text(s, first, last, what)
  local found = sub(s, first, last)
  if not utf8.len(found) or find(found, "\xED[\xA0-\xBF]") then
    json.refuse("%s is not UTF-8", what)
  end
  return found
end

-- A field with a text, kept as `found[key]`.
local function text_field(s, found, key, name)
  return {
    name = name, wire = BYTES,
    read = function(first, last) found[key] = text(s, first, last, name) end,
  }
end

-- Call `each(value)` for every number in `s[at..last]`.
local function each_varint(s, at, last, each)
  local value
  while at <= last do
    value, at = varint(s, at, last)
    each(value)
  end
end

grpc_message = {
  VARINT = VARINT, FIXED64 = FIXED64, BYTES = BYTES, FIXED32 = FIXED32,
  PREFIX = PREFIX,
  message_start = message_start,
  varint = varint,
  walk = walk,
  text = text,
  text_field = text_field,
  each_varint = each_varint,
}
