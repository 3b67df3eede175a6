// From a plan to pixels, image by image and step by step.
#ifdef __linux__
#define _DEFAULT_SOURCE  // madvise
#include <sys/mman.h>
#endif
#include "paint.h"

#include <math.h>

static inline float as_float(u32 bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline u32 as_bits(float value) {
    u32 bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float from_half(u16 half) {
    u32 sign = (u32)(half & 0x8000) << 16, rest = half & 0x7FFF, wide = rest << 13;
    float small = (float)(i32)rest * 0x1p-24f;
    u32 bits = rest < 0x400 ? as_bits(small) : rest < 0x7C00 ? wide + (112u << 23) : wide | 0x7F800000;
    return as_float(bits | sign);
}

static inline u16 to_half(float value) {  // to the nearest, ties to even
    u32 bits = as_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
    u32 small = as_bits(as_float(rest) + 0.5f) - 0x3F000000, normal = (rest - (112u << 23) + 0xFFF + (rest >> 13 & 1)) >> 13;
    u32 half = rest < 0x38800000 ? small : rest < 0x47800000 ? normal : rest > 0x7F800000 ? 0x7E00 : 0x7C00;
    return (u16)(sign | half);
}

static inline float from_brain(u16 brain) { return as_float((u32)brain << 16); }

static inline u16 to_brain(float value) {
    u32 bits = as_bits(value);
    return (u16)((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline u8 to_byte(float value) {
    value = value > 0.0f ? value : 0.0f;
    return (u8)(i32)rintf(value < 255.0f ? value : 255.0f);
}

#define DTYPE float32
#define T float
#define W float
#define LOAD(x) (x)
#define STORE(w) ((float)(w))
#include "pixels.h"
#include "blur.h"

#define DTYPE float64
#define T double
#define W double
#define LOAD(x) (x)
#define STORE(w) ((double)(w))
#include "pixels.h"
#include "blur.h"

#define DTYPE float16
#define T u16
#define W float
#define LOAD(x) from_half(x)
#define STORE(w) to_half(w)
#include "pixels.h"
#include "blur.h"

#define DTYPE bfloat16
#define T u16
#define W float
#define LOAD(x) from_brain(x)
#define STORE(w) to_brain(w)
#include "pixels.h"
#include "blur.h"

#define DTYPE uint8
#define T u8
#define W float
#define LOAD(x) ((float)(x))
#define STORE(w) to_byte(w)
#include "pixels.h"
#include "blur.h"

static const Painters *const PAINTERS[] = {  // by Picture.type
    &painters_float32, &painters_float64, &painters_float16, &painters_bfloat16, &painters_uint8,
};

// The bits of bytes that are not 0; `and` keeps only those that are set already.
static void bits_of(const u8 *bytes, i64 width, u64 *line, int and) {
    for (i64 k = 0; 64 * k < width; k++) {
        u64 word = 0;
        for (i64 x = 64 * k, end = smaller(x + 64, width); x < end; x++) word |= (u64)(bytes[x] != 0) << (x % 64);
        line[k] = and ? line[k] & word : line[k] | word;
    }
}

// The bits of a place, with the maps of the caller.
static void fill_bits(const Frame *frame, i64 place, int forced) {
    const Picture *picture = frame->picture;
    const PaintCall *call = frame->call;
    i64 lines = frame->last - frame->first, start = frame->first * frame->width, words = frame->words;
    const u8 *bytes = frame->rows < 0 ? (const u8 *)call->given[2 * place] + frame->planned * frame->pixels : 0;
    const u8 *more = forced ? call->forced + frame->image * call->forced_apart : 0;
    const u8 *only = call->allowed ? call->allowed + frame->image * call->allowed_apart : 0;
    memset(frame->here, 0, (size_t)(lines * words) * 8);
    for (i64 r = 0; r < frame->rows; r++) {
        Box box;
        if (!read_box(picture, frame->row + r * 2 * picture->dims, frame->edges, &box)) continue;
        EACH_WORD(&box, frame->width, k, bits)
            EACH_LINE(&box, picture->size, line)
                if (line >= frame->first && line < frame->last) frame->here[(line - frame->first) * words + k] |= bits;
    }
    if (!bytes && !frame->edges[3] && !more && !only) return;
    for (i64 i = 0, at = start; i < lines; i++, at += frame->width) {
        u64 *line = frame->here + i * words;
        if (bytes) bits_of(bytes + at, frame->width, line, 0);
        if (frame->edges[3]) for (i64 k = 0; k < words; k++) line[k] = ~line[k] & bits_in(k, 0, frame->width);
        if (more) bits_of(more + at, frame->width, line, 0);
        if (only) bits_of(only + at, frame->width, line, 1);
    }
}

// How many rows of boxes there are up to the last one that is not empty.
static i64 used_rows(const i32 *row, i64 rows, i64 numbers) {
    enum { MANY = 16 };
    i64 last = larger(rows, 0) * numbers;
    for (i32 any = 0; last >= MANY; last -= MANY) {
        for (i64 k = 1; k <= MANY; k++) any |= row[last - k];
        if (any) break;
    }
    while (last > 0 && !row[last - 1]) last--;
    return (last + numbers - 1) / numbers;
}

// Do a step where it works. What looks at no pixel that it paints goes box by box, whether they overlap or not.
static void work(Frame *frame, i64 number, Painter *painter) {
    const Picture *picture = frame->picture;
    const PaintCall *call = frame->call;
    const u8 *active = call->active + frame->planned * picture->steps;
    const Step *step = picture->step + number;
    i64 place = step->place, rows = (i64)(intptr_t)call->given[2 * place + 1], numbers = 2 * picture->dims;
    int forced = call->forced != 0;
    for (i64 before = 0; before < number; before++) forced = forced && !active[before];
    frame->edges = picture->reading + 4 * place;
    frame->row = (const i32 *)call->given[2 * place] + frame->planned * larger(rows, 0) * numbers;
    frame->rows = rows < 0 ? rows : used_rows(frame->row, rows, numbers);
    int boxes = rows >= 0 && !frame->edges[3] && !call->allowed && !forced, blurs = step->operation == BLUR;
    if (step->operation == GREY) boxes = boxes && frame->rows <= 1;
    if (!boxes || blurs) fill_bits(frame, place, forced);  // a blur puts what it has made line by line
    if (!boxes) frame->rows = -1;
    painter(frame, number);
}

static void paint(Frame *frame) {
    const Picture *picture = frame->picture;
    const PaintCall *call = frame->call;
    const Painters *painters = PAINTERS[picture->type];
    frame->mask = call->mask + frame->image * frame->pixels;
    if (call->begins) {
        memset(frame->mask + frame->first * frame->width, 0, (size_t)((frame->last - frame->first) * frame->width));
        painters->begin(frame);
    }
    for (i64 step = call->first_step; step < call->last_step; step++)
        if (call->active[frame->planned * picture->steps + step])
            work(frame, step, call->phase == MERGE ? painters->merge : painters->operation[picture->step[step].operation]);
}

static const i64 SIZES[] = {4, 8, 2, 2, 1};  // bytes of a number, by Picture.type

static i64 lay_out(const Picture *picture, i64 bands, Frame *frame, u8 *memory) {
    i64 lines = picture->size[0] * picture->size[1], width = picture->size[2], unit = picture->interleaved ? picture->channels : 1;
    i64 bits = (lines + bands - 1) / bands * words_of(width) * 8, reach = 0, bytes = 0;
    for (i64 s = 0; s < picture->steps; s++)
        if (picture->step[s].operation == BLUR) reach = larger(reach, picture->step[s].taps / 2);
    i64 rows = 3 + smaller(2 * reach + 1, picture->size[1]);
    if (picture->size[0] > 1) rows += smaller(2 * reach + 1, picture->size[0]) * picture->size[1];
    i64 blur = (rows * larger(padded((width + 2 * reach) * unit), ROW) + padded(2 * reach * unit + PAD)) * 8;
    i64 clean = picture->from_bytes == ONE_CLEAN && bands == 1 ? lines * width * picture->channels * SIZES[picture->type] : 0;
    i64 places = (picture->size[0] + picture->size[1] + 4 * reach) * (i64)sizeof(void *);
    i64 sizes[5] = {bits, 16 * picture->channels, reach ? blur : 0, reach ? places : 0, clean};
    void **parts[5] = {(void **)&frame->here, &frame->numbers, &frame->memory, &frame->places, &frame->clean};
    for (int k = 0; k < 5; bytes += whole(sizes[k++], 64))
        if (memory) *parts[k] = sizes[k] ? memory + bytes : 0;
    return bytes;
}

// Ask for large pages where a result is new memory: most of the time of a large call would be the faults of small ones.
void gmml_new_memory(u8 *memory, i64 bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = 1 << 16;  // the largest that a processor has
    const uintptr_t first = ((uintptr_t)memory + page - 1) / page * page, end = ((uintptr_t)memory + (uintptr_t)bytes) / page * page;
    if (end > first) madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

i64 gmml_paint_memory(const Picture *picture, i64 bands) {
    Frame frame;
    return lay_out(picture, bands, &frame, 0);
}

// A plan of one image, and calls that read and write it, in a thread's own memory; with none given, only measured.
static i64 lay_out_plan(const Program *program, const PaintCall *call, u8 *memory, PlanCall **plan, PaintCall **own) {
    i64 dims = program->dims, places = program->places, steps = program->steps, bytes = 0;
    i64 drawn = whole(larger(8 * dims, 4 * program->channels), 64);  // bytes of a tensor of a step, at most
#define PART(count) (bytes += whole(count, 64), memory ? memory + bytes - whole(count, 64) : 0)
    *plan = (PlanCall *)(void *)PART((i64)sizeof(PlanCall) + 8 * (places + 2 * steps));
    *own = (PaintCall *)(void *)PART((i64)sizeof(PaintCall) + 16 * (places + steps));
    u8 *active = PART(steps);
    if (memory) {
        **plan = (PlanCall){.donors = call->donors_count, .from_batch = call->from_batch, .keys = call->keys, .active = active};
        **own = *call;
        (*own)->active = active;
    }
    for (i64 p = 0; p < places; p++) {
        i64 rows = program->place[p].rows;
        u8 *boxes = PART(rows * 2 * dims * (i64)sizeof(i32));
        if (memory) (*plan)->out[p] = (*own)->given[2 * p] = boxes, (*own)->given[2 * p + 1] = (void *)(intptr_t)rows;
    }
    for (i64 k = 0; k < 2 * steps; k++) {
        u8 *tensor = PART(drawn);
        if (memory) (*plan)->out[places + k] = (*own)->given[2 * places + k] = tensor;
    }
    return bytes;
}

// What a thread needs beside the memory for painting where it plans its images itself.
i64 gmml_image_memory(const Program *program) {
    PlanCall *plan;
    PaintCall *own;
    return lay_out_plan(program, 0, 0, &plan, &own) + gmml_plan_memory(program);
}

// Paint images, or bands of lines of them, that no other thread has taken, until none is left.
void gmml_paint(const Picture *picture, PaintCall *call, u8 *memory) {
    i64 lines = picture->size[0] * picture->size[1], channels = picture->channels;
    Frame frame = {.picture = picture, .call = call, .width = picture->size[2], .words = words_of(picture->size[2])};
    frame.pixels = lines * frame.width;
    frame.beside = picture->interleaved ? channels : 1;
    frame.apart = picture->interleaved ? 1 : frame.pixels;
    memset(frame.ones, 1, BLOCK);
    memory += lay_out(picture, call->bands, &frame, memory);
    PlanCall *plan = 0;
    PaintCall *own;
    if (call->program) {
        memory += lay_out_plan(call->program, call, memory, &plan, &own);
        frame.call = own;
    }
    for (;;) {
        i64 unit = __atomic_fetch_add(&call->next, 1, __ATOMIC_RELAXED), band = unit % call->bands;
        frame.image = unit / call->bands;
        if (frame.image >= call->batch) return;
        frame.planned = plan ? 0 : frame.image;
        if (plan) gmml_plan_image(call->program, plan, frame.image, 0, memory);
        i64 tall = (lines + call->bands - 1) / call->bands;
        frame.first = smaller(band * tall, lines);
        frame.last = smaller((band + 1) * tall, lines);
        if (frame.first < frame.last) paint(&frame);
    }
}

static int check_boxes(const Picture *picture, const PaintCall *call) {
    i64 dims = picture->dims;
    const i64 *size = picture->size + 3 - dims;
    for (i64 p = 0; p < picture->places; p++) {
        i64 rows = larger((i64)(intptr_t)call->given[2 * p + 1], 0);
        for (i64 image = 0; image < call->batch; image++) {
            const i32 *row = (const i32 *)call->given[2 * p] + image * rows * 2 * dims;
            for (const i32 *end = row + used_rows(row, rows, 2 * dims) * 2 * dims; row < end; row += 2 * dims)
                for (i64 d = 0; d < dims; d++)
                    if (row[d] < 0 || row[d] >= size[d] || row[dims + d] < 0 || row[dims + d] > size[d]) return 0;
        }
    }
    return 1;
}

// 0 if everything in a plan lies where it must, or what does not: 1 a box, 2 a donor, 3 a shift, 4 a number of taps, 5 a sigma.
i64 gmml_check(const Picture *picture, const PaintCall *call) {
    if (!check_boxes(picture, call)) return 1;
    for (i64 s = 0; s < picture->steps; s++) {
        const Step *step = picture->step + s;
        void *const *given = call->given + 2 * picture->places + 2 * s;
        for (i64 image = 0; image < call->batch; image++) {
            if (!call->active[image * picture->steps + s]) continue;
            if (step->operation == TAKE && step->kind & OTHER) {
                i64 donor = ((const i64 *)given[0])[image];
                if (donor < 0 || donor >= call->donors_count) return 2;
            }
            if (step->operation == TAKE && step->kind & MOVED)
                for (i64 d = 0; d < picture->dims; d++) {
                    i64 shift = ((const i64 *)given[step->kind & OTHER ? 1 : 0])[image * picture->dims + d];
                    if (shift < 0 || shift >= picture->size[3 - picture->dims + d]) return 3;
                }
            if (step->operation == BLUR) {
                float sigma = ((const float *)given[0])[image];
                i64 taps = ((const i64 *)given[1])[image];
                if (taps < 1 || taps > step->taps) return 4;
                if (!(sigma > 0.0f && sigma < INFINITY)) return 5;
            }
        }
    }
    return 0;
}

const u64 gmml_sources = GMML_SOURCES;  // what it was compiled from
const i64 gmml_sizes[] = {sizeof(Gate), sizeof(Place), sizeof(Draws), sizeof(Program), sizeof(Step), sizeof(Picture)};
