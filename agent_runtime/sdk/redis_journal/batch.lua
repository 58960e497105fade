-- Carries out a batch of a journal's writes, if the program that wants them still has its token.
-- The script is atomic; docs/sdk.md explains the keys.
--
-- KEYS[1]  what all keys begin with
-- ARGV     the program's token, the number of its batch, and then of each job its name, how many
--          arguments it has, and these
-- Returns  what jobs that have an answer answer, in order, each a list

local base, token, number = KEYS[1], ARGV[1], tonumber(ARGV[2])
local owner = base .. ':owner:' .. token
local journal = base .. ':journal'

local written = redis.call('HGET', owner, 'batches')
if not written then
  return redis.error_reply('NOTOWNER')
end
written = tonumber(written)
if number ~= written and number ~= written + 1 then
  return redis.error_reply('LOSTWRITES')
end

local time = redis.call('TIME')
local now_ms = time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
if number == written then
  -- The same again, as its answers got lost on the way. Written, so that WAITAOF waits for it.
  redis.call('HSET', owner, 'renewed_ms', now_ms)
  return cjson.decode(redis.call('HGET', owner, 'answers'))
end
-- The first write: when Redis is full it fails here, and nothing has been done.
redis.call('HSET', owner, 'batches', ARGV[2], 'renewed_ms', now_ms, 'answers', '[]')

local function next_key()
  return string.format('%.0f', redis.call('HINCRBY', journal, 'last_key', 1))
end

local function session_of(key)
  return base .. ':session:' .. key
end

local function step_of(session, step)
  return base .. ':step:' .. session .. ':' .. step
end

-- Makes sessions of an id this program's; returns whose they are instead, or nil.
local function claim(id)
  local place = base .. ':holder:' .. id
  local holder = redis.call('GET', place)
  if holder and holder ~= token and redis.call('EXISTS', base .. ':owner:' .. holder) == 1 then
    return holder
  end
  redis.call('SET', place, token)
  return nil
end

local jobs = {}

function jobs.claim(id)
  local holder = claim(id)
  if holder then
    return { 'held', holder }
  end
  return { 'claimed', redis.call('HGET', journal, 'last_key') or '0' }
end

function jobs.open(id, opening, place, parent, ...)
  local holder = claim(id)
  if holder then
    return { 'held', holder }
  end
  local last_key = redis.call('HGET', journal, 'last_key') or '0'
  local index = base .. ':id:' .. id
  local key = redis.call('HGET', index, opening .. ' ' .. place)
  if key then
    local later = string.format('%.0f', tonumber(opening) + 1) .. ' ' .. place
    local is_last = redis.call('HEXISTS', index, later) == 0
    return { 'found', last_key, key, is_last and '1' or '0' }
  end
  key = next_key()
  redis.call('HSET', index, opening .. ' ' .. place, key)
  redis.call('HSET', session_of(key), ...)
  redis.call('RPUSH', base .. ':sessions', key)
  if parent ~= '' then
    redis.call('RPUSH', base .. ':children:' .. parent, key)
  end
  return { 'new', last_key, key }
end

function jobs.release(id)
  local place = base .. ':holder:' .. id
  if redis.call('GET', place) == token then
    redis.call('DEL', place)
  end
end

function jobs.begin(session, step, at, ...)
  redis.call('HSET', step_of(session, step), 'key', next_key(), ...)
  local num_steps = string.format('%.0f', tonumber(step) + 1)
  redis.call('HSET', session_of(session),
    'num_steps', num_steps, 'state', 'running', 'last_epoch_s', at)
end

-- Without an error its name is empty, without a status that is.
function jobs.mark(session, step, at, state, err, message, status)
  local place = step_of(session, step)
  redis.call('HSET', place, 'state', state)
  redis.call('HDEL', place, 'error', 'error_message', 'error_status', 'over_epoch_s')
  if state ~= 'running' then
    redis.call('HSET', place, 'over_epoch_s', at)
  end
  if err ~= '' then
    redis.call('HSET', place, 'error', err, 'error_message', message)
  end
  if status ~= '' then
    redis.call('HSET', place, 'error_status', status)
  end
  local whole = session_of(session)
  if tonumber(redis.call('HGET', whole, 'num_steps')) == tonumber(step) + 1 then
    redis.call('HSET', whole, 'state', state)
  end
  redis.call('HSET', whole, 'last_epoch_s', at)
end

function jobs.message(session, step, at, record, prompt, cached, output)
  redis.call('RPUSH', base .. ':messages:' .. session .. ':' .. step, record)
  local whole = session_of(session)
  redis.call('HSET', whole, 'last_epoch_s', at)
  if prompt ~= '' then
    redis.call('HINCRBY', whole, 'num_turns', 1)
    redis.call('HINCRBY', whole, 'prompt_tokens', prompt)
    redis.call('HINCRBY', whole, 'cached_tokens', cached)
    redis.call('HINCRBY', whole, 'output_tokens', output)
  end
end

function jobs.close(session, at)
  redis.call('HSET', session_of(session), 'closed_epoch_s', at, 'last_epoch_s', at)
end

function jobs.reopen(session)
  redis.call('HDEL', session_of(session), 'closed_epoch_s')
end

function jobs.leave(session)
  redis.call('HSET', session_of(session), 'left_at', next_key())
end

local answers = {}
local at = 3
while at <= #ARGV do
  local name, count = ARGV[at], tonumber(ARGV[at + 1])
  local answer = jobs[name](unpack(ARGV, at + 2, at + 1 + count))
  if answer then
    answers[#answers + 1] = answer
  end
  at = at + 2 + count
end
if #answers > 0 then
  redis.call('HSET', owner, 'answers', cjson.encode(answers))
end
return answers
