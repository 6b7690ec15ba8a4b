/* Superposed atoms: their density on points, and matrix elements of potentials of Gaussians around them.
 *
 * All Gaussians exp(-alpha r^2) have exponents of one ladder, alpha_k = lowest * 2^k, in bohr; k is a level.
 * Arrays are row-major and dense, numbers are double. A potential around centre C is
 *     sum_k s_k exp(-alpha_k r^2) + sum_k p_k . r exp(-alpha_k r^2),   r = x - C. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define IN const double *restrict
#define OUT double *restrict
#define PI 3.14159265358979323846
/* On points, Gaussians below exp(-VANISHED) are zero; of matrix elements, parts below exp(-CUTOFF) Eh. */
#define VANISHED 34.0
#define CUTOFF 26.0

/* exp(x) of x <= 0 to two units in the last place, 0 far below -700. No branches: loops over it are vectorised. */
static inline double exponential(double x) {
    const double shift = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer in the low bits */
    x = x < -700.0 ? -700.0 : x;
    const double shifted = x * 1.4426950408889634 + shift, n = shifted - shift;
    const double r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10;
    double y = 1.0 / 479001600;
    y = y * r + 1.0 / 39916800;
    y = y * r + 1.0 / 3628800;
    y = y * r + 1.0 / 362880;
    y = y * r + 1.0 / 40320;
    y = y * r + 1.0 / 5040;
    y = y * r + 1.0 / 720;
    y = y * r + 1.0 / 120;
    y = y * r + 1.0 / 24;
    y = y * r + 1.0 / 6;
    y = y * r + 0.5;
    y = y * r + 1.0;
    y = y * r + 1.0;
    int64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 52) + 0x3ff0000000000000LL;
    double power;
    memcpy(&power, &bits, sizeof power);
    return y * power;
}

/* ---- on points ---- */

#define BLOCK 64
/* rho, its gradient x y z, its second derivatives xx xy xz yy yz zz, the steep potential, the root of the weight */
#define N_VALUES 12

/* Values of superposed atoms on points around one of them.
 *
 * near [n_near]: the atoms that matter there, the one that the points belong to being the first. first, last:
 * levels of each atom in use; reach: distance beyond which its density is not felt, nor steep. density, steep
 * [atom][n_levels]: coefficients over the levels of the atom's density and of a potential that does not change
 * with the molecule. levels [atom][n_s + n_p]: of the Gaussians, and of
 * those times x, y, z, whose values are wanted, each list rising; rows [n_near][n_s + n_p]: where in functions,
 * the components of the latter one after the other, negative for those that are not wanted.
 * weights [n_points]: of a quadrature; values [N_VALUES][n_points], the last one is
 * sqrt(weight share), with the share of the atom in a partition by sqrt(rho_A) / r^4.
 * functions [][n_points]: times this root. */
