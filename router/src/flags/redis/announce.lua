-- Takes or keeps the right to tell one target what happened on a route, and notes how far it was told.
-- KEYS: hash of holder, until and told.  ARGV: who asks, milliseconds that it lasts, the epoch that was told last ('' to leave that as it is), the epoch to begin after where none was told yet.
-- Answers the holder, and the epoch that was told last. All times are the server's, in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.pcall('HMGET', KEYS[1], 'holder', 'until', 'told')
if held.err then
  redis.call('DEL', KEYS[1])
  held = {}
end
-- What no router would count up to is somebody else's.
local function number(text) return type(text) == 'string' and #text < 17 and not text:find('%D') and tonumber(text) end
local lasts, ends = tonumber(ARGV[2]), number(held[2]) or 0
local told = number(held[3]) or tonumber(ARGV[4])
-- A clock that was set back must not make it last for an hour.
local is_held = held[1] and ends > now and ends <= now + lasts
if is_held and held[1] ~= ARGV[1] then
  return { held[1], string.format('%.0f', told) }
end
if ARGV[3] ~= '' then told = math.max(told, tonumber(ARGV[3])) end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + lasts), 'told', string.format('%.0f', told))
return { ARGV[1], string.format('%.0f', told) }
