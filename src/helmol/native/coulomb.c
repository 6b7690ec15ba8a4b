/* Three-index Coulomb integrals (ij|P) of chosen pairs of shells, by a function of libcint that the caller hands over. */
#include <stdlib.h>
#include <string.h>

/* As all of libcint's: without out it says how many doubles of cache it needs, else whether any is not zero. */
typedef int Integral(double *out, int *dims, int *shells, int *atm, int natm, int *bas, int nbas, double *env,
                     void *optimiser, double *cache);

/* Write (ij|P) of pairs of shells with all shells P from first to last.
 *
 * kinds [n_kinds]: a shell of every size there is, of those of pairs the first n_own.
 * pairs [n_pairs][4]: i, j, where in a row of out the pair begins, how many numbers it has; i runs fastest.
 * places [last - first + 1]: the row of out that a shell P begins at. out [rows][stride].
 * Returns 0, or 1 if there is no memory. */
long near_integrals(Integral *integral, void *optimiser, int *atm, long natm, int *bas, long nbas, double *env,
                    long n_kinds, long n_own, const long *kinds, long n_pairs, const long *pairs, long first,
                    long last, const long *places, long stride, double *out) {
    long needed = 1, most = 1, rows = 1;
    for (long i = 0; i < n_own; i++)
        for (long j = 0; j < n_own; j++)
            for (long p = n_own; p < n_kinds; p++) {
                int shells[3] = {(int)kinds[i], (int)kinds[j], (int)kinds[p]};
                const long n = integral(NULL, NULL, shells, atm, (int)natm, bas, (int)nbas, env, optimiser, NULL);
                needed = n > needed ? n : needed;
            }
    for (long q = 0; q < n_pairs; q++) most = pairs[4 * q + 3] > most ? pairs[4 * q + 3] : most;
    for (long p = 0; p < last - first; p++) rows = places[p + 1] - places[p] > rows ? places[p + 1] - places[p] : rows;
    double *cache = malloc(needed * sizeof(double)), *block = malloc(most * rows * sizeof(double));
    if (!cache || !block) {
        free(cache), free(block);
        return 1;
    }
    for (long q = 0; q < n_pairs; q++)
        for (long p = 0; p < last - first; p++) {
            const long *pair = pairs + 4 * q, n = pair[3];
            int shells[3] = {(int)pair[0], (int)pair[1], (int)(first + p)};
            double *to = out + places[p] * stride + pair[2];
            const int any = integral(block, NULL, shells, atm, (int)natm, bas, (int)nbas, env, optimiser, cache);
            for (long row = 0; row < places[p + 1] - places[p]; row++, to += stride)
                if (any)
                    memcpy(to, block + row * n, n * sizeof(double));
                else
                    memset(to, 0, n * sizeof(double));
        }
    free(cache), free(block);
    return 0;
}
