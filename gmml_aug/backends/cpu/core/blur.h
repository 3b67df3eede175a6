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
    const W **line_at, **slice_at;  // in the rings, from the first one that is within reach of the window: folded at the borders
    i64 folded, beyond[MOST_TAPS][2];  // pixels of a line beyond the borders, and those that they are folded to, as in `wide`
} NAME(Blur);

// Sum rows symmetrically from one of their numbers on: the middle one times its tap, then the pairs around it; a block of sums
// stays in registers.
static void NAME(weigh)(const W *const *rows, const W *taps, i64 radius, i64 first, i64 count, W *restrict out) {
    typedef W Block __attribute__((vector_size(BLOCK_BYTES), aligned(sizeof(W)), may_alias));
    for (i64 x = 0; x < count; x += (i64)(sizeof(Block) / sizeof(W))) {
        Block sum = *(const Block *)(rows[radius] + first + x) * taps[radius];
        for (i64 t = 0; t < radius; t++)
            sum += (*(const Block *)(rows[t] + first + x) + *(const Block *)(rows[2 * radius - t] + first + x)) * taps[t];
        *(Block *)(out + x) = sum;
    }
}

static int NAME(prepare)(const Frame *frame, i64 number, NAME(Blur) *blur) {
    const i64 *size = frame->picture->size;
    i64 kernel = ((const i64 *)GIVEN(frame, number, 1))[frame->planned], radius = (kernel - 1) / 2, faint = 0, unit = frame->beside;
    float sigma = ((const float *)GIVEN(frame, number, 0))[frame->planned], weights[MOST_TAPS], sum = 0;
    for (i64 t = 0; t <= radius; t++) {
        float away = (float)(t - radius) / sigma;
        weights[t] = weights[2 * radius - t] = expf(away * away * -0.5f);
    }
    for (i64 t = 0; t <= 2 * radius; t++) sum += weights[t];
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
    blur->line_at = frame->places;
    blur->slice_at = blur->line_at + size[1] + 2 * radius;
    memset(blur->wide, 0, (size_t)wide * sizeof(W));
    for (i64 t = 0; t <= 2 * radius; t++) blur->beside[t] = blur->wide + t * unit;
    blur->folded = 0;
    for (i64 x = low[2] - radius, end = high[2] + radius; x < end; x++)
        if (x < 0 || x >= size[2]) {
            i64 *pair = blur->beyond[blur->folded++];
            pair[0] = (x - low[2] + radius) * unit, pair[1] = (fold(x, size[2]) - low[2] + radius) * unit;
        }
    return 1;
}

// A line of the window in all channels of a row, filtered along itself.
static void NAME(along)(const Frame *frame, const NAME(Blur) *blur, i64 line, W *out) {
    i64 unit = frame->beside, first = blur->low[2] - blur->radius, end = blur->high[2] + blur->radius;
    i64 inside = larger(first, 0) * unit, count = smaller(end, frame->width) * unit - inside;
    // a whole number of blocks where the channel goes on so far: what is too much is overwritten
    if (line * frame->width * unit + inside + padded(count) <= frame->pixels * unit) count = padded(count);
    for (i64 p = 0; p < blur->planes; p++) {
        const T *restrict from = blur->from + p * frame->pixels + line * frame->width * unit + inside;
        W *restrict wide = blur->wide + p * blur->apart, *restrict start = wide + inside - first * unit;
        for (i64 i = 0; i < count; i++) start[i] = LOAD(from[i]);
        for (i64 k = 0; k < blur->folded; k++)
            for (i64 c = 0; c < unit; c++) wide[blur->beyond[k][0] + c] = wide[blur->beyond[k][1] + c];
    }
    NAME(weigh)(blur->beside, blur->taps, blur->radius, 0, blur->count, out);
}

// Where filtered lines (or slices) stand in a ring of `kept`, from `first` to `end - 1`: rows that follow each other here do so there.
static void NAME(find)(const W *ring, i64 kept, i64 apart, i64 first, i64 end, i64 length, const W **at) {
    for (i64 y = first; y < end; y++) *at++ = ring + fold(y, length) % kept * apart;
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
        Rows to = {blur->to + (line * frame->width + x) * unit, 0, frame->pixels * (i64)sizeof(T)};
        Rows from = {(T *)stored + (x - blur->low[2]) * unit, 0, blur->apart * (i64)sizeof(T)};
        copy_rows(to, from, (end - x) * unit * (i64)sizeof(T), 1, blur->planes);
    }
}

