-- Distinct events of 350 bytes, whatever the seed, five to a bill.
-- wrk -s load.lua URL -- TOKEN SEED [RATE [FILE]]
-- RATE: events/s of all connections together, 0 for as many as are answered.
-- FILE: takes a line for each event that was acknowledged: its position.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s, ns; } moment; int clock_gettime(int, moment *);")

local LENGTH, ENDING = 350, '"}}'
local n, seed, headers = 0, "", {}
local interval, due, moment = 0, 0, ffi.new("moment")
local acknowledged

local function milliseconds()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.s) * 1000 + tonumber(moment.ns) / 1e6
end

-- One timetable for all connections: each takes the next place in it. Up to a second is made up for.
local function wait()
  local now = milliseconds()
  due = math.max(due + interval, now - 1000)
  return math.max(due - now, 0)
end

local function note(status, _, body)
  if status == 200 then
    acknowledged:write(body:match('"position":(%d+)') or "none", "\n")
  end
end

function init(args)
  seed = args[2]
  headers["Authorization"] = "Bearer " .. args[1]
  headers["Content-Type"] = "application/json"
  local rate = tonumber(args[3] or 0)
  if rate > 0 then
    interval, delay = 1000 / rate, wait
  end
  if args[4] then
    acknowledged = assert(io.open(args[4], "w"))
    acknowledged:setvbuf("no") -- wrk does not close it
    response = note
  end
end

function request()
  n = n + 1
  local body = '{"labID":"lab_67890","eventType":"report.completed","eventTime":' .. 1705747800 + n % 80000
    .. ',"data":{"billID":"bill_' .. seed .. '_' .. math.floor(n / 5)
    .. '","integratorID":"your_unique_integrator_id","billData":{"status":"pending","testData":['
    .. '{"_id":"test_' .. n .. '","status":"completed"},{"_id":"test_002","status":"pending"}]},'
    .. '"reportURL":"https://reports.flabs.in/bill/'
  body = body .. ("r"):rep(LENGTH - #body - #ENDING) .. ENDING
  return wrk.format("POST", "/webhooks/flabs", headers, body)
end
