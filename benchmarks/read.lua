-- Reads bills in turn. wrk -s read.lua URL -- KEY PATH COUNT: PATH is completed by 0 to COUNT - 1.
local number, headers, path, count = 0, {}, "", 1
function init(args)
  headers["Authorization"] = "Bearer " .. args[1]
  path = args[2]
  count = tonumber(args[3])
end
function request()
  number = number + 7919
  return wrk.format("GET", path .. number % count, headers)
end
