-- Who is told how jobs ended, and who says how it is; the second part of the script that begins in jobs.lua.

-- {id, attempt, address, owner, event}: a job whose end is to be told now; nil when there is none.
function operations.webhook()
    local now = milliseconds()
    local id = redis.call('ZRANGEBYSCORE', WEBHOOKS, '-inf', now, 'LIMIT', 0, 1)[1]
    if not id then return nil end
    redis.call('ZADD', WEBHOOKS, now + WEBHOOK_LEASE_SECONDS * 1000, id)
    local url, owner, data = unpack(redis.call('HMGET', webhook_of(id), 'url', 'owner', 'data'))
    if not data then
        redis.call('ZREM', WEBHOOKS, id)
        return nil
    end
    return {id, redis.call('HINCRBY', webhook_of(id), 'attempt', 1), url, owner, data}
end

-- It was told, or never will be; or, with seconds, it is tried again then, and `untried`: this time does not count.
function operations.webhook_tried(id, seconds, untried)
    if untried and redis.call('EXISTS', webhook_of(id)) == 1 then
        redis.call('HINCRBY', webhook_of(id), 'attempt', -1)
    end
    if seconds then return redis.call('ZADD', WEBHOOKS, 'XX', milliseconds() + math.floor(seconds * 1000), id) end
    redis.call('ZREM', WEBHOOKS, id)
    redis.call('DEL', webhook_of(id))
end

-- A worker's word about itself; those that said nothing for long are forgotten.
function operations.tell(name, worker)
    local now = milliseconds()
    redis.call('SET', 'upres:worker:' .. name, worker, 'EX', WORKER_SECONDS)
    redis.call('ZADD', WORKERS, now, name)
    redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now - WORKER_SECONDS * 1000)
end
