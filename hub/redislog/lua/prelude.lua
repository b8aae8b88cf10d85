-- What all scripts share: it stands before each of them.
--
-- KEYS[1..3] are the tenant's meta (a hash), its index (a sorted set: topic →
-- seq of its newest event) and the ages of its topics (a hash: topic → "<when it
-- may leave the index> <arrival of its oldest event>", ms).
--
-- Scripts do not roll back. So all that can fail is done before the first write:
-- types are checked by reading, and life, which reads, comes first.

local call, pcall = redis.call, redis.pcall
local META, INDEX, AGES = KEYS[1], KEYS[2], KEYS[3]

-- int writes a seq or a time: Lua itself would print 14 digits.
local function int(n)
  return string.format('%.0f', n)
end

-- at gives the arrival of the event that a record holds, nil for no record.
local function at(record)
  return tonumber((string.match(record, '^1\t[^\t]+\t%d+\t(%d+)\t')))
end

-- ended gives the seq at which an epoch before ended (see life), -1 if it is not known.
local function ended(past, epoch)
  for name, seq in string.gmatch(past, '(%w+)-(%d+)') do
    if name == epoch then
      return tonumber(seq)
    end
  end
  return -1
end

-- begin gives the tenant an epoch of another name. The one before joins the past, of
-- which eight are kept.
local function begin(t, fresh)
  local past = {t.epoch .. '-' .. int(t.seq)}
  for cursor in string.gmatch(t.past, '%S+') do
    if #past < 8 then
      past[#past + 1] = cursor
    end
  end
  t.epoch, t.past, t.changed = fresh, table.concat(past, ' '), true
  t.born = t.now
end

-- life reads the meta and says in which epoch this call takes place. It writes
-- nothing; t.changed says that commit has to.
--
-- An epoch belongs to one life of the Redis primary, which master_replid names:
-- it changes with a restart and with a promotion (run_id does not with the
-- latter). It is compared here, in the script, so that nobody can take a seq
-- before the new epoch has begun. Where INFO is forbidden, what the caller knows
-- to have been reached is all there is.
--
-- A primary that was replaced may go on for a while and acknowledge what is lost
-- with it, to callers that have not heard: also after the new epoch has been
-- announced, and in an epoch of its own if it was restarted. Who was told of a cursor
-- gives how long ago that was, in known_age (ms): what came after this epoch had begun,
-- and is neither in it nor in one before up to its end, needs another.
--
-- t.past has the epochs before, newest first, as cursors with spaces between them: each
-- with the seq at which it ended.
local function life(fresh, known_epoch, known_seq, known_age)
  local info = pcall('INFO', 'replication')
  local run = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or ''
  local m = call('HMGET', META, 'epoch', 'past', 'seq', 'floor', 'run', 'expires', 'born')
  local time = call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local born = tonumber(m[7]) or now
  local t = {
    epoch = m[1], past = m[2] or '', seq = tonumber(m[3]), floor = tonumber(m[4]),
    replica = type(info) == 'string' and string.find(info, 'role:slave', 1, true),
    expires = tonumber(m[6]) or 0, run = run ~= '' and run or m[5] or '', now = now,
  }
  if not (t.epoch and t.seq and t.floor) then
    -- The meta is gone or never was. Seqs begin above what the index knows: were
    -- they to begin below, streams that are still there would refuse them.
    local top = call('ZREVRANGE', INDEX, 0, 0, 'WITHSCORES')
    t.seq = tonumber(top[2]) or 0
    t.epoch, t.past, t.floor, t.changed = fresh, '', t.seq, true
  elseif run ~= '' and m[5] ~= run or (t.epoch == known_epoch and known_seq > t.seq)
    or (known_age and t.epoch ~= known_epoch and ended(t.past, known_epoch) < known_seq
      and (known_age <= t.now - born or t.now < born)) then -- the latter: the clock was set back
    begin(t, fresh)
  end
  t.born = t.born or (t.changed and now or born)
  if t.floor < t.seq and call('EXISTS', INDEX) == 0 then
    t.floor = t.seq
  end
  return t
end

-- forget gives up to n + 32 topics whose events are all too old, and raises the
-- floor, which tells what may have been forgotten with them. They are the oldest
-- of the index: others would raise the floor more. It writes nothing.
local function forget(t, n)
  local gone = {}
  while #gone < n + 32 do
    local rows = call('ZRANGE', INDEX, #gone, #gone + 31, 'WITHSCORES')
    local before = #gone
    for i = 1, #rows, 2 do
      local leaves = string.match(call('HGET', AGES, rows[i]) or '', '^%d+')
      if leaves and tonumber(leaves) > t.now then
        break
      end
      gone[#gone + 1] = rows[i]
      t.floor = math.max(t.floor, tonumber(rows[i + 1]))
    end
    if #gone < before + 32 then
      break
    end
  end
  return gone
end

-- commit writes the meta, with n seqs taken, before any of their events: should
-- a write fail after it, seqs are missing, but none is given twice. From time to
-- time it lets go of old topics. keep is the greatest age of the retention: an
-- index that nobody has published to for so long goes by itself (see life).
local function commit(t, n, keep)
  local gone = {}
  if math.floor((t.seq + n) / 16) > math.floor(t.seq / 16) then
    gone = forget(t, n)
  end
  if n > 0 and t.expires < t.now + keep then
    t.expires, t.renew = t.now + keep * 1.25, true
  end
  if t.changed or t.renew then
    call('HSET', META, 'epoch', t.epoch, 'past', t.past, 'seq', int(t.seq + n), 'floor', int(t.floor),
      'run', t.run, 'expires', int(t.expires), 'born', int(t.born))
  else
    call('HSET', META, 'seq', int(t.seq + n), 'floor', int(t.floor))
  end
  if #gone > 0 then
    call('ZREM', INDEX, unpack(gone))
    call('HDEL', AGES, unpack(gone))
  end
end

-- finish does what commit decided and needs the events to be there.
local function finish(t)
  if t.renew then
    call('PEXPIREAT', INDEX, int(t.expires))
    call('PEXPIREAT', AGES, int(t.expires))
  end
end

-- trim lets go of up to 8 events that came before oldest, and gives the arrival
-- of the oldest that is left. The newest is none of them.
local function trim(stream, oldest)
  local rows = call('XRANGE', stream, '-', '+', 'COUNT', 9)
  for i, row in ipairs(rows) do
    local came = at(row[2][2])
    if i == #rows or (came and came > oldest) then
      if i > 1 then
        call('XTRIM', stream, 'MINID', row[1])
      end
      return came or 0
    end
  end
end

-- append_event gives an event the next of the seqs that commit has taken, keeps
-- it as retention says (max events, age ms) and publishes it to t.channel.
-- head is "<final 0|1>\t<topic>\t<type>\t<key>", body what follows the id in the
-- event's JSON. The record is the entry of the stream and the live message both.
local function append_event(t, stream, topic, head, body, max, age)
  local prev = tonumber(call('ZSCORE', INDEX, topic))
  local leaves, first
  if prev then
    leaves, first = string.match(call('HGET', AGES, topic) or '', '^(%d+) (%d+)$')
    leaves, first = tonumber(leaves), tonumber(first)
  else
    -- What the index does not know is not retained: a stream that is there all
    -- the same is of a life whose seqs these ones would mix with.
    prev = t.floor
    call('DEL', stream)
  end
  t.seq = t.seq + 1
  local seq = int(t.seq)
  local cursor = t.epoch .. '-' .. seq
  local record = '1\t' .. cursor .. '\t' .. int(prev) .. '\t' .. int(t.now) .. '\t' .. head
    .. '\n{"id":"' .. cursor .. '"' .. body
  local id = seq .. '-0'
  local added = pcall('XADD', stream, 'MAXLEN', '=', max, id, 'r', record)
  if type(added) == 'table' and added.err then
    -- The stream survived a meta and an index that did not, and is ahead of them.
    call('DEL', stream)
    call('XADD', stream, id, 'r', record)
    leaves = nil
  end
  call('ZADD', INDEX, seq, topic)
  local trimmed = leaves and first <= t.now - age
  if trimmed then
    first = trim(stream, t.now - age)
  end
  if trimmed or not leaves or leaves < t.now + age then
    -- An eighth longer than they have to be there, so that this is not for every event.
    leaves = int(t.now + age * 1.125)
    call('PEXPIREAT', stream, leaves)
    call('HSET', AGES, topic, leaves .. ' ' .. int(first or t.now))
  end
  call('SPUBLISH', t.channel, record)
  return cursor
end

-- events gives the events that a call brings, from KEYS[key] and ARGV[arg] on:
-- each has its stream, the key that remembers its dedupe (nil for none), and in a
-- where ARGV has its topic, head, body, max, age and 1 if it has a dedupe. The
-- next one's are width after.
local function events(key, arg, width)
  local all = {}
  for a = arg, #ARGV - width + 1, width do
    local e = {a = a, stream = KEYS[key]}
    key = key + 1
    if ARGV[a + 5] == '1' then
      e.dedupe = KEYS[key]
      key = key + 1
    end
    all[#all + 1] = e
  end
  return all
end

-- put appends events, in this order. keep is as commit has it.
local function put(t, all, keep)
  if #all > 0 or t.changed then
    commit(t, #all, keep)
  end
  for _, e in ipairs(all) do
    local a = e.a
    local cursor = append_event(t, e.stream, ARGV[a], ARGV[a + 1], ARGV[a + 2],
      tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]))
    if e.dedupe then
      call('SET', e.dedupe, cursor, 'EX', 600)
    end
  end
  finish(t)
end

local SEQS = 9007199254740991 -- 2^53-1: the greatest seq
