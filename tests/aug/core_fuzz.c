// Random recipes, shapes and damaged plans through the compiled core, each in memory of exactly the size that it asks for.
//
//     core_fuzz FIRST COUNT    runs cases FIRST to FIRST + COUNT - 1; says how many were what, and a digest of all results
//
// A case follows from its number alone. The structs are made as `layout.py`, `plan.py` and `picture.py` make them. Beside what the
// sanitizers see, it is looked at: boxes lie in the image, shares and budgets are kept, plans and images depend neither on what was
// in memory nor on bands of lines, and pixels outside the mask are untouched.
#include "core.h"

#include <stdio.h>
#include <stdlib.h>

i64 gmml_image_memory(const Program *program);
i64 gmml_paint_memory(const Picture *picture, i64 bands);
i64 gmml_check(const Picture *picture, const PaintCall *call);
void gmml_plan(const Program *program, PlanCall *call, u8 *bytes);
void gmml_paint(const Picture *picture, PaintCall *call, u8 *memory);

enum { STEPS = 4, PLACES = 3, BUDGETS = 2, BATCH = 3, CHANNELS = 5, BYTES_OF_HEADER = sizeof(PaintCall) };
enum { READ_PHASE = 1, MERGE_PHASE = 2 };
static const i64 WIDTHS[] = {4, 8, 2, 2, 1};  // bytes of a number, by type
static u64 state, digest, case_number;
static i64 refused, painted, planned;
static float normal[1 << 16];
static u8 typed[5][8 << 16];

static u64 random_word(void) { return mix(state += 0x9E3779B97F4A7C15ull); }
static i64 below(i64 most) { return (i64)(random_word() % (u64)most); }  // 0 to most - 1
static i64 between(i64 low, i64 high) { return low + below(high - low + 1); }
static int chance(i64 percent) { return below(100) < percent; }
static double unit(void) { return (double)(random_word() >> 40) * 0x1p-24; }

static void fail(const char *what) {
    printf("case %llu: %s\n", (unsigned long long)case_number, what);
    exit(1);
}

static void *block(i64 bytes, int fill) {  // exactly so many bytes
    void *memory = malloc((size_t)larger(bytes, 1));
    memset(memory, fill, (size_t)larger(bytes, 1));
    return memory;
}

static void digest_bytes(const void *bytes, i64 count) {
    for (i64 i = 0; i < count; i += 8) {
        u64 word = 0;
        memcpy(&word, (const u8 *)bytes + i, (size_t)smaller(count - i, 8));
        digest = mix(digest ^ word);
    }
}

static i64 steps_of(i64 length, i64 step) { return (length + step - 1) / step; }

typedef struct {
    Program program;
    Place place[PLACES];
    Draws draws[STEPS];
    Gate gate[2 * STEPS];
    i64 numbers[64], limits[BUDGETS], keys[BATCH];
    double constants[256];
    Picture picture;
    Step step[STEPS];
    i64 reading[4 * PLACES];
    i64 batch, donors, pixels;
} Case;

