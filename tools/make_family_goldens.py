#!/usr/bin/env python3
"""Makes tests/data/families/: for each model_type of config.json that is supported a tiny random model, as PyPI's
`transformers` saves it and as GGUF, and the logits that `transformers` computes for it in float32. It has no RWKV-7:
those are what rwkv7_reference.py computes, which is written from the paper's formulas.

  TYPE/config.json, model.safetensors   the folder; tensors are bf16
  TYPE/model.gguf                       the same, written here with PyPI's `gguf`, as converters write the family
  TYPE/golden.safetensors               tokens i32 [T], logits f32 [T, vocabulary]
  TYPE/modules.json, 1_Pooling, 2_Dense, 3_Dense   of EmbeddingGemma, as sentence-transformers has them; the golden has
                                        `embedding`, too: the text's vector
  TYPE/golden_far.safetensors, train_far.safetensors   of phi3: the same beyond the original context (a document
                                        beyond it, then one within), where its other factors are used
  TYPE/train.safetensors                of TRAINED: random LoRA pairs a.LAYER.SITE, b.LAYER.SITE on every matrix (of a
                                        mixture a.LAYER.experts.EXPERT.SITE too, none on router and shared expert), the
                                        loss of random targets over two documents, and autograd's gradients
                                        (in float64) d.a.LAYER.SITE, d.b.LAYER.SITE; the
                                        layers' matrices are made smaller by a factor, but for routers, gates of
                                        shared experts and taps (factor, expert_factor: 0.5 where not stated)
  TYPE/train_first.safetensors          of CUT: the gradient d.embedding of the embedding of a model cut to its first
                                        layer, whose embedding is divided by 8: what goes through its mixer is most of it

Every tensor is random with a spread of at least 0.3, so that none could be left out or taken for another, and
the prompt is longer than any window. A family's line in FAMILIES states its axes; values are chosen so that each
matters.

Run: python3 tools/make_family_goldens.py [TYPE...]. Versions: tests/data/families/VERSIONS.
"""
import importlib.metadata
import json
import pathlib
import shutil
import sys

import gguf
import numpy as np
import safetensors.torch
import torch
import transformers

import rwkv7_reference

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "families"
LENGTH, FAR_LENGTH = 44, 100
BASE = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
RMS = dict(rms_norm_eps=0.05)
PATTERN = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]


SHARED = dict(n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, n_shared_experts=1, n_group=3,
              topk_group=2, first_k_dense_replace=1, norm_topk_prob=True)
LATENT = dict(num_key_value_heads=4, kv_lora_rank=48, qk_nope_head_dim=12, qk_rope_head_dim=8)

DELTA = dict(head_dim=16, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8,
             linear_value_head_dim=12, linear_conv_kernel_dim=4,
             layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"])


# Heads of another size in layers without a window, a quarter of them rotated.
GEMMA4 = dict(head_dim=8, global_head_dim=16, sliding_window=9, final_logit_softcapping=3.0, vocab_size_per_layer_input=96,
              rope_parameters=dict(
                  full_attention=dict(rope_type="proportional", rope_theta=700.0, partial_rotary_factor=0.25),
                  sliding_attention=dict(rope_type="default", rope_theta=50.0)))


def rope(theta, **more):
    return dict(rope_parameters=dict(rope_type="default", rope_theta=theta) | more)


# model_type -> (GGUF architecture, what differs from BASE, traits of the GGUF file)
FAMILIES = {
    "llama": ("llama", RMS | dict(head_dim=16) | rope(700.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=64), dict(permute=True)),
    "mistral": ("llama", RMS | dict(head_dim=16, sliding_window=9) | rope(700.0), dict(permute=True)),
    "mixtral": ("llama", RMS | dict(head_dim=16, num_local_experts=5, num_experts_per_tok=2, sliding_window=None)
                | rope(700.0), dict(permute=True)),
    "qwen3_moe": ("qwen3moe", RMS | dict(head_dim=16, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16,
                  norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[]) | rope(700.0), {}),
    "qwen2_moe": ("qwen2moe", RMS | dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16,
                  shared_expert_intermediate_size=32, norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[])
                  | rope(700.0), {}),
    "glm4_moe": ("glm4moe", RMS | SHARED | dict(head_dim=16, use_qk_norm=True, attention_bias=True, n_shared_experts=2,
                 routed_scaling_factor=1.5, num_mtp_layers=1) | rope(700.0, partial_rotary_factor=0.5),
                 dict(mtp=1)),
    "deepseek_v2": ("deepseek2", RMS | SHARED | LATENT | dict(q_lora_rank=None, v_head_dim=16, routed_scaling_factor=1.5,
                    topk_method="group_limited_greedy", topk_group=1, norm_topk_prob=False)
                    | rope(700.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0,
                           beta_slow=0.5, mscale=0.707, mscale_all_dim=0.707), {}),
    "deepseek_v3": ("deepseek2", RMS | SHARED | LATENT | dict(q_lora_rank=32, v_head_dim=24, routed_scaling_factor=1.5)
                    | rope(700.0), dict(split_kv_b=True)),
    "glm4_moe_lite": ("deepseek2", RMS | SHARED | LATENT | dict(q_lora_rank=32, v_head_dim=24, routed_scaling_factor=1.5)
                      | rope(700.0), dict(split_kv_b=True)),
    "gpt_oss": ("gpt-oss", RMS | dict(head_dim=16, intermediate_size=32, num_local_experts=5, num_experts_per_tok=2,
                sliding_window=9) | rope(700.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=32,
                                         beta_fast=4.0, beta_slow=0.5, truncate=False), dict(mxfp4=True)),
    "lfm2": ("lfm2", dict(norm_eps=0.05, layer_types=["conv", "full_attention", "full_attention", "conv"], conv_L_cache=4,
             block_auto_adjust_ff_dim=True, block_multiple_of=16, block_ffn_dim_multiplier=1.25) | rope(700.0), {}),
    "qwen3_5_text": ("qwen35", RMS | DELTA | rope(700.0, partial_rotary_factor=0.25), dict(plus_one=True, tiled=True)),
    "qwen3_5_moe_text": ("qwen35moe", RMS | DELTA | dict(num_experts=3, num_experts_per_tok=2, moe_intermediate_size=16,
                         shared_expert_intermediate_size=64) | rope(700.0, partial_rotary_factor=0.25),
                         dict(plus_one=True, tiled=True)),
    "qwen2": ("qwen2", RMS | rope(700.0), {}),
    "qwen3": ("qwen3", RMS | dict(head_dim=16) | rope(700.0), {}),
    "gemma": ("gemma", RMS | dict(head_dim=16) | rope(700.0), dict(plus_one=True)),
    "gemma2": ("gemma2", RMS | dict(head_dim=16, sliding_window=9, query_pre_attn_scalar=5,
               attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
               layer_types=["sliding_attention", "full_attention"] * 2) | rope(700.0), dict(plus_one=True)),
    "gemma3_text": ("gemma3", RMS | dict(head_dim=16, sliding_window=9, query_pre_attn_scalar=5,
                    layer_types=PATTERN, rope_parameters=dict(
                        full_attention=dict(rope_type="linear", factor=4.0, rope_theta=700.0),
                        sliding_attention=dict(rope_type="default", rope_theta=50.0))),
                    dict(plus_one=True, pattern=3)),
    # As E2B and E4B: the last two layers read the keys and values of others; embeddings by layer.
    "gemma4_text": ("gemma4", RMS | GEMMA4 | dict(num_hidden_layers=6, num_kv_shared_layers=2, use_double_wide_mlp=True,
                    hidden_size_per_layer_input=16, layer_types=["sliding_attention", "full_attention"] * 3), {}),
    # As 26B-A4B: values are keys in layers without a window, experts beside the MLP.
    "gemma4": ("gemma4", RMS | GEMMA4 | dict(attention_k_eq_v=True, num_global_key_value_heads=1, enable_moe_block=True,
               num_experts=5, top_k_experts=2, moe_intermediate_size=16, hidden_size_per_layer_input=0,
               layer_types=["sliding_attention", "full_attention"] * 2), dict(fused_experts=True)),
    "gemma3_text+use_bidirectional_attention": ("gemma-embedding", RMS | dict(
        head_dim=16, sliding_window=8, query_pre_attn_scalar=5, layer_types=PATTERN, use_bidirectional_attention=True,
        rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=700.0),
                             sliding_attention=dict(rope_type="default", rope_theta=50.0))), dict(plus_one=True, pattern=3)),
    "phi3": ("phi3", RMS | dict(hidden_size=64, original_max_position_embeddings=64, sliding_window=9,
             rope_parameters=dict(rope_type="longrope", rope_theta=700.0, partial_rotary_factor=0.75,
                                  original_max_position_embeddings=64,
                                  short_factor=[1.0, 1.25, 1.5, 2.0, 3.0, 4.0],
                                  long_factor=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0])), {}),
    "olmo2": ("olmo2", RMS | rope(700.0), {}),
    "olmo3": ("olmo2", RMS | dict(sliding_window=9, layer_types=["sliding_attention"] * 3 + ["full_attention"],
              rope_parameters=dict(
                  full_attention=dict(rope_type="yarn", factor=4.0, rope_theta=700.0, attention_factor=1.25,
                                      original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.5),
                  sliding_attention=dict(rope_type="default", rope_theta=700.0))), {}),
    "smollm3": ("smollm3", RMS | dict(no_rope_layers=[1, 1, 1, 0], head_dim=16) | rope(700.0), dict(permute=True)),
    "granite": ("granite", RMS | dict(embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.7,
                logits_scaling=2.5) | rope(700.0), dict(permute=True)),
    "rwkv7": ("rwkv7", dict(head_dim=8, norm_eps=0.02), {}),
    "bert": ("bert", dict(layer_norm_eps=0.05, type_vocab_size=2, num_key_value_heads=4), {}),
    "xlm-roberta": ("bert", dict(layer_norm_eps=0.05, type_vocab_size=1, num_key_value_heads=4, pad_token_id=1), {}),
    "roberta": ("bert", dict(layer_norm_eps=0.05, type_vocab_size=2, num_key_value_heads=4, pad_token_id=1), {}),
    "modernbert": ("modern-bert", dict(norm_eps=0.05, num_key_value_heads=4, local_attention=8, rope_parameters=dict(
                   full_attention=dict(rope_type="default", rope_theta=700.0),
                   sliding_attention=dict(rope_type="default", rope_theta=50.0))), {}),
    "nomic_bert": ("nomic-bert", dict(layer_norm_eps=0.05, type_vocab_size=2, num_key_value_heads=4) | rope(700.0), {}),
    "starcoder2": ("starcoder2", dict(norm_epsilon=0.05, sliding_window=9, use_bias=True) | rope(700.0), {}),
}

