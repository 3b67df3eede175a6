// The operations on pixels, once for every dtype: T is what is stored, W what is computed in, LOAD and STORE lead from one to the other.
#define JOIN_(name, type) name##_##type
#define JOIN(name, type) JOIN_(name, type)
#define NAME(name) JOIN(name, DTYPE)

// Do something to `count` pixels of one channel: pixel i is number j, for channels may lie side by side.
#define EACH(count, body) \
    do { \
        const i64 beside_ = frame->beside, count_ = (count);  /* what is stored may be bytes, which may be anything to a compiler */ \
        if (beside_ == 1) for (i64 i = 0; i < count_; i++) { const i64 j = i; body; } \
        else for (i64 i = 0, j = 0; i < count_; i++, j += beside_) { body; } \
    } while (0)

static inline T *NAME(now)(const Frame *frame) {
    return (T *)frame->call->now + frame->image * frame->picture->channels * frame->pixels;
}

static inline const T *NAME(clean)(const Frame *frame) {
    if (frame->clean) return frame->clean;
    const void *clean = frame->call->clean ? frame->call->clean : frame->call->images;
    return (const T *)clean + frame->image * frame->picture->channels * frame->pixels;
}

// Bytes as `values.normalise` makes them of one channel.
static void NAME(normalise)(const Frame *frame, const u8 *restrict bytes, T *restrict to, i64 channel, i64 count) {
    const double *constants = frame->picture->constants;
    float factor = (float)constants[channel], shift = (float)constants[frame->picture->channels + channel];
    EACH(count, to[j] = STORE((float)bytes[j] * factor + shift));
}

// Numbers side by side, `more` from one channel to the next, put where strips are in some channels, or taken from there.
static void NAME(move)(const Frame *frame, const Strip *strips, i64 found, T *channel, i64 channels, T *numbers, i64 more, int put) {
    enum { SIZE = sizeof(T) };
    i64 unit = frame->beside, width = frame->width * unit;
    for (i64 s = 0; s < found; s++) {
        i64 count = strips[s].count, lines = strips[s].lines;
        T *at = channel + strips[s].line * width + strips[s].first * unit;
        if (unit == 1) {
            Rows there = {at, width * SIZE, frame->apart * SIZE}, here = {numbers, count * SIZE, more * SIZE};
            copy_rows(put ? there : here, put ? here : there, count * SIZE, lines, channels);
        } else {
            for (i64 c = 0; c < channels; c++)
                for (i64 i = 0; i < lines; i++)
                    for (i64 x = 0; x < count; x++)
                        if (put) at[i * width + x * unit + c] = numbers[c * more + i * count + x];
                        else numbers[c * more + i * count + x] = at[i * width + x * unit + c];
        }
        numbers += count * lines;
    }
}

static void NAME(begin)(const Frame *frame) {
    i64 channels = frame->picture->channels, count = (frame->last - frame->first) * frame->width;
    T *now = NAME(now)(frame);
    if (frame->picture->from_bytes) {
        const u8 *bytes = (const u8 *)frame->call->images + frame->image * channels * frame->pixels;
        T *clean = (T *)NAME(clean)(frame);
        for (i64 c = 0; c < channels; c++) {
            i64 at = c * frame->apart + frame->first * frame->width * frame->beside;
            NAME(normalise)(frame, bytes + at, clean + at, c, count);
        }
    }
    i64 planes = channels / frame->beside, numbers = count * frame->beside;
    if (count == frame->pixels) numbers *= planes, planes = 1;  // one after the other
    for (i64 p = 0; p < planes; p++) {
        i64 at = p * frame->pixels + frame->first * frame->width * frame->beside;
        memcpy(now + at, NAME(clean)(frame) + at, (size_t)numbers * sizeof(T));
    }
}

// The mean of each channel of the clean image, and the standard deviation around it, of what is not NaN: both sums in an order of
// their own.
static void NAME(statistics)(const Frame *frame, W *mean, W *deviation) {
    enum { LANES = 16 };
    i64 channels = frame->picture->channels, pixels = frame->pixels;
    for (i64 c = 0; c < channels; c++) {
        const T *from = NAME(clean)(frame) + c * frame->apart;
        for (int round = 0; round < (deviation ? 2 : 1); round++) {
            double sums[LANES] = {0}, sum = 0;
            W centre = round ? mean[c] : 0;
            for (i64 i = 0; i + LANES <= pixels; i += LANES)
                for (i64 k = 0; k < LANES; k++) {
                    W away = LOAD(from[(i + k) * frame->beside]) - centre;
                    sums[k] += round ? (double)(away * away) : (double)away;
                }
            for (i64 i = pixels / LANES * LANES; i < pixels; i++) {
                W away = LOAD(from[i * frame->beside]) - centre;
                sum += round ? (double)(away * away) : (double)away;
            }
            for (i64 k = 0; k < LANES; k++) sum += sums[k];
            i64 seen = pixels;
            if (sum != sum) {  // NaN is left out; the sum tells of it, so that others need no second look
                sum = 0, seen = 0;
                for (i64 i = 0; i < pixels; i++) {
                    W away = LOAD(from[i * frame->beside]) - centre;
                    if (away == away) sum += round ? (double)(away * away) : (double)away, seen++;
                }
            }
            if (round) deviation[c] = (W)sqrt((double)((W)sum / (W)seen));
            else mean[c] = (W)sum / (W)seen;
        }
    }
}

