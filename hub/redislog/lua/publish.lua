-- Appends events, all or none. KEYS[4…]: for each event its stream and, if it
-- has a dedupe, the key that remembers that. ARGV: the name for a new epoch, the
-- channel, the greatest age of the retention (ms), then the events (see events).
-- Gives the epoch, then for each event its seq, or the whole cursor of the one
-- that was published before.

local t = life(ARGV[1], '', 0)
if t.replica then -- one that may be written to
  return redis.error_reply('READONLY a replica was asked')
end
t.channel = ARGV[2]

local answer, fresh, seen = {t.epoch}, {}, {}
local seq = t.seq
for _, e in ipairs(events(4, 4, 6)) do
  local first = e.dedupe and (seen[e.dedupe] or call('GET', e.dedupe))
  if first then
    answer[#answer + 1] = first
  else
    seq = seq + 1
    answer[#answer + 1] = seq
    fresh[#fresh + 1] = e
    if e.dedupe then
      seen[e.dedupe] = t.epoch .. '-' .. int(seq)
    end
  end
end
if seq > SEQS then
  return redis.error_reply('PUSHHUB the seqs of the tenant are used up')
end
put(t, fresh, tonumber(ARGV[3]))
return answer
