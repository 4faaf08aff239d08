-- Validator of gRPC requests of the KServe v2 protocol, run by HAProxy before Triton sees them.
--
-- The action `lua.grpc_check` reads the buffered body of a request to GRPCInferenceService, which
-- must be the gRPC frame of one message, and refuses what kserve_check.lua refuses of the same
-- request as JSON. It sets
--   txn.checked = "ok"        the request is well formed
--   txn.refusal = SENTENCE    it is not: the client's mistake, as the value of `grpc-message`
--   txn.model, txn.asked      the model's name, and the version the client wrote ("" for none)
-- A request for which neither of the first two is set was not checked. Of a tensor only numbers of
-- variable length and texts are looked at one by one; `txn.most_numbers` has the most bytes of
-- those. It is loaded after strict_json.lua, tensor_data.lua, grpc_message.lua and
-- grpc_parameters.lua.
--
-- https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto

local json, tensors, wire = strict_json, tensor_data, grpc_message
local parameters_field, count_up = grpc_parameters.field, grpc_parameters.count_up
local find, match = string.find, string.match

local MAX_TEXT = 64 -- letters of a model's name
local MOST_UNREAD = 256 << 20 -- bytes of a message that is too large
local INT32, UINT32 = { -(1 << 31), (1 << 31) - 1 }, { 0, (1 << 32) - 1 }

-- The fields of InferTensorContents: the datatypes that each carries, and the range of its numbers.
local CONTENTS = {
  { name = "bool_contents", wire = wire.VARINT, range = { 0, 1 }, types = { BOOL = { 0, 1 } } },
  {
    name = "int_contents", wire = wire.VARINT, range = INT32,
    types = { INT8 = { -128, 127 }, INT16 = { -32768, 32767 }, INT32 = INT32 },
  },
  { name = "int64_contents", wire = wire.VARINT, types = { INT64 = {} } },
  {
    name = "uint_contents", wire = wire.VARINT, range = UINT32,
    types = { UINT8 = { 0, 255 }, UINT16 = { 0, 65535 }, UINT32 = UINT32 },
  },
  { name = "uint64_contents", wire = wire.VARINT, types = { UINT64 = {} } },
  { name = "fp32_contents", wire = wire.FIXED32, size = 4, types = { FP32 = {} } },
  { name = "fp64_contents", wire = wire.FIXED64, size = 8, types = { FP64 = {} } },
  { name = "bytes_contents", wire = wire.BYTES, types = { BYTES = {} } },
}

-- Fields 1 and 2 of every request that names a model.
local function model_fields(s, found)
  return wire.text_field(s, found, "model", "the model's name"),
    wire.text_field(s, found, "version", "the model's version")
end

local function check_model(found)
  local name, version = found.model or "", found.version or ""
  if #name > MAX_TEXT or not find(name, "^[A-Za-z0-9_][A-Za-z0-9_.-]*$") then
    json.refuse("the model's name is %q: 1 to %d letters, digits and . _ -", json.shown(name),
      MAX_TEXT)
  elseif #version > 9 or find(version, "%D") then
    json.refuse("the model's version is %q: it must be a number", json.shown(version))
  end
end

-- The fields of InferTensorContents, counted into `found`; `budget` bounds what is read one by one.
local function contents_fields(s, found, budget)
  local fields = {}
  for number, kind in ipairs(CONTENTS) do
    local count
    if kind.size then
      count = function(first, last)
        local size = last - first + 1
        if size % kind.size ~= 0 then
          json.refuse("its %s ends inside a value", kind.name)
        end
        return size // kind.size
      end
    elseif kind.wire == wire.BYTES then
      count = function() return 1 end
    else
      count = function(first, last)
        local many, range = 0, kind.range
        wire.each_varint(s, first, last, function(value)
          many = many + 1
          if range then
            if value < range[1] or value > range[2] then
              json.refuse("the value %d is outside the range of its %s", value, kind.name)
            end
            found.low = math.min(found.low or value, value)
            found.high = math.max(found.high or value, value)
          end
        end)
        return many
      end
    end
    fields[number] = {
      name = kind.name, wire = kind.wire, many = true, packed = kind.wire ~= wire.BYTES,
      read = function(first, last)
        if found.kind and found.kind ~= kind then
          json.refuse("it has both %s and %s", found.kind.name, kind.name)
        end
        if not kind.size then
          budget.left = budget.left - (last - first + 3)
          if budget.left < 0 then
            json.refuse("it is too long for %s: send it as raw_input_contents", kind.name)
          end
        end
        found.kind, found.count = kind, (found.count or 0) + count(first, last)
      end,
    }
  end
  return fields
end

local function walk_input(s, first, last, found, budget)
  local count, elements = tensors.element_counter()
  wire.walk(s, first, last, "an input", {
    wire.text_field(s, found, "name", "its name"),
    wire.text_field(s, found, "datatype", "its datatype"),
    {
      name = "shape", wire = wire.VARINT, many = true, packed = true,
      read = function(from, to)
        wire.each_varint(s, from, to, function(size)
          if size < 0 then
            json.refuse("a dimension of its shape must be a whole number, 0 or more")
          end
          count(size)
        end)
      end,
    },
    parameters_field(s, {}),
    {
      name = "contents", wire = wire.BYTES,
      read = function(from, to)
        found.contents = true
        wire.walk(s, from, to, "its contents", contents_fields(s, found, budget))
      end,
    },
  })
  found.elements = elements()
