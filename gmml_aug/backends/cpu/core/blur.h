// A blur, once for every dtype: along the last axis first, then across lines and slices. Of some channels at a time a line is
// read into one row of numbers, and rings keep what was read, so that the result can stand in its place.

typedef struct {
    W taps[MOST_TAPS / 2 + 1];    // from the outermost to the middle
    i64 radius, low[3], high[3];  // the window around the mask
    i64 planes, apart, count;     // channels of a row, numbers between two of them, numbers in all
    const T *from;
    T *to, *stored;               // of the first of these channels; a row as it is stored
    W *wide, *made, *lines, *slices;
    const W *beside[MOST_TAPS];   // `wide` moved by a pixel each
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
    i64 kernel = ((const i64 *)GIVEN(frame, number, 1))[frame->image], radius = (kernel - 1) / 2, faint = 0, unit = frame->beside;
    float sigma = ((const float *)GIVEN(frame, number, 0))[frame->image], weights[MOST_TAPS], sum = 0;
    for (i64 t = 0; t <= 2 * radius; t++) {
        float away = (float)(t - radius) / sigma;
        sum += weights[t] = expf(away * away * -0.5f);
    }
    while (faint < radius && weights[faint] / sum <= 1e-8f) faint++;  // dropped: zero times infinity would not be zero
    blur->radius = radius -= faint;
    for (i64 t = 0; t <= radius; t++) blur->taps[t] = (W)(weights[faint + t] / sum);
    i64 *low = blur->low, *high = blur->high;
    for (int d = 0; d < 3; d++) low[d] = size[d], high[d] = 0;
    Strip strip;
    for (Cursor cursor = {0}; next_strip(frame, &cursor, &strip);) {
        i64 first[3] = {strip.line / size[1], strip.line % size[1], strip.first}, along[3] = {1, strip.lines, strip.count};
        for (int d = 0; d < 3; d++) low[d] = smaller(low[d], first[d]), high[d] = larger(high[d], first[d] + along[d]);
    }
    if (low[2] == size[2] || radius == 0) return 0;
    blur->apart = padded((high[2] - low[2] + 2 * radius) * unit);
    blur->planes = larger(smaller(frame->picture->channels / unit, ROW / blur->apart), 1);
    i64 row = blur->planes * blur->apart, wide = row + padded(2 * radius * unit + PAD);
    blur->wide = frame->memory;
    blur->made = blur->wide + wide;
    blur->stored = (T *)(void *)(blur->made + row);
    blur->lines = blur->made + 2 * row;
    blur->slices = blur->lines + smaller(2 * radius + 1, size[1]) * row;
    memset(blur->wide, 0, (size_t)wide * sizeof(W));
    for (i64 t = 0; t <= 2 * radius; t++) blur->beside[t] = blur->wide + t * unit;
    return 1;
}

