-- The seal over the fields of a hash, as flags/seal.rs has it. Names are compared byte by byte: `<` on strings follows the server's locale.
local function before(left, right)
  for i = 1, math.min(#left, #right) do
    local a, b = string.byte(left, i), string.byte(right, i)
    if a ~= b then return a < b end
  end
  return #left < #right
end

local function seal_of(flat)
  local names, values, parts = {}, {}, {}
  for i = 1, #flat, 2 do
    if flat[i] ~= 'seal' then
      names[#names + 1] = flat[i]
      values[flat[i]] = flat[i + 1]
    end
  end
  table.sort(names, before)
  for _, name in ipairs(names) do
    local value = values[name]
    parts[#parts + 1] = #name .. ':' .. name .. #value .. ':' .. value
  end
  return redis.sha1hex(table.concat(parts))
end

-- Redis 6 wants to be told before a script that asks for the time may write.
if redis.replicate_commands then pcall(redis.replicate_commands) end