ENCODERS = ["bert", "xlm-roberta", "roberta", "modernbert", "nomic_bert", "gemma3_text+use_bidirectional_attention"]
RWKV = dict(layers=3, hidden=32, ffn=64, vocabulary=96, ranks=dict(w=8, a=8, v=6, g=10))
TRAINED = ["llama", "mistral", "mixtral", "qwen3_moe", "qwen2_moe", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "olmo3", "smollm3", "granite", "starcoder2", "glm4_moe", "gpt_oss",
           "qwen3_5_text", "qwen3_5_moe_text", "lfm2", "gemma4_text", "gemma4",
           "deepseek_v2", "deepseek_v3", "glm4_moe_lite"]
# Of families that call their matrices otherwise.
LLAMAS = dict(q_proj="self_attn.q_proj", k_proj="self_attn.k_proj", v_proj="self_attn.v_proj",
              o_proj="self_attn.o_proj", gate_proj="mlp.gate_proj", up_proj="mlp.up_proj", down_proj="mlp.down_proj")
PAIRED = {
    "gemma4_text": LLAMAS,
    "starcoder2": dict(q_proj="self_attn.q_proj", k_proj="self_attn.k_proj", v_proj="self_attn.v_proj",
                       o_proj="self_attn.o_proj", up_proj="mlp.c_fc", down_proj="mlp.c_proj"),
    "lfm2": dict(q_proj="self_attn.q_proj", k_proj="self_attn.k_proj", v_proj="self_attn.v_proj",
                 o_proj="self_attn.out_proj", gate_proj="feed_forward.w1", up_proj="feed_forward.w3",
                 down_proj="feed_forward.w2")}
CUT = ["qwen3_5_text", "lfm2", "deepseek_v2", "deepseek_v3"]
RANK, LORA_SCALE, BEGINS = 4, 0.5, [0, 21]
# What layers' matrices are multiplied with for training, where not 0.5; and those of experts (gpt-oss's go up to 6).
SHRUNK_BY, EXPERTS_BY = dict(lfm2=0.25, qwen3_5_text=0.25, qwen3_5_moe_text=0.125, gemma4_text=0.03125), dict(gpt_oss=0.125)
TOLD_BY = 0.25  # of the matrices of what layers are told of a token
MANY = ("gpt_oss", "qwen3_5_moe_text")  # seeds are tried: their choices lie close
WHOLE = ("mlp.gate.weight", "mlp.router.weight", "router.proj.weight", "shared_expert_gate.weight", "_bias", "conv1d.weight",
         "conv.conv.weight")  # as they are for training