static void make_place(Case *c, Place *p, int all_axes) {
    const i64 *size = c->program.size;
    i64 dims = c->program.dims, drawn = 0;
    *p = (Place){.kind = below(4), .placement = below(3), .overshoot = chance(20)};
    for (i64 axis = 0; axis < dims; axis++)
        if (all_axes || chance(70)) p->axis[drawn++] = axis;
    if (!drawn) p->axis[drawn++] = below(dims);
    if (p->kind == BLOCKS && drawn != 2) p->kind = CELLS;
    p->free = drawn;
    for (i64 k = 2; k >= 0; k--) {
        i64 from = k - (3 - drawn);
        p->axis[k] = from >= 0 ? p->axis[from] : 0;
        p->size[k] = from >= 0 ? size[3 - dims + p->axis[k]] : 1;
        p->step[k] = from >= 0 && chance(40) ? between(1, p->size[k]) : 1;
        if (p->kind == WHOLE) p->step[k] = 1;
        p->least[k] = p->values[k] = p->corners[k] = 1;
        if (from < 0) continue;
        i64 cells = steps_of(p->size[k], p->step[k]), low = between(1, cells), high = between(low, cells);
        p->least[k] = low, p->values[k] = high - low + 1, p->corners[k] = cells;
        if (p->placement == ORIGIN) {
            p->least[k] = larger(low * p->step[k], 1), p->values[k] = high - low + 1;
            p->corners[k] = larger(p->size[k] - p->step[k], 1);
        }
    }
    i64 volume_of = p->size[0] * p->size[1] * p->size[2];
    i64 cells = steps_of(p->size[0], p->step[0]) * steps_of(p->size[1], p->step[1]) * steps_of(p->size[2], p->step[2]);
    p->boxes = 1;
    p->amounts = 1;
    if (p->kind == BOXES) {
        p->covers = chance(60);
        p->boxes = between(1, 12);
        i64 most = p->covers ? volume_of : p->boxes;
        p->least_amount = between(0, most), p->amounts = between(1, most - p->least_amount + 1);
    } else if (p->kind == CELLS) {
        p->least_amount = between(0, cells), p->amounts = between(1, cells - p->least_amount + 1);
        p->boxes = larger(p->least_amount + p->amounts - 1, 1);
    } else if (p->kind == BLOCKS) {
        p->share = unit(), p->share_span = (1.0 - p->share) * unit();
        p->stretch = -1.2 * unit(), p->stretch_span = 2.4 * unit();
        p->boxes = between(1, 8), p->least_amount = between(1, 4);
    } else {
        p->placement = INSIDE;
    }
    p->word = below(100);
    p->rows = p->boxes + p->covers + p->free - 1;
}

static void make_draws(Case *c, i64 s) {
    Program *program = &c->program;
    Picture *picture = &c->picture;
    i64 channels = program->channels, type = picture->type;
    Draws *d = c->draws + s;
    Step *step = c->step + s;
    double *constants = c->constants + 48 * s;
    *d = (Draws){.law = below(8), .works = chance(95), .gate = 2 * s, .gates = below(3), .constants = 48 * s};
    *step = (Step){.place = below(program->places), .constants = 48 * s};
    for (i64 g = 0; g < d->gates; g++) {
        double low = (float)(unit() * 0.4);
        c->gate[2 * s + g] = (Gate){below(3), low, (float)(low + 0.3 + unit())};
    }
    for (i64 k = 0; k < 48; k++) constants[k] = unit() * 2 - 0.5;
    switch (d->law) {
    case KEY:
        step->operation = NOISE;
        step->kind = type == 4 ? (chance(50) ? BYTES : NORMAL + below(3)) : (chance(40) ? TABLE : NORMAL + below(3));
        step->flags = below(4);
        for (i64 k = 0; k < channels; k++) constants[1 + channels + k] = 0.25 + unit();
        break;
    case COLOUR_DRAWN:
    case COLOUR_FIXED: step->operation = DRAWN, d->low = -unit(), d->span = 1 + unit(); break;
    case DONOR: step->operation = TAKE, step->kind = 1; break;
    case SHIFT: step->operation = TAKE, step->kind = 2; break;
    case DONOR_SHIFT: step->operation = TAKE, step->kind = 3; break;
    case GAUSSIAN:
        step->operation = BLUR;
        d->low = 0.1 + unit(), d->span = 2 * unit();
        d->least = 1 + 2 * below(3), d->values = between(1, chance(3) ? 125 : 4);
        step->taps = d->least + 2 * (d->values - 1);
        break;
    default: step->operation = (i64[]){ZEROS, MEAN, GREY}[below(3)];
    }
}

