-- Webhooks that are due; a part of the script that begins in jobs.lua.

-- Return a webhook that is due as {id, attempt, address, owner, event}; nil when none is due. No other worker gets the
-- same webhook for WEBHOOK_LEASE_SECONDS.
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

-- Without `seconds`, delete the webhook: it was delivered or is given up. With `seconds`, make it due again after that
-- time. With `untried`, do not count this attempt, because nothing was sent.
function operations.webhook_tried(id, seconds, untried)
    if untried and redis.call('EXISTS', webhook_of(id)) == 1 then
        redis.call('HINCRBY', webhook_of(id), 'attempt', -1)
    end
    if seconds then return redis.call('ZADD', WEBHOOKS, 'XX', milliseconds() + math.floor(seconds * 1000), id) end
    redis.call('ZREM', WEBHOOKS, id)
    redis.call('DEL', webhook_of(id))
end