void superpose(long n_points, IN points, IN weights, long n_near, const long *near, IN centres, const long *first,
               const long *last, IN reach, long n_levels, IN density, IN steep, double lowest, long n_s, long n_p,
               const long *levels, const long *rows, OUT values, OUT functions) {
    for (long begin = 0; begin < n_points; begin += BLOCK) {
        const long m = n_points - begin < BLOCK ? n_points - begin : BLOCK;
        double sum[N_VALUES][BLOCK] = {{0}}, total[BLOCK] = {0};
        for (long b = 0; b < n_near; b++) {
            const long a = near[b];
            double x[BLOCK], y[BLOCK], z[BLOCK], r2[BLOCK], e[BLOCK];
            double rho[BLOCK] = {0}, slope[BLOCK] = {0}, bend[BLOCK] = {0};
            double nearest = INFINITY, alpha = ldexp(lowest, first[a]);
            const long *wanted_s = levels + a * (n_s + n_p), *wanted_p = wanted_s + n_s;
            const long *row_s = rows + b * (n_s + n_p), *row_p = row_s + n_s;
            long s = 0, p = 0;
            for (long i = 0; i < m; i++) {
                x[i] = points[3 * (begin + i)] - centres[3 * a];
                y[i] = points[3 * (begin + i) + 1] - centres[3 * a + 1];
                z[i] = points[3 * (begin + i) + 2] - centres[3 * a + 2];
                r2[i] = x[i] * x[i] + y[i] * y[i] + z[i] * z[i];
                nearest = r2[i] < nearest ? r2[i] : nearest;
            }
            const int felt = nearest < reach[a] * reach[a];
            for (long i = 0; i < m; i++) e[i] = exponential(-alpha * r2[i]);
            for (long k = first[a]; k < last[a] && alpha * nearest < VANISHED; k++, alpha *= 2) {
                if (!felt && s == n_s && p == n_p) break;
                const double c = felt ? density[a * n_levels + k] : 0, v = felt ? steep[a * n_levels + k] : 0;
                if (c != 0)
                    for (long i = 0; i < m; i++) {
                        const double term = c * e[i];
                        rho[i] += term;
                        slope[i] += alpha * term;
                        bend[i] += alpha * alpha * term;
                    }
                if (v != 0)
                    for (long i = 0; i < m; i++) sum[10][i] += v * e[i];
                if (s < n_s && wanted_s[s] == k) {
                    double *f = functions + row_s[s] * n_points + begin;
                    if (row_s[s] >= 0) memcpy(f, e, m * sizeof(double));
                    s++;
                }
                if (p < n_p && wanted_p[p] == k) {
                    double *f = functions + row_p[p] * n_points + begin;
                    for (long i = 0; i < m && row_p[p] >= 0; i++) {
                        f[i] = x[i] * e[i];
                        f[n_points + i] = y[i] * e[i];
                        f[2 * n_points + i] = z[i] * e[i];
                    }
                    p++;
                }
                for (long i = 0; i < m; i++) e[i] *= e[i];
            }
            for (; s < n_s; s++)
                if (row_s[s] >= 0) memset(functions + row_s[s] * n_points + begin, 0, m * sizeof(double));
            for (; p < n_p; p++)
                for (long q = 0; q < 3 && row_p[p] >= 0; q++)
                    memset(functions + (row_p[p] + q) * n_points + begin, 0, m * sizeof(double));
            for (long i = 0; i < m && felt; i++) {
                /* d/dx = x times d/d(r^2) twice over */
                const double one = -2 * slope[i], two = 4 * bend[i];
                const double part = sqrt(rho[i] > 0 ? rho[i] : 0) / (r2[i] * r2[i] + 1e-30);
                sum[0][i] += rho[i];
                sum[1][i] += one * x[i];
                sum[2][i] += one * y[i];
                sum[3][i] += one * z[i];
                sum[4][i] += one + two * x[i] * x[i];
                sum[5][i] += two * x[i] * y[i];
                sum[6][i] += two * x[i] * z[i];
                sum[7][i] += one + two * y[i] * y[i];
                sum[8][i] += two * y[i] * z[i];
                sum[9][i] += one + two * z[i] * z[i];
                total[i] += part;
                if (b == 0) sum[11][i] = part;
            }
        }
        for (long i = 0; i < m; i++) sum[11][i] = sqrt(weights[begin + i] * sum[11][i] / (total[i] + 1e-300));
        for (long b = 0; b < n_near; b++)
            for (long w = 0; w < n_s + n_p; w++) {
                const long row = rows[b * (n_s + n_p) + w], end = row < 0 ? row : row + (w < n_s ? 1 : 3);
                for (long r = row; r < end; r++) {
                    double *f = functions + r * n_points + begin;
                    for (long i = 0; i < m; i++) f[i] *= sum[11][i];
                }
            }
        for (long row = 0; row < N_VALUES; row++)
            memcpy(values + row * n_points + begin, sum[row], m * sizeof(double));
    }
}

/* to[columns[i]][columns[j]] += from[i][j] of the lower triangle; columns rise. */
void add_lower(long n, const long *columns, IN from, long n_all, OUT to) {
    for (long i = 0; i < n; i++) {
        double *row = to + columns[i] * n_all;
        for (long j = 0; j <= i; j++) row[columns[j]] += from[i * n + j];
    }
}

