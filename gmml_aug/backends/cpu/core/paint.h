// One image while it is painted: where a step works, strip by strip.
#ifndef GMML_PAINT_H
#define GMML_PAINT_H

#include "core.h"

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

enum { BLOCK = 512, PAD = 16, MOST_TAPS = 255 };  // pixels that are computed at a time, and so many more; taps of a blur
enum { BLOCK_BYTES = 64, ROW = 768 };  // of a blur: bytes that are summed at a time, numbers of a row that has several channels
enum { PIXEL = 1, CLAMP = 2 };  // flags of noise
enum { OTHER = 1, MOVED = 2 };  // flags of TAKE
enum { ONE_CLEAN = 2 };          // Picture.from_bytes
enum { ALL, READ, MERGE };      // PaintCall.phase: a blur in bands reads first, and is put in its place once all have read

typedef struct {
    const Picture *picture;
    const PaintCall *call;
    i64 image, planned;        // its number in the batch, and in the plan
    i64 first, last;           // its lines first to last - 1 are painted
    i64 width, words, pixels;  // of a line; words of its bits
    i64 apart, beside;         // numbers between two channels, and between two pixels
    u8 *mask;
    i64 rows;                  // where a step works: in so many boxes, or with -1 where bits of `here` are set
    const i32 *row;
    const i64 *edges;          // of the grid that the boxes keep to
    u64 *here;                 // bits of these lines
    void *numbers;             // two a channel
    void *memory;              // of a blur
    void *places;              // where a blur's lines and slices are kept
    void *clean;               // one image, where the clean ones are not kept
    u8 ones[BLOCK];
} Frame;

typedef struct { i64 line, first, count, lines; } Strip;  // so many pixels of each of so many lines
typedef struct { i64 row, part, parts, line, x; Box box; Strip rest, wide; } Cursor;

// The first pixel from `from` on whose bit is set (with `flip` all ones: is not set), or the width.
static inline i64 next_bit(const u64 *line, i64 width, i64 from, u64 flip) {
    if (from >= width) return width;
    i64 k = from / 64, last = (width - 1) / 64;
    u64 word = (line[k] ^ flip) & (~0ull << (from % 64));
    while (!word && k < last) word = line[++k] ^ flip;
    return word ? smaller(64 * k + __builtin_ctzll(word), width) : width;
}

typedef struct { void *first; i64 line, plane; } Rows;  // of bytes: where the first one is, bytes to the next line and plane

// Copy bytes, often few, of each of some lines of some planes: masked where the processor can do that, so that hardly anything
// depends on their number; else at both ends, with a size that the compiler knows.
static inline void copy_rows(Rows to, Rows from, i64 bytes, i64 lines, i64 planes) {
#define COPY_ROWS(body) \
    for (i64 y = 0; y < lines; y++) \
        for (i64 p = 0; p < planes; p++) { \
            u8 *t = (u8 *)to.first + y * to.line + p * to.plane; \
            const u8 *f = (const u8 *)from.first + y * from.line + p * from.plane; \
            body; \
        }
#define COPY_ENDS(size) COPY_ROWS(memcpy(t, f, size); memcpy(t + bytes - (size), f + bytes - (size), size))
    if (bytes > 128) COPY_ROWS(memcpy(t, f, (size_t)bytes))
    else if (bytes > 64) COPY_ENDS(64)
#ifdef __AVX512BW__
    else if (bytes >= 1) {
        const __mmask64 some = ~0ull >> (64 - bytes);
        COPY_ROWS(_mm512_mask_storeu_epi8(t, some, _mm512_maskz_loadu_epi8(some, f)))
    }
#else
    else if (bytes >= 32) COPY_ENDS(32)
    else if (bytes >= 16) COPY_ENDS(16)
    else if (bytes >= 8) COPY_ENDS(8)
    else if (bytes >= 4) COPY_ENDS(4)
    else if (bytes >= 1) COPY_ROWS(t[0] = f[0]; t[bytes / 2] = f[bytes / 2]; t[bytes - 1] = f[bytes - 1])
#endif
}

// A box of a place, as the reference reads it: all cells of its grid that it touches. 0: no pixels.
static inline int read_box(const Picture *picture, const i32 *row, const i64 *edges, Box *box) {
    *box = (Box){{0, 0, 0}, {1, 1, 1}};
    for (i64 d = 0; d < picture->dims; d++) {
        i64 axis = 3 - picture->dims + d, edge = edges[axis], length = picture->size[axis];
        i64 at = row[d], end = at + row[picture->dims + d];
        if (edge > 1) {
            i64 cells = (length + edge - 1) / edge, first = at / edge, last = (end + edge - 1) / edge;
            end = last > cells ? length + smaller((last - cells) * edge, first * edge) : smaller(last * edge, length);
            if (first == last) end = first * edge;
            at = first * edge;
        }
        box->at[axis] = at;
        box->size[axis] = end - at;
    }
    return volume(box) != 0;
}

