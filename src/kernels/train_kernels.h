// The training half of the kernel table: bf16 products with f32 sums, the backward passes of the
// row operations, the loss and the optimizer. Bits may differ between tables (training may use what
// an ISA does fastest), but never with the split of the work: every output is one chain in a fixed
// order.
//
// Legend: T rows of a micro-batch, K the inner dimension of a product, N output columns. bf16 is
// uint16_t. A "panel matrix" holds 16 columns side by side, pairs of K adjacent:
//     panels [N / 16][K / 2][16][2], zero-filled beyond N and K.
// Kernels are noexcept, allocate nothing and never see threads; src/ops/train_*.h splits the work.
#pragma once

#include <cstdint>

namespace bakestone {

// Rows of x are read in tiles of this many: x is readable (any finite or not value, the results are
// dropped) up to the end of a tile that begins with its last row.
inline constexpr int64_t kTrainTileRows = 12;
inline constexpr int64_t kTrainLanes = 16;  // columns of a panel

// One term of a product: x [T, k] bf16, row-major, times panels of k x N.
struct TrainSegment {
  const uint16_t* x;
  int64_t x_stride;
  const uint16_t* panels;
  int64_t panel_stride;  // elements from one panel to the next
  int64_t k;             // even
};

enum class TrainStore : int32_t {
  kF32,
  kAddF32,
  kBF16
};  // overwrite, accumulate, round and overwrite

// out[t, n] (op)= column_scale[n] * sum over segments, then over k, of x[t, k] * w[k, n].
struct TrainGemmArgs {
  TrainSegment segments[2];
  int32_t num_segments;
  TrainStore store;
  int64_t rows, cols;  // cols may end inside a panel
  void* out;           // f32 or bf16 [rows, cols]
  int64_t out_stride;
  const float* column_scale;  // [cols] or null for 1
  // What the caller reads next beside this product's own operands: it may be fetched meanwhile.
  const void* next;
  int64_t next_bytes;
};

// out[r, c] += sum over t of s[t, r] * z[t, c], pairs of t in ascending order. s is a panel matrix
// with the "columns" r and K = t: [r / 16][(rows + 1) / 2][16][2].
struct TrainOuterArgs {
  const uint16_t* s;
  int64_t s_panel_stride;
  const uint16_t* z;  // bf16 [rows, cols]
  int64_t z_stride;
  int64_t rows, r, cols;
  float* out;  // out[r * out_row_stride + c * out_col_stride]
  int64_t out_row_stride, out_col_stride;
};

// y = x / sqrt(mean(x^2) + eps), h = y * weight (+ bias). y and h rounded to bf16 (h from the
// rounded y). centred: of x - mean(x), a layer norm.
struct TrainNormArgs {
  const float* x;  // [rows, dim]
  const float* weight;
  const float* bias;  // null: none
  bool centred;
  int64_t rows, dim;
  float eps;
  uint16_t *y, *h;  // [rows, dim]; either may be null
  float* inverse;   // [rows] 1 / sqrt(...)
};

// dx += inverse * (g - y * mean(g * y)), g = dh * weight; centred: and less mean(g) within. dx_bf16
// [rows, dim]: the sum rounded; or null.
struct TrainNormBackwardArgs {
  bool centred;
  const float* dh;
  const uint16_t* y;
  const float* inverse;
  const float* weight;
  int64_t rows, dim;
  float* dx;
  uint16_t* dx_bf16;
};

// Rotates channel pairs (i, i + dim / 2) of each head by the angle of the row: out = x * cos -+ x'
// * sin. sign +1 forward, -1 backward (the inverse rotation). Channels from `dim` on are copied.
struct TrainRopeArgs {
  const float* x;  // [rows, heads * head_dim], x_stride
  int64_t x_stride;
  uint16_t* out;  // bf16, same shape
  int64_t out_stride;
  const float *cosines, *sines;  // [rows, dim / 2]
  int64_t rows, heads, head_dim, dim;
  float sign;
};

// The activation of an MLP.
enum class TrainGate : uint8_t {
  kSilu,       // gate * sigmoid(gate) * up
  kGelu,       // gelu(gate) * up, in tanh form
  kGeluAlone,  // gelu(gate): up is not read, and d_up not written
  kClamped,    // g * sigmoid(1.702 g) * (u + 1), g = min(gate, 7), u = up within [-7, 7]
  kSigmoid,    // sigmoid(gate) * up
};
inline constexpr int kNumTrainGates = 5;

// act = factor * the activation, of channels [0, dim) of the rows.
struct TrainActivationArgs {
  const uint16_t *gate, *up;
  int64_t stride;  // of gate, up and their gradients
  int64_t rows, dim;
  float factor;
  uint16_t* act;  // backward: null where it is not wanted once more
  int64_t act_stride;
  // Backward only.
  const uint16_t* d_act;
  int64_t d_act_stride;
  uint16_t *d_gate, *d_up;  // overwritten
};

// Causal softmax of a tile of scores. Row i sees the first min(first_visible + i, cols) columns:
// p = softmax(scale * s) rounded to bf16, 0 in the others up to padded_cols. s is overwritten.
struct TrainSoftmaxArgs {
  float* s;
  int64_t s_stride;
  int64_t rows, first_visible, cols, padded_cols;
  float scale;
  uint16_t* p;
  int64_t p_stride;
  float* log_sum;  // [rows] log of the sum of exp(scale * s)
};

// Backward of a tile of scores, given s (recomputed) and dp = dO V^T, both destroyed:
// p = exp(scale * s - log_sum), ds = scale * p * (dp - delta), 0 where hidden. Either output may be
// null. by_column false: a row is a query (row i sees the first first_visible + i columns,
// log_sum[i]). by_column true: a row is a key (row i is seen by the columns from i - first_visible
// on, log_sum[col]).
struct TrainSoftmaxBackwardArgs {
  const float *s, *dp;
  int64_t stride;
  int64_t rows, first_visible, cols, padded_cols;
  float scale;
  const float *log_sum, *delta;
  bool by_column;
  uint16_t *p, *ds;
  int64_t out_stride;
};

// The state of a head through rows t, S [key_dim, value_dim]:
//   S_t = diag(w_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T,  y_t = S_t^T q_t
struct TrainStateRows {
  const float *q, *k, *a, *b, *w;  // [rows, key_dim]
  const float* v;                  // [rows, value_dim]
  int64_t rows, key_dim, value_dim;
};
struct TrainStateArgs {
  TrainStateRows in;
  float* states;          // S_0 is given, S_t goes to states + t * states_stride
  int64_t states_stride;  // 0: each takes the last one's place
  float *s, *y;           // [rows, value_dim] a_t^T S_{t-1} and y_t
};
struct TrainStateBackwardArgs {
  TrainStateRows in;
  const float* states;  // as the forward kept them
  int64_t states_stride;
  const float *s, *dy;            // [rows, value_dim]
  float* d_state;                 // in: of the last state; out: of S_0
  float *dq, *dk, *da, *db, *dw;  // [rows, key_dim]
  float *dv, *ds;                 // [rows, value_dim]; ds: of a_t^T S_{t-1}, scratch
};

// A convolution over the last rows of a document, channel by channel:
//   out[t] = bias + sum over j of taps[j] x[t - (count - 1) + j]
// and its backward, dx[t] = sum over j of taps[j] d[t + (count - 1) - j]; rows outside of the
// document count as zero.
struct TrainConvolveArgs {
  const float* taps;  // [count, channels], the earliest row's first
  const float* bias;  // [channels] or null
  int64_t count, channels;
  const uint16_t* x;  // [rows, x_stride]; forward only
  int64_t x_stride;
  const float* d;  // [rows, channels]; backward only
  float* out;      // [rows, channels] out, or dx
};

// delta[h * delta_stride + row] = sum over a head's channels of a * b.
struct TrainRowDotArgs {
  const uint16_t *a, *b;  // bf16 [rows, heads * head_dim]
  int64_t rows, heads, head_dim;
  float* delta;
  int64_t delta_stride;
};

// sums[c] += factor[c] * sum over t, in order, of a[t, c] * b[t, c]: gradients of what acts on a
// column. a is f32 or bf16 (the other is null); b null: 1; factor null: 1.
struct TrainColumnDotArgs {
  const float* a;
  const uint16_t* a_bf16;
  int64_t a_stride;
  const uint16_t* b;
  int64_t b_stride;
  const float* factor;
  int64_t rows;
  float* sums;
};

// What some columns of a row of logits say: their largest, and the sum of exp(logit - largest).
struct TrainLossPart {
  float largest, sum;
};
struct TrainLossPartArgs {
  const float* logits;  // [rows, cols]
  int64_t stride;
  int64_t rows, cols;
  TrainLossPart* parts;  // [rows]
};

// The gradient with respect to some columns of logits, rounded to bf16. base null: d = factor *
// (p - onehot). base given: d = factor * (p - p_base), and kl += their share of KL(base || model).
struct TrainLossGradientArgs {
  const float *logits, *base;  // [rows, cols]
  int64_t stride;
  int64_t rows, cols;
  const float *log_sum, *base_log_sum;  // [rows] of whole rows
  const int32_t* targets;               // [rows]
  int64_t first;                        // the number of column 0
  const float* factors;  // [rows] weight of the row's loss times the gradient's scale
  double* kl;            // [rows]; untouched without base
  uint16_t* d;           // [rows, d_cols] or null: kl alone; zero from cols to d_cols
  int64_t d_stride, d_cols;
};

// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, g = gradient_scale * gradients;
// params -= rate * (m * m_correction / (sqrt(v * v_correction) + eps) + weight_decay * params).
struct TrainAdamWArgs {
  float *params, *m, *v;
  const float* gradients;
  int64_t size;
  float rate, beta1, beta2, eps, weight_decay, gradient_scale;
  float m_correction, v_correction;  // 1 / (1 - beta^step)
};

struct TrainKernels {
  const char* product;  // what the products run on, for people: "vdpbf16ps", "f32 fma"
  bool tiles;           // they run on tile registers, which take 32 of K at a time
  // Rows [row_begin, row_end) x panels [panel_begin, panel_end).
  void (*gemm)(const TrainGemmArgs&, int64_t row_begin, int64_t row_end, int64_t panel_begin,
               int64_t panel_end) noexcept;
  void (*outer)(const TrainOuterArgs&, int64_t col_begin, int64_t col_end) noexcept;
  // x [n, k] bf16 -> panels whose lanes are the rows of x and whose pairs are its columns (y = x
  // w^T). Panels p of the range; k_padded even >= k; zero beyond n and k.
  void (*pack_lanes)(const uint16_t* x, int64_t stride, int64_t n, int64_t k, int64_t k_padded,
                     uint16_t* panels, int64_t panel_stride, int64_t panel_begin,
                     int64_t panel_end) noexcept;
  // x [k, n] bf16 -> panels whose lanes are the columns of x and whose pairs are its rows.
  void (*pack_pairs)(const uint16_t* x, int64_t stride, int64_t k, int64_t n, int64_t k_padded,
                     uint16_t* panels, int64_t panel_stride, int64_t panel_begin,
                     int64_t panel_end) noexcept;
  // Panels of w [k x n] -> panels of its transpose [n x k]; n and k multiples of 16. Output panels
  // (16 of k each) of the range; out_stride as panel_stride.
  void (*transpose_panels)(const uint16_t* in, int64_t in_stride, int64_t n, uint16_t* out,
                           int64_t out_stride, int64_t panel_begin, int64_t panel_end) noexcept;
  // x [rows, cols] bf16 -> out [cols, out_stride], the columns of the range; zero from rows to
  // out_stride.
  void (*transpose)(const uint16_t* x, int64_t stride, int64_t rows, uint16_t* out,
                    int64_t out_stride, int64_t col_begin, int64_t col_end) noexcept;
  void (*to_bf16)(const float* x, uint16_t* out, int64_t size) noexcept;
  // x += y
  void (*add_bf16)(const uint16_t* y, float* x, int64_t size) noexcept;
  void (*column_dot)(const TrainColumnDotArgs&, int64_t col_begin, int64_t col_end) noexcept;
  void (*norm)(const TrainNormArgs&) noexcept;
  void (*norm_backward)(const TrainNormBackwardArgs&) noexcept;
  // h = y * weight (+ bias, unless null): what norm made, from what was saved.
  void (*scale_rows)(const uint16_t* y, const float* weight, const float* bias, int64_t rows,
                     int64_t dim, uint16_t* h) noexcept;
  void (*rope)(const TrainRopeArgs&) noexcept;
  void (*activate[kNumTrainGates])(const TrainActivationArgs&) noexcept;
  void (*activate_backward[kNumTrainGates])(const TrainActivationArgs&) noexcept;
  // y = 1 / (1 + exp(-x)); y may be x.
  void (*sigmoid)(const float* x, float* y, int64_t size) noexcept;
  // x = out * tanh(in * x).
  void (*soft_cap)(float* x, int64_t size, float in, float out) noexcept;
  // d *= 1 - t^2, t = factor * x held within [-1, 1]: the slope of what soft_cap made.
  void (*soft_cap_backward)(const float* x, float factor, uint16_t* d, int64_t size) noexcept;
  // Rows [begin, end) of a document, channels of the range.
  void (*convolve)(const TrainConvolveArgs&, int64_t begin, int64_t end, int64_t channel_begin,
                   int64_t channel_end) noexcept;
  void (*convolve_backward)(const TrainConvolveArgs&, int64_t begin, int64_t end,
                            int64_t channel_begin, int64_t channel_end) noexcept;
  void (*state)(const TrainStateArgs&) noexcept;
  void (*state_backward)(const TrainStateBackwardArgs&) noexcept;
  void (*softmax)(const TrainSoftmaxArgs&) noexcept;
  void (*softmax_backward)(const TrainSoftmaxBackwardArgs&) noexcept;
  void (*row_dot)(const TrainRowDotArgs&) noexcept;
  void (*loss_part)(const TrainLossPartArgs&) noexcept;
  void (*loss_gradient)(const TrainLossGradientArgs&) noexcept;
  double (*sum_squares)(const float* x, int64_t size) noexcept;
  void (*adamw)(const TrainAdamWArgs&) noexcept;
};

// One per ISA. The caller has checked that this CPU runs it (see ChooseKernels).
extern const TrainKernels kTrainReference;
#if defined(__x86_64__)
extern const TrainKernels kTrainAvx2;           // AVX2, FMA, F16C
extern const TrainKernels kTrainAvx512;         // F, BW, DQ, VL
extern const TrainKernels kTrainAvx512Bf16;     // and BF16, for rounding
extern const TrainKernels kTrainAvx512Bf16Dot;  // and for the products
#endif

}  // namespace bakestone
