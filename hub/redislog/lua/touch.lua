-- Gives the tenant the epoch that look.lua found to be due. ARGV: the name for a
-- new epoch, the cursor known to have been reached: epoch, seq; and, where that was
-- acknowledged, how long ago (ms), and two lives of primaries to which that is no news:
-- '' stands for none. Gives the life of the primary, and the epoch.

local t = life(ARGV[1], ARGV[2], tonumber(ARGV[3]))
if ARGV[4] and (t.run == '' or t.run ~= ARGV[5] and t.run ~= ARGV[6]) then
  t = life(ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
end
if t.replica then -- one that may be written to
  return redis.error_reply('READONLY a replica was asked')
end
if t.changed then
  commit(t, 0, 0)
end
return {t.run, t.epoch}
