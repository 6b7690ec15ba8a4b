/* Rotations between atoms and edge frames, for one floating-point type: REAL and NAME(x) are set by the
 * includer. Arrays are row-major and dense. Nodes [N, K, C] are l-major, edge rows m-major.
 *
 * A pair p has atoms i[p], j[p], frames W_l[m][r] (laboratory m, edge frame r) one after the other for
 * l = 0 .. lmax, and directed edges p (i to j) and P + p (j to i); the frame of the reverse edge differs by
 * the signs flip[k]. row[l*l + r] is the m-major row of component r of degree l, degree[k] the degree of a row.
 * J moves row k to turn[k], with the sign of that row; it stands for a quarter of a turn about the edge.
 *
 * The first N of C channels are of natural parity (kind 0). Of the others (kind 1) edges hold J^-1 of the
 * components: in their row k stands component turn[k] times sign[turn[k]]. Folded features are packed: channel c
 * of row k stands at at[2 k + kind] + c. */

#ifndef TILE
#define TILE 16
#define IN const REAL *restrict
/* The two kinds of channels, from .. to; the component r that their row k holds, and its sign. */
#define KINDS for (long kind = 0, from = 0, to = N; kind < 2; kind++, from = N, to = C)
#define COMPONENT const long r = kind ? turn[k] : k
#define SIGN (kind ? sign[r] : (REAL)1)
#endif

/* Numbers that the processor works on at once. */
typedef REAL NAME(vector) __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias));

/* out[r] (+)= sum_m W[m][r] x[m] for a fixed n = 2l+1; with back: out[m] (+)= sum_r W[m][r] x[r].
 * xrow and outrow give the place of each row. */
static inline __attribute__((always_inline)) void NAME(turn_fixed)(
    const int n, const int back, const int add, IN W, IN x, const long *xrow, REAL *restrict out,
    const long *outrow, long C) {
    const long tile = sizeof(NAME(vector)) / sizeof(REAL);
    long c = 0;
    for (; c + tile <= C; c += tile) {
        NAME(vector) acc[17];
#pragma GCC unroll 17
        for (int r = 0; r < n; r++)
            acc[r] = add ? *(NAME(vector) *)(out + outrow[r] + c) : (NAME(vector)){0};
#pragma GCC unroll 17
        for (int m = 0; m < n; m++) {
            const NAME(vector) xm = *(const NAME(vector) *)(x + xrow[m] + c);
#pragma GCC unroll 17
            for (int r = 0; r < n; r++) acc[r] += (back ? W[r * n + m] : W[m * n + r]) * xm;
        }
#pragma GCC unroll 17
        for (int r = 0; r < n; r++) *(NAME(vector) *)(out + outrow[r] + c) = acc[r];
    }
    for (; c < C; c++)
        for (int r = 0; r < n; r++) {
            REAL acc = add ? out[outrow[r] + c] : 0;
            for (int m = 0; m < n; m++) acc += (back ? W[r * n + m] : W[m * n + r]) * x[xrow[m] + c];
            out[outrow[r] + c] = acc;
        }
}

