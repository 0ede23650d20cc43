-- Reports a router, forgets those that are long gone, and answers who there is. All times are the server's, in milliseconds.
-- KEYS: routers (sorted set of ids by time), reports (hash of reports by id).  ARGV: id, report, milliseconds until forgotten.
-- Answers: the time now, the report that this id gave before (''), then id, time and report of each router.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('HGET', KEYS[2], ARGV[1]) or ''
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])

local seen = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local answer = { string.format('%.0f', now), before }
for i = 1, #seen, 2 do
  answer[#answer + 1] = seen[i]
  answer[#answer + 1] = seen[i + 1]
  answer[#answer + 1] = redis.call('HGET', KEYS[2], seen[i]) or ''
end
return answer