GGUF_NAMES = {
    "embed_tokens": "token_embd", "lm_head": "output", "norm": "output_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b", "mlp.router": "ffn_gate_inp",
    "embedding_norm": "token_embd_norm", "operator_norm": "attn_norm", "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate", "feed_forward.w3": "ffn_up", "feed_forward.w2": "ffn_down",
    "self_attn.out_proj": "attn_output", "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm",
    "conv.in_proj": "shortconv.in_proj", "conv.out_proj": "shortconv.out_proj", "conv.conv": "shortconv.conv",
    "linear_attn.in_proj_qkv": "attn_qkv", "linear_attn.in_proj_z": "attn_gate", "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta", "linear_attn.out_proj": "ssm_out", "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.norm": "ssm_norm", "self_attn.sinks": "attn_sinks",
    **{f"mlp.shared_expert{s}.{part}_proj": f"ffn_{part}_shexp" for s in ("", "s") for part in ("gate", "up", "down")},
    "post_feedforward_layernorm_1": "post_ffw_norm_1", "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2", "router.proj": "ffn_gate_inp", "layer_scalar": "layer_output_scale",
    "embed_tokens_per_layer": "per_layer_token_embd", "per_layer_model_projection": "per_layer_model_proj",
    "per_layer_projection_norm": "per_layer_proj_norm", "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj", "post_per_layer_input_norm": "post_norm",
    "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp", "input_layernorm": "attn_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def make_model(kind, settings, auto=None):
    name = "gemma4_text" if kind == "gemma4" else kind.split("+")[0]
    config = transformers.AutoConfig.for_model(name, **(BASE | settings))
    config.architectures = None
    torch.manual_seed(7)
    auto = auto or (transformers.AutoModel if kind in ENCODERS else transformers.AutoModelForCausalLM)
    model = auto.from_config(config, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            less_one = kind.startswith("gemma") and not kind.startswith("gemma4")
            norm = "norm" in name.lower() and name.endswith("weight") and not less_one
            centre = 1.0 if norm or name.endswith("scale") else 0.0
            random = torch.randn(tensor.shape)
            if tensor.numel() == 1:  # the bias of a single label
                tensor.fill_(0.53125)
                continue
            tensor.copy_((centre + 0.32 * (random - random.mean()) / random.std()).to(torch.bfloat16))
            assert tensor.std() > 0.3, name
        for name, tensor in model.named_buffers():
            if "e_score_correction_bias" in name:
                tensor.copy_((0.32 * torch.randn(tensor.shape)).to(torch.bfloat16))
            if name.endswith("layer_scalar"):  # one number: spread over the layers
                tensor.copy_((0.4 + 1.2 * torch.rand(1)).to(torch.bfloat16))
        model.codes = {}
        for name, tensor in model.named_parameters() if kind == "gpt_oss" else ():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):  # [experts, in, out]
                codes, scales, values = mxfp4(tensor.transpose(1, 2))
                model.codes[name] = codes, scales
                tensor.copy_(values.transpose(1, 2))
    return model.eval()


def mxfp4(tensor):
    """Random codes [..., k] in place of a tensor's, scales [..., k / 32], and their values."""
    codes = torch.randint(0, 16, tensor.shape)
    scales = torch.randint(125, 127, (*tensor.shape[:-1], tensor.shape[-1] // 32))
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = magnitudes[codes % 8] * torch.where(codes >= 8, -1.0, 1.0)
    return codes, scales, values * torch.exp2((scales - 127.0).repeat_interleave(32, dim=-1))


def write_mxfp4(model, folder):
    """The experts of gpt-oss as its files have them: four bits a weight, pairs beside each other, scales apart."""
    tensors, quantized = {}, {}
    for name, tensor in model.state_dict().items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            codes, scales = model.codes[name]
            pairs = codes.view(*codes.shape[:-1], -1, 16, 2)
            quantized[name + "_blocks"] = (pairs[..., 0] | pairs[..., 1] << 4).to(torch.uint8)
            quantized[name + "_scales"] = scales.to(torch.uint8)
        else:
            tensors[name] = tensor.to(torch.bfloat16).contiguous()
    safetensors.torch.save_file(tensors | quantized, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn"])
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_golden(model, folder, kind, name="golden", length=LENGTH):
    generator = torch.Generator().manual_seed(11)
    tokens = torch.randint(3, model.config.get_text_config().vocab_size, (1, length), generator=generator)
    with torch.no_grad():
        if kind in ENCODERS:  # hidden states in place of logits
            logits = model(input_ids=tokens).last_hidden_state[0]
        else:
            logits = model(input_ids=tokens, use_cache=False).logits[0]
    golden = {"tokens": tokens[0].to(torch.int32), "logits": logits.float().contiguous()}
    if kind.startswith("gemma3_text+"):
        vector = logits.mean(0)
        for weight in write_modules(model, folder):
            vector = weight @ vector
        golden["embedding"] = vector / vector.norm()
    safetensors.torch.save_file(golden, folder / f"{name}.safetensors")
    return logits


def write_modules(model, folder, widths=(48, 24)):
    """What sentence-transformers has behind the model: mean pooling and two dense layers; their weights."""
    types = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Dense": "Dense", "4_Normalize": "Normalize"}
    (folder / "modules.json").write_text(json.dumps([dict(idx=i, name=str(i), path=path, type=f"sentence_transformers.models.{kind}")
                                                     for i, (path, kind) in enumerate(types.items())], indent=2) + "\n")
    for path in ("1_Pooling", "2_Dense", "3_Dense"):
        (folder / path).mkdir(exist_ok=True)
    width = model.config.hidden_size
    (folder / "1_Pooling/config.json").write_text(json.dumps(dict(word_embedding_dimension=width, pooling_mode_cls_token=False,
                                                                  pooling_mode_mean_tokens=True), indent=2) + "\n")
    model.dense = []
    for path, out in zip(("2_Dense", "3_Dense"), widths):
        weight = (0.32 * torch.randn(out, width)).to(torch.bfloat16)
        safetensors.torch.save_file({"linear.weight": weight}, folder / path / "model.safetensors")
        (folder / path / "config.json").write_text(json.dumps(dict(
            in_features=width, out_features=out, bias=False, activation_function="torch.nn.modules.linear.Identity"), indent=2) + "\n")
        model.dense.append(weight.float())
        width = out
    return model.dense


def sites(config, state, layer):
    """(site, tensor's name, first row or which, rows, expert) of every matrix of a layer; some lie together."""
    if config.model_type in PAIRED:
        for site, name in PAIRED[config.model_type].items():
            own = f"model.layers.{layer}.{name}.weight"
            if own in state:
                yield site, own, 0, len(state[own]), None
        return
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, kv, ffn = config.num_attention_heads * dim, config.num_key_value_heads * dim, config.intermediate_size
    stacked = f"model.layers.{layer}.mlp.experts."
    experts = len(state[stacked + "down_proj"]) if stacked + "down_proj" in state else 0
    adapted = config.model_type != "gpt_oss"  # whose experts take no pairs
    parts = {"self_attn": dict(q_proj=q, k_proj=kv, v_proj=kv)} | ({} if experts else {"mlp": dict(gate_proj=ffn, up_proj=ffn)})
    if getattr(config, "kv_lora_rank", None):  # queries, keys and values take no pairs
        parts.pop("self_attn")
    for part, names in parts.items():
        fused, first = f"model.layers.{layer}.{part}.{'qkv_proj' if part == 'self_attn' else 'gate_up_proj'}.weight", 0
        for site, rows in names.items():
            own = f"model.layers.{layer}.{part}.{site}.weight"
            if own in state and len(state[own]) == 2 * rows:  # by head queries, then their gate
                yield site, own, torch.arange(2 * rows).view(-1, 2, dim)[:, 0].flatten(), rows, None
            elif own in state:
                yield site, own, 0, rows, None
            elif fused in state:
                yield site, fused, first, rows, None
            first += rows
    output = f"model.layers.{layer}.self_attn.o_proj.weight"
    if output in state:
        yield "o_proj", output, 0, config.hidden_size, None
    for expert in range(experts if adapted else 0):
        width = state[stacked + "down_proj"].shape[2]
        yield f"experts.{expert}.gate_proj", stacked + "gate_up_proj", 0, width, expert
        yield f"experts.{expert}.up_proj", stacked + "gate_up_proj", width, width, expert
        yield f"experts.{expert}.down_proj", stacked + "down_proj", 0, config.hidden_size, expert
    if not experts:
        yield "down_proj", f"model.layers.{layer}.mlp.down_proj.weight", 0, config.hidden_size, None


def clearest(plain, draw, documents):
    """Of a mixture the seed of pairs with which no row's choice of experts is close: bf16 would round it the other way."""
    margins = []

    config = plain.config
    groups, used_groups = getattr(config, "n_group", 1), getattr(config, "topk_group", 1)

    def least_gap(scores, used):
        best = scores.topk(used + 1).values
        return (best[:, -2] - best[:, -1]).min().item()

    def watch(router, inputs, _):
        if hasattr(router, "proj"):  # Gemma 4's, which normalizes its input
            inputs = [router.norm(inputs[0]) * router.scale * router.scalar_root_size]
            margins.append(least_gap(router.proj(inputs[0]), config.top_k_experts))
            return
        scores = torch.nn.functional.linear(inputs[0].reshape(-1, inputs[0].shape[-1]), router.weight, getattr(router, "bias", None))
        if hasattr(router, "e_score_correction_bias"):
            scores = scores.sigmoid() + router.e_score_correction_bias
        if groups > 1:
            own = scores.view(len(scores), groups, -1)
            worth = own.topk(2).values.sum(-1) if hasattr(router, "e_score_correction_bias") else own.max(-1).values
            margins.append(least_gap(worth, used_groups))
            out = worth < worth.topk(used_groups).values[:, -1:]
            scores = own.masked_fill(out[..., None], -1e9).view(len(scores), -1)
        margins.append(least_gap(scores, config.num_experts_per_tok))
    routers = [getattr(layer.mlp, "gate", None) or getattr(layer.mlp, "router", None) or getattr(layer, "router", None)
               for layer in plain.model.layers]
    hooks = [router.register_forward_hook(watch) for router in routers if router is not None]
    found = {}
    for seed in range(13, 333 if config.model_type in MANY else 45):
        margins.clear()
        merged = draw(seed)[3]
        with torch.no_grad():
            for document in documents:
                torch.func.functional_call(plain, merged, kwargs=dict(input_ids=document[None], use_cache=False))
        found[seed] = min(margins)
    for hook in hooks:
        hook.remove()
    seed = max(found, key=found.get)
    print(f"pairs of seed {seed}: choices of experts differ by {found[seed]:.3f} or more, with seed 13 by {found[13]:.3f}")
    return seed


def factor_of(kind, name):
    """What a layer's matrix is multiplied with for training."""
    own = SHRUNK_BY.get(kind, 0.5)
    return EXPERTS_BY.get(kind, own) if ".experts." in name else TOLD_BY if "per_layer" in name else own


def write_training(model, kind, settings, folder, suffix="", begins=BEGINS):
    config = transformers.AutoConfig.for_model("gemma4_text" if kind == "gemma4" else kind, **(BASE | settings))
    config._experts_implementation = "eager"  # the others have no float64
    plain = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float64)
    state = {name: tensor.double() for name, tensor in model.state_dict().items()
             if not (name == "lm_head.weight" and config.tie_word_embeddings)}
    for name, tensor in state.items():  # made smaller, which is exact: sharper models pass on more of bf16's rounding
        if tensor.dim() >= 2 and name.startswith("model.layers.") and not name.endswith(WHOLE):
            tensor *= factor_of(kind, name)
    tokens = safetensors.torch.load_file(folder / f"golden{suffix}.safetensors")["tokens"].long()
    spans = list(zip(begins, begins[1:] + [len(tokens)]))

    def draw(seed):
        torch.manual_seed(seed)
        targets = torch.randint(3, config.vocab_size, tokens.shape)
        out, pairs, merged = {"targets": targets.int(), "begins": torch.tensor(begins).int()}, {}, dict(state)
        for layer in range(config.num_hidden_layers):
            for site, name, first, rows, expert in sites(config, state, layer):
                a = (0.2 * torch.randn(RANK, state[name].shape[-1])).bfloat16()
                b = (0.2 * torch.randn(rows, RANK)).bfloat16()
                key = f"{layer}.{site}"
                out[f"a.{key}"], out[f"b.{key}"] = a, b
                pairs[f"a.{key}"], pairs[f"b.{key}"] = a.double().requires_grad_(), b.double().requires_grad_()
                change = LORA_SCALE * pairs[f"b.{key}"] @ pairs[f"a.{key}"]
                if isinstance(first, torch.Tensor):
                    merged[name] = merged[name].index_add(0, first, change)
                    continue
                around = (0, 0, first, state[name].shape[-2] - first - rows)
                if expert is not None:
                    change, around = change[None], (*around, expert, len(state[name]) - 1 - expert)
                merged[name] = merged[name] + torch.nn.functional.pad(change, around)
        return targets, out, pairs, merged
    mixture = any(name.endswith(("mlp.gate.weight", "mlp.router.weight", "router.proj.weight")) for name in state)
    targets, out, pairs, merged = draw(clearest(plain, draw, [tokens[begin:end] for begin, end in spans]) if mixture else 13)
    loss = 0
    for begin, end in spans:
        logits = torch.func.functional_call(plain, merged, kwargs=dict(input_ids=tokens[None, begin:end], use_cache=False)).logits[0]
        loss = loss + torch.nn.functional.cross_entropy(logits, targets[begin:end], reduction="sum")
    gradients = torch.autograd.grad(loss, list(pairs.values()))
    out |= {f"d.{key}": gradient.float().contiguous() for key, gradient in zip(pairs, gradients)}
    out["loss"] = loss.detach()[None]
    safetensors.torch.save_file(out, folder / f"train{suffix}.safetensors", metadata={
        "scale": repr(LORA_SCALE), "factor": repr(SHRUNK_BY.get(kind, 0.5)),
        "expert_factor": repr(factor_of(kind, ".experts.")), "told_factor": repr(TOLD_BY)})


def write_first(model, kind, settings, folder):
    """Of a model cut to its first layer, embeddings divided by 8 so that the layer outweighs its input: their gradient."""
    settings = dict(settings, num_hidden_layers=1) | ({"layer_types": settings["layer_types"][:1]} if "layer_types" in settings else {})
    config = transformers.AutoConfig.for_model(kind, **(BASE | settings))
    plain = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float64)
    state = {name: tensor.double() for name, tensor in model.state_dict().items()
             if not name.startswith("model.layers.") or name.startswith("model.layers.0.")}
    state.pop("lm_head.weight") if config.tie_word_embeddings else None
    embedding = state["model.embed_tokens.weight"] = (state["model.embed_tokens.weight"] / 8).requires_grad_()
    tokens = safetensors.torch.load_file(folder / "golden.safetensors")["tokens"].long()
    torch.manual_seed(14)
    targets, loss = torch.randint(3, config.vocab_size, tokens.shape), 0
    for begin, end in zip(BEGINS, BEGINS[1:] + [len(tokens)]):
        logits = torch.func.functional_call(plain, state, kwargs=dict(input_ids=tokens[None, begin:end], use_cache=False)).logits[0]
        loss = loss + torch.nn.functional.cross_entropy(logits, targets[begin:end], reduction="sum")
    gradient, = torch.autograd.grad(loss, [embedding])
    out = {"targets": targets.int(), "begins": torch.tensor(BEGINS).int(), "loss": loss.detach()[None],
           "d.embedding": gradient.float().contiguous()}
    safetensors.torch.save_file(out, folder / "train_first.safetensors")


def gguf_name(name, after_branch):
    name = name.replace("mlp.gate.e_score_correction_bias", "exp_probs_b.bias")
    name = name.replace(".sinks", ".sinks.weight").replace(".layer_scalar", ".layer_scalar.weight")
    name = name.replace("router.scale", "router.proj.scale").replace("router.per_expert_scale", "ffn_down_exps.scale")
    stem, suffix = name.removeprefix("model.").rsplit(".", 1)
    layer = ""
    if stem.startswith("layers."):
        _, number, stem = stem.split(".", 2)
        layer = f"blk.{number}."
    if stem == "post_attention_layernorm":
        stem = "post_attention_norm" if after_branch else "ffn_norm"  # GLM's files have the former's name, too
    return f"{layer}{GGUF_NAMES.get(stem, stem)}.{suffix}"


def add_settings(writer, arch, config, traits):
    def number(key, value):
        writer.add_float32(f"{arch}.{key}", float(value)) if isinstance(value, float) else \
            writer.add_uint32(f"{arch}.{key}", int(value))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    number("block_count", config.num_hidden_layers + traits.get("mtp", 0))
    if "mtp" in traits:
        number("nextn_predict_layers", traits["mtp"])
    number("context_length", config.max_position_embeddings)
    number("embedding_length", config.hidden_size)
    number("feed_forward_length", traits.get("ffn", getattr(config, "intermediate_size", 1)))
    if hasattr(config, "linear_num_key_heads"):
        number("ssm.conv_kernel", config.linear_conv_kernel_dim)
        number("ssm.group_count", config.linear_num_key_heads)
        number("ssm.time_step_rank", config.linear_num_value_heads)
        number("ssm.state_size", config.linear_key_head_dim)
        number("ssm.inner_size", config.linear_num_value_heads * config.linear_value_head_dim)
        number("full_attention_interval", 2)
    if hasattr(config, "conv_L_cache"):
        number("shortconv.l_cache", config.conv_L_cache)
    number("attention.head_count", config.num_attention_heads)
    if hasattr(config, "kv_lora_rank"):
        split = traits.get("split_kv_b")
        number("attention.head_count_kv", 1 if split else config.num_key_value_heads)
        number("attention.kv_lora_rank", config.kv_lora_rank)
        if config.q_lora_rank:
            number("attention.q_lora_rank", config.q_lora_rank)
        number("attention.key_length" + ("_mla" if split else ""), config.qk_nope_head_dim + config.qk_rope_head_dim)
        number("attention.value_length" + ("_mla" if split else ""), config.v_head_dim)
        if split:
            number("attention.key_length", config.kv_lora_rank + config.qk_rope_head_dim)
            number("attention.value_length", config.kv_lora_rank)
        number("rope.dimension_count", config.qk_rope_head_dim)
    else:
        if hasattr(config, "conv_L_cache"):
            writer.add_array(f"{arch}.attention.head_count_kv",
                             [config.num_key_value_heads * (kind != "conv") for kind in config.layer_types])
        else:
            number("attention.head_count_kv", config.num_key_value_heads)
        number("attention.key_length", head_dim)
        number("attention.value_length", head_dim)
    if hasattr(config, "norm_epsilon"):
        number("attention.layer_norm_epsilon", float(config.norm_epsilon))
    else:
        number("attention.layer_norm_rms_epsilon", float(getattr(config, "rms_norm_eps", None) or config.norm_eps))
    parameters = config.rope_parameters
    if "full_attention" in parameters:
        number("rope.freq_base_swa", float(parameters["sliding_attention"]["rope_theta"]))
        parameters = parameters["full_attention"]
    number("rope.freq_base", float(parameters["rope_theta"]))
    if "partial_rotary_factor" in parameters:
        number("rope.dimension_count", int(head_dim * parameters["partial_rotary_factor"]))
    if parameters["rope_type"] == "linear":
        writer.add_string(f"{arch}.rope.scaling.type", "linear")
        number("rope.scaling.factor", float(parameters["factor"]))
    if parameters["rope_type"] == "yarn":
        writer.add_string(f"{arch}.rope.scaling.type", "yarn")
        number("rope.scaling.factor", float(parameters["factor"]))
        number("rope.scaling.original_context_length", int(parameters["original_max_position_embeddings"]))
        if "mscale_all_dim" in parameters:
            number("rope.scaling.yarn_log_multiplier", 0.1 * parameters["mscale_all_dim"])
        elif "attention_factor" in parameters:
            number("rope.scaling.attn_factor", float(parameters["attention_factor"]))
        number("rope.scaling.yarn_beta_fast", float(parameters["beta_fast"]))
        number("rope.scaling.yarn_beta_slow", float(parameters["beta_slow"]))
    if getattr(config, "num_experts_per_tok", None):
        number("expert_count", getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
               or config.n_routed_experts)
        number("expert_used_count", config.num_experts_per_tok)
        if hasattr(config, "moe_intermediate_size"):
            number("expert_feed_forward_length", config.moe_intermediate_size)
        if hasattr(config, "shared_expert_intermediate_size"):
            number("expert_shared_feed_forward_length", config.shared_expert_intermediate_size)
        if hasattr(config, "n_shared_experts"):
            number("expert_shared_count", config.n_shared_experts)
            number("leading_dense_block_count", 1)
            number("expert_group_count", config.n_group)
            number("expert_group_used_count", config.topk_group)
            number("expert_weights_scale", float(config.routed_scaling_factor))
            writer.add_bool(f"{arch}.expert_weights_norm", bool(config.norm_topk_prob))
            if config.model_type != "deepseek_v2":  # older files do not say
                number("expert_gating_func", 2)
    if getattr(config, "sliding_window", None):  # of encoders both sides together, as in their config.json
        both_ways = getattr(config, "use_bidirectional_attention", False)
        number("attention.sliding_window", (config.sliding_window - 1) * 2 if both_ways else config.sliding_window)
    if "pattern" in traits:
        number("attention.sliding_window_pattern", traits["pattern"])
    for key, field in {"attn_logit_softcapping": "attn_logit_softcapping",
                       "final_logit_softcapping": "final_logit_softcapping",
                       "embedding_scale": "embedding_multiplier", "residual_scale": "residual_multiplier",
                       "attention.scale": "attention_multiplier", "logit_scale": "logits_scaling"}.items():
        if getattr(config, field, None) is not None:
            number(key, float(getattr(config, field)))
    if hasattr(config, "query_pre_attn_scalar"):
        number("attention.scale", float(config.query_pre_attn_scalar) ** -0.5)
    if parameters["rope_type"] == "longrope":
        original = parameters["original_max_position_embeddings"]
        stretch = config.max_position_embeddings / original
        number("rope.scaling.original_context_length", original)
        number("rope.scaling.attn_factor", float(np.sqrt(1 + np.log(stretch) / np.log(original))))
        for which in ("short", "long"):
            writer.add_tensor(f"rope_factors_{which}.weight", np.array(parameters[f"{which}_factor"], np.float32))
    if parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(parameters, head_dim))


def add_gemma4_settings(writer, arch, config, settings):
    layers, shared = config.num_hidden_layers, config.num_kv_shared_layers
    local = [kind == "sliding_attention" for kind in config.layer_types]
    number = {"context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
              "block_count": layers, "attention.head_count": config.num_attention_heads,
              "attention.sliding_window": config.sliding_window, "attention.shared_kv_layers": shared,
              "attention.key_length": settings["global_head_dim"], "attention.value_length": settings["global_head_dim"],
              "attention.key_length_swa": settings["head_dim"], "attention.value_length_swa": settings["head_dim"],
              "rope.dimension_count": settings["global_head_dim"], "rope.dimension_count_swa": settings["head_dim"],
              "embedding_length_per_layer_input": config.hidden_size_per_layer_input}
    if config.enable_moe_block:
        number |= {"expert_count": config.num_experts, "expert_used_count": config.top_k_experts,
                   "expert_feed_forward_length": config.moe_intermediate_size}
    for key, value in number.items():
        writer.add_uint32(f"{arch}.{key}", value)
    for key, value in {"attention.layer_norm_rms_epsilon": config.rms_norm_eps,
                       "final_logit_softcapping": config.final_logit_softcapping,
                       "rope.freq_base": config.rope_parameters["full_attention"]["rope_theta"],
                       "rope.freq_base_swa": config.rope_parameters["sliding_attention"]["rope_theta"]}.items():
        writer.add_float32(f"{arch}.{key}", value)
    writer.add_array(f"{arch}.attention.sliding_window_pattern", local)
    kv, kv_global = BASE["num_key_value_heads"], settings.get("num_global_key_value_heads", BASE["num_key_value_heads"])
    writer.add_array(f"{arch}.attention.head_count_kv", [kv if is_local else kv_global for is_local in local])
    wide = [2 if config.use_double_wide_mlp and layer >= layers - shared else 1 for layer in range(layers)]
    writer.add_array(f"{arch}.feed_forward_length", [config.intermediate_size * factor for factor in wide])
    pairs, share = settings["global_head_dim"] // 2, config.rope_parameters["full_attention"]["partial_rotary_factor"]
    rotated = int(pairs * share)
    writer.add_tensor("rope_freqs.weight", np.array([1.0] * rotated + [1e30] * (pairs - rotated), np.float32))


def llama3_factors(p, dim):
    """As converters of Llama 3.1 write it."""
    factors = []
    for frequency in 1.0 / p["rope_theta"] ** (np.arange(0, dim, 2) / dim):
        wavelength, original = 2 * np.pi / frequency, p["original_max_position_embeddings"]
        if wavelength < original / p["high_freq_factor"]:
            factors.append(1.0)
        elif wavelength > original / p["low_freq_factor"]:
            factors.append(p["factor"])
        else:
            smooth = (original / wavelength - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / p["factor"] + smooth))
    return np.array(factors, np.float32)


