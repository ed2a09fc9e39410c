-- The life of a job, as one script: whatever changes a job's state happens here, each change atomically.
--
--   queue ──pop──► popped ──take──► leases ──append (terminal)──► only its events are left
--     ▲               │                │ ▲ renew
--     └───────────────┴── give back ───┤
--     └──────── lease ran out ─────────┘        parked: waits in its work for an identical job
--
-- ARGV[1] names the operation, the rest are its arguments. The constants above this line come from core/keys.py.
-- Keys are made here from job ids, so Redis Cluster is not supported (as by RQ, whose queue this is).

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function run_of(id) return 'upres:job:' .. id .. ':run' end
local function events_of(id) return 'upres:job:' .. id .. ':events' end
local function record_of(id) return 'rq:job:' .. id end

local function last_event(id)
    local entry = redis.call('XREVRANGE', events_of(id), '+', '-', 'COUNT', 1)[1]
    if not entry then return nil end
    return {id = entry[1], type = entry[2][2], once = entry[2][4]}
end

local function is_terminal(type)
    return type == 'succeeded' or type == 'failed' or type == 'cancelled'
end

local function has_ended(id)
    local last = last_event(id)
    return last and is_terminal(last.type)
end

-- Whoever waited for this job's work goes back to the queue, before all others: with its result there, or
-- to do the work.
local function release_work(id, type, data)
    local work = redis.call('HGET', run_of(id), 'work')
    if not work or redis.call('HGET', work, 'job') ~= id then return end
    local parked = redis.call('LRANGE', work .. ':parked', 0, -1)
    for index = #parked, 1, -1 do
        redis.call('LPUSH', QUEUE, parked[index])
    end
    redis.call('DEL', work, work .. ':parked')
    if type == 'succeeded' then
        redis.call('HSET', work, 'result', data)
        redis.call('EXPIRE', work, REUSE_SECONDS)
    end
end

local function bury(id)
    local now = milliseconds()
    redis.call('EXPIRE', record_of(id), EVENTS_SECONDS)
    redis.call('ZADD', DEAD, now, id)
    redis.call('ZREMRANGEBYSCORE', DEAD, '-inf', now - EVENTS_SECONDS * 1000)
    redis.call('ZREMRANGEBYRANK', DEAD, 0, -1 - DEAD_MOST)
end

local function finish(id, type, data, dead)
    release_work(id, type, data)
    -- A job with a lease is nowhere else; one without may be anywhere.
    if redis.call('ZREM', LEASES, id) == 0 then
        redis.call('LREM', QUEUE, 1, id)
        redis.call('LREM', POPPED, 1, id)
    end
    redis.call('ZREM', DEADLINES, id)
    redis.call('DEL', run_of(id))
    if dead then bury(id) else redis.call('DEL', record_of(id)) end
end

-- The id of the event; nil when the job has ended, or another attempt goes on with it. `once` makes an append
-- whose answer was lost repeatable.
local function append(id, once, attempt, type, data, dead)
    local last = last_event(id)
    if last then
        if last.once == once then return last.id end
        if is_terminal(last.type) then return nil end
    end
    if attempt ~= '' and redis.call('HGET', run_of(id), 'attempt') ~= attempt then return nil end
    local entry = redis.call('XADD', events_of(id), '*', 'type', type, 'once', once, 'data', data)
    redis.call('EXPIRE', events_of(id), EVENTS_SECONDS)
    redis.call('PUBLISH', 'upres:job:' .. id, data)
    if is_terminal(type) then finish(id, type, data, dead) end
    return entry
end

local function to_queue(id)
    redis.call('ZREM', LEASES, id)
    redis.call('HDEL', run_of(id), 'holder')
    redis.call('LPUSH', QUEUE, id)
end

-- A worker died under the job. After too many of them it fails, and is kept as a dead letter.
local function count_death(id, once, requeued, failed)
    if redis.call('HINCRBY', run_of(id), 'deaths', 1) >= ATTEMPTS then
        append(id, once, '', 'failed', failed, true)
        return 'failed'
    end
    append(id, once, '', 'requeued', requeued)
    to_queue(id)
    return 'requeued'
end

local operations = {}

function operations.append(id, once, attempt, type, data, dead)
    return append(id, once, attempt, type, data, dead == 'dead')
end

