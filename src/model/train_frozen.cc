// Products with a layer's matrices that are never trained.
#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_products.h"

namespace bakestone {
namespace {

struct Product {
  const uint16_t *x, *panels;
  int64_t x_stride, k, rows, cols;
};

void Multiply(const TrainKernels& kernels, ThreadPool& pool, const Product& product, void* out,
              int64_t out_stride, TrainStore store) {
  TrainGemmArgs args{};
  args.segments[0] = {product.x, product.x_stride == 0 ? product.k : product.x_stride,
                      product.panels, product.k * kTrainLanes, product.k};
  args.num_segments = 1;
  args.store = store;
  args.rows = product.rows;
  args.cols = product.cols;
  args.out = out;
  args.out_stride = out_stride == 0 ? product.cols : out_stride;
  ops::TrainGemm(kernels, pool, args);
}

}  // namespace

void TrainLayer::Frozen(const At& at, FrozenSite site, const FrozenProduct& product) {
  const LinearShape shape = ShapeOf(config_, at.layer, site);
  const uint16_t* panels =
      at.panels + at.batch.weights->plan(at.layer).frozen[static_cast<size_t>(site)];
  const PhaseTimer timer(phases.products);
  Multiply(kernels_, pool_, {product.x, panels, product.x_stride, shape.k, at.rows(), shape.n},
           product.out, product.out_stride, product.store);
}

void TrainLayer::FrozenBackward(const At& at, FrozenSite site, const FrozenProduct& product) {
  const LinearShape shape = ShapeOf(config_, at.layer, site);
  TrainWeights& weights = *at.batch.weights;
  const uint16_t* transposed = nullptr;
  {
    const PhaseTimer timer(phases.weights);
    transposed = weights.Transposed(
        at.panels + weights.plan(at.layer).frozen[static_cast<size_t>(site)], shape.n, shape.k);
  }
  const PhaseTimer timer(phases.products);
  Multiply(kernels_, pool_,
           {product.x, transposed, product.x_stride, ops::PadRank(shape.n), at.rows(), shape.k},
           product.out, product.out_stride, product.store);
}

}  // namespace bakestone
