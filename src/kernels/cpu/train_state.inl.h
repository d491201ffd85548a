// A head's state through rows of a training step (TrainStateRows), forward and backward. Include
// inside the unit's anonymous namespace, after the vector helpers of train_rows.inl.h.

// One row of a state in registers, kVectors of its columns side by side, or fewer at its end.
template <class V, int kVectors>
struct StateColumns {
  using F = typename V::F;
  const TrainStateArgs& args;
  int64_t first, left;  // columns of a tail; else there are all

  [[gnu::always_inline]] F Load(const float* p, int i) const {
    return V::Load(p + first + 16 * i, kVectors > 1 ? 16 : left);
  }
  [[gnu::always_inline]] void Store(float* p, int i, F x) const {
    V::Store(p + first + 16 * i, x, kVectors > 1 ? 16 : left);
  }

  [[gnu::always_inline]] void Row(int64_t t) const {
    const TrainStateRows& in = args.in;
    const int64_t keys = in.key_dim, values = in.value_dim, at = t * keys;
    const float* before = args.states + t * args.states_stride;
    float* after = args.states + (t + 1) * args.states_stride;
    F s[kVectors], y[kVectors], v[kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      s[i] = y[i] = V::Zero();
      v[i] = Load(in.v + t * values, i);
    }
    for (int64_t d = 0; d < keys; ++d) {
      const F a = V::Set(in.a[at + d]);
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) s[i] = V::Fma(a, Load(before + d * values, i), s[i]);
    }
    for (int64_t d = 0; d < keys; ++d) {
      const F w = V::Set(in.w[at + d]), b = V::Set(in.b[at + d]), k = V::Set(in.k[at + d]),
              q = V::Set(in.q[at + d]);
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        const F kept = V::Mul(w, Load(before + d * values, i));
        const F next = V::Fma(k, v[i], V::Fma(b, s[i], kept));
        Store(after + d * values, i, next);
        y[i] = V::Fma(q, next, y[i]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      Store(args.s + t * values, i, s[i]);
      Store(args.y + t * values, i, y[i]);
    }
  }
};

template <class V>
void State(const TrainStateArgs& args) noexcept {
  constexpr int64_t kWide = 16 * kStateVectors;
  for (int64_t t = 0; t < args.in.rows; ++t) {
    int64_t first = 0;
    for (; first + kWide <= args.in.value_dim; first += kWide) {
      StateColumns<V, kStateVectors>{args, first, kWide}.Row(t);
    }
    for (; first < args.in.value_dim; first += 16) {
      StateColumns<V, 1>{args, first, args.in.value_dim - first}.Row(t);
    }
  }
}

// What row t says of its own parts; G, the gradient of S_t, gets the share of y_t first.
template <class V>
void StateRowBackward(const TrainStateBackwardArgs& args, int64_t t) noexcept {
  using F = typename V::F;
  const TrainStateRows& in = args.in;
  const int64_t keys = in.key_dim, values = in.value_dim, at = t * keys;
  const float *s = args.s + t * values, *dy = args.dy + t * values, *v = in.v + t * values;
  const float* before = args.states + t * args.states_stride;
  float *dv = args.dv + t * values, *ds = args.ds + t * values;
  F s_dy = V::Zero(), v_dy = V::Zero();
  for (int64_t j = 0; j < values; j += 16) {
    const int64_t left = values - j;
    s_dy = V::Fma(V::Load(s + j, left), V::Load(dy + j, left), s_dy);
    v_dy = V::Fma(V::Load(v + j, left), V::Load(dy + j, left), v_dy);
    V::Store(dv + j, V::Zero(), left);
    V::Store(ds + j, V::Zero(), left);
  }
  const float s_share = V::Sum(s_dy), v_share = V::Sum(v_dy);
  for (int64_t i = 0; i < keys; ++i) {
    float* g_row = args.d_state + i * values;
    const float* row = before + i * values;
    const F q_i = V::Set(in.q[at + i]), k_i = V::Set(in.k[at + i]), b_i = V::Set(in.b[at + i]);
    F to_k = V::Zero(), to_b = V::Zero(), to_w = V::Zero(), to_q = V::Zero();
    for (int64_t j = 0; j < values; j += 16) {
      const int64_t left = values - j;
      const F dy_j = V::Load(dy + j, left), state = V::Load(row + j, left);
      const F g = V::Fma(q_i, dy_j, V::Load(g_row + j, left));
      V::Store(g_row + j, g, left);
      to_k = V::Fma(g, V::Load(v + j, left), to_k);
      to_b = V::Fma(g, V::Load(s + j, left), to_b);
      to_w = V::Fma(g, state, to_w);
      to_q = V::Fma(state, dy_j, to_q);
      V::Store(dv + j, V::Fma(k_i, g, V::Load(dv + j, left)), left);
      V::Store(ds + j, V::Fma(b_i, g, V::Load(ds + j, left)), left);
    }
    args.dk[at + i] = V::Sum(to_k);
    args.db[at + i] = V::Sum(to_b);
    args.dw[at + i] = V::Sum(to_w);
    args.dq[at + i] = in.w[at + i] * V::Sum(to_q) + in.b[at + i] * s_share + in.k[at + i] * v_share;
  }
}

template <class V>
void StateBackward(const TrainStateBackwardArgs& args) noexcept {
  using F = typename V::F;
  const TrainStateRows& in = args.in;
  const int64_t keys = in.key_dim, values = in.value_dim;
  for (int64_t t = in.rows - 1; t >= 0; --t) {
    StateRowBackward<V>(args, t);
    const float *before = args.states + t * args.states_stride, *ds = args.ds + t * values;
    for (int64_t i = 0; i < keys; ++i) {
      float* g_row = args.d_state + i * values;
      const F w_i = V::Set(in.w[t * keys + i]), a_i = V::Set(in.a[t * keys + i]);
      F to_a = V::Zero();
      for (int64_t j = 0; j < values; j += 16) {
        const int64_t left = values - j;
        const F ds_j = V::Load(ds + j, left);
        to_a = V::Fma(V::Load(before + i * values + j, left), ds_j, to_a);
        V::Store(g_row + j, V::Fma(w_i, V::Load(g_row + j, left), V::Mul(a_i, ds_j)), left);
      }
      args.da[t * keys + i] = V::Sum(to_a);
    }
  }
}
