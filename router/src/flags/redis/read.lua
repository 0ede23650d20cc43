-- Reads a route's flags in one step.
-- KEYS: flags, sealed; or the flags alone, and then no sealed fields are answered.  ARGV: most fields, most bytes, most bytes of one value, then the names of the known fields.
-- Answers: the seal that the fields should have ('' when there are none), the fields, the last sealed fields (only when the flags are
-- not sealed), and 1 when there is more than the limits allow; then the fields are the known ones, each value cut.

-- A key beside the flags that somebody broke must not hold up a flip: without it there is no base to compare with.
local function sealed()
  if not KEYS[2] then return {} end
  local fields = redis.pcall('HGETALL', KEYS[2])
  if not fields.err then return fields end
  return string.find(fields.err, 'WRONGTYPE') and {} or redis.call('HGETALL', KEYS[2])
end

local most_fields, most_bytes, most_value = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local oversized = redis.call('HLEN', KEYS[1]) > most_fields
if not oversized then
  local bytes = 0
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    bytes = bytes + #name + redis.call('HSTRLEN', KEYS[1], name)
  end
  oversized = bytes > most_bytes
end

if oversized then
  local known = {}
  for i = 4, #ARGV do
    local bytes = redis.call('HSTRLEN', KEYS[1], ARGV[i])
    if bytes > 0 then
      known[#known + 1] = ARGV[i]
      known[#known + 1] = bytes > most_value and string.rep('?', most_value + 1) or redis.call('HGET', KEYS[1], ARGV[i])
    end
  end
  return { '', known, sealed(), 1 }
end

local flat = redis.call('HGETALL', KEYS[1])
if #flat == 0 then return { '', flat, sealed(), 0 } end
local content = seal_of(flat)
if redis.call('HGET', KEYS[1], 'seal') == content then return { content, flat, {}, 0 } end
return { content, flat, sealed(), 0 }
