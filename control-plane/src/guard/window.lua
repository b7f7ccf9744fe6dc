-- The sliding windows of one request, all or none: counts it in every window, or in none where one is full.
--
-- KEYS: a list of moments in milliseconds a window, oldest first
-- ARGV: of each window its capacity and its length in milliseconds
-- Answers, of each window: what remains, milliseconds until it is empty, milliseconds to wait or -1.
--
-- By Redis's clock, which all replicas share.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local answer, full = {}, false
for i, key in ipairs(KEYS) do
    local capacity, length = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local oldest = redis.call('LINDEX', key, 0)
    while oldest and oldest + length <= now do
        redis.call('LPOP', key)
        oldest = redis.call('LINDEX', key, 0)
    end
    local used = oldest and redis.call('LLEN', key) or 0
    local reset, wait = 0, -1
    if used >= capacity then
        local leaves = redis.call('LINDEX', key, used - capacity) or now
        full, wait = true, leaves + length - now
    end
    if used > 0 then
        reset = redis.call('LINDEX', key, -1) + length - now
    end
    answer[3 * i - 2], answer[3 * i - 1], answer[3 * i] = math.max(capacity - used, 0), reset, wait
end
if not full then
    for i, key in ipairs(KEYS) do
        local length = tonumber(ARGV[2 * i])
        redis.call('RPUSH', key, now)
        redis.call('PEXPIRE', key, length)
        answer[3 * i - 2], answer[3 * i - 1] = answer[3 * i - 2] - 1, length
    end
end
return answer
