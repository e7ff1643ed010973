-- Reads the bills that benchmarks/logs.py made, in turn. wrk -s read.lua URL -- KEY BILLS LABS
local number, headers, bills, labs = 0, {}, 1, 1
function init(args)
  headers["Authorization"] = "Bearer " .. args[1]
  bills, labs = tonumber(args[2]), tonumber(args[3])
end
function request()
  number = (number + 7919) % bills
  return wrk.format("GET", "/v1/labs/lab_" .. number % labs .. "/bills/bill_" .. number, headers)
end
