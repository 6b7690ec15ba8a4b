/* Rotations between atoms and edge frames, for one floating-point type: REAL and NAME(x) are set by the
 * includer. Arrays are row-major and dense. Nodes [N, K, C] are l-major, edge rows m-major.
 *
 * A pair p has atoms i[p], j[p], frames W_l[m][r] (laboratory m, edge frame r) one after the other for
 * l = 0 .. lmax, and directed edges p (i to j) and P + p (j to i); the frame of the reverse edge differs by
 * the signs flip[k]. row[l*l + r] is the m-major row of component r of degree l, degree[k] the degree of a row. */

#define TILE 16

/* out[r] (+)= sum_m W[m][r] x[m] for a fixed n = 2l+1; with back: out[m] (+)= sum_r W[m][r] x[r].
 * xrow and outrow give the place of each row. */
static inline __attribute__((always_inline)) void NAME(turn_fixed)(
    const int n, const int back, const int add, const REAL *W, const REAL *x, const long *xrow, REAL *out,
    const long *outrow, long C) {
    long c = 0;
    for (; c + TILE <= C; c += TILE) {
        REAL acc[17][TILE];
        for (int r = 0; r < n; r++)
            for (int t = 0; t < TILE; t++) acc[r][t] = add ? out[outrow[r] + c + t] : 0;
        for (int m = 0; m < n; m++) {
            const REAL *xm = x + xrow[m] + c;
            for (int r = 0; r < n; r++) {
                const REAL w = back ? W[r * n + m] : W[m * n + r];
                for (int t = 0; t < TILE; t++) acc[r][t] += w * xm[t];
            }
        }
        for (int r = 0; r < n; r++)
            for (int t = 0; t < TILE; t++) out[outrow[r] + c + t] = acc[r][t];
    }
    for (; c < C; c++)
        for (int r = 0; r < n; r++) {
            REAL acc = add ? out[outrow[r] + c] : 0;
            for (int m = 0; m < n; m++) acc += (back ? W[r * n + m] : W[m * n + r]) * x[xrow[m] + c];
            out[outrow[r] + c] = acc;
        }
}

static void NAME(turn)(
    int l, int back, int add, const REAL *W, const REAL *x, const long *xrow, REAL *out, const long *outrow, long C) {
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
    const REAL *nodes, long i, long j, const REAL *W, const long *row, long lmax, long C, REAL *local) {
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
    const REAL *local, long i, long j, const REAL *W, const long *row, long lmax, long C, REAL *nodes) {
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

/* scaled[e] = [x_i | x_j] of the edge, in its frame, times radial[e][degree]; rows k < rows. */
void NAME(gather_scale)(
    const REAL *nodes, const long *i, const long *j, const REAL *frames, const REAL *radial, const REAL *flip,
    const long *row, const long *degree, long P, long lmax, long C, long rows, long begin, long end, REAL *local,
    REAL *scaled) {
    const long S = 2 * C, D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3, R = (lmax + 1) * S;
    for (long p = begin; p < end; p++) {
        NAME(ends)(nodes, i[p], j[p], frames + p * D, row, lmax, C, local);
        for (long k = 0; k < rows; k++) {
            const REAL *x = local + k * S, f = flip[k];
            const REAL *there = radial + p * R + degree[k] * S, *back = there + P * R;
            REAL *out = scaled + (p * rows + k) * S, *rev = out + P * rows * S;
            for (long c = 0; c < S; c++) out[c] = x[c] * there[c];
            for (long c = 0; c < C; c++) rev[c] = f * x[C + c] * back[c];
            for (long c = 0; c < C; c++) rev[C + c] = f * x[c] * back[C + c];
        }
    }
}

/* Gradients of gather_scale: g_radial is written, g_nodes added to. Needs two scratch arrays [K, 2C]. */
void NAME(gather_scale_backward)(
    const REAL *g_scaled, const REAL *nodes, const long *i, const long *j, const REAL *frames, const REAL *radial,
    const REAL *flip, const long *row, const long *degree, long P, long lmax, long C, long rows, long begin, long end,
    REAL *local, REAL *g_nodes, REAL *g_radial) {
    const long K = (lmax + 1) * (lmax + 1), S = 2 * C, R = (lmax + 1) * S;
    const long D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3;
    REAL *g_local = local + K * S;
    for (long p = begin; p < end; p++) {
        NAME(ends)(nodes, i[p], j[p], frames + p * D, row, lmax, C, local);
        REAL *gr = g_radial + p * R, *gb = gr + P * R;
        for (long c = 0; c < R; c++) gr[c] = gb[c] = 0;
        for (long k = 0; k < rows; k++) {
            const REAL *x = local + k * S, f = flip[k];
            const REAL *there = radial + p * R + degree[k] * S, *back = there + P * R;
            const REAL *g = g_scaled + (p * rows + k) * S, *h = g + P * rows * S;
            REAL *a = gr + degree[k] * S, *b = gb + degree[k] * S, *o = g_local + k * S;
            for (long c = 0; c < S; c++) a[c] += g[c] * x[c];
            for (long c = 0; c < C; c++) b[c] += f * h[c] * x[C + c];
            for (long c = 0; c < C; c++) b[C + c] += f * h[C + c] * x[c];
            for (long c = 0; c < C; c++) o[c] = g[c] * there[c] + f * h[C + c] * back[C + c];
            for (long c = 0; c < C; c++) o[C + c] = g[C + c] * there[C + c] + f * h[c] * back[c];
        }
        for (long c = rows * S; c < K * S; c++) g_local[c] = 0;
        NAME(spread)(g_local, i[p], j[p], frames + p * D, row, lmax, C, g_nodes);
    }
}

/* nodes[i] += W (weight * edge i to j), nodes[j] += W (flip * weight * edge j to i). Scratch [K, 2C]. */
void NAME(scatter)(
    const REAL *edges, const REAL *weight, const long *i, const long *j, const REAL *frames, const REAL *flip,
    const long *row, long P, long lmax, long C, long begin, long end, REAL *local, REAL *nodes) {
    const long K = (lmax + 1) * (lmax + 1), S = 2 * C, D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3;
    for (long p = begin; p < end; p++) {
        for (long k = 0; k < K; k++) {
            const REAL w = weight[p], f = w * flip[k];
            const REAL *there = edges + (p * K + k) * C, *back = there + P * K * C;
            for (long c = 0; c < C; c++) local[k * S + c] = w * there[c];
            for (long c = 0; c < C; c++) local[k * S + C + c] = f * back[c];
        }
        NAME(spread)(local, i[p], j[p], frames + p * D, row, lmax, C, nodes);
    }
}

/* Gradient of scatter with respect to the edges. Scratch [K, 2C]. */
void NAME(scatter_backward)(
    const REAL *g_nodes, const REAL *weight, const long *i, const long *j, const REAL *frames, const REAL *flip,
    const long *row, long P, long lmax, long C, long begin, long end, REAL *local, REAL *g_edges) {
    const long K = (lmax + 1) * (lmax + 1), S = 2 * C, D = (lmax + 1) * (2 * lmax + 1) * (2 * lmax + 3) / 3;
    for (long p = begin; p < end; p++) {
        NAME(ends)(g_nodes, i[p], j[p], frames + p * D, row, lmax, C, local);
        for (long k = 0; k < K; k++) {
            const REAL w = weight[p], f = w * flip[k];
            REAL *there = g_edges + (p * K + k) * C, *back = there + P * K * C;
            for (long c = 0; c < C; c++) there[c] = w * local[k * S + c];
            for (long c = 0; c < C; c++) back[c] = f * local[k * S + C + c];
        }
    }
}
