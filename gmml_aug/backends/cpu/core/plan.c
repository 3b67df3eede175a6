// From keys to a plan: which steps work, where, after stops, trims and budgets, and what they draw. Equal to the reference's integers.
#include "core.h"

#include <math.h>

enum { MOST_MISSES = 10 };

typedef struct {       // memory for one image
    u64 *own;          // pixels that the place has covered so far
    u64 *taken;        // a bitmap a budget
    i64 *used;         // pixels in it
    u8 *counts;        // 1 where the place counts for a budget in this image
    i64 *rest;         // goals: what is still to be covered, and what counts as covered already
    const u64 **covered;
    u64 *words;        // of cells, and their order
    i32 *order, *buckets;
    u8 *cells;
    Box *blocks;
} Memory;

static i64 grid(const Place *place, int axis) { return (place->size[axis] + place->step[axis] - 1) / place->step[axis]; }
static i64 cells_of(const Place *place) { return grid(place, 0) * grid(place, 1) * grid(place, 2); }

// Lay the memory out; with no memory given, only measure it.
static i64 lay_out(const Program *program, u8 *base, Memory *memory) {
    i64 bytes = 0, cells = 0, blocks = 0, buckets = 1;
    for (i64 p = 0; p < program->places; p++) {
        const Place *place = program->place + p;
        if (place->kind == CELLS || place->kind == BLOCKS) cells = larger(cells, cells_of(place));
        if (place->kind == BLOCKS) blocks = larger(blocks, place->boxes);
    }
    while (buckets < cells) buckets *= 2;
    i64 budgets = program->budgets;
#define TAKE_MEMORY(field, count) \
    do { memory->field = base ? (void *)(base + bytes) : 0; bytes += ((i64)sizeof(*memory->field) * (count) + 63) / 64 * 64; } while (0)
    TAKE_MEMORY(own, program->words);
    TAKE_MEMORY(taken, program->words * budgets);
    TAKE_MEMORY(used, budgets);
    TAKE_MEMORY(counts, budgets);
    TAKE_MEMORY(rest, budgets + 1);
    TAKE_MEMORY(covered, budgets + 1);
    TAKE_MEMORY(words, cells);
    TAKE_MEMORY(order, cells);
    TAKE_MEMORY(buckets, buckets + 1);
    TAKE_MEMORY(cells, cells);
    TAKE_MEMORY(blocks, blocks);
    return bytes;
}

i64 gmml_plan_memory(const Program *program) {
    Memory memory;
    return lay_out(program, 0, &memory);
}

static void axis_of_box(const Place *place, int axis, u64 word, Box *box) {
    i64 length = place->size[axis], step = place->step[axis], corners = place->corners[axis];
    i64 extent = place->least[axis] + scale(high_half(word), place->values[axis]);
    if (place->placement == ORIGIN) {
        i64 corner = scale(low_half(word), corners) / step * step;
        if (step > 1) extent = larger((extent + step / 2) / step * step, step);
        box->at[axis] = corner;
        box->size[axis] = smaller(extent, length - corner);
        return;
    }
    i64 corner = scale(low_half(word), place->placement == INSIDE ? corners - extent + 1 : corners), end = corner + extent;
    box->at[axis] = corner * step;
    if (step > 1) end = end > corners ? (end - corners) * step + length : smaller(end * step, length);
    box->size[axis] = end - box->at[axis];
}

// The box that is drawn as number k, before any stop.
static inline void draw_box(const Place *place, const Memory *memory, u64 key, i64 k, Box *box) {
    int first = 3 - (int)place->free;
    for (int axis = 0; axis < 3; axis++) box->at[axis] = 0, box->size[axis] = place->kind == WHOLE ? place->size[axis] : 1;
    if (place->kind == BLOCKS) *box = memory->blocks[k];
    i64 cell = place->kind == CELLS ? memory->order[k] : 0;
    for (int axis = 2; axis >= first; axis--) {
        i64 length = place->size[axis], step = place->step[axis];
        if (place->kind == CELLS) {
            box->at[axis] = cell % grid(place, axis) * step;
            box->size[axis] = smaller(box->at[axis] + step, length) - box->at[axis];
            cell /= grid(place, axis);
        } else if (place->kind == BOXES) {
            u64 word = mix(key + 1 + (u64)(k * place->free + axis - first));
            if (k < place->boxes) {
                axis_of_box(place, axis, word, box);
            } else {  // the last one covers what chance left over, from any pixel
                box->at[axis] = scale(low_half(word), length);
                box->size[axis] = length;
            }
        }
    }
}

