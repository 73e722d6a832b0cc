"""Deliberate mistakes in csrc/, one each, which the tests must find; and how to build with one.

A mutant is the C sources with one text replaced.  It is compiled into a shared library, which takes
the place of the extension in a test run with BITINFER_TEST_LIBRARY=PATH.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from kernel_list import Kernel

CSRC = Path(__file__).parents[1] / "csrc"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """``old``, which stands in ``file`` exactly once, becomes ``new``; ``isa`` is what it needs."""

    what: str
    file: str
    old: str
    new: str
    isa: str = "portable"


MUTANTS = (
    Mutant(
        "bytes are emptied a word too late",
        "kernels/bconv2d/bconv2d_words_avx2.c",
        "WORDS_PER_BYTE_COUNT = 31",
        "WORDS_PER_BYTE_COUNT = 32",
        "avx2",
    ),
    Mutant(
        "bytes are not emptied within a run of words",
        "kernels/bconv2d/bconv2d_words_avx2.c",
        "if (c->room == 0)\n            empty_bytes(c);",
        "if (c->room == 0)\n            c->room = WORDS_PER_BYTE_COUNT;",
        "avx2",
    ),
    Mutant(
        "the weight begins at the first tap of the row, even outside the map",
        "kernels/bconv2d/bconv2d_words_avx2.c",
        "(size_t)(ky * s->kernel_w + t.kx_first) * shape.words * BLOCK;",
        "(size_t)(ky * s->kernel_w) * shape.words * BLOCK;",
        "avx2",
    ),
    Mutant(
        "pad_value is ignored",
        "kernels/bconv2d/bconv2d_words_avx2.c",
        "dot[i] += bi_bconv2d_padding_sum(s, tap_sums, &t, o + i);",
        "dot[i] += 0;",
        "avx2",
    ),
    Mutant(
        "zero padding counts as half of the padded signs",
        "kernels/bconv2d/bconv2d_words_avx2.c",
        "int32_t valid = (t.ky_end - t.ky_first) * width * shape.channels;",
        "int32_t valid = s->kernel_h * s->kernel_w * shape.channels;",
        "avx2",
    ),
    Mutant(
        "dilated taps are read as neighbours",
        "kernels/bconv2d/bconv2d_words_avx2.c",
        "s->dilation_w == 1 && s->groups == 1",
        "s->groups == 1",
        "avx2",
    ),
    Mutant(
        "a full block of outputs is stored where fewer are left",
        "kernels/bconv2d/bconv2d_words_avx2.c",
        "shape.outputs - inner < BLOCK ? shape.outputs - inner : BLOCK",
        "BLOCK",
        "avx2",
    ),
    Mutant(
        "the last word is skipped",
        "kernels/bconv2d/bconv2d_scalar.inc",
        "for (size_t k = 0; k < words; k++)",
        "for (size_t k = 0; k + 1 < words; k++)",
    ),
    Mutant(
        "every group reads the first group's channels",
        "kernels/bconv2d/bconv2d_scalar.inc",
        "(size_t)group * shape.words;",
        "0;",
    ),
    Mutant(
        "the dot product counts bits, not channels",
        "kernels/bconv2d/bconv2d_scalar.inc",
        "* width * shape.channels;",
        "* width * (int32_t)shape.words * 64;",
    ),
    Mutant(
        "the last sign of an aligned group is lost",
        "kernels/bconv2d/bconv2d.c",
        "(UINT64_C(1) << left) - 1",
        "(UINT64_C(1) << (left - 1)) - 1",
    ),
    Mutant(
        "bits from the next word are lost when a group is aligned",
        "kernels/bconv2d/bconv2d.c",
        "bits |= from[word + 1] << (64 - shift);",
        "bits |= 0;",
    ),
    Mutant(
        "sums of taps count the bits of whole words",
        "kernels/bconv2d/bconv2d.c",
        "tap_sums[i] = shape.channels - 2 * negative;",
        "tap_sums[i] = (int32_t)shape.words * 64 - 2 * negative;",
    ),
    Mutant(
        "taps right of the map are not padded",
        "kernels/bconv2d/bconv2d.h",
        "kx < t->kx_first || kx >= t->kx_end",
        "kx < t->kx_first",
    ),
    Mutant(
        "the beta map of the first group scales all",
        "kernels/bconv2d/bconv2d.h",
        "pixel * (size_t)s->groups + (size_t)group",
        "pixel * (size_t)s->groups",
    ),
    Mutant(
        "the first tap within a dilated window is off by one",
        "kernels/kernel.h",
        "(-origin + dilation - 1) / dilation",
        "-origin / dilation",
    ),
    Mutant(
        "the last tap within a dilated window is off by one",
        "kernels/kernel.h",
        "(extent - origin + dilation - 1) / dilation",
        "(extent - origin) / dilation",
    ),
    Mutant(
        "the last word of a row is skipped",
        "kernels/bdense/bdense_avx2.c",
        "for (; k < words; k++)",
        "for (; k + 1 < words; k++)",
        "avx2",
    ),
    Mutant(
        "beta scales after the bias",
        "kernels/epilogue.h",
        "y[i] += s->bias[o + i];",
        "y[i] += s->bias[o + i] * (p->beta != NULL ? *p->beta : 1);",
    ),
    Mutant(
        "the sign bit decides: -0.0 is negative",
        "kernels/pack_signs/pack_signs_avx2.c",
        "return _mm256_castps_si256(_mm256_cmp_ps(x, t, _CMP_LT_OQ));",
        "return _mm256_castps_si256(_mm256_or_ps(_mm256_cmp_ps(x, t, _CMP_LT_OQ), x));",
        "avx2",
    ),
    Mutant(
        "signs past the last eight are lost",
        "kernels/pack_signs/pack_signs_avx2.c",
        "if (i < count)",
        "if (i < count && 0)",
        "avx2",
    ),
    Mutant(
        "what is left of a word may be infinite",
        "kernels/pack_signs/pack_signs_avx2.c",
        "zeros != NULL ? &zeros->rest : NULL",
        "NULL",
        "avx2",
    ),
    Mutant(
        "nobody is told of what is infinite",
        "kernels/pack_signs/pack_signs.h",
        "bi_note_lost(at->lost);",
        "(void)at;",
    ),
    Mutant(
        "NaN is negative",
        "kernels/pack_signs/pack_signs.h",
        "(x < (threshold != NULL ? threshold[i] : 0.0f))",
        "(!(x >= (threshold != NULL ? threshold[i] : 0.0f)))",
    ),
    Mutant(
        "groups share the first group's inputs",
        "kernels/conv2d/conv2d_portable.c",
        "v.channel = group * (size_t)(s->in_c / s->groups);",
        "v.channel = 0;",
    ),
    Mutant(
        "the beta map divides by the taps within the map",
        "kernels/beta_map/beta_map_body.inc",
        "target[g] /= (float)(s->kernel_h * s->kernel_w);",
        "target[g] /= (float)((ky_end > 0 ? ky_end : 1) * (kx_end > kx_first ? kx_end : 1));",
    ),
    Mutant(
        "the maximum of signs is the OR of their bits",
        "kernels/pool/pool_body.inc",
        "all &= *(const WORDS *)tap ^ flip;",
        "all |= *(const WORDS *)tap ^ flip;",
    ),
    Mutant(
        "the border rule of average pools is ignored",
        "kernels/pool/pool_body.inc",
        "s->flags & BI_FLAG_COUNT_PADDING ? whole : inside",
        "s->flags & BI_FLAG_COUNT_PADDING ? whole : whole",
    ),
    Mutant(
        "flattening takes channels for pixels",
        "kernels/elementwise/elementwise_portable.c",
        "*target++ = source[p * channels + c];",
        "*target++ = source[c * pixels + p];",
    ),
    Mutant(
        "every sample of a batch is the first",
        "execute.c",
        "of->number * plan->stride_bytes[external]",
        "0 * plan->stride_bytes[external]",
    ),
    Mutant(
        "a band takes over the first rows of the one before",
        "execute.c",
        "memmove(band, band + (size_t)(first - before) * row_bytes,",
        "memmove(band, band + 0 * (size_t)(first - before) * row_bytes,",
    ),
    Mutant(
        "a part of the channels begins at the first",
        "kernels/pack_signs/pack_signs.h",
        "pixel * (size_t)s->in_c + (size_t)s->channel_from;",
        "pixel * (size_t)s->in_c;",
    ),
    Mutant(
        "floats leave no gap for the other channels of a joined map",
        "kernels/epilogue.h",
        "(channels + (size_t)s->target_gap)",
        "channels",
    ),
    Mutant(
        "a table kernel reads the residual as if it were no part of a joined map",
        "kernels/bconv2d/lookup_run.c",
        "(size_t)(s->out_c + s->residual_gap)",
        "(size_t)s->out_c",
        "avx2",
    ),
    Mutant(
        "pairs of signs are finished as if their floats were all of a joined map",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "const size_t floats_step = (size_t)s->out_c + (size_t)s->target_gap;",
        "const size_t floats_step = (size_t)s->out_c;",
        "avx512vbmi",
    ),
    Mutant(
        "pairs of signs are finished with a residual as if it were no part of a joined map",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "const size_t residual_step = (size_t)s->out_c + (size_t)s->residual_gap;",
        "const size_t residual_step = (size_t)s->out_c;",
        "avx512vbmi",
    ),
    Mutant(
        "rows begin at the top whatever part is asked for",
        "kernels/pack_signs/pack_signs.h",
        "size_t first = (size_t)begin * (size_t)s->in_w,",
        "size_t first = 0 * (size_t)begin * (size_t)s->in_w,",
    ),
    Mutant(
        "the parity of weights is left out",
        "kernels/bconv2d/bconv2d_avx512vbmi.c",
        "#define F(a, w) ((6 - ONES((a) ^ (w)) + ONES(w) % 2 - ONES(a) % 2) / 2)",
        "#define F(a, w) ((6 - ONES((a) ^ (w)) - ONES(a) % 2) / 2)",
        "avx512vbmi",
    ),
    Mutant(
        "odd entries past the last are counted",
        "kernels/bconv2d/bconv2d_avx512vbmi.c",
        "_mm512_mask_test_epi8_mask(wanted, _mm512_popcnt_epi8(six),",
        "_mm512_mask_test_epi8_mask(wanted << 1, _mm512_popcnt_epi8(six),",
        "avx512vbmi",
    ),
    Mutant(
        "the plane begins without padding",
        "kernels/bconv2d/bconv2d_avx512vbmi.c",
        "int32_t from = y - s->pad_top;",
        "int32_t from = y;",
        "avx512vbmi",
    ),
    Mutant(
        "a byte holds the sums of 86 entries",
        "kernels/bconv2d/lookup_avx512.inc",
        "BI_LONGEST_SUM = 85",
        "BI_LONGEST_SUM = 90",
        "avx512vbmi",
    ),
    Mutant(
        "a byte holds the sums of 140 entries of nibbles",
        "kernels/bconv2d/lookup_avx2.h",
        "BI_LONGEST_SUM_AVX2 = 126",
        "BI_LONGEST_SUM_AVX2 = 140",
        "avx2",
    ),
    Mutant(
        "the last column of an odd width has its lower pixel's parity from above",
        "kernels/bconv2d/lookup_run.c",
        "parities[x + below * s->out_w]",
        "parities[x]",
        "avx2",
    ),
    Mutant(
        "padding of the window's columns is not undone",
        "kernels/bconv2d/lookup_pairs.inc",
        "row[x] = odd_entries(pixel, words);",
        "row[x] = odd_entries(pixel, words - (words > 1));",
        "avx2",
    ),
    Mutant(
        "pixels of few outputs take the threshold of an even count of odd entries",
        "kernels/bconv2d/planes_avx2.h",
        "_mm256_add_epi32(load_pixels(here), more)",
        "_mm256_add_epi32(load_pixels(here), _mm256_sub_epi32(more, more))",
        "avx2",
    ),
    Mutant(
        "the second part of a window is gathered from its beginning",
        "kernels/bconv2d/pixels_body.inc",
        "first, begin, begin + shape->part_entries[part], tile",
        "first, 0, shape->part_entries[part], tile",
        "avx2",
    ),
    Mutant(
        "columns before the map are not laid out",
        "kernels/bconv2d/planes_body.inc",
        "lay_padding(shape, 0, first, to);",
        "(void)lay_padding;",
        "avx2",
    ),
    Mutant(
        "odd entries of the first column of a window are forgotten",
        "kernels/bconv2d/planes_body.inc",
        "kx == 0 ? no_pixels()",
        "kx <= 1 ? no_pixels()",
        "avx2",
    ),
    Mutant(
        "taps of every row are in the same phase",
        "kernels/bconv2d/pixels_body.inc",
        "planes + (size_t)(phase * in_row + e) * plane",
        "planes + (size_t)(0 * phase * in_row + e) * plane",
        "avx2",
    ),
    Mutant(
        "signs of outputs that there are not are set",
        "kernels/bconv2d/pixels_body.inc",
        "signs[x] = (below ^ flips) & inside;",
        "signs[x] = (below ^ flips) & (inside | inside << 1);",
        "avx2",
    ),
    Mutant(
        "outputs of the next row have the classes of the row before",
        "kernels/bconv2d/planes_body.inc",
        "row_class[y] * shape->h_classes",
        "row_class[y > 0 ? y - 1 : y] * shape->h_classes",
        "avx2",
    ),
    Mutant(
        "pairs of outputs that are added up together have the tables of the first",
        "kernels/bconv2d/bconv2d_pixels4_avx512bw.c",
        "index[p] = tables + (size_t)number[p] * count;",
        "index[p] = tables + (size_t)number[0] * count;",
        "avx512bw",
    ),
    Mutant(
        "the third sixteen of 64 pixels take the sums of the second",
        "kernels/bconv2d/bconv2d_pixels4_avx512bw.c",
        "_mm512_extracti32x4_epi32(x, 2)",
        "_mm512_extracti32x4_epi32(x, 1)",
        "avx512bw",
    ),
    Mutant(
        "pairs of outputs that are added up together have one pair's tables",
        "kernels/bconv2d/bconv2d_pixels4_neon.c",
        "tables + (together - 1) * count",
        "tables + 0 * together * count",
        "neon",
    ),
    Mutant(
        "eight outputs of one part have the sums of the eight before",
        "kernels/bconv2d/bconv2d_pixels4_neon.c",
        "of->sums + 8 * second",
        "of->sums + 0 * second",
        "neon",
    ),
    Mutant(
        "three sixteens of outputs are compared, the last as the one before",
        "kernels/bconv2d/bconv2d_pixels4_neon.c",
        "bytes[i] = vuzp1q_u8(",
        "bytes[i < 2 ? i : 1] = vuzp1q_u8(",
        "neon",
    ),
    Mutant(
        "every count of odd entries takes the threshold of an even one",
        "kernels/bconv2d/planes_neon.h",
        "vmlal_n_u16(here, four, (uint16_t)outputs)",
        "vmlal_n_u16(here, four, (uint16_t)(0 * outputs))",
        "neon",
    ),
    Mutant(
        "twice the odd entries of the last eight pixels are those of the first",
        "kernels/bconv2d/planes_neon.h",
        "vshll_n_u8(vget_high_u8(counts), 1)",
        "vshll_n_u8(vget_low_u8(counts), 1)",
        "neon",
    ),
    Mutant(
        "a digit takes one look-up too many",
        "kernels/bconv2d/lookup_neon.h",
        "BI_CHAIN_NEON = 7",
        "BI_CHAIN_NEON = 8",
        "neon",
    ),
    Mutant(
        "padding of pixels in the lanes counts as if it were -1",
        "kernels/bconv2d/pixels.c",
        "(1 - s->pad_value) * outside",
        "(1 - s->pad_value * s->pad_value) * outside",
        "avx2",
    ),
    Mutant(
        "what lies beyond the window is counted with it",
        "kernels/bconv2d/bitpairs.c",
        "shape->last = UINT32_MAX >> (32 - 8 * (shape->window - 4 * (shape->steps - 1)));",
        "shape->last = UINT32_MAX >> (0 * shape->window);",
        "avx512vbmi",
    ),
    Mutant(
        "signs of the channels before are cleared by every sixteen",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "((bitpairs_u16 *)word)[o->quarter] = (uint16_t)below;",
        "*word = (uint64_t)below << SIXTEEN * o->quarter;",
        "avx512vbmi",
    ),
    Mutant(
        "sums of the first steps of a long window are forgotten",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "for (c.is_first = 1; left > 0; c.is_first = 0, chunks--) {",
        "for (c.is_first = 1; left > 0; c.is_first = chunks > 2, chunks--) {",
        "avx512vbmi",
    ),
    Mutant(
        "every output has the threshold of an even count of odd pairs",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "constants = _mm512_mask_add_epi32(constants, is_odd, constants, outputs);",
        "(void)is_odd, (void)outputs;",
        "avx512vbmi",
    ),
    Mutant(
        "the last pixels of a row of the map are not laid out",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "here &= left <= 0 ? 0 : left < COLUMNS_AT_ONCE ? (1u << left) - 1 : 0xff;",
        "here &= left <= 0 ? 0 : left < COLUMNS_AT_ONCE ? (1u << left) - 2 : 0xff;",
        "avx512vbmi",
    ),
    Mutant(
        "odd pairs of a pixel are counted beyond its half",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "uint64_t parity = (bits ^ other) & inside;",
        "uint64_t parity = (bits ^ other) & (inside | (inside << 8));",
        "avx512vbmi",
    ),
    Mutant(
        "the last outputs of a row take the sums of the row above",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "piece->sums + y * c->width + x, 1);",
        "piece->sums + (y > 0 ? y - 1 : y) * c->width + x, 1);",
        "avx512vbmi",
    ),
    Mutant(
        "signs of channels that there are not are set",
        "kernels/bconv2d/bconv2d_bitpairs_avx512vbmi.c",
        "below = (below ^ o->flips) & inside;",
        "below = (below ^ o->flips) & (inside | inside << 1);",
        "avx512vbmi",
    ),
    Mutant(
        "padding counts as if it were -1",
        "kernels/bconv2d/bitpairs.c",
        "(1 - s->pad_value) * outside",
        "(1 - s->pad_value * s->pad_value) * outside",
        "avx512vbmi",
    ),
    Mutant(
        "pixels of bytes have a sign, and weights none",
        "kernels/conv2d/tile_avx512.h",
        '"vpdpbusd " WEIGHT_##w ", %%zmm24, %%zmm" #sum',
        '"vpdpbusd %%zmm24, " WEIGHT_##w ", %%zmm" #sum',
        "avx512vbmi",
    ),
    Mutant(
        "every part of K forgets the parts before",
        "kernels/conv2d/tiles64_avx512vbmi.c",
        "first ? NULL : sums",
        "first >= 0 ? NULL : sums",
        "avx512vbmi",
    ),
    Mutant(
        "blocks of fewer vectors are read as whole ones",
        "kernels/conv2d/tiles64_avx512vbmi.c",
        ".apart = vectors * 16,",
        ".apart = BI_WIDE_VECTORS * 16,",
        "avx512vbmi",
    ),
    Mutant(
        "groups of 512-bit tiles share the first group's pixels",
        "kernels/conv2d/tiles64_avx512vbmi.c",
        "group * group_bytes, weight, target",
        "0 * group * group_bytes, weight, target",
        "avx512vbmi",
    ),
    Mutant(
        "the outputs of bundled groups stay in the order of lanes",
        "kernels/conv2d/groups_avx512vbmi.c",
        "(int32_t)(o % l->outputs * l->together + o / l->outputs)",
        "(int32_t)o",
        "avx512vbmi",
    ),
    Mutant(
        "bundled groups read the channels of the first",
        "kernels/conv2d/groups_avx512vbmi.c",
        "(int32_t)(i % l->together * l->inputs + i / l->together)",
        "(int32_t)(i / l->together)",
        "avx512vbmi",
    ),
    Mutant(
        "an entry of the neighbouring pixel is off by a digit",
        "kernels/bconv2d/pairs_avx2.h",
        "__m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(x, 4), low),",
        "__m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(x, 3), low),",
        "avx512bw",
    ),
)

THREAD_MUTANTS = (
    Mutant(
        "two calls have the pool at once",
        "threads.c",
        "before == now * 2 + 1 ||",
        "before == now * 2 + 5 ||",
    ),
    Mutant(
        "a child counts on the workers of its parent",
        "threads.c",
        "if (before / 2 != now)",
        "if (before / 2 > now)",
    ),
    Mutant(
        "a caller waits for all parts but one",
        "threads.c",
        "atomic_load(&pool->done) < parts; spins++",
        "atomic_load(&pool->done) < parts - 1; spins++",
    ),
    Mutant(
        "workers bear one number",
        "threads.c",
        "new->number = pool->started + 1;",
        "new->number = 1;",
    ),
    Mutant(
        "sleepers are not woken to end",
        "threads.c",
        "atomic_store(&pool->stop, 1);\n        wake_sleepers(pool);",
        "atomic_store(&pool->stop, 1);",
    ),
    Mutant(
        "threads share an arena",
        "execute.c",
        "in->arenas + thread * in->plan->arena_bytes",
        "in->arenas + 0 * thread * in->plan->arena_bytes",
    ),
    Mutant(
        "a part leaves out its last row",
        "execute.c",
        "(int32_t)bi_part_begin(rows, part + 1, parts);",
        "(int32_t)bi_part_begin(rows, part + 1, parts) - (parts > 1);",
    ),
)
"""Those that tests/c/check_threads.c must find."""


def compiler() -> str | None:
    """Return the C compiler, or None."""
    return shutil.which("gcc") or shutil.which("cc")


EMULATED = "aarch64-linux-gnu-gcc"
"""The compiler of programs that EMULATOR runs."""

EMULATOR = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")


FLAGS = ("-std=c11", "-O1", "-w", "-fPIC", "-ffp-contract=off", "-pthread")


@functools.cache
def _unchanged(cc: str) -> tuple[Path, dict[str, set[str]]]:
    """Compile the sources once; return the folder of objects, and what each file is made from."""
    keep = tempfile.TemporaryDirectory(prefix="bitinfer-mutants-")
    atexit.register(keep.cleanup)
    folder = Path(keep.name)
    made_from = {}
    for path in sorted(CSRC.rglob("*.c")):
        name = str(path.relative_to(CSRC))
        made_from[name] = _compile(cc, CSRC, name, folder)
    return folder, made_from


def _compile(cc: str, sources: Path, name: str, objects: Path) -> set[str]:
    """Compile one file; return the names of the files that it is made from."""
    target = objects / name.replace("/", "-")
    command = [cc, *FLAGS, f"-I{sources}", "-MMD", "-MF", f"{target}.d"]
    subprocess.run([*command, "-c", str(sources / name), "-o", f"{target}.o"], check=True)
    words = Path(f"{target}.d").read_text().replace("\\\n", " ").split()[1:]
    paths = (Path(word).resolve() for word in words)
    root = sources.resolve()
    return {str(path.relative_to(root)) for path in paths if path.is_relative_to(root)}


def build(
    folder: Path, mutant: Mutant | None, test: str = "kernels/*.c", *, cc: str | None = None
) -> tuple[Path, Path]:
    """Compile the sources, changed if there is a mutant; return the library and the C test.

    Only what the change concerns is compiled anew.  ``test`` says which files in tests/c are the
    test, ``cc`` by which compiler.
    """
    cc = cc or str(compiler())
    objects, made_from = _unchanged(cc)
    files = [objects / f"{name.replace('/', '-')}.o" for name in made_from]
    if mutant is not None:
        sources = folder / "csrc"
        shutil.copytree(CSRC, sources)
        path = sources / mutant.file
        text = path.read_text()
        assert text.count(mutant.old) == 1, f"{mutant.file}: {mutant.old!r} is not there once"
        path.write_text(text.replace(mutant.old, mutant.new))
        changed = [name for name, parts in made_from.items() if mutant.file in parts]
        for name in changed:
            _compile(cc, sources, name, folder)
        files = [
            (folder if name in changed else objects) / f"{name.replace('/', '-')}.o"
            for name in made_from
        ]
    library, program = folder / "library.so", folder / "program"
    flags = [cc, *FLAGS]
    subprocess.run([*flags, "-shared", *map(str, files), "-lm", "-o", str(library)], check=True)
    tests = CSRC.parent / "tests" / "c"
    parts = [str(path) for path in sorted(tests.glob(test))]
    subprocess.run(
        [*flags, f"-I{CSRC}", *parts, str(library), "-lm", "-o", str(program)], check=True
    )
    return library, program


def trap(kernel: Kernel) -> Mutant:
    """Return the mistake that a kernel dies as soon as it runs, alone or on a batch."""
    return Mutant(
        f"{kernel.operation} {kernel.name} is never run",
        "dispatch.c",
        "const bi_kernel *bi_kernel_at(int32_t kernel) { return entries[kernel].kernel; }",
        f"""
static void die(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{{
    __builtin_trap();
}}
static void die_batch(const bi_step *s, const bi_pointers *at, size_t samples, int32_t begin,
                      int32_t end)
{{
    __builtin_trap();
}}
const bi_kernel *bi_kernel_at(int32_t kernel)
{{
    static bi_kernel trapped;
    if (kernel != {kernel.index})
        return entries[kernel].kernel;
    trapped = *entries[kernel].kernel;
    trapped.run = die;
    trapped.run_batch = trapped.run_batch != NULL ? die_batch : NULL;
    return &trapped;
}}
""",
        kernel.isa,
    )


def install(library: Path) -> None:
    """Put a library in the place of the extension; before anything has used that."""
    from cffi import FFI

    header = (CSRC / "bitinfer.h").read_text()
    declarations = re.search(r"/\* cdef-begin \*/(.*)/\* cdef-end \*/", header, re.DOTALL)
    assert declarations is not None
    ffi = FFI()
    ffi.cdef(declarations[1])
    extension = SimpleNamespace(ffi=ffi, lib=ffi.dlopen(str(library)))
    sys.modules["bitinfer.backends.native._native"] = extension  # type: ignore[assignment]
