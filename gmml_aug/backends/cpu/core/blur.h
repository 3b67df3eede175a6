// A blur, once for every dtype: along the last axis first, then across lines and slices. What was read is kept in rings, so that the
// result can stand where it was read from.

typedef struct {
    W taps[MOST_TAPS / 2 + 1];    // from the outermost to the middle
    i64 radius, low[3], high[3];  // the window around the mask
    i64 count;                    // numbers of a line of the window, and some more up to a whole number of blocks
    W *wide, *made, *lines, *slices;
    T *raw;                       // a line as it is stored
} NAME(Blur);

// Sum rows symmetrically: the middle one times its tap, then the pairs around it; a block of sums stays in registers.
static void NAME(weigh)(const W *const *rows, const W *taps, i64 radius, i64 count, W *restrict out) {
    typedef W Block __attribute__((vector_size(BLOCK_BYTES), aligned(sizeof(W)), may_alias));
    for (i64 x = 0; x < count; x += (i64)(sizeof(Block) / sizeof(W))) {
        Block sum = *(const Block *)(rows[radius] + x) * taps[radius];
        for (i64 t = 0; t < radius; t++)
            sum += (*(const Block *)(rows[t] + x) + *(const Block *)(rows[2 * radius - t] + x)) * taps[t];
        *(Block *)(out + x) = sum;
    }
}

static int NAME(prepare)(const Frame *frame, i64 number, NAME(Blur) *blur) {
    const i64 *size = frame->picture->size;
    i64 kernel = ((const i64 *)GIVEN(frame, number, 1))[frame->image], radius = (kernel - 1) / 2, faint = 0;
    float sigma = ((const float *)GIVEN(frame, number, 0))[frame->image], weights[MOST_TAPS], sum = 0;
    for (i64 t = 0; t <= 2 * radius; t++) {
        float away = (float)(t - radius) / sigma;
        sum += weights[t] = expf(away * away * -0.5f);
    }
    while (faint < radius && weights[faint] / sum <= 1e-8f) faint++;  // dropped: zero times infinity would not be zero
    blur->radius = radius -= faint;
    for (i64 t = 0; t <= radius; t++) blur->taps[t] = (W)(weights[faint + t] / sum);
    i64 *low = blur->low, *high = blur->high, z = frame->first / size[1], y = frame->first % size[1];
    for (int d = 0; d < 3; d++) low[d] = size[d], high[d] = 0;
    for (i64 line = frame->first; line < frame->last; line++) {
        const u64 *bits = frame->here + (line - frame->first) * frame->words;
        i64 left = next_bit(bits, frame->width, 0, 0), k = frame->words - 1;
        if (left < frame->width) {
            while (!bits[k]) k--;
            i64 right = 64 * (k + 1) - __builtin_clzll(bits[k]);
            low[0] = smaller(low[0], z), low[1] = smaller(low[1], y), low[2] = smaller(low[2], left);
            high[0] = larger(high[0], z + 1), high[1] = larger(high[1], y + 1), high[2] = larger(high[2], right);
        }
        if (++y == size[1]) y = 0, z++;
    }
    if (low[2] == size[2] || radius == 0) return 0;
    i64 unit = frame->beside;
    blur->count = padded((high[2] - low[2]) * unit);
    blur->wide = frame->rows;
    blur->made = blur->wide + blur->count + 2 * radius * unit;
    blur->raw = (T *)(void *)(blur->made + blur->count);
    blur->lines = blur->made + 2 * blur->count + 2 * radius * unit;
    blur->slices = blur->lines + smaller(2 * radius + 1, size[1]) * blur->count;
    return 1;
}

// One line of the window, filtered along itself: read where it is, or from a copy that goes on beyond the borders.
static void NAME(along)(const Frame *frame, const NAME(Blur) *blur, const T *line, W *out) {
    i64 unit = frame->beside, radius = blur->radius, first = blur->low[2] - radius, end = blur->high[2] + radius;
    i64 inside = larger(first, 0), outside = smaller(end, frame->width), count = blur->count + 2 * radius * unit;
    const T *seen = line + first * unit;
    const W *rows[MOST_TAPS];
    if (first < 0 || first * unit + count > frame->width * unit) {
        T *raw = blur->raw - first * unit;
        for (i64 x = first; x < inside; x++)
            for (i64 c = 0; c < unit; c++) raw[x * unit + c] = line[fold(x, frame->width) * unit + c];
        copy(raw + inside * unit, line + inside * unit, (outside - inside) * unit * (i64)sizeof(T));
        for (i64 x = outside; x < end; x++)
            for (i64 c = 0; c < unit; c++) raw[x * unit + c] = line[fold(x, frame->width) * unit + c];
        memset(raw + end * unit, 0, (size_t)(count - (end - first) * unit) * sizeof(T));
        seen = blur->raw;
    }
    const W *wide = (const W *)(const void *)seen;
    if (sizeof(T) < sizeof(W)) {
        W *restrict widened = blur->wide;
        const T *restrict from = seen;
        for (i64 x = 0; x < count; x++) widened[x] = LOAD(from[x]);
        wide = widened;
    }
    for (i64 t = 0; t <= 2 * radius; t++) rows[t] = wide + t * unit;
    NAME(weigh)(rows, blur->taps, radius, blur->count, out);
}

