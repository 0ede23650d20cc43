-- What a write does to the sealed fields, by itself.
-- KEYS: sealed.  ARGV: the epoch, then names and values of all fields.
-- A slower writer does not take back what a later one kept.
local function epoch_of(text) return tonumber(text) or 0 end
if redis.pcall('HKEYS', KEYS[1]).err then redis.call('DEL', KEYS[1]) end
if epoch_of(redis.call('HGET', KEYS[1], 'epoch')) <= epoch_of(ARGV[1]) then
  local flat = {}
  for i = 2, #ARGV do flat[i - 1] = ARGV[i] end
  keep(KEYS[1], flat)
end
return 1