// The cells whose words come first: their words are uniform, so buckets by the upper bits leave next to nothing to sort.
static void order_cells(const Place *place, Memory *memory, u64 key) {
    i64 total = cells_of(place), buckets = 1;
    int bits = 0;
    while (buckets < total) buckets *= 2, bits++;
    memset(memory->buckets, 0, (size_t)(buckets + 1) * sizeof(i32));
#define BUCKET(word) (bits ? (word) >> (64 - bits) : 0)
    for (i64 i = 0; i < total; i++) {
        memory->words[i] = mix(key + 1 + (u64)i) ^ (1ull << 63);  // in the order of signed numbers
        memory->buckets[BUCKET(memory->words[i]) + 1]++;
    }
    for (i64 i = 0; i < buckets; i++) memory->buckets[i + 1] += memory->buckets[i];
    for (i64 i = 0; i < total; i++) memory->order[memory->buckets[BUCKET(memory->words[i])]++] = (i32)i;
    for (i64 i = 1; i < total; i++) {
        i32 cell = memory->order[i];
        i64 at = i;
        for (; at > 0 && memory->words[memory->order[at - 1]] > memory->words[cell]; at--) memory->order[at] = memory->order[at - 1];
        memory->order[at] = cell;
    }
}

static void draw_blocks(const Place *place, Memory *memory, u64 key) {
    i64 rows = grid(place, 1), columns = grid(place, 2), misses = 0;
    double share = place->share + place->share_span * (double)uniform(mix(key));
    i64 left = (i64)floor(share * (double)(rows * columns) + 1e-6), least = place->least_amount;
    memset(memory->cells, 0, (size_t)(rows * columns));
    memset(memory->blocks, 0, (size_t)place->boxes * sizeof(Box));
    for (i64 k = 0; k < place->boxes && misses < MOST_MISSES; k++, misses++) {
        u64 form = mix(key + 1 + 2 * (u64)k), where = mix(key + 2 + 2 * (u64)k);
        double area = (double)uniform(form), lower = (double)((form >> 16) & 0xFFFFFF) * 0x1p-24;
        double stretch = exp(place->stretch + lower * place->stretch_span), cells = (double)least + area * (double)(left - least);
        i64 height = (i64)rint(sqrt(fmax(cells * stretch, 0.25))), width = (i64)rint(sqrt(fmax(cells / stretch, 0.25)));
        if (height < 1 || width < 1 || height >= rows || width >= columns) continue;
        i64 top = scale(high_half(where), rows - height + 1), start = scale(low_half(where), columns - width + 1), fresh = 0;
        for (i64 y = top; y < top + height; y++)
            for (i64 x = start; x < start + width; x++) fresh += !memory->cells[y * columns + x];
        if (fresh == 0 || fresh > left) continue;
        for (i64 y = top; y < top + height; y++) memset(memory->cells + y * columns + start, 1, (size_t)width);
        left -= fresh;
        misses = -1;
        i64 at[2] = {top, start}, cells_along[2] = {height, width};
        Box *box = memory->blocks + k;
        box->size[0] = 1;
        for (int d = 0; d < 2; d++) {
            i64 step = place->step[d + 1];
            box->at[d + 1] = at[d] * step;
            box->size[d + 1] = smaller((at[d] + cells_along[d]) * step, place->size[d + 1]) - at[d] * step;
        }
    }
}

// Pixels of a box that nothing has covered: word by word, for its lines have the same bits.
static i64 fresh_pixels(const Place *place, const Box *box, const u64 *own, const u64 *covered) {
    i64 words = words_of(place->size[2]), fresh = 0;
    EACH_WORD(box, place->size[2], k, bits) {
        const u64 *mine = own + k, *other = covered + k;
        EACH_LINE(box, place->size, line) fresh += __builtin_popcountll(bits & ~(mine[line * words] | other[line * words]));
    }
    return fresh;
}

// How many pixels of a box have to be painted until so many are covered, which it must hold.
static i64 painted_until(const Place *place, const Box *box, const u64 *own, const u64 *covered, i64 wanted) {
    i64 width = place->size[2], words = words_of(width), found = 0, painted = 0;
    EACH_LINE(box, place->size, line) {
        const u64 *mine = own + line * words, *other = covered + line * words;
        i64 fresh = 0;
        EACH_WORD(box, width, k, bits) fresh += __builtin_popcountll(bits & ~(mine[k] | other[k]));
        if (found + fresh >= wanted) {
            for (i64 x = box->at[2]; found < wanted; x = x + 1 < width ? x + 1 : 0, painted++)
                found += ~(mine[x / 64] | other[x / 64]) >> (x % 64) & 1;
            return painted;
        }
        found += fresh;
        painted += box->size[2];
    }
    return painted;
}

