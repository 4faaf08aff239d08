-- Parameters of a gRPC request of the KServe v2 protocol, and the rules for those that Triton reads.
--
-- Loaded by HAProxy after grpc_message.lua; grpc_check.lua finds it as the global `grpc_parameters`.
-- A mistake raises a table {sentence = ...}.

local json, wire = strict_json, grpc_message
local find = string.find

local MAX_ENTRIES = 1024 -- tensors of one request, parameters of one map
local MAX_SEQUENCE_ID = 128 -- Triton answers a longer one with an error of its own

-- Count one more of `what`, which may not be without end.
local function count_up(counts, what)
  counts[what] = (counts[what] or 0) + 1
  if counts[what] > MAX_ENTRIES then
    json.refuse("the request has more than %d %s", MAX_ENTRIES, what)
  end
end

-- The value of an InferParameter: {kind = "bool", "int", "text" or "double", value}.
local function read_parameter(s, at, stop, key)
  local found = {}
  local function one(kind, type, read)
    return {
      name = kind, wire = type,
      read = function(first, last)
        if found.kind then
          json.refuse("the parameter %q has two values", json.shown(key))
        end
        found.kind, found.value = kind, read and read(first, last)
      end,
    }
  end
  local function number(first, last) return (wire.varint(s, first, last)) end
  local function text(first, last) return wire.text(s, first, last, "a parameter") end
  wire.walk(s, at, stop, "a parameter", {
    one("bool", wire.VARINT, number),
    one("int", wire.VARINT, number),
    one("text", wire.BYTES, text),
    one("double", wire.FIXED64),
    one("unsigned", wire.VARINT, number),
  })
  return found.kind and found
    or json.refuse("the parameter %q must be a text, a number or a boolean", json.shown(key))
end

-- A field with a map of parameters; `rules[key](value)` checks one, other keys pass.
local function parameters_field(s, rules)
  local seen, counts = {}, {}
  return {
    name = "parameters", wire = wire.BYTES, many = true,
    read = function(first, last)
      count_up(counts, "parameters")
      local entry = {}
      wire.walk(s, first, last, "a parameter", {
        wire.text_field(s, entry, "key", "the key of a parameter"),
        {
          name = "value", wire = wire.BYTES,
          read = function(from, to) entry.first, entry.last = from, to end,
        },
      })
      local key = entry.key or json.refuse("a parameter has no key")
      if seen[key] then
        json.refuse("parameters has the key %q twice", json.shown(key))
      elseif find(key, "^shared_memory_") then
        json.refuse("shared memory is not served here: send the tensors themselves")
      end
      seen[key] = true
      local value = read_parameter(s, entry.first or 1, entry.last or 0, key)
      if rules[key] then
        rules[key](value)
      end
    end,
  }
end

local function boolean(key)
  return function(found)
    if found.kind ~= "bool" then
      json.refuse("the parameter %q must be true or false", key)
    end
  end
end

local function whole(key)
  return function(found)
    if found.kind ~= "unsigned" and (found.kind ~= "int" or found.value < 0) then
      json.refuse("the parameter %s must be a whole number, 0 or more", key)
    end
  end
end

local REQUEST_RULES = {
  priority = whole("priority"),
  timeout = whole("timeout"),
  sequence_start = boolean("sequence_start"),
  sequence_end = boolean("sequence_end"),
  sequence_id = function(found)
    if found.kind ~= "text" then
      whole("sequence_id")(found)
    elseif #found.value > MAX_SEQUENCE_ID then
      json.refuse("the parameter sequence_id has more than %d bytes", MAX_SEQUENCE_ID)
    end
  end,
}

local OUTPUT_RULES = {
  classification = function(found)
    -- Triton 2.51 ends when the output holds texts, and the edge cannot see what it holds.
    whole("classification")(found)
    if found.value ~= 0 then
      json.refuse("classification is not served here: take the output and sort its values")
    end
  end,
}

grpc_parameters = {
  field = parameters_field,
  count_up = count_up,
  REQUEST_RULES = REQUEST_RULES,
  OUTPUT_RULES = OUTPUT_RULES,
}