// Filtered lines around line y of a ring, in their order.
static void NAME(around)(const W *ring, i64 y, i64 radius, i64 length, i64 apart, const W **rows) {
    i64 kept = smaller(2 * radius + 1, length), first = larger(y - radius, 0), slot = first % kept;
    for (i64 at = y - radius; at <= y + radius; at++) {
        if (at < first || at >= length) {
            *rows++ = ring + fold(at, length) % kept * apart;
        } else {
            *rows++ = ring + slot * apart;
            slot = slot + 1 < kept ? slot + 1 : 0;
        }
    }
}

static void NAME(put)(const Frame *frame, const NAME(Blur) *blur, i64 line, T *to) {
    const u64 *bits = frame->here + (line - frame->first) * frame->words;
    i64 unit = frame->beside;
    const W *restrict made = blur->made;
    T *restrict stored = blur->raw;
    for (i64 x = 0, count = padded(blur->count); x < count; x++) stored[x] = STORE(made[x]);
    for (i64 end, x = next_bit(bits, frame->width, blur->low[2], 0); x < frame->width; x = next_bit(bits, frame->width, end, 0)) {
        end = next_bit(bits, frame->width, x, ~0ull);
        copy(to + (line * frame->width + x) * unit, stored + (x - blur->low[2]) * unit, (end - x) * unit * (i64)sizeof(T));
    }
}

// The window in one slice, filtered along both of its axes: kept in `slice`, or without one written to its place.
static void NAME(across)(const Frame *frame, const NAME(Blur) *blur, i64 z, const T *from, T *to, W *slice) {
    static const W alone[1] = {1};
    i64 tall = frame->picture->size[1], radius = tall > 1 ? blur->radius : 0, kept = smaller(2 * radius + 1, tall);
    i64 next = larger(blur->low[1] - radius, 0), count = blur->count;
    const W *rows[MOST_TAPS], *taps = radius ? blur->taps : alone;
    for (i64 y = blur->low[1]; y < blur->high[1]; y++) {
        for (; next < tall && next <= y + radius; next++)
            NAME(along)(frame, blur, from + (z * tall + next) * frame->width * frame->beside, blur->lines + next % kept * count);
        NAME(around)(blur->lines, y, radius, tall, count, rows);
        NAME(weigh)(rows, taps, radius, count, slice ? slice + (y - blur->low[1]) * count : blur->made);
        if (!slice) NAME(put)(frame, blur, z * tall + y, to);
    }
}

static void NAME(blur)(const Frame *frame, i64 number) {
    NAME(Blur) blur;
    if (!NAME(prepare)(frame, number, &blur)) return;
    i64 deep = frame->picture->size[0], tall = frame->picture->size[1], radius = blur.radius;
    i64 lines = blur.high[1] - blur.low[1], kept = smaller(2 * radius + 1, deep);
    T *now = NAME(now)(frame), *aside = frame->call->phase == READ ? (T *)frame->call->aside + (now - (T *)frame->call->now) : now;
    for (i64 p = 0; p < frame->picture->channels / frame->beside; p++) {
        const T *from = now + p * frame->pixels;
        T *to = aside + p * frame->pixels;
        if (deep == 1) {
            NAME(across)(frame, &blur, 0, from, to, 0);
            continue;
        }
        i64 next = larger(blur.low[0] - radius, 0);
        for (i64 z = blur.low[0]; z < blur.high[0]; z++) {
            const W *slices[MOST_TAPS];
            for (; next < deep && next <= z + radius; next++)
                NAME(across)(frame, &blur, next, from, to, blur.slices + next % kept * lines * blur.count);
            NAME(around)(blur.slices, z, radius, deep, lines * blur.count, slices);
            for (i64 y = blur.low[1]; y < blur.high[1]; y++) {
                NAME(weigh)(slices, blur.taps, radius, blur.count, blur.made);
                if (z * tall + y >= frame->first && z * tall + y < frame->last) NAME(put)(frame, &blur, z * tall + y, to);
                for (i64 t = 0; t <= 2 * radius; t++) slices[t] += blur.count;
            }
        }
    }
}

// What a blur has left aside, put in its place.
static void NAME(merge)(const Frame *frame, i64 number) {
    NAME(Blur) blur;
    if (!NAME(prepare)(frame, number, &blur)) return;
    i64 unit = frame->beside;
    T *now = NAME(now)(frame), *aside = (T *)frame->call->aside + (now - (T *)frame->call->now);
    Run runs[BLOCK], next = {0};
    for (i64 filled, found; (found = gather(frame, &next, runs, &filled));)
        for (i64 p = 0; p < frame->picture->channels / unit; p++)
            for (i64 r = 0; r < found; r++) {
                i64 at = p * frame->pixels + (runs[r].line * frame->width + runs[r].first) * unit;
                copy(now + at, aside + at, runs[r].count * unit * (i64)sizeof(T));
            }
}

const Painters NAME(painters) = {
    NAME(begin), {NAME(colour), NAME(colour), NAME(colour), NAME(take), NAME(noise), NAME(grey), NAME(blur)}, NAME(merge),
};

#undef DTYPE
#undef T
#undef W
#undef LOAD
#undef STORE
