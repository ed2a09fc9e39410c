-- A part of the script jobs.lua: the recovery of jobs whose worker died or gave them back, that are past their deadline,
-- or that another program has removed from the queue.

-- Append `requeued`, and put the job back at the front of the queue.
local function requeue(id, once, requeued)
    append(id, once, 'requeued', message(id, requeued))
    to_queue(id)
    return 'requeued'
end

-- Count the death of a worker that held the job. Return whether the job was alone in it, how many workers have died with
-- it, and how many of them when it was alone and no other worker died meanwhile.
local function count(id)
    local run = run_of(id)
    local alone, holder, before = unpack(redis.call('HMGET', run, 'alone', 'holder', 'deaths_before'))
    local all = redis.call('INCR', DEATHS)
    redis.call('EXPIRE', DEATHS, EVENTS_SECONDS)
    local deaths = redis.call('HINCRBY', run, 'deaths', 1)
    local was_alone = alone and alone == holder
    local sole = was_alone and all - 1 == tonumber(before) and 1 or 0
    return was_alone, deaths, redis.call('HINCRBY', run, 'sole_deaths', sole)
end

-- Count the death of a worker that held the job. Requeue the job; or fail it as a dead letter if it is the likely cause,
-- because it was alone often enough. While other workers die too, something else kills them: then it needs MAX_ATTEMPTS.
local function count_death(id, once, requeued, failed)
    local was_alone, deaths, sole = count(id)
    local often = deaths >= ATTEMPTS and sole >= ATTEMPTS - SUSPECT_DEATHS or deaths >= MAX_ATTEMPTS
    if not (was_alone and often) then return requeue(id, once, requeued) end
    append(id, once, 'failed', message(id, failed), true)
    return 'failed'
end

-- Put a job back into the queue. With `failed` (JSON of an event) the job may have caused the problem: count a death.
function operations.give_back(id, once, holder, requeued, failed)
    if not is_holder(id, holder) then return nil end
    if failed ~= '' then return count_death(id, once, requeued, failed) end
    return requeue(id, once, requeued)
end

-- Put a job back into the queue because of a fault of its worker, which cannot use the object store, Redis or the model.
-- After RETURNS of these the job fails.
function operations.hand_back(id, once, holder, requeued, failed)
    if not is_holder(id, holder) then return nil end
    if redis.call('HINCRBY', run_of(id), 'returns', 1) <= RETURNS then return requeue(id, once, requeued) end
    append(id, once, 'failed', message(id, failed))
    return 'failed'
end

-- Put a job at the back of the queue, because its worker is of a release that does not know it: a newer one may. Only the
-- first time there is an event, and no attempt is counted. After OUTDATED_SECONDS of this the job fails, as a dead letter.
function operations.pass_on(id, once, holder, requeued, failed)
    if not is_holder(id, holder) then return nil end
    local now, run = milliseconds(), run_of(id)
    if redis.call('HSETNX', run, 'outdated_since', now) == 1 then append(id, once, 'requeued', message(id, requeued)) end
    if now - redis.call('HGET', run, 'outdated_since') > OUTDATED_SECONDS * 1000 then
        append(id, once .. '-', 'failed', message(id, failed), true)
        return 'failed'
    end
    redis.call('RPUSH', QUEUE, id)
    redis.call('HINCRBY', run, 'attempt', -1)
    release_lease(id)
    return 'requeued'
end

-- Whether a time, in milliseconds, lies at most `seconds` before now. A time after now was written before the clock of
-- Redis was set back, or by another node whose clock was ahead; it says nothing.
local function is_within(time, now, seconds)
    local age = now - time
    return age >= 0 and age < seconds * 1000
end

-- Shorten leases that end later than any lease can: the clock of Redis was set back, or a replica with another clock was
-- promoted. Else the job of a dead worker would wait until the clock has caught up.
local function shorten_leases(now)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, now + CLOCK_SECONDS * 1000, '+inf')) do
        redis.call('ZADD', LEASES, now + LEASE_SECONDS * 1000, id)
    end
end

-- When no worker has run `recover` for QUIET_SECONDS, no worker could renew its leases either: Redis was unreachable,
-- or all workers were stopped. Extend the leases that expire soon, so that living workers have time to renew them.
local function give_time(now)
    local last = redis.call('GET', LAST_RECOVERY)
    redis.call('SET', LAST_RECOVERY, now, 'EX', EVENTS_SECONDS)
    if last and is_within(last, now, QUIET_SECONDS) then return end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now + QUIET_SECONDS * 1000)) do
        redis.call('ZADD', LEASES, now + QUIET_SECONDS * 1000, id)
    end
