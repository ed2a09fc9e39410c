-- The places of an API key's jobs (its limit jobs_at_once); a part of the script that begins in jobs.lua.

local function held_of(id) return 'upres:job:' .. id .. ':held' end
local function places_of(owner) return 'upres:key:' .. owner .. ':jobs' end

-- Keep the place of a job that has ended for LEASE_SECONDS more, because its worker still works on it.
local function keep_place(id, owner)
    redis.call('EXPIRE', held_of(id), math.ceil(LEASE_SECONDS))
    redis.call('ZADD', places_of(owner), 'XX', milliseconds() + LEASE_SECONDS * 1000, id)
end

-- Free the place of a job that ends. But when others than its worker end it (a cancelled job), the worker still works on
-- it: then its place is free when that worker lets go of it, or dies and renews it no more. Else a client that cancels
-- its jobs would occupy more slots than its limit allows.
function leave_place(id, owner, let_go)
    local holder, leased = redis.call('HGET', run_of(id), 'holder'), redis.call('ZSCORE', LEASES, id)
    if let_go or not holder or not leased or tonumber(leased) <= milliseconds() then
        redis.call('ZREM', places_of(owner), id)
    else
        redis.call('HSET', held_of(id), 'holder', holder, 'owner', owner)
        keep_place(id, owner)
    end
end

-- Return the API key whose place an ended job keeps for this holder; nil if it keeps none.
local function owner_of_place(id, holder)
    local found, owner = unpack(redis.call('HMGET', held_of(id), 'holder', 'owner'))
    return found == holder and owner or nil
end

function renew_place(id, holder)
    local owner = owner_of_place(id, holder)
    if owner then keep_place(id, owner) end
end

-- Free the place of a job that has ended while this holder worked on it.
function operations.let_go(id, holder)
    local owner = owner_of_place(id, holder)
    if not owner then return end
    redis.call('ZREM', places_of(owner), id)
    redis.call('DEL', held_of(id))
end
