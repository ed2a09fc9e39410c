-- The life of a job. Every change of a job's state is an operation of this script, and each operation is atomic.
--
--   queue ──pop──► popped ──take──► leases ──append (terminal)──► only its events are left
--     ▲               │                │ ▲ renew
--     └── put back ───┴── give back ───┤
--     └──────── lease expired ─────────┘        parked: waits for an identical job, in the list of its work
--
-- ARGV[1] is the name of the operation; the other arguments are the operation's. core/script.py puts constants from
-- core/keys.py before this line. Keys are made here from job ids, so Redis Cluster is not supported (nor by RQ).
--
-- `holder` is the fencing token: `take` stores a new one in the job's hash, and it is deleted when the job leaves its
-- worker. With an old token a worker cannot append events, claim work, store checkpoints or give the job back.
--
-- Every operation may be repeated with the same arguments, because redis-py repeats a command whose answer was lost.
-- A repeated `webhook` returns another webhook; the first one becomes due again when its lease has expired.

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function run_of(id) return 'upres:job:' .. id .. ':run' end
local function events_of(id) return 'upres:job:' .. id .. ':events' end
local function preview_of(id) return 'upres:job:' .. id .. ':preview' end
local function webhook_of(id) return 'upres:webhook:' .. id end
local function record_of(id) return 'rq:job:' .. id end

-- The JSON of an event of job `id`; `rest` is the JSON after the field job_id.
local function message(id, rest) return '{"job_id":' .. cjson.encode(id) .. ',' .. rest end

local function is_holder(id, holder)
    return holder ~= '' and redis.call('HGET', run_of(id), 'holder') == holder
end

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

local append, leave_place, renew_place, count_canary

