-- What an API key may do; the last part of the script that begins in jobs.lua.

-- 0, or in how many milliseconds the next request may come: GCRA (ATM Forum 1996) with a minute's burst.
local function pace(name, per_minute, now)
    local step = 60000 / per_minute
    local due = math.max(tonumber(redis.call('GET', name .. ':rate') or 0), now)
    local wait = math.ceil(due - now - (60000 - step))
    if wait > 0 then return wait end
    redis.call('SET', name .. ':rate', math.ceil(due + step), 'PX', 120000)
    return 0
end

-- Count a request that is no job.
function operations.pace(key, per_minute)
    return pace('upres:key:' .. key, per_minute, milliseconds())
end

-- {'yes', 0}, or which limit of the API key is reached and in how many milliseconds it may not be. The job counts as
-- one of the key's from now on, for half a minute unless it begins.
function operations.admit(key, id, per_minute, most_jobs, most_pixels)
    local now, name = milliseconds(), 'upres:key:' .. key
    if tonumber(redis.call('HGET', name .. ':pixels', 'used') or 0) >= tonumber(most_pixels) then
        return {'pixels', redis.call('PTTL', name .. ':pixels')}
    end
    redis.call('HSET', name .. ':pixels', 'most', most_pixels)
    if redis.call('TTL', name .. ':pixels') < 0 then redis.call('EXPIRE', name .. ':pixels', DAY_SECONDS) end
    redis.call('ZREMRANGEBYSCORE', name .. ':jobs', '-inf', now)
    if redis.call('ZSCORE', name .. ':jobs', id) then return {'yes', 0} end
    if redis.call('ZCARD', name .. ':jobs') >= tonumber(most_jobs) then return {'jobs', 1000} end
    local wait = pace(name, per_minute, now)
    if wait > 0 then return {'rate', wait} end
    redis.call('ZADD', name .. ':jobs', now + 30000, id)
    redis.call('EXPIRE', name .. ':jobs', EVENTS_SECONDS)
    return {'yes', 0}
end

-- The job makes so many pixels: once, however often it is tried. nil; or, when the key has not so many left,
-- how many, and in how many milliseconds it has all again.
function operations.charge(id, holder, pixels)
    local run = run_of(id)
    local owner = is_holder(id, holder) and redis.call('HGET', run, 'owner')
    if not owner or redis.call('HEXISTS', run, 'charged') == 1 then return nil end
    local name = 'upres:key:' .. owner .. ':pixels'
    local most, used = unpack(redis.call('HMGET', name, 'most', 'used'))
    local left = (tonumber(most) or math.huge) - (tonumber(used) or 0)
    if tonumber(pixels) > left then return {left, redis.call('PTTL', name)} end
    redis.call('HSET', run, 'charged', 1)
    redis.call('HINCRBY', name, 'used', pixels)
    if redis.call('TTL', name) < 0 then redis.call('EXPIRE', name, DAY_SECONDS) end
end

return operations[ARGV[1]](unpack(ARGV, 2))
