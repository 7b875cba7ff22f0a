-- Decides about requests: for each all its buckets, and all windows of each. Equal requests are a group,
-- which is decided at one time, one request after the other. Groups do not depend on each other.
--
-- KEYS   the buckets of all groups, group after group. On a cluster all are in one hash slot.
-- ARGV   1, packed: the latest time of the server at which the requests may count, in microseconds;
--           0 if it is not known. Requests that waited in a buffer for longer were answered by their
--           sender.
--           Then, until the end, for groups that ask the same of different buckets: their number, the
--           number of requests of each, 0 to read the windows and write nothing, and as ASKED: the bytes
--           from here to the next; the cost of a request; 1 if the units count although they do not fit;
--           the number of buckets. For each bucket the number of its windows, and each packed as WINDOW:
--           the length, the smallest limit, the length of a slot, and 1 if slots are W/256 or 0 if they
--           are exact.
-- Reply  for each group the error that kept it from being decided, or doubles: the time; how many
--           requests are admitted, which are the first ones; how long a lone retry of the others waits, 0
--           if there are none; then for each window: the units that count after all requests, and the time
--           until the first are gone or -1. If the requests are too late: the time, -1 and 0, once.
--
-- A bucket is one string: a header, then its recorders, one for each length of a window. A recorder
-- is a header and its slots, oldest first: the low bits of the slot's number, and the units. All
-- numbers are whole and below 2^53, so that a double is exact. Times are in microseconds.
--
-- Why no unit is dropped too early: it is in slot floor(t / step), which ends after t, and its slot
-- is dropped at the slot's end + W or later, when t is before now - W.

local spread, unpack, pack = unpack, struct.unpack, struct.pack
local call, try, sub, floor, min, max = redis.call, redis.pcall, string.sub, math.floor, math.min, math.max

local FORMAT, HEADER, RECORDER = 1, '<BddB', '<dddddI2BB'
local ASKED, WINDOW = '<I4dBI2', '<dddB'
local HEADER_BYTES, RECORDER_BYTES = 18, 44
-- No limit is larger than MOST_UNITS.
local MOST_EXACT, MOST_RECORDERS, MOST_TIME, MOST_UNITS = 64, 24, 9007199254740992, 4294967295

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local keys, asked = KEYS, ARGV[1]
local latest, next_at = unpack('<d', asked)
if latest > 0 and clock > latest then return { pack('<ddd', clock, -1, 0) } end

-- How a slot is packed, by the bytes of its units: the low bits of its number, of which 32 tell all
-- exact times within a window apart (kind 0), and 16 the 258 slots of W/256 (kind 1). Then the fewest
-- units that are too many for it. And how to pack a recorder, its slots but the last one, and that: after
-- a header, and after all that precedes it. Redis hashes each string that is made, so the fewer the better.
local EXACT_BITS, SLOT_BITS = 4294967296, 65536

local function layout_of(kind, width)
  if kind == 0 then
    if width == 1 then return '<I4B', 256, '<BddBdddddI2BBc0I4B', '<c0dddddI2BBc0I4B' end
    if width == 2 then return '<I4I2', 65536, '<BddBdddddI2BBc0I4I2', '<c0dddddI2BBc0I4I2' end
    return '<I4I4', 4294967296, '<BddBdddddI2BBc0I4I4', '<c0dddddI2BBc0I4I4'
  end
  if width == 1 then return '<I2B', 256, '<BddBdddddI2BBc0I2B', '<c0dddddI2BBc0I2B' end
  if width == 2 then return '<I2I2', 65536, '<BddBdddddI2BBc0I2I2', '<c0dddddI2BBc0I2I2' end
  return '<I2I4', 4294967296, '<BddBdddddI2BBc0I2I4', '<c0dddddI2BBc0I2I4'
end

