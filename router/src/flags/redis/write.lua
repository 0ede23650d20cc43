-- Writes a route's flags, if they are still exactly what the writer judged.
-- KEYS: flags, sealed, ledger, good, head of the ledger; or the flags alone.  ARGV: the seal that the fields should have ('' for no fields) and whether they
-- have it (1 or 0), the new epoch, the ledger entry, most ledger entries, what stands in for fields that make no sense ('' for nothing),
-- the id of the ledger's newest entry, which this one names ('' for none), the number of deletions, the names to delete, then names and values to set.
-- Answers: the new seal, or '' when the flags are not what was judged, and nothing was written.
local flags, sealed, ledger, good, head = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local flat = redis.call('HGETALL', flags)
local content = #flat > 0 and seal_of(flat) or ''
local is_sealed = #flat > 0 and redis.call('HGET', flags, 'seal') == content
if content ~= ARGV[1] or is_sealed ~= (ARGV[2] == '1') then return '' end
-- An entry names the one before it: that must still be the newest.
if ledger then
  local newest = redis.pcall('XREVRANGE', ledger, '+', '-', 'COUNT', 1)
  if not newest.err and (newest[1] and newest[1][1] or '') ~= ARGV[7] then return '' end
end

-- A script is not undone when a command in it fails. So before the first field changes: are all keys here (a cluster that moves the slot
-- runs no script of which some are elsewhere, but one that must make way is gone then), may this user write, and is the entry in the
-- ledger? Where there were no fields the entry comes last, or each failing attempt would leave one.
local function tell()
  if not ledger then return end
  local id = redis.call('XADD', ledger, 'MAXLEN', '~', ARGV[5], '*', 'entry', ARGV[4])
  redis.call('SET', head, id .. ' ' .. redis.sha1hex(ARGV[4]))
end
if sealed and redis.pcall('HKEYS', sealed).err then
  redis.call('DEL', sealed)
  redis.call('HSET', sealed, 'epoch', '0')
end
if #flat > 0 then
  redis.call('HSET', flags, flat[1], flat[2])
  tell()
end

-- The flags too never vanish on the way: see keep.
local first_set = 9 + tonumber(ARGV[8])
for i = first_set, #ARGV, 2 do redis.call('HSET', flags, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', flags, 'epoch', ARGV[3])
for i = 9, first_set - 1 do redis.call('HDEL', flags, ARGV[i]) end
local new_seal = seal_of(redis.call('HGETALL', flags))
redis.call('HSET', flags, 'seal', new_seal)

if sealed then keep(sealed, redis.call('HGETALL', flags)) end
-- Also when there is nothing: a cluster that moves a slot answers no script that names a key which is not there.
if good then redis.call('HSET', good, 'fields', ARGV[6]) end
if #flat == 0 then tell() end
return new_seal
