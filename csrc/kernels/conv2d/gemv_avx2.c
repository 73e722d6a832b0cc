/* gemv_avx2.c -- layers of floats whose window is the whole map, such as dense ones: a matrix times a
 * vector.  Each weight is read once, in one stream, up to 64 outputs at a time.
 *
 * gemv takes weights that are numbers, and reads each once for four samples of a batch.  lookup3 takes
 * bits: stage() writes, for every three inputs, the eight sums +-a +-b +-c, bit i of the index for
 * input i, and one vpermps looks up eight outputs, three products each.
 *
 * Packed weight: for every block of 64 outputs, the last one rounded up to 16, missing outputs 0:
 *   floats (and 16-bit integers, converted)   [K][outputs] f32
 *   8-bit integers                            [K][outputs] i8; they are converted in registers
 *   bits                                      [K / 30][outputs] u32, weight k in bit k % 30
 */
#if defined(__x86_64__)
#include "finish_avx2.h"

enum { WIDEST = 64, WORD_WEIGHTS = 30, WORD_TABLES = 10 };

static int is_product(const bi_step *s)
{
    return !bi_conv2d_is_integer(s) && s->table == NULL && s->groups == 1 && s->out_h == 1 &&
           s->out_w == 1 && s->pad_top == 0 && s->pad_left == 0 && s->kernel_h == s->in_h &&
           s->kernel_w == s->in_w;
}

static int gemv_takes(const bi_step *s)
{
    return is_product(s) && s->weight_type != BI_WEIGHT_BITS;
}

static int lookup3_takes(const bi_step *s)
{
    return is_product(s) && s->weight_type == BI_WEIGHT_BITS;
}

static size_t inputs_of(const bi_step *s) { return bi_conv2d_taps(s) * (size_t)s->in_c; }

static size_t words_of(const bi_step *s)
{
    return (inputs_of(s) + WORD_WEIGHTS - 1) / WORD_WEIGHTS;
}

/* Bytes of the weights of one output. */
static size_t output_bytes(const bi_step *s)
{
    switch ((bi_weight_type)s->weight_type) {
    case BI_WEIGHT_F32:
    case BI_WEIGHT_I16: return inputs_of(s) * 4;
    case BI_WEIGHT_I8: return inputs_of(s);
    case BI_WEIGHT_BITS: return words_of(s) * 4;
    }
    return 0;
}

/* Outputs of the block that begins with output o, with the missing ones. */
static size_t block_width(const bi_step *s, size_t o)
{
    size_t left = ((size_t)s->out_c - o + 15) / 16 * 16;
    return left < WIDEST ? left : WIDEST;
}

static size_t gemv_weight_bytes(const bi_step *s)
{
    return ((size_t)s->out_c + 15) / 16 * 16 * output_bytes(s);
}

/* Lay the inputs [begin, end) of one output into its block. */
static void pack_inputs(const bi_step *s, const void *canonical, size_t output, size_t begin,
                        size_t end, size_t width, size_t o, unsigned char *block)
{
    size_t channels = (size_t)s->in_c, row = output * inputs_of(s);
    for (size_t k = begin; k < end; k++)
        if (s->weight_type == BI_WEIGHT_F32)
            ((float *)block)[k * width + o] = ((const float *)canonical)[row + k];
        else if (s->weight_type == BI_WEIGHT_I8)
            ((int8_t *)block)[k * width + o] = ((const int8_t *)canonical)[row + k];
        else {
            float weight = bi_conv2d_weight_at(s, canonical, output, k / channels, k % channels);
            if (s->weight_type == BI_WEIGHT_BITS)
                ((uint32_t *)block)[k / WORD_WEIGHTS * width + o] |= (uint32_t)(weight < 0)
                                                                     << (k % WORD_WEIGHTS);
            else
                ((float *)block)[k * width + o] = weight;
        }
}