-- First the usual case, in place, because functions and tables cost more than what they do here: each
-- bucket has exactly the recorders of its windows. Otherwise nothing has been changed for the group, and
-- the general case follows.
local replies, others, first = {}, nil, 0
local reply, values, lives = { clock, 0, 0, 0, 0, 0, 0 }, { '' }, { 0 }
-- An expiry as a number and as text: most of a call are equal.
local life, life_text = -1, ''
while next_at <= #asked do
  local groups, counts_at = unpack('<I2', asked, next_at)
  local bytes, cost, overdraw, buckets, asked_at = unpack(ASKED, asked, counts_at + 2 * groups)
  next_at, overdraw = counts_at + 2 * groups + bytes, overdraw == 1
  for group = 0, groups - 1 do
    local requests = unpack('<I2', asked, counts_at + 2 * group)
    local is_usual, is_partial, admitted, retry, n, added = true, false, requests, 0, 3, 0
    repeat
      -- A reading needs no speed.
      if requests == 0 then is_usual = false break end
      -- The least units left in a window, and how long it takes until one more is left in all of those.
      local left, wait, from, is_empty = MOST_UNITS, 0, asked_at, false
      added, n = admitted * cost, 3
      for b = 1, buckets do
        local value = try('GET', keys[first + b])
        is_usual = type(value) == 'string' and #value >= HEADER_BYTES
        if not is_usual then break end
        local format, now, ahead, recorders, at = unpack(HEADER, value)
        local windows
        windows, from = unpack('B', asked, from)
        is_usual = format == FORMAT and recorders == windows and ahead >= 0 and ahead < MOST_TIME
          and now <= clock + ahead
        if not is_usual then break end
        now = clock + ahead
        local after, full_at, was_full_at = nil, 0, 0
        for _ = 1, recorders do
          is_usual = at + RECORDER_BYTES - 1 <= #value
          if not is_usual then break end
          local length, limit, step, kind, of, slot_length, newest, gone, live, count, of_kind, width
          length, limit, step, kind, from = unpack(WINDOW, asked, from)
          of, slot_length, newest, gone, live, count, of_kind, width, at = unpack(RECORDER, value, at)
          local size = width + 4 - 2 * kind
          local ends = at + count * size
          is_usual = of == length and slot_length == step and of_kind == kind
            and (width == 1 or width == 2 or width == 4) and count > 0 and ends <= #value + 1
            and gone <= (newest + 1) * step + length and newest * step <= now and live < MOST_TIME
          if not is_usual then break end
          local layout, too_many, leading, following = layout_of(kind, width)
          local bits = kind == 0 and EXACT_BITS or SLOT_BITS
          was_full_at = max(was_full_at, (newest + 1) * step + length)
          while gone <= now and count > 0 do
            local slot, units = unpack(layout, value, at)
            gone = (newest - (newest - slot) % bits + 1) * step + length
            if gone > now then break end
            live, count, at = live - units, count - 1, at + size
          end
          is_usual = live >= 0
          if not is_usual then break end
          local of_window = limit - live
          if of_window < left then
            left, wait = of_window, gone - now
          elseif of_window == left then
            wait = max(wait, gone - now)
          end
          reply[n + 1], reply[n + 2], n = live, gone - now, n + 2
          is_empty = is_empty or count == 0
          if left >= added or overdraw then
            local slot, units, kept = floor(now / step), added, ends
            if slot > newest or count == 0 then
              if count == 0 then
                gone = (slot + 1) * step + length
                reply[n] = gone - now
              end
              newest, count = slot, count + 1
            else
              kept = ends - size
              local _, before = unpack(layout, value, kept)
              units = before + added
            end
            is_usual = units < too_many and (kind == 1 or count <= MOST_EXACT)
            if not is_usual then break end
            local slots = sub(value, at, kept - 1)
            if after then
              after = pack(following, after, length, step, newest, gone, live + added, count, kind, width,
                slots, newest % bits, units)
            else
              after = pack(leading, FORMAT, now, ahead, recorders, length, step, newest, gone, live + added,
                count, kind, width, slots, newest % bits, units)
            end
            full_at = max(full_at, (newest + 1) * step + length)
          end
          at = ends
        end
        is_usual = is_usual and at == #value + 1
        if not is_usual then break end
        -- The expiry stays while it is the same, but is set now and then: a key may have lost it.
        local expires = full_at > was_full_at or clock % 16 == 0
        values[b], lives[b] = after, expires and math.ceil((full_at - now) / 1000)
      end
      is_partial = false
      if is_usual and left < added and not overdraw then
        -- The oldest slot has a unit. How many more it has is for the general case.
        is_usual = cost == 1 and left >= 0 and not is_empty
        admitted, retry = left, wait
        is_partial = is_usual and left > 0
      end
    until not is_partial

    local why
    -- Keys that lost their expiry are looked for now and then.
    for b = 1, is_usual and admitted == 0 and clock % 16 == 0 and buckets or 0 do
      is_usual = is_usual and call('PTTL', keys[first + b]) ~= -1
    end
    for b = 1, is_usual and admitted > 0 and buckets or 0 do
      local done
      if lives[b] then
        if lives[b] ~= life then
          life = lives[b]
          life_text = string.format('%.0f', life)
        end
        done = try('SET', keys[first + b], values[b], 'PX', life_text)
      else
        done = try('SET', keys[first + b], values[b], 'KEEPTTL')
      end
      why = why or done.err
    end
    if why then
      replies[#replies + 1] = { err = why }
    elseif is_usual then
      for i = 4, admitted > 0 and n or 0, 2 do reply[i] = reply[i] + added end
      reply[2], reply[3] = admitted, retry
      local format = n == 7 and '<ddddddd' or n == 5 and '<ddddd' or '<' .. string.rep('d', n)
      replies[#replies + 1] = pack(format, spread(reply, 1, n))
    else
      replies[#replies + 1] = false
      others = others or {}
      others[#others + 1] = { #replies, first, buckets, requests, cost, overdraw, asked_at }
    end
    first = first + buckets
  end
end
if not others then return replies end

-- The general case.

local function modulus_of(kind)
  return kind == 0 and EXACT_BITS or SLOT_BITS
end

local function is_layout(kind, width)
  return kind <= 1 and (width == 1 or width == 2 or width == 4)
end

local function new_recorder(length, step, kind)
  return { length = length, step = step, kind = kind, width = 1, newest = 0, gone = 0, live = 0,
    count = 0, slots = '' }
end

-- Reads a bucket; nil if there is none, or a value that this script cannot have written.
local function read(key)
  local value = try('GET', key)
  -- A value of another type is replaced. That nothing can be read must not look like no value.
  if type(value) == 'table' and not string.find(value.err, 'WRONGTYPE', 1, true) then
    error(value.err, 0)
  end
  if type(value) ~= 'string' or #value < HEADER_BYTES then return nil end
  local format, now, ahead, recorders, at = unpack(HEADER, value)
  if format ~= FORMAT or not (now >= 0 and now < MOST_TIME and ahead >= 0 and ahead < MOST_TIME) then
    return nil
  end
  local bucket = { now = now, ahead = ahead }
  for i = 1, recorders do
    if at + RECORDER_BYTES - 1 > #value then return nil end
    local r = new_recorder(0, 0, 0)
    r.length, r.step, r.newest, r.gone, r.live, r.count, r.kind, r.width, at =
      unpack(RECORDER, value, at)
    if not is_layout(r.kind, r.width) then return nil end
    -- A unit that is later than the bucket's time would block the key until then.
    if not (r.length >= 1 and r.length < MOST_TIME and r.step >= 1 and r.live >= 0
      and r.live < MOST_TIME and r.newest * r.step <= now
      and r.gone <= (r.newest + 1) * r.step + r.length) then
      return nil
    end
    local size = r.count * (r.width + 4 - 2 * r.kind)
    r.slots = sub(value, at, at + size - 1)
    if #r.slots ~= size then return nil end
    at = at + size
    bucket[i] = r
  end
  return bucket
end

local function write(key, bucket)
  local parts, full_at = { '' }, 0
  for _, r in ipairs(bucket) do
    if r.count > 0 then full_at = max(full_at, (r.newest + 1) * r.step + r.length) end
    parts[#parts + 1] = pack(RECORDER, r.length, r.step, r.newest, r.gone, r.live, r.count,
      r.kind, r.width)
    parts[#parts + 1] = r.slots
  end
  if full_at == 0 then return end
  parts[1] = pack(HEADER, FORMAT, bucket.now, bucket.ahead, (#parts - 1) / 2)
  -- The value and its expiry in one command: once all units are gone, the key says nothing.
  call('SET', key, table.concat(parts), 'PX', math.ceil((full_at - bucket.now) / 1000))
end

-- Calls f with each slot: when its units are gone, and how many they are; until f returns true.
local function each(r, f)
  local layout, modulus, at = layout_of(r.kind, r.width), modulus_of(r.kind), 1
  for i = 1, r.count do
    local slot, units
    slot, units, at = unpack(layout, r.slots, at)
    slot = r.newest - (r.newest - slot) % modulus
    if f((slot + 1) * r.step + r.length, units, i) then return end
  end
end

-- Drops the units that cannot be in one interval of the window's length with now.
local function drop(r, now)
  if r.count == 0 or now < r.gone then return end
  local dropped, units, gone = r.count, r.live, 0
  if now < (r.newest + 1) * r.step + r.length then
    units = 0
    each(r, function(at, slot, i)
      if at > now then
        dropped, gone = i - 1, at
        return true
      end
      units = units + slot
    end)
  end
  r.count, r.live, r.gone = r.count - dropped, r.live - units, gone
  r.slots = sub(r.slots, dropped * (r.width + 4 - 2 * r.kind) + 1)
end

local function widen(r, units)
  local width, layout, slots = r.width, layout_of(r.kind, r.width), {}
  while units >= 256 ^ width do width = width * 2 end
  local at = 1
  for i = 1, r.count do
    local slot, count
    slot, count, at = unpack(layout, r.slots, at)
    slots[i] = pack(layout_of(r.kind, width), slot, count)
  end
  r.width, r.slots = width, table.concat(slots)
end

-- Records units at a time that is not before that of other units.
local function add(r, time, units)
  local slot, before = floor(time / r.step), 0
  if r.count > 0 and slot <= r.newest then
    local size = r.width + 4 - 2 * r.kind
    slot = r.newest
    local _, newest = unpack(layout_of(r.kind, r.width), r.slots, #r.slots - size + 1)
    before = newest
    r.slots = sub(r.slots, 1, -size - 1)
    r.count = r.count - 1
  end
  local after = min(before + units, MOST_UNITS)
  if after >= 256 ^ r.width then widen(r, after) end
  if r.count == 0 then r.gone = (slot + 1) * r.step + r.length end
  r.slots = r.slots .. pack(layout_of(r.kind, r.width), slot % modulus_of(r.kind), after)
  r.count, r.newest, r.live = r.count + 1, slot, r.live + after - before
end

-- Returns a recorder with the units of another: each at the latest time at which it can have been.
local function inheriting(from, length, step, kind, now)
  local r = new_recorder(length, step, kind)
  each(from, function(gone, units) add(r, min(gone - from.length - 1, now), units) end)
  drop(r, now)
  return r
end

-- Counts the units of a recorder in slots of another length.
local function convert(r, step, kind, now)
  for name, value in pairs(inheriting(r, r.length, step, kind, now)) do r[name] = value end
end

-- Returns the recorder of a window. A new one begins with the units of the narrowest other that is
-- as wide, or else of the widest.
local function recorder(bucket, place, length, step, kind, now)
  local found, source
  if bucket[place] and bucket[place].length == length then
    found = place
  else
    for i, r in ipairs(bucket) do
      if r.length == length then found = i end
      local wide, known = r.length >= length, source and source.length >= length
      if not source or (wide and not known)
        or (wide == known and (r.length < source.length) == wide) then
        source = r
      end
    end
  end
  if not found then
    local r = source and inheriting(source, length, step, kind, now)
      or new_recorder(length, step, kind)
    bucket[#bucket + 1] = r
    bucket.changed = true
    return r
  end
  local r = bucket[found]
  drop(r, now)
  if r.step ~= step and (r.count == 0 or step > r.step) then
    convert(r, step, kind, now)
    bucket.changed = true
  end
  return r
end

-- Brings the recorders that are not for a window of this request up to date. They go on recording
-- while they hold units: the next request may have the quotas of before.
local function keep_former(bucket, asked, now)
  for i = #bucket, 1, -1 do
    local r = bucket[i]
    if not asked[r] then
      drop(r, now)
      if r.count == 0 then table.remove(bucket, i) end
    end
  end
  while #bucket > MOST_RECORDERS do
    local narrowest
    for i, r in ipairs(bucket) do
      if not asked[r] and (not narrowest or r.length < bucket[narrowest].length) then
        narrowest = i
      end
    end
    table.remove(bucket, narrowest)
  end
end

local function decide(first, buckets, requests, cost, overdraw, asked_at)
  local states, windows, from, admitted = {}, {}, asked_at, requests
  for b = 1, buckets do
    local bucket = read(keys[first + b]) or { now = 0, ahead = 0 }
    -- The time of a bucket never decreases. If the server's clock was set back, the units move with
    -- it: the newest is now, whatever the clock says.
    local now = clock + bucket.ahead
    if now < bucket.now then
      now, bucket.ahead, bucket.changed = bucket.now, bucket.now - clock, true
    end
    bucket.now = now
    local of_request, count = {}, 0
    count, from = unpack('B', asked, from)
    for place = 1, count do
      local length, limit, step, kind
      length, limit, step, kind, from = unpack(WINDOW, asked, from)
      local r = recorder(bucket, place, length, step, kind, now)
      of_request[r] = true
      windows[#windows + 1] = { r, now, limit }
      if not overdraw then admitted = min(admitted, floor((limit - r.live) / cost)) end
    end
    if #bucket > count then keep_former(bucket, of_request, now) end
    states[b] = bucket
  end
  admitted = max(admitted, 0)

  for _, bucket in ipairs(admitted > 0 and states or {}) do
    for _, r in ipairs(bucket) do
      add(r, bucket.now, admitted * cost)
      if r.kind == 0 and r.count > MOST_EXACT then
        convert(r, max(1, floor(r.length / 256)), 1, bucket.now)
      end
    end
  end

  -- The requests that are not admitted find the units of those that are, and change nothing.
  local wait = 0
  for _, window in ipairs(admitted < requests and windows or {}) do
    local r, now, limit = spread(window)
    local excess = r.live + cost - limit
    if excess > 0 then
      each(r, function(gone, units)
        excess = excess - units
        if excess <= 0 then
          -- A value that somebody else wrote may say that they are gone.
          wait = max(wait, gone - now, 1)
          return true
        end
      end)
      if excess > 0 then wait = max(wait, r.gone - now, 1) end
    end
  end

  for b, bucket in ipairs(requests > 0 and states or {}) do
    local key = keys[first + b]
    -- A key that lost its expiry gets it again.
    if admitted > 0 or bucket.changed or call('PTTL', key) == -1 then write(key, bucket) end
  end

  local told = { clock, admitted, wait }
  for _, window in ipairs(windows) do
    local r = window[1]
    told[#told + 1] = r.live
    told[#told + 1] = r.count > 0 and r.gone - window[2] or -1
  end
  return pack('<' .. string.rep('d', #told), spread(told))
end

for _, other in ipairs(others) do
  local is_decided, told = pcall(decide, spread(other, 2))
  -- An error of one group is told to its requests. Before Redis 7, it is a text.
  if not is_decided then told = { err = type(told) == 'table' and told.err or 'ERR ' .. told } end
  replies[other[1]] = told
end
return replies
