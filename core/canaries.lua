-- How the jobs of canaries end; a part of the script that begins in jobs.lua. It counts, because jobs also end by other
-- workers than their own: those that died with their worker, and those whose time is up.

-- Return the id of a canary's run, if the version with this digest is the canary of a model and has a rule; else nil.
local function run_of_canary(model, digest)
    local read, served = pcall(function()
        return cjson.decode(redis.call('GET', 'upres:model:' .. model))
    end)
    if not read or type(served) ~= 'table' or type(served.rule) ~= 'table' or type(served.labels) ~= 'table' then
        return nil
    end
    local canary, run_id = served.labels.canary, served.trial or served.canary_run_id
    return type(canary) == 'table' and canary.digest == digest and type(run_id) == 'string' and run_id or nil
end

-- Note which model version a job's worker loads, or computes with, from now on. It counts how the job ends if it is a
-- canary with a rule.
function operations.at_work(id, holder, model, digest)
    if not is_holder(id, holder) then return end
    local run, run_id = run_of(id), run_of_canary(model, digest)
    if not run_id then
        redis.call('HDEL', run, 'at_work')
        return
    end
    local mark = model .. ' ' .. run_id .. '\n'
    local canaries = redis.call('HGET', run, 'canaries') or ''
    if not ('\n' .. canaries):find('\n' .. mark, 1, true) then canaries = canaries .. mark end
    redis.call('HSET', run, 'at_work', mark, 'canaries', canaries)
end

-- Count the end of a job for the canaries that it used: a success for each, a failure for the one that was at work, if the
-- failure may be a version's fault. Redis users of an older release may not write these counts: no job fails for that.
function count_canary(id, type, data)
    local at_work, canaries = unpack(redis.call('HMGET', run_of(id), 'at_work', 'canaries'))
    local marks, outcome = canaries, 'well'
    if type == 'failed' then
        local code = cjson.decode(data).code
        marks, outcome = VERSION_FAULTS:find(' ' .. tostring(code) .. ' ', 1, true) and at_work, 'failed'
    elseif type ~= 'succeeded' then
        return
    end
    for model, run_id in (marks or ''):gmatch('(%S+) ([^\n]+)\n') do
        local outcomes = 'upres:model:' .. model .. ':outcomes'
        redis.pcall('HINCRBY', outcomes, run_id .. ':' .. outcome, 1)
        redis.pcall('EXPIRE', outcomes, OUTCOMES_SECONDS)
    end
end