static void make_case(Case *c) {
    static const i64 longest[] = {0, 150, 12, 6};
    memset(c, 0, sizeof(*c));
    Program *program = &c->program;
    Picture *picture = &c->picture;
    i64 dims = between(1, 3), budgets = chance(40) ? between(1, BUDGETS) : 0, listed = 0;
    *program = (Program){.dims = dims, .channels = between(1, CHANNELS), .size = {1, 1, 1}, .steps = between(1, STEPS)};
    for (i64 k = 3 - dims; k < 3; k++) program->size[k] = between(1, longest[dims]);
    if (dims == 2 && chance(15)) program->size[2] = between(60, 140);
    c->pixels = program->size[0] * program->size[1] * program->size[2];
    program->places = between(1, PLACES), program->budgets = budgets;
    program->draws = c->draws, program->place = c->place, program->gate = c->gate;
    program->numbers = c->numbers, program->limits = c->limits, program->constants = c->constants;
    *picture = (Picture){.dims = dims, .channels = program->channels, .type = below(5), .steps = program->steps};
    memcpy(picture->size, program->size, sizeof(program->size));
    picture->interleaved = dims > 1 && chance(30), picture->places = program->places;
    picture->from_bytes = picture->type != 4 && picture->type != 1 && chance(25);
    picture->step = c->step, picture->reading = c->reading, picture->constants = c->constants;
    picture->normal = normal, picture->normal_typed = typed[picture->type];
    for (i64 p = 0; p < program->places; p++) make_place(c, c->place + p, budgets > 0);
    for (i64 s = 0; s < program->steps; s++) {
        make_draws(c, s);
        c->draws[s].budget_list = listed;
        for (i64 b = 0; b < budgets; b++)
            if (chance(60)) c->numbers[listed++] = b, c->draws[s].budgets++;
    }
    for (i64 b = 0; b < budgets; b++) c->limits[b] = between(0, c->pixels);
    for (i64 p = 0; p < program->places; p++) {
        Place *place = c->place + p;
        place->step_list = listed;
        for (i64 s = 0; s < program->steps; s++)
            if (c->step[s].place == p) c->numbers[listed++] = s, place->steps++;
        program->words = larger(program->words, place->size[0] * place->size[1] * words_of(place->size[2]));
        for (i64 k = 0; k < 3; k++) c->reading[4 * p + k] = 1;
        if (place->kind != WHOLE && chance(50))
            for (i64 k = 3 - place->free; k < 3; k++) c->reading[4 * p + 3 - dims + place->axis[k]] = place->step[k];
        c->reading[4 * p + 3] = chance(15);
    }
    c->batch = between(1, BATCH), c->donors = between(1, 3);
    for (i64 i = 0; i < c->batch; i++) c->keys[i] = (i64)random_word();
}

// Bytes of tensor `number` of a step after the boxes, 0 if there is none.
static i64 drawn_bytes(const Case *c, i64 step, i64 number) {
    i64 law = c->draws[step].law, dims = c->program.dims;
    if (number) return law == DONOR_SHIFT ? c->batch * dims * 8 : law == GAUSSIAN ? c->batch * 8 : 0;
    if (law == COLOUR_DRAWN || law == COLOUR_FIXED) return c->batch * c->program.channels * 4;
    if (law == SHIFT) return c->batch * dims * 8;
    return law == NOTHING ? 0 : c->batch * (law == GAUSSIAN ? 4 : 8);
}

static PlanCall *make_plan(const Case *c, int fill) {
    const Program *program = &c->program;
    PlanCall *call = block((i64)sizeof(PlanCall) + 8 * (program->places + 2 * program->steps), 0);
    call->batch = c->batch, call->donors = c->donors, call->from_batch = c->donors == c->batch && c->batch > 1;
    call->keys = c->keys, call->active = block(c->batch * program->steps, fill);
    for (i64 p = 0; p < program->places; p++) call->out[p] = block(c->batch * c->place[p].rows * 2 * program->dims * 4, fill);
    for (i64 k = 0; k < 2 * program->steps; k++) {
        i64 bytes = drawn_bytes(c, k / 2, k % 2);
        call->out[program->places + k] = bytes ? block(bytes, fill) : 0;
    }
    u8 *memory = block(gmml_plan_memory(program), fill);
    gmml_plan(program, call, memory);
    free(memory);
    return call;
}

static void free_plan(const Case *c, PlanCall *call) {
    for (i64 k = 0; k < c->program.places + 2 * c->program.steps; k++) free(call->out[k]);
    free(call->active);
    free(call);
}