static void gemv_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    enum { AT_A_TIME = 64 }; /* inputs: what is written then stays in the first-level cache */
    size_t inputs = inputs_of(s);
    unsigned char *block = packed;
    memset(packed, 0, gemv_weight_bytes(s));
    for (size_t first = 0; first < (size_t)s->out_c; first += WIDEST) {
        size_t width = block_width(s, first);
        for (size_t begin = 0; begin < inputs; begin += AT_A_TIME) {
            size_t end = begin + AT_A_TIME < inputs ? begin + AT_A_TIME : inputs;
            for (size_t o = 0; o < width && first + o < (size_t)s->out_c; o++)
                pack_inputs(s, canonical, first + o, begin, end, width, o, block);
        }
        block += width * output_bytes(s);
    }
}

static size_t lookup3_scratch_bytes(const bi_step *s) { return words_of(s) * WORD_TABLES * 32; }

static void lookup3_stage(const bi_step *s, const bi_pointers *at)
{
    size_t inputs = inputs_of(s);
    const float *source = at->source;
    float *table = at->scratch;
    for (size_t k = 0; k < words_of(s) * WORD_WEIGHTS; k += 3, table += 8) {
        float x[3];
        for (size_t i = 0; i < 3; i++)
            x[i] = k + i < inputs ? source[k + i] : 0;
        for (int i = 0; i < 8; i++)
            table[i] = ((i & 1 ? -x[0] : x[0]) + (i & 2 ? -x[1] : x[1])) + (i & 4 ? -x[2] : x[2]);
    }
}

/* Eight weights as floats. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256 weights(const void *from,
                                                                           size_t i, int bytes)
{
    if (!bytes)
        return _mm256_load_ps((const float *)from + i);
    __m128i eight = _mm_loadl_epi64((const __m128i *)((const int8_t *)from + i));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
}

/* Ask for what is read after a row of weights that begins at `row`: where the weights are not in the
 * second-level cache, the hardware alone does not ask early enough. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void fetch_ahead(const char *row,
                                                                             size_t row_bytes)
{
    enum { DISTANCE = 4096, LINE = 64 };
    for (size_t i = 0; i < row_bytes; i += LINE)
        _mm_prefetch(row + DISTANCE + i, _MM_HINT_T0);
}

/* Sums of a block of `vectors` vectors (a constant where this is inlined), in as many chains for
 * each as make eight in all, because an addition takes four cycles. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
sum_vectors(const float *x, size_t inputs, const void *weight, int vectors, int bytes, int far,
            float *sums)
{
    int chains = 8 / vectors;
    size_t width = (size_t)vectors * 8, k = 0, row_bytes = width * (bytes ? 1 : sizeof(float));
    __m256 sum[4][8];
    for (int j = 0; j < chains; j++)
        for (int v = 0; v < vectors; v++)
            sum[j][v] = _mm256_setzero_ps();
    for (; k + (size_t)chains <= inputs; k += (size_t)chains) {
        if (far)
            fetch_ahead((const char *)weight + k * row_bytes, row_bytes * (size_t)chains);
        for (int j = 0; j < chains; j++) {
            __m256 input = _mm256_broadcast_ss(x + k + j);
            for (int v = 0; v < vectors; v++)
                sum[j][v] = _mm256_fmadd_ps(
                    input, weights(weight, (k + (size_t)j) * width + (size_t)v * 8, bytes),
                    sum[j][v]);
        }
    }
    for (; k < inputs; k++)
        for (int v = 0; v < vectors; v++)
            sum[0][v] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + k),
                                        weights(weight, k * width + (size_t)v * 8, bytes),
                                        sum[0][v]);
    for (int v = 0; v < vectors; v++) {
        for (int j = 1; j < chains; j++)
            sum[0][v] = _mm256_add_ps(sum[0][v], sum[j][v]);
        _mm256_storeu_ps(sums + v * 8, sum[0][v]);
    }
}

/* The same from bits and tables; `vectors` is 2 or 4, of a block of `width` outputs. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
sum_bits(const float *table, size_t words, const uint32_t *weight, size_t width, int vectors,
         float *sums)
{
    __m256 sum[4];
    for (int v = 0; v < vectors; v++)
        sum[v] = _mm256_setzero_ps();
    for (size_t word = 0; word < words; word++, weight += width) {
        __m256i bits[4];
        for (int v = 0; v < vectors; v++)
            bits[v] = _mm256_loadu_si256((const __m256i *)(weight + v * 8));
        for (int t = 0; t < WORD_TABLES; t++, table += 8) {
            __m256 entries = _mm256_load_ps(table);
            for (int v = 0; v < vectors; v++) {
                sum[v] = _mm256_add_ps(sum[v], _mm256_permutevar8x32_ps(entries, bits[v]));
                bits[v] = _mm256_srli_epi32(bits[v], 3);
            }
        }
    }
    for (int v = 0; v < vectors; v++)
        _mm256_storeu_ps(sums + v * 8, sum[v]);
}

/* Sums of a block of `width` outputs, whose weights begin at `weight`. */
typedef void sum_outputs(const bi_step *s, const bi_pointers *at, size_t width, const void *weight,
                         float *sums);

