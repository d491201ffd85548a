// A LoRA adapter as plain data, between the two formats that hold one on disk (peft.h,
// gguf_adapter.h) and the programs that run or train one. Always in canonical order: rows of B as
// Hugging Face has them, whatever the file. With x the input of the adapted matrix W [out, in]:
//
//   y = W x + scale * B (A x),   A [rank, in], B [out, rank],
//   scale = alpha / rank, or alpha / sqrt(rank) with rsLoRA.
//
// DoRA: `magnitude` [out], and y = magnitude / ||W + scale B A||_row * (W + scale B A) x.
// For embed_tokens `in` is the vocabulary and `out` the hidden size (A's columns are looked up).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone {

enum class AdapterSite : uint8_t {
  kQProj,
  kKProj,
  kVProj,
  kOProj,
  kGateProj,
  kUpProj,
  kDownProj,
  kQkvProj,     // queries, keys and values in one matrix, as Phi-3 has them
  kGateUpProj,  // the same of gate and up
  kEmbedTokens,
  kLmHead,
};
inline constexpr int kNumAdapterSites = 11;

// "self_attn.q_proj", ..., "mlp.down_proj", "embed_tokens", "lm_head".
std::string_view AdapterSiteName(AdapterSite site);
// "attn_q", ..., "ffn_down", "token_embd", "output": the stem of the tensor in GGUF files.
std::string_view AdapterSiteGgufName(AdapterSite site);
// True for the sites that exist once in every layer, or once in each of its experts.
inline bool IsLayerSite(AdapterSite site) { return site < AdapterSite::kEmbedTokens; }
// True for those of an MLP.
inline bool IsMlpSite(AdapterSite site) {
  return site >= AdapterSite::kGateProj && site <= AdapterSite::kDownProj;
}

struct AdapterEntry {
  int32_t layer = -1;  // -1 for embed_tokens and lm_head
  AdapterSite site = AdapterSite::kQProj;
  int32_t expert = -1;  // of a mixture, which expert's gate_proj, up_proj or down_proj; -1: the
                        // layer's own matrix
  int64_t rank = 0, in = 0, out = 0;
  float alpha = 0;               // of this entry: alpha_pattern is resolved
  std::vector<float> a;          // [rank, in]
  std::vector<float> b;          // [out, rank]
  std::vector<float> magnitude;  // [out] with DoRA, else empty
};

struct AdapterFile {
  std::string name;
  std::string architecture;  // GGUF's word, e.g. "llama"; empty if unknown (a PEFT folder has none)
  std::string base_name;     // base_model_name_or_path
  std::string base_hash;     // SHA-256 of the base's file, 64 hex digits; empty if unknown
  std::string base_norms;    // SHA-256 of the base's norms (model/load_adapter.h), the same; other
                             // quantizations share it
  std::string licence;       // SPDX's identifier; empty if unknown
  int64_t rank = 0;          // the default rank and alpha; entries may differ
  float alpha = 0;
  float dropout = 0;  // of training; says nothing about inference
  bool use_rslora = false;
  bool use_dora = false;
  int64_t num_experts = 0;            // of each layer of the base; 0: none, or unknown
  std::vector<AdapterEntry> entries;  // sorted by (layer, expert, site), each once
};

// What multiplies B (A x) of this entry.
double AdapterScale(const AdapterFile& file, const AdapterEntry& entry);

// "layers.3.self_attn.q_proj", "layers.3.mlp.experts.5.up_proj", "embed_tokens": for messages.
std::string AdapterEntryName(const AdapterEntry& entry);

// Sorts the entries and checks everything that can be checked without the base: at least one entry,
// each once, layers and sites that fit, positive sizes, vectors of the right length, finite values,
// one shape per site of experts, finite alpha above 0, DoRA all or none. Throws kCorrupt;
// `file_name` opens the message.
void NormalizeAdapter(AdapterFile& file, std::string_view file_name);

}  // namespace bakestone
