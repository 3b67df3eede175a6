// One image while it is painted, and its masks as bits.
#ifndef GMML_PAINT_H
#define GMML_PAINT_H

#include "core.h"

enum { BLOCK = 256, PAD = 16, MOST_TAPS = 255 };  // pixels that are computed at a time, and so many more; taps of a blur
enum { BLOCK_BYTES = 64 };      // of a blur's sums that are made at a time
enum { PIXEL = 1, CLAMP = 2 };  // flags of noise
enum { OTHER = 1, MOVED = 2 };  // flags of TAKE

typedef struct {
    const Picture *picture;
    const PaintCall *call;
    i64 image, first, last;    // its lines first to last - 1 are painted
    i64 width, words, pixels;  // of a line; words of its bits
    i64 apart, beside;         // numbers between two channels, and between two pixels
    u64 *here, *touched;       // bits of these lines: a step's, all steps'
    void *numbers;             // two a channel
    void *rows;                // memory of a blur
    Box box;                   // where a step works, if it is not empty; else there is `here`
} Frame;

typedef struct { i64 line, first, count; } Run;  // pixels of a line

// The first pixel from `from` on whose bit is set (with `flip` all ones: is not set), or the width.
static inline i64 next_bit(const u64 *line, i64 width, i64 from, u64 flip) {
    if (from >= width) return width;
    i64 k = from / 64, last = (width - 1) / 64;
    u64 word = (line[k] ^ flip) & (~0ull << (from % 64));
    while (!word && k < last) word = line[++k] ^ flip;
    return word ? smaller(64 * k + __builtin_ctzll(word), width) : width;
}

// Up to a block of the pixels where a step works: their runs, and in `from` where to go on. 0: no more.
static inline i64 gather(const Frame *frame, Run *from, Run *runs, i64 *filled) {
    const Box *box = &frame->box;
    i64 found = 0, width = frame->width, tall = frame->picture->size[1], count = 0, boxed = volume(box);
    for (*filled = 0; *filled < BLOCK; *filled += count) {
        i64 line = frame->first + from->line, first;
        if (boxed) {  // `from` counts in the box: of all its lines the runs are the same
            if (from->line >= box->size[0] * box->size[1]) break;
            i64 u = box->at[0], v = box->at[1] + from->line;
            if (box->size[0] > 1) u += from->line / box->size[1], v = box->at[1] + from->line % box->size[1];
            line = (u < frame->picture->size[0] ? u : u - frame->picture->size[0]) * tall + (v < tall ? v : v - tall);
            first = box->at[2] + from->first, count = box->size[2] - from->first;
            if (first >= width) first -= width;
            if (line < frame->first || line >= frame->last) count = 0;
            count = smaller(smaller(count, width - first), BLOCK - *filled);
            from->first += count;
            if (count == 0 || from->first == box->size[2]) from->line++, from->first = 0;
        } else {
            if (line >= frame->last) break;
            const u64 *bits = frame->here + from->line * frame->words;
            first = next_bit(bits, width, from->first, 0);
            count = smaller(next_bit(bits, width, first, ~0ull) - first, BLOCK - *filled);
            from->first = first + count;
            if (count == 0) from->line++, from->first = 0;
        }
        if (count) runs[found++] = (Run){line, first, count};
    }
    return found;
}

// A copy of bytes that are often few.
static inline void copy(void *to, const void *from, i64 bytes) {
    u8 *t = to;
    const u8 *f = from;
#define COPY_ENDS(size) (memcpy(t, f, size), memcpy(t + bytes - (size), f + bytes - (size), size))
    if (bytes > 128) memcpy(t, f, (size_t)bytes);
    else if (bytes >= 64) COPY_ENDS(64);
    else if (bytes >= 32) COPY_ENDS(32);
    else if (bytes >= 16) COPY_ENDS(16);
    else if (bytes >= 8) COPY_ENDS(8);
    else if (bytes >= 4) COPY_ENDS(4);
    else if (bytes >= 1) t[0] = f[0], t[bytes / 2] = f[bytes / 2], t[bytes - 1] = f[bytes - 1];
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

enum { ALL, READ, MERGE };     // PaintCall.phase: a blur in bands reads first, and is put in its place once all have read

// The tensors that a step drew.
#define GIVEN(frame, step, number) \
    ((const void *)(frame)->call->given[2 * (frame)->picture->places + 2 * (step) + (number)])

#endif