static void NAME(colour)(const Frame *frame, i64 number) {
    i64 channels = frame->picture->channels, unit = frame->beside, width = frame->width * unit;
    const Step *step = frame->picture->step + number;
    const float *drawn = GIVEN(frame, number, 0);
    W *colour = frame->numbers;
    if (step->operation == MEAN) NAME(statistics)(frame, colour, 0);
    else for (i64 c = 0; c < channels; c++) colour[c] = step->operation == DRAWN ? (W)drawn[frame->planned * channels + c] : 0;
    Strip strip;
    Cursor cursor = {0};
    while (next_strip(frame, &cursor, &strip))
        for (i64 c = 0; c < channels; c += unit) {
            T *to = NAME(now)(frame) + c * frame->apart + strip.line * width + strip.first * unit;
            for (i64 k = 0; k < unit; k++) {
                T stored = STORE(colour[c + k]);
                for (i64 i = 0; i < strip.count; i++) to[i * unit + k] = stored;
            }
            Rows first = {to, 0, 0}, others = {to + width, width * (i64)sizeof(T), 0};
            copy_rows(others, first, strip.count * unit * (i64)sizeof(T), strip.lines - 1, 1);
        }
}

static void NAME(take)(const Frame *frame, i64 number) {
    const Picture *picture = frame->picture;
    i64 flags = picture->step[number].kind, channels = picture->channels, unit = frame->beside, numbers = channels * frame->pixels;
    i64 moved[3] = {0, 0, 0}, width = frame->width, tall = picture->size[1], row = width * unit * (i64)sizeof(T);
    i64 plane = frame->pixels * unit * (i64)sizeof(T);
    int bytes = picture->from_bytes && (flags & OTHER);
    const T *from = NAME(clean)(frame);
    const u8 *raw = frame->call->donors;
    if (flags & OTHER) {
        i64 donor = ((const i64 *)GIVEN(frame, number, 0))[frame->planned];
        from = (const T *)frame->call->donors + donor * numbers;
        raw += donor * numbers;
    }
    if (flags & MOVED) {
        const i64 *shift = (const i64 *)GIVEN(frame, number, flags & OTHER ? 1 : 0) + frame->planned * picture->dims;
        for (i64 d = 0; d < picture->dims; d++) moved[3 - picture->dims + d] = shift[d];
    }
    T *now = NAME(now)(frame);
    Strip strip;
    Cursor cursor = {0};
    while (next_strip(frame, &cursor, &strip)) {
        i64 lines = bytes || flags & MOVED ? 1 : strip.lines, end = strip.first + strip.count;
        for (i64 line = strip.line, source = line; line < strip.line + strip.lines; line += lines) {
            if (flags & MOVED) source = (line / tall + moved[0]) % picture->size[0] * tall + (line % tall + moved[1]) % tall;
            else source = line;
            for (i64 x = strip.first, next; x < end; x = next) {  // what crosses the border comes in two parts
                i64 there = x + moved[2] < width ? x + moved[2] : x + moved[2] - width;
                next = smaller(end, x + width - there);
                i64 to = (line * width + x) * unit, at = (source * width + there) * unit, count = next - x;
                for (i64 c = 0; bytes && c < channels; c++)
                    NAME(normalise)(frame, raw + c * frame->apart + at, now + c * frame->apart + to, c, count);
                if (!bytes)
                    copy_rows((Rows){now + to, row, plane}, (Rows){(T *)from + at, row, plane}, count * unit * (i64)sizeof(T), lines,
                              channels / unit);
            }
        }
    }
}