// Mark the pixels of a place's boxes in one image; how many are marked that were not.
static i64 mark(const Case *c, const PlanCall *plan, i64 p, i64 image, u8 *marks) {
    const i64 *size = c->program.size;
    i64 dims = c->program.dims, fresh = 0;
    for (i64 r = 0; r < c->place[p].rows; r++) {
        const i32 *row = (const i32 *)plan->out[p] + (image * c->place[p].rows + r) * 2 * dims;
        i64 at[3] = {0, 0, 0}, extent[3] = {1, 1, 1};
        for (i64 d = 0; d < dims; d++) {
            i64 k = 3 - dims + d;
            at[k] = row[d], extent[k] = row[dims + d];
            if (at[k] < 0 || at[k] >= size[k] || extent[k] < 0 || extent[k] > size[k]) fail("a box outside the image");
        }
        for (i64 z = 0; z < extent[0]; z++)
            for (i64 y = 0; y < extent[1]; y++)
                for (i64 x = 0; x < extent[2]; x++) {
                    i64 line = (at[0] + z) % size[0] * size[1] + (at[1] + y) % size[1];
                    u8 *one = marks + line * size[2] + (at[2] + x) % size[2];
                    fresh += !*one;
                    *one = 1;
                }
    }
    return fresh;
}

static void look_at_plan(const Case *c, const PlanCall *plan) {
    const Program *program = &c->program;
    u8 *marks = block(c->pixels, 0);
    for (i64 image = 0; image < c->batch; image++) {
        const u8 *active = plan->active + image * program->steps;
        for (i64 p = 0; p < program->places; p++) {
            const Place *place = c->place + p;
            i64 works = 0, limited = 0;
            for (i64 s = 0; s < program->steps; s++)
                if (c->step[s].place == p && active[s]) works = 1, limited += c->draws[s].budgets;
            memset(marks, 0, (size_t)c->pixels);
            i64 fresh = mark(c, plan, p, image, marks);
            i64 shared = c->pixels / (place->size[0] * place->size[1] * place->size[2]), least = place->least_amount * shared;
            if (!works && fresh) fail("boxes of a place where nothing works");
            int exact = works && place->covers && !place->overshoot && !limited;
            if (exact && (fresh < least || fresh > least + (place->amounts - 1) * shared)) fail("a share that is not covered");
        }
        for (i64 b = 0; b < program->budgets; b++) {
            i64 used = 0;
            memset(marks, 0, (size_t)c->pixels);
            for (i64 p = 0; p < program->places; p++) {
                i64 counts = 0;
                for (i64 s = 0; s < program->steps; s++)
                    for (i64 k = 0; k < c->draws[s].budgets; k++)
                        counts |= c->step[s].place == p && active[s] && c->numbers[c->draws[s].budget_list + k] == b;
                if (counts) used += mark(c, plan, p, image, marks);
            }
            if (used > c->limits[b]) fail("a budget that is not kept");
        }
    }
    free(marks);
}

static void damage(const Case *c, PlanCall *plan) {
    for (i64 times = between(1, 3); times > 0; times--) {
        i64 k = below(c->program.places + 2 * c->program.steps), s = k - c->program.places;
        i64 bytes = s < 0 ? c->batch * c->place[k].rows * 2 * c->program.dims * 4 : drawn_bytes(c, s / 2, s % 2);
        if (!bytes) continue;
        if (s < 0 || chance(50)) ((i32 *)plan->out[k])[below(bytes / 4)] = chance(50) ? (i32)between(-2, 200) : (i32)random_word();
        else if (bytes >= 8) ((i64 *)plan->out[k])[below(bytes / 8)] = chance(50) ? between(-2, 300) : (i64)random_word();
    }
    if (chance(30)) plan->active[below(c->batch * c->program.steps)] = 1;
}

static void make_tables(void) {
    for (i64 i = 0; i < 1 << 16; i++) {
        float value = (float)unit() * 4 - 2;
        double wide = value;
        u32 bits;
        memcpy(&bits, &value, 4);
        u16 half = (u16)((bits >> 16 & 0x8000) | (0x2C00 + below(0x1800))), brain = (u16)(bits >> 16);
        const void *from[] = {&value, &wide, &half, &brain, &bits};
        normal[i] = value;
        for (i64 type = 0; type < 5; type++) memcpy(typed[type] + i * WIDTHS[type], from[type], (size_t)WIDTHS[type]);
    }
}