// A line of the window in all channels of a row, filtered along itself.
static void NAME(along)(const Frame *frame, const NAME(Blur) *blur, i64 line, W *out) {
    i64 unit = frame->beside, first = blur->low[2] - blur->radius, end = blur->high[2] + blur->radius;
    i64 inside = larger(first, 0), outside = smaller(end, frame->width);
    for (i64 p = 0; p < blur->planes; p++) {
        const T *restrict from = blur->from + p * frame->pixels + line * frame->width * unit;
        W *restrict wide = blur->wide + p * blur->apart - first * unit;
        i64 start = inside * unit, count = (outside - inside) * unit;
        // a whole number of blocks where the channel goes on so far: what is too much is overwritten
        if (line * frame->width * unit + start + padded(count) <= frame->pixels * unit) count = padded(count);
        for (i64 i = 0; i < count; i++) wide[start + i] = LOAD(from[start + i]);
        for (int side = 0; side < 2; side++)  // beyond the borders
            for (i64 x = side ? outside : first; x < (side ? end : inside); x++)
                for (i64 c = 0; c < unit; c++) wide[x * unit + c] = LOAD(from[fold(x, frame->width) * unit + c]);
    }
    NAME(weigh)(blur->beside, blur->taps, blur->radius, blur->count, out);
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

static void NAME(put)(const Frame *frame, const NAME(Blur) *blur, i64 line) {
    const u64 *bits = frame->here + (line - frame->first) * frame->words;
    i64 unit = frame->beside, count = blur->count;
    const T *stored = (const T *)(const void *)blur->made;
    if (sizeof(T) < sizeof(W)) {
        const W *restrict made = blur->made;
        T *restrict rounded = blur->stored;
        for (i64 x = 0; x < count; x++) rounded[x] = STORE(made[x]);
        stored = rounded;
    }
    for (i64 end, x = next_bit(bits, frame->width, blur->low[2], 0); x < frame->width; x = next_bit(bits, frame->width, end, 0)) {
        end = next_bit(bits, frame->width, x, ~0ull);
        copy_lines(blur->to + (line * frame->width + x) * unit, frame->pixels * (i64)sizeof(T), stored + (x - blur->low[2]) * unit,
                   blur->apart * (i64)sizeof(T), (end - x) * unit * (i64)sizeof(T), blur->planes);
    }
}

// The window in one slice, filtered along both of its axes: kept in `slice`, or without one written to its place.
static void NAME(across)(const Frame *frame, const NAME(Blur) *blur, i64 z, W *slice) {
    static const W alone[1] = {1};
    i64 tall = frame->picture->size[1], radius = tall > 1 ? blur->radius : 0, kept = smaller(2 * radius + 1, tall);
    i64 next = larger(blur->low[1] - radius, 0), count = blur->count;
    const W *rows[MOST_TAPS], *taps = radius ? blur->taps : alone;
    for (i64 y = blur->low[1]; y < blur->high[1]; y++) {
        for (; next < tall && next <= y + radius; next++)
            NAME(along)(frame, blur, z * tall + next, blur->lines + next % kept * count);
        NAME(around)(blur->lines, y, radius, tall, count, rows);
        NAME(weigh)(rows, taps, radius, count, slice ? slice + (y - blur->low[1]) * count : blur->made);
        if (!slice) NAME(put)(frame, blur, z * tall + y);
    }
}

// The window of all slices.
static void NAME(through)(const Frame *frame, const NAME(Blur) *blur) {
    i64 deep = frame->picture->size[0], tall = frame->picture->size[1], radius = blur->radius, count = blur->count;
    i64 lines = (blur->high[1] - blur->low[1]) * count, kept = smaller(2 * radius + 1, deep);
    i64 next = larger(blur->low[0] - radius, 0);
    for (i64 z = blur->low[0]; z < blur->high[0]; z++) {
        const W *slices[MOST_TAPS];
        for (; next < deep && next <= z + radius; next++) NAME(across)(frame, blur, next, blur->slices + next % kept * lines);
        NAME(around)(blur->slices, z, radius, deep, lines, slices);
        for (i64 y = blur->low[1]; y < blur->high[1]; y++) {
            NAME(weigh)(slices, blur->taps, radius, count, blur->made);
            if (z * tall + y >= frame->first && z * tall + y < frame->last) NAME(put)(frame, blur, z * tall + y);
            for (i64 t = 0; t <= 2 * radius; t++) slices[t] += count;
        }
    }
}

static void NAME(blur)(const Frame *frame, i64 number) {
    NAME(Blur) blur;
    if (!NAME(prepare)(frame, number, &blur)) return;
    T *now = NAME(now)(frame), *aside = frame->call->phase == READ ? (T *)frame->call->aside + (now - (T *)frame->call->now) : now;
    i64 channels = frame->picture->channels / frame->beside, most = blur.planes;
    for (i64 p = 0; p < channels; p += most) {
        blur.planes = smaller(most, channels - p);
        blur.count = blur.planes * blur.apart;
        blur.from = now + p * frame->pixels;
        blur.to = aside + p * frame->pixels;
        if (frame->picture->size[0] > 1) NAME(through)(frame, &blur);
        else NAME(across)(frame, &blur, 0, 0);
    }
}

// What a blur has left aside, put in its place.
static void NAME(merge)(const Frame *frame, i64 number) {
    NAME(Blur) blur;
    if (!NAME(prepare)(frame, number, &blur)) return;
    i64 unit = frame->beside, line = frame->width * unit * (i64)sizeof(T);
    T *now = NAME(now)(frame), *aside = (T *)frame->call->aside + (now - (T *)frame->call->now);
    Strip strip;
    for (Cursor cursor = {0}; next_strip(frame, &cursor, &strip);)
        for (i64 p = 0; p < frame->picture->channels / unit; p++) {
            i64 at = p * frame->pixels + (strip.line * frame->width + strip.first) * unit;
            copy_lines(now + at, line, aside + at, line, strip.count * unit * (i64)sizeof(T), strip.lines);
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
