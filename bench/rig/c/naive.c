/* naive.c -- float convolution as one writes it down first: the baseline of the XNOR-Net paper.
 *
 * in [channels][h][w] already padded, weight [outputs][channels][k][k], out [outputs][oh][ow]. */
void naive_conv2d(const float *in, const float *weight, const float *bias, float *out, int channels,
                  int h, int w, int outputs, int k, int stride, int oh, int ow)
{
    for (int o = 0; o < outputs; o++) {
        for (int y = 0; y < oh; y++) {
            for (int x = 0; x < ow; x++) {
                float sum = bias[o];
                for (int c = 0; c < channels; c++) {
                    for (int i = 0; i < k; i++) {
                        for (int j = 0; j < k; j++) {
                            sum += in[(c * h + y * stride + i) * w + x * stride + j] *
                                   weight[((o * channels + c) * k + i) * k + j];
                        }
                    }
                }
                out[(o * oh + y) * ow + x] = sum;
            }
        }
    }
}