/* ---- matrix elements ----
 * McMurchie and Davidson, J. Comput. Phys. 26, 218 (1978): a product of two Gaussian functions is a sum of
 * Hermite Gaussians around a point P on the line between them, with coefficients E; the integral of the one with
 * derivatives t, u, v times a function of the distance from C is that derivative, with respect to P, of
 *     G(R) = sum_k c_k (pi / (p + alpha_k))^(3/2) exp(-mu_k R^2),   mu_k = p alpha_k / (p + alpha_k). */

#define MAX_L 6
#define MAX_ORDER (2 * MAX_L + 1)
#define N_CARTESIANS(l) (((l) + 1) * ((l) + 2) / 2)
#define N_HERMITES(n) (((n) + 1) * ((n) + 2) * ((n) + 3) / 6)
#define MAX_LEVELS 64
/* Centres that are worked on at once. */
#define CHUNK 32

typedef double Row[CHUNK];

/* Place of derivative t, u, v; derivatives of order n stand before those of order n + 1. */
static short place[MAX_ORDER + 1][MAX_ORDER + 1][MAX_ORDER + 1];
/* Place of each one's next higher derivative along x, y, z. */
static short raised[N_HERMITES(MAX_ORDER - 1)][3];
/* R_{n+1 along q} = x_q R_n' + factor R_{n-1}' of the places one and two. */
static struct {
    short one, two, factor, axis;
} step[N_HERMITES(MAX_ORDER)];

/* Fill the tables above; to be called once, before anything else. */
void tables(void) {
    long at = 0;
    for (int n = 0; n <= MAX_ORDER; n++)
        for (int w = 0; w <= n; w++)
            for (int v = 0; v <= w; v++) place[n - w][w - v][v] = (short)at++;
    at = 0;
    for (int n = 0; n <= MAX_ORDER; n++)
        for (int w = 0; w <= n; w++)
            for (int v = 0; v <= w; v++, at++) {
                int q[3] = {n - w, w - v, v};
                if (n < MAX_ORDER)
                    for (int axis = 0; axis < 3; axis++)
                        raised[at][axis] = place[q[0] + (axis == 0)][q[1] + (axis == 1)][q[2] + (axis == 2)];
                if (n == 0) continue;
                const int axis = q[0] ? 0 : q[1] ? 1 : 2;
                q[axis]--;
                step[at].axis = (short)axis;
                step[at].one = place[q[0]][q[1]][q[2]];
                step[at].factor = (short)q[axis];
                if (q[axis]) q[axis]--;
                step[at].two = place[q[0]][q[1]][q[2]];
            }
}

/* to = derivatives n up to an order of functions of R for m centres, from those of n + 1, the first one given;
 * plus, if there are any, those of fields along x, y, z one order lower. */
static inline void raise_order(long order, long m, const Row *r, const Row *from, Row *const *along, Row *to) {
    for (long at = 1; at < N_HERMITES(order); at++) {
        const long axis = step[at].axis, lower = step[at].one;
        IN x = r[axis];
        IN one = from[lower];
        IN two = from[step[at].two];
        const double factor = step[at].factor;
        double *restrict out = to[at];
        if (step[at].factor)
            for (long c = 0; c < m; c++) out[c] = x[c] * one[c] + factor * two[c];
        else
            for (long c = 0; c < m; c++) out[c] = x[c] * one[c];
        if (along)
            for (long c = 0; c < m; c++) out[c] += along[axis][lower][c];
    }
}

/* g[n] += w (-2 mu)^n for n up to an order. */
static inline void radial(long order, long m, double mu, double *restrict w, Row *g) {
    for (long n = 0;; n++) {
        for (long c = 0; c < m; c++) g[n][c] += w[c];
        if (n == order) return;
        for (long c = 0; c < m; c++) w[c] *= -2 * mu;
    }
}

/* One power more than functions have, for their derivatives. */
typedef double Expansion[MAX_L + 2][MAX_L + 1][MAX_ORDER + 1];

