#!/usr/bin/env python3
"""One figure of OpenVINO GenAI, which reads GGUF itself:

    openvino_genai_bench.py MODEL.gguf THREADS prefill|decode TOKENS

Prints {"tokens_per_second": ...}, from the pipeline's own metrics: prefill is prompt tokens over the time to
the first token, decode is over the time per token after it. Needs openvino-genai.
"""
import json
import sys

import numpy as np
import openvino as ov
import openvino_genai as genai


def main():
    model, threads, kind, number = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    pipeline = genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
    config = genai.GenerationConfig()
    config.do_sample, config.ignore_eos = False, True
    config.max_new_tokens = 1 if kind == "prefill" else number + 1
    length = number if kind == "prefill" else 1

    def prompt(first):
        ids = np.array([[first + i * 7919 % 200 for i in range(length)]], dtype=np.int64)
        return genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))

    pipeline.generate(prompt(3), config)  # warms up; the same prompt again would come from the prefix cache
    metrics = pipeline.generate(prompt(4), config).perf_metrics
    rate = length / metrics.get_ttft().mean * 1e3 if kind == "prefill" else 1e3 / metrics.get_tpot().mean
    print(json.dumps({"tokens_per_second": rate}))


if __name__ == "__main__":
    main()