-- {attempt, RQ's record as fields and values}; nil when there is nothing to do.
function operations.take(id, holder)
    local run = run_of(id)
    local repeated = redis.call('HGET', run, 'holder') == holder
    if redis.call('LREM', POPPED, 1, id) == 0 and not repeated then return nil end
    if has_ended(id) then
        finish(id)
        return nil
    end
    if not repeated then redis.call('HINCRBY', run, 'attempt', 1) end
    redis.call('HSET', run, 'holder', holder)
    redis.call('EXPIRE', run, EVENTS_SECONDS)
    redis.call('ZADD', LEASES, milliseconds() + LEASE_SECONDS * 1000, id)
    return {redis.call('HGET', run, 'attempt'), redis.call('HGETALL', record_of(id))}
end

-- Pairs of job and attempt → those that are not this worker's any more.
function operations.renew(...)
    local until_when, lost, pairs = milliseconds() + LEASE_SECONDS * 1000, {}, {...}
    for index = 1, #pairs, 2 do
        local id, attempt = pairs[index], pairs[index + 1]
        if redis.call('HGET', run_of(id), 'attempt') == attempt and redis.call('ZSCORE', LEASES, id) then
            redis.call('ZADD', LEASES, until_when, id)
        else
            table.insert(lost, id)
        end
    end
    return lost
end

-- With `failed` the job is to blame as far as anybody knows, and it counts as a death.
function operations.give_back(id, once, attempt, requeued, failed)
    if redis.call('HGET', run_of(id), 'attempt') ~= attempt or not redis.call('ZSCORE', LEASES, id) then return nil end
    if failed ~= '' then return count_death(id, once, requeued, failed) end
    append(id, once, attempt, 'requeued', requeued)
    to_queue(id)
    return 'requeued'
end

-- {jobs whose lease ran out, jobs whose deadline passed}
function operations.overdue()
    local now = milliseconds()
    for _, id in ipairs(redis.call('LRANGE', POPPED, 0, -1)) do
        redis.call('ZADD', LEASES, 'NX', now + POPPED_SECONDS * 1000, id)
    end
    return {
        redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 100),
        redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, 100),
    }
end

function operations.expire(id, once, failed)
    local deadline = redis.call('ZSCORE', DEADLINES, id)
    if not deadline or tonumber(deadline) > milliseconds() then return nil end
    redis.call('ZREM', DEADLINES, id)
    return append(id, once, '', 'failed', failed)
end

function operations.recover(id, once, requeued, failed)
    local lease = redis.call('ZSCORE', LEASES, id)
    if not lease or tonumber(lease) > milliseconds() then return nil end
    if redis.call('LREM', POPPED, 1, id) > 0 then -- nobody had begun with it
        to_queue(id)
        return 'requeued'
    end
    if has_ended(id) then
        finish(id)
        return nil
    end
    return count_death(id, once, requeued, failed)
end

-- {'run'}: do the work; {'done', event}: somebody did; {'parked'}: somebody is at it, and this job waits for that;
-- nil when another attempt goes on with it. `gone` says that the result which is noted is not there any more.
function operations.claim(work, id, once, attempt, requeued, gone)
    if redis.call('HGET', run_of(id), 'attempt') ~= attempt then return nil end
    if gone == 'gone' then redis.call('HDEL', work, 'result') end
    local result = redis.call('HGET', work, 'result')
    if result then return {'done', result} end
    local holder = redis.call('HGET', work, 'job')
    if holder and holder ~= id and not has_ended(holder) then
        append(id, once, attempt, 'requeued', requeued)
        redis.call('ZREM', LEASES, id)
        redis.call('HDEL', run_of(id), 'holder')
        redis.call('RPUSH', work .. ':parked', id)
        redis.call('EXPIRE', work .. ':parked', EVENTS_SECONDS)
        return {'parked'}
    end
    redis.call('HSET', work, 'job', id)
    redis.call('EXPIRE', work, EVENTS_SECONDS)
    redis.call('HSET', run_of(id), 'work', work)
    return {'run'}
end

-- Which parts of a long job are finished; nil when another attempt goes on with it.
function operations.checkpoint(id, attempt, parts)
    local run = run_of(id)
    if redis.call('HGET', run, 'attempt') ~= attempt then return nil end
    return redis.call('HSET', run, 'parts', parts)
end

return operations[ARGV[1]](unpack(ARGV, 2))