static void NAME(turn)(
    int l, int back, int add, IN W, IN x, const long *xrow, REAL *restrict out, const long *outrow, long C) {
#define CASE(L)                                                                                \
    case L:                                                                                    \
        if (back && add) NAME(turn_fixed)(2 * L + 1, 1, 1, W, x, xrow, out, outrow, C);        \
        else if (back) NAME(turn_fixed)(2 * L + 1, 1, 0, W, x, xrow, out, outrow, C);          \
        else NAME(turn_fixed)(2 * L + 1, 0, 0, W, x, xrow, out, outrow, C);                    \
        break;
    switch (l) { CASE(0) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
}

/* Put both ends of a pair into its frame: local[k][0..C) = x_i, local[k][C..2C) = x_j, m-major rows. */
static void NAME(ends)(
    IN nodes, long i, long j, IN W, const long *row, long lmax, long C, REAL *restrict local) {
    const long K = (lmax + 1) * (lmax + 1);
    long in[17], out[17];
    for (int l = 0; l <= lmax; l++) {
        for (int r = 0; r < 2 * l + 1; r++) {
            in[r] = (l * l + r) * C;
            out[r] = row[l * l + r] * 2 * C;
        }
        NAME(turn)(l, 0, 0, W, nodes + i * K * C, in, local, out, C);
        NAME(turn)(l, 0, 0, W, nodes + j * K * C, in, local + C, out, C);
        W += (2 * l + 1) * (2 * l + 1);
    }
}

/* Add the laboratory form of local (as above) to the nodes of both atoms. */
static void NAME(spread)(
    IN local, long i, long j, IN W, const long *row, long lmax, long C, REAL *restrict nodes) {
    const long K = (lmax + 1) * (lmax + 1);
    long in[17], out[17];
    for (int l = 0; l <= lmax; l++) {
        for (int r = 0; r < 2 * l + 1; r++) {
            out[r] = (l * l + r) * C;
            in[r] = row[l * l + r] * 2 * C;
        }
        NAME(turn)(l, 1, 1, W, local, in, nodes + i * K * C, out, C);
        NAME(turn)(l, 1, 1, W, local + C, in, nodes + j * K * C, out, C);
        W += (2 * l + 1) * (2 * l + 1);
    }
}

/* x = radial[p] x_i and y = flip radial[P+p] x_j of each pair: even[p] = (x + y)/sqrt 2 in rows k < rows of
 * folded[p], J (x - y)/sqrt 2 in those of folded[P+p]. */
void NAME(gather_fold)(
    IN nodes, const long *i, const long *j, IN frames, IN radial, IN flip, const long *row, const long *turn,
    IN sign, const long *degree, const long *at, long P, long lmax, long C, long N, long rows, long begin,
    long end, REAL *restrict local, REAL *restrict folded) {
    const long D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3, R = (lmax + 1) * C;
    const REAL half = NAME(root)((REAL)0.5);
    for (long p = begin; p < end; p++) {
        NAME(ends)(nodes, i[p], j[p], frames + p * D, row, lmax, C, local);
        for (long k = 0; k < rows; k++) {
            const REAL s = sign[turn[k]];
            IN a = radial + p * R + degree[k] * C, *restrict b = a + P * R;
            KINDS {
                COMPONENT;
                REAL *restrict even = folded + p * rows * C + at[2 * k + kind];
                REAL *restrict odd = folded + (P + p) * rows * C + at[2 * turn[k] + kind];
                IN x = local + r * 2 * C, h = half * SIGN, f = h * flip[r];
                for (long c = from; c < to; c++) {
                    const REAL u = h * a[c] * x[c], v = f * b[c] * x[C + c];
                    even[c] = u + v;
                    odd[c] = s * (u - v);
                }
            }
        }
    }
}

/* Gradients of gather_fold: g_radial is written, g_nodes added to. Needs two scratch arrays [K, 2C]. */
void NAME(gather_fold_backward)(
    IN g_folded, IN nodes, const long *i, const long *j, IN frames, IN radial, IN flip, const long *row,
    const long *turn, IN sign, const long *degree, const long *at, long P, long lmax, long C, long N, long rows,
    long begin, long end, REAL *restrict local, REAL *restrict g_nodes, REAL *restrict g_radial) {
    const long K = (lmax + 1) * (lmax + 1), S = 2 * C, R = (lmax + 1) * C;
    const long D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3;
    const REAL half = NAME(root)((REAL)0.5);
    REAL *restrict g_local = local + K * S;
    for (long p = begin; p < end; p++) {
        NAME(ends)(nodes, i[p], j[p], frames + p * D, row, lmax, C, local);
        REAL *restrict ga = g_radial + p * R, *restrict gb = ga + P * R;
        for (long c = 0; c < R; c++) ga[c] = gb[c] = 0;
        for (long k = 0; k < rows; k++) {
            const REAL s = sign[turn[k]];
            IN a = radial + p * R + degree[k] * C, *restrict b = a + P * R;
            REAL *restrict da = ga + degree[k] * C, *restrict db = gb + degree[k] * C;
            KINDS {
                COMPONENT;
                IN even = g_folded + p * rows * C + at[2 * k + kind];
                IN odd = g_folded + (P + p) * rows * C + at[2 * turn[k] + kind];
                IN x = local + r * S, h = half * SIGN, f = h * flip[r];
                REAL *restrict o = g_local + r * S;
                for (long c = from; c < to; c++) {
                    const REAL u = h * (even[c] + s * odd[c]), v = f * (even[c] - s * odd[c]);
                    da[c] += u * x[c];
                    db[c] += v * x[C + c];
                    o[c] = u * a[c];
                    o[C + c] = v * b[c];
                }
            }
        }
        for (long c = rows * S; c < K * S; c++) g_local[c] = 0;
        NAME(spread)(g_local, i[p], j[p], frames + p * D, row, lmax, C, g_nodes);
    }
}

/* Sums and differences of the two directions, x[p] and x[P+p], over sqrt 2; those of the second are turned by
 * the inverse of J before, or, with fold, the differences are turned by J after. x and out are not the same. */
void NAME(fold)(
    IN x, const long *turn, IN sign, long P, long rows, long C, long fold, long begin, long end,
    REAL *restrict out) {
    const REAL half = NAME(root)((REAL)0.5);
    for (long p = begin; p < end; p++)
        for (long k = 0; k < rows; k++) {
            const REAL s = half * sign[turn[k]];
            const long there = fold ? k : turn[k], back = fold ? turn[k] : k;
            IN a = x + (p * rows + k) * C, *restrict b = x + ((P + p) * rows + there) * C;
            REAL *restrict sum = out + (p * rows + k) * C, *restrict rest = out + ((P + p) * rows + back) * C;
            if (fold)
                for (long c = 0; c < C; c++) {
                    sum[c] = half * (a[c] + b[c]);
                    rest[c] = s * (a[c] - b[c]);
                }
            else
                for (long c = 0; c < C; c++) {
                    sum[c] = half * a[c] + s * b[c];
                    rest[c] = half * a[c] - s * b[c];
                }
        }
}

/* nodes[i] += W (weight * edge i to j), nodes[j] += W (flip * weight * edge j to i). Scratch [K, 2C]. */
void NAME(scatter)(
    IN edges, IN weight, const long *i, const long *j, IN frames, IN flip, const long *row, const long *turn,
    IN sign, long P, long lmax, long C, long N, long begin, long end, REAL *restrict local,
    REAL *restrict nodes) {
    const long K = (lmax + 1) * (lmax + 1), S = 2 * C, D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3;
    for (long p = begin; p < end; p++) {
        for (long k = 0; k < K; k++) {
            IN there = edges + (p * K + k) * C, *restrict back = there + P * K * C;
            KINDS {
                COMPONENT;
                const REAL w = weight[p] * SIGN, f = w * flip[r];
                for (long c = from; c < to; c++) local[r * S + c] = w * there[c];
                for (long c = from; c < to; c++) local[r * S + C + c] = f * back[c];
            }
        }
        NAME(spread)(local, i[p], j[p], frames + p * D, row, lmax, C, nodes);
    }
}

/* Gradient of scatter with respect to the edges. Scratch [K, 2C]. */
void NAME(scatter_backward)(
    IN g_nodes, IN weight, const long *i, const long *j, IN frames, IN flip, const long *row, const long *turn,
    IN sign, long P, long lmax, long C, long N, long begin, long end, REAL *restrict local,
    REAL *restrict g_edges) {
    const long K = (lmax + 1) * (lmax + 1), S = 2 * C, D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3;
    for (long p = begin; p < end; p++) {
        NAME(ends)(g_nodes, i[p], j[p], frames + p * D, row, lmax, C, local);
        for (long k = 0; k < K; k++) {
            REAL *restrict there = g_edges + (p * K + k) * C, *restrict back = there + P * K * C;
            KINDS {
                COMPONENT;
                const REAL w = weight[p] * SIGN, f = w * flip[r];
                for (long c = from; c < to; c++) there[c] = w * local[r * S + c];
                for (long c = from; c < to; c++) back[c] = f * local[r * S + C + c];
            }
        }
    }
}

/* Layers on edges. Element (e, k, c) of a strided array lies at e*se + k*sk + c; gates [E, L, C] dense. */

/* out = x * gates[degree] for all rows but the first, which is left alone. Same places for x and out, packed with
 * at in units of sk. */
void NAME(gate)(
    IN x, IN gates, const long *degree, const long *at, long se, long sk, long K, long L, long C, long N,
    long begin, long end, REAL *restrict out) {
    for (long e = begin; e < end; e++)
        for (long k = 1; k < K; k++) KINDS {
                IN in = x + e * se + at[2 * k + kind] * sk, *restrict g = gates + (e * L + degree[k] - 1) * C;
                REAL *restrict o = out + e * se + at[2 * k + kind] * sk;
                for (long c = from; c < to; c++) o[c] = in[c] * g[c];
            }
}

/* Gradients of gate with respect to x (rows but the first) and to the raw gates before tanh or sigmoid. */
void NAME(gate_backward)(
    IN g, IN x, IN gates, const long *degree, const long *at, long se, long sk, long K, long L, long C, long N,
    long tanh, long begin, long end, REAL *restrict g_x, REAL *restrict g_gates) {
    for (long e = begin; e < end; e++) {
        REAL *restrict sums = g_gates + e * L * C;
        IN s = gates + e * L * C;
        for (long c = 0; c < L * C; c++) sums[c] = 0;
        for (long k = 1; k < K; k++) KINDS {
                const long place = e * se + at[2 * k + kind] * sk;
                IN h = g + place, *restrict in = x + place, *restrict f = s + (degree[k] - 1) * C;
                REAL *restrict o = g_x + place, *restrict sum = sums + (degree[k] - 1) * C;
                for (long c = from; c < to; c++) {
                    const REAL value = h[c];
                    sum[c] += value * in[c];
                    o[c] = value * f[c];
                }
            }
        for (long c = 0; c < L * C; c++) sums[c] *= tanh ? 1 - s[c] * s[c] : s[c] * (1 - s[c]);
    }
}

/* out = weight[degree] s scale, where s is x [E, K, C] with its first row centred over the channels and
 * scale = 1/sqrt(sum balance s^2 + eps). out has strides se, sk. */
void NAME(norm)(
    IN x, IN weight, IN balance, const long *degree, double eps, long K, long C, long se,
    long sk, long begin, long end, REAL *restrict scale, REAL *restrict out) {
    for (long e = begin; e < end; e++) {
        IN in = x + e * K * C;
        REAL mean = 0, power = 0;
        for (long c = 0; c < C; c++) mean += in[c];
        mean /= C;
        for (long k = 0; k < K; k++) {
            const REAL shift = k ? 0 : mean;
            REAL sum[TILE] = {0}, rest = 0;
            long c = 0;
            for (; c + TILE <= C; c += TILE)
                for (int t = 0; t < TILE; t++) sum[t] += (in[k * C + c + t] - shift) * (in[k * C + c + t] - shift);
            for (; c < C; c++) rest += (in[k * C + c] - shift) * (in[k * C + c] - shift);
            for (int t = 0; t < TILE; t++) rest += sum[t];
            power += balance[k] * rest;
        }
        const REAL factor = 1 / NAME(root)(power + (REAL)eps);
        scale[e] = factor;
        for (long k = 0; k < K; k++) {
            const REAL shift = k ? 0 : mean, *restrict w = weight + degree[k] * C;
            REAL *restrict o = out + e * se + k * sk;
            for (long c = 0; c < C; c++) o[c] = (in[k * C + c] - shift) * factor * w[c];
        }
    }
}

/* Gradients of norm: that of x [E, K, C] is added to g_x, that of the weight to g_weight [L+1, C]. */
void NAME(norm_backward)(
    IN g, IN x, IN scale, IN weight, IN balance, const long *degree,
    long K, long C, long se, long sk, long begin, long end, REAL *restrict g_weight, REAL *restrict g_x) {
    for (long e = begin; e < end; e++) {
        IN in = x + e * K * C, factor = scale[e];
        REAL mean = 0, dot = 0, g_mean = 0;
        for (long c = 0; c < C; c++) mean += in[c];
        mean /= C;
        for (long k = 0; k < K; k++) {
            const REAL shift = k ? 0 : mean, *restrict h = g + e * se + k * sk, *restrict w = weight + degree[k] * C;
            REAL *restrict gw = g_weight + degree[k] * C, sum[TILE] = {0}, rest = 0;
            long c = 0;
            for (; c + TILE <= C; c += TILE)
                for (int t = 0; t < TILE; t++) {
                    const REAL part = h[c + t] * (in[k * C + c + t] - shift);
                    gw[c + t] += part * factor;
                    sum[t] += part * w[c + t];
                }
            for (; c < C; c++) {
                const REAL part = h[c] * (in[k * C + c] - shift);
                gw[c] += part * factor;
                rest += part * w[c];
            }
            for (int t = 0; t < TILE; t++) rest += sum[t];
            dot += rest;
        }
        const REAL pull = factor * factor * factor * dot;
        for (long k = 0; k < K; k++) {
            const REAL shift = k ? 0 : mean, *restrict h = g + e * se + k * sk, *restrict w = weight + degree[k] * C;
            const REAL back = pull * balance[k];
            REAL *restrict o = g_x + (e * K + k) * C;
            if (k == 0) {
                for (long c = 0; c < C; c++) g_mean += factor * h[c] * w[c] - back * (in[c] - mean);
                g_mean /= C;
            }
            const REAL level = k ? 0 : g_mean;
            for (long c = 0; c < C; c++) o[c] += factor * h[c] * w[c] - back * (in[k * C + c] - shift) - level;
        }
    }
}