def permuted(tensor, heads):
    """The rows of rotary pairs beside each other."""
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def tiled(name, tensor, config):
    """Heads of values in the order in which GGUF has them: those of one head of keys are no longer neighbours."""
    keys, heads, dim = config.linear_num_key_heads, config.linear_num_value_heads, config.linear_value_head_dim
    site = name.split("linear_attn.")[1].split(".")[0]
    order = torch.arange(heads).view(keys, -1).T.flatten()
    of_values = (order[:, None] * dim + torch.arange(dim)).flatten()
    first = 2 * keys * config.linear_key_head_dim
    if site in ("in_proj_qkv", "conv1d"):
        return torch.cat([tensor[:first], tensor[first:][of_values]])
    if site in ("A_log", "dt_bias", "in_proj_a", "in_proj_b"):
        return tensor[order]
    return tensor[of_values] if site == "in_proj_z" else tensor[:, of_values] if site == "out_proj" else tensor


BERT_NAMES = {
    "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "attn_output_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "post_mlp_layernorm": "layer_output_norm",
    "embeddings.tok_embeddings": "token_embd", "embeddings.norm": "token_embd_norm", "final_norm": "output_norm",
    "attn_norm": "attn_norm", "mlp_norm": "ffn_norm", "attn.Wqkv": "attn_qkv", "attn.Wo": "attn_output",
    "mlp.Wi": "ffn_up", "mlp.Wo": "ffn_down",
}