/* Coefficients e[i][j][t] of the Hermite Gaussians in x_A^i x_B^j exp(...), e[0][0][0] being given. */
static void expand(long li, long lj, double p, double pa, double pb,
                   Expansion e) {
    for (long i = 0; i <= li; i++)
        for (long j = 0; j <= lj; j++) {
            if (i + j == 0) continue;
            const double *from = i ? e[i - 1][j] : e[i][j - 1], shift = i ? pa : pb;
            for (long t = 0; t <= i + j; t++)
                e[i][j][t] = (t ? from[t - 1] / (2 * p) : 0) + (t < i + j ? shift * from[t] : 0) +
                             (t + 1 < i + j ? (t + 1) * from[t + 1] : 0);
        }
}

typedef struct {
    long n_atoms, n_levels, p_first, p_last;
    const double *centres, *alpha, *s, *p;
    /* Logarithms: of |s| + |p| of each level, of the centre with most, and of (pi / alpha)^(3/2). */
    double largest[MAX_LEVELS], volume[MAX_LEVELS];
    int dipoles[MAX_LEVELS]; /* whether a level has any p */
    /* Centres by their distance from a place near P, and its square. */
    const long *order;
    const double *squares;
    Row *r, *g[4], *work[4][2];
} Field;

/* sum[tuv] = derivatives at P of all potentials, met by a Gaussian of exponent p and weight exp(-decay); P is
 * that far from where the centres are sorted. With a density, of Hermite Gaussians of one order less: its energy
 * is derived with respect to the centres. */
static void field_at(const Field *F, IN P, double p, double decay, double shift, long order, OUT sum, IN density,
                     OUT of_centres) {
    const long n_levels = F->n_levels, n_p = F->p_last - F->p_first;
    /* Squared distances up to which a level matters, and any. */
    double mu[MAX_LEVELS], front[MAX_LEVELS], reach[MAX_LEVELS], farthest = 0;
    const double volume = 1.5 * log(PI / p);
    for (long k = 0; k < n_levels; k++) {
        const double s = 1 / (p + F->alpha[k]), smaller = F->volume[k] < volume ? F->volume[k] : volume;
        mu[k] = p * F->alpha[k] * s;
        front[k] = PI * s * sqrt(PI * s);
        reach[k] = (CUTOFF - decay + smaller + F->largest[k]) / mu[k];
        farthest = reach[k] > farthest ? reach[k] : farthest;
    }
    for (long h = 0; h < N_HERMITES(order); h++) sum[h] = 0;
    const double limit = (sqrt(farthest) + shift) * (sqrt(farthest) + shift);
    long end = F->n_atoms;
    while (end && F->squares[end - 1] > limit) end--;
    for (long next = 0; next < end;) {
        /* The next centres within reach of the widest Gaussian, the nearest first. */
        double r2[CHUNK];
        long who[CHUNK], m = 0;
        for (; next < end && m < CHUNK; next++) {
            const long atom = F->order[next];
            IN C = F->centres + 3 * atom;
            const double x = P[0] - C[0], y = P[1] - C[1], z = P[2] - C[2], square = x * x + y * y + z * z;
            if (square > farthest) continue;
            long at = m++;
            for (; at && r2[at - 1] > square; at--) r2[at] = r2[at - 1], who[at] = who[at - 1];
            r2[at] = square, who[at] = atom;
        }
        if (m == 0) break;
        const long padded = (m + 7) / 8 * 8;
        for (long c = 0; c < padded; c++)
            for (int q = 0; q < 3; q++) F->r[q][c] = c < m ? P[q] - F->centres[3 * who[c] + q] : 0;
        for (long c = m; c < padded; c++) r2[c] = 0;
        for (int f = 0; f < (n_p ? 4 : 1); f++)
            for (long n = 0; n <= order; n++) memset(F->g[f][n], 0, padded * sizeof(double));
        long alive = 0;
        double last = -INFINITY;
        for (long k = 0; k < n_levels; k++) {
            if (reach[k] > last) alive = m;
            last = reach[k];
            while (alive && r2[alive - 1] > reach[k]) alive--;
            if (alive == 0) continue;
            const long wide = (alive + 7) / 8 * 8;
            double e[CHUNK], w[CHUNK];
            for (long c = 0; c < wide; c++) e[c] = front[k] * exponential(-mu[k] * r2[c]);
            for (long c = 0; c < wide; c++) w[c] = c < alive ? F->s[who[c] * n_levels + k] * e[c] : 0;
            radial(order, wide, mu[k], w, F->g[0]);
            if (!F->dipoles[k]) continue;
            /* Averaged over the other Gaussian, x exp(-alpha r^2) is p / (p + alpha) times as far from C. */
            const double scale = mu[k] / F->alpha[k];
            for (int q = 0; q < 3; q++) {
                for (long c = 0; c < wide; c++)
                    w[c] = c < alive ? scale * F->p[3 * (who[c] * n_p + k - F->p_first) + q] * e[c] : 0;
                radial(order, wide, mu[k], w, F->g[1 + q]);
            }
        }
        /* G = s + x . p, with s and p functions of R: what d/dx_q does to x is p_q. */
        Row *const *along = NULL, *lower[3];
        for (long n = order; n >= 0; n--) {
            Row *now = F->work[0][n & 1];
            for (long c = 0; c < padded; c++) now[0][c] = F->g[0][n][c];
            for (int q = 0; q < (n_p ? 3 : 0); q++) {
                for (long c = 0; c < padded; c++) now[0][c] += F->r[q][c] * F->g[1 + q][n][c];
                along = lower;
                if (n == order) continue;
                lower[q] = F->work[1 + q][n & 1];
                for (long c = 0; c < padded; c++) lower[q][0][c] = F->g[1 + q][n][c];
                raise_order(order - n - 1, padded, F->r, F->work[1 + q][~n & 1], NULL, lower[q]);
            }
            raise_order(order - n, padded, F->r, F->work[0][~n & 1], along, now);
        }
        for (int q = 0; q < (density ? 3 : 0); q++) {
            double slope[CHUNK] = {0};
            for (long h = 0; h < N_HERMITES(order - 1); h++) {
                IN row = F->work[0][0][raised[h][q]];
                for (long c = 0; c < padded; c++) slope[c] += density[h] * row[c];
            }
            for (long c = 0; c < m; c++) of_centres[3 * who[c] + q] -= slope[c];
        }
        for (long h = 0; h < N_HERMITES(order); h++) {
            IN row = F->work[0][0][h];
            double part[8] = {0};
            for (long c = 0; c < padded; c += 8)
                for (int lane = 0; lane < 8; lane++) part[lane] += row[c + lane];
            sum[h] += ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
        }
    }
}