static i64 add_box(const Place *place, const Box *box, u64 *bits) {
    i64 words = words_of(place->size[2]), fresh = 0;
    EACH_WORD(box, place->size[2], k, wanted) {
        u64 *word = bits + k;
        EACH_LINE(box, place->size, line) {
            fresh += __builtin_popcountll(wanted & ~word[line * words]);
            word[line * words] |= wanted;
        }
    }
    return fresh;
}

static void write_row(const Program *program, const Place *place, const Box *box, i32 *row) {
    i64 dims = program->dims;
    if (!volume(box)) return;
    for (i64 axis = 0; axis < dims; axis++) row[dims + axis] = (i32)program->size[3 - dims + axis];  // shared axes
    for (int axis = 3 - (int)place->free; axis < 3; axis++) {
        row[place->axis[axis]] = (i32)box->at[axis];
        row[dims + place->axis[axis]] = (i32)box->size[axis];
    }
}

static void read_row(const Program *program, const Place *place, const i32 *row, Box *box) {
    *box = (Box){{0, 0, 0}, {1, 1, 1}};
    for (int axis = 3 - (int)place->free; axis < 3; axis++) {
        box->at[axis] = row[place->axis[axis]];
        box->size[axis] = row[program->dims + place->axis[axis]];
    }
}

// The first `kept` pixels of a box as boxes, one an axis: whole slices, whole lines, single pixels.
static void write_cut(const Program *program, const Place *place, Box box, i64 kept, i32 *row) {
    for (int axis = 3 - (int)place->free; axis < 3; axis++, row += 2 * program->dims) {
        i64 line = 1;
        for (int inner = axis + 1; inner < 3; inner++) line *= box.size[inner];
        box.size[axis] = kept / line;
        kept %= line;
        write_row(program, place, &box, row);
        box.at[axis] += box.size[axis];
        if (box.at[axis] >= place->size[axis]) box.at[axis] -= place->size[axis];
        box.size[axis] = 1;
    }
}

// The boxes of one place in one image.
static void settle(const Program *program, const Place *place, Memory *memory, u64 key, i32 *row) {
    i64 goals = 0, boxes = place->boxes + place->covers, drawn = place->least_amount;
    u64 first = mix(key);
    if (place->amounts > 1) drawn += scale(place->kind == BOXES && !place->covers ? low_half(first) : high_half(first), place->amounts);
    if (place->covers) {
        memory->rest[0] = drawn;
        memory->covered[goals++] = memory->own;  // nothing else
        if (drawn <= 0) return;
    }
    if (place->kind == CELLS) order_cells(place, memory, key);
    if (place->kind == BLOCKS) draw_blocks(place, memory, key);
    if (place->kind == CELLS || (place->kind == BOXES && !place->covers)) boxes = smaller(boxes, drawn);
    for (i64 b = 0; b < program->budgets; b++) {
        if (!memory->counts[b]) continue;
        memory->rest[goals] = program->limits[b] - memory->used[b];
        memory->covered[goals] = memory->taken + b * program->words;
        if (memory->rest[goals++] <= 0) return;
    }
    if (goals) memset(memory->own, 0, (size_t)(place->size[0] * place->size[1] * words_of(place->size[2])) * 8);
    for (i64 k = 0; k < boxes; k++, row += 2 * program->dims) {
        Box box;
        draw_box(place, memory, key, k, &box);
        i64 whole = volume(&box), end = whole, ends = 0;
        int alone = goals == 1 && memory->covered[0] == memory->own && whole < memory->rest[0];  // it cannot reach the only goal
        for (i64 g = 0; g < goals && !alone; g++) {
            i64 fresh = fresh_pixels(place, &box, memory->own, memory->covered[g]);
            if (fresh < memory->rest[g]) {
                memory->rest[g] -= fresh;
                continue;
            }
            ends = 1;
            if (place->overshoot && place->covers && g == 0 && k < boxes - 1) continue;
            end = smaller(end, painted_until(place, &box, memory->own, memory->covered[g], memory->rest[g]));
        }
        if (ends) {
            write_cut(program, place, box, end, row);
            return;
        }
        write_row(program, place, &box, row);
        i64 fresh = goals ? add_box(place, &box, memory->own) : 0;
        if (alone) memory->rest[0] -= fresh;
    }
}