BI_TARGET_avx2 static void lookup3_sum(const bi_step *s, const bi_pointers *at, size_t width,
                                       const void *weight, float *sums)
{
    size_t o = 0;
    for (; o + 32 <= width; o += 32)
        sum_bits(at->scratch, words_of(s), (const uint32_t *)weight + o, width, 4, sums + o);
    if (o < width)
        sum_bits(at->scratch, words_of(s), (const uint32_t *)weight + o, width, 2, sums + o);
}

BI_TARGET_avx2 static void gemv_sum(const bi_step *s, const bi_pointers *at, size_t width,
                                    const void *weight, float *sums)
{
    enum { NEAR_BYTES = 1 << 18 }; /* what may stay in a second-level cache from call to call */
    size_t inputs = inputs_of(s);
    int bytes = s->weight_type == BI_WEIGHT_I8, far = gemv_weight_bytes(s) > NEAR_BYTES;
    switch ((int)(width / 16) * 2 + bytes) {
    case 2: sum_vectors(at->source, inputs, weight, 2, 0, far, sums); break;
    case 3: sum_vectors(at->source, inputs, weight, 2, 1, far, sums); break;
    case 4: sum_vectors(at->source, inputs, weight, 4, 0, far, sums); break;
    case 5: sum_vectors(at->source, inputs, weight, 4, 1, far, sums); break;
    case 6: sum_vectors(at->source, inputs, weight, 6, 0, far, sums); break;
    case 7: sum_vectors(at->source, inputs, weight, 6, 1, far, sums); break;
    case 8: sum_vectors(at->source, inputs, weight, 8, 0, far, sums); break;
    default: sum_vectors(at->source, inputs, weight, 8, 1, far, sums); break;
    }
}

/* Sums of 16 outputs of four samples, from weights whose rows are `width` outputs apart: each weight is
 * read once for all four. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
sum_four(const float *const *x, size_t inputs, const void *weight, size_t width, int bytes,
         float (*sums)[WIDEST])
{
    __m256 sum[4][2];
    for (int n = 0; n < 4; n++)
        sum[n][0] = sum[n][1] = _mm256_setzero_ps();
    for (size_t k = 0; k < inputs; k++) {
        __m256 left = weights(weight, k * width, bytes);
        __m256 right = weights(weight, k * width + 8, bytes);
        for (int n = 0; n < 4; n++) {
            __m256 input = _mm256_broadcast_ss(x[n] + k);
            sum[n][0] = _mm256_fmadd_ps(input, left, sum[n][0]);
            sum[n][1] = _mm256_fmadd_ps(input, right, sum[n][1]);
        }
    }
    for (int n = 0; n < 4; n++) {
        _mm256_storeu_ps(sums[n], sum[n][0]);
        _mm256_storeu_ps(sums[n] + 8, sum[n][1]);
    }
}

/* Apply the epilogue to the sums of a block of outputs. */
static void finish_block(const bi_step *s, const bi_pointers *at, size_t first, size_t width,
                         float *sums)
{
    for (size_t o = 0; o < width; o += 16) {
        size_t left = (size_t)s->out_c - first - o;
        bi_plane_sums all = {
            .step = s, .at = at, .count = 1, .output = (int32_t)(first + o),
            .outputs = (int32_t)(left < 16 ? left : 16), .sums = sums + o,
            .apart = 16,
        };
        bi_finish_pixels_conv2d_avx2(&all);
    }
}