// The window in one slice, filtered along both of its axes: kept in `slice`, or without one written to its place.
static void NAME(across)(const Frame *frame, const NAME(Blur) *blur, i64 z, W *slice) {
    static const W alone[1] = {1};
    i64 tall = frame->picture->size[1], radius = tall > 1 ? blur->radius : 0, kept = smaller(2 * radius + 1, tall);
    i64 first = blur->low[1] - radius, next = larger(first, 0), slot = next % kept, count = blur->count;
    for (i64 y = blur->low[1]; y < blur->high[1]; y++) {
        for (; next < tall && next <= y + radius; next++, slot = slot + 1 < kept ? slot + 1 : 0)
            NAME(along)(frame, blur, z * tall + next, blur->lines + slot * count);
        W *made = slice ? slice + (y - blur->low[1]) * count : blur->made;
        NAME(weigh)(blur->line_at + y - radius - first, radius ? blur->taps : alone, radius, 0, count, made);
        if (!slice) NAME(put)(frame, blur, z * tall + y);
    }
}

// The window of all slices.
static void NAME(through)(const Frame *frame, const NAME(Blur) *blur) {
    i64 deep = frame->picture->size[0], tall = frame->picture->size[1], radius = blur->radius, count = blur->count;
    i64 lines = (blur->high[1] - blur->low[1]) * count, kept = smaller(2 * radius + 1, deep);
    i64 first = blur->low[0] - radius, next = larger(first, 0);
    for (i64 z = blur->low[0]; z < blur->high[0]; z++) {
        for (; next < deep && next <= z + radius; next++) NAME(across)(frame, blur, next, blur->slices + next % kept * lines);
        for (i64 y = blur->low[1]; y < blur->high[1]; y++) {
            NAME(weigh)(blur->slice_at + z - radius - first, blur->taps, radius, (y - blur->low[1]) * count, count, blur->made);
            if (z * tall + y >= frame->first && z * tall + y < frame->last) NAME(put)(frame, blur, z * tall + y);
        }
    }
}

static void NAME(blur)(const Frame *frame, i64 number) {
    NAME(Blur) blur;
    if (!NAME(prepare)(frame, number, &blur)) return;
    T *now = NAME(now)(frame), *aside = frame->call->phase == READ ? (T *)frame->call->aside + (now - (T *)frame->call->now) : now;
    const i64 *size = frame->picture->size, *low = blur.low, *high = blur.high;
    i64 channels = frame->picture->channels / frame->beside, most = blur.planes, around[2];  // rows within reach that are kept
    for (int d = 0; d < 2; d++) around[d] = size[d] > 1 ? blur.radius : 0;
    for (i64 p = 0; p < channels; p += most) {
        blur.planes = smaller(most, channels - p);
        blur.count = blur.planes * blur.apart;
        blur.from = now + p * frame->pixels;
        blur.to = aside + p * frame->pixels;
        NAME(find)(blur.lines, smaller(2 * around[1] + 1, size[1]), blur.count, low[1] - around[1], high[1] + around[1], size[1],
                   blur.line_at);
        NAME(find)(blur.slices, smaller(2 * around[0] + 1, size[0]), (high[1] - low[1]) * blur.count, low[0] - around[0],
                   high[0] + around[0], size[0], blur.slice_at);
        if (size[0] > 1) NAME(through)(frame, &blur);
        else NAME(across)(frame, &blur, 0, 0);
    }
}

// What a blur has left aside, put in its place.
static void NAME(merge)(const Frame *frame, i64 number) {
    NAME(Blur) blur;
    if (!NAME(prepare)(frame, number, &blur)) return;
    i64 unit = frame->beside, line = frame->width * unit * (i64)sizeof(T), plane = frame->pixels * (i64)sizeof(T);
    T *now = NAME(now)(frame), *aside = (T *)frame->call->aside + (now - (T *)frame->call->now);
    Strip strip;
    for (Cursor cursor = {0}; next_strip(frame, &cursor, &strip);) {
        i64 at = (strip.line * frame->width + strip.first) * unit;
        copy_rows((Rows){now + at, line, plane}, (Rows){aside + at, line, plane}, strip.count * unit * (i64)sizeof(T), strip.lines,
                  frame->picture->channels / unit);
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
