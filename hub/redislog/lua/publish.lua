-- Appends events, all or none. KEYS[4…]: for each event its stream and, if it
-- has a dedupe, the key that remembers that. ARGV: the name for a new epoch, the
-- channel, the greatest age of the retention (ms), then for each event topic,
-- head, body, max, age (as append_event has them) and 1 if it has a dedupe.
-- Gives the epoch, then for each event its seq, or the whole cursor of the one
-- that was published before.

local t = life(ARGV[1], '', 0)
t.channel = ARGV[2]

local answer, fresh, seen = {t.epoch}, {}, {}
local seq, k = t.seq, 3
for a = 3, #ARGV - 1, 6 do
  k = k + 1
  local e = {a = a, stream = KEYS[k]}
  local first
  if ARGV[a + 6] == '1' then
    k = k + 1
    e.dedupe = KEYS[k]
    first = seen[e.dedupe] or call('GET', e.dedupe)
  end
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
if seq > 9007199254740991 then
  return redis.error_reply('PUSHHUB the seqs of the tenant are used up')
end

if #fresh > 0 or t.changed then
  commit(t, #fresh, tonumber(ARGV[3]))
end
for _, e in ipairs(fresh) do
  local a = e.a
  local cursor = append_event(t, e.stream, ARGV[a + 1], ARGV[a + 2], ARGV[a + 3],
    tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]))
  if e.dedupe then
    call('SET', e.dedupe, cursor, 'EX', 600)
  end
end
finish(t)
return answer
