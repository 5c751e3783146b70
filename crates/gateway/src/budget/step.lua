-- campaign::budget::step on Redis's clock: one hash, gone by itself when nobody calls. A test compares the two.
-- KEYS[1]: the budget. ARGV: limit, window_ms, now ('' = this server's clock), then
--   'acquire', rank  |  'feedback', window, limit or '', remaining or '', stop_ms or ''
-- Answers {'granted', window}, {'wait', ms} or {'noted', 0}.
local PATIENCE_MS, TURN_MS = 300, 25
local limit, window_ms, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local names = { 'window', 'closes', 'ends', 'granted', 'answered', 'carried', 'allowed', 'anchored', 'named_limit',
    'stopped_until', 'expected0', 'expected1', 'expected2', 'expected3' }
local stored = redis.call('HMGET', KEYS[1], unpack(names))
local s = {}
for i, name in ipairs(names) do s[name] = tonumber(stored[i] or 0) or 0 end

local function keep()
    local flat = {}
    for _, name in ipairs(names) do
        flat[#flat + 1] = name
        flat[#flat + 1] = string.format('%.0f', s[name])
    end
    redis.call('HSET', KEYS[1], unpack(flat))
    local needed_ms = math.max(s.ends, s.stopped_until, now) - now + window_ms + 1000
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', needed_ms))
end

local function wait(rank, ms)
    s['expected' .. rank] = now + ms + PATIENCE_MS
    return { 'wait', ms }
end

local function next_window()
    local follows = s.window > 0 and now >= s.window and now < s.ends + window_ms
    local carried, allowed = 0, limit
    if follows then carried = math.max(s.granted - s.answered, 0) end
    if s.named_limit > 0 then allowed = math.min(limit, s.named_limit) end
    if carried > 0 then s.closes = s.closes + window_ms else s.closes = now + window_ms end
    s.window, s.ends, s.granted, s.answered = now, now + window_ms, 0, 0
    s.carried, s.allowed, s.anchored = carried, allowed, 0
end

local function acquire(rank)
    if now < s.stopped_until then return wait(rank, s.stopped_until - now) end
    if now >= s.ends or now < s.window then next_window() end
    for higher = 0, rank - 1 do
        if s['expected' .. higher] > now then return wait(rank, TURN_MS) end
    end
    local reserve = 0
    if rank > 1 then reserve = math.floor(limit / 100) end
    if now >= s.closes or s.granted + s.carried >= s.allowed - reserve then return wait(rank, s.ends - now) end
    s.granted = s.granted + 1
    s['expected' .. rank] = 0
    return { 'granted', s.window }
end

local function feedback(window, named_limit, remaining, stop_ms)
    if named_limit and named_limit > 0 then s.named_limit = named_limit end
    if stop_ms then s.stopped_until = math.max(s.stopped_until, now + stop_ms) end
    if window ~= s.window or now >= s.ends then return end
    if now < s.closes then s.answered = s.answered + 1 end
    if remaining and s.anchored == 0 then s.anchored, s.ends = 1, now + window_ms end
    if remaining and not stop_ms then s.allowed = math.min(s.allowed, s.answered + remaining) end
end

local reply = { 'noted', 0 }
if ARGV[4] == 'acquire' then
    reply = acquire(tonumber(ARGV[5]))
else
    feedback(tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]))
end
keep()
return reply
