-- Limits of API keys; the last part of the script that begins in jobs.lua.

-- Count a request and return 0; when the rate limit is reached, return the milliseconds until the next request is
-- allowed. The algorithm is GCRA (ATM Forum 1996); a burst of one minute's requests is allowed.
local function count_request(name, per_minute, now)
    local step = 60000 / per_minute
    local due = tonumber(redis.call('GET', name .. ':rate') or 0)
    if due < now or due > now + CLOCK_SECONDS * 1000 then due = now end -- or it was written by a clock that was ahead
    local wait = math.ceil(due - now - (60000 - step))
    if wait > 0 then return wait end
    redis.call('SET', name .. ':rate', math.ceil(due + step), 'PX', 120000)
    return 0
end

-- Count a request that submits no job. Return as above.
function operations.count_request(key, per_minute)
    return count_request('upres:key:' .. key, per_minute, milliseconds())
end

-- Count a submission. Return {'yes', 0}, or {the limit that is reached, milliseconds after which to try again}. An
-- admitted job counts as one of the API key's jobs for 30 seconds, and until its deadline once `begin` was called.
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
    local wait = count_request(name, per_minute, now)
    if wait > 0 then return {'rate', wait} end
    redis.call('ZADD', name .. ':jobs', now + 30000, id)
    redis.call('EXPIRE', name .. ':jobs', EVENTS_SECONDS)
    return {'yes', 0}
end

-- Charge a job's pixels to the quota of its API key, once for all attempts, and return nil. When the quota has too few
-- pixels left, charge nothing and return {pixels left, milliseconds until the quota is reset}.
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