static void random_numbers(u8 *to, i64 type, i64 count) {
    memcpy(to, typed[type] + below((1 << 16) - count) * WIDTHS[type], (size_t)(count * WIDTHS[type]));
}

// Paint with images that are planned one by one, each in a part of a thread's memory: the plan of the batch is not looked at.
static void paint_as_planned(const Case *c, const PaintCall *call, int fill) {
    i64 header = BYTES_OF_HEADER, bytes = gmml_paint_memory(&c->picture, 1) + gmml_image_memory(&c->program);
    PaintCall *alone = block(header, 0);  // without `given`
    u8 *memory = block(bytes, fill);
    memcpy(alone, call, (size_t)header);
    alone->program = &c->program, alone->keys = c->keys, alone->from_batch = c->donors == c->batch && c->batch > 1, alone->active = 0;
    alone->begins = 1, alone->bands = 1, alone->phase = 0, alone->next = 0, alone->first_step = 0, alone->last_step = c->picture.steps;
    gmml_paint(&c->picture, alone, memory);
    free(memory);
    free(alone);
}

static void paint_once(const Case *c, PaintCall *call, i64 bands, int fill) {
    const Picture *picture = &c->picture;
    i64 numbers = c->batch * picture->channels * c->pixels, bytes = numbers * WIDTHS[picture->type];
    u8 *memory = block(gmml_paint_memory(picture, bands), fill), *aside = block(bands > 1 ? bytes : 1, fill);
    call->bands = bands, call->begins = 1, call->aside = aside, call->first_step = 0;
    memset(call->now, fill, (size_t)bytes);
    for (i64 s = 0; s <= picture->steps; s++) {  // bands part after each step that reads around its pixels
        int blur = s < picture->steps && picture->step[s].operation == BLUR && bands > 1;
        if (s < picture->steps && !blur) continue;
        call->last_step = s, call->phase = 0, call->next = 0;
        gmml_paint(picture, call, memory);
        call->begins = 0, call->first_step = s;
        for (i64 phase = READ_PHASE; blur && phase <= MERGE_PHASE; phase++) {
            call->last_step = s + 1, call->phase = phase, call->next = 0;
            gmml_paint(picture, call, memory);
        }
        call->first_step = s + blur;
    }
    free(memory);
    free(aside);
}