/* Bring numbers into the order of the distances of their centres from a place. */
static void sort_by_distance(long n, IN centres, IN from, OUT squares, long *order) {
    for (long a = 0; a < n; a++) {
        double square = 0;
        for (int q = 0; q < 3; q++) square += (centres[3 * a + q] - from[q]) * (centres[3 * a + q] - from[q]);
        long at = a;
        for (; at && squares[at - 1] > square; at--) squares[at] = squares[at - 1], order[at] = order[at - 1];
        squares[at] = square, order[at] = a;
    }
}

/* shell: atom, l, number of primitives, of contractions, first exponent, first coefficient, first function */
enum { PLACE, DEGREE, PRIMITIVES, CONTRACTIONS, EXPONENT, COEFFICIENT, FUNCTION, N_ENTRIES };

/* block[contraction i][contraction j][Cartesian i][Cartesian j] += matrix elements of one pair of primitives. */
static void add_pair(const long *I, const long *J, IN ci, IN cj, Expansion *e,
                     IN sum, OUT block) {
    const long li = I[DEGREE], lj = J[DEGREE], ni = N_CARTESIANS(li), nj = N_CARTESIANS(lj);
    long row = 0;
    for (long ix = li; ix >= 0; ix--)
        for (long iy = li - ix; iy >= 0; iy--, row++) {
            const long iz = li - ix - iy;
            long column = 0;
            for (long jx = lj; jx >= 0; jx--)
                for (long jy = lj - jx; jy >= 0; jy--, column++) {
                    const long jz = lj - jx - jy;
                    double value = 0;
                    for (long t = 0; t <= ix + jx; t++) {
                        double over_y = 0;
                        for (long u = 0; u <= iy + jy; u++) {
                            double over_z = 0;
                            for (long v = 0; v <= iz + jz; v++) over_z += e[2][iz][jz][v] * sum[place[t][u][v]];
                            over_y += e[1][iy][jy][u] * over_z;
                        }
                        value += e[0][ix][jx][t] * over_y;
                    }
                    for (long qi = 0; qi < I[CONTRACTIONS]; qi++)
                        for (long qj = 0; qj < J[CONTRACTIONS]; qj++)
                            block[((qi * J[CONTRACTIONS] + qj) * ni + row) * nj + column] +=
                                ci[qi * I[PRIMITIVES]] * cj[qj * J[PRIMITIVES]] * value;
                }
        }
}

