// Rows of activations times a matrix that stays packed: trits at 2 bits, or int8.
//
// A matrix row is `runs` (planes times segments) of `length` weights, each padded to a multiple of 32, with a
// scale for each run. Trits are stored as trit + 1: of every 128 weights, byte j holds the weights j, 32 + j,
// 64 + j and 96 + j, lowest bits first; what is left over lies in units of 32, whose byte j holds j, 8 + j,
// 16 + j and 24 + j. An activation is rounded to 16,256 steps of its row's largest, in two limbs of a byte.
//
// Integer sums are exact, and the few operations on floats have one order, so that a result depends on nothing
// but its own row and the matrix: not on the batch, the threads, the compiler or the processor.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

constexpr int64_t UNIT = 32, CHUNK = 128;
constexpr int64_t WORTH_A_THREAD = 1 << 18;  // products: to wake a thread takes as long as these
constexpr int LIMBS = 2;
constexpr float STEPS = 127 * 128;

int64_t padded(int64_t length) { return (length + UNIT - 1) / UNIT * UNIT; }

struct Matrix {
    const uint8_t *weights;
    const float *scales;
    int64_t outputs, runs, segments, length, run_bytes;
};

namespace portable {
template <int BITS, int OUTS>
void dots(const uint8_t *const *w, const int8_t *const *x, int64_t length, int32_t (*sum)[OUTS]) {
    for (int r = 0; r < LIMBS; r++)
        for (int o = 0; o < OUTS; o++) {
            int32_t total = 0;
            for (int64_t i = 0; BITS == 8 && i < length; i++) total += int32_t(int8_t(w[o][i])) * x[r][i];
            for (int64_t i = 0; BITS == 2 && i < length;) {
                const int64_t quarter = (i + CHUNK <= length ? CHUNK : UNIT) / 4;
                for (int l = 0; l < 4; l++)
                    for (int64_t j = 0; j < quarter; j++)
                        total += int32_t(w[o][i / 4 + j] >> (2 * l) & 3) * x[r][i + l * quarter + j];
                i += 4 * quarter;
            }
            sum[r][o] = total;
        }
}
}  // namespace portable

}  // namespace

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define X86 1

#pragma GCC push_options
#pragma GCC target("avx2")
namespace {
inline __m256i load(const void *at) { return _mm256_loadu_si256(static_cast<const __m256i *>(at)); }

inline int32_t total_of(__m256i v) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

namespace avx2 {
#define TIMES_TRITS(sum, u, x) _mm256_add_epi16(sum, _mm256_maddubs_epi16(u, x))
#define WIDE(sum) _mm256_madd_epi16(sum, ones)
#define TIMES_INT8(sum, u, x) _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), ones))
#include "dots.inc"
#undef TIMES_TRITS
#undef WIDE
#undef TIMES_INT8
}  // namespace avx2
}  // namespace
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")
namespace {
namespace vnni {
#define TIMES_TRITS(sum, u, x) _mm256_dpbusd_epi32(sum, u, x)
#define WIDE(sum) sum
#define TIMES_INT8(sum, u, x) _mm256_dpbusd_epi32(sum, u, x)
#include "dots.inc"
}  // namespace vnni
}  // namespace
#pragma GCC pop_options
#endif

namespace {

// ---- activations: two int8 limbs for each number, in runs of padded(length) --------------------------------

struct Rows {
    std::vector<int8_t> limbs;
    std::vector<int32_t> totals;  // of each limb's run
    std::vector<float> scales;    // NaN where a row holds what is no number
    int64_t width, segments, run;

