-- Shadow traffic: copies of requests to a version that nobody waits for.
--
-- The action `lua.shadow_request` lays a copy of the request that it sees into a queue and is done:
-- the client's request goes on at once. Tasks send the copies to the frontend `shadow` of this
-- HAProxy, by a unix socket, and throw the answers away. Where the hosts are slower than the copies
-- come, copies are dropped, never requests. It reads
--   txn.model, txn.shadow     the model and the version that gets the copy
--   SHADOW_SOCKET             of the environment: the address of the frontend
-- Each thread has a state of its own (`lua-load-per-thread`), and so a queue and tasks of its own.

local MOST_WAITING = 32 -- copies in one queue
local MOST_BYTES = 16 << 20 -- of all their bodies
local TASKS = 4 -- copies in flight of one thread
local IDLE_MS = 50 -- between two looks into an empty queue
local TIMEOUT_MS = 30000 -- of one copy
local FRAMED = "inference-header-content-length"

local waiting, bytes = {}, 0
local address = os.getenv("SHADOW_SOCKET")

core.register_action("shadow_request", { "http-req" }, function(txn)
  local body = txn.f:req_body() or ""
  if #waiting < MOST_WAITING and bytes + #body <= MOST_BYTES then
    bytes = bytes + #body
    waiting[#waiting + 1] = {
      path = "/v2/models/" .. txn:get_var("txn.model") .. "/versions/" .. txn:get_var("txn.shadow")
        .. "/infer",
      body = body,
      framed = txn.f:req_fhdr(FRAMED),
    }
  end
end)

local function send(copy)
  core.httpclient():post({
    url = "http://shadow" .. copy.path,
    dst = address,
    headers = { [FRAMED] = copy.framed and { copy.framed }, ["content-length"] = { #copy.body } },
    body = copy.body,
    timeout = TIMEOUT_MS,
  })
end

local function send_copies()
  while true do
    local copy = table.remove(waiting, 1)
    if copy then
      bytes = bytes - #copy.body
      pcall(send, copy) -- a copy that is lost is nobody's failure
    else
      core.msleep(IDLE_MS)
    end
  end
end

for _ = 1, TASKS do
  core.register_task(send_copies)
end
