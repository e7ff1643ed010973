-- Distinct events of about 350 bytes, five to a bill. wrk -s load.lua URL -- TOKEN SEED
local n, seed, headers = 0, "", {}
function init(args)
  seed = args[2]
  headers["Authorization"] = "Bearer " .. args[1]
  headers["Content-Type"] = "application/json"
end
function request()
  n = n + 1
  local body = '{"labID":"lab_67890","eventType":"report.completed","eventTime":' .. 1705747800 + n % 80000
    .. ',"data":{"billID":"bill_' .. seed .. '_' .. math.floor(n / 5)
    .. '","integratorID":"your_unique_integrator_id","billData":{"status":"pending","testData":['
    .. '{"_id":"test_' .. n .. '","status":"completed"},{"_id":"test_002","status":"pending"}]},'
    .. '"reportURL":"https://reports.flabs.in/bill/bill_' .. seed .. '"}}'
  return wrk.format("POST", "/webhooks/flabs", headers, body)
end
