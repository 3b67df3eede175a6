// One image while it is painted, and its masks as bits.
#ifndef GMML_PAINT_H
#define GMML_PAINT_H

#include "core.h"

enum { BLOCK = 256, MOST_TAPS = 255 };  // pixels that are computed at a time; taps of a blur
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
} Frame;

// Visit the runs of set bits on the frame's lines: pixels first to end - 1 of a line.
#define EACH_RUN(frame, line, first, end) \
    for (i64 line = (frame)->first; line < (frame)->last; line++) \
        for (i64 first = next_bit((frame)->here + (line - (frame)->first) * (frame)->words, (frame)->width, 0, 0), end; \
             first < (frame)->width && \
             (end = next_bit((frame)->here + (line - (frame)->first) * (frame)->words, (frame)->width, first, ~0ull), 1); \
             first = next_bit((frame)->here + (line - (frame)->first) * (frame)->words, (frame)->width, end, 0))

// The first pixel from `from` on whose bit is set (with `flip` all ones: is not set), or the width.
static inline i64 next_bit(const u64 *line, i64 width, i64 from, u64 flip) {
    if (from >= width) return width;
    i64 k = from / 64, last = (width - 1) / 64;
    u64 word = (line[k] ^ flip) & (~0ull << (from % 64));
    while (!word && k < last) word = line[++k] ^ flip;
    return word ? smaller(64 * k + __builtin_ctzll(word), width) : width;
}

// A whole number of blocks of numbers of any size.
static inline i64 padded(i64 count) { return (count + BLOCK_BYTES / 4 - 1) / (BLOCK_BYTES / 4) * (BLOCK_BYTES / 4); }

// Positions outside 0 to length - 1 folded back at the borders, which are not repeated.
static inline i64 fold(i64 at, i64 length) {
    if (at >= 0 && at < length) return at;
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
