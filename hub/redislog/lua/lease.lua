-- Takes, keeps or gives back the lease of the ingest. KEYS[1]: a hash: n, owner,
-- until (ms). ARGV: owner, what is wanted (take, raise, release), how long the
-- lease lasts, and how long it must have been free for this owner to take it (ms).
-- Gives n, 1 if the owner has it, and the time (µs). Each reign has a greater n
-- than the one before, also when the hash was lost: it is at least the time.

local h = redis.call('HMGET', KEYS[1], 'n', 'owner', 'until')
local time = redis.call('TIME')
local us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(us / 1000)
local n, ends = tonumber(h[1]) or 0, tonumber(h[3]) or 0
local mine = h[2] == ARGV[1] and ends > now
local function answer(n, has)
  return {string.format('%.0f', n), has, string.format('%.0f', us)}
end

if ARGV[2] == 'release' then
  if mine then
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now))
  end
  return answer(n, 0)
end
if not mine and (ends > now or (n > 0 and now - ends < tonumber(ARGV[4]))) then
  return answer(n, 0)
end
if not mine or ARGV[2] == 'raise' then
  n = math.max(n + 1, now)
end
redis.call('HSET', KEYS[1], 'n', string.format('%.0f', n), 'owner', ARGV[1],
  'until', string.format('%.0f', now + tonumber(ARGV[3])))
return answer(n, 1)
