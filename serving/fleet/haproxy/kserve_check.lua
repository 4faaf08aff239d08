-- Validator of KServe v2 inference requests, run by HAProxy before Triton sees them.
--
-- Triton 2.51 answers most malformed requests with 500, wraps integers that are out of range, and
-- ends on some (a shape whose product overflows, data nested too deep, a classification of texts).
-- The action `lua.kserve_check` reads the buffered body of a request and sets one of
--   txn.checked = "ok"        the request is well formed
--   txn.refusal = SENTENCE    it is not: the client's mistake, for the answer 400
-- A request for which neither is set was not checked. Time is linear in the body; nothing is built
-- of it but names and shapes. It needs Lua 5.3, as HAProxy 2.6 brings it, and strict_json.lua and
-- tensor_data.lua, loaded before it.
--
-- Protocol: https://github.com/kserve/kserve/blob/master/docs/predict-api/v2/required_api.md and
-- https://github.com/triton-inference-server/server/blob/main/docs/protocol (binary data, sequence).

local json, tensors = strict_json, tensor_data
local byte, find, sub = string.byte, string.find, string.sub

local MAX_SEQUENCE_ID = 128 -- Triton answers a longer one with 501

local QUOTE, OPEN, BEGIN, NULL = 34, 91, 123, 110

-- Parameters: texts, numbers and booleans only. `rules[key](s, start)` checks one; other keys pass.
local function walk_parameters(s, i, what, rules)
  return json.walk_object(s, i, 2, what, function(key, at)
    local c = byte(s, at)
    if c == OPEN or c == BEGIN or c == NULL then
      json.refuse("the parameter %q must be a text, a number or a boolean", json.shown(key))
    elseif find(key, "^shared_memory_") then
      json.refuse("shared memory is not served here: send the tensors themselves")
    elseif rules[key] then
      return rules[key](s, at)
    end
  end)
end

local function boolean(key)
  return function(s, i)
    local stop = json.word_end(s, i, "^true", "^false")
    return stop or json.refuse("the parameter %q must be true or false", key)
  end
end

local function whole(key)
  return function(s, i)
    local _, stop = json.unsigned(s, i, "the parameter " .. key)
    return stop
  end
end

local REQUEST_RULES = {
  priority = whole("priority"),
  timeout = whole("timeout"),
  sequence_start = boolean("sequence_start"),
  sequence_end = boolean("sequence_end"),
  binary_data_output = boolean("binary_data_output"),
  sequence_id = function(s, i)
    if byte(s, i) ~= QUOTE then
      return whole("sequence_id")(s, i)
    end
    local stop = json.string_end(s, i)
    if #json.text_between(s, i, stop) > MAX_SEQUENCE_ID then
      json.refuse("the parameter sequence_id has more than %d bytes", MAX_SEQUENCE_ID)
    end
    return stop
  end,
}

local OUTPUT_RULES = {
  binary_data = boolean("binary_data"),
  classification = function(s, i)
    -- Triton 2.51 ends when the output holds texts, and the edge cannot see what it holds.
    local digits, stop = json.unsigned(s, i, "the parameter classification")
    if find(digits, "[1-9]") then
      json.refuse("classification is not served here: take the output and sort its values")
    end
    return stop
  end,
}

-- As walk_parameters, for those of a tensor: null stands for none, as clients with models write it.
local function walk_tensor_parameters(s, i, rules)
  return json.word_end(s, i, "^null", "^null") or walk_parameters(s, i, "parameters", rules)
end

local function text_at(s, i, what)
  if byte(s, i) ~= QUOTE then
    json.refuse("%s must be a text", what)
  end
  local stop = json.string_end(s, i)
  return json.text_between(s, i, stop), stop
end

-- The members of the input at `i` into `found`; returns the index of its brace.
local function walk_input(s, i, found)
  local sizes = {
    binary_data_size = function(_, at)
      local digits, stop = json.unsigned(s, at, "the parameter binary_data_size")
      found.size = #digits < 11 and tonumber(digits) or math.maxinteger
      return stop
    end,
  }
  return json.walk_object(s, i, 2, "an input", function(key, at)
    local stop
    if key == "name" then
      found.name, stop = text_at(s, at, "its name")
    elseif key == "datatype" then
      found.datatype, stop = text_at(s, at, "its datatype")
    elseif key == "shape" then
      found.elements, stop = tensors.shape_elements(s, at)
    elseif key == "parameters" then
      stop = walk_tensor_parameters(s, at, sizes)
    elseif key == "data" then
      -- Nearly always the datatype came first, and once is enough.
      local element = tensors.ELEMENTS[found.datatype or ""]
      found.data, found.counted = at, element ~= nil
      found.count, stop = tensors.count_elements(s, at, element or tensors.any)
    end
    return stop
  end)