end

local function check_contents(found)
  local range = not found.kind or found.kind.types[found.datatype]
  if not range then
    json.refuse("%s cannot carry its datatype %s", found.kind.name, found.datatype)
  elseif found.kind and found.low and (found.low < range[1] or found.high > range[2]) then
    local value = found.low < range[1] and found.low or found.high
    json.refuse("the value %d is outside the range of %s", value, found.datatype)
  elseif (found.count or 0) ~= found.elements then
    json.refuse("its shape holds %d values, its contents have %d", found.elements, found.count or 0)
  end
end

-- `raw` is the range of its raw contents, nil where the request has none.
local function check_input(s, found, raw)
  if not found.name or found.name == "" then
    json.refuse("its name is missing")
  end
  local size = tensors.SIZES[found.datatype or ""]
  if not size then
    json.refuse("its datatype %q is not one that Triton has", json.shown(found.datatype or ""))
  elseif found.contents and raw then
    json.refuse("it must have either contents or raw_input_contents")
  elseif found.contents then
    check_contents(found)
  elseif not raw then
    json.refuse("it has neither contents nor raw_input_contents")
  elseif found.datatype == "BYTES" then
    tensors.check_binary_bytes(s, raw[1], raw[2], found.elements)
  elseif raw[2] - raw[1] + 1 ~= found.elements * size then
    json.refuse("its shape holds %d bytes, its raw_input_contents have %d", found.elements * size,
      raw[2] - raw[1] + 1)
  end
end

local function walk_output(s, first, last)
  local found = {}
  wire.walk(s, first, last, "an output", {
    wire.text_field(s, found, "name", "the name of an output"),
    parameters_field(s, grpc_parameters.OUTPUT_RULES),
  })
  if not found.name or found.name == "" then
    json.refuse("an output has no name")
  end
end

-- ModelInferRequest; `most_numbers` is the budget of what must be read one by one.
local function check_infer(s, at, found, most_numbers)
  local inputs, raw, names, counts = {}, {}, {}, {}
  local budget = { left = most_numbers }
  local name, version = model_fields(s, found)
  wire.walk(s, at, #s, "the request", {
    name,
    version,
    wire.text_field(s, found, "id", "id"),
    parameters_field(s, grpc_parameters.REQUEST_RULES),
    {
      name = "inputs", wire = wire.BYTES, many = true,
      read = function(first, last)
        count_up(counts, "inputs")
        local input = {}
        inputs[#inputs + 1] = input
        tensors.about_input(input, #inputs - 1, walk_input, s, first, last, input, budget)
      end,
    },
    {
      name = "outputs", wire = wire.BYTES, many = true,
      read = function(first, last)
        count_up(counts, "outputs")
        walk_output(s, first, last)
      end,
    },
    {
      name = "raw_input_contents", wire = wire.BYTES, many = true,
      read = function(first, last)
        count_up(counts, "raw_input_contents")
        raw[#raw + 1] = { first, last }
      end,
    },
  })
  check_model(found)
  if #raw > 0 and #raw ~= #inputs then
    json.refuse("the request has %d inputs and %d raw_input_contents", #inputs, #raw)
  end
  for number, input in ipairs(inputs) do
    tensors.about_input(input, number - 1, check_input, s, input, raw[number])
    if names[input.name] then
      json.refuse("input '%s' is there twice", json.shown(input.name))
    end
    names[input.name] = true
  end
end

-- ModelReadyRequest and ModelMetadataRequest.
local function check_named(s, at, found)
  wire.walk(s, at, #s, "the request", { model_fields(s, found) })
  check_model(found)
end

local function check_empty(s, at)
  wire.walk(s, at, #s, "the request", {})
end

local METHODS = {
  ModelInfer = check_infer,
  ModelReady = check_named,
  ModelMetadata = check_named,
  ServerLive = check_empty,
  ServerReady = check_empty,
  ServerMetadata = check_empty,
}

local function check_request(txn, found)
  local check = METHODS[match(txn.f:path(), "([^/]*)$")]
  local body = txn.f:req_body() or ""
  check(body, wire.message_start(body), found, txn:get_var("txn.most_numbers"))
end

core.register_action("grpc_check", { "http-req" }, function(txn)
  local found = {}
  local ok, problem = pcall(check_request, txn, found)
  if ok then
    if found.model then
      txn:set_var("txn.model", found.model)
      txn:set_var("txn.asked", found.version or "")
    end
    txn:set_var("txn.checked", "ok")
  elseif type(problem) == "table" then
    -- `shown` leaves ASCII only; of that the value of grpc-message escapes the percent sign.
    txn:set_var("txn.refusal", (problem.sentence:gsub("%%", "%%25")))
  else
    txn:Alert("grpc_check: " .. tostring(problem))
  end
end)

-- A message that is too large is read to its end, and thrown away, before it is refused: see
-- grpc_edge.py. From `MOST_UNREAD` bytes on the client is told by a reset alone.
core.register_service("grpc_too_large", "http", function(applet)
  local left, part = MOST_UNREAD, nil
  repeat
    part = applet:receive(65536)
    left = left - #part
  until #part == 0 or left < 0
  applet:set_status(413)
  applet:add_header("content-length", "0")
  applet:add_header("grpc-status", "8")
  applet:add_header("grpc-message", "a message may have " .. applet:get_var("txn.most_bytes") .. " bytes")
  applet:start_response()
end)
