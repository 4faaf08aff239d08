-- Filter that puts the version which the edge chose into a gRPC request.
--
-- By HTTP a version stands in the path; by gRPC it is a field of the message, so the message itself
-- must change. Of a field that is there twice the last counts: the version is appended, and the
-- length in front of the message grows. It reads what grpc_check.lua and the edge's map set:
-- txn.model and txn.version. The body lies in the buffer whole, as `wait-for-body` and the check
-- left it. It is loaded after grpc_message.lua.

local PREFIX = grpc_message.PREFIX

local Version = { id = "grpc_version", flags = filter.FLT_CFG_FL_HTX }
Version.__index = Version

function Version:new()
  return setmetatable({}, Version)
end

function Version:start_analyze(txn, channel)
  -- Of requests alone: an answer without a body is reset where a filter waits for its data.
  if not channel:is_resp() then
    filter.register_data_filter(self, channel)
  end
end

function Version:http_payload(txn, message)
  if self.done then
    return
  end
  self.done = true
  local version = txn:get_var("txn.version")
  if txn:get_var("txn.model") and version then
    -- Field 2 of ModelInferRequest, ModelReadyRequest and ModelMetadataRequest.
    local field = "\x12" .. string.char(#version) .. version
    local flag, length = string.unpack(">BI4", message:body(0, PREFIX))
    message:set(string.pack(">BI4", flag, length + #field), 0, PREFIX)
    message:append(field)
  end
end

core.register_filter("grpc_version", Version, function(version) return version end)
