-- Takes, keeps or gives back the lease of the ingest, sets marks in the stream of raw
-- messages, and tells instances of each other. KEYS[1]: a hash: owner, until (ms), from,
-- mark (µs), set (when that was, µs), server (its run_id then), asked (when anybody last
-- asked, ms), began (when that was first, of this server, ms), and of each instance
-- "open <owner>": the oldest mark of which it may yet bring something in, 0: none; when
-- it said so (ms), and the serial of that. ARGV: owner; its serial, which never falls;
-- how long the lease lasts (ms; 0: give it back); how old the last mark must be for a new
-- one (µs); the mark from which on the owner has heard all, 0: it hears nothing; what is
-- open: a mark, 0: none, -1: what it said before, 1 if that is lost, -2: the mark that is
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
local h = redis.call('HMGET', KEYS[1], 'owner', 'until', 'mark', 'from', own, 'asked', 'began', 'set', 'server')
local time = redis.call('TIME')
local us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(us / 1000)
local mine, ends, mark = h[1] == ARGV[1], tonumber(h[2]) or 0, tonumber(h[3]) or 0
local serial, lasts, every, open = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6]
local said, last = string.match(h[5] or '', '^(%d+) %d+ (%d+)$')
local has, from = 0, ends > now and tonumber(h[4]) or 0
local asked, began, set = tonumber(h[6]) or now, tonumber(h[7]) or now, tonumber(h[8]) or 0
local stale = tonumber(ARGV[7])
-- Where nobody asked for long Redis was stopped, or its clock was set: that makes nothing
-- older, but for a part of stale.
local function gap(part)
  return now < asked and now - asked or math.max(0, math.floor(now - asked - stale / part))
end
began = began + gap(6)

local heard = serial >= (tonumber(last) or 0)
if heard then
  if lasts > 0 and (mine or ends <= now or ends - now > lasts) then -- the latter: the clock was set back
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', int(now + lasts), 'from', ARGV[5])
    has, from = 1, tonumber(ARGV[5])
  elseif mine and lasts == 0 then
    redis.call('HDEL', KEYS[1], 'owner', 'until', 'from')
    from, every = 0, 0 -- the mark has others ask for it
  end
  if math.abs(us - set) >= every then
    mark = math.max(us, mark + math.max(1, math.min(us - set, every))) -- the clock may be behind it
    local info = redis.pcall('INFO', 'server')
    local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
    if server ~= '' then
      if h[9] and h[9] ~= server then
        began = now -- it may lack what others told the last one
      end
      redis.call('HSET', KEYS[1], 'server', server)
    end
    redis.call('HSET', KEYS[1], 'mark', int(mark), 'set', int(us))
    redis.call('PUBLISH', KEYS[1], int(mark) .. ' ' .. server)
  end
  if open == '-1' then
    open = said or '1'
  elseif open == '-2' then
    open = int(mark)
  end
  redis.call('HSET', KEYS[1], own, open .. ' ' .. int(now) .. ' ' .. ARGV[2])
end
redis.call('HSET', KEYS[1], 'asked', int(now), 'began', int(began))

local oldest, all = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local open, said, serial = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
  if open and string.sub(all[i], 1, 5) == 'open ' and not (heard and all[i] == own) then
    said = tonumber(said) + gap(2)
    if now - said >= stale then -- it is gone
      redis.call('HDEL', KEYS[1], all[i])
    else
      if gap(2) ~= 0 then
        redis.call('HSET', KEYS[1], all[i], open .. ' ' .. int(said) .. ' ' .. serial)
      end
      open = tonumber(open)
      if open > 0 and all[i] ~= own and (oldest == 0 or open < oldest) then
        oldest = open
      end
    end
  end
end
if now - began < stale / 3 then
  oldest = 1
end
return {has, from, oldest}
