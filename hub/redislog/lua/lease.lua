-- Takes, keeps or gives back the lease of the ingest, sets marks in the stream of raw
-- messages, and tells instances of each other. KEYS[1]: a hash: owner, until (ms), from,
-- mark (µs), asked (when anybody last asked, ms), began (when that was first, ms), and of
-- each instance "open <owner>": the oldest mark of which it may yet bring something in,
-- 0: none; when it said so (ms), and the serial of that. ARGV: owner; its serial, which
-- never falls; how long the lease lasts (ms; 0: give it back); how old the last mark must
-- be for a new one (µs); the mark from which on the owner has heard all, 0: it hears
-- nothing; what is open: a mark, 0: none, -1: what it said before, -2: the mark that is
-- set now; for how long others are believed who do not say so again (ms). What comes
-- after a higher serial changes nothing. Gives 1 if the owner has the lease or 0; from of
-- who has it, 0: nobody; the oldest that is open to others, 0: nothing, 1: they had no
-- time to say.
--
-- A mark is a message on the channel that has the name of the key: a number that
-- no other mark has, and which server it comes from. Redis sends it to all who
-- listen at one and the same place among the raw messages, so what follows it can
-- be counted, and all arrive at the same count.

local own = 'open ' .. ARGV[1]
local h = redis.call('HMGET', KEYS[1], 'owner', 'until', 'mark', 'from', own, 'asked', 'began')
local time = redis.call('TIME')
local us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(us / 1000)
local mine, ends, mark = h[1] == ARGV[1], tonumber(h[2]) or 0, tonumber(h[3]) or 0
local serial, lasts, every, open = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6]
local said, last = string.match(h[5] or '', '^(%d+) %d+ (%d+)$')
local has, from = 0, ends > now and tonumber(h[4]) or 0
local asked, began, stale = tonumber(h[6]) or now, tonumber(h[7]) or now, tonumber(ARGV[7])
-- Where nobody asked for long Redis was stopped, or its clock was set: nobody is older for that.
local gap = math.abs(now - asked) >= stale / 2 and now - asked or 0
redis.call('HSET', KEYS[1], 'asked', int(now), 'began', int(began + gap))

if serial >= (tonumber(last) or 0) then
  if lasts > 0 and (mine or ends <= now or ends - now > lasts) then -- the latter: the clock was set back
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', int(now + lasts), 'from', ARGV[5])
    has, from = 1, tonumber(ARGV[5])
  elseif mine and lasts == 0 then
    redis.call('HDEL', KEYS[1], 'owner', 'until', 'from')
    from, every = 0, 0 -- the mark has others ask for it
  end
  if us - mark >= every or us < mark then
    mark = math.max(mark + 1, us)
    redis.call('HSET', KEYS[1], 'mark', int(mark))
    local info = redis.pcall('INFO', 'server')
    local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
    redis.call('PUBLISH', KEYS[1], int(mark) .. ' ' .. server)
  end
  if open == '-1' then
    open = said or '0'
  elseif open == '-2' then
    open = int(mark)
  end
  redis.call('HSET', KEYS[1], own, open .. ' ' .. int(now) .. ' ' .. ARGV[2])
end

local oldest, all = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local open, said, serial = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
  if open and all[i] ~= own and string.sub(all[i], 1, 5) == 'open ' then
    said = tonumber(said) + gap
    if now - said >= stale then -- it is gone
      redis.call('HDEL', KEYS[1], all[i])
    else
      if gap ~= 0 then
        redis.call('HSET', KEYS[1], all[i], open .. ' ' .. int(said) .. ' ' .. serial)
      end
      open = tonumber(open)
      if open > 0 and (oldest == 0 or open < oldest) then
        oldest = open
      end
    end
  end
end
if now - began - gap < stale / 3 then
  oldest = 1
end
return {has, from, oldest}
