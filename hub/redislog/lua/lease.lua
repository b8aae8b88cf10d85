-- Takes, keeps or gives back the lease of the ingest, sets marks in the stream of raw
-- messages, and tells instances of each other. KEYS[1]: a hash: owner, until (ms), led
-- (when somebody last had it, ms), from, mark (µs), and of each instance that holds
-- messages "held <owner>": the mark of the oldest, and when it said so (ms). ARGV:
-- owner; how long the lease lasts (ms; 0: give it back); 1 if the owner has listened for
-- long enough to have it, or 0: only if nobody else listens, nor has had it for 3 s;
-- how old the last mark must be for a new one (µs); the mark from which on the owner
-- has heard all, 0: it hears nothing; the mark of the oldest message that it holds, 0:
-- none; for how long others are believed who do not say so again (ms). Without an owner it only sets a mark, and gives 0. Else it gives 1 if the owner
-- has the lease or 0; from of who has it, 0: nobody; the oldest that others hold, 0:
-- nothing.
--
-- A mark is a message on the channel that has the name of the key: a number that
-- no other mark has, and which server it comes from. Redis sends it to all who
-- listen at one and the same place among the raw messages, so what follows it can
-- be counted, and all arrive at the same count.

local h = redis.call('HMGET', KEYS[1], 'owner', 'until', 'mark', 'led', 'from')
local time = redis.call('TIME')
local us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(us / 1000)
local mine, ends, mark = h[1] == ARGV[1], tonumber(h[2]) or 0, tonumber(h[3]) or 0
local lasts, every = tonumber(ARGV[2]), tonumber(ARGV[4])
-- Who is alone may be the first after all have lost their connections, and others
-- have heard what came before: unless nobody had the lease for a while.
local may = lasts > 0 and (ARGV[3] == '1'
  or (math.abs(now - (tonumber(h[4]) or 0)) >= 3000 and redis.call('PUBSUB', 'NUMSUB', KEYS[1])[2] <= 1))
local has, from = 0, ends > now and tonumber(h[5]) or 0

if may and (mine or ends <= now or ends - now > lasts) then -- the latter: the clock was set back
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', int(now + lasts), 'led', int(now), 'from', ARGV[5])
  has, from = 1, tonumber(ARGV[5])
elseif mine and not may then
  -- It had its connection broken, and has not heard what others have.
  redis.call('HDEL', KEYS[1], 'owner', 'until', 'from')
  from = 0
end
if us - mark >= every or us < mark then
  mark = math.max(mark + 1, us)
  redis.call('HSET', KEYS[1], 'mark', int(mark))
  local info = redis.pcall('INFO', 'server')
  local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
  redis.call('PUBLISH', KEYS[1], int(mark) .. ' ' .. server)
end
if ARGV[1] == '' then
  return 0
end

local own, oldest = 'held ' .. ARGV[1], 0
if ARGV[6] ~= '0' then
  redis.call('HSET', KEYS[1], own, ARGV[6] .. ' ' .. int(now))
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local held, said = string.match(all[i + 1], '^(%d+) (%d+)$')
  if held and string.sub(all[i], 1, 5) == 'held ' then
    if all[i] == own and ARGV[6] == '0' or math.abs(now - tonumber(said)) >= tonumber(ARGV[7]) then -- it has brought it in, or is gone
      redis.call('HDEL', KEYS[1], all[i])
    elseif all[i] ~= own and (oldest == 0 or tonumber(held) < oldest) then
      oldest = tonumber(held)
    end
  end
end
return {has, from, oldest}
