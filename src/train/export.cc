#include "train/export.h"

#include "model/adapter_entries.h"
#include "model/load_adapter.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

AdapterSite ToAdapterSite(Site site) {
  static_assert(static_cast<int>(Site::kDown) == static_cast<int>(AdapterSite::kDownProj));
  return static_cast<AdapterSite>(site);
}

std::vector<float> Rounded(std::span<const float> values) {
  std::vector<float> rounded;
  rounded.reserve(values.size());
  for (const float value : values) rounded.push_back(BF16ToFloat(FloatToBF16(value)));
  return rounded;
}

}  // namespace

AdapterFile MakeAdapterFile(const Model& model, const TrainLayout& layout,
                            std::span<const float> masters, const LoraRecipe& lora,
                            const std::string& name) {
  AdapterFile file;
  file.name = name;
  file.architecture = model.config.architecture;
  file.base_name = model.config.name;
  file.base_hash = ToHex(model.file_hash);
  file.base_norms = NormsHash(*model.weights);
  file.rank = lora.rank;
  file.alpha = static_cast<float>(lora.alpha);
  file.use_rslora = lora.rslora();
  file.use_dora = lora.kind == AdapterKind::kDora;
  file.num_experts = model.config.router.experts;
  for (const LoraSlot& slot : layout.slots) {
    AdapterEntry entry;
    entry.layer = slot.id.layer;
    entry.site = ToAdapterSite(slot.id.site);
    entry.expert = slot.id.expert;
    entry.rank = slot.rank;
    entry.in = slot.in;
    entry.out = slot.out;
    entry.alpha = file.alpha;
    entry.a = Rounded(masters.subspan(static_cast<size_t>(slot.a_offset),
                                      static_cast<size_t>(slot.rank * slot.in)));
    entry.b = Rounded(masters.subspan(static_cast<size_t>(slot.b_offset),
                                      static_cast<size_t>(slot.out * slot.rank)));
    if (slot.magnitude_offset >= 0) {
      const float* magnitude = masters.data() + slot.magnitude_offset;
      entry.magnitude.assign(magnitude, magnitude + slot.out);
    }
    file.entries.push_back(std::move(entry));
  }
  JoinEntries(model.config, file);
  return file;
}

}  // namespace bakestone
