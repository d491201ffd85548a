"""RWKV-7 as its paper (arXiv 2503.14456) writes it: one token after the other, in float64, nothing fused. Neither
`transformers` nor another library is asked: this is the oracle of the family's golden."""
import torch


def layer_norm(x, weight, bias, eps):
    return (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + eps) * weight + bias


class Reference:
    """Weights by the names of RWKV7ForCausalLM's folders."""

    def __init__(self, state, layers, head_dim, eps):
        self.state = {name: tensor.double() for name, tensor in state.items()}
        self.layers, self.head_dim, self.eps = layers, head_dim, eps

    def norm(self, name, x):
        return layer_norm(x, self.state[name + ".weight"], self.state[name + ".bias"], self.eps)

    def low_rank(self, name, x, activation=lambda value: value):
        inner = activation(self.state[f"{name}.lora.0.weight"] @ x)
        return self.state[f"{name}.lora.2.weight"] @ inner + self.state.get(f"{name}.lora.2.bias", 0)

    def logits(self, tokens):
        width = self.state["model.embeddings.weight"].shape[1]
        heads = width // self.head_dim
        before = [[torch.zeros(width, dtype=torch.float64) for _ in range(2)] for _ in range(self.layers)]
        memory = [torch.zeros(heads, self.head_dim, self.head_dim, dtype=torch.float64) for _ in range(self.layers)]
        rows = []
        for token in tokens.tolist():
            x = self.norm("model.layers.0.pre_norm", self.state["model.embeddings.weight"][token])
            first_value = None
            for layer in range(self.layers):
                name = f"model.layers.{layer}."
                h = self.norm(name + "attn_norm", x)
                mixed, first_value = self.time_mix(name + "attn.", h, before[layer][0], memory[layer], first_value)
                before[layer][0] = h
                x = x + mixed
                h = self.norm(name + "ffn_norm", x)
                shifted = h + (before[layer][1] - h) * self.state[name + "ffn.x_k"]
                before[layer][1] = h
                x = x + self.state[name + "ffn.value.weight"] @ torch.relu(self.state[name + "ffn.key.weight"] @ shifted) ** 2
            rows.append(self.state["lm_head.weight"] @ self.norm("model.norm", x))
        return torch.stack(rows)

    def time_mix(self, name, x, before, memory, first_value):
        """memory [heads, values, keys] is changed in place."""
        w = self.state
        mix = {part: x + (before - x) * w[f"{name}x_{part}"].flatten() for part in "rwkvag"}
        r, k, v = (w[f"{name}{part}_proj.weight"] @ mix[part] for part in "rkv")
        decay = torch.exp(-torch.exp(torch.tensor(-0.5, dtype=torch.float64))
                          * torch.sigmoid(self.low_rank(name + "w_lora", mix["w"], torch.tanh)))
        if first_value is None:
            first_value = v
        else:
            v = v + (first_value - v) * torch.sigmoid(self.low_rank(name + "v_lora", mix["v"]))
        rate = torch.sigmoid(self.low_rank(name + "a_lora", mix["a"]))
        gate = self.low_rank(name + "g_lora", mix["g"], torch.sigmoid)
        removal = k * w[name + "k_k"]
        k = k * (1 + (rate - 1) * w[name + "k_a"])
        out = []
        for head in range(len(memory)):
            part = slice(head * self.head_dim, (head + 1) * self.head_dim)
            kk = removal[part] / removal[part].norm()
            change = torch.diag(decay[part]) - torch.outer(kk, rate[part] * kk)
            memory[head] = memory[head] @ change + torch.outer(v[part], k[part])
            y = layer_norm(memory[head] @ r[part], w[name + "g_norm.weight"][part], w[name + "g_norm.bias"][part],
                           self.head_dim * self.eps)
            out.append(y + (r[part] * k[part] * w[name + "r_k"][head]).sum() * v[part])
        return w[name + "o_proj.weight"] @ (torch.cat(out) * gate), first_value
