// What the core's files share: the structs that Python fills, chance, and sets of pixels as bits.
//
// Images are seen with three axes, the missing ones in front and of length 1; a *line* is one run along the last axis. Every field of
// a struct has 8 bytes, and `layout.py` lists the same fields in the same order. The caller gives all memory; nothing here allocates.
#ifndef GMML_CORE_H
#define GMML_CORE_H

#include <stdint.h>
#include <string.h>

typedef int32_t i32;
typedef int64_t i64;
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

enum { WHOLE, BOXES, CELLS, BLOCKS };                    // Place.kind
enum { WRAP, INSIDE, ORIGIN };                           // Place.placement
enum { NOTHING, KEY, COLOUR_DRAWN, COLOUR_FIXED, DONOR, SHIFT, DONOR_SHIFT, GAUSSIAN };  // Draws.law
enum { ZEROS, DRAWN, MEAN, TAKE, NOISE, GREY, BLUR };    // Step.operation
enum { TABLE, BYTES, NORMAL, UNIFORM, MATCHED };         // Step.kind of noise
enum { GATES_STREAM, BOXES_STREAM, FIRST_STREAM };       // streams of a key

typedef struct {
    i64 draw;          // number of the uniform draw
    double low, high;  // open where low <= u < high; both are float32 numbers
} Gate;

typedef struct {       // where, and the law by which its boxes are drawn; arrays have an entry an axis
    i64 kind, free;    // how many axes it draws on: the last ones of the arrays, the others have length 1
    i64 axis[3];       // the axis of the image
    i64 size[3];
    i64 step[3];       // edge of the grid
    i64 least[3], values[3], corners[3];  // Boxes.sides
    i64 placement, overshoot;
    i64 boxes;         // how many are drawn, at most
    i64 covers;        // 1: until as many pixels are covered as `least_amount` and `amounts` say, else they are about the number
    i64 least_amount, amounts;
    i64 word, rows;    // the first of its words; rows of its tensor
    i64 step_list, steps;  // in Program.numbers: the numbers of its steps
    double share, share_span, stretch, stretch_span;  // of blocks
} Place;

typedef struct {       // what a step draws for an image
    i64 law, works;    // works: 0 where it cannot change such images
    i64 gate, gates;   // in Program.gate
    i64 budget_list, budgets;  // in Program.numbers
    i64 least, values, constants;  // constants: in Program.constants
    double low, span;
} Draws;

typedef struct {       // what a plan is made from
    i64 dims, channels, size[3];
    i64 steps, places, budgets, words;  // words: of one bitmap
    const Draws *draws;
    const Place *place;
    const Gate *gate;
    const i64 *numbers, *limits;  // limits: pixels a budget
    const double *constants;
} Program;

typedef struct {       // one plan
    i64 batch, donors, from_batch, next;  // next: the first image that nobody has taken
    const i64 *keys;
    u8 *active;
    void *out[];       // the boxes of every place, then two tensors a step
} PlanCall;

typedef struct {       // what a step does to pixels
    i64 operation, place, kind, flags;  // flags of noise: 1 a pixel, 2 clamped; of TAKE: 1 a donor, 2 moved; of GREY: 1 in units
    i64 constants, taps;  // taps: the most
} Step;

typedef struct {       // what is painted
    i64 dims, channels, size[3], interleaved, type;
    i64 from_bytes;    // 1: bytes are normalised; ONE_CLEAN: for a call without ``clean``, in one piece: a thread has one clean image
    i64 steps, places;
    const Step *step;
    const i64 *reading;  // per place: three edges of its grid, 1 if inverted
    const double *constants;
    const float *normal;  // 65,536 normal numbers in the order of their 16 bits
    const void *normal_typed;  // the same in the dtype of the images
} Picture;

typedef struct {       // one batch
    i64 batch, donors_count, first_step, last_step, begins, bands, phase, next;
    const void *images, *donors;
    void *now, *clean, *aside;  // aside: where a blur of a band goes until all bands have read
    u8 *mask;
    const u8 *active, *allowed, *forced;
    i64 allowed_apart, forced_apart;  // bytes between the maps of two images
    const Program *program;  // by which an image is planned just before it is painted; 0: `active` and `given` are a plan of all
    const i64 *keys;
    i64 from_batch;
    void *given[];     // per place the boxes or bytes and the number of rows (-1: bytes), then two tensors a step
} PaintCall;

// The plan of an image, written as number `at` of a call; and memory for that.
i64 gmml_plan_memory(const Program *program);
void gmml_plan_image(const Program *program, const PlanCall *call, i64 image, i64 at, u8 *bytes);

static inline u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static inline u64 stream(u64 key, u64 number) { return mix(key + mix(number + 1)); }
static inline u64 high_half(u64 word) { return word >> 32; }
static inline u64 low_half(u64 word) { return word & 0xFFFFFFFFu; }
static inline i64 scale(u64 half, i64 span) { return (i64)(half * (u64)span) >> 32; }
static inline float uniform(u64 word) { return (float)(word >> 40) * 0x1p-24f; }

static inline i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 larger(i64 a, i64 b) { return a > b ? a : b; }

typedef struct { i64 at[3], size[3]; } Box;  // continues at the opposite border

static inline i64 volume(const Box *box) { return box->size[0] * box->size[1] * box->size[2]; }
static inline i64 words_of(i64 length) { return (length + 63) / 64; }

// Bits first to end - 1, as far as they lie in word k.
static inline u64 bits_in(i64 k, i64 first, i64 end) {
    i64 low = larger(first - 64 * k, 0), high = smaller(end - 64 * k, 64);
    return low < high ? (~0ull << low) & (~0ull >> (64 - high)) : 0;
}

// Visit the lines of a box in its own order; `line` counts the lines of an image.
#define EACH_LINE(box, length, line) \
    for (i64 i_ = 0, u_ = (box)->at[0]; i_ < (box)->size[0]; i_++, u_ = u_ + 1 < (length)[0] ? u_ + 1 : 0) \
        for (i64 j_ = 0, v_ = (box)->at[1], line = u_ * (length)[1] + v_; j_ < (box)->size[1]; \
             j_++, v_ = v_ + 1 < (length)[1] ? v_ + 1 : 0, line = u_ * (length)[1] + v_)

// Bits of the pixels of a box in word k of a line.
static inline u64 box_bits(const Box *box, i64 width, i64 k) {
    i64 end = box->at[2] + box->size[2];
    return bits_in(k, box->at[2], smaller(end, width)) | bits_in(k, 0, end - width);
}

// Visit the words of a line in which a box has pixels, with the bits of these.
#define EACH_WORD(box, width, k, bits) \
    for (i64 k = 0, words_ = words_of(width); k < words_; k++) \
        for (u64 bits = box_bits(box, width, k), once_ = bits; once_; once_ = 0)

#endif
