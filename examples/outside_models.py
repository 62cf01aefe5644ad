"""Models that know nothing of lo_theory: a GRU, torch's own Transformer, a Hugging Face BERT, judged against the truth.

python examples/outside_models.py [--steps 2000] [--sequences 1000]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from lo_theory import Key, evaluate, from_logits, nae_sat

PROBLEM = nae_sat(8, 24, seed=0)
LENGTH, MASK_ID, WIDTH = PROBLEM.layout.length, 2, 64


class Recurrent(nn.Module):
    """A GRU that reads the sequence from both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(3, WIDTH), nn.Linear(2 * WIDTH, 2)
        self.gru = nn.GRU(WIDTH, WIDTH, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, L, 2] of token ids [B, L]: 0, 1, and 2 for the mask."""
        return self.head(self.gru(self.embedding(tokens))[0])


class Attentive(nn.Module):
    """torch.nn.TransformerEncoder with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(3, WIDTH), nn.Parameter(torch.randn(LENGTH, WIDTH) / 8)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(WIDTH, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, L, 2] of token ids [B, L]: 0, 1, and 2 for the mask."""
        return self.head(self.encoder(self.embedding(tokens) + self.positions))


def train(model: nn.Module, steps: int, *, batch: int = 128) -> nn.Module:
    """A loop of one's own: fresh data, a share of the tokens hidden, cross-entropy where they are."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for step in range(steps):
        data = torch.from_numpy(PROBLEM.sample(Key(1).fold(step), batch)).long()
        hidden = torch.rand(data.shape) < torch.rand(batch, 1)
        logits = model(torch.where(hidden, MASK_ID, data))
        loss = nn.functional.cross_entropy(logits[hidden], data[hidden])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def hugging_face() -> Any:
    """A BERT with random weights, made on the spot: its mask has the id 4, values are the ids 5 to 8."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForMaskedLM(BertConfig(vocab_size=10, max_position_embeddings=LENGTH, **sizes)).eval()


def main(arguments: list[str] | None = None) -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--sequences", type=int, default=1000)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    for model in (Recurrent(), Attentive()):
        found = evaluate(train(model, given.steps), PROBLEM, sequences=given.sequences)
        print(f"\n{type(model).__name__}\n{found!r}")
        found.page(f"{type(model).__name__.lower()}.html")
    try:
        bert = hugging_face()
    except ImportError:
        print("\ntransformers is not installed (pip install '.[interop]'): no BERT")
        return
    posterior = from_logits(bert, PROBLEM, ids={"latent": [5, 6], "observation": [7, 8]}, mask_id=4)
    print(f"\nBertForMaskedLM, random weights\n{evaluate(posterior, PROBLEM, sequences=given.sequences)!r}")


if __name__ == "__main__":
    main()