static void NAME(noise)(const Frame *frame, i64 number) {
    const Picture *picture = frame->picture;
    const Step *step = picture->step + number;
    i64 channels = picture->channels, kind = step->kind, once = step->flags & PIXEL, width = frame->width;
    u64 key = (u64)((const i64 *)GIVEN(frame, number, 0))[frame->planned], at[BLOCK + PAD], words[BLOCK + PAD];
    const double *constants = picture->constants + step->constants;  // spread; shift and divisor a channel
    const float *normal = picture->normal;
    const T *table = picture->normal_typed;
    float top = step->flags & CLAMP ? 1.0f : INFINITY, bottom = step->flags & CLAMP ? 0.0f : -INFINITY, spread = (float)constants[0];
    W *mean = frame->numbers, *deviation = mean + channels;
    T *now = NAME(now)(frame), made[4][BLOCK + PAD];  // of the channels that one word serves
    if (kind == MATCHED) NAME(statistics)(frame, mean, deviation);
    Strip strips[BLOCK];
    Cursor cursor = {0};
    for (i64 filled, found; (found = gather(frame, &cursor, strips, &filled));) {
        i64 count = whole(filled, PAD);
        u64 *next = at;
        for (i64 s = 0; s < found; s++)
            for (i64 y = 0, from = strips[s].line * width + strips[s].first; y < strips[s].lines; y++, from += width) {
                for (i64 i = 0; i < whole(strips[s].count, 8); i++) next[i] = (u64)(from + i);
                next += strips[s].count;  // the next line overwrites what is too much
            }
        for (i64 i = 0; i < PAD; i++) next[i] = 0;
        for (i64 c = 0; c < channels; c++) {
            u64 start = key + (u64)(c / 4 * frame->pixels);
            if (c == 0 || (!once && c % 4 == 0)) for (i64 i = 0; i < count; i++) words[i] = mix(start + at[i]);
            T *restrict to = made[c % 4];
            int bits = once ? 0 : (int)(16 * (c % 4));
            float shift = (float)constants[1 + c], divisor = (float)constants[1 + channels + c];
#define DRAWN_BITS ((words[i] >> bits) & 0xFFFF)
#define INSIDE_RANGE(value) ((value) < bottom ? bottom : (value) > top ? top : (value))
#define EACH_MADE(body) for (i64 i = 0; i < count; i++) { body; }
            if (kind == TABLE) {
                EACH_MADE(to[i] = table[DRAWN_BITS])
            } else if (kind == BYTES) {
                EACH_MADE(to[i] = (T)(DRAWN_BITS >> 8))
            } else if (kind == UNIFORM) {
                EACH_MADE(to[i] = STORE((((float)(u32)DRAWN_BITS + 0.5f) * 0x1p-16f + shift) / divisor))
            } else if (kind == NORMAL) {
                EACH_MADE(float value = (normal[DRAWN_BITS] * spread + shift) / divisor; to[i] = STORE(INSIDE_RANGE(value)))
            } else {
                W away = deviation[c], middle = mean[c];
                EACH_MADE(W value = (W)normal[DRAWN_BITS] * away + middle; to[i] = STORE(INSIDE_RANGE(value)))
            }
            if (c % 4 == 3 || c == channels - 1)
                NAME(move)(frame, strips, found, now + c / 4 * 4 * frame->apart, c % 4 + 1, made[0], BLOCK + PAD, 1);
        }
    }
}

static void NAME(grey)(const Frame *frame, i64 number) {
    i64 channels = frame->picture->channels;
    const double *weight = frame->picture->constants + frame->picture->step[number].constants;
    const double *middle = weight + channels + 1, *factor = middle + channels;
    T *now = NAME(now)(frame), some[BLOCK + PAD] = {0};
    W grey[BLOCK + PAD], shift = (W)weight[channels];
    Strip strips[BLOCK];
    Cursor cursor = {0};
    for (i64 filled, found; (found = gather(frame, &cursor, strips, &filled));) {
        i64 count = whole(filled, PAD);
        for (i64 c = 0; c < channels; c++) {
            W share = (W)weight[c];
            NAME(move)(frame, strips, found, now + c * frame->apart, 1, some, 0, 0);
            if (c == 0) for (i64 i = 0; i < count; i++) grey[i] = LOAD(some[i]) * share;
            else for (i64 i = 0; i < count; i++) grey[i] += LOAD(some[i]) * share;
        }
        if (shift != 0) for (i64 i = 0; i < count; i++) grey[i] += shift;
        for (i64 c = 0; c < channels; c++) {
            W centre = (W)middle[c], scaled = (W)factor[c];
            for (i64 i = 0; i < count; i++) some[i] = STORE((grey[i] - centre) * scaled);
            NAME(move)(frame, strips, found, now + c * frame->apart, 1, some, 0, 1);
        }
    }
}