/* at[0] to at[3], with the sums of gemv_run(). */
BI_TARGET_avx2 static void run_four(const bi_step *s, const bi_pointers *at)
{
    size_t inputs = inputs_of(s);
    int bytes = s->weight_type == BI_WEIGHT_I8;
    const float *x[4] = {at[0].source, at[1].source, at[2].source, at[3].source};
    const unsigned char *weight = s->weight;
    for (size_t first = 0; first < (size_t)s->out_c; first += WIDEST) {
        size_t width = block_width(s, first);
        float sums[4][WIDEST];
        if (width < 48)    /* summed in several chains, which four samples have no registers for */
            for (int n = 0; n < 4; n++)
                gemv_sum(s, &at[n], width, weight, sums[n]);
        for (size_t o = 0; width >= 48 && o < width; o += 16) {
            float sixteen[4][WIDEST];
            if (bytes)
                sum_four(x, inputs, weight + o, width, 1, sixteen);
            else
                sum_four(x, inputs, weight + o * 4, width, 0, sixteen);
            for (int n = 0; n < 4; n++)
                memcpy(sums[n] + o, sixteen[n], 16 * sizeof(float));
        }
        weight += width * output_bytes(s);
        for (int n = 0; n < 4; n++)
            finish_block(s, &at[n], first, width, sums[n]);
    }
}

BI_TARGET_avx2 static void sum_blocks(const bi_step *s, const bi_pointers *at, sum_outputs *sum)
{
    const unsigned char *weight = s->weight;
    for (size_t first = 0; first < (size_t)s->out_c; first += WIDEST) {
        size_t width = block_width(s, first);
        float sums[WIDEST];
        sum(s, at, width, weight, sums);
        weight += width * output_bytes(s);
        finish_block(s, at, first, width, sums);
    }
}

static void gemv_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    if (begin < end)    /* else the one row is somebody else's */
        sum_blocks(s, at, gemv_sum);
}

static void gemv_run_batch(const bi_step *s, const bi_pointers *at, size_t samples, int32_t begin,
                           int32_t end)
{
    size_t n = 0;
    for (; begin < end && n + 4 <= samples; n += 4)
        run_four(s, at + n);
    for (; n < samples; n++)
        gemv_run(s, at + n, begin, end);
}

static void lookup3_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    if (begin < end)
        sum_blocks(s, at, lookup3_sum);
}

const bi_kernel bi_conv2d_gemv_avx2 = {
    .takes = gemv_takes,
    .block = WIDEST,
    .weight_bytes = gemv_weight_bytes,
    .pack_weight = gemv_pack_weight,
    .run = gemv_run,
};
const bi_kernel bi_dense_gemv_avx2 = {
    .takes = gemv_takes,
    .block = WIDEST,
    .weight_bytes = gemv_weight_bytes,
    .pack_weight = gemv_pack_weight,
    .run = gemv_run,
    .run_batch = gemv_run_batch,
};

#define LOOKUP3                                 \
    {                                           \
        .takes = lookup3_takes,                 \
        .block = WIDEST,                        \
        .weight_bytes = gemv_weight_bytes,           \
        .pack_weight = gemv_pack_weight,             \
        .scratch_bytes = lookup3_scratch_bytes, \
        .stage = lookup3_stage,                 \
        .run = lookup3_run,                     \
    }
const bi_kernel bi_conv2d_lookup3_avx2 = LOOKUP3;
const bi_kernel bi_dense_lookup3_avx2 = LOOKUP3;
#endif
