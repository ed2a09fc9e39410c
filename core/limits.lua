-- Limits of API keys; the last part of the script that begins in jobs.lua.

-- Count one request of an API key for a pace (see core/api_keys.py), and return 0; when the pace is reached, return the
-- milliseconds until the next request is allowed. The algorithm is GCRA (ATM Forum 1996); `burst` requests may come at
-- once.
function operations.count_request(key, pace, per_minute, burst)
    local name, now, step = 'upres:key:' .. key .. ':' .. pace, milliseconds(), 60000 / per_minute
    local due = tonumber(redis.call('GET', name) or 0)
    if due < now or due > now + CLOCK_SECONDS * 1000 then due = now end -- or it was written by a clock that was ahead
    local wait = math.ceil(due - now - (burst - 1) * step)
    if wait > 0 then return wait end
    redis.call('SET', name, math.ceil(due + step), 'PX', 120000)
    return 0
end

-- Return how much of a quota is used in its present 24 hours, and the milliseconds until they end; begin new ones when
-- they have ended. The limit `most` stays stored for longer: workers charge jobs that were admitted on another day.
local function quota(name, most, now)
    local used, ends = unpack(redis.call('HMGET', name, 'used', 'ends'))
    used, ends = tonumber(used) or 0, tonumber(ends) or 0
    if ends <= now then used, ends = 0, now + DAY_SECONDS * 1000 end
    redis.call('HSET', name, 'most', most, 'used', used, 'ends', ends)
    redis.call('EXPIRE', name, QUOTA_SECONDS)
    return used, ends - now
end

-- Charge `amount` to a quota and return nil. When it has less left, charge nothing and return what is left, and the
-- milliseconds until its 24 hours end.
local function charge(name, most, amount, now)
    local used, wait = quota(name, most, now)
    if used + amount > tonumber(most) then return {math.max(0, most - used), wait} end
    redis.call('HINCRBY', name, 'used', amount)
end

-- Whether an API key was deleted, perhaps after the request had begun: a body may arrive slowly.
local function is_revoked(key) return redis.call('HEXISTS', API_KEYS, key) == 0 end

-- Charge bytes to the quota of an API key. Return as above, or {'revoked'}.
function operations.charge_bytes(key, bytes, most)
    if is_revoked(key) then return {'revoked'} end
    return charge('upres:key:' .. key .. ':bytes', most, bytes, milliseconds())
end

-- Return the pixels left in the quota of an API key, and the milliseconds until its 24 hours end.
function operations.pixels_left(key, most)
    local used, wait = quota('upres:key:' .. key .. ':pixels', most, milliseconds())
    return {math.max(0, most - used), wait}
end

-- Return the limit that refuses a submission with an image of `bytes` bytes, what is left of it, and the milliseconds
-- after which to try again; or nil. Nothing is counted or charged.
local function refusal(name, id, most_jobs, most_pixels, bytes, most_bytes, now)
    local used, wait = quota(name .. ':pixels', most_pixels, now)
    if used >= tonumber(most_pixels) then return {'pixels', 0, wait} end
    redis.call('ZREMRANGEBYSCORE', name .. ':jobs', '-inf', now)
    local known = redis.call('ZSCORE', name .. ':jobs', id)
    if not known and redis.call('ZCARD', name .. ':jobs') >= tonumber(most_jobs) then return {'jobs', 0, 1000} end
    if tonumber(bytes) == 0 then return nil end
    used, wait = quota(name .. ':bytes', most_bytes, now)
    if used + bytes > tonumber(most_bytes) then return {'bytes', math.max(0, most_bytes - used), wait} end
end

-- Return what `admit` would return, and do nothing else: a body is not read in vain.
function operations.check_admission(key, id, most_jobs, most_pixels, bytes, most_bytes)
    if is_revoked(key) then return {'revoked'} end
    return refusal('upres:key:' .. key, id, most_jobs, most_pixels, bytes, most_bytes, milliseconds()) or {'yes'}
end

-- Count a submission with an image of `bytes` bytes (0 when the image is not in the request). Return {'yes'}, or {the
-- limit that is reached, what is left of it, milliseconds after which to try again}, or {'revoked'}. An admitted
-- job counts as one of the API key's jobs for 30 seconds, and until its deadline once `begin` was called.
function operations.admit(key, id, most_jobs, most_pixels, bytes, most_bytes)
    if is_revoked(key) then return {'revoked'} end
    local now, name = milliseconds(), 'upres:key:' .. key
    local refused = refusal(name, id, most_jobs, most_pixels, bytes, most_bytes, now)
    if refused then return refused end
    if tonumber(bytes) > 0 then charge(name .. ':bytes', most_bytes, bytes, now) end
    redis.call('ZADD', name .. ':jobs', 'NX', now + 30000, id)
    redis.call('EXPIRE', name .. ':jobs', EVENTS_SECONDS)
    return {'yes'}
end

-- Charge a job's pixels to the quota of its API key, once for all attempts, and return nil. When the quota has too few
-- pixels left, charge nothing and return {pixels left, milliseconds until its 24 hours end}.
function operations.charge(id, holder, pixels)
    local run = run_of(id)
    local owner = is_holder(id, holder) and redis.call('HGET', run, 'owner')
    if not owner or redis.call('HEXISTS', run, 'charged') == 1 then return nil end
    local name = 'upres:key:' .. owner .. ':pixels'
    local most = redis.call('HGET', name, 'most')
    local over = most and charge(name, most, pixels, milliseconds())
    if over then return over end
    redis.call('HSET', run, 'charged', 1)
end

return operations[ARGV[1]](unpack(ARGV, 2))