/* Write a block of Cartesian functions as one of spherical functions, and its mirror image. */
static void write_block(const long *I, const long *J, IN to_spherical, const long *spherical_at, IN block,
                        long n_ao, OUT out) {
    const long ni = N_CARTESIANS(I[DEGREE]), nj = N_CARTESIANS(J[DEGREE]);
    const long mi = 2 * I[DEGREE] + 1, mj = 2 * J[DEGREE] + 1;
    IN ti = to_spherical + spherical_at[I[DEGREE]];
    IN tj = to_spherical + spherical_at[J[DEGREE]];
    for (long qi = 0; qi < I[CONTRACTIONS]; qi++)
        for (long qj = 0; qj < J[CONTRACTIONS]; qj++) {
            IN cartesian = block + (qi * J[CONTRACTIONS] + qj) * ni * nj;
            for (long a = 0; a < mi; a++) {
                double half[N_CARTESIANS(MAX_L)] = {0};
                for (long i = 0; i < ni; i++)
                    for (long j = 0; j < nj; j++) half[j] += ti[i * mi + a] * cartesian[i * nj + j];
                for (long b = 0; b < mj; b++) {
                    double value = 0;
                    for (long j = 0; j < nj; j++) value += tj[j * mj + b] * half[j];
                    const long row = I[FUNCTION] + qi * mi + a, column = J[FUNCTION] + qj * mj + b;
                    out[row * n_ao + column] = out[column * n_ao + row] = value;
                }
            }
        }
}

/* Write weights of a block of spherical functions as those of Cartesian ones, the other way than write_block. */
static void read_block(const long *I, const long *J, IN to_spherical, const long *spherical_at, IN weights,
                       double factor, long n_ao, OUT block) {
    const long ni = N_CARTESIANS(I[DEGREE]), nj = N_CARTESIANS(J[DEGREE]);
    const long mi = 2 * I[DEGREE] + 1, mj = 2 * J[DEGREE] + 1;
    IN ti = to_spherical + spherical_at[I[DEGREE]];
    IN tj = to_spherical + spherical_at[J[DEGREE]];
    for (long qi = 0; qi < I[CONTRACTIONS]; qi++)
        for (long qj = 0; qj < J[CONTRACTIONS]; qj++) {
            double *cartesian = block + (qi * J[CONTRACTIONS] + qj) * ni * nj;
            memset(cartesian, 0, ni * nj * sizeof(double));
            for (long a = 0; a < mi; a++) {
                IN row = weights + (I[FUNCTION] + qi * mi + a) * n_ao + J[FUNCTION] + qj * mj;
                double half[N_CARTESIANS(MAX_L)] = {0};
                for (long j = 0; j < nj; j++)
                    for (long b = 0; b < mj; b++) half[j] += factor * tj[j * mj + b] * row[b];
                for (long i = 0; i < ni; i++)
                    for (long j = 0; j < nj; j++) cartesian[i * nj + j] += ti[i * mi + a] * half[j];
            }
        }
}

/* Weighted products of a pair of primitives as Hermite Gaussians: density[3], and density[x, y, z] of what they
 * change by as the first function moves, of one order more; all zero before. a: exponent of the first one. */