static void paint_plan(Case *c, PlanCall *plan) {
    const Picture *picture = &c->picture;
    i64 channels = picture->channels, numbers = channels * c->pixels, width = WIDTHS[picture->type], places = picture->places;
    i64 total = c->batch * numbers * width, source = picture->from_bytes ? 1 : width, own = plan->from_batch;
    PaintCall *call = block(BYTES_OF_HEADER + 16 * (places + picture->steps), 0);
    u8 *images = block(c->batch * numbers * source, 0), *donors = own ? images : block(c->donors * numbers * source, 0);
    u8 *one = block(total, 0), *two = block(total, 0), *clean = block(picture->from_bytes ? total : 1, 0);
    u8 *mask = block(c->batch * c->pixels, 7), *mask_two = block(c->batch * c->pixels, 9), *maps[2] = {0, 0}, *shapes[PLACES] = {0};
    random_numbers(images, picture->from_bytes ? 4 : picture->type, c->batch * numbers);
    if (!own) random_numbers(donors, picture->from_bytes ? 4 : picture->type, c->donors * numbers);
    call->batch = c->batch, call->donors_count = own ? c->batch : c->donors;
    call->images = images, call->donors = donors, call->clean = picture->from_bytes ? clean : 0, call->active = plan->active;
    for (i64 m = 0; m < 2; m++) {
        if (!chance(20)) continue;
        i64 apart = chance(50) ? c->pixels : 0, count = apart ? c->batch * c->pixels : c->pixels;
        maps[m] = block(count, 0);
        for (i64 i = 0; i < count; i++) maps[m][i] = (u8)chance(m ? 20 : 70);
        *(m ? &call->forced : &call->allowed) = maps[m];
        *(m ? &call->forced_apart : &call->allowed_apart) = apart;
    }
    for (i64 p = 0; p < places; p++) {
        call->given[2 * p] = plan->out[p], call->given[2 * p + 1] = (void *)(intptr_t)c->place[p].rows;
        if (!chance(10)) continue;
        shapes[p] = block(c->batch * c->pixels, 0);
        for (i64 i = 0; i < c->batch * c->pixels; i++) shapes[p][i] = (u8)chance(40);
        call->given[2 * p] = shapes[p], call->given[2 * p + 1] = (void *)(intptr_t)-1;
    }
    for (i64 k = 0; k < 2 * picture->steps; k++) call->given[2 * places + k] = plan->out[places + k];
    call->now = one, call->mask = mask;
    int damaged = chance(30);
    if (damaged) damage(c, plan);
    if (gmml_check(picture, call)) {
        if (!damaged) fail("a plan of the core's own that is refused");
        refused++;
    } else {
        paint_once(c, call, 1, 0xA5);
        call->now = two, call->mask = mask_two;
        paint_once(c, call, between(1, 4), 0x5A);
        if (memcmp(one, two, (size_t)total) || memcmp(mask, mask_two, (size_t)(c->batch * c->pixels)))
            fail("images that depend on memory, or on bands");
        if (!damaged && !shapes[0] && !shapes[1] && !shapes[2]) {
            memset(two, 0xC3, (size_t)total);
            paint_as_planned(c, call, 0xC3);
            if (memcmp(one, two, (size_t)total) || memcmp(mask, mask_two, (size_t)(c->batch * c->pixels)))
                fail("images that are others where each is planned just before it is painted");
        }
        const u8 *before = picture->from_bytes ? clean : images;
        if (picture->from_bytes) {
            c->picture.from_bytes = 2, call->clean = 0;  // the clean images are not kept
            paint_once(c, call, 1, 0x3C);
            if (memcmp(one, two, (size_t)total)) fail("images that depend on what becomes of the clean ones");
        }
        for (i64 i = 0; i < c->batch * c->pixels; i++)
            for (i64 k = 0; !mask[i] && k < channels; k++) {
                i64 image = i / c->pixels, pixel = i % c->pixels;
                i64 at = image * numbers + (picture->interleaved ? pixel * channels + k : k * c->pixels + pixel);
                if (memcmp(before + at * width, one + at * width, (size_t)width)) fail("a pixel outside the mask that has changed");
            }
        painted++;
        digest_bytes(one, total);
        digest_bytes(mask, c->batch * c->pixels);
    }
    void *all[] = {images, own ? 0 : donors, one,       two,       clean,     mask, mask_two,
                   maps[0], maps[1],        shapes[0], shapes[1], shapes[2], call};
    for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++) free(all[k]);
}

static void run_case(void) {
    Case c;
    make_case(&c);
    PlanCall *plan = make_plan(&c, 0xA5), *again = make_plan(&c, 0x5A);
    if (memcmp(plan->active, again->active, (size_t)(c.batch * c.program.steps))) fail("steps that depend on memory");
    for (i64 k = 0; k < c.program.places + 2 * c.program.steps; k++) {
        i64 s = k - c.program.places;
        i64 bytes = s < 0 ? c.batch * c.place[k].rows * 2 * c.program.dims * 4 : drawn_bytes(&c, s / 2, s % 2);
        if (bytes && memcmp(plan->out[k], again->out[k], (size_t)bytes)) fail("a plan that depends on memory");
        digest_bytes(plan->out[k], bytes);
    }
    look_at_plan(&c, plan);
    planned++;
    paint_plan(&c, plan);
    free_plan(&c, plan);
    free_plan(&c, again);
}

int main(int count, char **words) {
    if (count != 3) return 2;
    u64 first = strtoull(words[1], 0, 10), cases = strtoull(words[2], 0, 10);
    state = 1;
    make_tables();
    for (case_number = first; case_number < first + cases; case_number++) {
        state = mix(case_number);
        run_case();
    }
    printf("%lld plans, %lld painted, %lld refused, digest %016llx\n", (long long)planned, (long long)painted, (long long)refused,
           (unsigned long long)digest);
    return 0;
}
