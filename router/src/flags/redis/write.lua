-- Writes a route's flags, if they are still exactly what the writer judged.
-- KEYS: flags, sealed, ledger, good.  ARGV: the seal that the fields should have ('' for no fields) and whether they have it (1 or 0),
-- the new epoch, the ledger entry, most ledger entries, what stands in for fields that make no sense ('' for nothing), the number of
-- deletions, the names to delete, then names and values to set.
-- Answers: the new seal, or '' when the flags are not what was judged, and nothing was written.
local flat = redis.call('HGETALL', KEYS[1])
local content = #flat > 0 and seal_of(flat) or ''
local is_sealed = #flat > 0 and redis.call('HGET', KEYS[1], 'seal') == content
if content ~= ARGV[1] or is_sealed ~= (ARGV[2] == '1') then return '' end

-- A script is not undone when a command in it fails. So before the first field changes: may this user write here, and is the entry in the
-- ledger? Where there were no fields the entry comes last, or each failing attempt would leave one.
local function tell() redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'entry', ARGV[4]) end
if #flat > 0 then
  redis.call('HSET', KEYS[1], flat[1], flat[2])
  tell()
end

-- No key may vanish on the way, not even for the next command: while a cluster moves the slot, a script may not write a key that is not there.
-- So fields are set before others are deleted, and no key is deleted to be written anew.
local first_set = 8 + tonumber(ARGV[7])
for i = first_set, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3])
for i = 8, first_set - 1 do redis.call('HDEL', KEYS[1], ARGV[i]) end
local new_seal = seal_of(redis.call('HGETALL', KEYS[1]))
redis.call('HSET', KEYS[1], 'seal', new_seal)

local before_names = redis.pcall('HKEYS', KEYS[2])
if before_names.err then
  redis.call('DEL', KEYS[2])
  before_names = {}
end
local sealed, kept = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #sealed, 2 do
  kept[sealed[i]] = true
  redis.call('HSET', KEYS[2], sealed[i], sealed[i + 1])
end
for _, name in ipairs(before_names) do
  if not kept[name] then redis.call('HDEL', KEYS[2], name) end
end
-- Also when there is nothing: a cluster that moves a slot answers no script that names a key which is not there.
redis.call('HSET', KEYS[4], 'fields', ARGV[6])
if #flat == 0 then tell() end
return new_seal