end

local function check_input(s, found)
  for _, key in ipairs({ "name", "datatype", "shape" }) do
    if not found[key == "shape" and "elements" or key] then
      json.refuse("its %s is missing", key)
    end
  end
  local size = tensors.SIZES[found.datatype]
  if not size then
    json.refuse("its datatype %q is not one that Triton has", json.shown(found.datatype))
  elseif not found.data == not found.size then
    json.refuse("it must have either data or the parameter binary_data_size")
  elseif found.data then
    local element = tensors.ELEMENTS[found.datatype]
    if not element then
      json.refuse("JSON cannot carry %s: send it as binary data", found.datatype)
    elseif not found.counted then
      tensors.count_elements(s, found.data, element)
    end
    if found.count ~= found.elements then
      json.refuse("its shape holds %d values, its data has %d", found.elements, found.count)
    end
  elseif size > 0 and found.size ~= found.elements * size then
    json.refuse("its shape holds %d bytes, and binary_data_size differs", found.elements * size)
  end
end

local function walk_inputs(s, i)
  local inputs, names = {}, {}
  local stop = json.walk_array(s, i, 1, "inputs", function(at)
    local found, number = {}, #inputs
    local last = tensors.about_input(found, number, walk_input, s, at, found)
    tensors.about_input(found, number, check_input, s, found)
    if names[found.name] then
      json.refuse("input '%s' is there twice", json.shown(found.name))
    end
    names[found.name] = true
    inputs[number + 1] = found
    return last
  end)
  return inputs, stop
end

local function walk_output(s, i)
  local name
  local stop = json.walk_object(s, i, 2, "an output", function(key, at)
    local last
    if key == "name" then
      name, last = text_at(s, at, "the name of an output")
    elseif key == "parameters" then
      last = walk_tensor_parameters(s, at, OUTPUT_RULES)
    end
    return last
  end)
  return name and stop or json.refuse("an output has no name")
end

-- The document `s`; returns its inputs, in order.
local function walk_request(s)
  if not utf8.len(s) then
    json.refuse("the JSON is not UTF-8")
  end
  local inputs
  local start = json.skip(s, sub(s, 1, 3) == "\xEF\xBB\xBF" and 4 or 1)
  local stop = json.walk_object(s, start, 1, "the request", function(key, at)
    local last
    if key == "inputs" then
      inputs, last = walk_inputs(s, at)
    elseif key == "outputs" then
      last = json.walk_array(s, at, 1, "outputs", function(one) return walk_output(s, one) end)
    elseif key == "id" then
      last = select(2, text_at(s, at, "id"))
    elseif key == "parameters" then
      last = walk_parameters(s, at, "parameters", REQUEST_RULES)
    end
    return last
  end)
  if json.skip(s, stop + 1) <= #s then
    json.refuse("the JSON is followed by something else at byte %d", stop)
  end
  return inputs or json.refuse("the request has no inputs")
end

local function check_request(body, header_length)
  if body == "" then
    json.refuse("the request has no body")
  elseif header_length == "0" then
    return -- the raw bytes of a model's only input; Triton has the shape of its config
  end
  local length = #body
  if header_length then
    length = find(header_length, "^%d+$") and tonumber(header_length)
    if not length or length > #body then
      json.refuse("Inference-Header-Content-Length must be a number from 0 to the body's length")
    end
  end
  local at = length + 1
  for number, found in ipairs(walk_request(sub(body, 1, length))) do
    local size = found.size
    if size then
      if size > #body - at + 1 then
        json.refuse("input '%s': its binary data is longer than the body", json.shown(found.name))
      elseif found.datatype == "BYTES" then
        local check, last = tensors.check_binary_bytes, at + size - 1
        tensors.about_input(found, number, check, body, at, last, found.elements)
      end
      at = at + size
    end
  end
  if at <= #body then
    json.refuse("the body has %d bytes that belong to no input", #body - at + 1)
  end
end

core.register_action("kserve_check", { "http-req" }, function(txn)
  local header = txn.f:req_fhdr("inference-header-content-length")
  local ok, problem = pcall(check_request, txn.f:req_body() or "", header)
  if ok then
    txn:set_var("txn.checked", "ok")
  elseif type(problem) == "table" then
    txn:set_var("txn.refusal", problem.sentence)
  else
    txn:Alert("kserve_check: " .. tostring(problem))
  end
end)
