-- Appends messages that came by a raw PUBLISH, each once, whoever heard it.
-- KEYS[4] is the tenant's fence (a hash: n, owner, k), KEYS[5] its record (a hash:
-- digest → occurrences, "heard,owner,matched+…;…"), KEYS[6] the ages of the record
-- (a sorted set: digest → heard), KEYS[7…] for each message its stream and, if it
-- has one, its dedupe. ARGV: the name for a new epoch, the channel, the greatest
-- age of the retention (ms), n and owner of the reign (n 0: none, a second look),
-- the number of the first message in the reign, how long the record is kept and
-- how far two instances may be apart in hearing one message (µs), since when the
-- owner has been listening (µs), then for each message topic, head, body, max,
-- age, 1 if it has a dedupe, digest, heard (µs).
--
-- Gives {'STALE', n} to a reign that is over, {'ORDER', k} when messages before
-- the first are missing, else {'OK', k, appended, matched, too old}.

local t = life(ARGV[1], '', 0)
t.channel = ARGV[2]
local FENCE, RECORD, HEARD = KEYS[4], KEYS[5], KEYS[6]
local n, owner, first = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local keep, apart, since = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local now = t.now * 1000

local k = 0
if n > 0 then
  local f = call('HMGET', FENCE, 'n', 'owner', 'k')
  local was = tonumber(f[1]) or 0
  if n < was or (n == was and f[2] ~= owner) then
    return {'STALE', int(was)}
  end
  if n == was then
    k = tonumber(f[3]) or 0
  end
  if first > k + 1 then
    return {'ORDER', int(k)}
  end
end

-- occurrences gives what the record has of a digest, without what is too old.
local known = {}
local function occurrences(digest)
  if not known[digest] then
    local list = {}
    for heard, by, matched in string.gmatch(call('HGET', RECORD, digest) or '', '(%d+),([^,;]*),([^,;]*)') do
      if tonumber(heard) >= now - keep then
        list[#list + 1] = {heard = tonumber(heard), by = by, matched = matched}
      end
    end
    known[digest] = list
  end
  return known[digest]
end

-- find gives the occurrence that is the message: our own, or the nearest in time
-- of another instance that is not matched with one of ours yet.
local function find(digest, heard)
  local best
  for _, o in ipairs(occurrences(digest)) do
    local far = math.abs(o.heard - heard)
    if o.by == owner then
      if far == 0 then
        return o
      end
    elseif far <= apart and o.heard >= since - apart / 20 and not string.find(o.matched, owner, 1, true)
      and not (best and math.abs(best.heard - heard) <= far) then
      best = o
    end
  end
  return best
end

local fresh, touched, matched, old = {}, {}, 0, 0
local key, last = 6, k
for a = 9, #ARGV - 1, 8 do
  key = key + 1
  local e = {a = a, stream = KEYS[key]}
  if ARGV[a + 6] == '1' then
    key = key + 1
    e.dedupe = KEYS[key]
  end
  local number = first + (a - 9) / 8
  local digest, heard = ARGV[a + 7], tonumber(ARGV[a + 8])
  if n > 0 then
    last = math.max(last, number)
  end
  if n > 0 and number <= k then
    -- applied before; its answer was lost
  elseif heard < now - keep then
    old = old + 1
  else
    local o = find(digest, heard)
    touched[digest] = heard
    if o then
      matched = matched + 1
      if o.by ~= owner then
        o.matched = o.matched .. owner .. '+'
      end
    else
      local list = occurrences(digest)
      list[#list + 1] = {heard = heard, by = owner, matched = ''}
      if not e.dedupe or call('EXISTS', e.dedupe) == 0 then
        local again = false
        for _, f in ipairs(fresh) do
          again = again or (e.dedupe and f.dedupe == e.dedupe)
        end
        if not again then
          fresh[#fresh + 1] = e
        end
      end
    end
  end
end
if t.seq + #fresh > 9007199254740991 then
  return redis.error_reply('PUSHHUB the seqs of the tenant are used up')
end
local stale = call('ZRANGEBYSCORE', HEARD, '-inf', int(now - keep), 'LIMIT', 0, 64)

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
if n > 0 then
  call('HSET', FENCE, 'n', int(n), 'owner', owner, 'k', int(last))
  call('EXPIRE', FENCE, 86400)
end
if #stale > 0 then
  call('HDEL', RECORD, unpack(stale))
  call('ZREM', HEARD, unpack(stale))
end
for digest, heard in pairs(touched) do
  local parts = {}
  for i, o in ipairs(known[digest]) do
    parts[i] = int(o.heard) .. ',' .. o.by .. ',' .. o.matched
    heard = math.max(heard, o.heard)
  end
  call('HSET', RECORD, digest, table.concat(parts, ';'))
  call('ZADD', HEARD, int(heard), digest)
end
call('PEXPIRE', RECORD, int(keep / 1000))
call('PEXPIRE', HEARD, int(keep / 1000))
return {'OK', int(last), #fresh, matched, old}
