-- Appends messages that came by a raw PUBLISH, each once, whoever heard it.
--
-- A message has a name that all who heard it agree on: it is the nth that its
-- pattern brought after a mark (see lease.lua). Whoever appends does so in the
-- order heard. So the record needs no more than how far each pattern came after
-- each mark. KEYS[4] is the tenant's record (a hash: "<mark> <pattern>" → n; gone →
-- the newest mark that is not recorded any more). The meta has until when it is kept, in
-- raw (ms): if it is lost before, as by eviction, what it told may come again, and a new
-- epoch says so. KEYS[5…] for each message its stream and, if it has one, its dedupe. ARGV: the name for a new epoch, the
-- channel, the greatest age of the retention (ms), how much older than the newest
-- recorded mark one may be and be kept (µs), then the messages: each as events has
-- it, and mark, pattern, n.
--
-- Gives how many were appended, how many are too old to know whether they were, and
-- the epoch and seq of the last that was appended.

local t = life(ARGV[1], '', 0)
if t.replica then -- one that may be written to
  return redis.error_reply('READONLY a replica was asked')
end
t.channel = ARGV[2]
local RECORD = KEYS[4]
local kept = tonumber(call('HGET', META, 'raw')) or 0
if kept > t.now and not t.changed and call('EXISTS', RECORD) == 0 then
  begin(t, ARGV[1])
end
local gone = tonumber(call('HGET', RECORD, 'gone')) or 0

local fresh, seen, upto, newest, old = {}, {}, {}, 0, 0
for _, e in ipairs(events(5, 5, 9)) do
  local mark, n = tonumber(ARGV[e.a + 6]), tonumber(ARGV[e.a + 8])
  local field = ARGV[e.a + 6] .. ' ' .. ARGV[e.a + 7]
  if mark <= gone then
    old = old + 1
  elseif n > (upto[field] or tonumber(call('HGET', RECORD, field)) or 0) then
    upto[field], newest = n, math.max(newest, mark)
    if not (e.dedupe and (seen[e.dedupe] or call('EXISTS', e.dedupe) == 1)) then
      fresh[#fresh + 1] = e
      if e.dedupe then
        seen[e.dedupe] = true
      end
    end
  end
end
if t.seq + #fresh > SEQS then
  return redis.error_reply('PUSHHUB the seqs of the tenant are used up')
end
put(t, fresh, tonumber(ARGV[3]))

local first = false -- after its mark
for field, n in pairs(upto) do
  first = call('HSET', RECORD, field, int(n)) == 1 or first
end
if first or (kept == 0 and newest > 0) then
  call('EXPIRE', RECORD, 86400) -- nobody sleeps for so long and then appends
  call('HSET', META, 'raw', int(t.now + 86390000))
  local forgotten, oldest = {}, newest - tonumber(ARGV[4])
  for _, field in ipairs(call('HKEYS', RECORD)) do
    local mark = tonumber((string.match(field, '^%d+')))
    if mark and mark < oldest and #forgotten < 1000 then
      forgotten[#forgotten + 1] = field
      gone = math.max(gone, mark)
    end
  end
  if #forgotten > 0 then
    call('HSET', RECORD, 'gone', int(gone))
    call('HDEL', RECORD, unpack(forgotten))
  end
end
return {#fresh, old, t.epoch, t.seq}