static void place_boxes(const Program *program, const PlanCall *call, i64 image, i64 at, Memory *memory) {
    u64 key = stream((u64)call->keys[image], BOXES_STREAM);
    const u8 *active = call->active + at * program->steps;
    memset(memory->used, 0, (size_t)program->budgets * 8);
    memset(memory->taken, 0, (size_t)(program->budgets * program->words) * 8);
    for (i64 p = 0; p < program->places; p++) {
        const Place *place = program->place + p;
        i32 *rows = (i32 *)call->out[p] + at * place->rows * 2 * program->dims;
        i64 works = 0;
        memset(rows, 0, (size_t)(place->rows * 2 * program->dims) * sizeof(i32));
        memset(memory->counts, 0, (size_t)program->budgets);
        for (i64 s = 0; s < place->steps; s++) {
            i64 step = program->numbers[place->step_list + s];
            const Draws *draws = program->draws + step;
            if (!active[step]) continue;
            works = 1;
            for (i64 b = 0; b < draws->budgets; b++) memory->counts[program->numbers[draws->budget_list + b]] = 1;
        }
        if (!works) continue;
        settle(program, place, memory, key + (u64)place->word, rows);
        for (i64 b = 0; b < program->budgets; b++)
            for (i64 r = 0; memory->counts[b] && r < place->rows; r++) {
                Box box;
                read_row(program, place, rows + r * 2 * program->dims, &box);
                if (volume(&box)) memory->used[b] += add_box(place, &box, memory->taken + b * program->words);
            }
    }
}

static void open_steps(const Program *program, const PlanCall *call, i64 image, i64 at) {
    u64 key = stream((u64)call->keys[image], GATES_STREAM);
    for (i64 s = 0; s < program->steps; s++) {
        const Draws *draws = program->draws + s;
        u8 open = (u8)draws->works;
        for (i64 g = 0; g < draws->gates; g++) {
            const Gate *gate = program->gate + draws->gate + g;
            double u = (double)uniform(mix(key + (u64)gate->draw));
            open = open && u >= gate->low && u < gate->high;
        }
        call->active[at * program->steps + s] = open;
    }
}

// What moves the content of an image, from one number: a digit an axis.
static void write_shift(const Program *program, u64 word, i64 *shift) {
    i64 pixels = program->size[0] * program->size[1] * program->size[2], rest = 1 + scale(high_half(word), larger(pixels - 1, 1));
    for (i64 axis = program->dims - 1; axis >= 0; axis--) {
        i64 side = program->size[3 - program->dims + axis];
        shift[axis] = rest % side;
        rest /= side;
    }
}

static void draw(const Program *program, const PlanCall *call, i64 image, i64 at, i64 step) {
    const Draws *draws = program->draws + step;
    void *const *out = call->out + program->places + 2 * step;
    u64 key = stream((u64)call->keys[image], FIRST_STREAM + (u64)step);
    i64 channels = program->channels;
    switch (draws->law) {
    case KEY:
        ((i64 *)out[0])[at] = (i64)key;
        break;
    case COLOUR_DRAWN:
        for (i64 c = 0; c < channels; c++)
            ((float *)out[0])[at * channels + c] = uniform(mix(key + (u64)c)) * (float)draws->span + (float)draws->low;
        break;
    case COLOUR_FIXED:
        for (i64 c = 0; c < channels; c++)
            ((float *)out[0])[at * channels + c] = (float)program->constants[draws->constants + c];
        break;
    case DONOR:
    case DONOR_SHIFT: {
        u64 half = high_half(mix(key));
        i64 donor = scale(half, call->donors);
        if (call->from_batch) {
            donor = image + 1 + scale(half, larger(call->donors - 1, 1));
            if (donor >= call->donors) donor -= call->donors;
        }
        ((i64 *)out[0])[at] = donor;
        if (draws->law == DONOR_SHIFT) write_shift(program, mix(key + 1), (i64 *)out[1] + at * program->dims);
        break;
    }
    case SHIFT:
        write_shift(program, mix(key), (i64 *)out[0] + at * program->dims);
        break;
    case GAUSSIAN:
        ((float *)out[0])[at] = uniform(mix(key)) * (float)draws->span + (float)draws->low;
        ((i64 *)out[1])[at] = draws->least + 2 * scale(high_half(mix(key + 1)), draws->values);
        break;
    }
}

void gmml_plan_image(const Program *program, const PlanCall *call, i64 image, i64 at, u8 *bytes) {
    Memory memory;
    lay_out(program, bytes, &memory);
    open_steps(program, call, image, at);
    place_boxes(program, call, image, at, &memory);
    for (i64 step = 0; step < program->steps; step++) draw(program, call, image, at, step);
}

// Plan images that no other thread has taken, until none is left.
void gmml_plan(const Program *program, PlanCall *call, u8 *bytes) {
    for (;;) {
        i64 image = __atomic_fetch_add(&call->next, 1, __ATOMIC_RELAXED);
        if (image >= call->batch) return;
        gmml_plan_image(program, call, image, image, bytes);
    }
}
