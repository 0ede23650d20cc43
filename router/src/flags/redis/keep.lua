-- Makes a hash hold exactly these fields. It does not vanish on the way, not even for the next command: while a cluster moves the slot, a
-- script may not write a key that is not there. So fields are set before others are deleted.
local function keep(key, flat)
  local names, kept = redis.call('HKEYS', key), {}
  for i = 1, #flat, 2 do
    kept[flat[i]] = true
    redis.call('HSET', key, flat[i], flat[i + 1])
  end
  for _, name in ipairs(names) do
    if not kept[name] then redis.call('HDEL', key, name) end
  end
end