def write_encoder_gguf(model, arch, path):
    config = model.config
    writer = gguf.GGUFWriter(str(path), arch)
    first = config.pad_token_id + 1 if config.model_type in ("xlm-roberta", "roberta") else 0  # rows of no position
    for key, value in dict(block_count=config.num_hidden_layers, context_length=config.max_position_embeddings - first,
                           embedding_length=config.hidden_size, feed_forward_length=config.intermediate_size,
                           pooling_type=4 if hasattr(model, "classifier") else 1).items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_uint32(f"{arch}.attention.head_count", config.num_attention_heads)
    writer.add_float32(f"{arch}.attention.layer_norm_epsilon", getattr(config, "layer_norm_eps", None) or config.norm_eps)
    writer.add_bool(f"{arch}.attention.causal", False)
    parameters = getattr(config, "rope_parameters", None)
    if parameters and "full_attention" in parameters:
        writer.add_uint32(f"{arch}.attention.sliding_window", config.local_attention)
        writer.add_uint32(f"{arch}.attention.sliding_window_pattern", 3)
        writer.add_float32(f"{arch}.rope.freq_base_swa", float(parameters["sliding_attention"]["rope_theta"]))
        writer.add_string(f"{arch}.rope.scaling.type", "none")
        parameters = parameters["full_attention"]
    if parameters:
        writer.add_float32(f"{arch}.rope.freq_base", float(parameters["rope_theta"]))
    prefix = model.base_model_prefix + "."  # of a model with a head, whose pooler is part of it
    headed = any(name.startswith(prefix) for name in model.state_dict())
    state = {name.removeprefix(prefix): tensor.float() for name, tensor in model.state_dict().items()
             if headed or not name.startswith("pooler.")}
    if headed:
        writer.add_array(f"{arch}.classifier.output_labels", list(model.config.id2label.values()))
    for layer in range(config.num_hidden_layers):  # NomicBERT's lie together
        parts = [state.pop(f"layers.{layer}.self_attn.{part}_proj.weight", None) for part in "qkv"]
        if parts[0] is not None:
            writer.add_tensor(f"blk.{layer}.attn_qkv.weight", torch.cat(parts).numpy())
    for name, tensor in sorted(state.items()):
        stem, suffix = name.rsplit(".", 1)
        layer = ""
        if stem.endswith("position_embeddings"):
            tensor = tensor[first:]
        if stem.startswith(("encoder.layer.", "layers.")):
            number, stem = stem.removeprefix("encoder.layer.").removeprefix("layers.").split(".", 1)
            layer = f"blk.{number}."
        writer.add_tensor(f"{layer}{BERT_NAMES[stem]}.{suffix}", tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(model, arch, traits, path):
    config = model.config
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_string("general.name", "tiny random")
    if arch == "gemma4":
        add_gemma4_settings(writer, arch, config, traits["settings"])
    else:
        add_settings(writer, arch, config, traits)
    if arch == "gemma-embedding":
        writer.add_uint32(f"{arch}.pooling_type", 1)
        for i, weight in enumerate(model.dense):
            writer.add_tensor(f"dense_{i + 2}.weight", weight.numpy())
    state = model.state_dict()
    after_branch = arch in ("glm4moe", "gpt-oss", "qwen35", "qwen35moe") or any("post_feedforward_layernorm" in name for name in state)
    if "mtp" in traits:  # a layer that is not run
        writer.add_tensor(f"blk.{config.num_hidden_layers}.nextn.enorm.weight", np.ones(config.hidden_size, np.float32))
    for name, tensor in sorted(state.items()):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if traits.get("permute") and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            tensor = permuted(tensor, heads)
        if name.endswith("kv_b_proj.weight") and traits.get("split_kv_b"):
            layer, nope, value = name.split(".")[2], config.qk_nope_head_dim, config.v_head_dim
            keys, values = tensor.view(-1, nope + value, config.kv_lora_rank).split((nope, value), dim=1)
            for part, values in dict(k_b=keys.transpose(1, 2), v_b=values).items():
                raw = values.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
                writer.add_tensor(f"blk.{layer}.attn_{part}.weight", raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
            continue
        if "conv.weight" in name or "conv1d.weight" in name:
            tensor = tensor[:, 0]
        if ".linear_attn." in name:
            tensor = tiled(name, tensor, config)
        if name.endswith("linear_attn.A_log"):
            writer.add_tensor(f"blk.{name.split('.')[2]}.ssm_a", -np.exp(tensor.float().numpy()))
            continue
        if name.endswith("linear_attn.dt_bias"):
            writer.add_tensor(f"blk.{name.split('.')[2]}.ssm_dt.bias", tensor.float().numpy())
            continue
        if name.endswith("shared_expert_gate.weight"):
            tensor = tensor[0]
        if ".experts." in name and "mxfp4" in traits:
            layer, site = name.split(".")[2], name.rsplit(".", 1)[1]
            # Gate and up lie row by row.
            parts = {part: slice(i, None, 2) for i, part in enumerate(("gate", "up"))} if "gate_up" in site else {"down": slice(None)}
            for part, rows in parts.items():
                if site.endswith("_bias"):
                    writer.add_tensor(f"blk.{layer}.ffn_{part}_exps.bias", tensor[:, rows].float().contiguous().numpy())
                    continue
                codes, scales = (values[:, rows] for values in model.codes[name])
                halves = codes.reshape(*codes.shape[:2], -1, 2, 16)
                blocks = torch.cat([scales[..., None], halves[..., 0, :] | halves[..., 1, :] << 4], dim=-1)
                writer.add_tensor(f"blk.{layer}.ffn_{part}_exps.weight", blocks.flatten(2).to(torch.uint8).numpy(),
                                  raw_dtype=gguf.GGMLQuantizationType.MXFP4)
            continue
        if ".experts." in name:
            layer, site = name.split(".")[2], name.rsplit(".", 1)[1]
            parts = dict(zip(("gate", "up"), tensor.chunk(2, dim=1))) if site == "gate_up_proj" else dict(down=tensor)
            if traits.get("fused_experts") and site == "gate_up_proj":
                parts = dict(gate_up=tensor)
            for part, values in parts.items():
                raw = values.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
                writer.add_tensor(f"blk.{layer}.ffn_{part}_exps.weight", raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
            continue
        target = gguf_name(name, after_branch)
        if tensor.dim() == 1:
            values = tensor.float().numpy()
            writer.add_tensor(target, values + 1 if traits.get("plus_one") and "norm" in name and "linear_attn" not in name else values)
        elif "conv" in target:
            writer.add_tensor(target, tensor.float().contiguous().numpy())
        else:
            raw = tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
            writer.add_tensor(target, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_nested(source, folder):
    """Gemma 3 as its multimodal models are saved: the decoder's config and tensors are nested, others beside them."""
    config = json.loads((source / "config.json").read_text())
    whole = dict(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"], text_config=config,
                 vision_config=dict(model_type="siglip_vision_model", hidden_size=8), tie_word_embeddings=True)
    (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n")
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    nested = {"model.language_model." + name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    nested["model.vision_tower.embeddings.weight"] = torch.zeros(2, 2, dtype=torch.bfloat16)
    safetensors.torch.save_file(nested, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(source / "golden.safetensors", folder / "golden.safetensors")


def make_rwkv(settings):
    """By the names of RWKV7ForCausalLM (flash-linear-attention), rounded to bf16."""
    hidden, head_dim, state = RWKV["hidden"], settings["head_dim"], {}
    torch.manual_seed(7)

    def add(name, *shape, centre=0.0):
        random = torch.randn(shape)
        state[name] = (centre + 0.32 * (random - random.mean()) / random.std()).to(torch.bfloat16)
        assert state[name].float().std() > 0.3, name

    def norm(name):
        add(name + ".weight", hidden, centre=1.0)
        add(name + ".bias", hidden)
    add("model.embeddings.weight", RWKV["vocabulary"], hidden)
    norm("model.layers.0.pre_norm")
    for layer in range(RWKV["layers"]):
        name = f"model.layers.{layer}."
        norm(name + "attn_norm")
        norm(name + "ffn_norm")
        norm(name + "attn.g_norm")
        for part in "rwkvag":
            add(f"{name}attn.x_{part}", 1, 1, hidden, centre=0.5)
        for part in "rkvo":
            add(f"{name}attn.{part}_proj.weight", hidden, hidden)
        for part, rank in RWKV["ranks"].items():
            if part == "v" and layer == 0:
                continue
            add(f"{name}attn.{part}_lora.lora.0.weight", rank, hidden)
            add(f"{name}attn.{part}_lora.lora.2.weight", hidden, rank)
            if part != "g":
                add(f"{name}attn.{part}_lora.lora.2.bias", hidden)
        add(name + "attn.k_k", hidden, centre=1.0)
        add(name + "attn.k_a", hidden, centre=1.0)
        add(name + "attn.r_k", hidden // head_dim, head_dim)
        add(name + "ffn.x_k", hidden, centre=0.5)
        add(name + "ffn.key.weight", RWKV["ffn"], hidden)
        add(name + "ffn.value.weight", hidden, RWKV["ffn"])
    norm("model.norm")
    add("lm_head.weight", RWKV["vocabulary"], hidden)
    return state


def write_rwkv(settings, folder):
    state = make_rwkv(settings)
    generator = torch.Generator().manual_seed(11)
    tokens = torch.randint(3, RWKV["vocabulary"], (LENGTH,), generator=generator)
    logits = rwkv7_reference.Reference(state, RWKV["layers"], settings["head_dim"], settings["norm_eps"]).logits(tokens)
    safetensors.torch.save_file({"tokens": tokens.to(torch.int32), "logits": logits.float()}, folder / "golden.safetensors")
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    ranks = RWKV["ranks"]
    config = dict(architectures=["RWKV7ForCausalLM"], model_type="rwkv7", hidden_size=RWKV["hidden"], hidden_act="sqrelu",
                  num_hidden_layers=RWKV["layers"], intermediate_size=RWKV["ffn"], hidden_ratio=4.0, num_heads=None,
                  max_position_embeddings=128, vocab_size=RWKV["vocabulary"], norm_first=True, norm_bias=True, attn=None,
                  decay_low_rank_dim=ranks["w"], a_low_rank_dim=ranks["a"], v_low_rank_dim=ranks["v"],
                  gate_low_rank_dim=ranks["g"], value_dim=[RWKV["hidden"]] * RWKV["layers"], tie_word_embeddings=False,
                  bos_token_id=0, eos_token_id=0, torch_dtype="bfloat16", **settings)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_rwkv_gguf(state, settings, folder / "model.gguf")
    print(f"rwkv7: {sum(t.numel() for t in state.values())} parameters, logits up to {logits.abs().max():.1f}")


RWKV_NAMES = {
    "r_proj": "receptance", "k_proj": "key", "v_proj": "value", "o_proj": "output", "k_k": "k_k", "k_a": "k_a", "r_k": "r_k",
    "g_norm": "ln",
    **{f"{part}_lora.lora.{place}": f"{part}{1 if place == 0 else 2}" for part in "wavg" for place in (0, 2)},
}


def write_rwkv_gguf(state, settings, path):
    """As converters write it: biases of the narrow products by themselves, shares together, unused v's in layer 0."""
    arch, ranks = "rwkv7", RWKV["ranks"]
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_string("general.name", "tiny random")
    for key, value in {"context_length": 128, "embedding_length": RWKV["hidden"], "block_count": RWKV["layers"],
                       "wkv.head_size": settings["head_dim"], "attention.decay_lora_rank": ranks["w"],
                       "attention.iclr_lora_rank": ranks["a"], "attention.value_residual_mix_lora_rank": ranks["v"],
                       "attention.gate_lora_rank": ranks["g"], "feed_forward_length": RWKV["ffn"],
                       "attention.head_count": 0}.items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_float32(f"{arch}.attention.layer_norm_epsilon", settings["norm_eps"])

    def add(name, tensor):
        if tensor.dim() == 2:
            writer.add_tensor(name, tensor.contiguous().view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, tensor.float().contiguous().numpy())
    whole = {"model.embeddings": "token_embd", "model.layers.0.pre_norm": "token_embd_norm", "model.norm": "output_norm",
             "lm_head": "output"}
    for name, tensor in state.items():
        stem, suffix = name.rsplit(".", 1)
        if stem in whole:
            add(f"{whole[stem]}.{suffix}", tensor)
            continue
        _, _, layer, part, rest = name.split(".", 4)
        block = f"blk.{layer}."
        if part in ("attn_norm", "ffn_norm"):
            add(f"{block}{'attn_norm' if part == 'attn_norm' else 'attn_norm_2'}.{rest}", tensor)
        elif part == "ffn":
            add(block + {"x_k": "channel_mix_lerp_k.weight", "key.weight": "channel_mix_key.weight",
                         "value.weight": "channel_mix_value.weight"}[rest], tensor)
        elif rest == "x_r":  # all six at once
            add(block + "time_mix_lerp_fused.weight", torch.stack([state[f"model.layers.{layer}.attn.x_{p}"] for p in "rwkvag"]))
        elif not rest.startswith("x_"):
            stem, _, suffix = rest.rpartition(".")
            target = f"{rest[0]}0.weight" if suffix == "bias" and "lora" in stem else \
                f"{RWKV_NAMES[rest]}.weight" if rest in RWKV_NAMES else f"{RWKV_NAMES[stem]}.{suffix}"
            tensor = tensor.flatten() if rest == "r_k" else tensor
            add(f"{block}time_mix_{target}", tensor)
            if layer == "0" and target[0] == "a" and target[1] in "012":
                add(f"{block}time_mix_v{target[1:]}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def nest_gemma4(folder):
    """As the multimodal files on the hub are: nested, and heads of layers without a window said as a whole."""
    config = json.loads((folder / "config.json").read_text())
    settings = FAMILIES["gemma4"][1]
    del config["per_layer_config"]
    config |= {name: settings[name] for name in ("global_head_dim", "num_global_key_value_heads")}
    whole = dict(model_type="gemma4", architectures=["Gemma4ForConditionalGeneration"], text_config=config,
                 vision_config=dict(model_type="gemma4_vision", hidden_size=8), tie_word_embeddings=True)
    (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    nested = {"model.language_model." + name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    nested["model.vision_tower.embeddings.weight"] = torch.zeros(2, 2, dtype=torch.bfloat16)
    safetensors.torch.save_file(nested, folder / "model.safetensors", metadata={"format": "pt"})


def add_unused_keys(folder):
    """Files on the hub have keys and values of layers that read those of others, too."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    unused = {name.replace("layers.0.", "layers.4."): tensor + 1 for name, tensor in tensors.items()
              if name.startswith("model.layers.0.self_attn.") and name.split(".")[4] in ("k_proj", "v_proj", "k_norm")}
    safetensors.torch.save_file(tensors | unused, folder / "model.safetensors", metadata={"format": "pt"})


def main():
    chosen = sys.argv[1:] or list(FAMILIES) + ["gemma3"]
    for kind in chosen:
        folder = OUT / kind
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "gemma3":
            write_nested(OUT / "gemma3_text", folder)
            continue
        arch, settings, traits = FAMILIES[kind]
        if kind == "rwkv7":
            write_rwkv(settings, folder)
            continue
        traits = traits | dict(settings=settings)
        model = make_model(kind, settings)
        logits = write_golden(model, folder, kind)
        if kind in TRAINED:
            write_training(model, kind, settings, folder)
        if kind in CUT:
            write_first(model, kind, settings, folder)
        if kind == "phi3":
            write_golden(model, folder, kind, "golden_far", FAR_LENGTH)
            write_training(model, kind, settings, folder, "_far", [0, 72])
        if kind in ENCODERS and "+" not in kind:
            write_encoder_gguf(model, arch, folder / "model.gguf")
        else:
            write_gguf(model, arch, traits, folder / "model.gguf")
        model.to(torch.bfloat16).save_pretrained(folder)
        if kind == "gpt_oss":  # beside its usual form, as it is saved after training
            (folder / "model.safetensors").rename(folder / "plain.safetensors")
            write_mxfp4(model, folder)
        if kind == "gemma4":
            nest_gemma4(folder)
        if kind == "gemma4_text":
            add_unused_keys(folder)
        if kind == "qwen3_moe":  # the other way in which experts are stored: stacked
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()},
                                        folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "generation_config.json").unlink(missing_ok=True)
        print(f"{kind}: {sum(p.numel() for p in model.parameters())} parameters, logits up to {logits.abs().max():.1f}")
    (OUT / "VERSIONS").write_text(f"Python {sys.version.split()[0]}, torch {torch.__version__.split('+')[0]}, "
                                  f"transformers {transformers.__version__}, "
                                  f"safetensors {safetensors.__version__}, gguf {importlib.metadata.version('gguf')}\n")


if __name__ == "__main__":
    main()
