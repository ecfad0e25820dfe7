"""Initial weights from which repeating a passage is learnt quickly (after about 0.3 million tokens).

Knows: how to lay a copying circuit into a fresh model. Does not know: text, training.

Looking up a fact rests on induction: find the place where the last tokens occurred before, and go on as it went on
there. From random weights a model finds this circuit only after many millions of tokens; here it is put in by hand,
and training then does what it likes with it ("mimetic initialisation", after arXiv:2305.09828; the circuit is that of
arXiv:2209.11895):

    all embeddings share a direction c, which gives attention something constant to hold on to;
    in layer 0 heads attend one (two, three) positions back, and add what they see there, turned by a rotation M;
    in later layers one head looks for the places whose predecessor, M e[j-1], is the present token, e[i], and adds
    the token it finds there, e[j], to the prediction; another looks for equal tokens, e[i] and e[j];
    in the last layer one head takes the present token back out, which tied embeddings would else predict again.
"""

import torch
from torch import Tensor, nn

from backend.demo.model import DemoLlama, Shape

SHARED = 0.5  # share of the squared length of each embedding that is the direction c
RESIDUAL = 0.02  # scale of random weights that write into the residual stream
LOCAL_PAIRS = 4  # how many of a head's rotating pairs, the fastest ones, tell the distance
LOCAL_SHARPNESS = 40.0  # attention score at the exact distance; a neighbour has four fifths of that
MATCH_SHARPNESS = 14.0  # attention score of a match; unrelated tokens score about a fifth
WRITE = 1.0  # length of what a circuit writes, relative to an embedding


def _orthogonal(rows: int, columns: int) -> Tensor:
    return nn.init.orthogonal_(torch.empty(rows, columns))


def _slow_dimensions(shape: Shape) -> Tensor:
    """Those of a head's dimensions that turn less than a radian in 1,000 positions; they compare at any distance."""
    rates = shape.rope_theta ** -(torch.arange(0, shape.head_width, 2) / shape.head_width)
    slow = (rates < 1e-3).nonzero().flatten()
    return torch.cat((slow, slow + shape.head_width // 2))


def _look_back(shape: Shape, distance: int, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key weights [head_width, width] of a head that attends `distance` positions back."""
    half = shape.head_width // 2
    angles = distance * shape.rope_theta ** -(torch.arange(half) / half)
    fast = (torch.arange(half) < LOCAL_PAIRS).float()
    query = torch.cat((fast, torch.zeros(half)))
    key = torch.cat((fast * angles.cos(), fast * angles.sin()))
    # A normalised state has length sqrt(width), of which c takes the share SHARED; scores are divided by
    # sqrt(head_width).
    along = (shape.width * SHARED) ** 0.5
    scale = (LOCAL_SHARPNESS * shape.head_width**0.5 / LOCAL_PAIRS) ** 0.5 / along
    return scale * torch.outer(query, direction), scale * torch.outer(key, direction)


def _match(shape: Shape, turn: Tensor, without: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key weights of a head that finds the places where `turn` e is the present token's e."""
    slow = _slow_dimensions(shape)
    frame = _orthogonal(len(slow), shape.width)
    own = shape.width * (1 - SHARED) * len(slow) / shape.width  # squared length that is left of e in the frame
    scale = (MATCH_SHARPNESS * shape.head_width**0.5 / own) ** 0.5
    query = torch.zeros(shape.head_width, shape.width)
    key = torch.zeros(shape.head_width, shape.width)
    query[slow] = scale * frame @ without
    key[slow] = scale * frame @ without @ turn.T
    return query, key


@torch.no_grad()
def initialise(model: DemoLlama) -> None:
    """Fills all weights; random numbers come from torch's global generator."""
    shape = model.shape
    width, per_head = shape.width, shape.head_width
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "embed" not in name:
            small = RESIDUAL if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            nn.init.normal_(weight, std=small * weight.shape[1] ** -0.5)

    direction = nn.functional.normalize(torch.randn(width), dim=0)
    without = torch.eye(width) - torch.outer(direction, direction)
    own = torch.randn(shape.vocabulary, width) * (1.0 / width) ** 0.5 @ without
    embedding = (1 - SHARED) ** 0.5 * own + SHARED**0.5 * direction
    model.model.embed_tokens.weight.copy_(embedding)

    turns = [without @ _orthogonal(width, width) @ without for _ in range(shape.heads)]
    for index, layer in enumerate(model.layers()):
        attention = layer.self_attn
        for head in range(shape.heads):
            rows = slice(head * per_head, (head + 1) * per_head)
            if index == 0 and head < shape.heads - 1:
                query, key = _look_back(shape, head + 1, direction)
                turn = turns[head]
            elif index > 0 and head < 2:
                query, key = _match(shape, turns[0] if head == 0 else torch.eye(width), without)
                turn = without
            elif index == shape.layers - 1 and head == shape.heads - 1:
                query, key = _look_back(shape, 0, direction)
                turn = -without
            else:
                continue
            frame = _orthogonal(per_head, width)
            attention.q_proj.weight[rows] = query
            attention.k_proj.weight[rows] = key
            attention.v_proj.weight[rows] = frame @ without
            attention.o_proj.weight[:, rows] = WRITE * turn @ frame.T * per_head**-0.5