end

local function recover(id, once, requeued, failed)
    if put_back(id) then return 'requeued' end -- no worker had taken it, so this is no death
    if has_ended(id) then
        finish(id)
        return nil
    end
    return count_death(id, once, requeued, failed)
end

local function expire(id, once, late)
    redis.call('ZREM', DEADLINES, id)
    return append(id, once, 'failed', message(id, late)) and 'failed'
end

-- Call `handle` for at most 100 ids of the sorted set `place` that are due. An id whose data is forged raises an error;
-- remove it, so that it does not block the others.
local function sweep(place, now, handle, found)
    for index, id in ipairs(redis.call('ZRANGEBYSCORE', place, '-inf', now, 'LIMIT', 0, 100)) do
        local well, outcome = pcall(handle, id, index)
        if not well then
            redis.call('ZREM', place, id)
            redis.call('LREM', POPPED, 0, id)
        elseif outcome then
            table.insert(found, id)
            table.insert(found, outcome)
        end
    end
    return found
end

-- The number of jobs that have not ended, and are neither waiting, popped, held nor parked.
local function count_nowhere()
    local somewhere = redis.call('LLEN', QUEUE) + redis.call('ZCARD', LEASES) + redis.call('SCARD', PARKED)
    for _, id in ipairs(redis.call('LRANGE', POPPED, 0, -1)) do
        if not redis.call('ZSCORE', LEASES, id) then somewhere = somewhere + 1 end
    end
    return redis.call('ZCARD', DEADLINES) - somewhere
end

-- Put a job that is nowhere back into the queue; without RQ's record it fails.
local function find(id, once, requeued, gone)
    local last = last_event(id)
    if not last or is_terminal(last.type) then
        finish(id)
        return nil
    end
    if redis.call('EXISTS', record_of(id)) == 0 then return append(id, once, 'failed', message(id, gone)) and 'failed' end
    if last.type ~= 'queued' and last.type ~= 'requeued' then append(id, once, 'requeued', message(id, requeued)) end
    to_queue(id)
    return 'requeued'
end

-- Look for jobs that are nowhere: another program emptied the queue, or took jobs from it. One worker looks every
-- AUDIT_SECONDS, and reads the whole queue only if the numbers say that a job is missing.
local function audit(now, once, requeued, gone, found)
    local last = redis.call('GET', AUDITED)
    if last and is_within(last, now, AUDIT_SECONDS) then return end
    redis.call('SET', AUDITED, now, 'EX', AUDIT_SECONDS)
    if count_nowhere() <= 0 then return end
    local somewhere = {}
    for _, list in ipairs({redis.call('LRANGE', QUEUE, 0, -1), redis.call('LRANGE', POPPED, 0, -1),
                           redis.call('ZRANGE', LEASES, 0, -1), redis.call('SMEMBERS', PARKED)}) do
        for _, id in ipairs(list) do somewhere[id] = true end
    end
    for index, id in ipairs(redis.call('ZRANGE', DEADLINES, 0, -1)) do
        local well, outcome = true, nil
        if not somewhere[id] then well, outcome = pcall(find, id, once .. '=' .. index, requeued, gone) end
        if not well then
            redis.call('ZREM', DEADLINES, id)
        elseif outcome then
            table.insert(found, id)
            table.insert(found, outcome)
            if #found >= 2000 then return end
        end
    end
end

-- Recover jobs whose lease has expired and jobs that are nowhere, and fail jobs past their deadline. Return a flat list
-- of id, outcome, …
function operations.recover(once, requeued, failed, late, gone)
    local now = milliseconds()
    shorten_leases(now)
    give_time(now)
    for _, id in ipairs(redis.call('LRANGE', POPPED, 0, -1)) do
        redis.call('ZADD', LEASES, 'NX', now + POPPED_SECONDS * 1000, id)
    end
    local found = sweep(LEASES, now, function(id, index)
        return recover(id, once .. index, requeued, failed)
    end, {})
    sweep(DEADLINES, now, function(id, index)
        return expire(id, once .. '-' .. index, late)
    end, found)
    audit(now, once, requeued, gone, found)
    return found
end

-- Fail the job if its deadline has passed. Return nil when it has not passed, or when the job has ended.
function operations.expire(id, once, late)
    local deadline = redis.call('ZSCORE', DEADLINES, id)
    if not deadline or tonumber(deadline) > milliseconds() then return nil end
    return expire(id, once, late)
end
