/* cpu.matmul - product of two 48 x 48 matrices of doubles, scalar: floating point.
 *
 * It is built without vector code and without fused multiply-add (the flags are in isobench/payload/build.py):
 * every ISA then rounds at the same places, and the checksums are equal to the last bit.
 */
#include "isobench.h"

#define N 48
static double a[N][N], b[N][N], c[N][N];

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    (void)ib;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (double)(i * 31 + j * 17 % 29) / 64.0;
            b[i][j] = (double)((i * 13 + j * 7) % 37) / 1024.0;
        }
    uint64_t check = 0;
    for (uint64_t l = 0; l < loops; l++) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        /* The next factor is made of this product, so that no product can be left out. It is scaled, so that it neither
         * overflows nor vanishes. */
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) a[i][j] = c[i][j] / (1.0 + c[i][i] * c[i][i]) + (double)(i ^ j) / 64.0;
        union {
            double d;
            uint64_t u;
        } bits = {.d = c[l % N][(l * 7) % N]};
        check = ib_mix(check, bits.u);
    }
    return check;
}
