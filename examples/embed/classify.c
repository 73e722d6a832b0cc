/* classify.c -- says what is in pictures of 28 x 28 grey bytes each, read from stdin.
 *
 *     bitinfer export-c examples/lenet5.bin -o .
 *     cc -O2 -I. bitinfer_lenet5.c examples/embed/classify.c -o classify -lm
 *     ./classify <pictures
 */
#include <stdio.h>

#include "bitinfer_lenet5.h"

int main(void)
{
    static uint8_t pixels[BITINFER_LENET5_INPUTS];
    float logits[BITINFER_LENET5_OUTPUTS];
    while (fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels) {
        int code = bitinfer_lenet5_run(pixels, logits);
        if (code != BITINFER_LENET5_OK) {
            fprintf(stderr, "bitinfer_lenet5_run: code %d\n", code);
            return 1;
        }
        int best = 0;
        for (int i = 1; i < BITINFER_LENET5_OUTPUTS; i++)
            if (logits[i] > logits[best])
                best = i;
        printf("%d %.9g\n", best, (double)logits[best]);
    }
    return 0;
}
