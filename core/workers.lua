-- Workers and their records; a part of the script that begins in jobs.lua.

-- Store a worker's record for WORKER_SECONDS, and remove workers whose record has expired from the list.
function operations.publish_worker(name, worker)
    local now = milliseconds()
    redis.call('SET', 'upres:worker:' .. name, worker, 'EX', WORKER_SECONDS)
    redis.call('ZADD', WORKERS, now, name)
    redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now - WORKER_SECONDS * 1000)
end
