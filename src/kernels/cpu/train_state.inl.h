// A head's state through rows of a training step (TrainStateRows), forward and backward. Include
// inside the unit's anonymous namespace, after the vector helpers of train_rows.inl.h.

// s = a^T S: four chains, added up in one order.
template <class V>
[[gnu::always_inline]] inline typename V::F StateColumns(const float* a, const float* state,
                                                         int64_t rows, int64_t stride,
                                                         int64_t left) noexcept {
  typename V::F sums[4] = {V::Zero(), V::Zero(), V::Zero(), V::Zero()};
  for (int64_t i = 0; i < rows; ++i) {
    sums[i % 4] = V::Fma(V::Set(a[i]), V::Load(state + i * stride, left), sums[i % 4]);
  }
  return V::Add(V::Add(sums[0], sums[1]), V::Add(sums[2], sums[3]));
}

template <class V>
void State(const TrainStateArgs& args) noexcept {
  using F = typename V::F;
  const TrainStateRows& in = args.in;
  const int64_t keys = in.key_dim, values = in.value_dim;
  for (int64_t t = 0; t < in.rows; ++t) {
    const float *q = in.q + t * keys, *k = in.k + t * keys, *a = in.a + t * keys;
    const float *b = in.b + t * keys, *w = in.w + t * keys, *v = in.v + t * values;
    const float* before = args.states + t * args.states_stride;
    float* after = args.states + (t + 1) * args.states_stride;
    for (int64_t j = 0; j < values; j += 16) {
      const int64_t left = values - j;
      const F s = StateColumns<V>(a, before + j, keys, values, left), v_j = V::Load(v + j, left);
      V::Store(args.s + t * values + j, s, left);
      F y[2] = {V::Zero(), V::Zero()};
      for (int64_t i = 0; i < keys; ++i) {
        const F kept = V::Mul(V::Set(w[i]), V::Load(before + i * values + j, left));
        const F next = V::Fma(V::Set(k[i]), v_j, V::Fma(V::Set(b[i]), s, kept));
        V::Store(after + i * values + j, next, left);
        y[i % 2] = V::Fma(V::Set(q[i]), next, y[i % 2]);
      }
      V::Store(args.y + t * values + j, V::Add(y[0], y[1]), left);
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
