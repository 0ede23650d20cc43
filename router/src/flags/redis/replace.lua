-- Replaces a record, unless somebody else did since it was read.
-- KEYS: the record (hash of revision and record).  ARGV: the revision that it replaces (0 for none), its own, the record, milliseconds until it is forgotten.
-- A revision that no router would count up to is none: somebody else wrote it.
-- Answers 1, or 0 when it was another revision.
local held = redis.call('HGET', KEYS[1], 'revision') or '0'
local number = #held < 17 and not held:find('%D') and tonumber(held)
if not number or number > 2 ^ 48 then
  held = '0'
end
if held ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'record', ARGV[3])
if held == '0' or tonumber(ARGV[2]) % 64 == 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