// The next run of bits. 0: no more.
static inline int next_run(const Frame *frame, Cursor *at, Strip *strip) {
    for (; at->line < frame->last - frame->first; at->line++, at->x = 0) {
        const u64 *bits = frame->here + at->line * frame->words;
        i64 first = next_bit(bits, frame->width, at->x, 0);
        if (first == frame->width) continue;
        at->x = next_bit(bits, frame->width, first, ~0ull);
        *strip = (Strip){frame->first + at->line, first, at->x - first, 1};
        return 1;
    }
    return 0;
}

// The next part of a box in these lines: borders leave up to four of each of its slices. 0: no more.
static inline int next_part(const Frame *frame, Cursor *at, Strip *strip) {
    const i64 *size = frame->picture->size;
    const Box *box = &at->box;
    for (;;) {
        if (at->part == at->parts) {
            if (at->row == frame->rows) return 0;
            int any = read_box(frame->picture, frame->row + 2 * frame->picture->dims * at->row++, frame->edges, &at->box);
            at->part = 0, at->parts = any ? 4 * box->size[0] : 0;
            continue;
        }
        i64 part = at->part, x_over = box->at[2] + box->size[2] - size[2], y_over = box->at[1] + box->size[1] - size[1];
        at->part += x_over > 0 ? 1 : 2;
        if (y_over <= 0 && at->part & 2) at->part += 2;
        i64 z = box->at[0] + part / 4, slice = (z < size[0] ? z : z - size[0]) * size[1];
        i64 left = part & 1 ? 0 : box->at[2], right = part & 1 ? x_over : size[2] + smaller(x_over, 0);
        i64 top = part & 2 ? 0 : box->at[1], bottom = part & 2 ? y_over : size[1] + smaller(y_over, 0);
        top = larger(slice + top, frame->first), bottom = smaller(slice + bottom, frame->last);
        if (top >= bottom) continue;
        *strip = (Strip){top, left, right - left, bottom - top};
        return 1;
    }
}

// Where a step works, strip by strip; what is visited is marked in the mask. 0: no more.
static int next_strip(const Frame *frame, Cursor *at, Strip *strip) {
    if (!(frame->rows < 0 ? next_run(frame, at, strip) : next_part(frame, at, strip))) return 0;
    for (i64 x = 0; x < strip->count; x += BLOCK) {
        u8 *marks = frame->mask + strip->line * frame->width + strip->first + x;
        copy_rows((Rows){marks, frame->width, 0}, (Rows){(void *)frame->ones, 0, 0}, smaller(strip->count - x, BLOCK), strip->lines, 1);
    }
    return 1;
}

// Strips of a block of pixels at most, and how many pixels these are. 0: no more. What has no room is kept for the next block: the
// lines below in `rest`, the columns to the right in `wide`.
static i64 gather(const Frame *frame, Cursor *at, Strip *strips, i64 *filled) {
    i64 found = 0;
    for (*filled = 0; *filled < BLOCK; found++) {
        Strip *strip = strips + found;  // written in place: a copy of what has just been written would have to wait for it
        if (at->rest.lines) *strip = at->rest, at->rest.lines = 0;
        else if (at->wide.lines) *strip = at->wide, at->wide.lines = 0;
        else if (!next_strip(frame, at, strip)) break;
        if (strip->count > BLOCK) {
            at->wide = (Strip){strip->line, strip->first + BLOCK, strip->count - BLOCK, strip->lines};
            strip->count = BLOCK;
        }
        i64 room = BLOCK - *filled;
        if (strip->count * strip->lines > room) {
            i64 lines = room / strip->count;
            at->rest = (Strip){strip->line + lines, strip->first, strip->count, strip->lines - lines};
            strip->lines = lines;
            if (!lines) break;
        }
        *filled += strip->count * strip->lines;
    }
    return found;
}

// The next multiple of a power of two: loops without a rest.
static inline i64 whole(i64 count, i64 of) { return (count + of - 1) & -of; }
static inline i64 padded(i64 count) { return whole(count, PAD); }

// Positions outside 0 to length - 1 folded back at the borders, which are not repeated.
static inline i64 fold(i64 at, i64 length) {
    if (at >= 0 && at < length) return at;
    i64 once = at < 0 ? -at : 2 * (length - 1) - at;
    if (once >= 0 && once < length) return once;
    if (length == 1) return 0;
    i64 period = 2 * (length - 1);
    at %= period;
    if (at < 0) at += period;
    return smaller(at, period - at);
}

typedef void Painter(const Frame *frame, i64 step);
typedef struct {
    void (*begin)(const Frame *frame);
    Painter *operation[BLUR + 1];
    Painter *merge;
} Painters;

// The tensors that a step drew.
#define GIVEN(frame, step, number) \
    ((const void *)(frame)->call->given[2 * (frame)->picture->places + 2 * (step) + (number)])

#endif
