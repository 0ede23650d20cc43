-- Keeps a value where there is none yet, and answers the one that is kept.
-- KEYS: where.  ARGV: the value.
if redis.call('SET', KEYS[1], ARGV[1], 'NX') then
  return ARGV[1]
end
return redis.call('GET', KEYS[1])