static void add_density(const long *I, const long *J, IN ci, IN cj, double a, Expansion *e, IN block,
                        double density[4][N_HERMITES(MAX_ORDER)]) {
    const long li = I[DEGREE], lj = J[DEGREE], ni = N_CARTESIANS(li), nj = N_CARTESIANS(lj);
    long row = 0;
    for (long ix = li; ix >= 0; ix--)
        for (long iy = li - ix; iy >= 0; iy--, row++) {
            long column = 0;
            for (long jx = lj; jx >= 0; jx--)
                for (long jy = lj - jx; jy >= 0; jy--, column++) {
                    const long i[3] = {ix, iy, li - ix - iy}, j[3] = {jx, jy, lj - jx - jy};
                    double weight = 0, moved[3][MAX_ORDER + 1];
                    for (long qi = 0; qi < I[CONTRACTIONS]; qi++)
                        for (long qj = 0; qj < J[CONTRACTIONS]; qj++)
                            weight += ci[qi * I[PRIMITIVES]] * cj[qj * J[PRIMITIVES]] *
                                      block[((qi * J[CONTRACTIONS] + qj) * ni + row) * nj + column];
                    for (int q = 0; q < 3; q++)
                        for (long t = 0; t <= i[q] + j[q] + 1; t++)
                            moved[q][t] = 2 * a * e[q][i[q] + 1][j[q]][t] -
                                          (i[q] && t < i[q] + j[q] ? i[q] * e[q][i[q] - 1][j[q]][t] : 0);
                    for (int d = 0; d < 4; d++) {
                        IN x = d == 0 ? moved[0] : e[0][i[0]][j[0]];
                        IN y = d == 1 ? moved[1] : e[1][i[1]][j[1]];
                        IN z = d == 2 ? moved[2] : e[2][i[2]][j[2]];
                        for (long t = 0; t <= i[0] + j[0] + (d == 0); t++)
                            for (long u = 0; u <= i[1] + j[1] + (d == 1); u++)
                                for (long v = 0; v <= i[2] + j[2] + (d == 2); v++)
                                    density[d][place[t][u][v]] += weight * x[t] * y[u] * z[v];
                    }
                }
        }
}

/* Matrix elements of potentials around atoms between spherical functions, out [n_ao][n_ao], zero before.
 *
 * coefficients: of normalised contractions, contraction after contraction of a shell. to_spherical: for each
 * degree [Cartesian][spherical], from spherical_at. alpha: rising. s [atom][n_levels], p [atom][p_first ..
 * p_last][3].
 *
 * With weights [n_ao][n_ao], symmetric, instead: derivatives of the sum of the weighted matrix elements with
 * respect to the places of the functions of each shell, of_shells [n_shells][3], and to the centres, of_centres
 * [n_atoms][3]; zero before. Returns 0, or 1 if there is no memory. */
