-- What an API key may do; the second part of the script that begins in jobs.lua.

-- {'yes', 0}, or which limit of the API key is reached and in how many milliseconds it may not be. The rate is GCRA
-- (ATM Forum 1996) with a minute's burst; the job counts as one of the key's from now on, for half a minute unless
-- it begins.
function operations.admit(key, id, per_minute, most_jobs, most_pixels)
    local now, name = milliseconds(), 'upres:key:' .. key
    if tonumber(redis.call('GET', name .. ':pixels') or 0) >= tonumber(most_pixels) then
        return {'pixels', redis.call('PTTL', name .. ':pixels')}
    end
    redis.call('ZREMRANGEBYSCORE', name .. ':jobs', '-inf', now)
    if redis.call('ZSCORE', name .. ':jobs', id) then return {'yes', 0} end
    if redis.call('ZCARD', name .. ':jobs') >= tonumber(most_jobs) then return {'jobs', 1000} end
    local step = 60000 / per_minute
    local due = math.max(tonumber(redis.call('GET', name .. ':rate') or 0), now)
    local wait = due - now - (60000 - step)
    if wait > 0 then return {'rate', math.ceil(wait)} end
    redis.call('SET', name .. ':rate', math.ceil(due + step), 'PX', 120000)
    redis.call('ZADD', name .. ':jobs', now + 30000, id)
    redis.call('EXPIRE', name .. ':jobs', EVENTS_SECONDS)
    return {'yes', 0}
end

-- The job makes so many pixels: once, however often it is tried.
function operations.charge(id, holder, pixels)
    local run = run_of(id)
    local owner = is_holder(id, holder) and redis.call('HGET', run, 'owner')
    if not owner or redis.call('HSETNX', run, 'charged', 1) == 0 then return nil end
    local name = 'upres:key:' .. owner .. ':pixels'
    local sum = redis.call('INCRBY', name, pixels)
    if redis.call('TTL', name) < 0 then redis.call('EXPIRE', name, DAY_SECONDS) end
    return sum
end

return operations[ARGV[1]](unpack(ARGV, 2))
