-- Reports a router, forgets those that are long gone, and answers who there is and what time it is.
-- Times are of the fleet's clock, in milliseconds. It is the server's clock, and goes on when that is set or another server takes its place: what it is ahead of the
-- server's is kept, and made up for by one part in a hundred.
-- KEYS: routers (sorted set of ids by time), reports (hash of reports by id), clock (hash of ahead and at, when it was asked for last by the server's).
-- ARGV: id ('' to report nobody), report, milliseconds until forgotten, what the fleet's clock is ahead of the server's as this router knows it ('' where it does not say).
-- Answers: the fleet's clock, the server's, 1 where the server's may have jumped ahead, the report that this id gave before (''), then id, time and report of each router.
local time = redis.call('TIME')
local server = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.pcall('HMGET', KEYS[3], 'ahead', 'at')
if kept.err then
  redis.call('DEL', KEYS[3])
  kept = {}
end
-- What no clock would show is somebody else's. A day at most: more is no clock.
local function number(text, most)
  local number = type(text) == 'string' and tonumber(text)
  return number and math.abs(number) <= most and number or nil
end
local DAY, MOST_AT = 86400000, 2 ^ 52
local ahead, at, said = number(kept[1], DAY) or 0, number(kept[2], MOST_AT), number(ARGV[4], DAY)
-- Nobody asked for so long, or it jumped. Who has heard the fleet's clock before knows which, and says so.
local is_odd = not at or server > at + 5000
if is_odd and said then
  ahead, is_odd = said, false
elseif at and server < at - 1000 then
  ahead = math.min(ahead + at - server, DAY)
elseif at and not is_odd then
  local made_up = math.min(math.abs(ahead), math.max(server - at, 0) / 100)
  ahead = ahead > 0 and ahead - made_up or ahead + made_up
end
if not is_odd then redis.call('HSET', KEYS[3], 'ahead', string.format('%.2f', ahead), 'at', string.format('%.0f', server)) end
local now = math.floor(server + ahead)

local before = redis.call('HGET', KEYS[2], ARGV[1]) or ''
-- Nobody is forgotten by a clock that may have jumped.
for _, id in ipairs(is_odd and {} or redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
-- Whoever was heard in what is now the future was heard now, at the latest.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')) do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), id)
end
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end

local seen = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local answer = { string.format('%.0f', now), string.format('%.0f', server), is_odd and '1' or '0', before }
for i = 1, #seen, 2 do
  answer[#answer + 1] = seen[i]
  answer[#answer + 1] = seen[i + 1]
  answer[#answer + 1] = redis.call('HGET', KEYS[2], seen[i]) or ''
end
return answer