    const int8_t *at(int64_t limb, int64_t segment) const { return limbs.data() + limb * width + segment * run; }
};

float scale_of(const float *row, int64_t length) {
    float largest = 0;
    bool numbers = true;
    for (int64_t i = 0; i < length; i++) {
        const float size = std::fabs(row[i]);
        numbers &= size <= std::numeric_limits<float>::max();
        largest = size > largest ? size : largest;
    }
    return numbers ? largest / STEPS : std::numeric_limits<float>::quiet_NaN();
}

void round_run(const float *run, int64_t length, float inverse, int8_t *high, int8_t *low, int32_t *totals,
               int64_t segments) {
    int32_t high_total = 0, low_total = 0;
    for (int64_t i = 0; i < length; i++) {
        // adding 1.5 * 2^23 rounds to the nearest integer, ties to even
        const float shifted = run[i] * inverse + 12582912.0f;
        int32_t whole;
        std::memcpy(&whole, &shifted, 4);
        whole -= 0x4b400000;
        const int32_t rest = ((whole + 64) & 127) - 64;
        const int32_t most = (whole - rest) >> 7;
        high[i] = int8_t(most), low[i] = int8_t(rest);
        high_total += most, low_total += rest;
    }
    totals[0] = high_total, totals[segments] = low_total;
}

void round_rows(const float *x, int64_t count, int64_t segments, int64_t length, Rows &into) {
    into.segments = segments;
    into.run = padded(length);
    into.width = into.run * segments;
    into.limbs.assign(LIMBS * count * into.width, 0);
    into.totals.assign(LIMBS * count * segments, 0);
    into.scales.resize(count);
    for (int64_t r = 0; r < count; r++) {
        const float *row = x + r * segments * length;
        const float scale = into.scales[r] = scale_of(row, segments * length);
        if (!(scale > 1e-30f)) continue;
        const float inverse = 1 / scale;
        for (int64_t s = 0; s < segments; s++) {
            int8_t *high = into.limbs.data() + LIMBS * r * into.width + s * into.run;
            round_run(row + s * length, length, inverse, high, high + into.width,
                      into.totals.data() + LIMBS * r * segments + s, segments);
        }
    }
}

// ---- products ---------------------------------------------------------------------------------------------

enum Instructions { PORTABLE, WITH_AVX2, WITH_VNNI };

template <Instructions SET, int BITS, int OUTS>
void tile(const Matrix &m, const Rows &rows, int64_t row, int64_t output, float *y) {
    float sums[OUTS] = {};
    for (int64_t k = 0; k < m.runs; k++) {
        const int64_t segment = k % m.segments;
        const int8_t *x[LIMBS] = {rows.at(LIMBS * row, segment), rows.at(LIMBS * row + 1, segment)};
        const int32_t *totals = rows.totals.data() + LIMBS * row * m.segments + segment;
        const int64_t high = BITS == 2 ? totals[0] : 0, low = BITS == 2 ? totals[m.segments] : 0;
        const uint8_t *w[OUTS];
        int32_t found[LIMBS][OUTS];
        for (int o = 0; o < OUTS; o++) w[o] = m.weights + ((output + o) * m.runs + k) * m.run_bytes;
#ifdef X86
        if (SET == WITH_VNNI) vnni::dots<BITS, OUTS>(w, x, rows.run, found);
        if (SET == WITH_AVX2) avx2::dots<BITS, OUTS>(w, x, rows.run, found);
#endif
        if (SET == PORTABLE) portable::dots<BITS, OUTS>(w, x, rows.run, found);
        for (int o = 0; o < OUTS; o++) {
            const int64_t whole = (found[0][o] - high) * 128 + (found[1][o] - low);
            sums[o] += m.scales[(output + o) * m.runs + k] * float(whole);
        }
    }
    for (int o = 0; o < OUTS; o++) y[row * m.outputs + output + o] = rows.scales[row] * sums[o];
}

template <Instructions SET, int BITS>
void between(const Matrix &m, const Rows &rows, int64_t first, int64_t stop, float *y) {
    const int64_t count = int64_t(rows.scales.size());
    int64_t o = first;
    for (; o + 4 <= stop; o += 4)
        for (int64_t r = 0; r < count; r++) tile<SET, BITS, 4>(m, rows, r, o, y);
    for (; o < stop; o++)
        for (int64_t r = 0; r < count; r++) tile<SET, BITS, 1>(m, rows, r, o, y);
}

template <Instructions SET>
void part_of(const Matrix &m, const Rows &rows, int bits, int64_t first, int64_t stop, float *y) {
    if (bits == 2) between<SET, 2>(m, rows, first, stop, y);
    else between<SET, 8>(m, rows, first, stop, y);
}

}  // namespace

extern "C" {

// which instructions this processor has: 0 none of those below, 1 AVX2, 2 AVX-512 VNNI
int sharedllm_instructions() {
#ifdef X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2");
    const bool vnni = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw");
    return avx2 && vnni ? WITH_VNNI : avx2 ? WITH_AVX2 : PORTABLE;
#else
    return PORTABLE;
#endif
}

// y[count, outputs] = x[count, segments * length] times the transposed matrix
void sharedllm_multiply(const float *x, int64_t count, const uint8_t *weights, const float *scales,
                        int64_t outputs, int64_t planes, int64_t segments, int64_t length, int bits, int threads,
                        int instructions, float *y) {
    const Matrix m{weights, scales, outputs, planes * segments, segments, length, padded(length) * bits / 8};
    static thread_local Rows own;
    Rows &rows = own;
    round_rows(x, count, segments, length, rows);
    const int64_t parts = std::min<int64_t>(threads, 1 + outputs * m.runs * length * count / WORTH_A_THREAD);
    const int64_t fours = (outputs + 3) / 4;
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int64_t part = 0; part < parts; part++) {
        const int64_t first = fours * part / parts * 4, stop = std::min(outputs, fours * (part + 1) / parts * 4);
        if (instructions == PORTABLE) part_of<PORTABLE>(m, rows, bits, first, stop, y);
#ifdef X86
        if (instructions == WITH_AVX2) part_of<WITH_AVX2>(m, rows, bits, first, stop, y);
        if (instructions == WITH_VNNI) part_of<WITH_VNNI>(m, rows, bits, first, stop, y);
#endif
    }
}

// lays `runs` runs of int8 trits (-1, 0, 1; unpadded) out at 2 bits; returns 1 if one is no trit
int sharedllm_lay_out(const int8_t *trits, int64_t runs, int64_t length, uint8_t *into) {
    const int64_t run = padded(length);
    std::vector<uint8_t> codes(run, 1);
    int bad = 0;
    for (int64_t r = 0; r < runs; r++) {
        for (int64_t i = 0; i < length; i++) {
            const int8_t trit = trits[r * length + i];
            bad |= trit < -1 || trit > 1;
            codes[i] = uint8_t(trit + 1);
        }
        for (int64_t i = 0; i < run;) {
            const int64_t quarter = (i + CHUNK <= run ? CHUNK : UNIT) / 4;
            for (int64_t j = 0; j < quarter; j++, into++) {
                *into = 0;
                for (int l = 0; l < 4; l++) *into |= uint8_t(codes[i + l * quarter + j] << (2 * l));
            }
            i += 4 * quarter;
        }
    }
    return bad;
}
}