long potential(long n_shells, const long *shells, IN places, IN exponents, IN coefficients, IN to_spherical,
               const long *spherical_at, long n_atoms, IN centres, long n_levels, IN alpha, IN s, long p_first,
               long p_last, IN p, long n_ao, OUT out, IN weights, OUT of_shells, OUT of_centres) {
    const long n_work = N_HERMITES(MAX_ORDER), n_radial = MAX_ORDER + 1, n_p = p_last - p_first;
    Row *rows = aligned_alloc(64, (8 * n_work + 4 * n_radial + 3) * sizeof(Row));
    Expansion *e = malloc(3 * sizeof *e);
    long largest = 0, *order = malloc(n_atoms * sizeof *order);
    for (long i = 0; i < n_shells; i++) {
        const long n = shells[i * N_ENTRIES + CONTRACTIONS] * N_CARTESIANS(shells[i * N_ENTRIES + DEGREE]);
        largest = n > largest ? n : largest;
    }
    double *block = malloc(largest * largest * sizeof(double)), *squares = malloc(n_atoms * sizeof *squares);
    if (!rows || !e || !block || !order || !squares) {
        free(rows), free(e), free(block), free(order), free(squares);
        return 1;
    }
    Field F = {.n_atoms = n_atoms, .n_levels = n_levels, .p_first = p_first, .p_last = p_last, .centres = centres,
               .alpha = alpha, .s = s, .p = p, .order = order, .squares = squares, .r = rows + 8 * n_work + 4 * n_radial};
    for (int f = 0; f < 4; f++) {
        F.g[f] = rows + 8 * n_work + f * n_radial;
        for (int side = 0; side < 2; side++) F.work[f][side] = rows + (2 * f + side) * n_work;
    }
    for (long k = 0; k < n_levels; k++) {
        double strongest = 0;
        for (long a = 0; a < n_atoms; a++) {
            double size = fabs(s[a * n_levels + k]), dipole = 0;
            for (int q = 0; q < 3 && k >= p_first && k < p_last; q++)
                dipole += fabs(p[3 * (a * n_p + k - p_first) + q]);
            size += dipole;
            F.dipoles[k] |= dipole > 0;
            strongest = size > strongest ? size : strongest;
        }
        F.largest[k] = log(strongest);
        F.volume[k] = 1.5 * log(PI / alpha[k]);
    }
    long place_of_order = -1;
    for (long i = 0; i < n_shells; i++) {
        const long *I = shells + i * N_ENTRIES;
        IN A = places + I[PLACE];
        if (I[PLACE] != place_of_order) sort_by_distance(n_atoms, centres, A, squares, order);
        place_of_order = I[PLACE];
        for (long j = 0; j <= i; j++) {
            const long *J = shells + j * N_ENTRIES;
            IN B = places + J[PLACE];
            const long degree = I[DEGREE] + J[DEGREE];
            const long size = I[CONTRACTIONS] * N_CARTESIANS(I[DEGREE]) * J[CONTRACTIONS] * N_CARTESIANS(J[DEGREE]);
            double distance = 0;
            for (int q = 0; q < 3; q++) distance += (A[q] - B[q]) * (A[q] - B[q]);
            int empty = 1;
            for (long k = 0; k < I[PRIMITIVES]; k++)
                for (long l = 0; l < J[PRIMITIVES]; l++) {
                    const double a = exponents[I[EXPONENT] + k], b = exponents[J[EXPONENT] + l], sum_ab = a + b;
                    const double decay = a * b / sum_ab * distance;
                    if (decay > CUTOFF) continue;
                    if (empty && weights)
                        read_block(I, J, to_spherical, spherical_at, weights, i == j ? 1 : 2, n_ao, block);
                    else if (empty)
                        memset(block, 0, size * sizeof(double));
                    empty = 0;
                    double P[3], sum[N_HERMITES(MAX_ORDER)];
                    const double shift = b / sum_ab * sqrt(distance);
                    IN ci = coefficients + I[COEFFICIENT] + k;
                    IN cj = coefficients + J[COEFFICIENT] + l;
                    for (int q = 0; q < 3; q++) {
                        P[q] = (a * A[q] + b * B[q]) / sum_ab;
                        e[q][0][0][0] = q ? 1 : exp(-decay);
                        expand(I[DEGREE] + (weights != NULL), J[DEGREE], sum_ab, P[q] - A[q], P[q] - B[q], e[q]);
                    }
                    if (weights) {
                        double density[4][N_HERMITES(MAX_ORDER)];
                        for (int d = 0; d < 4; d++)
                            memset(density[d], 0, N_HERMITES(degree + 1) * sizeof(double));
                        add_density(I, J, ci, cj, a, e, block, density);
                        field_at(&F, P, sum_ab, decay, shift, degree + 1, sum, density[3], of_centres);
                        for (int q = 0; q < 3; q++) {
                            double first = 0, both = 0;
                            for (long h = 0; h < N_HERMITES(degree + 1); h++) first += density[q][h] * sum[h];
                            for (long h = 0; h < N_HERMITES(degree); h++)
                                both += density[3][h] * sum[raised[h][q]];
                            of_shells[3 * i + q] += first;
                            of_shells[3 * j + q] += both - first;
                        }
                    } else {
                        field_at(&F, P, sum_ab, decay, shift, degree, sum, NULL, NULL);
                        add_pair(I, J, ci, cj, e, sum, block);
                    }
                }
            if (!empty && !weights) write_block(I, J, to_spherical, spherical_at, block, n_ao, out);
        }
    }
    free(rows), free(e), free(block), free(order), free(squares);
    return 0;
}