-- Detach the job from its work, and put the jobs that waited for the same work at the front of the queue; they find the
-- result, or do the work. When the job became a dead letter, they fail too: the same work would kill more workers.
local function release_work(id, type, data, dead)
    local work = redis.call('HGET', run_of(id), 'work')
    redis.call('HDEL', run_of(id), 'work')
    if not work or redis.call('HGET', work, 'job') ~= id then return end
    local parked = redis.call('LRANGE', work .. ':parked', 0, -1)
    redis.call('DEL', work, work .. ':parked')
    if type == 'succeeded' then
        redis.call('HSET', work, 'result', data)
        redis.call('EXPIRE', work, REUSE_SECONDS)
    end
    for index = #parked, 1, -1 do
        local waiting = parked[index]
        redis.call('SREM', PARKED, waiting)
        if dead then
            append(waiting, id, 'failed', message(waiting, data:sub(#message(id, '') + 1)), true)
        else
            redis.call('LPUSH', QUEUE, waiting)
        end
    end
end

local function dead_letter(id)
    local now = milliseconds()
    redis.call('EXPIRE', record_of(id), EVENTS_SECONDS)
    redis.call('ZADD', DEAD, now, id)
    redis.call('ZREMRANGEBYSCORE', DEAD, '-inf', now - EVENTS_SECONDS * 1000)
    redis.call('ZREMRANGEBYRANK', DEAD, 0, -1 - MAX_DEAD_LETTERS)
    redis.call('EXPIRE', DEAD, EVENTS_SECONDS)
end

-- Store the webhook that reports how the job ended, and make it due now.
local function schedule_webhook(id, url, owner, data)
    redis.call('HSET', webhook_of(id), 'url', url, 'owner', owner or '', 'data', data)
    redis.call('EXPIRE', webhook_of(id), WEBHOOK_SECONDS)
    redis.call('ZADD', WEBHOOKS, milliseconds(), id)
end

-- Count how jobs ended. The script counts, because jobs also end without a worker, and a worker's counts end with it.
local function count_end(model, type, data)
    local code = type == 'failed' and cjson.decode(data).code or ''
    redis.call('HINCRBY', JOB_COUNTS, model .. '|' .. type .. '|' .. code, 1)
end

local function finish(id, type, data, dead, let_go)
    release_work(id, type, data, dead)
    -- A job with a holder is in neither list, and LREM takes time in proportion to the length of the queue.
    if redis.call('HEXISTS', run_of(id), 'holder') == 0 then
        redis.call('LREM', QUEUE, 1, id)
        redis.call('LREM', POPPED, 1, id)
    end
    local owner, url, model = unpack(redis.call('HMGET', run_of(id), 'owner', 'webhook', 'model'))
    if owner then leave_place(id, owner, let_go) end
    if url and data then schedule_webhook(id, url, owner, data) end
    if model and data then count_end(model, type, data) end
    if data then count_canary(id, type, data) end
    redis.call('ZREM', LEASES, id)
    redis.call('ZREM', DEADLINES, id)
    redis.call('SREM', PARKED, id)
    redis.call('DEL', run_of(id), preview_of(id))
    if dead then dead_letter(id) else redis.call('DEL', record_of(id)) end
end

-- Append an event, and return its id; nil when the job has ended. `once` is a token that identifies a repeated call.
-- With `let_go` the job's worker appends it, and does not work on the job any more if the event is terminal.
function append(id, once, type, data, dead, let_go)
    local last = last_event(id)
    if last then
        if last.once == once then return last.id end
        if is_terminal(last.type) then return nil end
    end
    local entry = redis.call('XADD', events_of(id), '*', 'type', type, 'once', once, 'data', data)
    redis.call('EXPIRE', events_of(id), EVENTS_SECONDS)
    redis.call('PUBLISH', 'upres:job:' .. id, data)
    if is_terminal(type) then finish(id, type, data, dead, let_go) end
    return entry
end

local function release_lease(id)
    redis.call('ZREM', LEASES, id)
    redis.call('HDEL', run_of(id), 'holder', 'at_work')
end

-- A full memory refuses LPUSH, but not what release_lease does: the command that may be refused comes first, so that a
-- refused operation has changed nothing. The same order holds in `take` and `put_back`. HGET raises for forged data.
local function to_queue(id)
    redis.call('HGET', run_of(id), 'holder')
    redis.call('LPUSH', QUEUE, id)
    release_lease(id)
end

local function is_popped(id)
    for _, popped in ipairs(redis.call('LRANGE', POPPED, 0, -1)) do
        if popped == id then return true end
    end
    return false
end

-- Put a popped job that was not taken at the front of the queue.
local function put_back(id)
    if not is_popped(id) then return false end
    to_queue(id) -- this also removes the lease that `recover` gave it
    redis.call('LREM', POPPED, 1, id)
    return true
end

local operations = {}

-- Append an event. Workers give their holder token; the function gives '', and is not fenced. `busy`: the worker ends the
-- job, but still works on it.
function operations.append(id, once, holder, type, data, dead, busy)
    local last = last_event(id)
    if holder ~= '' and not is_holder(id, holder) and not (last and last.once == once) then return nil end
    return append(id, once, type, data, dead == 'dead', holder ~= '' and busy ~= 'busy')
end

-- Append several events of a worker's job, given as pairs of type and data. All of them are refused, or none.
function operations.append_all(id, once, holder, ...)
    local pairs, last, entry = {...}, last_event(id), nil
    local once_of = function(index) return once .. ':' .. index end
    if last and last.once == once_of(#pairs - 1) then return last.id end
    if not is_holder(id, holder) then return nil end
    for index = 1, #pairs, 2 do
        entry = append(id, once_of(index), pairs[index], pairs[index + 1], false, true)
    end
    return entry
end

-- Register a new job: its first event, its deadline in `seconds` from now, its model, and its owner and webhook address
-- ('' for none).
function operations.begin(id, once, queued, seconds, model, owner, webhook)
    append(id, once, 'queued', queued)
    local deadline = milliseconds() + math.floor(seconds * 1000)
    redis.call('ZADD', DEADLINES, deadline, id)
    redis.call('HSET', run_of(id), 'model', model)
    if owner ~= '' then
        redis.call('HSET', run_of(id), 'owner', owner)
        redis.call('ZADD', 'upres:key:' .. owner .. ':jobs', deadline, id)
    end
    if webhook ~= '' then redis.call('HSET', run_of(id), 'webhook', webhook) end
    redis.call('EXPIRE', run_of(id), EVENTS_SECONDS)
end

function operations.put_back(id) put_back(id) end

-- Take a popped job, and return {attempt, milliseconds to the deadline, RQ's record as fields and values, number of workers
-- that died with it}; nil when the job has ended or has another holder.
function operations.take(id, holder)
    local run = run_of(id)
    local current = redis.call('HGET', run, 'holder')
    if current ~= holder then
        if current or not is_popped(id) then return nil end
        if has_ended(id) then
            redis.call('LREM', POPPED, 1, id)
            finish(id)
            return nil
        end
        redis.call('HINCRBY', run, 'attempt', 1)
        redis.call('HSET', run, 'holder', holder)
        redis.call('EXPIRE', run, EVENTS_SECONDS)
    end
    local now = milliseconds()
    redis.call('ZADD', LEASES, now + LEASE_SECONDS * 1000, id)
    redis.call('LREM', POPPED, 1, id)
    local deadline = redis.call('ZSCORE', DEADLINES, id)
    local left = deadline and deadline - now or EVENTS_SECONDS * 1000
    local deaths = redis.call('HGET', run, 'deaths') or 0
    return {redis.call('HGET', run, 'attempt'), left, redis.call('HGETALL', record_of(id)), tonumber(deaths)}
end

-- Renew leases, given as pairs of job and holder. Return the ids of the jobs that this holder does not hold any more.
function operations.renew(...)
    local until_when, lost, pairs = milliseconds() + LEASE_SECONDS * 1000, {}, {...}
    for index = 1, #pairs, 2 do
        if is_holder(pairs[index], pairs[index + 1]) then
            redis.call('ZADD', LEASES, until_when, pairs[index])
        else
            renew_place(pairs[index], pairs[index + 1])
            table.insert(lost, pairs[index])
        end
    end
    return lost
end

-- Note that no other job is in the hands of this job's worker from now on.
function operations.is_alone(id, holder)
    if not is_holder(id, holder) then return end
    redis.call('HSET', run_of(id), 'alone', holder, 'deaths_before', redis.call('GET', DEATHS) or 0)
end

-- Claim a piece of work for a job. Return {'run'}: the job has to do it; {'done', event}: another job has done it;
-- {'parked'}: another job is doing it, and this one waits; nil: the job has another holder. With `gone` the stored
-- result is deleted first, because its images are missing in the object store.
function operations.claim(work, id, once, holder, requeued, gone)
    if not is_holder(id, holder) then return nil end
    local run = run_of(id)
    if redis.call('HGET', run, 'work') ~= work then release_work(id) end -- an earlier attempt fetched another image
    if gone == 'gone' then redis.call('HDEL', work, 'result') end
    local result = redis.call('HGET', work, 'result')
    if result then return {'done', result} end
    local other = redis.call('HGET', work, 'job')
    if other and other ~= id then
        append(id, once, 'requeued', message(id, requeued))
        release_lease(id)
        redis.call('SADD', PARKED, id)
        redis.call('EXPIRE', PARKED, EVENTS_SECONDS)
        redis.call('RPUSH', work .. ':parked', id)
        redis.call('EXPIRE', work .. ':parked', EVENTS_SECONDS)
        return {'parked'}
    end
    redis.call('HSET', work, 'job', id)
    redis.call('EXPIRE', work, EVENTS_SECONDS)
    redis.call('HSET', run, 'work', work)
    return {'run'}
end

-- Store which parts of a long job are finished, and for which work. Return nil when the job has another holder.
function operations.checkpoint(id, holder, work, parts)
    if not is_holder(id, holder) then return nil end
    return redis.call('HSET', run_of(id), 'parts', parts, 'parts_of', work)
end

-- Append a finished piece to the job's preview; an empty piece deletes the preview.
function operations.preview(id, holder, piece)
    if not is_holder(id, holder) then return nil end
    if piece == '' then return redis.call('DEL', preview_of(id)) end
    redis.call('RPUSH', preview_of(id), piece)
    redis.call('EXPIRE', preview_of(id), PREVIEW_SECONDS)
end
