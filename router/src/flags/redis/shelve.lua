-- Keeps what one sender says of its windows. What it says is everything so far, so that saying it again changes nothing; and an older word that
-- was under way for long does not replace a newer one.
-- KEYS: sender (the number of its last word), a page to be looked at, then a hash for each page.  ARGV: number, milliseconds until the sender is forgotten, the same for
-- a page, the field that the page to be looked at should have ('' for none), and for each page: how many fields, then field and value of each.
-- Answers the number of the last word before (0 for none), and whether that field is there.
local held = redis.pcall('GET', KEYS[1])
-- What no sender would count up to is somebody else's.
local last = type(held) == 'string' and #held < 17 and not held:find('%D') and tonumber(held) or 0
if last > 2 ^ 48 then
  last = 0
end
local is_there = 1
if ARGV[4] ~= '' then
  local found = redis.pcall('HEXISTS', KEYS[2], ARGV[4])
  is_there = type(found) == 'number' and found or 1
end
if last >= tonumber(ARGV[1]) then
  return { last, is_there }
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local at = 5
for page = 3, #KEYS do
  local fields = tonumber(ARGV[at])
  local values = {}
  for i = at + 1, at + 2 * fields do
    values[#values + 1] = ARGV[i]
  end
  at = at + 1 + 2 * fields
  local added = redis.pcall('HSET', KEYS[page], unpack(values))
  -- A key of another type is somebody else's, and no reason to leave the other pages out.
  if type(added) == 'number' then
    if added > 0 then
      redis.call('PEXPIRE', KEYS[page], ARGV[3])
    end
  elseif not added.err:find('WRONGTYPE') then
    return added
  end
end
return { last, is_there }
