-- One view of the tenant, without a write. KEYS[4…]: the stream of each topic.
-- ARGV: the cursor known to have been reached (epoch, seq), the seq after which
-- the index is wanted or '', the bytes of events that may be answered, then for
-- each topic its name, after, to (0: the head), limit, newest and age (ms).
-- Gives 'touch' where a new epoch is due; else epoch, past (see life), seq, floor,
-- the index as one list of topic, seq, …, and for each topic {seq of its
-- newest, 1 if there is more, record, …}.

local t = life('', ARGV[1], tonumber(ARGV[2]))
if t.replica then
  -- A primary that was demoted may keep its connections and fall behind, in the
  -- epoch that the new one has. After this word go-redis connects anew.
  return redis.error_reply('READONLY a replica was asked')
elseif t.changed then
  return 'touch'
end

local CHUNK = 32 -- entries read at once: what is read beyond the room was read in vain
local room = tonumber(ARGV[4])

-- read adds the records after < seq ≤ to, at most limit, without those that came
-- before oldest, as long as there is room or it is the first. One that is left
-- over tells that there is more.
local function read(out, stream, after, to, limit, oldest)
  local from = int(after + 1)
  while true do
    local count = math.min(CHUNK, limit + 3 - #out)
    local rows = call('XRANGE', stream, from, int(to), 'COUNT', count)
    for _, row in ipairs(rows) do
      local record = row[2][2]
      if (at(record) or oldest) >= oldest then
        local n = #out - 2
        if n == limit or (n > 0 and room <= 0) then
          out[2] = 1
          return
        end
        out[n + 3] = record
        room = room - #record
      end
    end
    if #rows < count then
      return
    end
    from = '(' .. rows[#rows][1]
  end
end

-- before gives the seq before the newest n of a stream.
local function before(stream, n)
  if call('XLEN', stream) <= n then
    return 0
  end
  local id = '+'
  while n > 0 do
    local rows = call('XREVRANGE', stream, id, '-', 'COUNT', math.min(CHUNK, n))
    n = n - #rows
    id = '(' .. rows[#rows][1]
  end
  return tonumber(string.match(id, '%d+')) - 1
end

local index = {}
if ARGV[3] ~= '' then
  index = call('ZRANGEBYSCORE', INDEX, '(' .. ARGV[3], '+inf', 'WITHSCORES')
end

local topics = {}
local k = 3
for a = 4, #ARGV - 1, 6 do
  k = k + 1
  local last = call('ZSCORE', INDEX, ARGV[a + 1])
  local out = {last or '0', 0}
  if last then -- what the index does not know is not retained
    local after, to = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
    local limit, newest = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5])
    if newest > 0 then
      after, to, limit = before(KEYS[k], newest), 0, newest
    end
    if to == 0 or to > t.seq then
      to = t.seq
    end
    if after < to then
      read(out, KEYS[k], after, to, limit, t.now - tonumber(ARGV[a + 6]))
    end
  end
  topics[#topics + 1] = out
end

return {t.epoch, t.past, int(t.seq), int(t.floor), index, topics}
