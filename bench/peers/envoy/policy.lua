-- Users who ask for the beta get the canary, and a tenth of the others, by a hash (FNV-1a) of their id. The route goes by x-pool.
local bit = require("bit")
local bxor, band, tobit = bit.bxor, bit.band, bit.tobit

local function hash(text)
  local value = 0x811c9dc5
  for at = 1, #text do
    value = bxor(value, text:byte(at))
    -- A product of 32 bits each is more than a double holds: the prime is taken in two parts.
    value = tobit(band(value, 0xffff) * 0x01000193 + band(bit.rshift(value, 16) * 0x0193, 0xffff) * 0x10000)
  end
  return value % 4294967296
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local pool = "blue"
  if headers:get("x-beta") == "1" then
    pool = "canary"
  elseif hash(headers:get("x-user-id") or "") % 100 < 10 then
    pool = "canary"
  end
  headers:replace("x-pool", pool)
  handle:clearRouteCache()
end
