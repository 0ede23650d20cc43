-- Takes or keeps the right to move a route's rollout. Each holder has a term of its own, higher than all before it.
-- KEYS: the lease (hash of holder, term and until).  ARGV: who asks, milliseconds that it lasts, a term that the lease must not fall below (what the rollout was last moved in).
-- Answers the term and the holder. All times are the server's, in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.pcall('HMGET', KEYS[1], 'holder', 'term', 'until')
if held.err then
  redis.call('DEL', KEYS[1])
  held = {}
end
-- What no router would count up to is somebody else's.
local function number(text) return type(text) == 'string' and #text < 17 and not text:find('%D') and tonumber(text) or 0 end
local term = math.max(number(held[2]), tonumber(ARGV[3]))
local lasts = tonumber(ARGV[2])
-- A clock that was set back must not make a lease last for an hour.
local is_held = held[1] and number(held[3]) > now and number(held[3]) <= now + lasts
if is_held and held[1] ~= ARGV[1] then
  return { string.format('%.0f', term), held[1] }
end
if not is_held or number(held[2]) < term then
  term = term + 1
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'term', string.format('%.0f', term), 'until', string.format('%.0f', now + lasts))
return { string.format('%.0f', term), ARGV[1] }
